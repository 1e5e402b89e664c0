"""Plausible wrong answers to the exercises of lesson 03, and what the check must say of them;
unusual right answers that it must accept.
"""

import numpy as np
import torch
from scipy.optimize import brentq


def each_class(statistic, scores, labels, n_classes):
    return torch.stack([statistic(scores[labels == k]) for k in range(n_classes)])


def one_limit_for_all(scores, labels, n_classes, quantile):
    return scores.quantile(quantile).repeat(n_classes)


def counts_from_above(scores, labels, n_classes, quantile):
    return each_class(lambda mine: mine.quantile(1 - quantile), scores, labels, n_classes)


def share_of_the_largest(scores, labels, n_classes, quantile):
    return each_class(lambda mine: quantile * mine.max(), scores, labels, n_classes)


def mean_of_each(scores, labels, n_classes, quantile):
    return each_class(torch.mean, scores, labels, n_classes)


def largest_of_each(scores, labels, n_classes, quantile):
    return each_class(torch.max, scores, labels, n_classes)


def always_the_median(scores, labels, n_classes, quantile):
    return each_class(lambda mine: mine.quantile(0.5), scores, labels, n_classes)


def always_95_percent(scores, labels, n_classes, quantile):
    return each_class(lambda mine: mine.quantile(0.95), scores, labels, n_classes)


def percent(scores, labels, n_classes, quantile):
    return each_class(lambda mine: mine.quantile(quantile / 100), scores, labels, n_classes)


def those_of_the_others(scores, labels, n_classes, quantile):
    return torch.stack([scores[labels != k].quantile(quantile) for k in range(n_classes)])


def two_deviations(scores, labels, n_classes, quantile):
    return each_class(lambda mine: mine.mean() + 2 * mine.std(), scores, labels, n_classes)


def backwards(scores, labels, n_classes, quantile):
    return each_class(lambda mine: mine.quantile(quantile), scores, labels, n_classes).flip(0)


def list_of_limits(scores, labels, n_classes, quantile):
    return [scores[labels == k].quantile(quantile).item() for k in range(n_classes)]


def two_classes_only(scores, labels, n_classes, quantile):
    return each_class(lambda mine: mine.quantile(quantile), scores, labels, 2)


def sorts_in_place(scores, labels, n_classes, quantile):
    limits = each_class(lambda mine: mine.quantile(quantile), scores, labels, n_classes)
    scores.copy_(scores.sort().values)
    return limits


def limits_in_double(scores, labels, n_classes, quantile):
    parts = [scores[labels == k].double() for k in range(n_classes)]
    return torch.stack([mine.quantile(quantile, interpolation="higher") for mine in parts])


def limits_from_a_list(scores, labels, n_classes, quantile):
    scores, labels = scores.numpy(), labels.numpy()
    return torch.tensor([np.quantile(scores[labels == k], quantile) for k in range(n_classes)])


def limits_by_sorting(scores, labels, n_classes, quantile):
    limits = torch.empty(n_classes)
    for k in range(n_classes):
        mine = scores[labels == k].sort().values
        limits[k] = mine[int(quantile * (len(mine) - 1))]
    return limits


def unit_axis(means, others):
    axis = others - means
    return axis / axis.norm(dim=1, keepdim=True)


def keeps_the_sign(x, y, means, others):
    return ((x - means[y]) * unit_axis(means, others)[y]).sum(1)


def axis_of_any_length(x, y, means, others):
    return ((x - means[y]) * (others - means)[y]).sum(1).abs()


def one_length_for_all(x, y, means, others):
    axis = others - means
    return ((x - means[y]) * (axis / axis.norm())[y]).sum(1).abs()


def divides_the_columns(x, y, means, others):
    axis = others - means
    return ((x - means[y]) * (axis / axis.norm(dim=0))[y]).sum(1).abs()


def divides_twice(x, y, means, others):
    axis = others - means
    axis = axis / axis.square().sum(1, keepdim=True)
    return ((x - means[y]) * axis[y]).sum(1).abs()


def all_directions(x, y, means, others):
    return (x - means[y]).norm(dim=1)


def measures_from_zero(x, y, means, others):
    return (x * unit_axis(means, others)[y]).sum(1).abs()


def measures_from_the_others(x, y, means, others):
    return ((x - others[y]) * unit_axis(means, others)[y]).sum(1).abs()


def axis_from_zero(x, y, means, others):
    axis = others / others.norm(dim=1, keepdim=True)
    return ((x - means[y]) * axis[y]).sum(1).abs()


def mean_of_products(x, y, means, others):
    return keeps_the_sign(x, y, means, others).abs() / x.shape[1]


def absolute_too_early(x, y, means, others):
    return ((x - means[y]) * unit_axis(means, others)[y]).abs().sum(1)


def squared(x, y, means, others):
    return keeps_the_sign(x, y, means, others).square()


def what_is_left(x, y, means, others):
    along = keeps_the_sign(x, y, means, others)
    return ((x - means[y]).square().sum(1) - along.square()).clamp(min=0).sqrt()


def axis_of_class_0(x, y, means, others):
    return ((x - means[y]) * unit_axis(means, others)[0]).sum(1).abs()


def subtracts_in_place(x, y, means, others):
    x -= means[y]
    return (x * unit_axis(means, others)[y]).sum(1).abs()


def a_column(x, y, means, others):
    return keeps_the_sign(x, y, means, others).abs()[:, None]


def distance_in_double(x, y, means, others):
    return keeps_the_sign(x.double(), y, means.double(), others.double()).abs()


