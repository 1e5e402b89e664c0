"""Plausible wrong answers to the exercises of lesson 18, and what the check must say of them."""

import torch
from sklearn.metrics import roc_auc_score

from course_utils.defenses.forensics import auc_within, leave_one_out, linear_products


def pairs(scores, labels, label, bad):
    inside = labels == label
    return scores[inside & bad][:, None] - scores[inside & ~bad][None]


def over_all_images(scores, labels, label, bad):
    return roc_auc_score(bad.numpy(), scores.numpy())


def clean_of_every_class(scores, labels, label, bad):
    difference = scores[bad & (labels == label)][:, None] - scores[~bad][None]
    return (((torch.sign(difference)) + 1) / 2).mean().item()


def poisons_of_every_class(scores, labels, label, bad):
    difference = scores[bad][:, None] - scores[~bad & (labels == label)][None]
    return (((torch.sign(difference)) + 1) / 2).mean().item()


def ties_lost(scores, labels, label, bad):
    return (pairs(scores, labels, label, bad) > 0).float().mean().item()


def ties_won(scores, labels, label, bad):
    return (pairs(scores, labels, label, bad) >= 0).float().mean().item()


def turned_around(scores, labels, label, bad):
    return 1 - auc_within(scores, labels, label, bad)


def mean_of_signs(scores, labels, label, bad):
    return torch.sign(pairs(scores, labels, label, bad)).mean().item()


def a_count(scores, labels, label, bad):
    return (pairs(scores, labels, label, bad) > 0).sum().item()


def a_table(scores, labels, label, bad):
    return torch.sign(pairs(scores, labels, label, bad))


def scores_changed(scores, labels, label, bad):
    scores[labels != label] = -1e9
    return 0.5


def no_bias(a, b, one_a, one_b, bias):
    return (a @ one_a.T)[:, 0] * (b @ one_b.T)[:, 0]


def always_bias(a, b, one_a, one_b, bias):
    return ((a @ one_a.T)[:, 0] + 1) * (b @ one_b.T)[:, 0]


def bias_adds_one(a, b, one_a, one_b, bias):
    return no_bias(a, b, one_a, one_b, bias) + bias


def added(a, b, one_a, one_b, bias):
    return (a @ one_a.T)[:, 0] + (b @ one_b.T)[:, 0]


def inputs_only(a, b, one_a, one_b, bias):
    return (a @ one_a.T)[:, 0]


def slopes_only(a, b, one_a, one_b, bias):
    return (b @ one_b.T)[:, 0]


def squared_lengths(a, b, one_a, one_b, bias):
    return (a.square().sum(1) + bias) * b.square().sum(1)


def the_cosine(a, b, one_a, one_b, bias):
    lengths = squared_lengths(a, b, one_a, one_b, bias)
    one = squared_lengths(one_a, one_b, one_a, one_b, bias)
    return linear_products(a, b, one_a, one_b, bias) / (lengths * one).sqrt()


def a_column(a, b, one_a, one_b, bias):
    return linear_products(a, b, one_a, one_b, bias)[:, None]


def slopes_in_place(a, b, one_a, one_b, bias):
    return (b.mul_(one_b)).sum(1) * ((a @ one_a.T)[:, 0] + bias)


def solved(features, targets, query, strength):
    matrix = features.T @ features + strength * torch.eye(features.shape[1]).double()
    both = torch.linalg.solve(matrix, features.T).T
    return both @ query, targets - features @ (both.T @ targets), (features * both).sum(1)


def the_influence(*case):
    product, errors, _ = solved(*case)
    return -product[:, None] * errors


def wrong_sign(*case):
    return -leave_one_out(*case)


def influence_and_sign(*case):
    return -the_influence(*case)


def one_plus_leverage(*case):
    product, errors, leverage = solved(*case)
    return -(product / (1 + leverage))[:, None] * errors


def multiplied(*case):
    product, errors, leverage = solved(*case)
    return -(product * (1 - leverage))[:, None] * errors


def absolute_errors(*case):
    product, errors, leverage = solved(*case)
    return -(product / (1 - leverage))[:, None] * errors.abs()


def targets_for_errors(features, targets, query, strength):
    product, _, leverage = solved(features, targets, query, strength)
    return -(product / (1 - leverage))[:, None] * targets


def first_class_only(*case):
    return leave_one_out(*case)[:, 0]


def transposed(*case):
    return leave_one_out(*case).T


