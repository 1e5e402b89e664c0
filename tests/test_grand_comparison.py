"""Lesson 16: the victims of the matrix, and what is stored of it."""

import math
from dataclasses import replace

import pandas as pd
import pytest
import torch

from course_utils.attacks.patch_backdoors import badnets
from course_utils.attacks.triggers import solid_patch
from course_utils.cases import label_flips, robust
from course_utils.cases.matrix import (
    FILTERS,
    LEARNS_LESS,
    NOBODY,
    PLAIN_VICTIM,
    WITH,
    WITHOUT,
    cells_of,
    defended,
    every_victim,
    matrix_row,
)
from course_utils.defense import PLAIN
from course_utils.models import build
from course_utils.settings import MLP, TINY
from course_utils.stored import load_study
from course_utils.studies.lesson_16 import BENCHMARK
from course_utils.threat import Backdoor, Indiscriminate, Poison, Targeted, ThreatModel
from course_utils.training import Recipe
from course_utils.trials import Case, Victim, compare

SHORT = Recipe(epochs=2, batch_size=50, lr=0.05)


@pytest.fixture(scope="module")
def case(fashion) -> Case:
    """BadNets on a few images."""
    data, test = fashion
    goal, model = Backdoor(solid_patch(4), target_class=3), build("mlp", data.shape, 10, width=16)

    def craft(victim: Victim) -> Poison:
        return badnets(data, goal, ThreatModel(10), seed=0)

    return Case(data, goal, test, model, SHORT, 7, craft)


@pytest.fixture(scope="module")
def stored() -> pd.DataFrame:
    """The stored benchmark."""
    return load_study(BENCHMARK)


def test_every_victim_is_there_in_both_scenarios(case):
    names = [PLAIN_VICTIM, LEARNS_LESS, *FILTERS, *defended(MLP)]
    assert list(defended(MLP)) == list(defended(MLP, "transfer"))
    for scenario, slow in (("scratch", 0.02), ("transfer", 0.003)):
        found = every_victim(replace(case, scenario=scenario), MLP, told=3)
        assert list(found) == names
        assert found[PLAIN_VICTIM] == Victim(PLAIN, SHORT)
        assert found[LEARNS_LESS] == Victim(PLAIN, replace(SHORT, lr=slow))
        assert all(found[name].defense.keep for name in FILTERS)
        assert not any(victim.defense.keep for victim in defended(MLP).values())


def test_a_filter_is_told_and_never_takes_nearly_all(case):
    at = {told: every_victim(case, MLP, told) for told in (2, 30)}
    seen = case.oblivious.apply(case.data)
    looker = case.train(case.plain, seen)
    kept = {}
    for told, victims in at.items():
        kept[told] = victims["Spectral Signatures"].defense.keep(seen, lambda part: looker)
    assert (~kept[2]).float().mean().item() == pytest.approx(0.1, abs=0.01)  # 1.5 * 2 of 30
    assert (~kept[30]).float().mean().item() == pytest.approx(0.9, abs=0.01)
    assert at[2]["Deep k-NN"].defense.name == "deep 4-NN"
    tiny = every_victim(case, TINY, 20)
    assert tiny["Deep k-NN"].defense.name == "deep 4-NN", "a tenth of the size, a tenth of 20"


def test_who_knows_flips_labels_that_are_worst_for_the_victim_it_expects():
    case = label_flips.worst_case(1000, TINY)
    knows = defended(TINY)[robust.PGD]
    plain, again, known = (case.craft(v) for v in (case.plain, case.plain, knows))
    assert torch.equal(plain.base, again.base) and torch.equal(plain.labels, again.labels)
    assert set(plain.base.tolist()) != set(known.base.tolist())


def test_what_was_achieved_is_what_the_goal_measures(case):
    (row,) = cells_of(case, {WITHOUT: case.oblivious}, {PLAIN_VICTIM: case.plain})
    victim = case.train(case.plain, case.oblivious.apply(case.data))
    assert row["achieved"] == case.goal.measure(victim, case.test)["asr"]
    silent = replace(case.goal, trigger=torch.clone)
    assert row["by itself"] == silent.measure(victim, case.test)["asr"]
    image = case.test.x[0]
    clean = case.train(case.plain, case.data)
    answer = clean(image[None]).argmax().item()
    for wanted, success in ((answer, 1.0), ((answer + 1) % 10, 0.0)):
        aimed = replace(case, goal=Targeted(image, (answer + 2) % 10, wanted))
        (row,) = cells_of(aimed, {NOBODY: None}, {PLAIN_VICTIM: case.plain})
        assert row["achieved"] == success
    blind = replace(case, goal=Indiscriminate())
    (row,) = cells_of(blind, {NOBODY: None}, {PLAIN_VICTIM: case.plain})
    assert math.isnan(row["achieved"]) and math.isnan(row["by itself"])


def test_victims_are_those_of_compare(case):
    attackers = {NOBODY: None, WITHOUT: case.oblivious}
    wanted = compare(case, attackers)
    found = cells_of(case, attackers, {PLAIN_VICTIM: case.plain})
    assert [row["accuracy"] for row in found] == [row["accuracy"] for row in wanted]
    assert [row["achieved"] for row in found] == [row["asr"] for row in wanted]


def test_a_row_has_each_attacker_once(case):
    slow = {"slow": Victim(PLAIN, replace(SHORT, lr=0.01))}
    victims = {PLAIN_VICTIM: case.plain} | slow
    without = [(WITHOUT, PLAIN_VICTIM), (WITHOUT, "slow")]
    for options, before, after in (
        ({}, [(NOBODY, PLAIN_VICTIM)], []),
        ({"known": slow}, [(NOBODY, PLAIN_VICTIM)], [(WITH, "slow")]),
        ({"clean": slow, "known": slow}, [(NOBODY, "slow")], [(WITH, "slow")]),
        ({"clean": {}}, [], []),
    ):
        rows = matrix_row(case, victims, **options)
        assert [(row["knowledge"], row["defense"]) for row in rows] == [*before, *without, *after]


def test_the_matrix_is_as_large_as_it_is_said_to_be(stored):
    defenses = [*FILTERS, *defended(MLP)]
    cells = stored[(stored["knowledge"] == WITHOUT) & stored["defense"].isin(defenses)]
    trials = cells.groupby(["attack", "defense"])["trial"].nunique()
    assert len(trials) == len(BENCHMARK.trials) * 8 and len(BENCHMARK.trials) >= 6
    assert (trials == 40).all()
    assert not stored.duplicated(["attack", "trial", "knowledge", "defense"]).any()


def test_relative_drops_are_against_the_same_defense_on_clean_data(stored):
    flips = stored[stored["attack"] == "label flips"]
    clean = flips[flips["knowledge"] == NOBODY].set_index(["trial", "defense"])["accuracy"]
    before = clean.loc[list(zip(flips["trial"], flips["defense"], strict=True))].to_numpy()
    drops = (before - flips["accuracy"]) / before
    assert (drops - flips["achieved"]).abs().max() < 1e-4
