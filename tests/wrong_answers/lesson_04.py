"""Plausible wrong answers to the exercises of lesson 04, and what the check must say of them;
unusual right answers that it must accept.
"""

import numpy as np
import torch
from torch.nn.functional import cosine_similarity


def right_project(images, base, epsilon):
    if epsilon is not None:
        images = base + (images - base).clamp(-epsilon, epsilon)
    return images.clamp(0, 1)


def forgets_the_box(images, base, epsilon):
    if epsilon is None:
        return images
    return torch.minimum(torch.maximum(images, base - epsilon), base + epsilon)


def forgets_the_ball(images, base, epsilon):
    return images.clamp(0, 1)


def takes_zero_for_none(images, base, epsilon):
    return right_project(images, base, epsilon if epsilon else None)


def takes_none_for_zero(images, base, epsilon):
    return right_project(images, base, epsilon or 0.0)


def rescales_instead_of_cutting(images, base, epsilon):
    delta = images - base
    if epsilon is not None:
        delta = delta * min(1, epsilon / delta.abs().max())
    return (base + delta).clamp(0, 1)


def euclidean(images, base, epsilon):
    delta = images - base
    if epsilon is not None:
        delta = delta * min(1, epsilon / delta.norm())
    return (base + delta).clamp(0, 1)


def returns_the_change(images, base, epsilon):
    return right_project(images, base, epsilon) - base


def upper_end_only(images, base, epsilon):
    if epsilon is not None:
        images = torch.minimum(images, base + epsilon)
    return images.clamp(0, 1)


def lower_end_only(images, base, epsilon):
    if epsilon is not None:
        images = torch.maximum(images, base - epsilon)
    return images.clamp(0, 1)


def ball_around_zero(images, base, epsilon):
    if epsilon is not None:
        images = images.clamp(-epsilon, epsilon)
    return images.clamp(0, 1)


def moves_the_base(images, base, epsilon):
    if epsilon is None:
        return base.clamp(0, 1)
    return base.clamp(images - epsilon, images + epsilon).clamp(0, 1)


def divides_by_255(images, base, epsilon):
    return right_project(images, base, None if epsilon is None else epsilon / 255)


def back_to_the_base(images, base, epsilon):
    if epsilon is not None:
        images = torch.where((images - base).abs() <= epsilon, images, base)
    return images.clamp(0, 1)


def stumbles_over_none(images, base, epsilon):
    return (base + (images - base).clamp(-epsilon, epsilon)).clamp(0, 1)


def in_place(images, base, epsilon):
    return images.clamp_(0, 1) if epsilon is None else images.sub_(base).clamp_(-epsilon, epsilon)


def in_numpy(images, base, epsilon):
    return right_project(images, base, epsilon).numpy()


def box_first(images, base, epsilon):
    bound = torch.inf if epsilon is None else epsilon
    return torch.maximum(torch.minimum(images.clamp(0, 1), base + bound), base - bound)


def project_in_double(images, base, epsilon):
    return right_project(images.double(), base.double(), epsilon)


def project_by_where(images, base, epsilon):
    bound = 1.0 if epsilon is None else epsilon
    low, high = (base - bound).clamp(min=0), (base + bound).clamp(max=1)
    return torch.where(images < low, low, torch.where(images > high, high, images))


def divides_by_the_sum(values):
    kept = values.clamp(min=0)
    return kept / kept.sum() if kept.sum() > 0 else torch.full_like(values, 1 / len(values))


def divides_by_a_sum_of_zero(values):
    kept = values.clamp(min=0)
    return kept / kept.sum()


def subtracts_the_smallest(values):
    kept = values - values.min()
    return kept / kept.sum() if kept.sum() > 0 else torch.full_like(values, 1 / len(values))


def softmax(values):
    return values.softmax(0)


def shifts_without_cutting(values):
    return values - (values.sum() - 1) / len(values)


def cuts_after_one_shift(values):
    return shifts_without_cutting(values).clamp(min=0)


def cuts_and_divides(values):
    return cuts_after_one_shift(values) / cuts_after_one_shift(values).sum()


def cuts_only(values):
    return values.clamp(0, 1)


def one_too_few(values):
    falling = values.sort(descending=True)[0]
    shifts = (falling.cumsum(0) - 1) / torch.arange(1, len(values) + 1)
    kept = int((falling > shifts).sum())
    return (values - shifts[max(kept - 2, 0)]).clamp(min=0)


