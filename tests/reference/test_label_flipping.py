"""Label flips, lesson 02: which rows and labels, by hand and by a slow loop."""

import math
from collections import Counter

import pytest
import torch

from course_utils.attacks.label_flipping import (
    budget_for,
    choose_flips,
    label_losses,
    random_flips,
    targeted_flips,
    worst_flips,
)
from course_utils.threat import Indiscriminate, ThreatModel
from tests.reference.small import models, noise_data

DATA = noise_data()
SURROGATES = models(DATA, 3, 5)
with torch.no_grad():
    SURROGATES[1].head.weight.mul_(4)
GOAL = Indiscriminate()
THREAT = ThreatModel(6, placement="append")


def test_a_budget_is_a_rounded_share_of_the_data():
    assert [budget_for(DATA, share) for share in (0.001, 0.1, 0.15, 0.22)] == [1, 3, 4, 7]


def test_random_flips_take_each_row_and_each_wrong_label_equally_often():
    steps, rows = Counter(), Counter()
    for seed in range(60):
        poison = random_flips(DATA, GOAL, THREAT, seed)
        assert len(poison) == len(poison.base.unique()) == 6 and poison.placement == "append"
        assert torch.equal(poison.images, DATA.x[poison.base])
        steps.update(((poison.labels - DATA.y[poison.base]) % 3).tolist())
        rows.update(poison.base.tolist())
    assert set(steps) == {1, 2} and abs(steps[1] - steps[2]) < 90
    assert set(rows) == set(range(30)) and max(rows.values()) < 30
    first, again = (random_flips(DATA, GOAL, THREAT, 7) for _ in "ab")
    assert torch.equal(first.base, again.base) and torch.equal(first.labels, again.labels)


def test_targeted_flips_take_random_rows_of_their_class():
    drawings = []
    for seed in range(25):
        poison = targeted_flips(DATA, GOAL, THREAT, seed, source=2, into=0)
        assert len(poison.base.unique()) == 6 and poison.placement == "append"
        assert (DATA.y[poison.base] == 2).all() and (poison.labels == 0).all()
        assert torch.equal(poison.images, DATA.x[poison.base])
        drawings.append(poison.base.tolist())
    assert {row for rows in drawings for row in rows} == set(range(2, 30, 3))
    assert len({tuple(rows) for rows in drawings}) > 20
    assert targeted_flips(DATA, GOAL, THREAT, 4, 2, 0).base.tolist() == drawings[4]
    whole = targeted_flips(DATA, GOAL, ThreatModel(10), 4, source=1, into=2)
    assert sorted(whole.base.tolist()) == list(range(1, 30, 3))


def test_the_chosen_flips_by_hand():
    loss = torch.tensor([[9.0, 1.0, 2.0], [3.0, 8.0, 4.0], [6.0, 5.0, 0.5], [0.0, 0.1, 7.0]])
    labels = torch.tensor([0, 1, 2, 0])
    rows, new = choose_flips(loss, labels, 3)
    assert rows.tolist() == [3, 2, 1] and new.tolist() == [2, 0, 2]
    assert loss[0, 0] == 9.0


def test_the_losses_of_all_labels_are_the_mean_of_written_out_softmaxes():
    found = label_losses(SURROGATES, DATA)
    with torch.no_grad():
        logits = [model(DATA.x).double().tolist() for model in SURROGATES]
    for row in range(len(DATA)):
        for label in range(3):
            each = [
                math.log(sum(math.exp(value) for value in table[row])) - table[row][label]
                for table in logits
            ]
            assert found[row, label].item() == pytest.approx(sum(each) / 2, abs=1e-5)


def test_worst_flips_are_the_largest_losses():
    losses = label_losses(SURROGATES, DATA)
    wrong = [
        (losses[row, label].item(), row, label)
        for row in range(30)
        for label in range(3)
        if label != DATA.y[row]
    ]
    best: dict[int, tuple[float, int]] = {}
    for loss, row, label in sorted(wrong):
        best[row] = (loss, label)
    order = sorted(best, key=lambda row: -best[row][0])[:6]
    poison = worst_flips(SURROGATES, DATA, GOAL, THREAT)
    assert poison.base.tolist() == order and poison.placement == "append"
    assert poison.labels.tolist() == [best[row][1] for row in order]
    assert torch.equal(poison.images, DATA.x[poison.base])
