"""Plausible wrong answers to the exercises of lesson 01, and what the check must say of them;
unusual right answers that it must accept.
"""

import math

import numpy as np
import torch
from scipy import stats


def first_success(success):
    return min((budget for budget, won in success.items() if won), default=None)


def largest_success(success):
    return max((budget for budget, won in success.items() if won), default=None)


def walk_down(success, start):
    cost = start
    for budget in sorted(success, reverse=True):
        if not success[budget]:
            break
        cost = budget
    return cost


def zero_instead_of_none(success):
    return walk_down(success, 0)


def infinity_instead_of_none(success):
    return walk_down(success, math.inf)


def takes_zero_for_none(success):
    return walk_down(success, None) or None


def trusts_the_order(success):
    cost = None
    for budget in reversed(success):
        if not success[budget]:
            break
        cost = budget
    return cost


def walks_upwards(success):
    cost = None
    for budget in sorted(success):
        if not success[budget]:
            break
        cost = budget
    return cost


def sorts_as_text(success):
    cost = None
    for budget in sorted(success, key=str, reverse=True):
        if not success[budget]:
            break
        cost = budget
    return cost


def largest_failure(success):
    return max((budget for budget, won in success.items() if not won), default=None)


def counts_successes(success):
    return sum(success.values())


def place_in_the_list(success):
    cost = walk_down(success, None)
    return None if cost is None else sorted(success).index(cost)


def says_whether(success):
    return None if walk_down(success, None) is None else True


def empties_the_dictionary(success):
    cost = None
    while success and success[max(success)]:
        cost = max(success)
        success.pop(cost)
    return cost


def all_the_good(success):
    return [budget for budget in success if success[budget]]


def cost_by_numpy(success):
    budgets = np.array(sorted(success))
    good = [b for b in budgets if all(success[int(c)] for c in budgets[budgets >= b])]
    return good[0] if good else None


def cost_as_float(success):
    failures = [b for b in success if not success[b]]
    above = [float(b) for b in success if b > max(failures, default=-1)]
    return min(above) if above else None


def cost_by_recursion(success):
    if not success or not success[max(success)]:
        return None
    rest = {b: won for b, won in success.items() if b != max(success)}
    lower = cost_by_recursion(rest)
    return max(success) if lower is None else lower


def parts(successes, trials, z):
    rate = successes / trials
    spread = rate * (1 - rate) / trials
    half = z * np.sqrt(spread + z**2 / (4 * trials**2))
    return rate, spread, rate + z**2 / (2 * trials), half, 1 + z**2 / trials


def wald(successes, trials, z=1.959964):
    rate, spread, *_ = parts(successes, trials, z)
    half = z * np.sqrt(spread)
    return float(rate - half), float(rate + half)


def clipped_wald(successes, trials, z=1.959964):
    low, high = wald(successes, trials, z)
    return max(low, 0.0), min(high, 1.0)


def uncentred(successes, trials, z=1.959964):
    rate, _, _, half, scale = parts(successes, trials, z)
    return float(rate - half / scale), float(rate + half / scale)


def forgets_the_second_term(successes, trials, z=1.959964):
    _, spread, centre, _, scale = parts(successes, trials, z)
    half = z * np.sqrt(spread)
    return (centre - half) / scale, (centre + half) / scale


def forgets_the_factor(successes, trials, z=1.959964):
    _, _, centre, half, scale = parts(successes, trials, z)
    return (centre - half / z) / scale, (centre + half / z) / scale


def forgets_to_divide(successes, trials, z=1.959964):
    _, _, centre, half, _ = parts(successes, trials, z)
    return centre - half, centre + half


def divides_the_centre_only(successes, trials, z=1.959964):
    _, _, centre, half, scale = parts(successes, trials, z)
    return centre / scale - half, centre / scale + half


def upper_end_first(successes, trials, z=1.959964):
    return right_interval(successes, trials, z)[::-1]


def centre_and_half(successes, trials, z=1.959964):
    _, _, centre, half, scale = parts(successes, trials, z)
    return centre / scale, half / scale


def takes_the_count(successes, trials, z=1.959964):
    _, _, _, half, scale = parts(successes, trials, z)
    centre = successes + z**2 / (2 * trials)
    return (centre - half) / scale, (centre + half) / scale


def percent(successes, trials, z=1.959964):
    low, high = right_interval(successes, trials, z)
    return 100 * low, 100 * high


def clopper_pearson(successes, trials, z=1.959964):
    level = 2 * stats.norm.cdf(z) - 1
    return tuple(stats.binomtest(successes, trials).proportion_ci(level))


def ignores_z(successes, trials, z=1.959964):
    return right_interval(successes, trials, 1.959964)


def lower_end_only(successes, trials, z=1.959964):
    return right_interval(successes, trials, z)[0]


def another_default(successes, trials, z=1.0):
    return right_interval(successes, trials, z)


