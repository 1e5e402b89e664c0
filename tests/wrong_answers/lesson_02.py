"""Plausible wrong answers to the exercises of lesson 02, and what the check must say of them;
unusual right answers that it must accept.
"""

import numpy as np
import torch
from torch.nn.functional import one_hot


def right_targets(labels, n_classes, noise):
    sure = one_hot(labels, n_classes).float()
    return (1 - noise) * sure + noise / (n_classes - 1) * (1 - sure)


def spreads_over_all_classes(labels, n_classes, noise):
    return (1 - noise) * one_hot(labels, n_classes).float() + noise / n_classes


def keeps_the_true_label_whole(labels, n_classes, noise):
    sure = one_hot(labels, n_classes).float()
    return sure + noise / (n_classes - 1) * (1 - sure)


def two_classes_only(labels, n_classes, noise):
    sure = one_hot(labels, n_classes).float()
    return (1 - noise) * sure + noise * (1 - sure)


def shares_among_too_many(labels, n_classes, noise):
    sure = one_hot(labels, n_classes).float()
    return (1 - noise) * sure + noise / n_classes * (1 - sure)


def swaps_noise_and_rest(labels, n_classes, noise):
    sure = one_hot(labels, n_classes).float()
    return noise * sure + (1 - noise) / (n_classes - 1) * (1 - sure)


def whole_numbers(labels, n_classes, noise):
    return right_targets(labels, n_classes, noise).long()


def without_noise(labels, n_classes, noise):
    return one_hot(labels, n_classes).float()


def draws_instead_of_expecting(labels, n_classes, noise):
    flipped = torch.rand(len(labels)) < noise
    return one_hot(torch.where(flipped, (labels + 1) % n_classes, labels), n_classes).float()


def all_alike(labels, n_classes, noise):
    return torch.full((len(labels), n_classes), 1 / n_classes)


def image_for_label(labels, n_classes, noise):
    sure = torch.eye(len(labels), n_classes)
    return (1 - noise) * sure + noise / (n_classes - 1) * (1 - sure)


def ignores_the_noise(labels, n_classes, noise):
    return right_targets(labels, n_classes, 0.3)


def one_column_a_label(labels, n_classes, noise):
    return right_targets(labels, n_classes, noise).T


def nested_lists(labels, n_classes, noise):
    return right_targets(labels, n_classes, noise).tolist()


def targets_by_where(labels, n_classes, noise):
    own = labels[:, None] == torch.arange(n_classes)
    return torch.where(own, 1 - noise, noise / (n_classes - 1))


def targets_by_a_matrix(labels, n_classes, noise):
    matrix = torch.full((n_classes, n_classes), noise / (n_classes - 1), dtype=torch.float64)
    matrix.fill_diagonal_(1 - noise)
    return matrix[labels]


def targets_by_a_mean(labels, n_classes, noise):
    shifts = [one_hot((labels + step) % n_classes, n_classes) for step in range(1, n_classes)]
    mean = torch.stack(shifts).float().mean(0)
    return (1 - noise) * one_hot(labels, n_classes) + noise * mean


def masked_losses(loss, labels, value=-torch.inf):
    masked = loss.clone()
    masked[torch.arange(len(labels)), labels] = value
    return masked


def forgets_the_true_label(loss, labels, budget):
    worst, new = loss.max(1)
    rows = worst.argsort(descending=True)[:budget]
    return rows, new[rows]


def masks_with_zero_of_the_negative(loss, labels, budget):
    worst, new = (-masked_losses(loss, labels, 0)).max(1)
    rows = worst.argsort(descending=True)[:budget]
    return rows, new[rows]


def flips_an_image_twice(loss, labels, budget):
    best = masked_losses(loss, labels).flatten().argsort(descending=True)[:budget]
    return best // loss.shape[1], best % loss.shape[1]


def takes_the_runner_up(loss, labels, budget):
    smallest, new = masked_losses(loss, labels, torch.inf).min(1)
    rows = smallest.argsort(descending=True)[:budget]
    return rows, new[rows]


def smallest_of_all(loss, labels, budget):
    smallest, new = masked_losses(loss, labels, torch.inf).min(1)
    rows = smallest.argsort()[:budget]
    return rows, new[rows]


def takes_the_least_harmful(loss, labels, budget):
    worst, new = masked_losses(loss, labels).max(1)
    rows = worst.argsort()[:budget]
    return rows, new[rows]


def sorts_by_the_own_label(loss, labels, budget):
    own = loss[torch.arange(len(labels)), labels]
    rows = own.argsort(descending=True)[:budget]
    return rows, masked_losses(loss, labels).argmax(1)[rows]


def sorts_by_the_gain(loss, labels, budget):
    worst, new = masked_losses(loss, labels).max(1)
    rows = (worst - loss[torch.arange(len(labels)), labels]).argsort(descending=True)[:budget]
    return rows, new[rows]


def takes_the_first(loss, labels, budget):
    return torch.arange(budget), masked_losses(loss, labels).argmax(1)[:budget]


def takes_the_next_class(loss, labels, budget):
    rows = masked_losses(loss, labels).amax(1).argsort(descending=True)[:budget]
    return rows, (labels[rows] + 1) % loss.shape[1]


def masks_in_place(loss, labels, budget):
    loss[torch.arange(len(labels)), labels] = -torch.inf
    worst, new = loss.max(1)
    rows = worst.argsort(descending=True)[:budget]
    return rows, new[rows]


