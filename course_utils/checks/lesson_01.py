"""Checks of lesson 01, measuring poisoning."""

from collections.abc import Callable
from math import comb

import numpy as np
from scipy import stats

from course_utils.checks import CheckFailed, attempt, passed, require
from course_utils.checks.answers import as_array, as_number, compare, instead
from course_utils.record import recorded


@recorded
def check_attack_cost(cost: Callable) -> None:
    """Compares with trying every budget in turn. Raises CheckFailed."""
    cases = [
        {1: False, 2: False, 5: True, 10: True},
        {1: False, 2: True, 5: False, 10: True},
        {10: True, 1: False, 5: True, 2: False},
        {0: True, 2: True, 5: True},
        {1: True, 2: False, 5: False},
        {5: False},
        {9: True, 10: True, 2: False},
        {3: False, 8: False, 20: True},
    ]
    rows = []
    for success in cases:
        good = [b for b in success if all(won for tried, won in success.items() if tried >= b)]
        found = attempt(cost, success, none=True, finite=False)
        require(
            found is None or np.ndim(found) == 0,
            f"Return one budget or None{instead(found)}; for {success}.",
        )
        rows.append((success, found, min(good, default=None), cost_slips(success)))
    for success, found, expected, slips in rows:
        if found == expected and not isinstance(found, bool):
            continue
        advice = next((t for t in slips if all(a == by[t] for _, a, _, by in rows)), "")
        raise CheckFailed(f"For {success} the cost is {expected}, you gave {found!r}. {advice}")
    passed(cost)


def cost_slips(success: dict[int, bool]) -> dict[str, object]:
    """What common mistakes make of the cost of an attack."""

    def walked(budgets: list):
        """The last success before the first failure."""
        failed = [i for i, budget in enumerate(budgets) if not success[budget]]
        return ([None, *budgets])[failed[0] if failed else len(budgets)]

    falling = sorted(success, reverse=True)
    right = walked(falling)
    won = [budget for budget in success if success[budget]]
    return {
        "A success does not count if a larger budget fails.": min(won, default=None),
        "That is the largest budget that succeeds: look for the smallest.": max(won, default=None),
        "When the largest budget fails there is no cost: return None.": right or 0,
        "Without a cost return None, not infinity.": np.inf if right is None else right,
        "A budget of 0 is a budget: ask for `is None`.": right or None,
        "The budgets need not come in order: sort them.": walked([*success][::-1]),
        "You stopped at the first failure from below: begin with the largest budget.": walked(
            falling[::-1]
        ),
        "The budgets are numbers, and sorted as numbers, not as text.": walked(
            sorted(success, key=str, reverse=True)
        ),
        "That is the budget of the last failure: the cost is the next one above.": max(
            (budget for budget in success if not success[budget]), default=None
        ),
        "That is how many budgets succeed, not the cost.": len(won),
        "You gave the place in the list, not the budget.": None
        if right is None
        else sorted(success).index(right),
        "Give the budget, not whether it succeeds.": None if right is None else True,
    }


@recorded
def check_wilson_interval(interval: Callable) -> None:
    """Compares with scipy's Wilson interval. Raises CheckFailed."""
    rows = []
    for successes, trials, z in (
        (10, 20, 1.959964),
        (3, 20, 1.959964),
        (0, 20, 1.959964),
        (20, 20, 1.959964),
        (1, 1, 1.959964),
        (0, 1, 1.959964),
        (97, 100, 1.959964),
        (30, 40, 1.0),
    ):
        case = f"{successes} successes in {trials} trials and z = {z}"
        found = as_array(attempt(interval, successes, trials, z), (2,), case, "two numbers")
        level = 2 * stats.norm.cdf(z) - 1
        exact = stats.binomtest(successes, trials).proportion_ci(level, method="wilson")
        rows.append((case, (successes, trials, z), found, [exact.low, exact.high]))
    compare(rows, "the interval", interval_slips, tolerance=1e-4)
    default = attempt(interval, 3, 20)
    require(
        np.allclose(default, rows[1][2], atol=1e-5), "Without z the interval should be that of 95%."
    )
    passed(interval)


