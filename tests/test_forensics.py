"""Lesson 18: the incidents of each attack, and a whole trial of rankings and drops."""

from dataclasses import replace

import pytest
import torch

from course_utils.cases import incidents, label_flips, transfer
from course_utils.data import Data
from course_utils.defenses.forensics import kept_after
from course_utils.models import predict
from course_utils.settings import TINY
from course_utils.studies import lesson_18
from course_utils.threat import Poison, Targeted


def test_an_incident_belongs_to_the_attack():
    case = label_flips.worst_case(0, TINY)
    model = case.train(case.plain, case.data)
    incident = incidents.draw_incident(model, case)
    assert predict(model, incident.image[None]).item() == incident.predicted != incident.true_class
    row = (predict(model, case.test.x) == case.test.y).nonzero()[0, 0]
    true_class = case.test.y[row].item()
    target = Targeted(case.test.x[row], true_class, (true_class + 1) % 10)
    assert incidents.draw_incident(model, replace(case, goal=target)) is None


def test_dropping_exactly_the_poisons_has_recall_one():
    rows = lesson_18.backdoor_trial(0, TINY)
    exact = [row for row in rows if row["ranking"] == incidents.POISONS]
    assert exact
    assert all(row["recall"] == 1 and row["auc"] == 1 for row in exact)
    assert {row["ranking"] for row in rows} >= {incidents.RANDOM, incidents.COSINE}


def test_a_targeted_incident_has_its_drop_in_two_parts():
    """Copies of the target with the wrong label: whoever drops all of them has it back."""
    case = label_flips.worst_case(1, TINY)
    row = (predict(case.train(case.plain, case.data), case.test.x) == case.test.y).nonzero()[0, 0]
    image, true_class = case.test.x[row], case.test.y[row].item()
    wrong = (true_class + 1) % 10
    base = (case.data.y == wrong).nonzero()[:12, 0]
    copies = Poison(image.repeat(12, 1, 1, 1), case.data.y[base], base)
    hit = replace(case, goal=Targeted(image, true_class, wrong), craft=lambda victim: copies)
    rows = {row["ranking"]: row for row in incidents.forensic_rows(hit)}
    assert rows[incidents.BEFORE]["given back"] == 0
    assert rows[incidents.POISONS]["given back"] == 1
    assert rows[incidents.COSINE]["recall"] == 1, "copies of an image have its gradient"
    assert rows[incidents.GUILTY]["n"] == rows[incidents.LUCK]["n"] > 0
    assert rows[incidents.INNOCENTS]["n"] + rows[incidents.GUILTY]["n"] == 12
    assert incidents.CONTRAST not in rows, "there is no picture before"


def test_the_parts_of_a_drop_make_it_up_and_luck_is_as_large_as_the_guilty_part():
    labels = torch.arange(60) % 3
    data = Data(torch.zeros(60, 1, 4, 4), labels, ("a", "b", "c"))
    bad = (labels == 1) & (torch.arange(60) < 30)
    scores = torch.rand(60, generator=torch.Generator().manual_seed(0))
    kept = kept_after(scores, data, 1, 8)
    parts = incidents.parts(kept, data, bad, 1, seed=3)
    gone = {name: ~mask for name, mask in parts.items()}
    assert torch.equal(gone[incidents.INNOCENTS] | gone[incidents.GUILTY], ~kept)
    assert not (gone[incidents.INNOCENTS] & bad).any()
    assert not (gone[incidents.GUILTY] & ~bad).any()
    assert not (gone[incidents.LUCK] & ~bad).any()
    assert gone[incidents.LUCK].sum() == gone[incidents.GUILTY].sum() > 0
    again = incidents.parts(kept, data, bad, 1, seed=4)[incidents.LUCK]
    assert not torch.equal(again, parts[incidents.LUCK])


def test_the_fall_without_one_image_is_leave_one_out():
    case = transfer.bullseye(7002, TINY)
    image, label = case.goal.image, case.goal.adversarial_class
    table = incidents.ridge_scores(case, case.data, image, label)
    for row in (0, 17):
        gone = torch.arange(len(case.data)) == row
        fall = incidents.fall_without(case, case.data, image, label, gone)
        assert fall == pytest.approx(table[incidents.LEFT_OUT][row].item(), abs=1e-9)
    agreement = incidents.agreement_of(table, case.data.y == label)
    assert agreement[incidents.LEFT_OUT] == pytest.approx(1)
    assert agreement["influence function"] > 0.9


def test_a_poison_on_its_target_holds_it_up_in_ridge_regression():
    """Five copies of the target: exact leave-one-out puts them first, and all five weigh more."""
    case = transfer.bullseye(7002, TINY)
    base = (case.data.y == case.goal.adversarial_class).nonzero()[:5, 0]
    copies = Poison(case.goal.image.repeat(5, 1, 1, 1), case.data.y[base], base)
    rows = incidents.ridge_rows(replace(case, craft=lambda victim: copies))
    exact = rows[0]
    assert exact["ranking"] == f"ridge: {incidents.LEFT_OUT}"
    assert exact["auc"] == 1
    assert 0 < exact["one poison"] < exact["together"] / 2