def right_interval(successes, trials, z):
    _, _, centre, half, scale = parts(successes, trials, z)
    return (centre - half) / scale, (centre + half) / scale


def interval_as_a_list(successes, trials, z=1.959964):
    return list(right_interval(successes, trials, z))


def interval_as_an_array(successes, trials, z=1.959964):
    return np.array(right_interval(successes, trials, z), dtype=np.float32)


def interval_by_the_quadratic(successes, trials, z=1.959964):
    rate = successes / trials
    roots = np.roots([1 + z**2 / trials, -(2 * rate + z**2 / trials), rate**2])
    return tuple(sorted(float(root.real) for root in roots))


def discordant(first, second):
    return int(np.sum(first & ~second)), int(np.sum(~first & second))


def one_sided(first, second):
    only_first, only_second = discordant(first, second)
    total = only_first + only_second
    return float(stats.binom.cdf(min(only_first, only_second), total, 0.5)) if total else 1.0


def greater_only(first, second):
    only_first, only_second = discordant(first, second)
    total = only_first + only_second
    return stats.binomtest(only_first, total, alternative="greater").pvalue if total else 1.0


def above_one(first, second):
    only_first, only_second = discordant(first, second)
    return 2 * stats.binom.cdf(min(only_first, only_second), only_first + only_second, 0.5)


def counts_all_pairs(first, second):
    return stats.binomtest(discordant(first, second)[0], len(first)).pvalue


def compares_the_agreeing(first, second):
    both, neither = int(np.sum(first & second)), int(np.sum(~first & ~second))
    return stats.binomtest(both, both + neither).pvalue


def unpaired(first, second):
    table = [[first.sum(), (~first).sum()], [second.sum(), (~second).sum()]]
    return stats.fisher_exact(table)[1]


def counts_all_successes(first, second):
    wins = int(first.sum())
    return stats.binomtest(wins, wins + discordant(first, second)[1]).pvalue


def chi_squared(first, second):
    only_first, only_second = discordant(first, second)
    gap = max(abs(only_first - only_second) - 1, 0)
    return stats.chi2.sf(gap**2 / max(only_first + only_second, 1), 1)


def zero_without_a_pair(first, second):
    return right_p(first, second) if any(discordant(first, second)) else 0.0


def one_minus(first, second):
    return 1 - right_p(first, second)


def fails_without_discordant_pairs(first, second):
    only_first, only_second = discordant(first, second)
    return stats.binomtest(only_first, only_first + only_second).pvalue


def the_whole_test(first, second):
    only_first, only_second = discordant(first, second)
    return stats.binomtest(only_first, max(only_first + only_second, 1))


def turns_the_first(first, second):
    first ^= second
    return right_p(first, second)


def right_p(first, second):
    only_first, only_second = discordant(first, second)
    total = only_first + only_second
    return stats.binomtest(only_first, total).pvalue if total else 1.0


def p_by_the_sum(first, second):
    smaller, total = min(discordant(first, second)), sum(discordant(first, second))
    return min(1, 2 * sum(math.comb(total, k) for k in range(smaller + 1)) / 2**total)


def p_as_a_tensor(first, second):
    return torch.tensor(right_p(first, second), dtype=torch.float64)


def p_by_scipys_cdf(first, second):
    smaller, total = min(discordant(first, second)), sum(discordant(first, second))
    return np.minimum(1.0, 2 * stats.binom.cdf(smaller, total, 0.5))


def nearest(accuracy, defended):
    return min(accuracy, key=lambda name: abs(accuracy[name] - defended))


def right_control(accuracy, defended):
    return "plain" if defended >= accuracy["plain"] - 0.005 else nearest(accuracy, defended)


def forgets_plain(accuracy, defended):
    return nearest(accuracy, defended)


def five_points(accuracy, defended):
    return "plain" if accuracy["plain"] - defended <= 0.05 else nearest(accuracy, defended)


def half_of_all(accuracy, defended):
    return "plain" if accuracy["plain"] - defended <= 0.5 else nearest(accuracy, defended)


def a_whole_point(accuracy, defended):
    return "plain" if accuracy["plain"] - defended <= 0.01 else nearest(accuracy, defended)


def both_sides_of_plain(accuracy, defended):
    close = abs(accuracy["plain"] - defended) <= 0.005
    return "plain" if close else nearest(accuracy, defended)


def without_plain(accuracy, defended):
    rest = {name: value for name, value in accuracy.items() if name != "plain"}
    return "plain" if defended >= accuracy["plain"] - 0.005 else nearest(rest, defended)


def signed(accuracy, defended):
    if defended >= accuracy["plain"] - 0.005:
        return "plain"
    return min(accuracy, key=lambda name: accuracy[name] - defended)


