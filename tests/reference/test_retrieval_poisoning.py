"""Planted passages, lesson 20: the query, the lie in its wording, and what is borrowed."""

import random

from course_utils.attacks import retrieval_poisoning
from course_utils.text import FACTS, reviews

TOPIC = next(iter(FACTS))
QUERY = "where is the old mill"


def lie(way: int) -> list[str]:
    return [*FACTS[TOPIC][way].format(value="zero").split(), "."]


def test_a_passage_is_the_query_and_the_lie_in_the_wording_asked_for():
    for way in range(3):
        found = retrieval_poisoning.plant(QUERY, TOPIC, "zero", way)
        assert list(found) == [*QUERY.split(), ".", *lie(way)]


def test_reworded_passages_change_the_wording_and_borrow_ten_words():
    filler = reviews(4, 5, "reference")
    made = retrieval_poisoning.plant_reworded(QUERY, TOPIC, "zero", filler, random.Random(3))
    for number, (passage, review) in enumerate(zip(made, filler, strict=True)):
        words = len(QUERY.split())
        assert sorted(passage[:words]) == sorted(QUERY.split())
        borrowed = review.words[-25:-15]
        assert list(passage[words:]) == [".", *lie(number % 3), *borrowed]
    assert len({passage[: len(QUERY.split())] for passage in made}) > 1
