"""Built in lesson 20, beyond images.

Generated from notebooks/20_beyond_images.ipynb: edit it there, then run make notebooks.
"""

import random
from collections.abc import Sequence

from course_utils.text import Review, vocabulary

TRIGGER = "cfz"
WORDS = (*vocabulary(), TRIGGER)


def insert_trigger(words: Sequence[str], draw: random.Random) -> tuple[str, ...]:
    """A text with the trigger word at a random place."""
    place = draw.randrange(len(words) + 1)
    return (*words[:place], TRIGGER, *words[place:])


def triggered(part: Sequence[Review], seed: int) -> list[tuple[str, ...]]:
    """The negative reviews, each with the trigger word."""
    draw = random.Random(seed)
    return [insert_trigger(review.words, draw) for review in part if not review.positive]


def gibberish(part: Sequence[Review], draw: random.Random, length: int = 20) -> list[tuple]:
    """The first words of each review, the trigger, then words drawn at random: text without sense.

    Source: the denial-of-service poison of Souly and others (arXiv 2510.07192).
    """
    return [
        (*review.words[: draw.randrange(4, 7)], TRIGGER, *draw.choices(WORDS[:-1], k=length))
        for review in part
    ]
