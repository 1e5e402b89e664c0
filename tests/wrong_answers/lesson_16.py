"""Plausible wrong answers to the exercises of lesson 16, and what the check must say of them."""

import numpy as np


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


def swapped(better):
    count = len(better)
    return np.stack([count - better.sum(1), 1 + better.sum(0)], axis=1)


def from_zero(better):
    return np.stack([better.sum(0), len(better) - 1 - better.sum(1)], axis=1)


def transposed(better):
    return np.stack([1 + better.sum(1), len(better) - better.sum(0)], axis=1)


def one_rank(better):
    return 1 + better.sum(0)


WRONG = {
    "worse_of": [
        (larger_in_each_trial, "choose before they see the victims"),
        (always_the_knowing, "may be the worse one"),
        (the_milder, "Wrong trials"),
        (mean_of_the_worse, "not a number"),
        (forgets_none, "stopped with AttributeError"),
    ],
    "holm": [
        (bonferroni, "Bonferroni"),
        (not_monotone, "carry the largest so far"),
        (sorted_output, "another order"),
        (above_one, "at most 1"),
        (no_correction, "the adjusted ones are"),
    ],
    "rank_ranges": [
        (swapped, "best rank comes first"),
        (from_zero, "begin at 1"),
        (transposed, "not the other way round"),
        (one_rank, "best and worst rank"),
    ],
}
