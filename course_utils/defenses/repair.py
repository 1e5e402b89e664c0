"""Built in lesson 19, repair.

Generated from notebooks/19_repair.ipynb: edit it there, then run make notebooks.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from course_utils import guards, threat, training
from course_utils.data import Data
from course_utils.defense import PLAIN, Defense
from course_utils.models import Classifier

STEPS = 150


def fine_tune(
    model: Classifier,
    data: Data,
    lr: float,
    seed: int,
    steps: int = STEPS,
    defense: Defense = PLAIN,
) -> Classifier:
    """Go on training a copy of the model: about `steps` steps, on batches of at most 100 images.

    lr: the largest learning rate on the way. Raises ValueError without images.
    """
    guards.check_some_images(data)
    batch_size = min(100, len(data))
    epochs = max(1, round(steps / training.batches_in(len(data), batch_size)))
    recipe = training.Recipe(epochs, batch_size, lr)
    return training.train(model, data, recipe, scenario="finetune", defense=defense, seed=seed)


def last_hidden(model: Classifier) -> nn.Linear:
    """The layer whose units the head reads, after a ReLU.

    Raises ValueError for a model without such units.
    """
    guards.check_hidden(model)
    return model.features[-2]


@torch.no_grad()
def activations(model: Classifier, images: Tensor) -> Tensor:
    """What each unit of the last hidden layer gives on these images, on average: (units,)."""
    return torch.cat([model.features(part) for part in images.split(1000)]).mean(0)


def prune(model: Classifier, units: Tensor) -> Classifier:
    """A copy of the model in which these units of the last hidden layer give 0 for every image.

    units: their numbers (n,). Nothing else changes, and no training wakes them up.
    """
    pruned = copy.deepcopy(model)
    layer = last_hidden(pruned)
    with torch.no_grad():
        layer.weight[units] = 0
        layer.bias[units] = 0
    return pruned


def dormant_units(model: Classifier, clean: Data, tolerance: float) -> Tensor:
    """The most dormant units, as many as can go before accuracy falls by more than `tolerance`.

    Dormant: a small mean activation on the clean images, on which accuracy is measured too. Raises
    ValueError without images, without hidden units, and for a tolerance outside [0, 1].
    """
    guards.check_pruning(model, clean, tolerance)
    order = activations(model, clean.x).argsort()
    least, stride, count = threat.accuracy(model, clean) - tolerance, max(1, len(order) // 32), 0
    while count + stride < len(order):
        if threat.accuracy(prune(model, order[: count + stride]), clean) < least:
            break
        count += stride
    return order[:count]


def fine_prune(
    model: Classifier, clean: Data, tolerance: float, lr: float, seed: int, steps: int = STEPS
) -> Classifier:
    """Prune the dormant units, then fine-tune. Source: Liu and others (arXiv 1805.12185)."""
    pruned = prune(model, dormant_units(model, clean, tolerance))
    return fine_tune(pruned, clean, lr, seed, steps)


def known_loss(model: Classifier, found: Data) -> Tensor:
    """The mean loss over the found images that the model still gives their label; 0 if none is."""
    logits = model(found.x)
    known = logits.argmax(1) == found.y
    losses = cross_entropy(logits, found.y, reduction="none")
    return (losses * known).sum() / known.sum().clamp(min=1)


def negated_steps(model: Classifier, found: Data, lr: float, steps: int = 100) -> Classifier:
    """Plain steps uphill on the found images, until the model gives none of them its label.

    Raises ValueError if nothing was found. Source: gradient ascent, as in arXiv 2406.17216.
    """
    guards.check_some_images(found, "found image")
    changed = copy.deepcopy(model)
    weights = list(changed.parameters())
    for _ in range(steps):
        gradients = torch.autograd.grad(known_loss(changed, found), weights)
        with torch.no_grad():
            for weight, gradient in zip(weights, gradients, strict=True):
                weight += lr * gradient
    return changed


def forgetting(found: Data, weight: float) -> Defense:
    """Downhill on the batch and uphill on the found images, until they are forgotten.

    weight: of the climb. Raises ValueError if nothing was found, or for a weight that is not
    positive. Source: after NegGrad+ (Kurmanji and others, arXiv 2302.09880).
    """
    guards.check_forgetting(found, weight)

    def gradients(
        model: Classifier, x: Tensor, y: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, ...]:
        loss = cross_entropy(model(x), y) - weight * known_loss(model, found)
        return torch.autograd.grad(loss, list(model.parameters()))

    return Defense("forgetting", gradients=gradients)


def strip_entropy(model: Classifier, image: Tensor, overlays: Tensor) -> float:
    """How undecided the model is, on average, when other images are laid over this one.

    image: (C, H, W). overlays: clean images (N, C, H, W). Each is mixed with the image, half and
    half; the entropy of the predicted probabilities is in nats.
    Source: after Gao and others (arXiv 1902.06531).
    """
    with torch.no_grad():
        logs = model((image + overlays) / 2).log_softmax(1)
    return -(logs.exp() * logs).sum(1).mean().item()
