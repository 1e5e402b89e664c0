"""Plausible wrong answers to the exercises of lesson 01, and what the check must say of them."""

import numpy as np
from scipy import stats


def first_success(success):
    return min((budget for budget, won in success.items() if won), default=None)


def zero_instead_of_none(success):
    cost = 0
    for budget in sorted(success, reverse=True):
        if not success[budget]:
            break
        cost = budget
    return cost


def trusts_the_order(success):
    cost = None
    for budget in reversed(success):
        if not success[budget]:
            break
        cost = budget
    return cost


def wald(successes, trials, z=1.959964):
    rate = successes / trials
    half = z * np.sqrt(rate * (1 - rate) / trials)
    return float(rate - half), float(rate + half)


def uncentred(successes, trials, z=1.959964):
    rate = successes / trials
    half = z * np.sqrt(rate * (1 - rate) / trials + z**2 / (4 * trials**2)) / (1 + z**2 / trials)
    return float(rate - half), float(rate + half)


def forgets_the_second_term(successes, trials, z=1.959964):
    rate = successes / trials
    scale = 1 + z**2 / trials
    centre = (rate + z**2 / (2 * trials)) / scale
    half = z * np.sqrt(rate * (1 - rate) / trials) / scale
    return float(centre - half), float(centre + half)


def one_sided(first, second):
    only_first, only_second = np.sum(first & ~second), np.sum(~first & second)
    total = int(only_first + only_second)
    return float(stats.binom.cdf(min(only_first, only_second), total, 0.5)) if total else 1.0


def counts_all_pairs(first, second):
    return stats.binomtest(int(np.sum(first & ~second)), len(first)).pvalue


def unpaired(first, second):
    table = [[first.sum(), (~first).sum()], [second.sum(), (~second).sum()]]
    return stats.fisher_exact(table)[1]


def fails_without_discordant_pairs(first, second):
    only_first, only_second = int(np.sum(first & ~second)), int(np.sum(~first & second))
    return stats.binomtest(only_first, only_first + only_second).pvalue


WRONG = {
    "attack_cost": [
        (first_success, "larger budget fails"),
        (zero_instead_of_none, "None"),
        (trusts_the_order, "in order"),
    ],
    "wilson_interval": [
        (wald, "Wald"),
        (uncentred, "width is right"),
        (forgets_the_second_term, "centre is right"),
    ],
    "mcnemar_p_value": [
        (one_sided, "one side only"),
        (counts_all_pairs, "discordant"),
        (unpaired, "p-value is"),
        (fails_without_discordant_pairs, "stopped with"),
    ],
}
