"""Plausible wrong answers to the exercises of lesson 08, and what the check must say of them;
unusual right answers that it must accept.
"""

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch.nn.functional import cross_entropy, log_softmax, normalize


def greedy(distance):
    distance = distance.clone()
    pairs = torch.empty(len(distance), dtype=torch.int64)
    for _ in range(len(distance)):
        poison, source = divmod(int(distance.argmin()), distance.shape[1])
        pairs[poison] = source
        distance[poison, :] = torch.inf
        distance[:, source] = torch.inf
    return pairs


def lets_two_share_a_partner(features, source_features):
    return torch.cdist(features, source_features).argmin(1)


def strikes_out_the_row_only(features, source_features):
    distance = torch.cdist(features, source_features)
    pairs = torch.empty(len(features), dtype=torch.int64)
    for _ in range(len(features)):
        poison, source = divmod(int(distance.argmin()), distance.shape[1])
        pairs[poison] = source
        distance[poison, :] = torch.inf
    return pairs


def strikes_out_the_column_only(features, source_features):
    distance = torch.cdist(features, source_features)
    pairs = torch.zeros(len(features), dtype=torch.int64)
    for _ in range(len(features)):
        poison, source = divmod(int(distance.argmin()), distance.shape[1])
        pairs[poison] = source
        distance[:, source] = torch.inf
    return pairs


def lets_poisons_choose_in_turn(features, source_features):
    distance = torch.cdist(features, source_features)
    pairs = []
    for row in range(len(features)):
        pairs.append(int(distance[row].argmin()))
        distance[:, pairs[-1]] = torch.inf
    return torch.tensor(pairs)


def pairs_the_farthest(features, source_features):
    return greedy(-torch.cdist(features, source_features))


def smallest_sum(features, source_features):
    return torch.from_numpy(linear_sum_assignment(torch.cdist(features, source_features))[1])


def in_the_order_of_making(features, source_features):
    distance, pairs = torch.cdist(features, source_features), []
    for _ in range(len(features)):
        poison, source = divmod(int(distance.argmin()), distance.shape[1])
        pairs.append(source)
        distance[poison, :] = torch.inf
        distance[:, source] = torch.inf
    return torch.tensor(pairs)


def by_inner_products(features, source_features):
    return greedy(-features @ source_features.T)


def by_the_angle(features, source_features):
    return greedy(-normalize(features, dim=1) @ normalize(source_features, dim=1).T)


def by_the_sum_of_sizes(features, source_features):
    return greedy(torch.cdist(features, source_features, p=1))


def in_the_order_of_the_data(features, source_features):
    return torch.arange(len(features))


def forgets_to_split_the_place(features, source_features):
    return torch.cdist(features, source_features).flatten().argsort()[: len(features)]


def returns_distances(features, source_features):
    return torch.cdist(features, source_features).min(1).values


def pairs_of_numbers(features, source_features):
    return torch.stack([torch.arange(len(features)), right_pairs(features, source_features)], 1)


def overwrites_the_features(features, source_features):
    pairs = right_pairs(features, source_features)
    source_features[pairs] = torch.inf
    return pairs


def list_of_pairs(features, source_features):
    return right_pairs(features, source_features).tolist()


def right_pairs(features, source_features):
    return greedy(torch.cdist(features, source_features))


def pairs_by_squares(features, source_features):
    gaps = features[:, None].double() - source_features[None].double()
    return greedy(gaps.square().sum(2)).int()


def pairs_by_sorting(features, source_features):
    distance, pairs = torch.cdist(features, source_features), {}
    for place in distance.flatten().argsort().tolist():
        poison, source = divmod(place, distance.shape[1])
        if poison not in pairs and source not in pairs.values():
            pairs[poison] = source
    return torch.tensor([pairs[poison] for poison in range(len(features))])


def pairs_by_numpy(features, source_features):
    table = np.linalg.norm(features.numpy()[:, None] - source_features.numpy(), axis=2)
    return greedy(torch.from_numpy(table))


def shows_the_trigger(images, trigger, epsilon):
    return trigger(images)


def mixes(images, trigger, epsilon):
    return (1 - epsilon) * images + epsilon * trigger(images)


def always_goes_all_of_epsilon(images, trigger, epsilon):
    return images + epsilon * (trigger(images) - images).sign()


def scales_the_way(images, trigger, epsilon):
    way = trigger(images) - images
    return images + way * min(1, epsilon / way.abs().max())


def euclidean(images, trigger, epsilon):
    way = trigger(images) - images
    return images + way * min(1, epsilon / way.norm())


