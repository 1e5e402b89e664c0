"""Answers to the exercises of lesson 09: wrong ones, what the check must say, right ones."""

import math

import numpy as np
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


def an_assertion(gradients, bound):
    assert bound > 0
    return any_bound(gradients, bound)


def in_place(gradients, bound):
    check_shaping(bound)
    factor = (bound / per_example_norms(gradients)).clamp(max=1)
    for part in gradients:
        part.mul_(factor.view(-1, *[1] * (part.ndim - 1)))
    return gradients


def the_sum(gradients, bound):
    check_shaping(bound)
    return tuple(part.sum(0) for part in any_bound(gradients, bound))


def divided_by_zero(gradients, bound):
    check_shaping(bound)
    norms = per_example_norms(gradients)
    return scaled(gradients, norms.clamp(max=bound) / norms)


def infinity_over_infinity(gradients, bound):
    check_shaping(bound)
    return scaled(gradients, bound / per_example_norms(gradients).clamp(min=bound))


def not_a_number(gradients, bound):
    check_shaping(bound)
    return tuple(part * math.nan for part in gradients)


def lengths_added(gradients, bound):
    check_shaping(bound)
    norms = sum(part.flatten(1).norm(dim=1) for part in gradients)
    return scaled(gradients, (bound / norms).clamp(max=1))


def no_root(gradients, bound):
    check_shaping(bound)
    return scaled(gradients, (bound / per_example_norms(gradients).square()).clamp(max=1))


def upside_down(gradients, bound):
    check_shaping(bound)
    return scaled(gradients, (per_example_norms(gradients) / bound).clamp(max=1))


def bound_of_one(gradients, bound):
    check_shaping(bound)
    return any_bound(gradients, 1.0)


def long_ones_dropped(gradients, bound):
    check_shaping(bound)
    return scaled(gradients, (per_example_norms(gradients) <= bound).double())


def turned(gradients, bound):
    check_shaping(bound)
    return tuple(-part for part in any_bound(gradients, bound))


def not_reshaped(gradients, bound):
    check_shaping(bound)
    factor = (bound / per_example_norms(gradients)).clamp(max=1)
    return tuple(part * factor for part in gradients)


def first_parameter(gradients, bound):
    check_shaping(bound)
    return any_bound(gradients, bound)[0]


def nothing_returned(gradients, bound):
    check_shaping(bound)
    any_bound(gradients, bound)


def a_list(gradients, bound):
    if not bound > 0:
        raise ValueError("The bound must be positive.")
    return list(any_bound(gradients, bound))


def single_precision(gradients, bound):
    check_shaping(bound)
    return any_bound(tuple(part.float() for part in gradients), bound)


def as_in_opacus(gradients, bound):
    check_shaping(bound)
    return scaled(gradients, (bound / (per_example_norms(gradients) + 1e-6)).clamp(max=1))


def one_after_another(gradients, bound):
    check_shaping(bound)
    clipped = [torch.empty_like(part) for part in gradients]
    for i in range(len(gradients[0])):
        size = math.sqrt(sum(part[i].square().sum().item() for part in gradients))
        for new, part in zip(clipped, gradients, strict=True):
            new[i] = part[i] * bound / size if size > bound else part[i]
    return tuple(clipped)


def group_cosine(gradients, first, second):
    return cosine(*(tuple(part[g].mean(0) for part in gradients) for g in (first, second)))


def mean_of_pairs(gradients, first, second):
    rows = torch.cat([part.flatten(1) for part in gradients], 1)
    rows = rows / rows.norm(dim=1, keepdim=True)
    return (rows[first] @ rows[second].T).mean().item()


def units_first(gradients, first, second):
    return group_cosine(scaled(gradients, 1 / per_example_norms(gradients)), first, second)


def turned_cosine(gradients, first, second):
    return -group_cosine(gradients, first, second)


def against_all(gradients, first, second):
    return group_cosine(gradients, first, torch.ones_like(second))


