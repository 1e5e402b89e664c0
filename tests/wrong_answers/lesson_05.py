"""Plausible wrong answers to the exercises of lesson 05, and what the check must say of them;
unusual right answers that it must accept.
"""

import torch
from torch.nn.functional import cosine_similarity, cross_entropy, normalize
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from course_utils.attacks.gradient_matching import dot, gradient_norms, length, loss_gradient


def gradient_of(model, images, labels):
    return loss_gradient(model, images, labels, graph=True)


def right_alignment(model, images, labels, wanted):
    found = gradient_of(model, images, labels)
    return 1 - dot(found, wanted) / (length(found) * length(wanted))


def alignment_without_graph(model, images, labels, wanted):
    found = loss_gradient(model, images, labels, graph=False)
    return 1 - dot(found, wanted) / (length(found) * length(wanted))


def alignment_of_copies(model, images, labels, wanted):
    return right_alignment(model, images.detach().clone().requires_grad_(), labels, wanted)


def constant_length(model, images, labels, wanted):
    found = gradient_of(model, images, labels)
    return 1 - dot(found, wanted) / (length(found).detach() * length(wanted))


def alignment_by_layer(model, images, labels, wanted):
    pairs = zip(gradient_of(model, images, labels), wanted, strict=True)
    return 1 - torch.stack([(a * b).sum() / (a.norm() * b.norm()) for a, b in pairs]).mean()


def sum_by_layer(model, images, labels, wanted):
    pairs = zip(gradient_of(model, images, labels), wanted, strict=True)
    return sum(1 - (a * b).sum() / (a.norm() * b.norm()) for a, b in pairs)


def the_cosine_itself(model, images, labels, wanted):
    return 1 - right_alignment(model, images, labels, wanted)


def adds_the_cosine(model, images, labels, wanted):
    return 2 - right_alignment(model, images, labels, wanted)


def minus_the_cosine(model, images, labels, wanted):
    return right_alignment(model, images, labels, wanted) - 1


def no_lengths(model, images, labels, wanted):
    return 1 - dot(gradient_of(model, images, labels), wanted)


def wanted_length_only(model, images, labels, wanted):
    return 1 - dot(gradient_of(model, images, labels), wanted) / length(wanted)


def squared_lengths(model, images, labels, wanted):
    found = gradient_of(model, images, labels)
    return 1 - dot(found, wanted) / (dot(found, found) * dot(wanted, wanted))


def last_layer_only(model, images, labels, wanted):
    found, wanted = gradient_of(model, images, labels)[-2:], wanted[-2:]
    return 1 - dot(found, wanted) / (length(found) * length(wanted))


def absolute_cosine(model, images, labels, wanted):
    return 1 - (1 - right_alignment(model, images, labels, wanted)).abs()


def squared_distance(model, images, labels, wanted):
    pairs = zip(gradient_of(model, images, labels), wanted, strict=True)
    return sum((a - b).square().sum() for a, b in pairs)


def leaves_gradients(model, images, labels, wanted):
    cross_entropy(model(images.detach()), labels).backward()
    return right_alignment(model, images, labels, wanted)


def leaves_eval(model, images, labels, wanted):
    return right_alignment(model.eval(), images, labels, wanted)


def a_float(model, images, labels, wanted):
    return right_alignment(model, images, labels, wanted).item()


def alignment_of_one_vector(model, images, labels, wanted):
    a, b = (
        torch.cat([part.flatten() for part in g])
        for g in (gradient_of(model, images, labels), wanted)
    )
    return 1 - cosine_similarity(a, b, dim=0)


def alignment_in_float32(model, images, labels, wanted):
    return right_alignment(model, images, labels, wanted).float()


def half_the_squared_gap(model, images, labels, wanted):
    a, b = (
        torch.cat([part.flatten() for part in g])
        for g in (gradient_of(model, images, labels), wanted)
    )
    return (normalize(a, dim=0) - normalize(b, dim=0)).square().sum() / 2


def mean_lengths(surrogates, data, rows):
    norms = [gradient_norms(model, data.x[rows], data.y[rows]) for model in surrogates]
    return torch.stack(norms).mean(0)


def smallest(surrogates, data, rows, budget):
    return rows[mean_lengths(surrogates, data, rows).argsort()[:budget]]


def ascending(surrogates, data, rows, budget):
    return rows[mean_lengths(surrogates, data, rows).argsort()[-budget:]]


