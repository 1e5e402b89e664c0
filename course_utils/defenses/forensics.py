"""Built in lesson 18, forensics.

Generated from notebooks/18_forensics.ipynb: edit it there, then run make notebooks.
"""

import copy
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from course_utils import guards, training
from course_utils.data import Data
from course_utils.defenses import gradient_shaping, per_example
from course_utils.models import Classifier, predict


class Checkpoint(NamedTuple):
    """The model at one moment of its training, and the learning rate there."""

    model: Classifier
    lr: float


def learning_rates(recipe: training.Recipe, n: int) -> list[float]:
    """The learning rate after each epoch of this recipe, on n images."""
    weight = torch.zeros(1, requires_grad=True)
    batches, rates = training.batches_in(n, recipe.batch_size), []
    optimizer, schedule = training.make_optimizer([weight], recipe, batches)
    for _ in range(recipe.epochs):
        for _ in range(batches):
            weight.grad = torch.zeros(1)
            optimizer.step()
            schedule.step()
        rates.append(schedule.get_last_lr()[0])
    return rates


MOMENTS = (0.05, 0.1, 0.15, 0.25, 0.35, 0.5, 0.75, 1.0)  # early ones are closer together

Look = Callable[[Classifier, int], None]


def with_checkpoints(
    fit: Callable[[Look], Classifier], recipe: training.Recipe, n: int
) -> tuple[Classifier, list[Checkpoint]]:
    """Train by `fit(after_epoch)`, and keep a copy of the model at eight moments.

    recipe, n: how it trains, and on how many images; for the learning rates.
    """
    rates, kept = learning_rates(recipe, n), []
    epochs = {max(1, round(moment * recipe.epochs)) for moment in MOMENTS}

    def keep(model: Classifier, epoch: int) -> None:
        if epoch in epochs:
            kept.append(Checkpoint(copy.deepcopy(model), rates[epoch - 1]))

    return fit(keep), kept


class Incident(NamedTuple):
    """An image (C, H, W) that a model gets wrong: the class it gives, and the true one.

    before: a picture of the same thing that the model gets right, if there is one.
    """

    image: Tensor
    predicted: int
    true_class: int
    before: Tensor | None = None


def incident_of(
    model: Classifier, image: Tensor, true_class: int, before: Tensor | None = None
) -> Incident:
    """What a model makes of an image. Raises ValueError if it is right."""
    predicted = predict(model, image[None]).item()
    guards.check_misclassified(predicted, true_class)
    return Incident(image, predicted, true_class, before)


@torch.no_grad()
def neighbour_scores(model: Classifier, data: Data, incident: Incident) -> Tensor:
    """The cosine (N,) between the features of each image and those of the incident."""
    one = model.features(incident.image[None])
    parts = [model.features(part) for part in data.x.split(1000)]
    return nn.functional.cosine_similarity(torch.cat(parts), one)


def auc_within(scores: Tensor, labels: Tensor, label: int, bad: Tensor) -> float:
    """The chance that a poison (bad) scores above a clean image, among images of this label.

    scores, labels, bad: (N,). Equal scores count a half. There is at least one of both kinds.
    """
    suspects = labels == label
    poisons, clean = scores[suspects & bad], scores[suspects & ~bad]
    signs = torch.sign(poisons[:, None] - clean[None])
    return ((signs + 1) / 2).mean().item()


def first_of_class(scores: Tensor, labels: Tensor, label: int, n: int) -> Tensor:
    """The rows (n,) of the n highest scores among the images of this label."""
    return scores.masked_fill(labels != label, -torch.inf).argsort(descending=True)[:n]


def recall_in_first(scores: Tensor, labels: Tensor, label: int, bad: Tensor, n: int) -> float:
    """The share of the poisons of this label that are among its n highest scores."""
    found = bad[first_of_class(scores, labels, label, n)].sum()
    return (found / (bad & (labels == label)).sum()).item()


def incident_label(incident: Incident) -> tuple[Tensor, Tensor]:
    """The incident as a batch of one, labelled with the wrong class: (1, C, H, W) and (1,)."""
    label = torch.tensor([incident.predicted], device=incident.image.device)
    return incident.image[None], label


def naive_products(model: Classifier, images: Tensor, labels: Tensor, incident: Incident) -> Tensor:
    """The product (N,) of each image's gradient and the incident's, from the gradients."""
    one = per_example.per_example_gradients(model, *incident_label(incident))
    many = per_example.per_example_gradients(model, images, labels)
    parts = [(a * b).flatten(1).sum(1) for a, b in zip(many, one, strict=True)]
    return torch.stack(parts).sum(0)


def linear_products(a: Tensor, b: Tensor, one_a: Tensor, one_b: Tensor, bias: bool) -> Tensor:
    """The product (N,) of each example's gradient with that of one other, for a linear layer.

    a: what went into the layer (N, inputs). b: the gradient of the loss for what came out
    (N, outputs). one_a (1, inputs), one_b (1, outputs): the same of the other example.
    bias: whether the layer has one.
    """
    slopes = (b @ one_b.T)[:, 0]
    products = (a @ one_a.T)[:, 0] * slopes
    return products + slopes if bias else products


def convolution_products(
    layer: nn.Conv2d, a: Tensor, b: Tensor, one_a: Tensor, one_b: Tensor
) -> Tensor:
    """The product (N,) of each example's gradient with that of one other, for a convolution.

    a: what went in (N, C, H, W). b: the gradient for what came out (N, C', H', W'). one_a, one_b:
    the same of the other example, N = 1.
    """
    places = (layer.kernel_size, layer.dilation, layer.padding, layer.stride)
    b, one_b = b.flatten(2), one_b.flatten(2)
    kernel = one_b[0] @ nn.functional.unfold(one_a, *places)[0].T
    products = (b * (kernel @ nn.functional.unfold(a, *places))).sum((1, 2))
    return products if layer.bias is None else products + b.sum(2) @ one_b[0].sum(1)


