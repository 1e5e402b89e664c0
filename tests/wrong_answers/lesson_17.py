"""Plausible wrong answers to the exercises of lesson 17, and what the check must say of them."""

import numpy as np
import torch
from scipy import stats
from torch.nn.functional import one_hot


def parts_of_the_gap(votes, leader):
    gap = votes.gather(1, leader[:, None]) - votes
    return gap, (torch.arange(votes.shape[1]) > leader[:, None]).long()


def half(number):
    return number.add(1).div(2, rounding_mode="floor").clamp(min=0)


def ties_forgotten(votes, leader):
    return half(parts_of_the_gap(votes, leader)[0])


def every_tie_is_lost(votes, leader):
    return half(parts_of_the_gap(votes, leader)[0] + 1).scatter(1, leader[:, None], 0)


def ties_the_other_way(votes, leader):
    gap, later = parts_of_the_gap(votes, leader)
    return half(gap + 1 - later).scatter(1, leader[:, None], 0)


def the_whole_gap(votes, leader):
    gap, later = parts_of_the_gap(votes, leader)
    return (gap + later).clamp(min=0)


def rounded_down(votes, leader):
    gap, later = parts_of_the_gap(votes, leader)
    return (gap + later).div(2, rounding_mode="floor").clamp(min=0)


def not_rounded(votes, leader):
    gap, later = parts_of_the_gap(votes, leader)
    return ((gap + later) / 2).clamp(min=0)


def below_zero(votes, leader):
    gap, later = parts_of_the_gap(votes, leader)
    return (gap + later).add(1).div(2, rounding_mode="floor")


def the_radius(votes, leader):
    gap, later = parts_of_the_gap(votes, leader)
    return half(gap + later) - 1


def for_the_runner_up_alone(votes, leader):
    gap, later = parts_of_the_gap(votes, leader)
    return half(gap + later).scatter(1, leader[:, None], 10**9).amin(1)


def in_place(votes, leader):
    _, later = parts_of_the_gap(votes, leader)
    first = votes.gather(1, leader[:, None])
    return half(first - votes.sub_(later))


def two_of(logits):
    """The votes of round one and the two classes that go on, the smaller first."""
    n_classes = logits.shape[2]
    votes = one_hot(logits.argmax(2), n_classes).sum(0)
    ranked = votes * n_classes - torch.arange(n_classes)
    return votes, ranked.topk(2, 1).indices.sort(1).values


def pair_logits(logits):
    _, two = two_of(logits)
    return two, logits.gather(2, two[None].expand(len(logits), -1, -1))


def first_round_only(logits):
    return two_of(logits)[0].argmax(1)


def added_logits(logits):
    two, pair = pair_logits(logits)
    return two.gather(1, pair.sum(0).argmax(1, keepdim=True))[:, 0]


def added_over_all_classes(logits):
    return logits.sum(0).argmax(1)


def place_in_the_pair(logits):
    _, pair = pair_logits(logits)
    return one_hot(pair.argmax(2), 2).sum(0).argmax(1)


def larger_class_on_ties(logits):
    two, pair = pair_logits(logits)
    for_low = (pair[..., 0] >= pair[..., 1]).sum(0)
    return torch.where(2 * for_low > len(logits), two[:, 0], two[:, 1])


def equal_logits_to_the_larger(logits):
    two, pair = pair_logits(logits)
    for_low = (pair[..., 0] > pair[..., 1]).sum(0)
    return torch.where(2 * for_low >= len(logits), two[:, 0], two[:, 1])


def only_new_votes(logits):
    two, pair = pair_logits(logits)
    free = (logits.argmax(2)[..., None] != two).all(2)  # their class did not go on
    new = (one_hot(pair.argmax(2), 2) * free[..., None]).sum(0)
    return two.gather(1, new.argmax(1, keepdim=True))[:, 0]


def the_loser(logits):
    two, pair = pair_logits(logits)
    return two.gather(1, one_hot(pair.argmax(2), 2).sum(0).argmin(1, keepdim=True))[:, 0]


def larger_class_goes_on(logits):
    n_classes = logits.shape[2]
    votes = one_hot(logits.argmax(2), n_classes).sum(0)
    ranked = votes * n_classes + torch.arange(n_classes)
    two = ranked.topk(2, 1).indices.sort(1).values
    pair = logits.gather(2, two[None].expand(len(logits), -1, -1))
    return two.gather(1, one_hot(pair.argmax(2), 2).sum(0).argmax(1, keepdim=True))[:, 0]


