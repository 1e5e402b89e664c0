"""course_utils.trials: paired trials, their controls, and the same frame for one job and two."""

import json
import math
import os
import time
from dataclasses import replace
from functools import partial

import joblib
import numpy as np
import pandas as pd
import pytest
import torch

from course_utils.data import Data
from course_utils.defense import Defense
from course_utils.models import build
from course_utils.settings import MLP, TINY
from course_utils.threat import Indiscriminate, Poison
from course_utils.training import Recipe, train
from course_utils.trials import Case, Victim, as_finished, check_seeds, compare, run_trials

RECIPE = Recipe(epochs=8, batch_size=10, lr=0.1)


def blobs(seed: int, n: int = 60) -> Data:
    """Dark and bright noisy images, labelled 0 and 1."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 2
    x = 0.7 * torch.rand(n, 1, 4, 4, generator=generator) + 0.3 * y[:, None, None, None]
    return Data(x, y, ("dark", "bright"))


def flip(data: Data, share: float) -> Poison:
    """The other label on the first images."""
    rows = torch.arange(round(share * len(data)))
    return Poison(data.x[rows], 1 - data.y[rows], rows)


def case_of(data: Data, poison: Poison | None = None, **changes) -> Case:
    """A small MLP that learns this data, under a ready poison."""
    given = {"goal": Indiscriminate(), "test": data, "recipe": RECIPE, "seed": 0} | changes
    model = build("mlp", data.shape, 2, width=8)
    return Case(data=data, model=model, craft=lambda victim: poison, **given)


THIN = Defense("thin", keep=lambda data, fit: torch.arange(len(data)) % 3 > 0)


def flipping_trial(seed: int) -> list[dict]:
    """Clean against flipped labels, plain and with a defense that drops every third image."""
    data = blobs(seed)
    case = case_of(data, flip(data, 0.8), test=blobs(seed + 1000), seed=seed)
    victims = {"plain": case.plain, "thin": Victim(THIN, RECIPE)}
    return compare(case, {"clean": None, "flipped": case.oblivious}, victims)


def process_trial(seed: int) -> list[dict]:
    """Where and how the trial runs. The pause leaves work for a second process."""
    time.sleep(0.2)
    return [{"process": os.getpid(), "threads": torch.get_num_threads(), "draw": torch.rand(1)[0]}]


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return run_trials(flipping_trial, range(4))


# run_trials


def test_one_job_and_two_jobs_give_identical_frames(frame):
    two_jobs = run_trials(flipping_trial, range(4), jobs=2)
    pd.testing.assert_frame_equal(
        frame.drop(columns="seconds"), two_jobs.drop(columns="seconds"), check_exact=True
    )


def test_a_frame_has_a_row_for_each_trial_attacker_and_victim_in_order(frame):
    expected = [
        (trial, attacker, victim)
        for trial in range(4)
        for attacker in ("clean", "flipped")
        for victim in ("plain", "thin")
    ]
    rows = frame[["trial", "attacker", "victim"]].itertuples(index=False, name=None)
    assert list(rows) == expected
    shared = {"trial", "attacker", "victim", "accuracy", "fitted", "seconds"}
    assert set(frame.columns) == shared | {"poisons removed", "clean removed"}


def test_trials_differ_from_each_other(frame):
    assert len(set(frame.accuracy[frame.attacker == "flipped"])) > 1


def test_a_trial_runs_in_one_thread_and_the_caller_gets_its_threads_back():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        frame = run_trials(process_trial, range(2))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert frame.threads.tolist() == [1, 1]


def test_the_caller_gets_its_threads_back_when_a_trial_fails():
    def fails(seed):
        raise RuntimeError(f"trial {seed} failed")

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(RuntimeError, match="trial 5 failed"):
            run_trials(fails, [5])
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_trials_stay_in_this_process_unless_asked_otherwise():
    assert set(run_trials(process_trial, range(2)).process) == {os.getpid()}


def test_parallel_config_is_honoured():
    with joblib.parallel_config(n_jobs=2):
        frame = run_trials(process_trial, range(6))
    assert os.getpid() not in set(frame.process)
    assert frame.threads.tolist() == [1] * 6
    assert frame.trial.tolist() == list(range(6))


def test_trials_take_turns_in_the_threads_of_one_process():
    """Two at a time would draw from one random state."""
    running = []

    def crowded_trial(seed):
        running.append(seed)
        time.sleep(0.05)
        together = len(running)
        running.remove(seed)
        return [{"together": together, "threads": torch.get_num_threads()}]

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with joblib.parallel_config(backend="threading", n_jobs=3):
            frame = run_trials(crowded_trial, range(6))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert frame.together.tolist() == frame.threads.tolist() == [1] * 6
    assert frame.trial.tolist() == list(range(6))


def pause(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def test_results_come_as_they_end_with_their_positions():
    with joblib.parallel_config(backend="threading", n_jobs=2):
        results = list(as_finished(pause, [(0.5,), (0.01,), (0.02,)]))
    assert results == [(1, 0.01), (2, 0.02), (0, 0.5)]


def test_no_trial_is_refused():
    with pytest.raises(ValueError, match="give at least one seed"):
        run_trials(flipping_trial, [])


def test_a_seed_that_comes_twice_is_refused():
    with pytest.raises(ValueError, match="A seed comes twice"):
        run_trials(flipping_trial, [1, 2, 1])


# compare


def test_attackers_are_paired_by_seed(frame):
    """Data without poison gives the very same victim in the same trial."""
    data = blobs(0)
    unchanged = Poison(data.x[:3], data.y[:3], torch.arange(3))
    case = case_of(data, unchanged, test=blobs(1000))
    rows = compare(case, {"clean": None, "unchanged": case.oblivious})
    assert rows[0]["accuracy"] == rows[1]["accuracy"]
    plain = frame[(frame.trial == 0) & (frame.attacker == "clean") & (frame.victim == "plain")]
    assert rows[0]["accuracy"] == plain.accuracy.item()


def test_the_poison_reaches_the_victim(frame):
    means = frame.groupby("attacker").accuracy.mean()
    assert means["clean"] > means["flipped"] + 0.3


class SumOfWeights:
    """Not a goal of any attacker, but it tells any two victims apart."""

    def measure(self, model, test):
        return {"sum": sum(parameter.sum().item() for parameter in model.parameters())}


def test_the_seed_the_scenario_the_recipe_and_the_defense_reach_the_victim():
    data, goal, slow = blobs(0), SumOfWeights(), Recipe(epochs=3, batch_size=10, lr=0.01)
    defense = Defense("dark", batch=lambda model, x, y, generator: (x / 2, y))
    case = case_of(data, goal=goal, scenario="transfer", seed=7)
    (row,) = compare(case, {"clean": None}, {"dark": Victim(defense, slow)})
    shared = {"scenario": "transfer", "seed": 7}
    victim = train(case.model, data, slow, defense=defense, **shared)
    assert row["sum"] == goal.measure(victim, data)["sum"]
    assert (row["attacker"], row["victim"]) == ("clean", "dark")
    assert row["seconds"] > 0 and math.isnan(row["fitted"])


def test_an_attacker_who_knows_meets_the_victim_it_crafted_against():
    data, met = blobs(0), []

    def craft(victim: Victim) -> Poison:
        met.append(victim.defense.name)
        return flip(data, 0.8 if victim.defense.name == "thin" else 0.1)

    case = replace(case_of(data), craft=craft)
    victims = {"plain": case.plain, "thin": Victim(THIN, RECIPE)}
    rows = compare(case, {"oblivious": case.oblivious, "knowing": case.craft}, victims)
    assert met == ["plain", "plain", "thin"]
    accuracies = [row["accuracy"] for row in rows]
    assert accuracies[0] == accuracies[2]  # the plain victim meets the same poison twice
    assert accuracies[3] < accuracies[1]


def test_an_attacker_with_nothing_left_to_do_leaves_the_data_clean():
    case = case_of(blobs(0), None)
    clean, attack = compare(case, {"clean": None, "attack": case.craft})
    assert clean["accuracy"] == attack["accuracy"] and case.noise is None


def test_a_filter_counts_what_it_removes_and_its_victim_is_that_of_train():
    data = blobs(0)
    poison = flip(data, 0.5)
    case = case_of(data, poison, goal=SumOfWeights())
    (row,) = compare(case, {"attack": poison}, {"thin": Victim(THIN, RECIPE)})
    victim = train(case.model, poison.apply(data), RECIPE, defense=THIN, seed=0)
    assert row["sum"] == case.goal.measure(victim, data)["sum"]
    assert (row["poisons removed"], row["clean removed"]) == (10, 10)


def test_more_can_be_measured_after_training_and_along_the_way():
    data, epochs = blobs(0), []
    case = case_of(data, flip(data, 0.1))
    rows = compare(
        case,
        case.with_controls,
        also=lambda model, poison: {"poisons": 0 if poison is None else len(poison)},
        after_epoch=lambda model, epoch: epochs.append(epoch),
    )
    assert [row["poisons"] for row in rows] == [0, 6, 6]
    assert epochs == [*range(1, 9)] * 3
    assert rows[2]["fitted"] != rows[0]["fitted"]


# The controls of a case


def test_the_controls_are_clean_data_and_noise_of_the_same_size_on_the_same_images():
    data = blobs(0)
    images = (data.x[:5] + 0.1).clamp(0, 1)
    poison = Poison(images, data.y[:5], torch.arange(5))
    controls = case_of(data, poison).with_controls
    assert list(controls) == ["clean", "noise", "attack"]
    assert controls["clean"] is None
    assert controls["attack"] is poison
    noise = controls["noise"]
    assert torch.equal(noise.base, poison.base)
    assert not torch.equal(noise.images, poison.images)
    largest = [(item.images - data.x[:5]).abs().amax() for item in (noise, poison)]
    torch.testing.assert_close(*largest)


def test_the_noise_control_comes_from_the_seed():
    data = blobs(0)
    poison = Poison((data.x[:5] + 0.1).clamp(0, 1), data.y[:5], torch.arange(5))
    first, again, other = (case_of(data, poison, seed=seed).noise.images for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


# Settings


def test_tiny_is_a_tenth_of_a_setting_and_never_nothing():
    assert [TINY.scaled(count) for count in (3000, 150, 20, 4, 1)] == [300, 15, 2, 1, 1]
    assert TINY.shortened(Recipe(epochs=60, lr=0.3)) == Recipe(epochs=6, batch_size=10, lr=0.3)
    assert TINY.shortened(Recipe(epochs=3)).epochs == 3  # never more than at full size
    assert TINY.network == MLP.network and TINY.recipe.epochs == 4
    assert [MLP.scaled(count) for count in (3000, 1)] == [3000, 1]
    assert MLP.shortened(RECIPE) == RECIPE


def adding_trial(seed: int, large: np.ndarray) -> list[dict]:
    """Change an array in place: joblib hands arrays above 1 MB to its workers as memory maps."""
    torch.from_numpy(large).add_(seed)
    return [{"mean": float(large.mean())}]


def test_a_trial_may_change_a_large_array_of_its_own():
    seeds = np.arange(1, 3)
    frames = [
        run_trials(partial(adding_trial, large=np.zeros(300_000)), seeds[i : i + 1], jobs=2)
        for i in range(2)
    ]
    assert [frame["mean"].item() for frame in frames] == [1.0, 2.0]
    assert [frame["trial"].item() for frame in frames] == [1, 2]


def test_numpys_integers_are_seeds_and_fractions_are_not():
    seeds = check_seeds(np.arange(3))
    assert json.dumps(seeds) == "[0, 1, 2]"
    with pytest.raises(TypeError):
        check_seeds([0.5])
