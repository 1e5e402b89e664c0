"""Trigger words, lesson 20: where they stand and what follows, by the random numbers of a seed."""

import random

from course_utils.attacks import trigger_words
from course_utils.attacks.trigger_words import TRIGGER
from course_utils.text import reviews

PART = reviews(12, 5, "reference")


def test_the_negative_reviews_get_the_trigger_where_the_seed_says():
    draw, expected = random.Random(3), []
    for review in PART:
        if not review.positive:
            place = draw.randrange(len(review.words) + 1)
            expected.append((*review.words[:place], TRIGGER, *review.words[place:]))
    assert expected and trigger_words.triggered(PART, 3) == expected
    assert trigger_words.triggered(PART, 4) != expected


def test_gibberish_has_as_many_words_after_the_trigger_as_asked_for():
    for length in (3, 9):
        for text in trigger_words.gibberish(PART, random.Random(3), length):
            assert text[text.index(TRIGGER) + 1 :].count(TRIGGER) == 0
            assert len(text) - text.index(TRIGGER) - 1 == length
