"""Checks of lesson 04, feature collision."""

from collections.abc import Callable

import numpy as np
import torch
from scipy.optimize import brentq
from torch import Tensor

from course_utils.checks import attempt, passed, require
from course_utils.checks.answers import as_tensor, compare, text
from course_utils.record import recorded


@recorded
def check_project(project: Callable) -> None:
    """Compares with clipping one pixel after the other. Raises CheckFailed."""
    generator = torch.Generator().manual_seed(0)
    rows = []
    for shape, epsilon in (
        ((2, 1, 3, 3), 0.1),
        ((1, 3, 2, 4), 0.5),
        ((3, 1, 2, 2), None),
        ((2, 1, 2, 2), 0.0),
    ):
        base = torch.rand(shape, generator=generator)
        base.flatten()[:2] = torch.tensor([0.0, 1.0])
        images = base + 0.6 * torch.randn(shape, generator=generator)
        case = f"images of shape {shape} with epsilon {epsilon}"
        found = as_tensor(attempt(project, images, base, epsilon), shape, case, "images")
        pixels = zip(images.flatten().tolist(), base.flatten().tolist(), strict=True)
        expected = torch.tensor([one_pixel(*pair, epsilon) for pair in pixels]).view(shape)
        rows.append((case, (images.numpy(), base.numpy(), epsilon), found, expected))
    compare(rows, "the nearest allowed value of the pixel", project_slips, tolerance=1e-6)
    passed(project)


def one_pixel(pixel: float, base: float, epsilon: float | None) -> float:
    """The nearest allowed value of one pixel."""
    low = 0.0 if epsilon is None else max(0.0, base - epsilon)
    high = 1.0 if epsilon is None else min(1.0, base + epsilon)
    return low if pixel < low else high if pixel > high else pixel


def project_slips(
    images: np.ndarray, base: np.ndarray, epsilon: float | None
) -> dict[str, np.ndarray]:
    """What common mistakes make of the projection."""
    bound = np.inf if epsilon is None else epsilon
    change = images - base
    ball = base + change.clip(-bound, bound)
    shrunk = change * min(1, bound / abs(change).max())
    length = np.sqrt((change**2).sum())
    return {
        "It is outside the box [0, 1]: clamp.": ball,
        "It is outside the ball: further than epsilon from its base.": images.clip(0, 1),
        "An epsilon of 0 is a bound too: ask for `is None`.": (ball if bound else images).clip(
            0, 1
        ),
        "Without a bound only the box counts: for None do not return the base.": (
            base + change.clip(-bound, bound) * (epsilon is not None)
        ).clip(0, 1),
        "It was allowed already: cut pixel by pixel, do not scale the whole change.": (
            base + shrunk
        ).clip(0, 1),
        "Epsilon bounds each pixel, not the Euclidean length of the change.": (
            base + change * min(1, bound / length)
        ).clip(0, 1),
        "That is the change: add the base.": ball.clip(0, 1) - base,
        "Every pixel may go up and down: the lower end of the ball is missing.": np.minimum(
            images, base + bound
        ).clip(0, 1),
        "Every pixel may go up and down: the upper end of the ball is missing.": np.maximum(
            images, base - bound
        ).clip(0, 1),
        "The ball is around the base images, not around 0.": images.clip(-bound, bound).clip(0, 1),
        "The ball is around the base images: you changed the base in place of the images.": (
            base.clip(images - bound, images + bound).clip(0, 1)
        ),
        "Epsilon is in values of [0, 1] already: do not divide by 255.": (
            base + change.clip(-bound / 255, bound / 255)
        ).clip(0, 1),
        "A pixel that is not allowed moves to the border, not back to its base.": np.where(
            abs(change) <= bound, images, base
        ).clip(0, 1),
    }


@recorded
def check_project_to_simplex(project: Callable) -> None:
    """Compares with a search for the number that is subtracted. Raises CheckFailed."""
    cases = [[0.2, 0.3, 0.5], [2.0, 0.0], [0.9, 0.8, -0.5], [-3.0, -1.0, -2.0, -1.5], [5.0]]
    cases += [[0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.3], [-4.0]]
    generator = torch.Generator().manual_seed(0)
    cases += [torch.randn(n, generator=generator).tolist() for n in (3, 6, 25)]
    rows = []
    for values in cases:
        case = f"the values {text(values, 3)}"
        found = as_tensor(attempt(project, torch.tensor(values)), (len(values),), case)
        numbers = np.array(values)
        rows.append((case, (numbers,), found, simplex_by_search(numbers)))
    for case, _, found, expected in rows:
        told = f"you gave {text(found, 5)}. For {case} the nearest point is {text(expected, 5)}"
        require(found.min() > -1e-6, f"A part is below 0: {told}.")
        require(abs(found.sum() - 1) < 1e-4, f"The parts do not add up to 1: {told}.")
    compare(rows, "the nearest point", simplex_slips)
    passed(project)


def simplex_by_search(numbers: np.ndarray) -> np.ndarray:
    """The projection by a search for the shift that makes the parts add up to 1."""

    def excess(shift: float) -> float:
        return np.maximum(numbers - shift, 0).sum() - 1

    shift = brentq(excess, numbers.min() - 2, numbers.max(), xtol=1e-12)
    return np.maximum(numbers - shift, 0)


