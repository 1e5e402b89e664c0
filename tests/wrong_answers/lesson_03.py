"""Plausible wrong answers to the exercises of lesson 03, and what the check must say of them."""

import numpy as np
import torch


def one_limit_for_all(scores, labels, n_classes, quantile):
    return scores.quantile(quantile).repeat(n_classes)


def counts_from_above(scores, labels, n_classes, quantile):
    limits = [scores[labels == k].quantile(1 - quantile) for k in range(n_classes)]
    return torch.stack(limits)


def share_of_the_largest(scores, labels, n_classes, quantile):
    return torch.stack([quantile * scores[labels == k].max() for k in range(n_classes)])


def list_of_limits(scores, labels, n_classes, quantile):
    return [scores[labels == k].quantile(quantile).item() for k in range(n_classes)]


def keeps_the_sign(x, y, means, others):
    axis = others - means
    axis = axis / axis.norm(dim=1, keepdim=True)
    return ((x - means[y]) * axis[y]).sum(1)


def axis_of_any_length(x, y, means, others):
    return ((x - means[y]) * (others - means)[y]).sum(1).abs()


def all_directions(x, y, means, others):
    return (x - means[y]).norm(dim=1)


def measures_from_zero(x, y, means, others):
    axis = others - means
    axis = axis / axis.norm(dim=1, keepdim=True)
    return (x * axis[y]).sum(1).abs()


def one_length_for_all(x, y, means, others):
    axis = others - means
    axis = axis / axis.norm()
    return ((x - means[y]) * axis[y]).sum(1).abs()


def straight_then_clipped(centre, aim, radius):
    return np.clip(centre + radius * aim / max(np.linalg.norm(aim), 1e-300), 0, 1)


def stops_at_the_first_wall(centre, aim, radius):
    goal = np.where(aim > 0, 1.0, np.where(aim < 0, 0.0, centre))
    with np.errstate(divide="ignore", invalid="ignore"):
        time = np.where(aim == 0, np.inf, np.abs(goal - centre) / np.abs(aim)).min()
    t = min(time, radius / max(np.linalg.norm(aim), 1e-300))
    return centre + t * aim


def forgets_the_box(centre, aim, radius):
    return centre + radius * aim / max(np.linalg.norm(aim), 1e-300)


def stretched_after_clipping(centre, aim, radius):
    step = np.clip(centre + radius * aim / max(np.linalg.norm(aim), 1e-300), 0, 1) - centre
    return centre + radius * step / max(np.linalg.norm(step), 1e-300)


def goes_to_the_corner(centre, aim, radius):
    return np.where(aim > 0, 1.0, np.where(aim < 0, 0.0, centre))


def walks_backwards(centre, aim, radius):
    return straight_then_clipped(centre, -aim, radius)


WRONG = {
    "class_limits": [
        (one_limit_for_all, "a limit of its own"),
        (counts_from_above, "counted from above"),
        (share_of_the_largest, "you gave"),
        (list_of_limits, "Return a tensor"),
    ],
    "slab_distance": [
        (keeps_the_sign, "never negative"),
        (axis_of_any_length, "length 1"),
        (all_directions, "as for the sphere"),
        (measures_from_zero, "subtract it first"),
        (one_length_for_all, "you gave"),
    ],
    "walk": [
        (straight_then_clipped, "walk further"),
        (stops_at_the_first_wall, "the others go on"),
        (forgets_the_box, "leaves [0, 1]"),
        (stretched_after_clipping, "leaves [0, 1]"),
        (goes_to_the_corner, "too long"),
        (walks_backwards, "against the aim"),
    ],
}