def interval_slips(successes: int, trials: int, z: float) -> dict[str, np.ndarray]:
    """What common mistakes make of the interval."""
    rate, sides = successes / trials, np.array([-1, 1])
    spread = rate * (1 - rate) / trials
    scale, middle = 1 + z**2 / trials, rate + z**2 / (2 * trials)
    half = z * np.sqrt(spread + z**2 / (4 * trials**2))
    wald = rate + sides * z * np.sqrt(spread)
    test = stats.binomtest(successes, trials)
    exact = test.proportion_ci(2 * stats.norm.cdf(z) - 1)
    ninety_five = test.proportion_ci(method="wilson")
    return {
        "That is the Wald interval, which has no width at 0 and 1.": wald,
        "That is the Wald interval, cut off at 0 and 1.": wald.clip(0, 1),
        "The width is right, the centre is not: it is pulled towards one half.": rate
        + sides * half / scale,
        "The centre is right, the width is not: look at what stands under the root.": (
            middle + sides * z * np.sqrt(spread)
        )
        / scale,
        "The half width lacks the factor z.": (middle + sides * half / z) / scale,
        "Divide both ends by the denominator.": middle + sides * half,
        "Only the centre is divided; divide the half width too.": middle / scale + sides * half,
        "Only the half width is divided; divide the centre too.": middle + sides * half / scale,
        "The lower end comes first.": (middle - sides * half) / scale,
        "Those are centre and half width: subtract and add.": np.array([middle, half]) / scale,
        "You take the number of successes for the rate.": (
            successes + z**2 / (2 * trials) + sides * half
        )
        / scale,
        "A rate lies between 0 and 1: no percent.": 100 * (middle + sides * half) / scale,
        "That is the interval of Clopper and Pearson, which is wider.": np.array(
            [exact.low, exact.high]
        ),
        "You take 1.96 whatever `z` is.": np.array([ninety_five.low, ninety_five.high]),
    }


@recorded
def check_mcnemar_p_value(p_value: Callable) -> None:
    """Compares with adding up the coin flips one by one. Raises CheckFailed."""
    rows = []
    for both, only_first, only_second, neither in (
        (5, 8, 2, 5),
        (5, 2, 8, 4),
        (0, 6, 0, 14),
        (9, 0, 0, 11),
        (10, 3, 3, 4),
        (0, 1, 0, 3),
        (1, 12, 5, 30),
    ):
        outcomes = [True, True, False, False], [True, False, True, False]
        counts = both, only_first, only_second, neither
        first, second = (np.repeat(values, counts) for values in outcomes)
        total, smaller = only_first + only_second, min(only_first, only_second)
        tail = sum(comb(total, k) for k in range(smaller + 1)) / 2**total
        case = (
            f"{both} times both succeed, {only_first} times only the first, {only_second} times "
            f"only the second, {neither} times none"
        )
        found = as_number(attempt(p_value, first, second), case)
        rows.append((case, counts, found, min(1.0, 2 * tail)))
    compare(rows, "the p-value", p_value_slips, tolerance=1e-6)
    passed(p_value)


def p_value_slips(both: int, only_first: int, only_second: int, neither: int) -> dict[str, float]:
    """What common mistakes make of the p-value."""
    total, trials = only_first + only_second, both + only_first + only_second + neither
    smaller = min(only_first, only_second)
    right = stats.binomtest(smaller, total).pvalue if total else 1.0
    tail = stats.binom.cdf(smaller, total, 0.5)
    table = [[both + only_first, only_second + neither], [both + only_second, only_first + neither]]
    wins = both + only_first
    gap = max(abs(only_first - only_second) - 1, 0)
    return {
        "You took one side only: a difference in either direction counts.": tail,
        "You ask whether the first is better: a difference in either direction counts.": (
            stats.binom.sf(only_first - 1, total, 0.5)
        ),
        "A p-value is at most 1.": 2 * tail,
        "Pairs that agree do not count: the total is the number of discordant pairs.": (
            stats.binomtest(only_first, trials).pvalue
        ),
        "You compare the pairs that agree; those that differ count.": stats.binomtest(
            both, both + neither
        ).pvalue,
        "That is a test of two independent samples: these are the same trials.": stats.fisher_exact(
            table
        )[1],
        "You count the successes of the first; count those that it has alone.": stats.binomtest(
            wins, wins + only_second
        ).pvalue,
        "That is the chi-squared approximation: take the exact test.": stats.chi2.sf(
            gap**2 / max(total, 1), 1
        ),
        "Without a discordant pair there is no sign of a difference: return 1.": right
        * (total > 0),
        "That is one minus the p-value.": 1 - right,
        "A test gives more than one number: take its p-value.": smaller / max(total, 1),
    }