def one_too_many(values):
    falling = values.sort(descending=True)[0]
    shifts = (falling.cumsum(0) - 1) / torch.arange(1, len(values) + 1)
    kept = int((falling > shifts).sum())
    return (values - shifts[min(kept, len(values) - 1)]).clamp(min=0)


def index_beyond_the_end(values):
    falling = values.sort(descending=True)[0]
    shifts = (falling.cumsum(0) - 1) / torch.arange(1, len(values) + 1)
    return (values - shifts[(falling > shifts).sum()]).clamp(min=0)


def divides_by_the_place(values):
    falling = values.sort(descending=True)[0]
    shifts = (falling.cumsum(0) - 1) / torch.arange(len(values)).clamp(min=1)
    return (values - shifts[(falling > shifts).sum() - 1]).clamp(min=0)


def sorted_parts(values):
    return right_simplex(values).sort(descending=True)[0]


def all_to_the_largest(values):
    return torch.eye(len(values))[values.argmax()]


def unit_length(values):
    kept = values.clamp(min=1e-6)
    return kept / kept.norm()


def wrong_way(values):
    return right_simplex(-values)


def sorts_in_place(values):
    right = right_simplex(values)
    values.copy_(values.sort(descending=True)[0])
    return right


def right_simplex(values):
    falling = values.sort(descending=True)[0]
    shifts = (falling.cumsum(0) - 1) / torch.arange(1, len(values) + 1)
    return (values - shifts[(falling > shifts).sum() - 1]).clamp(min=0)


def simplex_by_halving(values):
    low, high = values.min() - 1, values.max()
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if (values - middle).clamp(min=0).sum() > 1 else (low, middle)
    return (values - high).clamp(min=0)


def simplex_by_dropping(values):
    kept = torch.ones(len(values), dtype=torch.bool)
    while True:
        shift = (values[kept].sum() - 1) / kept.sum()
        if (values[kept] >= shift).all():
            return torch.where(kept, values - shift, 0)
        kept &= values > shift


def simplex_in_double(values):
    return right_simplex(values.double().requires_grad_())


def distance_of_each(features, target_features):
    target = target_features.mean(0)
    return (features - target).square().sum(1).mean() / target.square().sum()


def sum_of_each(features, target_features):
    target = target_features.mean(0)
    return (features - target).square().sum() / target.square().sum()


def sum_of_the_poisons(features, target_features):
    target = target_features.mean(0)
    return (features.sum(0) - target).square().sum() / target.square().sum()


def without_the_length(features, target_features):
    return (features.mean(0) - target_features.mean(0)).square().sum()


def root_below(features, target_features):
    return without_the_length(features, target_features) / target_features.mean(0).norm()


def not_squared(features, target_features):
    target = target_features.mean(0)
    return (features.mean(0) - target).norm() / target.norm()


def mean_of_the_squares(features, target_features):
    target = target_features.mean(0)
    return (features.mean(0) - target).square().mean() / target.square().sum()


def length_of_the_poisons(features, target_features):
    mean = features.mean(0)
    return (mean - target_features.mean(0)).square().sum() / mean.square().sum()


def first_target_only(features, target_features):
    target = target_features[0]
    return (features.mean(0) - target).square().sum() / target.square().sum()


def each_target_alone(features, target_features):
    gaps = (features.mean(0) - target_features).square().sum(1)
    return (gaps / target_features.square().sum(1)).mean()


def mean_over_the_features(features, target_features):
    """As in a popular library: the mean of one vector's entries, not of the poisons."""
    target = target_features.mean(1)
    return (features.mean(1) - target).square().sum() / target.square().sum()


def wrong_sign(features, target_features):
    return -right_loss(features, target_features)


def cosine_loss(features, target_features):
    return 1 - cosine_similarity(features.mean(0), target_features.mean(0), dim=0)


def detached(features, target_features):
    return right_loss(features.detach(), target_features)


def a_new_tensor(features, target_features):
    return torch.tensor(right_loss(features, target_features).item(), requires_grad=True)


def half_detached(features, target_features):
    target = target_features.mean(0)
    gap = features.mean(0) - target
    return (gap.detach() * gap).sum() / target.square().sum()


