"""Built in lesson 20, beyond images.

Generated from notebooks/20_beyond_images.ipynb: edit it there, then run make notebooks.
"""

import random
from collections.abc import Sequence

from course_utils.text import FACTS, Review


def plant(query: str, topic: str, false: str, way: int = 0) -> tuple[str, ...]:
    """A passage that is found for a query and states something false: the query, then the lie.

    way: which of the three wordings the lie has. Source: Zou and others (arXiv 2402.07867),
    PoisonedRAG without access to the retriever.
    """
    return (*query.split(), ".", *FACTS[topic][way].format(value=false).split(), ".")


def plant_shuffled(query: str, topic: str, false: str, draw: random.Random) -> tuple[str, ...]:
    """The same, with the words of the query in random order: to a bag of words, no difference."""
    words = query.split()
    return plant(" ".join(draw.sample(words, len(words))), topic, false)


def plant_reworded(
    query: str, topic: str, false: str, filler: Sequence[Review], draw: random.Random
) -> list[tuple[str, ...]]:
    """Shuffled passages, each made unlike the others by ten words borrowed from a review."""
    passages = []
    for number, review in enumerate(filler):
        words = query.split()
        shuffled = " ".join(draw.sample(words, len(words)))
        lie = plant(shuffled, topic, false, way=number % 3)
        passages.append((*lie, *review.words[-25:-15]))
    return passages
