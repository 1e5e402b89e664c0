"""Checks of lesson 01, measuring poisoning."""

from collections.abc import Callable
from math import comb

import numpy as np
from scipy import stats

from course_utils.checks import attempt, passed, require


def check_attack_cost(cost: Callable) -> None:
    """Compares with trying every budget in turn. Raises CheckFailed."""
    cases = [
        {1: False, 2: False, 5: True, 10: True},
        {1: False, 2: True, 5: False, 10: True},
        {10: True, 1: False, 5: True, 2: False},
        {1: True, 2: True, 5: True},
        {1: True, 2: False, 5: False},
        {5: False},
        {9: True, 10: True, 2: False},
    ]
    for success in cases:
        good = [b for b in success if all(won for tried, won in success.items() if tried >= b)]
        expected = min(good, default=None)
        found = attempt(cost, dict(success), none=True)
        hint = ""
        if expected is None:
            hint = " When the largest budget fails there is no cost: return None."
        elif any(won for tried, won in success.items() if tried < expected):
            hint = " A success does not count if a larger budget fails."
        elif list(success) != sorted(success):
            hint = " The budgets need not come in order, and they are numbers, not text."
        require(found == expected, f"For {success} the cost is {expected}, you gave {found}.{hint}")
    passed(cost)


def check_wilson_interval(interval: Callable) -> None:
    """Compares with scipy's Wilson interval. Raises CheckFailed."""
    for successes, trials in ((10, 20), (3, 20), (0, 20), (20, 20), (1, 1), (0, 1), (97, 100)):
        ends = attempt(interval, successes, trials)
        case = f"{successes} successes in {trials} trials"
        require(
            isinstance(ends, tuple) and len(ends) == 2,
            f"Return two numbers, the lower and the upper end; for {case} you gave {ends!r}.",
        )
        exact = stats.binomtest(successes, trials).proportion_ci(method="wilson")
        low, high = float(ends[0]), float(ends[1])
        if np.allclose((low, high), (exact.low, exact.high), atol=1e-4):
            continue
        rate = successes / trials
        half = 1.959964 * np.sqrt(rate * (1 - rate) / trials)
        hint = ""
        if np.allclose((low, high), (rate - half, rate + half), atol=1e-3):
            hint = " That is the Wald interval, which has no width at 0 and 1."
        elif abs((high - low) - (exact.high - exact.low)) < 1e-3:
            hint = " The width is right, the centre is not: it is pulled towards one half."
        elif abs((high + low) - (exact.high + exact.low)) < 1e-3:
            hint = " The centre is right, the width is not: look at what stands under the root."
        require(
            False,
            f"For {case} the interval is {exact.low:.3f} to {exact.high:.3f}, "
            f"you gave {low:.3f} to {high:.3f}.{hint}",
        )
    passed(interval)


def check_mcnemar_p_value(p_value: Callable) -> None:
    """Compares with adding up the coin flips one by one. Raises CheckFailed."""
    for both, only_first, only_second, neither in (
        (5, 8, 2, 5),
        (5, 2, 8, 5),
        (0, 6, 0, 14),
        (9, 0, 0, 11),
        (10, 3, 3, 4),
        (0, 1, 0, 3),
        (1, 12, 5, 30),
    ):
        first = np.repeat([True, True, False, False], [both, only_first, only_second, neither])
        second = np.repeat([True, False, True, False], [both, only_first, only_second, neither])
        total, smaller = only_first + only_second, min(only_first, only_second)
        tail = sum(comb(total, k) for k in range(smaller + 1)) / 2**total
        expected = min(1.0, 2 * tail)
        found = float(attempt(p_value, first, second))
        case = f"only the first succeeds {only_first} times, only the second {only_second} times"
        hint = ""
        if total == 0:
            hint = " Without a discordant pair there is no sign of a difference: return 1."
        elif abs(found - tail) < 1e-6:
            hint = " You took one side only: a difference in either direction counts."
        elif abs(found - stats.binomtest(only_first, len(first)).pvalue) < 1e-6:
            hint = " Pairs that agree do not count: the total is the number of discordant pairs."
        require(
            abs(found - expected) < 1e-6,
            f"When {case}, the p-value is {expected:.4f}, you gave {found:.4f}.{hint}",
        )
    passed(p_value)
