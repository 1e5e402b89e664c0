"""Checks of the exercises of lesson 16, the grand comparison."""

from collections.abc import Callable
from itertools import combinations

import numpy as np

from course_utils.checks import attempt, passed, require


def check_worse_of(function: Callable) -> None:
    """Compares with the two arrays that were given. Raises CheckFailed."""
    rng = np.random.default_rng(0)
    cases = []
    for trials in (4, 9, 40):
        first, second = (rng.random((2, trials)) < np.array([[0.3], [0.7]])).astype(float)
        cases += [(first, second), (second, first), (first, None)]
    cases += [(rng.random(12), rng.random(12) / 2), (rng.random(12) / 2, rng.random(12))]
    cases += [(np.array([1.0, 0.0]), np.array([0.0, 1.0])), (np.zeros(3), None)]
    for without, knowing in cases:
        other = None if knowing is None else knowing.copy()
        found = np.asarray(attempt(function, without.copy(), other))
        case = f"without knowledge {mean(without)}, with {mean(knowing)}"
        if knowing is None:
            case += " (None)"
        require(
            found.shape == without.shape,
            f"Return the {len(without)} values of one attacker, not a number; {case}.",
        )
        wanted = without
        if knowing is not None and knowing.mean() > without.mean():
            wanted = knowing
        if np.array_equal(found, wanted):
            continue
        hint = ""
        if knowing is not None and np.array_equal(found, np.maximum(without, knowing)):
            hint = (
                " You take the larger value in each trial: the attacker must choose before they "
                "see the victims."
            )
        elif knowing is not None and np.array_equal(found, knowing):
            hint = (
                " The attacker without knowledge may be the worse one, and comes first at a draw."
            )
        require(False, f"Wrong trials for the case {case}.{hint}")
    passed(function)


def mean(values: np.ndarray | None) -> str:
    """The mean, as the messages show it."""
    return "not tried" if values is None else f"{np.mean(values):.2f} on average"


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


def check_holm(function: Callable) -> None:
    """Compares with closed testing over all groups of tests. Raises CheckFailed."""
    rng = np.random.default_rng(0)
    cases = [np.array([0.04]), np.array([0.03, 0.01]), np.array([0.02, 0.02, 0.9])]
    cases += [np.array([0.011, 0.02, 0.021, 0.6])]
    cases += [np.round(rng.random(size) ** 3, 4) for size in (3, 5, 8) for _ in range(3)]
    for p_values in cases:
        found = np.asarray(attempt(function, p_values.copy()), dtype=float)
        shown = np.array2string(p_values, separator=", ")
        require(found.shape == p_values.shape, f"Return one adjusted value for each of {shown}.")
        wanted = closed_testing(p_values)
        if np.allclose(found, wanted, atol=1e-9):
            continue
        hint = ""
        if np.allclose(np.sort(found), np.sort(wanted), atol=1e-9):
            hint = " The values are right, but they stand in another order than the p-values."
        elif np.allclose(found, (len(p_values) * p_values).clip(max=1), atol=1e-9):
            hint = " That is Bonferroni's correction: only the smallest is multiplied by K."
        elif (found > 1).any():
            hint = " A p-value is at most 1."
        elif np.any(np.diff(found[p_values.argsort()]) < -1e-12):
            hint = " A larger p-value has a smaller adjusted one: carry the largest so far along."
        wanted_text = np.array2string(wanted.round(4), separator=", ")
        require(False, f"For the p-values {shown} the adjusted ones are {wanted_text}.{hint}")
    passed(function)


def check_rank_ranges(function: Callable) -> None:
    """Compares with counting in two loops. Raises CheckFailed."""
    rng = np.random.default_rng(0)
    cases = [np.zeros((3, 3), dtype=bool), np.triu(np.ones((4, 4), dtype=bool), 1)]
    for count in (2, 5, 10):
        known = np.triu(rng.random((count, count)) < 0.5, 1)
        order = rng.permutation(count)
        cases.append(known[order][:, order])
    for better in cases:
        found = np.asarray(attempt(function, better.copy()))
        count = len(better)
        require(
            found.shape == (count, 2), f"Return ({count}, 2): best and worst rank of each victim."
        )
        for k in range(count):
            before = sum(bool(better[j, k]) for j in range(count))
            behind = sum(bool(better[k, j]) for j in range(count))
            wanted = (1 + before, count - behind)
            got = tuple(int(value) for value in found[k])
            hint = ""
            if got == (wanted[0] - 1, wanted[1] - 1):
                hint = " Ranks begin at 1."
            elif got == wanted[::-1]:
                hint = " The best rank comes first."
            elif got == (1 + behind, count - before):
                hint = " better[i, j] says that i is better than j, not the other way round."
            require(
                got == wanted,
                f"One of {count} victims, with {before} shown to be better than it and {behind} "
                f"shown to be worse, has ranks {wanted[0]} to {wanted[1]}, not {got}.{hint}",
            )
    passed(function)