@recorded
def check_nearest_control(control: Callable) -> None:
    """Compares with measuring the distance to every victim in turn. Raises CheckFailed."""
    curve = {"slow": 0.80, "plain": 0.84, "slower": 0.70, "13 epochs": 0.833, "lucky": 0.88}
    curves = [(curve, d) for d in (0.84, 0.82, 0.829, 0.79, 0.77, 0.72, 0.3, 0.832, 0.8355, 0.95)]
    few, rows = {"plain": 0.6, "slow": 0.5}, []
    for accuracy, defended in [*curves, (few, 0.52), (few, 0.58)]:
        right = "plain"
        for name in accuracy:
            gain = abs(accuracy[right] - defended) - abs(accuracy[name] - defended)
            if accuracy["plain"] - defended > 0.005 and gain > 0:
                right = name
        found = attempt(control, dict(accuracy), defended)
        require(isinstance(found, str), f"Give the name, not the accuracy{instead(found)}.")
        rows.append((accuracy, defended, found, right, control_slips(accuracy, defended)))
    for accuracy, defended, found, right, slips in rows:
        if found != right:
            advice = next((t for t in slips if all(a == by[t] for *_, a, _, by in rows)), "")
            raise CheckFailed(
                f"For a defense of accuracy {defended} among {accuracy} the control is {right!r}, "
                f"you gave {found!r}. {advice}"
            )
    passed(control)


def control_slips(accuracy: dict[str, float], defended: float) -> dict[str, str]:
    """What common mistakes make of the control."""

    def nearest(names: list[str]) -> str:
        return min(names, key=lambda name: abs(accuracy[name] - defended))

    def unless(as_good: bool, other: str) -> str:
        return "plain" if as_good else other

    plain, best = accuracy["plain"], nearest([*accuracy])
    rest = [name for name in accuracy if name != "plain"]
    below = [name for name in accuracy if accuracy[name] <= defended]
    above = [name for name in accuracy if accuracy[name] >= defended]
    good, gap = defended >= plain - 0.005, plain - defended
    return {
        "Within half a point of plain it is plain: ask for that first.": best,
        "A point is 0.01: half a point is 0.005, not 0.05.": unless(gap <= 0.05, best),
        "A point is 0.01: half a point is 0.005, not 0.5.": unless(gap <= 0.5, best),
        "That is a whole point; the rule is half a point.": unless(gap <= 0.01, best),
        "A defense that is better than plain is compared with plain as well.": unless(
            abs(gap) <= 0.005, best
        ),
        "Plain stays a candidate beyond half a point too.": unless(good, nearest(rest)),
        "The nearest may lie on either side: take the absolute difference.": unless(
            good, min(accuracy, key=lambda name: accuracy[name] - defended)
        ),
        "The nearest may lie on either side, not only below.": unless(
            good, max(below, key=accuracy.get, default=min(accuracy, key=accuracy.get))
        ),
        "The nearest may lie on either side, not only above.": unless(
            good, min(above, key=accuracy.get, default="plain")
        ),
        "That is the one that is furthest: take the smallest difference.": unless(
            good, max(accuracy, key=lambda name: abs(accuracy[name] - defended))
        ),
        "Not every defense is compared with plain.": "plain",
        "The names need not come in the order of their accuracy.": unless(
            good, next((name for name in accuracy if accuracy[name] <= defended), [*accuracy][-1])
        ),
    }
