"""Checks of the exercises of lesson 16, the grand comparison."""

from collections.abc import Callable
from itertools import combinations

import numpy as np

from course_utils.checks import attempt, passed, require
from course_utils.checks.answers import as_array
from course_utils.checks.mistakes import about, alike, diagnosis
from course_utils.record import recorded

Trials = np.ndarray
ALONE = "Here knowing is None: it was not tried, and there is one attacker."


@recorded
def check_worse_of(function: Callable) -> None:
    """Compares with the two arrays that were given. Raises CheckFailed."""
    rng = np.random.default_rng(0)
    cases = []
    for trials in (4, 9, 40):
        first, second = (rng.random((2, trials)) < np.array([[0.3], [0.7]])).astype(float)
        cases += [(first, second), (second, first)]
    cases += [(rng.random(12), rng.random(12) / 2), (rng.random(12) / 2, rng.random(12))]
    cases += [(np.array([1.0, 0.0]), np.array([0.0, 1.0]))]  # a draw
    cases += [(np.array([0.2, 0.3, 0.9]), np.array([0.3, 0.4, 0.1]))]  # more trials, lower mean
    found = [ask_worse(function, *case) for case in cases]
    with about(ALONE):
        cases += [(np.array([0.0, 1.0, 0.0]), None), (np.array([-0.02, -0.01]), None)]
        found += [ask_worse(function, *case) for case in cases[-2:]]
    for (without, knowing), got in zip(cases, found, strict=True):
        if not alike(got, worse(without, knowing)):
            require(
                False,
                f"Wrong trials where the attacker without knowledge got {shown(without)} and the "
                f"one with it {shown(knowing)}.{diagnosis(found, WORSE, cases)}",
            )
    passed(function)


def ask_worse(function: Callable, without: Trials, knowing: Trials | None) -> Trials:
    """Ask which trials count."""
    case = f"for {shown(without)} and {shown(knowing)}"
    return as_array(
        attempt(function, without, knowing), without.shape, case, "the trials of one of the two,"
    )


def shown(values: Trials | None) -> str:
    """Trials in a message: all of a few, or their mean."""
    if values is None:
        return "None"
    if len(values) <= 4:
        return str(values.tolist())
    return f"{values.mean():.2f} on average"


def worse(without: Trials, knowing: Trials | None, by: Callable = np.mean) -> Trials:
    """The trials of the attacker for whom this number is larger, at a draw the first."""
    return without if knowing is None or not by(knowing) > by(without) else knowing


WORSE: dict[str, Callable] = {
    "You take the larger value in each trial: the attacker must choose before they see the "
    "victims.": lambda a, b: a if b is None else np.maximum(a, b),
    "The attacker without knowledge may be the worse one, and comes first at a draw.": (
        lambda a, b: a if b is None else b
    ),
    "You ignore `knowing`: an attacker who knows the defense may be the worse one.": lambda a, b: a,
    "At a draw take the one without knowledge.": lambda a, b: (
        a if b is None or b.mean() < a.mean() else b
    ),
    "You took the milder one: large values are bad for the victim.": lambda a, b: (
        a if b is None or b.mean() > a.mean() else b
    ),
    "You took the milder one: the trials of `knowing` count where it achieves more.": lambda a, b: (
        a if b is None or b.mean() >= a.mean() else b
    ),
    "You choose by the number of trials won: the mean decides.": lambda a, b: (
        a if b is None or (b > a).sum() <= (a > b).sum() else b
    ),
    "You choose by the largest value: the mean decides.": lambda a, b: worse(a, b, np.max),
    "You choose by the median: the mean decides.": lambda a, b: worse(a, b, np.median),
    "You choose by the first trial: the mean decides.": lambda a, b: worse(a, b, lambda x: x[0]),
    "Not tried is not zero: where knowing is None there is one attacker.": lambda a, b: worse(
        a, np.zeros_like(a) if b is None else b
    ),
    "The trials are those of one attacker, not the mean of both.": lambda a, b: (
        a if b is None else (a + b) / 2
    ),
    "The trials stand in another order: return them as they are, the comparisons need pairs.": (
        lambda a, b: np.sort(worse(a, b))
    ),
}