def sorted_rows(surrogates, data, rows, budget):
    order = mean_lengths(surrogates, data, rows).argsort(descending=True)
    return rows[order[:budget]].sort().values


def positions(surrogates, data, rows, budget):
    return mean_lengths(surrogates, data, rows).argsort(descending=True)[:budget]


def a_mask(surrogates, data, rows, budget):
    mask = torch.zeros(len(data), dtype=torch.bool)
    mask[rows[mean_lengths(surrogates, data, rows).argsort(descending=True)[:budget]]] = True
    return mask


def first_surrogate(surrogates, data, rows, budget):
    return right_bases(surrogates[:1], data, rows, budget)


def last_surrogate(surrogates, data, rows, budget):
    for model in surrogates:
        norms = gradient_norms(model, data.x[rows], data.y[rows])
    return rows[norms.argsort(descending=True)[:budget]]


def largest_surrogate(surrogates, data, rows, budget):
    norms = [gradient_norms(model, data.x[rows], data.y[rows]) for model in surrogates]
    return rows[torch.stack(norms).amax(0).argsort(descending=True)[:budget]]


def all_rows(surrogates, data, rows, budget):
    norms = mean_lengths(surrogates, data, torch.arange(len(data)))
    return norms.argsort(descending=True)[:budget]


def length_of_the_mean(surrogates, data, rows, budget):
    lengths = []
    for row in rows:
        image, label = data.x[row : row + 1], data.y[row : row + 1]
        parts = zip(*(loss_gradient(m, image, label, graph=False) for m in surrogates), strict=True)
        lengths.append(length([torch.stack(part).mean(0) for part in parts]))
    return rows[torch.stack(lengths).argsort(descending=True)[:budget]]


def by_the_loss(surrogates, data, rows, budget):
    losses = [cross_entropy(m(data.x[rows]), data.y[rows], reduction="none") for m in surrogates]
    return rows[torch.stack(losses).mean(0).argsort(descending=True)[:budget]]


def the_first_rows(surrogates, data, rows, budget):
    return rows[:budget]


def forgets_the_budget(surrogates, data, rows, budget):
    return rows[mean_lengths(surrogates, data, rows).argsort(descending=True)]


def the_lengths(surrogates, data, rows, budget):
    return mean_lengths(surrogates, data, rows).topk(budget).values


def list_of_rows(surrogates, data, rows, budget):
    return right_bases(surrogates, data, rows, budget).tolist()


def leaves_weight_gradients(surrogates, data, rows, budget):
    cross_entropy(surrogates[0](data.x[rows]), data.y[rows]).backward()
    return right_bases(surrogates, data, rows, budget)


def right_bases(surrogates, data, rows, budget):
    return rows[mean_lengths(surrogates, data, rows).topk(budget).indices]


def bases_by_the_sum(surrogates, data, rows, budget):
    total = torch.zeros(len(rows), dtype=torch.double)
    for model in surrogates:
        total += gradient_norms(model, data.x[rows], data.y[rows]).double()
    return rows[total.argsort(descending=True)][:budget]


def bases_as_int32(surrogates, data, rows, budget):
    return right_bases(surrogates, data, rows, budget).int()


def bases_by_python(surrogates, data, rows, budget):
    pairs = zip(mean_lengths(surrogates, data, rows).tolist(), rows.tolist(), strict=True)
    return torch.tensor([row for _, row in sorted(pairs, reverse=True)[:budget]])


def mean_of(gradients):
    return tuple(torch.stack(parts).mean(0) for parts in zip(*gradients, strict=True))


def units_of(gradients):
    return [[part / length(gradient) for part in gradient] for gradient in gradients]


def mean_of_raw_gradients(gradients):
    return mean_of(gradients)


def sum_of_raw_gradients(gradients):
    return tuple(torch.stack(parts).sum(0) for parts in zip(*gradients, strict=True))


def sum_of_units(gradients):
    return tuple(torch.stack(parts).sum(0) for parts in zip(*units_of(gradients), strict=True))


def unit_of_the_mean(gradients):
    return tuple(
        part / length(mean_of(units_of(gradients))) for part in mean_of(units_of(gradients))
    )


def unit_of_the_raw_mean(gradients):
    return tuple(part / length(mean_of(gradients)) for part in mean_of(gradients))


def units_by_layer(gradients):
    return mean_of([[part / part.norm() for part in gradient] for gradient in gradients])


