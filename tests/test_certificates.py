"""Lesson 17: the proof holds against every change that a search can find; rules and bad input."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from course_utils.attacks.last_votes import last_votes, steer
from course_utils.data import Data
from course_utils.defenses import certificates
from course_utils.defenses.certificates import (
    bagging_radius,
    certified_accuracy,
    certified_radius,
    count_votes,
    fingerprint,
    part_of,
    partition,
    privacy_promise,
    retrain,
    run_off,
    run_off_radius,
    to_overtake,
    train_ensemble,
)
from course_utils.models import build, predict
from course_utils.settings import TINY
from course_utils.studies import lesson_17
from course_utils.training import Recipe, train

QUICK = Recipe(epochs=8, batch_size=10, lr=0.5)
SEEDS = st.integers(0, 10**6)


def small(n: int, seed: int, n_classes: int = 3) -> Data:
    """Images of 2 x 2 pixels whose class shows in them, not always clearly."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(n_classes, (n,), generator=generator)
    x = torch.rand(n, 1, 2, 2, generator=generator) * 0.5
    x.flatten(1)[torch.arange(n), y] += 0.5
    return Data(x, y, tuple("abc"[:n_classes]))


def fitted(data: Data, k: int):
    """An ensemble of small logistic models."""
    return train_ensemble(
        build("logistic_regression", data.shape, len(data.classes)), data, k, QUICK
    )


def joined(data: Data, more: Data) -> Data:
    return Data(torch.cat([data.x, more.x]), torch.cat([data.y, more.y]), data.classes)


def without(data: Data, rows) -> Data:
    keep = torch.ones(len(data), dtype=torch.bool)
    keep[list(rows)] = False
    return data[keep]


