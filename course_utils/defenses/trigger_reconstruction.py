"""Built in lesson 19, repair.

Generated from notebooks/19_repair.ipynb: edit it there, then run make notebooks.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from tqdm.auto import tqdm

from course_utils import guards
from course_utils.attacks.triggers import Trigger, apply_trigger
from course_utils.data import Data
from course_utils.defenses.repair import STEPS, fine_tune
from course_utils.models import Classifier, predict


def trigger_loss(
    model: Classifier, images: Tensor, label: int, mask: Tensor, pattern: Tensor, weight: float
) -> Tensor:
    """How badly a trigger turns these images into `label`, plus `weight` times its size.

    images: (N, C, H, W). mask: (H, W) and pattern: (C, H, W), values in [0, 1]. The size is the
    sum of the mask. Source: Wang and others (2019), equation 3.
    """
    wanted = torch.full((len(images),), label, device=images.device)
    logits = model(apply_trigger(images, mask, pattern))
    return cross_entropy(logits, wanted) + weight * mask.sum()


SEARCH, WORKS = 100, 0.99


class Reconstruction(NamedTuple):
    """A trigger that was looked for: mask (H, W), pattern (C, H, W), and how often it works."""

    label: int
    mask: Tensor
    pattern: Tensor
    rate: float

    @property
    def distance(self) -> float:
        """The sum of the mask; infinite if the trigger works on less than 99% of the images."""
        return self.mask.sum().item() if self.rate >= WORKS else math.inf


def smallest(found: Sequence[Reconstruction]) -> Reconstruction:
    """The trigger with the smallest distance; if none works, the one that works most often."""
    return min(found, key=lambda one: (one.distance, -one.rate))


def trigger_of(found: Reconstruction) -> Trigger:
    """What puts a reconstructed trigger on images. Raises ValueError if it does not work."""
    guards.check_reconstructed(found.distance)
    return partial(apply_trigger, mask=found.mask, pattern=found.pattern)


@torch.no_grad()
def looked_at(
    model: Classifier, images: Tensor, label: int, mask: Tensor, pattern: Tensor
) -> Reconstruction:
    """The trigger as it is now, and its rate on the first 100 of the images."""
    given = predict(model, apply_trigger(images[:100], mask, pattern))
    rate = (given == label).float().mean().item()
    return Reconstruction(label, mask.clone(), pattern.clone(), rate)


def reconstruct(
    model: Classifier, clean: Data, label: int, seed: int, steps: int = SEARCH
) -> Reconstruction:
    """The smallest trigger found that turns images of other classes into `label`.

    Where none works on 99% of the images, it is the one that works most often, and its distance
    is infinite. Raises ValueError if no image has another class.
    """
    images = guards.images_of_others(clean, label)
    generator = torch.Generator(images.device).manual_seed(seed)
    shapes = images.shape[2:], images.shape[1:]
    free = [torch.full(shape, -2.0, device=images.device) for shape in shapes]
    adam, weight, found = torch.optim.Adam(free, lr=0.2, betas=(0.5, 0.9)), 0.01, []
    for step in range(1, steps + 1):
        rows = torch.randint(len(images), (32,), generator=generator, device=images.device)
        shown = [part.requires_grad_().sigmoid() for part in free]
        loss = trigger_loss(model, images[rows], label, *shown, weight)
        for part, gradient in zip(free, torch.autograd.grad(loss, free), strict=True):
            part.grad = gradient
        adam.step()
        if step % 10 == 0 or step == steps:
            found.append(looked_at(model, images, label, *(part.sigmoid() for part in free)))
            weight *= 1.3 if found[-1].rate >= WORKS else 1 / 1.5
    return smallest(found)


def reconstruct_all(
    model: Classifier, clean: Data, seed: int, steps: int = SEARCH
) -> list[Reconstruction]:
    """A trigger for every class. Raises ValueError without clean images.

    Source: Wang and others (2019), Neural Cleanse.
    """
    guards.check_some_images(clean)
    bar = tqdm(range(len(clean.classes)), desc="classes", leave=False)
    return [reconstruct(model, clean, label, seed, steps) for label in bar]


def anomaly_indices(distances: Tensor) -> Tensor:
    """How far each distance (classes,) lies below the median, in robust standard deviations.

    That is (median - distance) / (1.4826 MAD), where the MAD is the median of all distances from
    the median. Source: Wang and others (2019), section IV.C; above 2 a class is suspicious.
    """
    median = distances.quantile(0.5)
    deviation = (distances - median).abs().quantile(0.5)
    return (median - distances) / (1.4826 * deviation)


def unlearn_trigger(
    model: Classifier, clean: Data, trigger: Trigger, lr: float, seed: int, steps: int = STEPS
) -> Classifier:
    """Fine-tune on each image twice: as it is, and with the trigger, both under its true label.

    Raises ValueError without images. Source: after Wang and others (2019), section VI.
    """
    guards.check_some_images(clean)
    both = torch.cat([clean.x, trigger(clean.x)])
    return fine_tune(model, Data(both, clean.y.repeat(2), clean.classes), lr, seed, steps)
