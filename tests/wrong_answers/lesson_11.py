"""Answers to the exercises of lesson 11: wrong ones, what the check must say, right ones."""

import math
from collections import Counter

import numpy as np
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


def mean_of_each_image(features, centred=True):
    around = features - features.mean(1, keepdim=True)
    direction = torch.linalg.svd(around, full_matrices=False).Vh[0]
    return ((around if centred else features) @ direction).square()


def centred_ignored(features, centred=True):
    return (features @ directions(features)[0]).square()


def standardised(features, centred=True):
    start = features - features.mean(0) if centred else features
    direction = directions(features / features.std(0))[0]
    return (start / features.std(0) @ direction).square()


def centred_in_place(features, centred=True):
    raw = features.clone()
    features -= features.mean(0)
    return ((features if centred else raw) @ directions(features)[0]).square()


def a_column_of_scores(features, centred=True):
    start = features - features.mean(0) if centred else features
    return (start @ directions(features)[:1].T).square()


def random_projection(features, centred=True):
    direction = torch.pca_lowrank(features, q=1, niter=20)[2]
    start = features - features.mean(0) if centred else features
    return (start @ direction).square()[:, 0]


def first_column_of_vh(features, centred=True):
    start = features - features.mean(0) if centred else features
    vh = torch.linalg.svd(features - features.mean(0)).Vh
    return (start @ vh[:, 0]).square()


def divided_by_the_number(features, centred=True):
    start = features - features.mean(0) if centred else features
    return (start @ directions(features)[0]).square() / len(features)


def shares_of_the_length(features, centred=True):
    start = features - features.mean(0)
    start = start if centred else features - features
    return (start @ directions(features)[0]).square() / start.square().sum(1)


def by_covariance(features, centred=True):
    direction = torch.linalg.eigh(torch.cov(features.T)).eigenvectors[:, -1]
    start = features - features.mean(0) if centred else features
    return torch.einsum("nd,d->n", start, direction) ** 2


def single_precision(features, centred=True):
    features = features.float()
    start = features - features.mean(0) if centred else features
    return (start @ directions(features)[0]).square()


def scores_in_numpy(features, centred=True):
    values = features.numpy()
    around = values - values.mean(0)
    direction = np.linalg.svd(around, full_matrices=False)[2][0]
    return ((around if centred else values) @ direction) ** 2


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


def classes_of_the_neighbours(neighbours, labels):
    votes = one_hot(neighbours, int(neighbours.max()) + 1).sum(1)
    own = votes.gather(1, labels[:, None])[:, 0]
    return (votes.scatter(1, labels[:, None], 0).amax(1) - own) / neighbours.shape[1]


def classes_of_the_labels(neighbours, labels):
    votes = one_hot(neighbours, int(labels.max()) + 1).sum(1)
    own = votes.gather(1, labels[:, None])[:, 0]
    return (votes.scatter(1, labels[:, None], 0).amax(1) - own) / neighbours.shape[1]


def plain_one_hot(neighbours, labels):
    votes = one_hot(neighbours).sum(1)
    own = votes.gather(1, labels[:, None])[:, 0]
    return (votes.scatter(1, labels[:, None], 0).amax(1) - own) / neighbours.shape[1]


def whole_numbers(neighbours, labels):
    votes, own = votes_of(neighbours, labels)
    return (votes.scatter(1, labels[:, None], 0).amax(1) - own) // neighbours.shape[1]


def divided_by_the_classes(neighbours, labels):
    votes, own = votes_of(neighbours, labels)
    return (votes.scatter(1, labels[:, None], 0).amax(1) - own) / votes.shape[1]


def first_against_second(neighbours, labels):
    votes, _ = votes_of(neighbours, labels)
    votes = torch.cat([votes, torch.zeros(len(votes), 1)], 1)
    best = votes.topk(2, 1).values
    return (best[:, 0] - best[:, 1]) / neighbours.shape[1]


def never_negative(neighbours, labels):
    votes, own = votes_of(neighbours, labels)
    others = votes.scatter(1, labels[:, None], 0).amax(1)
    return (others - own).clamp(min=0) / neighbours.shape[1]