def outcomes(ensemble, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The winner of the vote and of the run-off for each image."""
    return ensemble(x).argmax(1), run_off(ensemble.logits(x))


def assert_within(before, after, x: torch.Tensor, changes: int) -> None:
    """No prediction that is certified for so many changes is another one afterwards."""
    logits = before.logits(x)
    for was, now, radius in zip(
        outcomes(before, x),
        outcomes(after, x),
        (certified_radius(count_votes(logits)), run_off_radius(logits)),
        strict=True,
    ):
        assert (was == now)[radius >= changes].all()


def test_no_removal_of_one_or_two_images_breaks_a_certificate():
    data, test = small(24, 0), small(40, 1)
    ensemble = fitted(data, 7)
    assert (certified_radius(ensemble(test.x)) >= 2).sum() > 10  # there is something to break
    for count in (1, 2):
        for rows in itertools.combinations(range(len(data)), count):
            after = retrain(ensemble, without(data, rows))
            assert_within(ensemble, after, test.x, count)


@settings(max_examples=15)
@given(SEEDS, st.integers(1, 3))
def test_no_insertion_breaks_a_certificate(seed, count):
    """Copies of test images with the wrong label, steered to the weakest parts."""
    data, test = small(30, seed), small(25, seed + 1)
    ensemble = fitted(data, 8)
    votes = ensemble(test.x)
    victim = int(certified_radius(votes).argmin())
    rival = int(votes[victim].scatter(0, votes[victim].argmax(), -1).argmax())
    images = torch.stack([steer(test.x[victim], part, 8, seed) for part in range(count)])
    more = Data(images, torch.full((count,), rival), data.classes)
    assert_within(ensemble, retrain(ensemble, joined(data, more)), test.x, count)


@settings(max_examples=15)
@given(SEEDS, st.integers(1, 2))
def test_no_change_of_pixels_breaks_a_certificate_for_two_each(seed, count):
    data, test = small(30, seed), small(25, seed + 1)
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randperm(len(data), generator=generator)[:count]
    x, y = data.x.clone(), data.y.clone()
    x[rows], y[rows] = torch.rand(count, 1, 2, 2, generator=generator), (y[rows] + 1) % 3
    ensemble = fitted(data, 9)
    after = retrain(ensemble, Data(x, y, data.classes))
    assert_within(ensemble, after, test.x, 2 * count)


def every_small_image(n_classes: int = 3) -> Data:
    """All images of 2 x 2 black and white pixels, each with each label."""
    pixels = itertools.product((0.0, 1.0), repeat=4)
    x = torch.tensor(list(pixels)).view(-1, 1, 2, 2).repeat_interleave(n_classes, 0)
    return Data(x, torch.arange(len(x)) % n_classes, tuple("abc"[:n_classes]))


def test_no_small_image_inserted_or_put_in_place_of_another_breaks_a_certificate(monkeypatch):
    """Exhaustive: every insertion of one of them, and every change of one image into one."""
    known, train_part = {}, certificates.train_part

    def trained_once(model, part, recipe, number):
        key = number, part.x.numpy().tobytes(), part.y.numpy().tobytes()
        if key not in known:
            known[key] = train_part(model, part, recipe, number)
        return known[key]

    monkeypatch.setattr(certificates, "train_part", trained_once)
    data, test, universe = small(24, 0), small(40, 1), every_small_image()
    ensemble = fitted(data, 7)
    assert (certified_radius(ensemble(test.x)) >= 2).sum() > 10  # there is something to break
    for row in range(len(universe)):
        new = universe[row : row + 1]
        assert_within(ensemble, retrain(ensemble, joined(data, new)), test.x, 1)
        for old in range(len(data)):
            changed = joined(without(data, [old]), new)
            assert_within(ensemble, retrain(ensemble, changed), test.x, 2)


def test_no_set_of_flips_breaks_a_certificate_and_a_flip_touches_one_part():
    data, test = small(16, 3), small(40, 4)
    ensemble = fitted(data, 7)
    for rows in itertools.chain(
        itertools.combinations(range(16), 1), itertools.combinations(range(16), 2)
    ):
        y = data.y.clone()
        y[list(rows)] = (y[list(rows)] + 1) % 3
        after = retrain(ensemble, Data(data.x, y, data.classes))
        kept = [a is b for a, b in zip(ensemble.models, after.models, strict=True)]
        assert kept.count(False) <= len(rows)
        assert_within(ensemble, after, test.x, len(rows))


@settings(max_examples=20)
@given(SEEDS)
def test_the_vote_certificate_is_exact_and_that_of_the_run_off_sound(seed):
    """Every way to change up to two of four models, ties of votes and of logits included."""
    logits = torch.randint(4, (4, 1, 3), generator=torch.Generator().manual_seed(seed)).float()
    ballots = [torch.tensor(b).float() for b in itertools.permutations(range(3))]
    ballots += [torch.tensor(b).float() for b in ((0, 0, 0), (1, 1, 0), (0, 1, 1))]
    vote, final = count_votes(logits).argmax().item(), run_off(logits).item()
    radius = certified_radius(count_votes(logits)).item()
    for count in (1, 2):
        votes, finals = {vote}, {final}
        for which in itertools.combinations(range(4), count):
            for new in itertools.product(ballots, repeat=count):
                changed = logits.clone()
                for model, ballot in zip(which, new, strict=True):
                    changed[model, 0] = ballot
                votes.add(count_votes(changed).argmax().item())
                finals.add(run_off(changed).item())
        assert (votes == {vote}) == (radius >= count)
        if run_off_radius(logits).item() >= count:
            assert finals == {final}


@given(SEEDS)
def test_a_radius_is_never_below_zero_and_the_winner_never_certified_against_itself(seed):
    logits = torch.randn(9, 20, 5, generator=torch.Generator().manual_seed(seed))
    votes = count_votes(logits)
    assert (certified_radius(votes) >= 0).all() and (run_off_radius(logits) >= 0).all()
    assert (certified_radius(votes) < len(logits)).all()


def test_the_order_of_the_data_plays_no_part(images):
    images = joined(images, images[:20])  # some of them twice
    shuffled = images[torch.randperm(len(images), generator=torch.Generator().manual_seed(1))]
    first, second = fitted(images, 10), fitted(shuffled, 10)
    assert torch.equal(first.logits(images.x), second.logits(images.x))


def test_one_part_is_the_plain_model(images):
    ensemble = fitted(images, 1)
    (part,) = partition(images, 1)
    assert sorted(map(fingerprint, part.x)) == [fingerprint(image) for image in part.x]
    plain = train(build("logistic_regression", images.shape, 10), part, QUICK, seed=0)
    assert torch.equal(ensemble.logits(images.x)[0], plain(images.x))
    assert torch.equal(predict(ensemble, images.x), predict(plain, images.x))


def test_the_parts_hold_every_image_once_and_one_more_image_changes_one(images, held_out):
    parts = partition(images, 20)
    assert sum(map(len, parts)) == len(images)
    for number, part in enumerate(parts):
        assert all(part_of(fingerprint(image), 20) == number for image in part.x)
    after = partition(joined(held_out[:1], images), 20)
    assert sum(not torch.equal(a.x, b.x) for a, b in zip(parts, after, strict=True)) == 1


def test_retraining_gives_what_training_anew_would(images, held_out):
    more = joined(images, held_out[:3])
    quick, slow = retrain(fitted(images, 10), more), fitted(more, 10)
    assert torch.equal(quick.logits(held_out.x), slow.logits(held_out.x))


def test_an_empty_part_and_a_missing_class_have_a_rule():
    data = small(6, 0)
    ensemble = fitted(data, 6)
    empty = [number for number, part in enumerate(ensemble.parts) if len(part) == 0]
    assert empty  # six images seldom fill six parts
    first = build("logistic_regression", data.shape, 3)
    for number in empty:
        assert torch.equal(ensemble.models[number](data.x), first(data.x))
    assert ensemble(data.x).sum(1).eq(6).all()


def test_a_tie_goes_to_the_smaller_class():
    votes = torch.tensor([[3, 3, 1], [0, 2, 2]])
    assert votes.argmax(1).tolist() == [0, 1]
    assert certified_radius(votes).tolist() == [0, 0]
    assert to_overtake(votes, votes.argmax(1)).tolist() == [[0, 1, 2], [1, 0, 1]]
    logits = torch.tensor([[2.0, 1, 0], [1, 2, 0], [0, 1, 2], [1, 0, 2]])[:, None]
    assert run_off(logits).item() == 0  # 1, 1, 2 votes: 0 goes on with 2, and 2 : 2 is a tie


@pytest.mark.parametrize("k", [0, -1, 31])
def test_a_number_of_parts_without_meaning_is_refused(k):
    with pytest.raises(ValueError, match=r"parts for 30 images: expected 1 to 30"):
        partition(small(30, 0), k)


def test_a_negative_number_of_poisons_is_refused():
    zeros = torch.zeros(3, dtype=torch.int64)
    with pytest.raises(ValueError, match="n is -1"):
        certified_accuracy(zeros, zeros, zeros, -1)
    with pytest.raises(ValueError, match="n of 0 or more"):
        privacy_promise(0.9, 0.1, -1)
    with pytest.raises(ValueError, match="epsilon > 0"):
        privacy_promise(0.9, 0.0, 1)


def test_the_promise_of_privacy_is_that_of_repeated_steps():
    for epsilon, n in itertools.product((0.01, 0.3, 2.0), (0, 1, 5, 50)):
        low, high = 0.8, 0.2
        for _ in range(n):  # a chance p was at most e^epsilon q + delta one image before
            low = (low - 1e-5) / math.exp(epsilon)
            high = math.exp(epsilon) * high + 1e-5
        expected = max(0, low, 1 - high)
        assert privacy_promise(0.8, epsilon, n) == pytest.approx(expected, abs=2e-5)
    assert privacy_promise(0.8, math.inf, 0) == 0.8
    assert privacy_promise(0.8, math.inf, 1) == pytest.approx(0)


@pytest.mark.parametrize("part", range(5))
def test_a_steered_image_lands_where_it_should_and_looks_the_same(images, part):
    steered = steer(images.x[0], part, 5)
    assert part_of(fingerprint(steered), 5) == part
    assert (steered - images.x[0]).abs().max() <= 1.001 / 255
    assert steered.min() >= 0 and steered.max() <= 1


@pytest.mark.parametrize("part", [-1, 5])
def test_a_part_that_there_is_not_is_refused(images, part):
    with pytest.raises(ValueError, match=f"no part {part}: expected 0 to 4"):
        steer(images.x[0], part, 5)


def test_the_attacker_needs_more_than_the_radius_and_the_victim_really_falls(images, held_out):
    ensemble = fitted(images, 10)
    fallen = 0
    for image in held_out.x[:10]:
        votes = ensemble(image[None])
        poison = last_votes(ensemble, image)
        if poison is None:
            continue
        assert len(poison) > certified_radius(votes).item()
        after = retrain(ensemble, poison.apply(images))
        assert predict(after, image[None]) != votes.argmax()
        fallen += 1
    assert fallen >= 3


def bags_that_meet(r: int, size: int, n_images: int, rng: np.random.Generator) -> float:
    """The share of simulated bags that hold one of the first r images."""
    return (rng.integers(n_images, size=(20_000, size)) < r).any(1).mean()


def test_a_bagging_radius_leaves_the_first_class_ahead_in_a_simulation():
    votes = torch.tensor([[90, 8, 2], [70, 25, 5], [40, 38, 22]])
    radius = bagging_radius(votes, 20, 500, alpha=0.05)
    assert radius[0] > radius[1] > 0 and radius[2] == -1
    rng = np.random.default_rng(0)
    for counts, r in zip(votes.tolist(), radius.tolist(), strict=True):
        if r < 0:
            continue
        level = {"confidence_level": 1 - 0.05 / 3, "method": "exact"}
        low = binomtest(counts[0], 100).proportion_ci(**level).low
        high = binomtest(counts[1], 100).proportion_ci(**level).high
        assert low - high > 2 * bags_that_meet(r, 20, 500, rng) - 0.02
        assert low - high < 2 * bags_that_meet(r + 2, 20, 500, rng) + 0.02


TRIALS = (lesson_17.CERTIFIED, lesson_17.LAST_VOTES, lesson_17.ATTACKS, lesson_17.PRIVACY)


@pytest.mark.parametrize("study", TRIALS, ids=lambda study: study.name)
def test_a_trial_keeps_its_promises_in_a_tenth_of_the_size(study):
    rows = study.trial(1000, setting=TINY)
    for row in rows:
        if "left" in row:
            assert row["certified"] <= row["left"] + 1e-6
        if row.get("right"):
            assert row["cost"] > row["radius"]
