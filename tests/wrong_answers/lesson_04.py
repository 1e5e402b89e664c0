"""Plausible wrong answers to the exercises of lesson 04, and what the check must say of them."""

import torch


def forgets_the_box(images, base, epsilon):
    if epsilon is None:
        return images
    return torch.minimum(torch.maximum(images, base - epsilon), base + epsilon)


def forgets_the_ball(images, base, epsilon):
    return images.clamp(0, 1)


def rescales_instead_of_cutting(images, base, epsilon):
    delta = images - base
    if epsilon is not None:
        delta = delta * epsilon / delta.abs().max()
    return (base + delta).clamp(0, 1)


def stumbles_over_none(images, base, epsilon):
    return (base + (images - base).clamp(-epsilon, epsilon)).clamp(0, 1)


def in_place(images, base, epsilon):
    return images.clamp_(0, 1) if epsilon is None else images.sub_(base).clamp_(-epsilon, epsilon)


def divides_by_the_sum(values):
    kept = values.clamp(min=0)
    return kept / kept.sum()


def softmax(values):
    return values.softmax(0)


def shifts_without_cutting(values):
    return values - (values.sum() - 1) / len(values)


def cuts_after_one_shift(values):
    return (values - (values.sum() - 1) / len(values)).clamp(min=0)


def distance_of_each(features, target_features):
    target = target_features.mean(0)
    return (features - target).square().sum(1).mean() / target.square().sum()


def without_the_length(features, target_features):
    return (features.mean(0) - target_features.mean(0)).square().sum()


def not_squared(features, target_features):
    target = target_features.mean(0)
    return (features.mean(0) - target).norm() / target.norm()


def first_target_only(features, target_features):
    target = target_features[0]
    return (features.mean(0) - target).square().sum() / target.square().sum()


def mean_over_the_features(features, target_features):
    """As in a popular library: the mean of one vector's entries, not of the poisons."""
    target = target_features.mean(1)
    return (features.mean(1) - target).square().sum() / target.square().sum()


def detached(features, target_features):
    return distance_of_each(features.detach().mean(0, keepdim=True), target_features)


WRONG = {
    "project": [
        (forgets_the_box, "outside the box"),
        (forgets_the_ball, "outside the ball"),
        (rescales_instead_of_cutting, "the nearest is"),
        (stumbles_over_none, "stopped with TypeError"),
        (in_place, "were changed"),
    ],
    "project_to_simplex": [
        (divides_by_the_sum, "not the nearest point"),
        (softmax, "not the nearest point"),
        (shifts_without_cutting, "below 0"),
        (cuts_after_one_shift, "add up to 1"),
    ],
    "bullseye_loss": [
        (distance_of_each, "mean of the features first"),
        (without_the_length, "squared length"),
        (not_squared, "is squared"),
        (first_target_only, "the loss is"),
        (mean_over_the_features, "the loss is"),
        (detached, "do not detach"),
    ],
}