def gradient_of_zero(features, target_features):
    return right_loss(features, target_features).detach() + 0 * features.sum()


def a_float(features, target_features):
    return right_loss(features, target_features).item()


def subtracts_in_place(features, target_features):
    features -= target_features.mean(0)
    return features.mean(0).square().sum() / target_features.mean(0).square().sum()


def right_loss(features, target_features):
    target = target_features.mean(0)
    return (features.mean(0) - target).square().sum() / target.square().sum()


def loss_by_norms(features, target_features):
    target = target_features.mean(0)
    gap = torch.linalg.vector_norm(features.double().mean(0) - target.double() + 1e-12)
    return (gap / torch.linalg.vector_norm(target)) ** 2


def loss_by_products(features, target_features):
    mean, target = features.sum(0) / len(features), target_features.mean(0)
    return (mean @ mean - 2 * mean @ target) / (target @ target) + 1


def loss_from_gaps(features, target_features):
    target = target_features.mean(0, keepdim=True)
    return ((features - target).mean(0) ** 2).mean() / (target**2).mean()


def loss_by_weights(features, target_features):
    weights = torch.from_numpy(np.full(len(features), 1 / len(features), dtype=np.float32))
    target = target_features.mean(0)
    return (weights @ features - target).pow(2).sum() / target.pow(2).sum()


WRONG = {
    "project": [
        (forgets_the_box, "outside the box"),
        (forgets_the_ball, "outside the ball"),
        (takes_zero_for_none, "epsilon of 0 is a bound"),
        (takes_none_for_zero, "for None do not return the base"),
        (rescales_instead_of_cutting, "do not scale"),
        (euclidean, "not the Euclidean length"),
        (returns_the_change, "add the base"),
        (upper_end_only, "lower end of the ball is missing"),
        (lower_end_only, "upper end of the ball is missing"),
        (ball_around_zero, "not around 0"),
        (moves_the_base, "in place of the images"),
        (divides_by_255, "do not divide by 255"),
        (back_to_the_base, "not back to its base"),
        (stumbles_over_none, "stopped with TypeError"),
        (in_place, "What came in was changed: `images`"),
        (in_numpy, "not a numpy array"),
    ],
    "project_to_simplex": [
        (divides_by_the_sum, "moves large values more"),
        (divides_by_a_sum_of_zero, "There is nan"),
        (subtracts_the_smallest, "subtract one number and cut"),
        (softmax, "A softmax"),
        (shifts_without_cutting, "A part is below 0"),
        (cuts_after_one_shift, "do not add up to 1"),
        (cuts_and_divides, "cut after one shift and divided"),
        (cuts_only, "do not add up to 1"),
        (one_too_few, "do not add up to 1"),
        (one_too_many, "do not add up to 1"),
        (index_beyond_the_end, "stopped with IndexError"),
        (divides_by_the_place, "do not add up to 1"),
        (sorted_parts, "another order"),
        (all_to_the_largest, "all into the largest"),
        (unit_length, "do not add up to 1"),
        (wrong_way, "mind the sign"),
        (sorts_in_place, "What came in was changed: `values`"),
    ],
    "bullseye_loss": [
        (distance_of_each, "mean of the features first"),
        (sum_of_each, "added up the distances"),
        (sum_of_the_poisons, "not sum(0)"),
        (without_the_length, "Divide by the squared length"),
        (root_below, "no root below the line"),
        (not_squared, "is squared"),
        (mean_of_the_squares, "added up, not averaged"),
        (length_of_the_poisons, "not of the poisons'"),
        (first_target_only, "not the first"),
        (each_target_alone, "Average the targets first"),
        (mean_over_the_features, "not over the features"),
        (wrong_sign, "mind the sign"),
        (cosine_loss, "one minus the cosine"),
        (detached, "no gradient for the features"),
        (a_new_tensor, "no gradient for the features"),
        (half_detached, "a part of it is detached"),
        (gradient_of_zero, "a part of it is detached"),
        (a_float, "not a plain float"),
        (subtracts_in_place, "Write into a copy"),
    ],
}
RIGHT = {
    "project": [box_first, project_in_double, project_by_where],
    "project_to_simplex": [simplex_by_halving, simplex_by_dropping, simplex_in_double],
    "bullseye_loss": [loss_by_norms, loss_by_products, loss_from_gaps, loss_by_weights],
}
