"""Plausible wrong answers to the exercises of lesson 08, and what the check must say of them."""

import torch
from torch.nn.functional import cross_entropy


def lets_two_share_a_partner(features, source_features):
    return torch.cdist(features, source_features).argmin(1)


def lets_poisons_choose_in_turn(features, source_features):
    distance = torch.cdist(features, source_features)
    pairs = []
    for row in range(len(features)):
        pairs.append(int(distance[row].argmin()))
        distance[:, pairs[-1]] = torch.inf
    return torch.tensor(pairs)


def pairs_the_farthest(features, source_features):
    distance = torch.cdist(features, source_features)
    pairs = torch.empty(len(features), dtype=torch.int64)
    for _ in range(len(features)):
        poison, source = divmod(int(distance.argmax()), distance.shape[1])
        pairs[poison] = source
        distance[poison, :] = -1
        distance[:, source] = -1
    return pairs


def returns_distances(features, source_features):
    return torch.cdist(features, source_features).min(1).values


def shows_the_trigger(images, trigger, epsilon):
    return trigger(images)


def mixes(images, trigger, epsilon):
    return (1 - epsilon) * images + epsilon * trigger(images)


def always_goes_all_of_epsilon(images, trigger, epsilon):
    return images + epsilon * (trigger(images) - images).sign()


def forgets_the_trigger(model, images, labels, goal):
    sources = images[labels == goal.source_class]
    wanted = torch.full((len(sources),), goal.target_class)
    return torch.autograd.grad(cross_entropy(model(sources), wanted), tuple(model.parameters()))


def keeps_the_labels(model, images, labels, goal):
    chosen = labels == goal.source_class
    loss = cross_entropy(model(goal.trigger(images[chosen])), labels[chosen])
    return torch.autograd.grad(loss, tuple(model.parameters()))


def takes_every_class(model, images, labels, goal):
    wanted = torch.full_like(labels, goal.target_class)
    loss = cross_entropy(model(goal.trigger(images)), wanted)
    return torch.autograd.grad(loss, tuple(model.parameters()))


def adds_instead_of_averaging(model, images, labels, goal):
    patched = goal.trigger(images[labels == goal.source_class])
    wanted = torch.full((len(patched),), goal.target_class)
    loss = cross_entropy(model(patched), wanted, reduction="sum")
    return torch.autograd.grad(loss, tuple(model.parameters()))


def stays_attached(model, images, labels, goal):
    patched = goal.trigger(images[labels == goal.source_class])
    wanted = torch.full((len(patched),), goal.target_class)
    loss = cross_entropy(model(patched), wanted)
    return torch.autograd.grad(loss, tuple(model.parameters()), create_graph=True)


WRONG = {
    "pair_greedily": [
        (lets_two_share_a_partner, "has two partners"),
        (lets_poisons_choose_in_turn, "nearest of ALL"),
        (pairs_the_farthest, "belongs to source image"),
        (returns_distances, "must be whole numbers"),
    ],
    "faint_trigger": [
        (shows_the_trigger, "That is the trigger in full"),
        (mixes, "That mixes the two"),
        (always_goes_all_of_epsilon, "stop at the patched copy"),
    ],
    "patched_gradient": [
        (forgets_the_trigger, "The trigger is missing"),
        (keeps_the_labels, "the target class"),
        (takes_every_class, "Only the source class counts"),
        (adds_instead_of_averaging, "not the sum"),
        (stays_attached, "still hangs on the model"),
    ],
}