def own_votes_ignored(neighbours, labels):
    votes, _ = votes_of(neighbours, labels)
    return votes.scatter(1, labels[:, None], 0).amax(1) / neighbours.shape[1]


def less_than_half(neighbours, labels):
    _, own = votes_of(neighbours, labels)
    return 0.5 - own / neighbours.shape[1]


def class_0_left_out(neighbours, labels):
    votes, own = votes_of(neighbours, labels)
    others = votes.scatter(1, labels[:, None], 0)[:, 1:].amax(1)
    return (others - own) / neighbours.shape[1]


def not_a_number(neighbours, labels):
    return torch.full((len(labels),), math.nan)


def summed_over_images(neighbours, labels):
    votes = one_hot(neighbours, int(max(neighbours.max(), labels.max())) + 1).sum(0)
    own = votes.gather(1, labels[:1, None].expand(len(votes), 1))[:, 0]
    return (votes.amax(1) - own) / neighbours.shape[1]


def labels_overwritten(neighbours, labels):
    votes, own = votes_of(neighbours, labels)
    others = votes.scatter(1, labels[:, None], 0).amax(1)
    neighbours[neighbours == labels[:, None]] = -1
    return (others - own) / neighbours.shape[1]


def by_counting(neighbours, labels):
    margins = []
    for votes, label in zip(neighbours.tolist(), labels.tolist(), strict=True):
        count = Counter(votes)
        own = count.pop(label, 0)
        margins.append((max(count.values(), default=0) - own) / len(votes))
    return margins


def by_comparison(neighbours, labels):
    classes = torch.arange(int(torch.cat([neighbours.flatten(), labels]).max()) + 1)
    shares = (neighbours[:, :, None] == classes).double().mean(1)
    is_own = labels[:, None] == classes
    return shares.masked_fill(is_own, 0).amax(1) - shares[is_own]


def by_bincount(neighbours, labels):
    rows = [votes.bincount(minlength=100).float() for votes in neighbours]
    votes, places = torch.stack(rows), torch.arange(len(labels))
    own = votes[places, labels].clone()
    votes[places, labels] = 0
    return (votes.max(1).values - own) / neighbours.size(1)


WRONG = {
    "class_scores": [
        (not_squared, "Square the projection"),
        (direction_of_the_raw_features, "on the centred features"),
        (the_last_direction, "largest singular value"),
        (always_centred, "`centred` is ignored"),
        (centred_ignored, "`centred` is ignored"),
        (all_directions, "in all directions"),
        (a_column_instead_of_a_row, "a column of U"),
        (mean_of_each_image, "over the images"),
        (standardised, "by the spread"),
        (centred_in_place, "changed"),
        (a_column_of_scores, "of shape (12,)"),
        (random_projection, "global random state"),
        (first_column_of_vh, "the score of image"),
        (divided_by_the_number, "Do not divide"),
        (shares_of_the_length, "nan"),
    ],
    "vote_margin": [
        (numbers_of_votes, "Divide by the number"),
        (own_votes_left_in, "set them to 0"),
        (a_majority, "not all others together"),
        (the_wrong_sign, "outvoted gets a positive"),
        (a_mask, "one margin an image"),
        (classes_of_the_neighbours, "Count the classes from both"),
        (classes_of_the_labels, "Count the classes from both"),
        (plain_one_hot, "Count the classes from both"),
        (whole_numbers, "`//`"),
        (divided_by_the_classes, "not by that of the classes"),
        (first_against_second, "the image's own label"),
        (never_negative, "negative"),
        (own_votes_ignored, "Take the own votes off"),
        (less_than_half, "plurality"),
        (class_0_left_out, "Class 0"),
        (not_a_number, "nan"),
        (summed_over_images, "of shape (6,)"),
        (labels_overwritten, "changed"),
    ],
}
RIGHT = {
    "class_scores": [by_covariance, single_precision, scores_in_numpy],
    "vote_margin": [by_counting, by_comparison, by_bincount],
}
