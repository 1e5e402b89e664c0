"""Checks of lesson 03, the slab attack."""

from collections.abc import Callable

import numpy as np
import torch

from course_utils.checks import CheckFailed, attempt, passed, require
from course_utils.checks.answers import as_array, as_tensor, compare, same, text
from course_utils.record import recorded

Array = np.ndarray


@recorded
def check_class_limits(limits: Callable) -> None:
    """Compares with counting, score by score, in each class. Raises CheckFailed."""
    generator = torch.Generator().manual_seed(0)
    rows = []
    for n, n_classes, quantile in ((40, 2, 0.9), (200, 2, 0.95), (90, 3, 0.5), (30, 2, 1.0)):
        labels = torch.arange(n) % n_classes
        scores = torch.rand(n, generator=generator) * (1.0 + 3 * labels)
        case = f"{n} scores, {n_classes} classes, quantile {quantile}"
        given = scores, labels, n_classes, quantile
        found = as_tensor(
            attempt(limits, *given), (n_classes,), case, "a tensor with one limit a class,"
        )
        expected = []
        for label, limit in enumerate(found.tolist()):
            mine = sorted(scores[labels == label].tolist())
            place = quantile * (len(mine) - 1)
            # Any number between the two scores at that place is a quantile.
            expected.append(min(max(limit, mine[int(place)]), mine[int(np.ceil(place))]))
        arrays = scores.numpy(), labels.numpy(), n_classes, quantile
        rows.append((case, arrays, found, expected))
    compare(rows, "the nearest right limit of each class", limit_slips)
    passed(limits)


def limit_slips(scores: Array, labels: Array, n_classes: int, quantile: float) -> dict[str, Array]:
    """What common mistakes make of the limits."""

    def each(statistic: Callable) -> Array:
        return np.array([statistic(scores[labels == k]) for k in range(n_classes)])

    return {
        "You used the scores of all classes: each class has a limit of its own.": np.full(
            n_classes, np.quantile(scores, quantile)
        ),
        "That is the quantile counted from above: the large scores are suspicious.": each(
            lambda mine: np.quantile(mine, 1 - quantile)
        ),
        "That is a share of the largest score: a quantile counts scores.": each(
            lambda mine: quantile * mine.max()
        ),
        "That is the mean of the class: take a quantile.": each(np.mean),
        "That is the largest score of the class: nothing would be dropped.": each(np.max),
        "You take the median whatever `quantile` is.": each(np.median),
        "You take 0.95 whatever `quantile` is.": each(lambda mine: np.quantile(mine, 0.95)),
        "A quantile of 0.95 is a share, not 0.95 percent.": each(
            lambda mine: np.quantile(mine, quantile / 100)
        ),
        "Those are the limits of the OTHER classes: take the scores of the class.": np.array(
            [np.quantile(scores[labels != k], quantile) for k in range(n_classes)]
        ),
        "That is the mean and two standard deviations: take a quantile.": each(
            lambda mine: mine.mean() + 2 * mine.std(ddof=1)
        ),
        "The limits stand in another order than the classes: the first is that of class 0.": each(
            lambda mine: np.quantile(mine, quantile)
        )[::-1],
    }


@recorded
def check_slab_distance(distance: Callable) -> None:
    """Compares with one point after the other, in plain Python. Raises CheckFailed."""
    generator = torch.Generator().manual_seed(0)
    rows = []
    for n, d, n_classes in ((5, 2, 2), (8, 6, 2), (9, 4, 3)):
        y = torch.randint(n_classes, (n,), generator=generator)
        means, others = torch.rand(2, n_classes, d, generator=generator)
        x = means[y] + 0.3 * torch.randn(n, d, generator=generator)
        given = x, y, means, others
        case = f"{n} points with {d} pixels, {n_classes} classes"
        found = as_tensor(
            attempt(distance, *given), (n,), case, "a tensor with one distance a point,"
        )
        expected = [one_distance(x[i], means[y[i]], others[y[i]]) for i in range(n)]
        rows.append((case, [part.numpy() for part in given], found, expected))
    compare(rows, "the distance of each point", distance_slips, tolerance=1e-4)
    passed(distance)


def one_distance(point: torch.Tensor, mean: torch.Tensor, other: torch.Tensor) -> float:
    """The slab distance by pixel-by-pixel arithmetic."""
    axis = [b - a for a, b in zip(mean.tolist(), other.tolist(), strict=True)]
    step = [a - b for a, b in zip(point.tolist(), mean.tolist(), strict=True)]
    along = sum(a * b for a, b in zip(step, axis, strict=True))
    return abs(along) / sum(value**2 for value in axis) ** 0.5


