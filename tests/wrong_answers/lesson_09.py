"""Plausible wrong answers to the exercises of lesson 09, and what the check must say of them."""

import torch

from course_utils.attacks.gradient_matching import dot, length
from course_utils.defenses.gradient_anatomy import cosine
from course_utils.defenses.per_example import check_shaping, per_example_norms


def scaled(gradients, factor):
    return tuple(part * factor.view(-1, *[1] * (part.ndim - 1)) for part in gradients)


def all_to_the_bound(gradients, bound):
    check_shaping(bound)
    return scaled(gradients, bound / per_example_norms(gradients))


def by_layer(gradients, bound):
    check_shaping(bound)
    return tuple(
        scaled((p,), (bound / p.flatten(1).norm(dim=1)).clamp(max=1))[0] for p in gradients
    )


def the_batch(gradients, bound):
    check_shaping(bound)
    total = length(tuple(part.sum(0) for part in gradients))
    return tuple(part * (bound / total).clamp(max=1) for part in gradients)


def clamp_values(gradients, bound):
    check_shaping(bound)
    return tuple(part.clamp(-bound, bound) for part in gradients)


def any_bound(gradients, bound):
    return scaled(gradients, (bound / per_example_norms(gradients)).clamp(max=1))


def in_place(gradients, bound):
    check_shaping(bound)
    factor = (bound / per_example_norms(gradients)).clamp(max=1)
    for part in gradients:
        part.mul_(factor.view(-1, *[1] * (part.ndim - 1)))
    return gradients


def the_sum(gradients, bound):
    check_shaping(bound)
    return tuple(part.sum(0) for part in any_bound(gradients, bound))


def mean_of_pairs(gradients, first, second):
    rows = torch.cat([part.flatten(1) for part in gradients], 1)
    rows = rows / rows.norm(dim=1, keepdim=True)
    return (rows[first] @ rows[second].T).mean().item()


def units_first(gradients, first, second):
    return group_cosine(scaled(gradients, 1 / per_example_norms(gradients)), first, second)


def group_cosine(gradients, first, second):
    return cosine(*(tuple(part[g].mean(0) for part in gradients) for g in (first, second)))


def against_all(gradients, first, second):
    return group_cosine(gradients, first, torch.ones_like(second))


def inner_product(gradients, first, second):
    return dot(*(tuple(part[g].mean(0) for part in gradients) for g in (first, second))).item()


def mean_over_layers(gradients, first, second):
    return sum(group_cosine((part,), first, second) for part in gradients) / len(gradients)


def last_layer_only(gradients, first, second):
    return group_cosine(gradients[-1:], first, second)


WRONG = {
    "clip": [
        (all_to_the_bound, "shorter than the bound"),
        (by_layer, "over all parameters together"),
        (the_batch, "by its own length"),
        (clamp_values, "must leave with"),
        (any_bound, "must raise a ValueError"),
        (in_place, "have changed"),
        (the_sum, "of the shape it came in"),
    ],
    "group_cosine": [
        (mean_of_pairs, "not the mean over the pairs"),
        (units_first, "length 1"),
        (against_all, "second group"),
        (inner_product, "both lengths"),
        (mean_over_layers, "not one for each"),
        (last_layer_only, "not one for each"),
    ],
}
