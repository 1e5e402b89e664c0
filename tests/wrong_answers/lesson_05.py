"""Plausible wrong answers to the exercises of lesson 05, and what the check must say of them."""

import torch

from course_utils.attacks.gradient_matching import dot, gradient_norms, length, loss_gradient


def alignment_without_graph(model, images, labels, wanted):
    found = loss_gradient(model, images, labels, graph=False)
    return 1 - dot(found, wanted) / (length(found) * length(wanted))


def alignment_by_layer(model, images, labels, wanted):
    found = loss_gradient(model, images, labels, graph=True)
    pairs = zip(found, wanted, strict=True)
    return 1 - torch.stack([(a * b).sum() / (a.norm() * b.norm()) for a, b in pairs]).mean()


def the_cosine_itself(model, images, labels, wanted):
    found = loss_gradient(model, images, labels, graph=True)
    return dot(found, wanted) / (length(found) * length(wanted))


def no_lengths(model, images, labels, wanted):
    return 1 - dot(loss_gradient(model, images, labels, graph=True), wanted)


def last_layer_only(model, images, labels, wanted):
    found = loss_gradient(model, images, labels, graph=True)[-2:]
    return 1 - dot(found, wanted[-2:]) / (length(found) * length(wanted[-2:]))


def smallest(surrogates, data, rows, budget):
    norms = [gradient_norms(model, data.x[rows], data.y[rows]) for model in surrogates]
    return rows[torch.stack(norms).mean(0).argsort()[:budget]]


def positions(surrogates, data, rows, budget):
    norms = [gradient_norms(model, data.x[rows], data.y[rows]) for model in surrogates]
    return torch.stack(norms).mean(0).argsort(descending=True)[:budget]


def first_surrogate(surrogates, data, rows, budget):
    norms = gradient_norms(surrogates[0], data.x[rows], data.y[rows])
    return rows[norms.argsort(descending=True)[:budget]]


def all_rows(surrogates, data, rows, budget):
    norms = [gradient_norms(model, data.x, data.y) for model in surrogates]
    return torch.stack(norms).mean(0).argsort(descending=True)[:budget]


def mean_of_raw_gradients(gradients):
    return tuple(torch.stack(parts).mean(0) for parts in zip(*gradients, strict=True))


def sum_of_units(gradients):
    units = [[part / length(gradient) for part in gradient] for gradient in gradients]
    return tuple(torch.stack(parts).sum(0) for parts in zip(*units, strict=True))


def unit_of_the_mean(gradients):
    units = [[part / length(gradient) for part in gradient] for gradient in gradients]
    mean = tuple(torch.stack(parts).mean(0) for parts in zip(*units, strict=True))
    return tuple(part / length(mean) for part in mean)


def units_by_layer(gradients):
    units = [[part / part.norm() for part in gradient] for gradient in gradients]
    return tuple(torch.stack(parts).mean(0) for parts in zip(*units, strict=True))


WRONG = {
    "alignment_loss": [
        (alignment_without_graph, "graph=True"),
        (alignment_by_layer, "one cosine over all parameters"),
        (the_cosine_itself, "0 where the two point the same way"),
        (no_lengths, "both lengths"),
        (last_layer_only, "the loss should be"),
    ],
    "choose_bases": [
        (smallest, "smallest"),
        (positions, "positions within"),
        (first_surrogate, "not only the first"),
        (all_rows, "is missing"),
    ],
    "joint_gradient": [
        (mean_of_raw_gradients, "drowns the others"),
        (sum_of_units, "not the sum"),
        (unit_of_the_mean, "leave its length"),
        (units_by_layer, "test vector"),
    ],
}