def distance_by_einsum(x, y, means, others):
    lengths = (others - means).square().sum(1).sqrt()
    return torch.einsum("nd,nd->n", x - means[y], (means - others)[y]).abs() / lengths[y]


def distance_by_a_loop(x, y, means, others):
    found = []
    for point, k in zip(x, y, strict=True):
        axis = others[k] - means[k]
        found.append(abs(torch.dot(point - means[k], axis)) / torch.linalg.norm(axis))
    return torch.tensor(found)


def straight(centre, aim, radius):
    return centre + radius * aim / max(np.linalg.norm(aim), 1e-300)


def straight_then_clipped(centre, aim, radius):
    return np.clip(straight(centre, aim, radius), 0, 1)


def corner(centre, aim):
    return np.where(aim > 0, 1.0, np.where(aim < 0, 0.0, centre))


def stops_at_the_first_wall(centre, aim, radius):
    with np.errstate(divide="ignore", invalid="ignore"):
        time = np.where(aim == 0, np.inf, np.abs(corner(centre, aim) - centre) / np.abs(aim)).min()
    return centre + min(time, radius / max(np.linalg.norm(aim), 1e-300)) * aim


def stretched_after_clipping(centre, aim, radius):
    step = straight_then_clipped(centre, aim, radius) - centre
    return centre + radius * step / max(np.linalg.norm(step), 1e-300)


def goes_to_the_corner(centre, aim, radius):
    return corner(centre, aim)


def walks_backwards(centre, aim, radius):
    return right_walk(centre, -aim, radius)


def returns_the_step(centre, aim, radius):
    return right_walk(centre, aim, radius) - centre


def same_speed_for_all(centre, aim, radius):
    return right_walk(centre, np.sign(aim), radius)


def radius_for_a_time(centre, aim, radius):
    return np.clip(centre + radius * aim, 0, 1)


def largest_change(centre, aim, radius):
    return np.clip(centre + radius * aim / abs(aim).max(), 0, 1)


def begins_at_zero(centre, aim, radius):
    return np.clip(radius * aim / np.linalg.norm(aim), 0, 1)


def stays(centre, aim, radius):
    return centre


def divides_by_zero(centre, aim, radius):
    return right_walk(centre, aim / np.linalg.norm(aim), radius)


def walks_in_place(centre, aim, radius):
    centre += aim * radius / np.linalg.norm(aim)
    return centre.clip(0, 1)


def returns_the_time(centre, aim, radius):
    return radius / np.linalg.norm(aim)


def right_walk(centre, aim, radius):
    def excess(time):
        return np.linalg.norm(np.clip(centre + time * aim, 0, 1) - centre) - radius

    time = brentq(excess, 0, 1e6) if excess(1e6) > 0 else 1e6
    return np.clip(centre + time * aim, 0, 1)


def walk_by_brentq(centre, aim, radius):
    return right_walk(centre, aim, radius)


def walk_as_a_list(centre, aim, radius):
    return right_walk(centre, aim, radius).tolist()


def walk_in_float32(centre, aim, radius):
    return right_walk(centre, aim, radius).astype(np.float32)


WRONG = {
    "class_limits": [
        (one_limit_for_all, "a limit of its own"),
        (counts_from_above, "counted from above"),
        (share_of_the_largest, "a share of the largest score"),
        (mean_of_each, "the mean of the class"),
        (largest_of_each, "the largest score of the class"),
        (always_the_median, "median whatever"),
        (always_95_percent, "0.95 whatever"),
        (percent, "not 0.95 percent"),
        (those_of_the_others, "OTHER classes"),
        (two_deviations, "two standard deviations"),
        (backwards, "another order than the classes"),
        (list_of_limits, "not a list of 2"),
        (two_classes_only, "of shape (3,), not a tensor of shape (2,)"),
        (sorts_in_place, "What came in was changed: `scores`"),
    ],
    "slab_distance": [
        (keeps_the_sign, "never negative"),
        (axis_of_any_length, "The axis must have length 1"),
        (one_length_for_all, "Each row has a length of its own"),
        (divides_the_columns, "You divided columns"),
        (divides_twice, "not by its square"),
        (all_directions, "as for the sphere"),
        (measures_from_zero, "subtract it first"),
        (measures_from_the_others, "not from that of the others"),
        (axis_from_zero, "from one mean to the other"),
        (mean_of_products, "not a mean"),
        (absolute_too_early, "after the sum"),
        (squared, "the square of the distance"),
        (what_is_left, "at right angles"),
        (axis_of_class_0, "axis[y]"),
        (subtracts_in_place, "What came in was changed: `x`"),
        (a_column, "not a tensor of shape (5, 1)"),
    ],
    "walk": [
        (straight, "A pixel stops at its wall"),
        (straight_then_clipped, "the others must walk further"),
        (stops_at_the_first_wall, "the others go on"),
        (stretched_after_clipping, "Stretch the time"),
        (goes_to_the_corner, "to the corner whatever `radius`"),
        (walks_backwards, "against the aim"),
        (returns_the_step, "add the centre"),
        (same_speed_for_all, "the speed that the aim gives it"),
        (radius_for_a_time, "a distance, not a time"),
        (largest_change, "not the largest change"),
        (begins_at_zero, "Begin at the centre"),
        (stays, "You stayed at the centre"),
        (divides_by_zero, "There is nan"),
        (walks_in_place, "What came in was changed: `centre`"),
        (returns_the_time, "Return one point"),
    ],
}
RIGHT = {
    "class_limits": [limits_in_double, limits_from_a_list, limits_by_sorting],
    "slab_distance": [distance_in_double, distance_by_einsum, distance_by_a_loop],
    "walk": [walk_by_brentq, walk_as_a_list, walk_in_float32],
}