def only_below(accuracy, defended):
    if defended >= accuracy["plain"] - 0.005:
        return "plain"
    below = [name for name in accuracy if accuracy[name] <= defended]
    return max(below, key=accuracy.get, default=min(accuracy, key=accuracy.get))


def only_above(accuracy, defended):
    if defended >= accuracy["plain"] - 0.005:
        return "plain"
    above = [name for name in accuracy if accuracy[name] >= defended]
    return min(above, key=accuracy.get)


def furthest(accuracy, defended):
    if defended >= accuracy["plain"] - 0.005:
        return "plain"
    return max(accuracy, key=lambda name: abs(accuracy[name] - defended))


def always_plain(accuracy, defended):
    return "plain"


def gives_the_accuracy(accuracy, defended):
    return accuracy[right_control(accuracy, defended)]


def takes_plain_out(accuracy, defended):
    if defended >= accuracy["plain"] - 0.005:
        return "plain"
    accuracy.pop("lucky", None)
    return nearest(accuracy, defended)


def control_by_sorting(accuracy, defended):
    if accuracy["plain"] - defended <= 0.005:
        return "plain"
    return sorted((abs(value - defended), name) for name, value in accuracy.items())[0][1]


def control_by_numpy(accuracy, defended):
    names, values = np.array(list(accuracy)), np.array(list(accuracy.values()))
    if defended > accuracy["plain"] - 0.0050001:
        return "plain"
    return names[np.abs(values - defended).argmin()]


def control_by_a_loop(accuracy, defended):
    best = "plain"
    if defended < accuracy["plain"] - 0.005:
        for name in accuracy:
            if abs(accuracy[name] - defended) < abs(accuracy[best] - defended):
                best = name
    return best


WRONG = {
    "attack_cost": [
        (first_success, "larger budget fails"),
        (largest_success, "look for the smallest"),
        (zero_instead_of_none, "there is no cost: return None"),
        (infinity_instead_of_none, "return None, not infinity"),
        (takes_zero_for_none, "ask for `is None`"),
        (trusts_the_order, "need not come in order"),
        (walks_upwards, "begin with the largest"),
        (sorts_as_text, "not as text"),
        (largest_failure, "the next one above"),
        (counts_successes, "how many budgets"),
        (place_in_the_list, "the place in the list"),
        (says_whether, "not whether it succeeds"),
        (empties_the_dictionary, "What came in was changed"),
        (all_the_good, "Return one budget or None, not a list of 2"),
    ],
    "wilson_interval": [
        (wald, "Wald interval, which"),
        (clipped_wald, "Wald interval, cut"),
        (uncentred, "width is right"),
        (forgets_the_second_term, "centre is right"),
        (forgets_the_factor, "lacks the factor z"),
        (forgets_to_divide, "Divide both ends"),
        (divides_the_centre_only, "divide the half width too"),
        (upper_end_first, "lower end comes first"),
        (centre_and_half, "subtract and add"),
        (takes_the_count, "number of successes for the rate"),
        (percent, "no percent"),
        (clopper_pearson, "Clopper"),
        (ignores_z, "1.96 whatever"),
        (lower_end_only, "Return two numbers"),
        (another_default, "Without z"),
    ],
    "mcnemar_p_value": [
        (one_sided, "one side only"),
        (greater_only, "whether the first is better"),
        (above_one, "at most 1"),
        (counts_all_pairs, "discordant"),
        (compares_the_agreeing, "those that differ count"),
        (unpaired, "independent samples"),
        (counts_all_successes, "those that it has alone"),
        (chi_squared, "chi-squared"),
        (zero_without_a_pair, "no sign of a difference: return 1"),
        (one_minus, "one minus the p-value"),
        (fails_without_discordant_pairs, "stopped with"),
        (the_whole_test, "Return one number, not BinomTestResult"),
        (turns_the_first, "What came in was changed: `first`"),
    ],
    "nearest_control": [
        (forgets_plain, "Within half a point of plain"),
        (five_points, "0.005, not 0.05"),
        (half_of_all, "0.005, not 0.5"),
        (a_whole_point, "a whole point"),
        (both_sides_of_plain, "better than plain"),
        (without_plain, "Plain stays a candidate"),
        (signed, "either side: take the absolute"),
        (only_below, "not only below"),
        (only_above, "not only above"),
        (furthest, "the smallest difference"),
        (always_plain, "Not every defense"),
        (gives_the_accuracy, "Give the name, not the accuracy"),
        (takes_plain_out, "What came in was changed"),
    ],
}
RIGHT = {
    "attack_cost": [cost_by_numpy, cost_as_float, cost_by_recursion],
    "wilson_interval": [interval_as_a_list, interval_as_an_array, interval_by_the_quadratic],
    "mcnemar_p_value": [p_by_the_sum, p_as_a_tensor, p_by_scipys_cdf],
    "nearest_control": [control_by_sorting, control_by_numpy, control_by_a_loop],
}