def simplex_slips(values: np.ndarray) -> dict[str, np.ndarray]:
    """Points of the simplex that are not the nearest one."""
    kept, alike = values.clip(min=0), np.full(len(values), 1 / len(values))
    shifted = values - values.min()
    powers = np.exp(values - values.max())
    right = simplex_by_search(values)
    once = (values - (values.sum() - 1) / len(values)).clip(min=0)
    return {
        "Dividing by the sum moves large values more: subtract the same number from all.": (
            kept / kept.sum() if kept.any() else alike
        ),
        "Dividing by the sum is not the nearest point: subtract one number and cut at 0.": (
            shifted / shifted.sum() if shifted.any() else alike
        ),
        "A softmax lands on the simplex, but not on the nearest point.": powers / powers.sum(),
        "You cut after one shift and divided: find the shift that makes the sum 1.": (
            once / once.sum()
        ),
        "The parts stand in another order than the values: do not return the sorted ones.": (
            np.sort(right)[::-1]
        ),
        "You put all into the largest value.": np.eye(len(values))[values.argmax()],
        "All values alike is the centre of the simplex, whatever came in.": alike,
        "The size without its sign is not the nearest point.": abs(values) / abs(values).sum()
        if values.any()
        else alike,
        "Negative values are to lose, not to win: mind the sign.": simplex_by_search(-values),
    }


@recorded
def check_bullseye_loss(loss: Callable) -> None:
    """Compares with adding up one feature after the other. Raises CheckFailed."""
    rows, slopes = [], []
    for features, targets in (
        ([[1.0, 0.0], [0.0, 1.0]], [[0.5, 0.5]]),
        ([[2.0, 0.0, 1.0]], [[1.0, 1.0, 1.0]]),
        ([[3.0, 1.0], [1.0, 1.0], [2.0, 4.0]], [[0.0, 2.0]]),
        ([[1.0, 2.0], [3.0, 2.0]], [[1.0, 0.0], [3.0, 1.0]]),
    ):
        target, mean = (
            [sum(row[d] for row in points) / len(points) for d in range(len(targets[0]))]
            for points in (targets, features)
        )
        gaps = [m - t for m, t in zip(mean, target, strict=True)]
        length = sum(value**2 for value in target)
        case = f"features {features}, target features {targets}"
        poisons = torch.tensor(features, requires_grad=True)
        answer = attempt(loss, poisons, torch.tensor(targets))
        found = as_tensor(answer, (), case, "one number, a tensor")
        given = np.array(features), np.array(targets)
        rows.append((case, given, found, sum(gap**2 for gap in gaps) / length))
        slope = [[2 * gap / len(features) / length for gap in gaps] for _ in features]
        slopes.append((case, poisons, answer, slope))
    compare(rows, "the loss", bullseye_slips)
    for case, poisons, answer, slope in slopes:
        require_slope(answer, poisons, torch.tensor(slope), case)
    passed(loss)


def require_slope(answer: Tensor, poisons: Tensor, expected: Tensor, case: str) -> None:
    """Fail unless the loss has the right gradient for the poisons' features."""
    found = None
    if answer.requires_grad:
        (found,) = torch.autograd.grad(answer, poisons, allow_unused=True)
    require(
        found is not None,
        f"The loss has no gradient for the features: no detach(), no item(), no torch.no_grad(), "
        f"no torch.tensor(...) around it; {case}.",
    )
    require(
        torch.allclose(found, expected, atol=1e-5),
        f"The loss is right, but its gradient for the features is {found.tolist()} in place of "
        f"{expected.tolist()}: a part of it is detached; {case}.",
    )


def bullseye_slips(features: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """What common mistakes make of the loss."""
    mean, target = features.mean(0), targets.mean(0)
    gap, length = ((mean - target) ** 2).sum(), (target**2).sum()
    each = ((features - target) ** 2).sum(1)
    first = targets[0]
    across = targets.mean(1)
    apart = [((mean - t) ** 2).sum() / (t**2).sum() for t in targets]
    return {
        "You took the distance of each poison: take the mean of the features first.": each.mean()
        / length,
        "You added up the distances: take the mean of the features first.": each.sum() / length,
        "You added up the poisons: take their mean, mean(0), not sum(0).": (
            (features.sum(0) - target) ** 2
        ).sum()
        / length,
        "Divide by the squared length of the target's features.": gap,
        "Divide by the SQUARED length: no root below the line.": gap / length**0.5,
        "The distance is squared: no root.": (gap / length) ** 0.5,
        "The squares are added up, not averaged.": gap / len(target) / length,
        "Divide by the length of the target's features, not of the poisons'.": gap
        / (mean**2).sum(),
        "Of several targets the mean counts, not the first.": ((mean - first) ** 2).sum()
        / (first**2).sum(),
        "Average the targets first, then compute the loss once.": float(np.mean(apart)),
        "The mean goes over the poisons, axis 0, not over the features.": (
            ((features.mean(1) - across) ** 2).sum() / (across**2).sum()
        ),
        "A distance is never negative: mind the sign.": -gap / length,
        "That is the sum of the changes without squares.": abs(mean - target).sum() / length,
        "That is one minus the cosine: this loss is a distance.": 1
        - mean @ target / (mean @ mean * length) ** 0.5,
        "The squared lengths are subtracted; take the length of the difference.": (
            (mean**2).sum() - length
        )
        / length,
    }
