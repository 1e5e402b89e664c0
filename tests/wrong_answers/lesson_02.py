"""Plausible wrong answers to the exercises of lesson 02, and what the check must say of them."""

import torch
from torch.nn.functional import one_hot


def spreads_over_all_classes(labels, n_classes, noise):
    return (1 - noise) * one_hot(labels, n_classes).float() + noise / n_classes


def keeps_the_true_label_whole(labels, n_classes, noise):
    sure = one_hot(labels, n_classes).float()
    return sure + noise / (n_classes - 1) * (1 - sure)


def draws_instead_of_expecting(labels, n_classes, noise):
    step = 1 + torch.arange(len(labels)) % (n_classes - 1)
    flipped = torch.arange(len(labels)) % 2 == 0
    return one_hot(torch.where(flipped, (labels + step) % n_classes, labels), n_classes).float()


def two_classes_only(labels, n_classes, noise):
    sure = one_hot(labels, n_classes).float()
    return (1 - noise) * sure + noise * (1 - sure)


def forgets_the_true_label(loss, labels, budget):
    worst, new = loss.max(1)
    rows = worst.argsort(descending=True)[:budget]
    return rows, new[rows]


def flips_an_image_twice(loss, labels, budget):
    masked = loss.clone()
    masked[torch.arange(len(labels)), labels] = -torch.inf
    best = masked.flatten().argsort(descending=True)[:budget]
    return best // loss.shape[1], best % loss.shape[1]


def takes_the_runner_up(loss, labels, budget):
    masked = loss.clone()
    masked[torch.arange(len(labels)), labels] = torch.inf
    smallest, new = masked.min(1)
    rows = smallest.argsort(descending=True)[:budget]
    return rows, new[rows]


def takes_the_least_harmful(loss, labels, budget):
    masked = loss.clone()
    masked[torch.arange(len(labels)), labels] = -torch.inf
    worst, new = masked.max(1)
    rows = worst.argsort()[:budget]
    return rows, new[rows]


def masks_in_place(loss, labels, budget):
    loss[torch.arange(len(labels)), labels] = -torch.inf
    worst, new = loss.max(1)
    rows = worst.argsort(descending=True)[:budget]
    return rows, new[rows]


def in_points(clean, poisoned):
    return clean - poisoned


def share_of_the_poisoned(clean, poisoned):
    return (clean - poisoned) / poisoned


def wrong_sign(clean, poisoned):
    return (poisoned - clean) / clean


def ratio_of_means(clean, poisoned):
    return (clean.mean() - poisoned.mean()) / clean.mean()


WRONG = {
    "expected_targets": [
        (spreads_over_all_classes, "OTHER classes"),
        (keeps_the_true_label_whole, "add up to 1"),
        (draws_instead_of_expecting, "should be"),
        (two_classes_only, "add up to 1"),
    ],
    "choose_flips": [
        (forgets_the_true_label, "no flip"),
        (flips_an_image_twice, "more than once"),
        (takes_the_runner_up, "most harmful flip"),
        (takes_the_least_harmful, "is missing"),
        (masks_in_place, "were changed"),
    ],
    "relative_accuracy_drop": [
        (in_points, "in points"),
        (share_of_the_poisoned, "clean accuracy"),
        (wrong_sign, "positive"),
        (ratio_of_means, "one value a trial"),
    ],
}
