"""Answers to the exercises of lesson 16: wrong ones, what the check must say, right ones."""

import math

import numpy as np
import torch
from scipy.stats import false_discovery_control


def larger_in_each_trial(without, knowing):
    return without if knowing is None else np.maximum(without, knowing)


def always_the_knowing(without, knowing):
    return without if knowing is None else knowing


def the_milder(without, knowing):
    if knowing is None or knowing.mean() > without.mean():
        return without
    return knowing


def mean_of_the_worse(without, knowing):
    means = [without.mean()] + ([] if knowing is None else [knowing.mean()])
    return np.array(max(means))


def forgets_none(without, knowing):
    return knowing if knowing.mean() > without.mean() else without


def by_trials_won(without, knowing):
    if knowing is None or (knowing > without).sum() <= (without > knowing).sum():
        return without
    return knowing


def zeros_for_none(without, knowing):
    if knowing is None:
        knowing = np.zeros_like(without)
    return knowing if knowing.mean() > without.mean() else without


def knowing_at_a_draw(without, knowing):
    if knowing is None or knowing.mean() < without.mean():
        return without
    return knowing


def never_the_knowing(without, knowing):
    return without


def by_the_largest(without, knowing):
    if knowing is None or knowing.max() <= without.max():
        return without
    return knowing


def by_the_first_trial(without, knowing):
    return without if knowing is None or knowing[0] <= without[0] else knowing


def by_the_median(without, knowing):
    if knowing is None or np.median(knowing) <= np.median(without):
        return without
    return knowing


def both(without, knowing):
    return without, knowing


def mean_of_both(without, knowing):
    return without if knowing is None else (without + knowing) / 2


def overwritten(without, knowing):
    if knowing is not None and knowing.mean() > without.mean():
        without[:] = knowing
    return without


def sorted_trials(without, knowing):
    if knowing is None or knowing.mean() <= without.mean():
        return np.sort(without)
    return np.sort(knowing)


def nothing_for_none(without, knowing):
    if knowing is not None:
        return knowing if knowing.mean() > without.mean() else without


def not_a_number(without, knowing):
    return without * math.nan


def list_of_the_worse(without, knowing):
    rows = [list(without)] + ([] if knowing is None else [list(knowing)])
    return max(rows, key=lambda row: sum(row) / len(row))


def by_the_sum(without, knowing):
    total = -np.inf if knowing is None else knowing.sum()
    return np.where(total > without.sum(), without if knowing is None else knowing, without)


def single_precision(without, knowing):
    if knowing is None or knowing.mean() <= without.mean():
        return torch.tensor(without, dtype=torch.float32)
    return torch.tensor(knowing, dtype=torch.float32)


def bonferroni(p_values):
    return (len(p_values) * p_values).clip(max=1)


def not_monotone(p_values):
    ranks = p_values.argsort().argsort()
    return ((len(p_values) - ranks) * p_values).clip(max=1)


def sorted_output(p_values):
    factors = np.arange(len(p_values), 0, -1)
    return np.maximum.accumulate(factors * np.sort(p_values)).clip(max=1)


def above_one(p_values):
    order = p_values.argsort()
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.maximum.accumulate(np.arange(len(p_values), 0, -1) * p_values[order])
    return adjusted


def no_correction(p_values):
    return p_values


def in_place(p_values):
    order = p_values.argsort()
    factors = np.arange(len(p_values), 0, -1)
    p_values[order] = np.maximum.accumulate(factors * p_values[order]).clip(max=1)
    return p_values


def ascending_factors(p_values):
    order = p_values.argsort()
    adjusted = np.empty(len(p_values))
    factors = np.arange(1, len(p_values) + 1)
    adjusted[order] = np.maximum.accumulate(factors * p_values[order]).clip(max=1)
    return adjusted


def one_factor_too_few(p_values):
    order = p_values.argsort()
    adjusted = np.empty(len(p_values))
    factors = np.arange(len(p_values) - 1, -1, -1)
    adjusted[order] = np.maximum.accumulate(factors * p_values[order]).clip(max=1)
    return adjusted


def put_back_by_the_order(p_values):
    order = p_values.argsort()
    factors = np.arange(len(p_values), 0, -1)
    return np.maximum.accumulate(factors * p_values[order]).clip(max=1)[order]


def false_discoveries(p_values):
    return false_discovery_control(p_values)


def hochberg(p_values):
    order = p_values.argsort()
    adjusted = np.empty(len(p_values))
    values = np.arange(len(p_values), 0, -1) * p_values[order]
    adjusted[order] = np.minimum.accumulate(values[::-1])[::-1].clip(max=1)
    return adjusted


def sidak(p_values):
    order = p_values.argsort()
    adjusted = np.empty(len(p_values))
    values = 1 - (1 - p_values[order]) ** np.arange(len(p_values), 0, -1)
    adjusted[order] = np.maximum.accumulate(values)
    return adjusted


def found_or_not(p_values):
    return right_holm(p_values) < 0.05


def divided(p_values):
    order = p_values.argsort()
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.maximum.accumulate(p_values[order] / np.arange(len(p_values), 0, -1))
    return adjusted