def walks_away(images, trigger, epsilon):
    return images - (trigger(images) - images).clamp(-epsilon, epsilon)


def returns_the_change(images, trigger, epsilon):
    return (trigger(images) - images).clamp(-epsilon, epsilon)


def starts_at_the_copy(images, trigger, epsilon):
    patched = trigger(images)
    return patched + (patched - images).clamp(-epsilon, epsilon)


def upper_end_only(images, trigger, epsilon):
    return images + (trigger(images) - images).clamp(max=epsilon)


def brighter_only(images, trigger, epsilon):
    return images + (trigger(images) - images).clamp(0, epsilon)


def lower_end_only(images, trigger, epsilon):
    return images + (trigger(images) - images).clamp(min=-epsilon)


def clamps_the_pixels(images, trigger, epsilon):
    return trigger(images).clamp(0, epsilon)


def stays_if_too_far(images, trigger, epsilon):
    patched = trigger(images)
    return torch.where((patched - images).abs() <= epsilon, patched, images)


def divides_by_255(images, trigger, epsilon):
    return images + (trigger(images) - images).clamp(-epsilon / 255, epsilon / 255)


def changes_nothing(images, trigger, epsilon):
    return images.clone()


def moves_in_place(images, trigger, epsilon):
    images += (trigger(images) - images).clamp(-epsilon, epsilon)
    return images


def one_image_only(images, trigger, epsilon):
    return images[0] + (trigger(images) - images)[0].clamp(-epsilon, epsilon)


def faint_by_bounds(images, trigger, epsilon):
    return trigger(images).clamp(images - epsilon, images + epsilon)


def faint_in_double(images, trigger, epsilon):
    way = trigger(images).double() - images.double()
    return images.double() + way.sign() * way.abs().clamp(max=epsilon)


def faint_by_where(images, trigger, epsilon):
    patched = trigger(images)
    way = patched - images
    return torch.where(way.abs() > epsilon, images + epsilon * way.sign(), patched)


def slope_of(model, images, labels, **options):
    loss = cross_entropy(model(images), labels, **options)
    return torch.autograd.grad(loss, tuple(model.parameters()))


def patched_sources(images, labels, goal):
    patched = goal.trigger(images[labels == goal.source_class])
    return patched, torch.full((len(patched),), goal.target_class)


def right_gradient(model, images, labels, goal):
    return slope_of(model, *patched_sources(images, labels, goal))


def forgets_the_trigger(model, images, labels, goal):
    sources = images[labels == goal.source_class]
    return slope_of(model, sources, torch.full((len(sources),), goal.target_class))


def keeps_the_labels(model, images, labels, goal):
    chosen = labels == goal.source_class
    return slope_of(model, goal.trigger(images[chosen]), labels[chosen])


def forgets_both(model, images, labels, goal):
    chosen = labels == goal.source_class
    return slope_of(model, images[chosen], labels[chosen])


def takes_every_class(model, images, labels, goal):
    return slope_of(model, goal.trigger(images), torch.full_like(labels, goal.target_class))


def takes_all_but_the_target(model, images, labels, goal):
    chosen = labels != goal.target_class
    wanted = torch.full_like(labels, goal.target_class)
    return slope_of(model, goal.trigger(images[chosen]), wanted[chosen])


def takes_the_target_class(model, images, labels, goal):
    chosen = labels == goal.target_class
    return slope_of(model, goal.trigger(images[chosen]), labels[chosen])


def adds_instead_of_averaging(model, images, labels, goal):
    return slope_of(model, *patched_sources(images, labels, goal), reduction="sum")


def divides_by_the_batch(model, images, labels, goal):
    parts = slope_of(model, *patched_sources(images, labels, goal), reduction="sum")
    return tuple(part / len(images) for part in parts)


def points_away(model, images, labels, goal):
    return tuple(-part for part in right_gradient(model, images, labels, goal))


def first_source_only(model, images, labels, goal):
    patched, wanted = patched_sources(images, labels, goal)
    return slope_of(model, patched[:1], wanted[:1])


def of_length_one(model, images, labels, goal):
    parts = right_gradient(model, images, labels, goal)
    length = torch.cat([part.flatten() for part in parts]).norm()
    return tuple(part / length for part in parts)


def always_class_0(model, images, labels, goal):
    patched, wanted = patched_sources(images, labels, goal)
    return slope_of(model, patched, torch.zeros_like(wanted))


def stays_attached(model, images, labels, goal):
    loss = cross_entropy(
        *(model(p) if i == 0 else p for i, p in enumerate(patched_sources(images, labels, goal)))
    )
    return torch.autograd.grad(loss, tuple(model.parameters()), create_graph=True)


