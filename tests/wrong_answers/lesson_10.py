"""Plausible wrong answers to the exercises of lesson 10, and what the check must say of them."""

import math


def without_batch_size(clip, noise, batch_size, weights):
    return clip * noise * math.sqrt(weights)


def root_of_batch_size(clip, noise, batch_size, weights):
    return clip * noise * math.sqrt(weights / batch_size)


def no_root(clip, noise, batch_size, weights):
    return clip * noise * weights / batch_size


def one_coordinate(clip, noise, batch_size, weights):
    return clip * noise / batch_size


def without_bound(clip, noise, batch_size, weights):
    return noise * math.sqrt(weights) / batch_size


def position(counts, broken):
    return broken.index(True) if any(broken) else math.inf


def never_is_zero(counts, broken):
    return min((c for c, hit in zip(counts, broken, strict=True) if hit), default=0)


def first_listed(counts, broken):
    return next((c for c, hit in zip(counts, broken, strict=True) if hit), math.inf)


def largest(counts, broken):
    return max((c for c, hit in zip(counts, broken, strict=True) if hit), default=math.inf)


def how_many(counts, broken):
    return sum(broken) if any(broken) else math.inf


WRONG = {
    "noise_length": [
        (without_batch_size, "noise with it"),
        (root_of_batch_size, "once a batch"),
        (no_root, "square root"),
        (one_coordinate, "as many as weights"),
        (without_bound, "units of the bound"),
    ],
    "attack_cost": [
        (position, "the number of poisons there"),
        (never_is_zero, "no finite cost"),
        (first_listed, "need not be in order"),
        (largest, "not the largest"),
        (how_many, "counted the successes"),
    ],
}
