"""Lesson 16: the victims of the matrix, its surrogates, and what is stored of it."""

import math
from dataclasses import replace

import pandas as pd
import pytest
import torch

from course_utils.attacks.gradient_matching import staggered
from course_utils.attacks.patch_backdoors import badnets
from course_utils.attacks.triggers import solid_patch
from course_utils.defense import PLAIN
from course_utils.defenses.pgd_training import pgd_training
from course_utils.models import build
from course_utils.stored import load_study
from course_utils.studies.lesson_11 import Case
from course_utils.studies.lesson_16 import (
    BENCHMARK,
    FILTERS,
    FROM_SCRATCH,
    HEADS,
    LEARNS_LESS,
    NOBODY,
    PLAIN_VICTIM,
    WITH,
    WITHOUT,
    every_defense,
    face,
    matrix_row,
    outcome,
    surrogates_with,
)
from course_utils.threat import Backdoor, Indiscriminate, Targeted, ThreatModel
from course_utils.training import Recipe, train
from course_utils.trials import compare, one_trial
from tests.test_studies import assert_comes_out_as_stored

SHORT = Recipe(epochs=2, batch_size=50, lr=0.05)
QUICK = ("Bullseye Polytope", "hidden triggers", "BadNets")  # rows whose trials take seconds


@pytest.fixture(scope="module")
def case(fashion) -> Case:
    """BadNets on a few images."""
    data, test = fashion
    goal, model = Backdoor(solid_patch(4), target_class=3), build("mlp", data.shape, 10, width=16)
    return Case(data, badnets(data, goal, ThreatModel(10), seed=0), goal, test, model, SHORT, 7)


@pytest.fixture(scope="module")
def stored() -> pd.DataFrame:
    """The stored benchmark."""
    return load_study(BENCHMARK)


def test_every_victim_is_there_in_both_scenarios(case):
    names = [PLAIN_VICTIM, LEARNS_LESS, *FILTERS, *FROM_SCRATCH]
    assert list(FROM_SCRATCH) == list(HEADS)
    for scenario, slow in (("scratch", 0.02), ("transfer", 0.003)):
        found = every_defense(replace(case, scenario=scenario), told=3)
        assert list(found) == names
        assert found[PLAIN_VICTIM] == (PLAIN, SHORT)
        assert found[LEARNS_LESS] == (PLAIN, replace(SHORT, lr=slow))
        assert all(found[name][0].keep for name in FILTERS)
        assert not any(defense.keep for defense, _ in FROM_SCRATCH.values())


def test_a_filter_is_told_and_never_takes_nearly_all(case):
    at = {told: every_defense(case, told) for told in (2, 30)}
    seen = case.poison.apply(case.data)
    kept = {told: at[told]["Spectral Signatures"][0].keep(seen, case.fit) for told in at}
    assert (~kept[2]).float().mean().item() == pytest.approx(0.1, abs=0.01)  # 1.5 * 2 of 30
    assert (~kept[30]).float().mean().item() == pytest.approx(0.9, abs=0.01)
    assert at[2]["Deep k-NN"][0].name == "deep 4-NN"


def test_plain_surrogates_are_those_of_lesson_05(case):
    mine = surrogates_with((PLAIN, SHORT), case.model, case.data, 5, 2, ages=(0.5, 1))
    theirs = staggered(case.model, case.data, SHORT, 5, 2, epochs=(1, 2))
    assert len(mine) == len(theirs) == 4
    for one, other in zip(mine, theirs, strict=True):
        for a, b in zip(one.parameters(), other.parameters(), strict=True):
            assert torch.equal(a, b)


def test_surrogates_train_with_the_defense(case):
    how = (pgd_training(16 / 255, steps=1), SHORT)
    (surrogate,) = surrogates_with(how, case.model, case.data, 5, count=1)
    victim = train(case.model, case.data, SHORT, defense=how[0], seed=6000)
    assert torch.equal(surrogate.head.weight, victim.head.weight)
    (plain,) = surrogates_with((PLAIN, SHORT), case.model, case.data, 5, count=1)
    assert not torch.equal(surrogate.head.weight, plain.head.weight)


def test_what_was_achieved_is_what_the_goal_measures(case):
    victim = case.fit(case.poison.apply(case.data))
    found = outcome(victim, case)
    assert found["achieved"] == case.goal.measure(victim, case.test)["asr"]
    silent = replace(case.goal, trigger=torch.clone)
    assert found["by itself"] == silent.measure(victim, case.test)["asr"]
    image = case.test.x[0]
    answer = victim(image[None]).argmax().item()
    for wanted, success in ((answer, 1.0), ((answer + 1) % 10, 0.0)):
        goal = Targeted(image, (answer + 2) % 10, wanted)
        assert outcome(victim, replace(case, goal=goal))["achieved"] == success
    blind = outcome(victim, replace(case, goal=Indiscriminate()))
    assert math.isnan(blind["achieved"]) and math.isnan(blind["by itself"])


def test_victims_are_those_of_compare(case):
    shared = dict(data=case.data, test=case.test, model=case.model, recipe=SHORT, seed=case.seed)
    wanted = compare({"clean": None, "attack": case.poison}, goal=case.goal, **shared)
    plain = {PLAIN_VICTIM: (PLAIN, SHORT)}
    found = [face(case, poison, plain, WITHOUT)[0] for poison in (None, case.poison)]
    assert [row["accuracy"] for row in found] == [row["accuracy"] for row in wanted]
    assert [row["achieved"] for row in found] == [row["asr"] for row in wanted]


def test_a_row_has_each_attacker_once(case, monkeypatch):
    few = {PLAIN_VICTIM: (PLAIN, SHORT), "slow": (PLAIN, replace(SHORT, lr=0.01))}
    numbers = []

    def two_defenses(case: Case, told: int) -> dict:
        numbers.append(told)
        return few

    monkeypatch.setattr("course_utils.studies.lesson_16.every_defense", two_defenses)
    rows = matrix_row(case, {"slow": None})
    keys = [(row["knowledge"], row["defense"]) for row in rows]
    assert keys == [
        (NOBODY, PLAIN_VICTIM), (WITHOUT, PLAIN_VICTIM), (WITHOUT, "slow"), (WITH, "slow"),
    ]  # fmt: skip
    assert numbers == [case.bound]


def test_the_matrix_is_as_large_as_it_is_said_to_be(stored):
    defenses = [*FILTERS, *FROM_SCRATCH]
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


@pytest.mark.parametrize("attack", QUICK)
def test_the_first_trial_of_a_row_comes_out_as_it_was_stored(attack, stored):
    seed = BENCHMARK.seeds[0]
    first = stored[(stored["attack"] == attack) & (stored["trial"] == seed)]
    rows = one_trial(BENCHMARK.trials[attack], (attack, seed), BENCHMARK.columns)
    again = pd.DataFrame(rows)
    assert again.notna().all(axis=None)
    assert_comes_out_as_stored(again, first.reset_index(drop=True))