def leaves_gradients(model, images, labels, goal):
    patched, wanted = patched_sources(images, labels, goal)
    cross_entropy(model(patched), wanted).backward()
    return tuple(p.grad for p in model.parameters())


def leaves_eval(model, images, labels, goal):
    return right_gradient(model.eval(), images, labels, goal)


def for_the_images(model, images, labels, goal):
    patched, wanted = patched_sources(images, labels, goal)
    patched.requires_grad_()
    return torch.autograd.grad(cross_entropy(model(patched), wanted), patched)


def one_vector(model, images, labels, goal):
    return torch.cat([part.flatten() for part in right_gradient(model, images, labels, goal)])


def gradient_as_a_list(model, images, labels, goal):
    return list(right_gradient(model, images, labels, goal))


def gradient_by_the_logarithm(model, images, labels, goal):
    patched, _ = patched_sources(images, labels, goal)
    loss = -log_softmax(model(patched), 1)[:, goal.target_class].mean()
    return tuple(part.double() for part in torch.autograd.grad(loss, [*model.parameters()]))


def gradient_image_by_image(model, images, labels, goal):
    patched, wanted = patched_sources(images, labels, goal)
    pairs = zip(patched.split(1), wanted.split(1), strict=True)
    each = zip(*(slope_of(model, image, label) for image, label in pairs), strict=True)
    return tuple(torch.stack(parts).mean(0) for parts in each)


WRONG = {
    "pair_greedily": [
        (lets_two_share_a_partner, "has two partners"),
        (strikes_out_the_row_only, "has two partners"),
        (strikes_out_the_column_only, "the row AND the column"),
        (lets_poisons_choose_in_turn, "nearest of ALL"),
        (pairs_the_farthest, "paired the farthest"),
        (smallest_sum, "smallest sum"),
        (in_the_order_of_making, "in which they were made"),
        (by_inner_products, "largest inner product"),
        (by_the_angle, "by the angle"),
        (by_the_sum_of_sizes, "not the sum of sizes"),
        (in_the_order_of_the_data, "without a look at the distances"),
        (forgets_to_split_the_place, "The partners go from 0 to 2"),
        (returns_distances, "whole numbers"),
        (pairs_of_numbers, "not a tensor of shape (1, 2)"),
        (overwrites_the_features, "What came in was changed: `source_features`"),
        (list_of_pairs, "Return a tensor of partners, not a list"),
    ],
    "faint_trigger": [
        (shows_the_trigger, "That is the trigger in full"),
        (mixes, "That mixes the two"),
        (always_goes_all_of_epsilon, "stop at the patched copy"),
        (scales_the_way, "do not scale"),
        (euclidean, "not the Euclidean length"),
        (walks_away, "mind the sign"),
        (returns_the_change, "add it to the images"),
        (starts_at_the_copy, "Start at the images"),
        (upper_end_only, "the lower end is missing"),
        (brighter_only, "do not cut the way off at 0"),
        (lower_end_only, "the upper end is missing"),
        (clamps_the_pixels, "not the pixels"),
        (stays_if_too_far, "not to stay"),
        (divides_by_255, "do not divide by 255"),
        (changes_nothing, "came back as they were"),
        (moves_in_place, "What came in was changed: `images`"),
        (one_image_only, "not a tensor of shape (1, 4, 4)"),
    ],
    "patched_gradient": [
        (forgets_the_trigger, "The trigger is missing"),
        (keeps_the_labels, "that the attacker wants, the target class"),
        (forgets_both, "The trigger and the label"),
        (takes_every_class, "Only the source class counts"),
        (takes_all_but_the_target, "not every class but the target"),
        (takes_the_target_class, "images of the target class"),
        (adds_instead_of_averaging, "not the sum"),
        (divides_by_the_batch, "not over the whole batch"),
        (points_away, "no minus"),
        (first_source_only, "not only the first"),
        (of_length_one, "Leave the length"),
        (always_class_0, "target class 0 whatever"),
        (stays_attached, "still hangs on the model"),
        (leaves_gradients, "A gradient was left in `model"),
        (leaves_eval, "The mode of `model`"),
        (for_the_images, "one tensor for each parameter, 6, not a tuple of 1"),
        (one_vector, "one tensor for each parameter, 6, not a tensor"),
    ],
}
RIGHT = {
    "pair_greedily": [pairs_by_squares, pairs_by_sorting, pairs_by_numpy],
    "faint_trigger": [faint_by_bounds, faint_in_double, faint_by_where],
    "patched_gradient": [
        gradient_as_a_list,
        gradient_by_the_logarithm,
        gradient_image_by_image,
    ],
}