def by_the_squared_length(gradients):
    return mean_of([[part / dot(g, g) for part in g] for g in gradients])


def by_the_largest_entry(gradients):
    tops = [max(part.abs().max() for part in g) for g in gradients]
    return mean_of([[part / t for part in g] for g, t in zip(gradients, tops, strict=True)])


def first_target(gradients):
    return mean_of(units_of(gradients[:1]))


def length_of_the_first(gradients):
    return mean_of([[part / length(gradients[0]) for part in g] for g in gradients])


def points_away(gradients):
    return tuple(-part for part in mean_of(units_of(gradients)))


def one_for_each_target(gradients):
    return tuple(torch.stack([part.mean() for part in unit]) for unit in units_of(gradients))


def one_long_vector(gradients):
    return torch.cat([part.flatten() for part in mean_of(units_of(gradients))])


def divides_in_place(gradients):
    for gradient in gradients:
        size = length(gradient)
        for part in gradient:
            part /= size
    return mean_of(gradients)


def joint_as_a_list(gradients):
    return list(mean_of(units_of(gradients)))


def joint_in_float32(gradients):
    return tuple(part.float() for part in mean_of(units_of(gradients)))


def joint_by_vectors(gradients):
    vectors = torch.stack([parameters_to_vector(gradient) for gradient in gradients])
    joint = [torch.empty_like(part) for part in gradients[0]]
    vector_to_parameters(normalize(vectors, dim=1).sum(0) / len(gradients), joint)
    return tuple(joint)


WRONG = {
    "alignment_loss": [
        (alignment_without_graph, "graph=True"),
        (alignment_of_copies, "cannot be differentiated for the images"),
        (constant_length, "a part of the graph is cut"),
        (alignment_by_layer, "one cosine over all parameters"),
        (sum_by_layer, "Nor add up the losses"),
        (the_cosine_itself, "0 where the two point the same way"),
        (adds_the_cosine, "You added the cosine"),
        (minus_the_cosine, "You left out the 1"),
        (no_lengths, "both lengths."),
        (wanted_length_only, "not only by that of the wanted"),
        (squared_lengths, "not by their squares"),
        (last_layer_only, "not only the last layer"),
        (absolute_cosine, "no absolute value"),
        (squared_distance, "squared distance of the two gradients"),
        (leaves_gradients, "A gradient was left in `model"),
        (leaves_eval, "The mode of `model`"),
        (a_float, "not a plain float"),
    ],
    "choose_bases": [
        (smallest, "You chose the smallest"),
        (ascending, "the largest gradient comes first"),
        (sorted_rows, "the largest gradient comes first"),
        (positions, "positions within"),
        (a_mask, "return row numbers"),
        (first_surrogate, "not only the first"),
        (last_surrogate, "not only the last"),
        (largest_surrogate, "the largest of them"),
        (all_rows, "Only images in `rows`"),
        (length_of_the_mean, "the length of the mean gradient"),
        (by_the_loss, "the order of the losses"),
        (the_first_rows, "took the first of `rows`"),
        (forgets_the_budget, "Return 2 row numbers"),
        (the_lengths, "whole numbers"),
        (list_of_rows, "Return a tensor of row numbers, not a list of 2"),
        (leaves_weight_gradients, "A gradient was left in `surrogates.0"),
    ],
    "joint_gradient": [
        (mean_of_raw_gradients, "drowns the others"),
        (sum_of_raw_gradients, "and take the mean, not the sum"),
        (sum_of_units, "Take the mean, not the sum"),
        (unit_of_the_mean, "leave its length"),
        (unit_of_the_raw_mean, "before the mean, not the mean afterwards"),
        (units_by_layer, "over all parameters together, not of each"),
        (by_the_squared_length, "not by its square"),
        (by_the_largest_entry, "not the largest entry"),
        (first_target, "not only the first"),
        (length_of_the_first, "not by that of the first"),
        (points_away, "no minus"),
        (one_for_each_target, "for each parameter"),
        (one_long_vector, "one tensor for each parameter, 3, not a tensor"),
        (divides_in_place, "What came in was changed: `gradients.0.0`"),
    ],
}
RIGHT = {
    "alignment_loss": [alignment_of_one_vector, alignment_in_float32, half_the_squared_gap],
    "choose_bases": [bases_by_the_sum, bases_as_int32, bases_by_python],
    "joint_gradient": [joint_as_a_list, joint_in_float32, joint_by_vectors],
}