def a_vote_for_each_model(logits):
    return logits.argmax(2)


def beta_ends(votes, error, sides=2):
    k = int(votes[0].sum())
    counts = np.arange(k + 1)
    low = np.nan_to_num(stats.beta.ppf(error / sides, counts, k - counts + 1), nan=0.0)
    high = np.nan_to_num(stats.beta.ppf(1 - error / sides, counts + 1, k - counts), nan=1.0)
    top, second = votes.topk(2, 1).values.T.numpy()
    return low[top] - high[second]


def largest(gap, size, n_images, times=2):
    gap = np.asarray(gap, dtype=float)
    untouched = 1 - np.clip(gap, 0, None) / times
    radius = np.ceil(n_images * (1 - untouched ** (1 / size))) - 1
    return torch.from_numpy(np.where(gap > 0, radius, -1))


def shares_without_intervals(votes, size, n_images, alpha=0.001):
    top, second = votes.topk(2, 1).values.T.numpy()
    return largest((top - second) / int(votes[0].sum()), size, n_images)


def alpha_not_shared(votes, size, n_images, alpha=0.001):
    return largest(beta_ends(votes, alpha), size, n_images)


def one_sided(votes, size, n_images, alpha=0.001):
    return largest(beta_ends(votes, alpha / votes.shape[1], 1), size, n_images)


def only_one_class_moves(votes, size, n_images, alpha=0.001):
    return largest(beta_ends(votes, alpha / votes.shape[1]), size, n_images, 1)


def one_too_many(votes, size, n_images, alpha=0.001):
    return largest(beta_ends(votes, alpha / votes.shape[1]), size, n_images) + 1


def never_abstains(votes, size, n_images, alpha=0.001):
    return largest(beta_ends(votes, alpha / votes.shape[1]), size, n_images).clamp(min=0)


def a_fraction(votes, size, n_images, alpha=0.001):
    gap = beta_ends(votes, alpha / votes.shape[1])
    radius = n_images * (1 - (1 - np.clip(gap, 0, None) / 2) ** (1 / size))
    return torch.from_numpy(np.where(gap > 0, radius, -1))


def half_of_the_gap_in_votes(votes, size, n_images, alpha=0.001):
    top, second = votes.topk(2, 1).values.T
    return (top - second) // 2


def normal_intervals(votes, size, n_images, alpha=0.001):
    k = int(votes[0].sum())
    top, second = (votes.topk(2, 1).values.T / k).numpy()
    z = stats.norm.ppf(1 - alpha / votes.shape[1] / 2)
    width = [z * np.sqrt(share * (1 - share) / k) for share in (top, second)]
    return largest(top - second - width[0] - width[1], size, n_images)


WRONG = {
    "to_overtake": [
        (ties_forgotten, "a larger one must have one more"),
        (every_tie_is_lost, "needs no vote more"),
        (ties_the_other_way, "the smaller class comes first"),
        (the_whole_gap, "half the gap"),
        (rounded_down, "Round up"),
        (not_rounded, "whole numbers"),
        (below_zero, "0 changes, not fewer"),
        (the_radius, "to reach itself"),
        (for_the_runner_up_alone, "of shape"),
        (in_place, "were changed"),
    ],
    "run_off": [
        (first_round_only, "leads in the first round"),
        (added_logits, "do not add logits"),
        (added_over_all_classes, "do not add logits"),
        (place_in_the_pair, "class"),
        (larger_class_on_ties, "In a tie of the second round"),
        (equal_logits_to_the_larger, "equal logits go to the smaller"),
        (only_new_votes, "Every model votes"),
        (the_loser, "wins, you gave"),
        (larger_class_goes_on, "the smaller goes on"),
        (a_vote_for_each_model, "of shape"),
    ],
    "bagging_radius": [
        (shares_without_intervals, "use the intervals"),
        (alpha_not_shared, "Share alpha"),
        (one_sided, "alpha / 2"),
        (only_one_class_moves, "twice"),
        (one_too_many, "the last number that still holds"),
        (never_abstains, "nothing is promised"),
        (a_fraction, "a whole number"),
        (half_of_the_gap_in_votes, "the radius is"),
        (normal_intervals, "the radius is"),
    ],
}
