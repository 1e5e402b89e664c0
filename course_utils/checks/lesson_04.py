"""Checks of lesson 04, feature collision."""

from collections.abc import Callable

import numpy as np
import torch
from scipy.optimize import brentq
from torch import Tensor

from course_utils.checks import attempt, passed, require

TOLERANCE = 1e-6


def check_project(project: Callable) -> None:
    """Compares with clipping one pixel after the other. Raises CheckFailed."""
    generator = torch.Generator().manual_seed(0)
    for shape, epsilon in (((2, 1, 3, 3), 0.1), ((1, 3, 2, 4), 0.5), ((3, 1, 2, 2), None)):
        base = torch.rand(shape, generator=generator)
        base.flatten()[:2] = torch.tensor([0.0, 1.0])
        images = base + 0.6 * torch.randn(shape, generator=generator)
        before = images.clone(), base.clone()
        found = attempt(project, images, base, epsilon)
        case = f"images of shape {shape} with epsilon {epsilon}"
        require(
            isinstance(found, Tensor) and found.shape == images.shape,
            f"Return images of the same shape; for {case} you did not.",
        )
        require(
            torch.equal(images, before[0]) and torch.equal(base, before[1]),
            f"The images that came in were changed, for {case}.",
        )
        pixels = zip(images.flatten().tolist(), base.flatten().tolist(), strict=True)
        for (pixel, start), answer in zip(pixels, found.flatten().tolist(), strict=True):
            compare_pixel(pixel, start, answer, epsilon)
    passed(project)


def compare_pixel(pixel: float, base: float, found: float, epsilon: float | None) -> None:
    """Fail if a pixel was not moved to the nearest allowed value."""
    low = 0.0 if epsilon is None else max(0.0, base - epsilon)
    high = 1.0 if epsilon is None else min(1.0, base + epsilon)
    expected = low if pixel < low else high if pixel > high else pixel
    case = f"a pixel of {pixel:.3f}, its base {base:.3f}, epsilon {epsilon}"
    if abs(found - expected) <= TOLERANCE:
        return
    hint = ""
    if not 0 <= found <= 1:
        hint = " It is outside the box [0, 1]."
    elif not low - TOLERANCE <= found <= high + TOLERANCE:
        hint = " It is outside the ball: further than epsilon from its base."
    elif abs(pixel - expected) <= TOLERANCE:
        hint = " It was allowed already: leave it where it is."
    require(False, f"For {case} the nearest is {expected:.3f}, you gave {found:.3f}.{hint}")


def check_project_to_simplex(project: Callable) -> None:
    """Compares with a search for the number that is subtracted. Raises CheckFailed."""
    cases = [[0.2, 0.3, 0.5], [2.0, 0.0], [0.9, 0.8, -0.5], [-3.0, -1.0, -2.0, -1.5], [5.0]]
    cases += [[0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.3], [-4.0]]
    generator = torch.Generator().manual_seed(0)
    cases += [torch.randn(n, generator=generator).tolist() for n in (3, 6, 25)]
    for values in cases:
        came_in = torch.tensor(values)
        found = attempt(
            project,
            came_in,
        )
        case = f"the values {rounded(values)}"
        require(
            isinstance(found, Tensor) and found.shape == (len(values),),
            f"Return a tensor of shape ({len(values)},); for {case} you did not.",
        )
        require(
            came_in.tolist() == torch.tensor(values).tolist(),
            f"The values that came in were changed: {case}.",
        )
        expected = simplex_by_search(values)
        if np.allclose(found.numpy(), expected, atol=1e-5):
            continue
        hint = ""
        if found.min() < -TOLERANCE:
            hint = " A part is below 0."
        elif abs(found.sum().item() - 1) > 1e-4:
            hint = " The parts do not add up to 1."
        else:
            hint = " It is on the simplex, but it is not the nearest point of it."
        require(
            False,
            f"For {case} the nearest point is {rounded(expected)}, "
            f"you gave {rounded(found)}.{hint}",
        )
    passed(project)


def simplex_by_search(values: list[float]) -> np.ndarray:
    """The projection by a search for the shift that makes the parts add up to 1."""
    numbers = np.asarray(values, dtype=float)

    def excess(shift: float) -> float:
        return np.maximum(numbers - shift, 0).sum() - 1

    shift = brentq(excess, numbers.min() - 2, numbers.max(), xtol=1e-12)
    return np.maximum(numbers - shift, 0)


def check_bullseye_loss(loss: Callable) -> None:
    """Compares with adding up one feature after the other. Raises CheckFailed."""
    cases = [
        ([[1.0, 0.0], [0.0, 1.0]], [[0.5, 0.5]]),
        ([[2.0, 0.0, 1.0]], [[1.0, 1.0, 1.0]]),
        ([[3.0, 1.0], [1.0, 1.0], [2.0, 4.0]], [[0.0, 2.0]]),
        ([[1.0, 2.0], [3.0, 2.0]], [[1.0, 0.0], [3.0, 1.0]]),
    ]
    for features, targets in cases:
        size = len(targets[0])
        target = [sum(row[d] for row in targets) / len(targets) for d in range(size)]
        mean = [sum(row[d] for row in features) / len(features) for d in range(size)]
        length = sum(value**2 for value in target)
        gap = sum((m - t) ** 2 for m, t in zip(mean, target, strict=True))
        poisons = torch.tensor(features, requires_grad=True)
        found = attempt(loss, poisons, torch.tensor(targets))
        case = f"features {features}, target features {targets}"
        require(
            isinstance(found, Tensor) and found.ndim == 0,
            f"Return a tensor that holds one number; for {case} you did not.",
        )
        require(found.requires_grad, "The loss has no gradient: do not detach the features.")
        each = sum((v - t) ** 2 for row in features for v, t in zip(row, target, strict=True))
        hint = ""
        if abs(found.item() - each / len(features) / length) < 1e-5:
            hint = " You took the distance of each poison: take the mean of the features first."
        elif abs(found.item() - gap) < 1e-5:
            hint = " Divide by the squared length of the target's features."
        elif abs(found.item() - (gap / length) ** 0.5) < 1e-5:
            hint = " The distance is squared."
        require(
            abs(found.item() - gap / length) < 1e-5,
            f"For {case} the loss is {gap / length:.4f}, you gave {found.item():.4f}.{hint}",
        )
    passed(loss)


def rounded(values) -> list[float]:
    """Three decimals, for a message."""
    return [round(float(value), 3) for value in values]
