"""Checks of lesson 03, the slab attack."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from course_utils.checks import attempt, passed, require


def check_class_limits(limits: Callable) -> None:
    """Compares with counting, score by score, in each class. Raises CheckFailed."""
    generator = torch.Generator().manual_seed(0)
    for n, n_classes, quantile in ((40, 2, 0.9), (200, 2, 0.95), (90, 3, 0.5), (30, 2, 1.0)):
        labels = torch.arange(n) % n_classes
        scores = torch.rand(n, generator=generator) * (1.0 + 3 * labels)
        found = attempt(limits, scores.clone(), labels.clone(), n_classes, quantile)
        case = f"{n} scores, {n_classes} classes, quantile {quantile}"
        require(
            isinstance(found, Tensor) and found.shape == (n_classes,),
            f"Return a tensor with one limit a class, of shape ({n_classes},); for {case} you "
            "did not.",
        )
        together = np.quantile(scores.numpy(), quantile)
        for label, limit in enumerate(found.tolist()):
            mine = sorted(scores[labels == label].tolist())
            place = quantile * (len(mine) - 1)
            low, high = mine[int(np.floor(place))], mine[int(np.ceil(place))]
            if low - 1e-5 <= limit <= high + 1e-5:
                continue
            below = sum(score <= limit + 1e-6 for score in mine) / len(mine)
            hint = ""
            if abs(limit - together) < 1e-4:
                hint = " You used the scores of all classes: each class has a limit of its own."
            elif abs(limit - np.quantile(mine, 1 - quantile)) < 1e-4:
                hint = " That is the quantile counted from above: the large scores are suspicious."
            require(
                False,
                f"For {case} the limit of class {label} lies between {low:.3f} and {high:.3f}, "
                f"you gave {limit:.3f}: {below:.0%} of the class are below it.{hint}",
            )
    passed(limits)


def check_slab_distance(distance: Callable) -> None:
    """Compares with one point after the other, in plain Python. Raises CheckFailed."""
    generator = torch.Generator().manual_seed(0)
    for n, d, n_classes in ((5, 2, 2), (8, 6, 2), (9, 4, 3)):
        y = torch.randint(n_classes, (n,), generator=generator)
        means, others = torch.rand(2, n_classes, d, generator=generator)
        x = means[y] + 0.3 * torch.randn(n, d, generator=generator)
        found = attempt(distance, x.clone(), y.clone(), means.clone(), others.clone())
        case = f"{n} points with {d} pixels, {n_classes} classes"
        require(
            isinstance(found, Tensor) and found.shape == (n,),
            f"Return a tensor with one distance a point, of shape ({n},); for {case} you did not.",
        )
        for i in range(n):
            mean, other = means[y[i]], others[y[i]]
            compare_distance(float(found[i]), x[i], mean, other, f"point {i} of {case}")
    passed(distance)


def compare_distance(found: float, point: Tensor, mean: Tensor, other: Tensor, case: str) -> None:
    """Fail if one slab distance is not what pixel-by-pixel arithmetic gives."""
    axis = [b - a for a, b in zip(mean.tolist(), other.tolist(), strict=True)]
    length = sum(value**2 for value in axis) ** 0.5
    step = [a - b for a, b in zip(point.tolist(), mean.tolist(), strict=True)]
    along = sum(a * b for a, b in zip(step, axis, strict=True)) / length
    if abs(found - abs(along)) < 1e-4:
        return
    from_zero = sum(a * b for a, b in zip(point.tolist(), axis, strict=True)) / length
    hint = ""
    if abs(found - along) < 1e-4:
        hint = " The sign is left over: a distance is never negative."
    elif abs(abs(found) - abs(along) * length) < 1e-4:
        hint = " The axis must have length 1: divide each row by its own length."
    elif abs(found - sum(value**2 for value in step) ** 0.5) < 1e-4:
        hint = " That is the distance in all directions, as for the sphere."
    elif abs(abs(found) - abs(from_zero)) < 1e-4:
        hint = " Measure from the mean of the class: subtract it first."
    require(False, f"For {case} the distance is {abs(along):.4f}, you gave {found:.4f}.{hint}")


def check_walk(walk: Callable) -> None:
    """Compares with searching the time of the walk by halving. Raises CheckFailed."""
    rng = np.random.default_rng(0)
    for number in range(60):
        d = int(rng.integers(1, 9))
        centre, aim = rng.random(d), rng.normal(size=d)
        radius = float(rng.uniform(0.05, 1.2))
        if number % 5 == 1:
            aim[rng.random(d) < 0.5] = 0.0
        if number % 5 == 2:
            centre[rng.random(d) < 0.5] = 1.0
        if number % 5 == 3:
            radius = 2.0 * d
        if number == 59:
            aim[:] = 0.0
        compare_walk(walk, centre, aim, radius)
    passed(walk)


def compare_walk(walk: Callable, centre: np.ndarray, aim: np.ndarray, radius: float) -> None:
    """Fail if the walk leaves the ball or the box, or another point is further along the aim."""
    inputs = centre.copy(), aim.copy()
    found = attempt(walk, inputs[0], inputs[1], radius)
    case = f"centre {shown(centre)}, aim {shown(aim)}, radius {radius:.3f}"
    require(
        np.array_equal(inputs[0], centre) and np.array_equal(inputs[1], aim),
        f"The arrays that came in were changed, for {case}.",
    )
    found = np.asarray(found, dtype=float)
    require(found.shape == centre.shape, f"Return one point of shape {centre.shape}: {case}.")
    require(bool(np.isfinite(found).all()), f"The point is not finite: {shown(found)}, for {case}.")
    require(
        bool((found >= -1e-6).all() and (found <= 1 + 1e-6).all()),
        f"A pixel leaves [0, 1]: {shown(found)}, for {case}.",
    )
    distance = np.linalg.norm(found - centre)
    require(
        bool(distance <= radius + 1e-5),
        f"The walk is too long: it ends at the distance {distance:.4f}, for {case}.",
    )
    best = by_halving(centre, aim, radius)
    value, most = aim @ (found - centre), aim @ (best - centre)
    if value >= most - 1e-4 * max(1.0, float(np.linalg.norm(aim))):
        return
    straight = centre + radius * aim / max(np.linalg.norm(aim), 1e-300)
    hint = ""
    if value < -1e-9:
        hint = " You walked against the aim."
    elif np.allclose(found, np.clip(straight, 0, 1), atol=1e-4):
        hint = " Pixels that stop leave a part of the radius unused: the others must walk further."
    elif np.any((found > 1 - 1e-9) | (found < 1e-9)):
        hint = " When one pixel hits its wall, the others go on."
    require(
        False,
        f"{shown(best)} is further along the aim than your {shown(found)}, for {case}.{hint}",
    )


def by_halving(centre: np.ndarray, aim: np.ndarray, radius: float) -> np.ndarray:
    """The walk's end: its time is halved in until the distance is the radius."""
    low, high = 0.0, 1e6
    for _ in range(200):
        middle = (low + high) / 2
        far = np.linalg.norm(np.clip(centre + middle * aim, 0, 1) - centre) > radius
        low, high = (low, middle) if far else (middle, high)
    return np.clip(centre + low * aim, 0, 1)


def shown(values: np.ndarray) -> list[float]:
    """Three decimals, for a message."""
    return [round(float(value), 3) for value in values]