Slopes = list[tuple[nn.Module, Tensor, Tensor]]  # a layer, what went in, the gradient for what out


def slopes_of(model: Classifier, images: Tensor, labels: Tensor) -> Slopes:
    """What went into each layer that trains, and the gradient of the loss for what came out.

    Raises ValueError for layers other than linear ones and convolutions.
    """
    layers = gradient_shaping.training_layers(model)
    if unknown := [layer for layer in layers if not isinstance(layer, nn.Linear | nn.Conv2d)]:
        raise ValueError(f"No products for {unknown[0]}: use naive_products for this model.")
    losses, seen = per_example.record(model, images, labels, layers)
    slopes = torch.autograd.grad(losses.sum(), [output for _, _, output in seen])
    return [(layer, a, b) for (layer, a, _), b in zip(seen, slopes, strict=True)]


def products_with(many: Slopes, one: Slopes) -> Tensor:
    """The product (N,) of each example's gradient with that of one other, over all layers."""
    found = []
    for (layer, *given), (_, *other) in zip(many, one, strict=True):
        if isinstance(layer, nn.Linear):
            found.append(linear_products(*given, *other, bias=layer.bias is not None))
        else:
            found.append(convolution_products(layer, *given, *other))
    return torch.stack(found).sum(0)


def gradient_products(
    model: Classifier, images: Tensor, labels: Tensor, incident: Incident
) -> Tensor:
    """The product (N,) of each image's gradient and the incident's, without building them.

    Source: after Goodfellow (arXiv 1510.01799); Pruthi and others (arXiv 2002.08484), section 4.
    """
    one = slopes_of(model, *incident_label(incident))
    parts = zip(images.split(1000), labels.split(1000), strict=True)
    return torch.cat([products_with(slopes_of(model, *part), one) for part in parts])


def tracin(checkpoints: Sequence[Checkpoint], data: Data, incident: Incident) -> Tensor:
    """How much each image (N,) lowered the loss of the incident's wrong class, to first order.

    Raises ValueError without checkpoints, or where their classes are not those of the data.
    Source: Pruthi and others (arXiv 2002.08484), TracInCP.
    """
    guards.check_checkpoints(checkpoints, data)
    return sum(lr * gradient_products(m, data.x, data.y, incident) for m, lr in checkpoints)


def cosine_tracin(checkpoints: Sequence[Checkpoint], data: Data, incident: Incident) -> Tensor:
    """The same with every gradient scaled to the length 1: (N,). Raises ValueError as `tracin`.

    Source: Hammoudeh and Lowd (arXiv 2201.10055), section 4.
    """
    guards.check_checkpoints(checkpoints, data)
    total = torch.zeros_like(data.y, dtype=data.x.dtype)
    for m, lr in checkpoints:
        products = gradient_products(m, data.x, data.y, incident)
        lengths = gradient_shaping.ghost_norms(m, data.x, data.y)
        one = gradient_shaping.ghost_norms(m, *incident_label(incident))
        total += lr * products / (lengths * one).clamp(min=1e-30)
    return total


def contrast(checkpoints: Sequence[Checkpoint], data: Data, incident: Incident) -> Tensor:
    """Cosine TracIn of an incident minus that of the picture before, with the same wrong label.

    (N,). What both pictures share, such as the garment, cancels. Raises ValueError as `tracin`,
    and if the incident has no picture before.
    """
    guards.check_before(incident.before)
    before = incident._replace(image=incident.before)
    return cosine_tracin(checkpoints, data, incident) - cosine_tracin(checkpoints, data, before)


def leave_one_out(features: Tensor, targets: Tensor, query: Tensor, strength: float) -> Tensor:
    """How ridge regression answers a query without each row, minus with it: (N, classes).

    features: (N, features). targets: (N, classes). query: (features,). strength: lambda, above 0.
    """
    identity = torch.eye(features.shape[1], dtype=features.dtype, device=features.device)
    matrix = features.T @ features + strength * identity
    solved = torch.linalg.solve(matrix, features.T).T
    errors = targets - features @ (solved.T @ targets)
    leverage = (features * solved).sum(1)
    return -(solved @ query / (1 - leverage))[:, None] * errors


def ridge_influence(features: Tensor, targets: Tensor, query: Tensor, strength: float) -> Tensor:
    """The estimate of `leave_one_out` by the influence function: (N, classes).

    Raises ValueError for shapes that do not fit and a strength that is not above 0.
    Source: Koh and Liang (arXiv 1703.04730), for ridge regression.
    """
    guards.check_ridge(features, targets, strength)
    identity = torch.eye(features.shape[1], dtype=features.dtype, device=features.device)
    solved = torch.linalg.solve(features.T @ features + strength * identity, features.T).T
    return -(solved @ query)[:, None] * (targets - features @ (solved.T @ targets))


def ridge_products(features: Tensor, targets: Tensor, query: Tensor, label: int) -> Tensor:
    """The products of TracIn (N,) in ridge regression, at the weights 0 where it begins.

    label: the class of the query whose error is explained.
    """
    return (features @ query) * targets[:, label]


def kept_after(scores: Tensor, data: Data, label: int, n: int) -> Tensor:
    """A mask (N,) of what is left without the n highest scores of this label.

    Raises ValueError unless the class keeps an image.
    """
    guards.check_drop(n, int((data.y == label).sum()), data.classes[label])
    kept = torch.ones_like(data.y, dtype=torch.bool)
    kept[first_of_class(scores, data.y, label, n)] = False
    return kept
