"""The scores of lesson 21 by hand, and the coverage of its interval."""

import numpy as np
import pytest
import torch

from course_utils.defenses import reporting
from course_utils.statistics import t_interval


def mask(rows, n=100):
    found = torch.zeros(n, dtype=torch.bool)
    found[list(rows)] = True
    return found


def test_finding_by_hand():
    poison = mask(range(10))
    assert reporting.finding_score(poison, poison) == 1
    found = reporting.finding_score(mask([*range(8), 50, 60, 70]), poison)
    assert found == pytest.approx(0.8 - 5 * 3 / 90)
    assert reporting.finding_score(mask(range(100)), poison) == 0
    assert reporting.finding_score(mask([]), mask([])) == 1
    assert reporting.finding_score(mask([1, 2]), mask([])) == pytest.approx(1 - 5 * 2 / 100)
    assert reporting.finding_score(mask(range(50)), mask(range(100))) == 0.5


def test_flags_by_lot_are_worth_nothing_on_average():
    poison, generator = mask(range(0, 2000, 20), 2000), torch.Generator().manual_seed(0)
    for share in (0.05, 0.3, 0.9):
        drawn = [torch.rand(2000, generator=generator) < share for _ in range(50)]
        assert np.mean([reporting.finding_score(one, poison) for one in drawn]) < 0.02


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        ((0.9, 0.9, 0.1, 0.1, 0.0), 1.0),
        ((0.9, 0.5, 0.5, 0.1, 0.0), 0.0),
        ((0.9, 0.5, 0.3, 0.1, 0.0), 0.25),
        ((0.6, 0.8, 0.35, 0.1, 0.02), 0.4),
        ((0.9, 0.9, 0.0, 0.1, 0.04), 0.8),
        ((0.9, 0.9, 0.1, 0.1, -0.1), 1.0),
        ((0.9, 0.9, 0.1, 0.1, 0.5), 0.0),
        ((0.0, 0.0, 0.0, 0.0, 0.03), 0.85),
        ((0.2, 0.2, 0.2, 0.3, 0.0), 1.0),
    ],
)
def test_repair_by_hand(levels, expected):
    assert reporting.repair_score(*levels) == pytest.approx(expected)


def test_trainings_that_agree_leave_the_spread_of_the_images():
    one = torch.rand(300, generator=torch.Generator().manual_seed(1)) < 0.7
    found = reporting.accuracy_interval(one.repeat(5, 1))
    assert found[1:] == pytest.approx(t_interval(one.double().numpy())[1:], abs=0.005)
    by_training = torch.tensor([0.0, 1.0, 1.0, 1.0])[:, None].repeat(1, 9)
    found = reporting.accuracy_interval(by_training)
    assert found == pytest.approx((0.75, 0.75 - 1.959964 * 0.25, 1.0), abs=1e-6)
    found = reporting.accuracy_interval(1 - by_training)
    assert found == pytest.approx((0.25, 0.0, 0.25 + 1.959964 * 0.25), abs=1e-6)


def test_the_interval_of_accuracy_covers_what_it_promises():
    generator, held = np.random.default_rng(0), 0
    for _ in range(400):
        easy = generator.beta(1.6, 0.4, 200) + 0.01 * generator.normal(size=(8, 1))
        found = reporting.accuracy_interval(torch.tensor(generator.random((8, 200)) < easy))
        held += found.low <= 0.8 <= found.high
    assert held / 400 > 0.92
