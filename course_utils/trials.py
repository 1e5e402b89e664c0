"""Paired trials: run an experiment over many draws of everything random.

A trial is one draw of the goal, the data, the surrogates and the victim's first weights. All
conditions of an experiment share the same trials, so they are compared in pairs.
"""

import math
import operator
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import joblib
import pandas as pd
import torch
from tqdm.auto import tqdm

from course_utils.data import Data
from course_utils.defense import PLAIN, Defense
from course_utils.models import Classifier, predict
from course_utils.runtime import one_thread
from course_utils.threat import Goal, Poison
from course_utils.training import Recipe, Scenario, filter_mask, train

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
    """The seeds as a list of int. Raises ValueError if there is none or one comes twice."""
    seeds = [operator.index(seed) for seed in seeds]  # numpy's own integers do not go into JSON
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
    # Copy on write: a trial may change a large array of its own without touching anyone else's.
    how = dict(return_as="generator_unordered", batch_size=1, mmap_mode="c")
    parallel = joblib.Parallel(n_jobs=jobs, **how)
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
    """The rows of one trial, each with the key of the trial, whose last part is the seed.

    Raises ValueError if a row already has a column of that name.
    """
    with alone():
        rows = trial(key[-1])
    if taken := [name for row in rows for name in columns if name in row]:
        raise ValueError(f"A row has a column {taken[0]!r} of its own: the trial's key goes there.")
    return [dict(zip(columns, key, strict=True)) | row for row in rows]


@dataclass(frozen=True)
class Victim:
    """A defense with its recipe: tuned shaping, or a lower learning rate without any defense."""

    defense: Defense
    recipe: Recipe


Craft = Callable[[Victim], Poison | None]
Measure = Callable[[Classifier, Poison | None], dict]
Look = Callable[[Classifier, int], None]


@dataclass(frozen=True, eq=False)
class Case:
    """One attack in its setting: all that a trial fixes before any victim trains.

    data: the clean training data. recipe: how a victim trains that nobody defends. craft: the
    attack, written against the victim that it expects; it sees no test data, and gives None where
    nothing is left to do since its surrogates already grant the goal. scenario, seed: of all
    victims of the trial, so that they start from the same weights and differ in nothing else.
    """

    data: Data
    goal: Goal
    test: Data
    model: Classifier
    recipe: Recipe
    seed: int
    craft: Craft
    scenario: Scenario = "scratch"

    @property
    def plain(self) -> Victim:
        """The victim that nobody defends."""
        return Victim(PLAIN, self.recipe)

    @cached_property
    def oblivious(self) -> Poison | None:
        """The poison of an attacker who expects the plain victim; crafted once."""
        return self.craft(self.plain)

    @cached_property
    def noise(self) -> Poison | None:
        """The control: noise of the same size as the oblivious poison, on the same images."""
        if self.oblivious is None:
            return None
        generator = torch.Generator(self.data.x.device).manual_seed(self.seed)
        return self.oblivious.noise_control(self.data, generator)

    @property
    def with_controls(self) -> dict[str, Poison | None]:
        """The attackers of `compare`: the oblivious one beside clean data and noise."""
        return {"clean": None, "noise": self.noise, "attack": self.oblivious}

    def train(self, victim: Victim, data: Data, after_epoch: Look | None = None) -> Classifier:
        """This victim, trained on this data."""
        options = dict(scenario=self.scenario, defense=victim.defense, seed=self.seed)
        return train(self.model, data, victim.recipe, after_epoch=after_epoch, **options)


def compare(
    case: Case,
    attackers: Mapping[str, Poison | Craft | None],
    victims: Mapping[str, Victim] | None = None,
    also: Measure | None = None,
    after_epoch: Look | None = None,
) -> Rows:
    """Train every victim under every attacker, all from the same first weights; a row for each.

    attackers: by name, a ready poison; None for the clean data; or `case.craft` for an attacker who
    knows the victim, and crafts against each anew. victims: by name; only the plain one by default.
    also: what else to measure on a trained victim and the poison it has met. after_epoch: see
    `train`; for measurements along the way.
    A row holds what the goal measures, `fitted`, the share of the poisons that the victim
    classifies as labelled (NaN without poison), and `seconds` of the processor for the training;
    where a victim filters its data also the numbers of poisons and of clean images removed.
    """
    victims = {"plain": case.plain} if victims is None else victims
    rows = []
    for attacker, attack in attackers.items():
        for name, victim in victims.items():
            poison = attack(victim) if callable(attack) else attack
            model, found = face(case, victim, poison, after_epoch)
            extra = {} if also is None else also(model, poison)
            rows.append({"attacker": attacker, "victim": name, **found, **extra})
    return rows


def face(
    case: Case, victim: Victim, poison: Poison | None, after_epoch: Look | None
) -> tuple[Classifier, dict]:
    """Train one victim on the data that this poison leaves it with, and measure it."""
    seen = case.data if poison is None else poison.apply(case.data)
    begin, removed = time.process_time(), {}
    if victim.defense.keep is None:
        model = case.train(victim, seen, after_epoch)
    else:
        given = (case.model, seen, victim.recipe, case.scenario, victim.defense, case.seed)
        kept = filter_mask(*given)
        unfiltered = replace(victim, defense=replace(victim.defense, keep=None))
        model = case.train(unfiltered, seen[kept], after_epoch)
        bad = torch.zeros_like(kept) if poison is None else poison.mask(case.data)
        removed = {
            "poisons removed": int((bad & ~kept).sum()),
            "clean removed": int((~bad & ~kept).sum()),
        }
    seconds = time.process_time() - begin
    measured = {**case.goal.measure(model, case.test), "fitted": fitted(model, poison)}
    return model, {**measured, **removed, "seconds": seconds}


def fitted(model: Classifier, poison: Poison | None) -> float:
    """The share of the poisons that a model classifies as they are labelled; NaN without any."""
    if poison is None:
        return math.nan
    return (predict(model, poison.images) == poison.labels).float().mean().item()


def columns(rows: Rows, *names: str, **renamed: str) -> Rows:
    """These columns of each row; first those that take a new name, as condition="attacker"."""
    order = renamed | {name: name for name in names}
    return [{new: row[old] for new, old in order.items()} for row in rows]
