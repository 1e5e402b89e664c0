"""Paired trials: run an experiment over many draws of everything random.

A trial is one draw of the goal, the data, the surrogates and the victim's first weights. All
conditions of an experiment share the same trials, so they are compared in pairs.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import joblib
import pandas as pd
import torch
from tqdm.auto import tqdm

from course_utils.data import Data
from course_utils.defense import PLAIN, Defense
from course_utils.models import Classifier
from course_utils.runtime import one_thread
from course_utils.threat import Goal, Poison
from course_utils.training import Recipe, Scenario, train

Rows = list[dict]


ONE_TRIAL = threading.RLock()


def run_trials(
    trial: Callable[[int], Rows], seeds: Sequence[int], jobs: int | None = None
) -> pd.DataFrame:
    """Run `trial(seed)` for every seed and gather its rows: one row a trial and condition.

    Every trial runs in one thread, so the frame is the same for one job and for many. `jobs` is
    joblib's n_jobs; None takes it from `joblib.parallel_config`, otherwise one job.
    Raises ValueError if there is no seed or a seed comes twice.
    """
    tasks = [(trial, (seed,)) for seed in check_seeds(seeds)]
    rows = dict(as_finished(one_trial, tasks, jobs))
    return pd.DataFrame([row for number in range(len(tasks)) for row in rows[number]])


def check_seeds(seeds: Sequence[int]) -> list[int]:
    """The seeds as a list. Raises ValueError if there is none or one comes twice."""
    seeds = list(seeds)
    if not seeds:
        raise ValueError("No trial to run: give at least one seed, for example range(20).")
    if len(set(seeds)) < len(seeds):
        raise ValueError("A seed comes twice: the same trial counted twice narrows the interval.")
    return seeds


def as_finished(
    function: Callable, tasks: Sequence[tuple], jobs: int | None = None, before: int = 0
) -> Iterator[tuple[int, Any]]:
    """Call `function(*task)` for every task; yield its position and result as soon as it ends.

    The calls begin in order and end in any order. jobs: see `run_trials`. before: how many others
    were done before, for the progress bar.
    """
    parallel = joblib.Parallel(n_jobs=jobs, return_as="generator_unordered", batch_size=1)
    calls = (joblib.delayed(_numbered)(number, function, task) for number, task in enumerate(tasks))
    total = before + len(tasks)
    yield from tqdm(parallel(calls), initial=before, total=total, desc="trials", leave=False)


def _numbered(number: int, function: Callable, task: tuple) -> tuple[int, Any]:
    return number, function(*task)


@contextmanager
def alone() -> Iterator[None]:
    """The process is this trial's alone inside the block, and torch runs in one thread.

    torch's random state and thread count belong to the whole process, so where a backend gives
    one process several threads, their trials take turns.
    """
    with ONE_TRIAL, one_thread():
        yield


def one_trial(
    trial: Callable[[int], Rows], key: tuple[str | int, ...], columns: Sequence[str] = ("trial",)
) -> Rows:
    """The rows of one trial, each with the key of the trial, whose last part is the seed."""
    with alone():
        return [dict(zip(columns, key, strict=True)) | row for row in trial(key[-1])]


def compare(
    poisons: Mapping[str, Poison | None],
    *,
    goal: Goal,
    data: Data,
    test: Data,
    model: Classifier,
    recipe: Recipe,
    seed: int,
    scenario: Scenario = "scratch",
    defenses: Sequence[Defense] = (PLAIN,),
) -> Rows:
    """Train one victim for every condition and defense, all from the same seed, and measure it.

    poisons: the poison of each condition, None for the clean data (see `with_controls`).
    Returns a row for each condition and defense: what the goal measures, and the seconds.
    """
    rows = []
    for condition, poison in poisons.items():
        seen = data if poison is None else poison.apply(data)
        for defense in defenses:
            begin = time.perf_counter()
            victim = train(model, seen, recipe, scenario=scenario, defense=defense, seed=seed)
            seconds = time.perf_counter() - begin
            measured = goal.measure(victim, test)
            rows.append(
                {"condition": condition, "defense": defense.name, **measured, "seconds": seconds}
            )
    return rows


def with_controls(poison: Poison, data: Data, seed: int) -> dict[str, Poison | None]:
    """The attack beside its controls: clean data, and noise of the same size on the same images."""
    generator = torch.Generator(data.x.device).manual_seed(seed)
    return {"clean": None, "noise": poison.noise_control(data, generator), "attack": poison}
