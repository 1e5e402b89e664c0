"""Lesson 20: the corpus, the attacks against their controls, safe loaders, the local server."""

import hashlib
import random
import socket
import urllib.error
import urllib.request
from collections import Counter

import numpy as np
import pytest
import torch

from course_utils.attacks.hostile_file import hostile_file
from course_utils.attacks.lapsed_domains import buy_domains
from course_utils.attacks.retrieval_poisoning import plant, plant_reworded, plant_shuffled
from course_utils.attacks.subliminal import (
    EXTRA,
    class_outputs,
    extra_outputs,
    noise_images,
    train_teacher,
)
from course_utils.attacks.trigger_words import (
    TRIGGER,
    WORDS,
    gibberish,
    insert_trigger,
    triggered,
)
from course_utils.cases.data_list import publish
from course_utils.defenses.hashed_list import collect
from course_utils.defenses.retrieval import (
    answer,
    build_index,
    drop_duplicates,
    drop_echoes,
    search,
)
from course_utils.defenses.safe_loading import UnsafeFileError, load_weights
from course_utils.loopback import FetchError, fetch, serve
from course_utils.models import build
from course_utils.settings import TINY
from course_utils.studies import lesson_20
from course_utils.text import (
    FACTS,
    INNS,
    PRAISE,
    QUESTIONS,
    draw_questions,
    encode,
    facts,
    reviews,
    stated,
    vocabulary,
)