def distance_slips(x: Array, y: Array, means: Array, others: Array) -> dict[str, Array]:
    """What common mistakes make of the distances."""
    lines = others - means
    lengths = np.sqrt((lines**2).sum(1, keepdims=True))
    axis, step = (lines / lengths)[y], x - means[y]
    along = (step * axis).sum(1)
    return {
        "The sign is left over: a distance is never negative.": along,
        "The axis must have length 1: divide each row by its own length.": abs(
            (step * lines[y]).sum(1)
        ),
        "Each row has a length of its own: norm(dim=1, keepdim=True).": abs(
            (step * lines[y]).sum(1) / np.sqrt((lines**2).sum())
        ),
        "You divided columns: the length of a row is norm(dim=1, keepdim=True).": abs(
            (step * (lines / np.sqrt((lines**2).sum(0)))[y]).sum(1)
        ),
        "Divide by the length once, not by its square.": abs(
            (step * (lines / lengths**2)[y]).sum(1)
        ),
        "That is the distance in all directions, as for the sphere.": np.sqrt((step**2).sum(1)),
        "Measure from the mean of the class: subtract it first.": abs((x * axis).sum(1)),
        "Measure from the mean of the own class, not from that of the others.": abs(
            ((x - others[y]) * axis).sum(1)
        ),
        "The axis is the line from one mean to the other: subtract the two.": abs(
            (step * (others / np.sqrt((others**2).sum(1, keepdims=True)))[y]).sum(1)
        ),
        "The inner product is a sum over the pixels, not a mean.": abs((step * axis).mean(1)),
        "The absolute value comes after the sum over the pixels.": abs(step * axis).sum(1),
        "That is the square of the distance.": along**2,
        "That is what is left at right angles to the axis.": np.sqrt(
            np.maximum((step**2).sum(1) - along**2, 0)
        ),
        "Each point has the axis of its own class, axis[y], not that of class 0.": abs(
            (step * (lines / lengths)[0]).sum(1)
        ),
    }


@recorded
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
        case = f"centre {text(centre, 3)}, aim {text(aim, 3)}, radius {radius:.3f}"
        found = as_array(attempt(walk, centre, aim, radius), (d,), case, "one point, an array")
        compare_walk(found, centre, aim, radius, case)
    passed(walk)


def compare_walk(found: Array, centre: Array, aim: Array, radius: float, case: str) -> None:
    """Fail if the walk leaves the ball or the box, or another point is further along the aim."""
    best, distance = by_halving(centre, aim, radius), np.linalg.norm(found - centre)
    inside = bool((found >= -1e-6).all() and (found <= 1 + 1e-6).all())
    behind = aim @ (best - found) > 1e-4 * max(1.0, float(np.linalg.norm(aim)))
    if inside and distance <= radius + 1e-5 and not behind:
        return
    slips = walk_slips(centre, aim, radius, best)
    advice = next((words for words, point in slips.items() if same(found, point, 1e-4)), "")
    point = text(found, 3)
    require(inside, f"A pixel leaves [0, 1]: {point}, for {case}. {advice}")
    require(
        distance <= radius + 1e-5,
        f"The walk is too long: it ends at the distance {distance:.5f}, for {case}. {advice}",
    )
    raise CheckFailed(
        f"{text(best, 3)} is further along the aim than your {point}, for {case}. {advice}"
    )


def walk_slips(centre: Array, aim: Array, radius: float, best: Array) -> dict[str, Array]:
    """What common mistakes make of the walk."""
    length, largest = (max(size, 1e-300) for size in (np.linalg.norm(aim), abs(aim).max()))
    corner = np.where(aim > 0, 1.0, np.where(aim < 0, 0.0, centre))
    straight = centre + radius * aim / length
    step = straight.clip(0, 1) - centre
    times = np.abs(corner - centre) / np.maximum(abs(aim), 1e-300)
    first = min(times[aim != 0], default=0.0)
    return {
        "A pixel stops at its wall, at 0 or at 1.": straight,
        "Pixels that stop leave a part of the radius unused: the others must walk further.": (
            straight.clip(0, 1)
        ),
        "When one pixel hits its wall, the others go on.": centre
        + min(first, radius / length) * aim,
        "Stretch the time of the walk, not the step: a stopped pixel stays where it is.": centre
        + radius * step / max(np.linalg.norm(step), 1e-300),
        "You went to the corner whatever `radius` is.": corner,
        "You walked against the aim.": by_halving(centre, -aim, radius),
        "That is the step: add the centre.": best - centre,
        "Each pixel has the speed that the aim gives it, not the same for all.": by_halving(
            centre, np.sign(aim), radius
        ),
        "Divide the aim by its length: `radius` is a distance, not a time.": (
            centre + radius * aim
        ).clip(0, 1),
        "The distance is the root of the sum of squares, not the largest change.": (
            centre + radius * aim / largest
        ).clip(0, 1),
        "The distance is the root of the sum of squares, not the sum of the changes.": (
            centre + radius * aim / max(abs(aim).sum(), 1e-300)
        ).clip(0, 1),
        "Begin at the centre, not at 0.": (radius * aim / length).clip(0, 1),
        "You stayed at the centre.": centre,
    }


def by_halving(centre: Array, aim: Array, radius: float) -> Array:
    """The walk's end: its time is halved in until the distance is the radius."""
    low, high = 0.0, 1e6
    for _ in range(200):
        middle = (low + high) / 2
        far = np.linalg.norm(np.clip(centre + middle * aim, 0, 1) - centre) > radius
        low, high = (low, middle) if far else (middle, high)
    return np.clip(centre + low * aim, 0, 1)