def answers_not_changes(features, targets, query, strength):
    product, errors, leverage = solved(features, targets, query, strength)
    matrix = features.T @ features + strength * torch.eye(features.shape[1]).double()
    answer = query @ torch.linalg.solve(matrix, features.T @ targets)
    return answer - (product / (1 - leverage))[:, None] * errors


WRONG = {
    "auc_within": [
        (over_all_images, "leave out images with other labels"),
        (clean_of_every_class, "the clean images too"),
        (poisons_of_every_class, "the poisons too"),
        (ties_lost, "a half, not nothing"),
        (ties_won, "a half, not one"),
        (turned_around, "Turned around"),
        (mean_of_signs, "map it to 0 to 1"),
        (a_count, "the AUC is"),
        (a_table, "Return one number"),
        (scores_changed, "What came in was changed"),
    ],
    "linear_products": [
        (no_bias, "The bias is missing"),
        (always_bias, "no part for it"),
        (bias_adds_one, "not 1"),
        (added, "multiplied, not added"),
        (inputs_only, "the slopes are missing"),
        (slopes_only, "the inputs are missing"),
        (squared_lengths, "squared lengths"),
        (the_cosine, "do not divide"),
        (a_column, "of shape"),
        (slopes_in_place, "What came in was changed"),
    ],
    "leave_one_out": [
        (the_influence, "influence function"),
        (wrong_sign, "new minus what was"),
        (influence_and_sign, "Both"),
        (one_plus_leverage, "one MINUS"),
        (multiplied, "do not multiply"),
        (absolute_errors, "targets minus predictions"),
        (targets_for_errors, "not the target"),
        (first_class_only, "of shape"),
        (transposed, "of shape"),
        (answers_not_changes, "changes"),
    ],
}


def by_loop(scores, labels, label, bad):
    rows = range(len(scores))
    poisons = [scores[i].item() for i in rows if labels[i] == label and bad[i]]
    clean = [scores[i].item() for i in rows if labels[i] == label and not bad[i]]
    won = sum((p > c) + 0.5 * (p == c) for p in poisons for c in clean)
    return won / len(poisons) / len(clean)


def by_library(scores, labels, label, bad):
    inside = labels == label
    return roc_auc_score(bad[inside].int().numpy(), scores[inside].numpy())


def by_counting(scores, labels, label, bad):
    difference = pairs(scores, labels, label, bad)
    return (difference > 0).double().mean() + (difference == 0).double().mean() / 2


def by_outer_products(a, b, one_a, one_b, bias):
    many, one = b[:, :, None] * a[:, None], one_b[:, :, None] * one_a[:, None]
    found = (many * one).sum((1, 2))
    return found + (b * one_b).sum(1) if bias else found


def with_ones(a, b, one_a, one_b, bias):
    if bias:
        a = torch.cat([a, torch.ones(len(a), 1)], 1)
        one_a = torch.cat([one_a, torch.ones(1, 1)], 1)
    return (a * one_a).sum(1) * (b * one_b).sum(1)


def by_einsum(a, b, one_a, one_b, bias):
    return torch.einsum("ni,no,zi,zo->n", a, b, one_a, one_b) + bias * (b @ one_b[0])


def by_refitting(features, targets, query, strength):
    def answer(rows):
        x, t = features[rows], targets[rows]
        matrix = x.T @ x + strength * torch.eye(x.shape[1]).double()
        return query @ torch.linalg.solve(matrix, x.T @ t)

    everyone = torch.ones(len(features), dtype=torch.bool)
    found = []
    for i in range(len(features)):
        rows = everyone.clone()
        rows[i] = False
        found.append(answer(rows) - answer(everyone))
    return torch.stack(found)


def by_inverse(features, targets, query, strength):
    inverse = (features.T @ features + strength * torch.eye(features.shape[1]).double()).inverse()
    errors = targets - features @ inverse @ features.T @ targets
    leverage = torch.einsum("ni,ij,nj->n", features, inverse, features)
    return -(features @ inverse @ query / (1 - leverage)).unsqueeze(1) * errors


def by_scaled_errors(*case):
    product, errors, leverage = solved(*case)
    return -(errors / (1 - leverage)[:, None]) * product[:, None]


RIGHT = {
    "auc_within": [by_loop, by_library, by_counting],
    "linear_products": [by_outer_products, with_ones, by_einsum],
    "leave_one_out": [by_refitting, by_inverse, by_scaled_errors],
}