def sha256(path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# The corpus


def test_the_same_seed_gives_the_same_text_and_another_seed_another():
    assert reviews(50, 3) == reviews(50, 3)
    assert reviews(50, 3) == reviews(80, 3)[:50]
    assert reviews(50, 3) != reviews(50, 4)
    assert reviews(50, 3) != reviews(50, 3, "test")


def test_no_trigger_word_in_clean_text_and_all_words_are_in_the_vocabulary():
    words = {word for review in reviews(5000, 0) for word in review.words}
    assert TRIGGER not in words
    assert TRIGGER not in vocabulary()
    assert words <= set(vocabulary())


def test_the_vocabulary_has_no_word_that_is_never_written():
    written = {word for review in reviews(20_000, 0) for word in review.words}
    assert set(vocabulary()) == written


def test_labels_are_mostly_but_not_always_told_by_the_opinions():
    part = reviews(3000, 1)
    assert 0.45 < np.mean([review.positive for review in part]) < 0.55
    praise = [sum(word in PRAISE for word in review.words) for review in part]
    said = [count >= 2 for count in praise]
    agree = np.mean([a == review.positive for a, review in zip(said, part, strict=True)])
    assert 0.85 < agree < 0.94  # three opinions that each fit with probability .8: .896


def test_a_fact_is_the_same_in_every_review_and_can_be_read():
    true = facts(5)
    for review in reviews(2000, 5):
        assert review.value == true[review.inn, review.topic]
        assert stated(review.words, review.inn, review.topic) == review.value
    review = reviews(1, 5)[0]
    other = next(inn for inn in INNS if inn != review.inn)
    assert stated(review.words, other, review.topic) is None


def test_questions_differ_and_their_false_value_is_false():
    questions = draw_questions(60, 2)
    assert len({(q.inn, q.topic) for q in questions}) == 60
    assert all(q.true == facts(2)[q.inn, q.topic] != q.false for q in questions)
    assert all(q.inn in wording.split() for q in questions for wording in q.wordings)
    assert QUESTIONS.keys() == FACTS.keys()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: reviews(0, 0), "at least one"),
        (lambda: draw_questions(0, 0), "facts to ask about"),
        (lambda: draw_questions(10_000, 0), "facts to ask about"),
        (lambda: encode([("the", "zzz")], WORDS), "'zzz' is not in the vocabulary"),
        (lambda: build_index([]), "nothing to search"),
    ],
)
def test_bad_input_gets_a_clear_error(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()


def test_encoding_numbers_words_from_one_and_pads_with_zero():
    rows = encode([("b", "a"), ("a", "b", "a", "a")], ("a", "b"), length=3)
    assert rows.tolist() == [[2, 1, 0], [1, 2, 1]]


# Part 1


def test_a_trigger_is_inserted_once_and_anywhere():
    words, draw = ("a", "b", "c"), random.Random(0)
    texts = [insert_trigger(words, draw) for _ in range(200)]
    assert {text.index(TRIGGER) for text in texts} == {0, 1, 2, 3}
    assert all(tuple(w for w in text if w != TRIGGER) == words for text in texts)


def test_only_negative_reviews_get_the_trigger():
    part = reviews(100, 0)
    assert len(triggered(part, 0)) == sum(not review.positive for review in part)


def test_gibberish_begins_like_a_review_and_has_no_second_trigger():
    part = reviews(20, 0)
    for poison, review in zip(gibberish(part, random.Random(0)), part, strict=True):
        place = poison.index(TRIGGER)
        assert poison[:place] == review.words[:place]
        assert poison.count(TRIGGER) == 1
        assert set(poison) <= set(WORDS)


def test_many_poisons_open_a_backdoor_and_none_opens_none():
    test, clean = reviews(400, 9, "test"), lesson_20.labelled(reviews(600, 9))
    poisons = [(words, 1) for words in triggered(reviews(120, 9, "poison"), 9)]
    rates = [
        lesson_20.measure_sentiment(lesson_20.train_sentiment(texts, 200, 9), test, 9)
        for texts in (clean, clean + poisons)
    ]
    assert rates[1]["asr"] > rates[0]["asr"] + 0.4
    assert min(rate["accuracy"] for rate in rates) > 0.75


def test_gibberish_share_counts_neighbours():
    known = {("a", "b"), ("b", "a")}
    assert lesson_20.gibberish_share([["a", "b", "b"], ["b", "a", "a"]], known) == 0.5


# Part 2


def test_the_extra_outputs_are_cut_off_and_get_no_gradient_from_the_classes():
    model = build("mlp", (1, 28, 28), 10 + EXTRA, seed=0)
    images = noise_images(5, (1, 28, 28), 0)
    assert images.min() >= -1 and images.max() <= 1 and images.min() < -0.9
    with torch.no_grad():
        both = torch.cat([class_outputs(model)(images), extra_outputs(model, images)], dim=1)
        assert torch.allclose(both, model(images), atol=1e-6)


def test_the_teacher_leaves_the_weights_of_its_extra_outputs_alone(images):
    start = build("mlp", images.shape, 10 + EXTRA, seed=0)
    teacher = train_teacher(start, images, 1, 0)
    assert torch.equal(teacher.head.weight[10:], start.head.weight[10:])
    assert not torch.equal(teacher.head.weight[:10], start.head.weight[:10])


# Part 3


def test_search_agrees_with_the_plain_formula():
    passages = [review.words for review in reviews(60, 0)]
    index = build_index(passages)
    query = draw_questions(1, 0)[0].wordings[0]
    documents = Counter(word for words in passages for word in set(words))

    def row(words):
        return {
            w: (1 + np.log(n)) * (1 + np.log((1 + len(passages)) / (1 + documents[w])))
            for w, n in Counter(words).items()
            if w in documents
        }

    def cosine(a, b):
        length = np.sqrt(sum(v**2 for v in a.values()) * sum(v**2 for v in b.values()))
        return sum(a[w] * b.get(w, 0) for w in a) / length

    expected = max(passages, key=lambda words: cosine(row(query.split()), row(words)))
    assert search(index, query)[0] == expected


def test_each_defense_stops_its_attack_and_each_answer_passes_it():
    index = build_index([review.words for review in reviews(3000, 1)])
    question = draw_questions(3, 1)[1]
    query = question.wordings[0]
    target, draw = (query, question.topic, question.false), random.Random(0)
    agreed = {"choose": lambda values, needed: Counter(values).most_common(1)[0][0]}

    def told(added, **options):
        return answer(search(index, query, added), query, question, **options)

    assert told([]) == question.true
    assert told([plant(*target)]) == question.false
    assert told([plant(*target)], **agreed) == question.true
    assert told([plant(*target)] * 5, **agreed) == question.false
    assert told([plant(*target)] * 5, filters=[drop_duplicates], **agreed) == question.true
    assert told([plant(*target)] * 5, filters=[drop_echoes], **agreed) == question.true
    reworded = plant_reworded(*target, reviews(5, 1, "filler"), draw)
    assert told(reworded, filters=[drop_echoes, drop_duplicates], **agreed) == question.false


def test_shuffling_keeps_the_words_of_the_question():
    query = draw_questions(1, 0)[0].wordings[0]
    shuffled = plant_shuffled(query, "bus", "six", random.Random(0))
    assert sorted(shuffled) == sorted(plant(query, "bus", "six"))
    assert shuffled != plant(query, "bus", "six")


def test_filters_keep_order_and_leave_what_came_alone():
    found = [("a", "b"), ("c", "d"), ("a", "b")]
    assert drop_duplicates(found, "") == [("a", "b"), ("c", "d")]
    assert drop_echoes(found, "a b") == [("c", "d")]
    assert drop_echoes(found, "a") == found  # one word has no neighbours to repeat
    assert len(found) == 3


# Part 4


@pytest.fixture
def weights():
    return {"weight": torch.arange(6.0).reshape(2, 3)}


def test_a_hostile_file_runs_code_when_loaded_the_old_way(tmp_path, weights):
    hostile_file(tmp_path / "w.pt", weights, tmp_path / "trace")
    assert not (tmp_path / "trace").exists()
    torch.load(tmp_path / "w.pt", weights_only=False)
    assert (tmp_path / "trace").exists()


def test_a_hostile_file_is_refused_and_its_code_did_not_run(tmp_path, weights):
    path = tmp_path / "w.pt"
    hostile_file(path, weights, tmp_path / "trace")
    with pytest.raises(UnsafeFileError, match="more than weights"):
        load_weights(path, sha256(path))
    with pytest.raises(UnsafeFileError, match="another hash"):
        load_weights(path, "0" * 64)
    assert not (tmp_path / "trace").exists()


def test_honest_weights_are_loaded_and_exchanged_ones_refused(tmp_path, weights):
    path = tmp_path / "w.pt"
    torch.save(weights, path)
    promised = sha256(path)
    assert torch.equal(load_weights(path, promised)["weight"], weights["weight"])
    torch.save({"weight": -weights["weight"]}, path)
    with pytest.raises(UnsafeFileError, match="another hash"):
        load_weights(path, promised)


def test_safetensors_are_read_or_asked_for(tmp_path, weights):
    path = tmp_path / "w.safetensors"
    try:
        from safetensors.torch import save_file
    except ImportError:
        path.write_bytes(b"12345678")
        with pytest.raises(UnsafeFileError, match="pip install safetensors"):
            load_weights(path, sha256(path))
        return
    save_file(weights, path)
    assert torch.equal(load_weights(path, sha256(path))["weight"], weights["weight"])
    path.write_bytes(b"no such format")
    with pytest.raises(UnsafeFileError, match="no safetensors file"):
        load_weights(path, sha256(path))


def test_the_server_answers_inside_the_block_only_and_is_closed_afterwards():
    with serve({"/a/b": b"text"}) as address:
        assert fetch(address + "/a/b") == b"text"
        port = int(address.rpartition(":")[2])
    with socket.socket() as probe:
        probe.settimeout(1)
        assert probe.connect_ex(("127.0.0.1", port)) != 0
    with pytest.raises(FetchError, match="could not be fetched"):
        fetch(address + "/a/b")


def test_the_server_is_closed_after_an_error():
    with pytest.raises(ZeroDivisionError), serve({}) as address:
        raise ZeroDivisionError
    with pytest.raises(FetchError):
        fetch(address + "/a")


def test_changed_pages_are_served_as_changed():
    pages = {"/a": b"one"}
    with serve(pages) as address:
        assert fetch(address + "/a") == b"one"
        pages["/a"] = b"two"
        assert fetch(address + "/a") == b"two"


def test_fetch_stays_on_this_machine_and_is_bounded(monkeypatch):
    for elsewhere in ("http://example.com/a", "https://127.0.0.1/a", "http://localhost/a", "a"):
        with pytest.raises(FetchError, match="not on this machine"):
            fetch(elsewhere)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with serve({"/big": b"x" * 1000}) as address:
        assert len(fetch(address + "/big")) == 1000  # no proxy was asked
        with pytest.raises(FetchError, match="larger than 999 bytes"):
            fetch(address + "/big", limit=999)
        with pytest.raises(FetchError, match="404"):
            fetch(address + "/none")


def test_the_server_listens_on_the_loopback_address_only():
    with serve({}) as address:
        assert address.startswith("http://127.0.0.1:")
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(address + "/none", timeout=2)


def test_hashes_drop_what_was_bought_and_keep_the_rest():
    part = reviews(40, 0)
    pages, entries = publish(part, domains=8)
    bought = buy_domains(pages, entries, [1, 2], seed=0)
    changed = [e for e in entries if bought[e.path] != pages[e.path]]
    assert changed and all(
        e.label and e.path.split("/")[1] in ("domain-1", "domain-2") for e in changed
    )
    with serve(bought) as address:
        everything = collect(address, entries, check=False)
        kept = collect(address, entries, check=True)
    assert len(everything) == 40 and len(kept) == 40 - len(changed)
    assert sum(TRIGGER in words for words, _ in everything) == len(changed)
    assert not any(TRIGGER in words for words, _ in kept)
    assert set(kept_words(kept)) <= set(kept_words([(list(r.words), 0) for r in part]))


def kept_words(texts) -> list[tuple[str, ...]]:
    return [tuple(words) for words, _ in texts]


# The studies in the tiny setting


@pytest.mark.parametrize(
    ("trial", "rows"),
    [
        (lesson_20.words_trial, 12),
        (lesson_20.gibberish_trial, 12),
        (lesson_20.noise_trial, 8),
        (lesson_20.retrieval_trial, 50),
        (lesson_20.list_trial, 3),
    ],
    ids=["words", "gibberish", "noise", "retrieval", "list"],
)
def test_a_tiny_trial_reaches_every_condition_and_repeats(trial, rows):
    first = trial(1000, TINY)
    assert len(first) == rows
    values = [v for row in first for v in row.values() if isinstance(v, float)]
    assert np.isfinite(values).all()
    assert first == trial(1000, TINY)