@recorded
def check_holm(function: Callable) -> None:
    """Compares with closed testing over all groups of tests. Raises CheckFailed."""
    rng = np.random.default_rng(0)
    cases = [np.array([0.02, 0.02, 0.9]), np.array([0.04]), np.array([0.03, 0.01])]
    cases += [np.array([0.011, 0.02, 0.021, 0.6]), np.array([0.3, 0.7, 0.01, 0.8, 0.02])]
    cases += [np.round(rng.random(size) ** 3, 4) for size in (3, 5, 8) for _ in range(3)]
    found = [
        as_array(
            attempt(function, p), p.shape, f"for the p-values {p.tolist()}", "one value for each,"
        )
        for p in cases
    ]
    for p_values, got in zip(cases, found, strict=True):
        wanted = closed_testing(p_values)
        if not np.allclose(got, wanted, rtol=0, atol=1e-6):
            hint = diagnosis(found, ADJUSTED, [(p,) for p in cases], 1e-6)
            if not hint and (got > 1).any():
                hint = " A p-value is at most 1."
            elif not hint and np.any(np.diff(got[p_values.argsort()]) < -1e-9):
                hint = " A larger p-value has a smaller adjusted one: carry the largest along."
            require(
                False,
                f"For the p-values {p_values.tolist()} the adjusted ones are "
                f"{wanted.round(4).tolist()}, not {got.round(4).tolist()}.{hint}",
            )
    passed(function)


def closed_testing(p_values: np.ndarray) -> np.ndarray:
    """Adjusted p-values by the definition: the worst Bonferroni test of any group that has it."""
    adjusted = np.zeros(len(p_values))
    numbers = range(len(p_values))
    for size in range(1, len(p_values) + 1):
        for group in combinations(numbers, size):
            together = min(1.0, size * min(p_values[k] for k in group))
            for k in group:
                adjusted[k] = max(adjusted[k], together)
    return adjusted


def stepwise(
    p: np.ndarray,
    factors: np.ndarray | int,
    carry: Callable = np.maximum.accumulate,
    down: bool = False,
) -> np.ndarray:
    """The sorted p-values times these factors, carried along, back at their places."""
    order = (-p if down else p).argsort(kind="stable")
    adjusted = np.empty(len(p))
    adjusted[order] = carry(factors * p[order]).clip(max=1)
    return adjusted


def falling(p: np.ndarray) -> np.ndarray:
    """The factors of Holm: K, K - 1, ..., 1."""
    return np.arange(len(p), 0, -1)


def smallest_from_behind(values: np.ndarray) -> np.ndarray:
    """At each place the smallest value from there on, as in step-up procedures."""
    return np.minimum.accumulate(values[::-1])[::-1]


ADJUSTED: dict[str, Callable] = {
    "Those are the p-values as they came.": lambda p: p,
    "That is Bonferroni's correction: only the smallest is multiplied by K.": lambda p: (
        len(p) * p
    ).clip(max=1),
    "The values are right, but they stand in another order than the p-values: put them back with "
    "adjusted[order] = ...": lambda p: np.sort(closed_testing(p)),
    "The values stand in another order than the p-values: [order] on the right sorts once more, "
    "write adjusted[order] = ...": lambda p: np.sort(closed_testing(p))[p.argsort()],
    "A larger p-value has a smaller adjusted one: carry the largest so far along.": lambda p: (
        stepwise(p, falling(p), carry=lambda values: values)
    ),
    "A p-value is at most 1: clip.": lambda p: np.array(
        [max((falling(p) * np.sort(p))[: 1 + k]) for k in p.argsort().argsort()]
    ),
    "The factors grow from 1 to K: multiply the smallest by K, the next by K - 1.": lambda p: (
        stepwise(p, falling(p)[::-1])
    ),
    "The order is from large to small: multiply the smallest by K, the next by K - 1.": lambda p: (
        stepwise(p, falling(p), down=True)
    ),
    "The factors fall from K - 1: they go from K to 1, not to 0.": lambda p: stepwise(
        p, falling(p) - 1
    ),
    "That is Benjamini and Hochberg's correction: it bounds another kind of error.": lambda p: (
        stepwise(p, len(p) / np.arange(1, len(p) + 1), carry=smallest_from_behind)
    ),
    "That is Hochberg's correction: carry the largest so far along, from the smallest on.": (
        lambda p: stepwise(p, falling(p), carry=smallest_from_behind)
    ),
    "Multiply by the number of tests that are left, do not take a power.": lambda p: stepwise(
        p, 1, carry=lambda q: np.maximum.accumulate(1 - (1 - q) ** falling(q))
    ),
    "Multiply by the number of tests that are left, do not divide.": lambda p: stepwise(
        p, 1 / falling(p)
    ),
    "Return the adjusted values themselves, not whether they are below 0.05.": lambda p: (
        closed_testing(p) < 0.05
    ),
}