def largest_first(p_values):
    order = (-p_values).argsort()
    adjusted = np.empty(len(p_values))
    values = np.arange(len(p_values), 0, -1) * p_values[order]
    adjusted[order] = np.maximum.accumulate(values).clip(max=1)
    return adjusted


def missing(p_values):
    return p_values * math.nan


def right_holm(p_values):
    count = len(p_values)
    adjusted = []
    for p in p_values:
        below = sorted(q for q in p_values if q <= p)
        adjusted.append(min(1.0, max((count - k) * q for k, q in enumerate(below))))
    return np.array(adjusted)


def holm_as_a_list(p_values):
    return right_holm(p_values).tolist()


def holm_in_torch(p_values):
    values, order = torch.tensor(p_values).sort()
    values = (torch.arange(len(values), 0, -1) * values).clamp(max=1).cummax(0).values
    return torch.zeros_like(values).scatter(0, order, values)


def swapped(better):
    count = len(better)
    return np.stack([count - better.sum(1), 1 + better.sum(0)], axis=1)


def from_zero(better):
    return np.stack([better.sum(0), len(better) - 1 - better.sum(1)], axis=1)


def transposed(better):
    return np.stack([1 + better.sum(1), len(better) - better.sum(0)], axis=1)


def one_rank(better):
    return 1 + better.sum(0)


def worst_by_wins_of_others(better):
    return np.stack([1 + better.sum(0), 1 + better.sum(0)], axis=1)


def last_is_one_too_large(better):
    return np.stack([1 + better.sum(0), 1 + len(better) - better.sum(1)], axis=1)


def rows_first(better):
    return np.stack([1 + better.sum(0), len(better) - better.sum(1)], axis=0)


def by_number_of_wins(better):
    rank = 1 + (-better.sum(1)).argsort().argsort()
    return np.stack([rank, rank], axis=1)


def with_itself(better):
    better |= np.eye(len(better), dtype=bool)
    return np.stack([better.sum(0), len(better) - better.sum(1)], axis=1)


def through_others(better):
    reach = better.copy()
    for k in range(len(better)):
        reach |= reach[:, [k]] & reach[[k]]
    return np.stack([1 + reach.sum(0), len(better) - reach.sum(1)], axis=1)


def shares(better):
    return np.stack([better.mean(0), 1 - better.mean(1)], axis=1)


def ranks_missing(better):
    return np.stack([1 + better.sum(0), len(better) - better.sum(1)], axis=1) * math.nan


def constant(better):
    return np.array([[1, len(better)]] * len(better))


def pairs_in_a_list(better):
    count = len(better)
    return [(1 + sum(better[:, k]), count - sum(better[k])) for k in range(count)]


def not_shown_to_be_worse(better):
    return np.column_stack([1 + better.T.sum(1), (~better).sum(1)])


def ranks_in_torch(better):
    table = torch.from_numpy(better).float()
    return torch.stack([1 + table.sum(0), len(table) - table.sum(1)]).T


WRONG = {
    "worse_of": [
        (larger_in_each_trial, "choose before they see the victims"),
        (always_the_knowing, "may be the worse one"),
        (the_milder, "the milder one"),
        (mean_of_the_worse, "of shape (4,)"),
        (forgets_none, "knowing is None"),
        (by_trials_won, "trials won"),
        (zeros_for_none, "Not tried is not zero"),
        (knowing_at_a_draw, "At a draw"),
        (never_the_knowing, "ignore `knowing`"),
        (by_the_largest, "the mean decides"),
        (by_the_first_trial, "the mean decides"),
        (by_the_median, "the mean decides"),
        (both, "one of the two"),
        (mean_of_both, "of one attacker"),
        (overwritten, "changed"),
        (sorted_trials, "another order"),
        (nothing_for_none, "gave back None"),
        (not_a_number, "nan"),
    ],
    "holm": [
        (bonferroni, "Bonferroni"),
        (not_monotone, "carry the largest so far"),
        (sorted_output, "another order"),
        (put_back_by_the_order, "another order"),
        (above_one, "at most 1"),
        (no_correction, "as they came"),
        (in_place, "changed"),
        (ascending_factors, "the smallest by K"),
        (one_factor_too_few, "to 1, not to 0"),
        (false_discoveries, "Benjamini"),
        (hochberg, "Hochberg"),
        (sidak, "Multiply"),
        (found_or_not, "the adjusted values themselves"),
        (divided, "Multiply"),
        (largest_first, "the smallest by K"),
        (missing, "nan"),
    ],
    "rank_ranges": [
        (swapped, "best rank comes first"),
        (from_zero, "begin at 1"),
        (transposed, "not the other way round"),
        (one_rank, "best and worst rank"),
        (worst_by_wins_of_others, "its worst rank"),
        (last_is_one_too_large, "the last is rank N"),
        (rows_first, "axis=1"),
        (by_number_of_wins, "A rank is a range"),
        (with_itself, "changed"),
        (through_others, "only what was shown"),
        (shares, "Count"),
        (ranks_missing, "nan"),
        (constant, "ignore"),
    ],
}
RIGHT = {
    "worse_of": [list_of_the_worse, by_the_sum, single_precision],
    "holm": [right_holm, holm_as_a_list, holm_in_torch],
    "rank_ranges": [pairs_in_a_list, not_shown_to_be_worse, ranks_in_torch],
}