def against_the_rest(gradients, first, second):
    return group_cosine(gradients, first, ~first)


def inner_product(gradients, first, second):
    return dot(*(tuple(part[g].mean(0) for part in gradients) for g in (first, second))).item()


def mean_over_layers(gradients, first, second):
    return sum(group_cosine((part,), first, second) for part in gradients) / len(gradients)


def last_layer_only(gradients, first, second):
    return group_cosine(gradients[-1:], first, second)


def without_sign(gradients, first, second):
    return abs(group_cosine(gradients, first, second))


def never_negative(gradients, first, second):
    return max(0.0, group_cosine(gradients, first, second))


def a_distance(gradients, first, second):
    return 1 - group_cosine(gradients, first, second)


def the_angle(gradients, first, second):
    return math.acos(group_cosine(gradients, first, second))


def inputs_scaled(gradients, first, second):
    for part in gradients:
        part /= part.norm()
    return group_cosine(gradients, first, second)


def masks_as_numbers(gradients, first, second):
    return group_cosine(gradients, first.long(), second.long())


def one_example_each(gradients, first, second):
    return group_cosine(gradients, first.nonzero()[0], second.nonzero()[0])


def no_number(gradients, first, second):
    return group_cosine(gradients, first & second, second)


def a_cosine_for_each_example(gradients, first, second):
    rows = torch.cat([part.flatten(1) for part in gradients], 1)
    return torch.cosine_similarity(rows[first], rows[second].mean(0, keepdim=True))


def sums_for_means(gradients, first, second):
    return cosine(*(tuple(part[g].sum(0) for part in gradients) for g in (first, second)))


def by_library(gradients, first, second):
    rows = torch.cat([part.flatten(1) for part in gradients], 1).float()
    return torch.cosine_similarity(rows[first].mean(0), rows[second].mean(0), dim=0)


def in_numpy(gradients, first, second):
    rows = np.hstack([part.flatten(1).numpy() for part in gradients])
    a, b = (rows[group.numpy()].mean(0) for group in (first, second))
    return a @ b / np.sqrt((a @ a) * (b @ b))


WRONG = {
    "clip": [
        (all_to_the_bound, "shorter than the bound"),
        (by_layer, "over all parameters together"),
        (the_batch, "by its own length"),
        (clamp_values, "single values were cut"),
        (any_bound, "must raise a ValueError"),
        (an_assertion, "not AssertionError"),
        (in_place, "changed"),
        (the_sum, "for each parameter a tensor of shape"),
        (divided_by_zero, "of length 0"),
        (infinity_over_infinity, "bound=inf"),
        (not_a_number, "nan"),
        (lengths_added, "squares"),
        (no_root, "the root"),
        (upside_down, "upside down"),
        (bound_of_one, "ignores the bound"),
        (long_ones_dropped, "not dropped"),
        (turned, "The sign is turned"),
        (first_parameter, "one tensor for each parameter"),
        (not_reshaped, "The size of tensor a"),
        (nothing_returned, "None"),
    ],
    "group_cosine": [
        (mean_of_pairs, "not the mean over the pairs"),
        (units_first, "length 1"),
        (against_all, "not with all examples"),
        (against_the_rest, "not with all that are outside the first"),
        (inner_product, "both lengths"),
        (mean_over_layers, "not one for each"),
        (last_layer_only, "not one for each"),
        (turned_cosine, "The sign is turned"),
        (without_sign, "has a sign"),
        (never_negative, "The sign is lost"),
        (a_distance, "one minus the cosine"),
        (the_angle, "the angle itself"),
        (inputs_scaled, "changed"),
        (masks_as_numbers, "masks"),
        (one_example_each, "first example of each group"),
        (no_number, "nan"),
        (a_cosine_for_each_example, "one number"),
    ],
}
RIGHT = {
    "clip": [a_list, single_precision, as_in_opacus, one_after_another],
    "group_cosine": [sums_for_means, by_library, in_numpy],
}
