"""Checks of lesson 07, backdoors."""

from collections.abc import Callable
from itertools import product

import numpy as np
import torch
from torch import Tensor

from course_utils.checks import attempt, passed, require
from course_utils.checks.answers import as_number, as_tensor, compare
from course_utils.record import recorded


@recorded
def check_apply_trigger(apply: Callable) -> None:
    """Compares with mixing one pixel after the other. Raises CheckFailed."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator)

    square = torch.zeros(5, 5)
    square[3:, 3:] = 1
    cases = {
        "a 2 by 2 patch on gray images": (draw(2, 1, 5, 5), square, draw(5, 5)),
        "a patch on colour images": (draw(2, 3, 5, 5), square, draw(3, 5, 5)),
        "a faint pattern": (draw(2, 1, 5, 5), torch.full((5, 5), 0.2), draw(5, 5)),
        "a mask of many greys": (draw(2, 1, 5, 5), draw(5, 5), draw(5, 5)),
        "another mask for each image": (draw(3, 1, 4, 4), draw(3, 1, 4, 4).round(), draw(4, 4)),
        "white on white": (torch.ones(2, 1, 9, 9), draw(9, 9), torch.ones(9, 9)),
    }
    rows = []
    for case, (images, mask, pattern) in cases.items():
        answer = attempt(apply, images, mask, pattern)
        found = as_tensor(answer, images.shape, case, "images")
        same = [part.expand_as(images).numpy() for part in (images, mask, pattern)]
        expected = np.empty(images.shape)
        for place in product(*map(range, images.shape)):
            x, m, p = (float(part[place]) for part in same)
            expected[place] = (1 - m) * x + m * p
        rows.append((case, same, found, expected))
    compare(rows, "the pixel", trigger_slips, tolerance=1e-6)
    passed(apply)


def trigger_slips(
    images: np.ndarray, mask: np.ndarray, pattern: np.ndarray
) -> dict[str, np.ndarray]:
    """What common mistakes make of the triggered images."""
    added = images + mask * pattern
    return {
        "The pattern is not added to the image: it takes the place of a part of it.": added,
        "The pattern is not added, not even with a clamp: it takes the place of a part.": (
            added.clip(0, 1)
        ),
        "The pattern shows where the mask is 1, not where it is 0.": mask * images
        + (1 - mask) * pattern,
        "A mask between 0 and 1 mixes: it is more than a choice of pixels.": np.where(
            mask > 0, pattern, images
        ),
        "A mask between 0 and 1 mixes: do not round it.": np.where(mask >= 0.5, pattern, images),
        "A mask between 0 and 1 mixes: only 1 shows the pattern alone.": np.where(
            mask == 1, pattern, images
        ),
        "The pattern is missing: it fills what the mask takes away.": (1 - mask) * images,
        "The image is missing: it stays where the mask is 0.": mask * pattern,
        "The mask is missing: the pattern covers the whole image.": pattern,
        "Half and half, whatever the mask is.": (images + pattern) / 2,
        "The pattern is taken as it is, the mask is in its place: you showed the mask.": (
            (1 - mask) * images + mask
        ),
        "The images came back as they were.": images,
    }


@recorded
def check_attack_success_rate(rate: Callable) -> None:
    """Compares with counting one image after the other. Raises CheckFailed."""
    generator = torch.Generator().manual_seed(0)
    rows = []
    for n, n_classes, target, source in (
        (12, 3, 2, None),
        (60, 10, 7, None),
        (40, 3, 0, 1),
        (60, 4, 1, 3),
        (50, 5, 3, 0),
        (30, 4, 0, None),
    ):
        true = torch.arange(n) % n_classes
        predicted = torch.randint(n_classes, (n,), generator=generator)
        predicted[::3] = target
        predicted[true == target] = target  # the model knows the target class
        tried = [k != target if source is None else k == source for k in true.tolist()]
        hits = [k == target and t for k, t in zip(predicted.tolist(), tried, strict=True)]
        kind = "all-to-one" if source is None else f"one-to-one, source class {source}"
        case = f"{n} images of {n_classes} classes, target class {target}, {kind}"
        given = predicted, true, target, source
        found = attempt(rate, *given)
        require(
            not isinstance(found, Tensor),
            f"Return a number, not Tensor: end with .item(); {case}.",
        )
        rows.append((case, given, as_number(found, case), sum(hits) / sum(tried)))
    compare(rows, "the rate", rate_slips)
    default = attempt(rate, *rows[0][1][:3])
    require(abs(default - rows[0][2]) < 1e-6, "Without a source class it should be all-to-one.")
    passed(rate)


def rate_slips(
    predicted: Tensor, true: Tensor, target: int, source: int | None
) -> dict[str, float]:
    """What common mistakes make of the attack success rate."""
    hits, others = predicted == target, true != target
    attacked = others if source is None else true == source
    right = share(hits[attacked])
    return {
        "You counted all images: those of the target class do not belong here.": share(hits),
        "The numerator is right; images that were not attacked are still below the line.": share(
            hits & attacked
        ),
        "In one-to-one only images of the source class count.": share(hits[others]),
        "Class 0 is a class too: ask `if source_class is None`.": share(
            hits[attacked if source else others]
        ),
        "In one-to-one the source class is all that counts, above AND below the line.": share(
            (hits & attacked)[others]
        ),
        "In all-to-one the images of the target class do not count.": share(
            hits if source is None else hits[attacked]
        ),
        "You counted every mistake: a success is one INTO the target class.": share(
            (predicted != true)[attacked]
        ),
        "That is the share of failures.": 1 - right,
        "You left the source class out; it is what counts.": share(
            hits[others if source is None else others & ~attacked]
        ),
        "A share lies between 0 and 1: no percent.": 100 * right,
        "That is how many, not which share.": int((hits & attacked).sum()),
        "You divided by the images that were called the target class.": share(attacked[hits]),
        "Images that the model gets wrong anyway stay.": share(
            hits[attacked & ((predicted == true) | hits)]
        ),
        "Do not round the rate.": round(right),
    }


def share(mask: Tensor) -> float:
    """The share of True; NaN if there is nothing to count."""
    return mask.double().mean().item()


@recorded
def check_pgd_step(step_function: Callable) -> None:
    """Compares with moving one pixel after the other. Raises CheckFailed."""
    generator = torch.Generator().manual_seed(0)
    rows = []
    for shape, step, epsilon in (((2, 1, 3, 3), 0.02, 0.1), ((3, 3, 4, 4), 0.1, 0.05)):
        base = torch.rand(shape, generator=generator).round(decimals=1)
        walked = epsilon * (2 * torch.rand(shape, generator=generator) - 1)
        images = (base + walked).clamp(0, 1)
        gradient = torch.randn(shape, generator=generator) / 1000
        case = f"images of shape {shape}, step {step}, epsilon {epsilon}"
        answer = attempt(step_function, images, gradient, base, step, epsilon)
        found = as_tensor(answer, shape, case, "images")
        parts = [part.double().numpy() for part in (images, gradient, base)]
        expected = np.empty(shape)
        for place in product(*map(range, shape)):
            x, g, b = (float(part[place]) for part in parts)
            moved = x + step if g > 0 else x - step
            expected[place] = min(1, max(0, min(b + epsilon, max(b - epsilon, moved))))
        rows.append((case, (*parts, step, epsilon), found, expected))
    compare(rows, "the pixel", step_slips, tolerance=1e-6)
    passed(step_function)


def step_slips(
    images: np.ndarray, gradient: np.ndarray, base: np.ndarray, step: float, epsilon: float
) -> dict[str, np.ndarray]:
    """What common mistakes make of the step."""
    way = np.sign(gradient)

    def bounded(moved: np.ndarray, centre: np.ndarray = base, bound: float = epsilon) -> np.ndarray:
        return moved.clip(centre - bound, centre + bound).clip(0, 1)

    moved = images + step * way
    unit = gradient / np.sqrt((gradient**2).sum())
    return {
        "You went down: PGD RAISES the loss.": bounded(images - step * way),
        "Use the sign of the gradient, not its size.": bounded(images + step * gradient),
        "Use the sign of the gradient, do not divide it by its length.": bounded(
            images + step * unit
        ),
        "Use the sign of the gradient, do not divide it by its largest entry.": bounded(
            images + step * gradient / abs(gradient).max()
        ),
        "That is outside [0, 1].": moved.clip(base - epsilon, base + epsilon),
        "That is further than epsilon from the base image.": moved.clip(0, 1),
        "That is further than epsilon from the base image, and outside [0, 1]: project after the "
        "step.": moved,
        "That is further than epsilon from the base image: the bound is around that, not around "
        "the images.": bounded(moved, images),
        "The step starts at the images, not at the base.": bounded(base + step * way),
        "The step has the size `step`, not epsilon.": bounded(images + epsilon * way),
        "The step has the size `step`, not 1.": bounded(images + way),
        "The images have not moved.": bounded(images),
        "That is the change: return the images.": bounded(moved) - base,
        "Epsilon is in values of [0, 1] already: do not divide by 255.": bounded(
            moved, base, epsilon / 255
        ),
    }
