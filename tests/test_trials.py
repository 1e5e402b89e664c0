"""course_utils.trials: paired trials, their controls, and the same frame for one job and two."""

import os
import time

import joblib
import pandas as pd
import pytest
import torch

from course_utils.data import Data
from course_utils.defense import PLAIN, Defense
from course_utils.models import build
from course_utils.threat import Indiscriminate, Poison
from course_utils.training import Recipe, train
from course_utils.trials import as_finished, compare, run_trials, with_controls

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


def flipping_trial(seed: int) -> list[dict]:
    """Clean against flipped labels, plain and with a defense that drops every third image."""
    data, test = blobs(seed), blobs(seed + 1000)
    return compare(
        {"clean": None, "flipped": flip(data, 0.8)},
        goal=Indiscriminate(),
        data=data,
        test=test,
        model=build("mlp", data.shape, 2, width=8),
        recipe=RECIPE,
        seed=seed,
        defenses=[PLAIN, Defense("thin", keep=lambda data, fit: torch.arange(len(data)) % 3 > 0)],
    )


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


def test_a_frame_has_a_row_for_each_trial_condition_and_defense_in_order(frame):
    expected = [
        (trial, condition, defense)
        for trial in range(4)
        for condition in ("clean", "flipped")
        for defense in ("plain", "thin")
    ]
    rows = frame[["trial", "condition", "defense"]].itertuples(index=False, name=None)
    assert list(rows) == expected
    assert list(frame.columns) == ["trial", "condition", "defense", "accuracy", "seconds"]


def test_trials_differ_from_each_other(frame):
    assert len(set(frame.accuracy[frame.condition == "flipped"])) > 1


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


def test_conditions_are_paired_by_seed(frame):
    """Data without poison gives the very same victim in the same trial."""
    data, test = blobs(0), blobs(1000)
    unchanged = Poison(data.x[:3], data.y[:3], torch.arange(3))
    rows = compare(
        {"clean": None, "unchanged": unchanged},
        goal=Indiscriminate(),
        data=data,
        test=test,
        model=build("mlp", data.shape, 2, width=8),
        recipe=RECIPE,
        seed=0,
    )
    assert rows[0]["accuracy"] == rows[1]["accuracy"]
    plain_clean = frame[(frame.trial == 0) & (frame.condition == "clean")].iloc[0]
    assert rows[0]["accuracy"] == plain_clean.accuracy


def test_the_poison_reaches_the_victim(frame):
    means = frame.groupby("condition").accuracy.mean()
    assert means["clean"] > means["flipped"] + 0.3


class SumOfWeights:
    """Not a goal of any attacker, but it tells any two victims apart."""

    def measure(self, model, test):
        return {"sum": sum(parameter.sum().item() for parameter in model.parameters())}


def test_the_seed_the_scenario_and_the_defense_reach_the_victim():
    data, goal = blobs(0), SumOfWeights()
    model = build("mlp", data.shape, 2, width=8)
    defense = Defense("dark", batch=lambda model, x, y, generator: (x / 2, y))
    arguments = {"scenario": "transfer", "seed": 7}
    (row,) = compare(
        {"clean": None},
        goal=goal,
        data=data,
        test=data,
        model=model,
        recipe=RECIPE,
        defenses=[defense],
        **arguments,
    )
    victim = train(model, data, RECIPE, defense=defense, **arguments)
    assert row["seconds"] > 0
    assert row == {
        "condition": "clean",
        "defense": "dark",
        **goal.measure(victim, data),
        "seconds": row["seconds"],
    }


# with_controls


def test_the_controls_are_clean_data_and_noise_of_the_same_size_on_the_same_images():
    data = blobs(0)
    images = (data.x[:5] + 0.1).clamp(0, 1)
    poison = Poison(images, data.y[:5], torch.arange(5))
    controls = with_controls(poison, data, seed=0)
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
    first, again, other = (with_controls(poison, data, seed)["noise"].images for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