def new_labels_of_all(loss, labels, budget):
    worst, new = masked_losses(loss, labels).max(1)
    return worst.argsort(descending=True)[:budget], new


def forgets_the_budget(loss, labels, budget):
    worst, new = masked_losses(loss, labels).max(1)
    rows = worst.argsort(descending=True)
    return rows, new[rows]


def a_mask_of_flips(loss, labels, budget):
    worst, new = masked_losses(loss, labels).max(1)
    return worst >= worst.sort().values[-budget], new


def rows_only(loss, labels, budget):
    return masked_losses(loss, labels).amax(1).argsort(descending=True)[:budget]


def losses_for_rows(loss, labels, budget):
    worst, new = masked_losses(loss, labels).max(1)
    values, rows = worst.topk(budget)
    return values, new[rows]


def flips_as_a_list(loss, labels, budget):
    worst, new = masked_losses(loss, labels).max(1)
    rows = worst.topk(budget).indices
    return [rows, new[rows]]


def flips_in_the_order_of_the_data(loss, labels, budget):
    worst, new = masked_losses(loss, labels, -1.0).max(1)
    rows = worst.argsort()[-budget:].sort().values
    return rows.int(), new[rows].int()


def flips_by_a_loop(loss, labels, budget):
    masked, rows, new = masked_losses(loss, labels).numpy(), [], []
    for _ in range(budget):
        row, label = np.unravel_index(masked.argmax(), masked.shape)
        rows.append(int(row))
        new.append(int(label))
        masked[row] = -np.inf
    return torch.tensor(rows), torch.tensor(new)


def in_points(clean, poisoned):
    return clean - poisoned


def share_of_the_poisoned(clean, poisoned):
    return (clean - poisoned) / poisoned


def wrong_sign(clean, poisoned):
    return (poisoned - clean) / clean


def what_is_left(clean, poisoned):
    return poisoned / clean


def in_percent(clean, poisoned):
    return 100 * (1 - poisoned / clean)


def ratio_of_means(clean, poisoned):
    return (clean.mean() - poisoned.mean()) / clean.mean()


def of_the_mean_victim(clean, poisoned):
    return (clean - poisoned) / clean.mean()


def never_negative(clean, poisoned):
    return np.maximum(1 - poisoned / clean, 0)


def absolute(clean, poisoned):
    return abs(1 - poisoned / clean)


def rounded_drop(clean, poisoned):
    return (1 - poisoned / clean).round(2)


def divides_in_place(clean, poisoned):
    poisoned /= clean
    return 1 - poisoned


def first_trial_only(clean, poisoned):
    return 1 - poisoned[:1] / clean[:1]


def drop_as_a_list(clean, poisoned):
    return [1 - after / before for before, after in zip(clean, poisoned, strict=True)]


def drop_in_float32(clean, poisoned):
    return ((clean - poisoned) / clean).astype(np.float32)


def drop_by_logarithms(clean, poisoned):
    return -np.expm1(np.log(poisoned) - np.log(clean))


WRONG = {
    "expected_targets": [
        (spreads_over_all_classes, "OTHER classes"),
        (keeps_the_true_label_whole, "the true class loses what the others get"),
        (two_classes_only, "the other classes share the noise"),
        (shares_among_too_many, "among the n_classes - 1 others"),
        (swaps_noise_and_rest, "not what is kept"),
        (whole_numbers, "Whole numbers cut off"),
        (without_noise, "without noise"),
        (draws_instead_of_expecting, "global random state"),
        (all_alike, "All classes alike"),
        (image_for_label, "its true class is labels[i]"),
        (ignores_the_noise, "0.3 whatever"),
        (one_column_a_label, "not a tensor of shape (2, 3)"),
        (nested_lists, "not a list of 3"),
    ],
    "choose_flips": [
        (forgets_the_true_label, "no flip"),
        (masks_with_zero_of_the_negative, "no flip"),
        (flips_an_image_twice, "more than once"),
        (takes_the_runner_up, "least harmful label of each image"),
        (smallest_of_all, "The smallest losses do the least harm"),
        (takes_the_least_harmful, "the largest loss comes first"),
        (sorts_by_the_own_label, "loss of their own label"),
        (sorts_by_the_gain, "what a flip adds"),
        (takes_the_first, "took the first images"),
        (takes_the_next_class, "the next class to each"),
        (masks_in_place, "What came in was changed: `loss`"),
        (new_labels_of_all, "Return 2 new labels"),
        (forgets_the_budget, "Return 2 row numbers"),
        (a_mask_of_flips, "return row numbers"),
        (rows_only, "Return two tensors"),
        (losses_for_rows, "must be whole numbers"),
    ],
    "relative_accuracy_drop": [
        (in_points, "in points"),
        (share_of_the_poisoned, "clean accuracy"),
        (wrong_sign, "positive"),
        (what_is_left, "what is left"),
        (in_percent, "no percent"),
        (ratio_of_means, "one value a trial"),
        (of_the_mean_victim, "a clean victim of its own"),
        (never_negative, "not cut off at 0"),
        (absolute, "the drop is then negative."),
        (rounded_drop, "Do not round"),
        (divides_in_place, "What came in was changed: `poisoned`"),
        (first_trial_only, "one value a trial"),
    ],
}
RIGHT = {
    "expected_targets": [targets_by_where, targets_by_a_matrix, targets_by_a_mean],
    "choose_flips": [flips_as_a_list, flips_in_the_order_of_the_data, flips_by_a_loop],
    "relative_accuracy_drop": [drop_as_a_list, drop_in_float32, drop_by_logarithms],
}