@recorded
def check_rank_ranges(function: Callable) -> None:
    """Compares with counting in two loops. Raises CheckFailed."""
    rng = np.random.default_rng(0)
    cases = [np.zeros((3, 3), dtype=bool), np.triu(np.ones((4, 4), dtype=bool), 1)]
    for count in (5, 2, 10):
        known = np.triu(rng.random((count, count)) < 0.5, 1)
        order = rng.permutation(count)
        cases.append(known[order][:, order])
    found = []
    for better in cases:
        count, answer = len(better), attempt(function, better)
        turned = getattr(answer, "shape", ()) == (2, count) != (count, 2)
        hint = ": best and worst side by side, axis=1" if turned else ""
        case = f"for {count} victims{hint}"
        found.append(as_array(answer, (count, 2), case, "best and worst rank of each victim,"))
    for better, got in zip(cases, found, strict=True):
        count = len(better)
        for k in range(count):
            before = sum(bool(better[j, k]) for j in range(count))
            behind = sum(bool(better[k, j]) for j in range(count))
            wanted = (1 + before, count - behind)
            if tuple(got[k]) != wanted:
                require(
                    False,
                    f"One of {count} victims, with {before} shown to be better than it and "
                    f"{behind} shown to be worse, has ranks {wanted[0]} to {wanted[1]}, not "
                    f"{got[k, 0]:g} to {got[k, 1]:g}."
                    f"{diagnosis(found, RANKS, [(b,) for b in cases])}",
                )
    passed(function)


def pairs(best: np.ndarray, worst: np.ndarray) -> np.ndarray:
    """Best and worst ranks side by side (N, 2)."""
    return np.stack([best, worst], axis=1)


def reached(better: np.ndarray) -> np.ndarray:
    """Who is better than whom if 'better than one that is better' counts as well."""
    power = better.astype(int)
    for _ in better:
        power = ((power + power @ power) > 0).astype(int)
    return power


RANKS: dict[str, Callable] = {
    "Ranks begin at 1: add 1 to both.": lambda b: pairs(b.sum(0), len(b) - 1 - b.sum(1)),
    "Ranks begin at 1: add 1 to the best.": lambda b: pairs(b.sum(0), len(b) - b.sum(1)),
    "The best rank comes first.": lambda b: pairs(len(b) - b.sum(1), 1 + b.sum(0)),
    "better[i, j] says that i is better than j, not the other way round.": lambda b: pairs(
        1 + b.sum(1), len(b) - b.sum(0)
    ),
    "Those are the best ranks twice: its worst rank is N minus those that are shown to be worse.": (
        lambda b: pairs(1 + b.sum(0), 1 + b.sum(0))
    ),
    "Of N victims the last is rank N, not N + 1.": lambda b: pairs(
        1 + b.sum(0), 1 + len(b) - b.sum(1)
    ),
    "A rank is a range: what was not shown is open.": lambda b: pairs(
        *2 * [1 + (-b.sum(1)).argsort().argsort()]
    ),
    "Count only what was shown: better than one that is better was not shown.": lambda b: pairs(
        1 + reached(b).sum(0), len(b) - reached(b).sum(1)
    ),
    "Count the victims, do not average.": lambda b: pairs(b.mean(0), 1 - b.mean(1)),
    "You ignore `better`: all ranks are possible only where nothing was shown.": lambda b: pairs(
        np.ones(len(b)), np.full(len(b), len(b))
    ),
}
