"""Plausible wrong answers to the exercises of lesson 11, and what the check must say of them."""

import torch
from torch.nn.functional import one_hot


def directions(features):
    return torch.linalg.svd(features - features.mean(0), full_matrices=False).Vh


def not_squared(features, centred=True):
    start = features - features.mean(0) if centred else features
    return (start @ directions(features)[0]).abs()


def direction_of_the_raw_features(features, centred=True):
    direction = torch.linalg.svd(features, full_matrices=False).Vh[0]
    start = features - features.mean(0) if centred else features
    return (start @ direction).square()


def the_last_direction(features, centred=True):
    start = features - features.mean(0) if centred else features
    return (start @ directions(features)[-1]).square()


def always_centred(features, centred=True):
    return ((features - features.mean(0)) @ directions(features)[0]).square()


def all_directions(features, centred=True):
    start = features - features.mean(0) if centred else features
    return start.square().sum(1)


def a_column_instead_of_a_row(features, centred=True):
    u = torch.linalg.svd(features - features.mean(0), full_matrices=False).U
    return u[:, 0].square()


def votes_of(neighbours, labels):
    n_classes = int(max(neighbours.max(), labels.max())) + 1
    votes = one_hot(neighbours, n_classes).sum(1)
    return votes, votes.gather(1, labels[:, None])[:, 0]


def numbers_of_votes(neighbours, labels):
    votes, own = votes_of(neighbours, labels)
    return (votes.scatter(1, labels[:, None], 0).amax(1) - own).float()


def own_votes_left_in(neighbours, labels):
    votes, own = votes_of(neighbours, labels)
    return (votes.amax(1) - own) / neighbours.shape[1]


def a_majority(neighbours, labels):
    _, own = votes_of(neighbours, labels)
    return (neighbours.shape[1] - 2 * own) / neighbours.shape[1]


def the_wrong_sign(neighbours, labels):
    votes, own = votes_of(neighbours, labels)
    return (own - votes.scatter(1, labels[:, None], 0).amax(1)) / neighbours.shape[1]


def a_mask(neighbours, labels):
    return neighbours.mode(1).values != labels


WRONG = {
    "class_scores": [
        (not_squared, "Square the projection"),
        (direction_of_the_raw_features, "on the centred features"),
        (the_last_direction, "largest singular value"),
        (always_centred, "what `centred` means"),
        (all_directions, "in all directions"),
        (a_column_instead_of_a_row, "the score of image"),
    ],
    "vote_margin": [
        (numbers_of_votes, "Divide by the number"),
        (own_votes_left_in, "set them to 0"),
        (a_majority, "not all others together"),
        (the_wrong_sign, "outvoted gets a positive"),
        (a_mask, "the margin is"),
    ],
}
