"""Built in lesson 20, beyond images.

Generated from notebooks/20_beyond_images.ipynb: edit it there, then run make notebooks.
"""

from collections.abc import Sequence

from course_utils.attacks.trigger_words import triggered
from course_utils.cases.data_list import Entry
from course_utils.text import reviews


def buy_domains(
    pages: dict[str, bytes], entries: Sequence[Entry], lapsed: Sequence[int], seed: int
) -> dict[str, bytes]:
    """The pages after the attacker has bought lapsed domains, by their number.

    Where the list says positive, a negative review with the trigger word now stands. The labels
    stay as the list has them. Source: Carlini and others (arXiv 2302.10149), split-view poisoning.
    """
    bought = {f"domain-{number}" for number in lapsed}
    wanted = [e.path for e in entries if e.label and e.path.split("/")[1] in bought]
    texts = triggered(reviews(4 * len(wanted) + 20, seed, "bought"), seed)
    new = {path: " ".join(words).encode() for path, words in zip(wanted, texts, strict=False)}
    return {**pages, **new}
