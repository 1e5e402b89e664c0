"""The search and its defenses, lesson 20, by hand-worked passages."""

from types import SimpleNamespace

import pytest

from course_utils.defenses import retrieval


def test_likeness_is_the_share_of_the_words_of_either():
    # three words of both among five of either
    assert retrieval.likeness(("a", "b", "c", "d"), ("b", "c", "d", "e")) == pytest.approx(3 / 5)
    assert retrieval.likeness(("a",), ("a", "b")) == pytest.approx(1 / 2)


def test_a_duplicate_is_what_is_more_alike_than_the_limit():
    found = [("a", "b", "c"), ("a", "b", "d"), ("e", "f")]  # the first two: 2 of 4
    assert retrieval.drop_duplicates(found, "", limit=0.5) == found
    assert retrieval.drop_duplicates(found, "", limit=0.4) == [found[0], found[2]]


def test_the_answer_that_enough_sources_state_is_the_most_frequent_one():
    assert retrieval.agreed_answer(["x", "y", "y"], 2) == "y"
    assert retrieval.agreed_answer(["x", "y", "y"], 3) is None
    assert retrieval.agreed_answer(["x", "x", "y", "y"], 2) == "x"


def test_a_search_gives_as_many_passages_as_asked_for():
    passages = [(f"word{number}", "mill") for number in range(14)]
    index = retrieval.build_index(passages)
    found = retrieval.search(index, "word3 mill", top=12)
    assert len(found) == 12 and found[0] == passages[3]


def test_every_filter_is_asked(monkeypatch):
    monkeypatch.setattr(retrieval, "stated", lambda passage, inn, topic: passage[0])
    found, question = [("x",), ("y",), ("z",)], SimpleNamespace(inn="", topic="")
    rest = [lambda found, query: found[1:]] * 2
    assert retrieval.answer(found, "", question, rest) == "z"
    assert retrieval.answer(found, "", question) == "x"
