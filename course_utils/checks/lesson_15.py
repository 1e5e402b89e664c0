"""Checks of lesson 15, adaptive attacks."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from course_utils.checks import attempt, passed, require
from course_utils.checks.answers import as_gradient, as_number, as_tensor, side_by_side
from course_utils.checks.mistakes import about, alike, by_length, diagnosis
from course_utils.record import recorded

Parts = list[tuple[Tensor, Tensor]]


@recorded
def check_clipped_gradient(function: Callable) -> None:
    """Compares with one example at a time, values and slopes. Raises CheckFailed."""
    for n, sizes, clip, seed in ((6, (4, 3, 2), 2.0, 1), (1, (3, 2), 0.5, 0), (5, (2, 3), 99.0, 2)):
        compare_gradient(function, draw_parts(n, sizes, seed), clip)
    nothing = draw_parts(4, (3, 2, 2), 3)
    for _, slopes in nothing:
        slopes[1] = 0
    with about("One gradient here is of length 0: 0 / 0 is not a number, and it stays as it is."):
        compare_gradient(function, nothing, 1.5)
    check_slope(function)
    passed(function)


def draw_parts(n: int, sizes: Sequence[int], seed: int) -> Parts:
    """Inputs (n, in) and slopes (n, out) of layers of these sizes: some examples weigh much."""
    generator = torch.Generator().manual_seed(seed)
    heavy = torch.linspace(0.1, 3, n, dtype=torch.float64)[:, None]
    draw = [torch.randn(n, size, generator=generator, dtype=torch.float64) for size in sizes]
    slopes = [torch.randn(n, size, generator=generator, dtype=torch.float64) for size in sizes[1:]]
    return [(a, heavy * b) for a, b in zip(draw, slopes, strict=False)]


def one_by_one(parts: Parts) -> list[Tensor]:
    """The gradient of each example alone, all parameters in one vector."""
    return [
        torch.cat([part.flatten() for a, b in parts for part in (torch.outer(b[i], a[i]), b[i])])
        for i in range(len(parts[0][0]))
    ]


def shapes_of(parts: Parts) -> list[tuple[int, ...]]:
    """The shape of each weight (out, in) and bias (out,), in turn."""
    return [shape for a, b in parts for shape in ((b.shape[1], a.shape[1]), (b.shape[1],))]


def clipped_mean(parts: Parts, clip: float) -> Tensor:
    """The mean of the clipped gradients, one after another."""
    return sum(row * min(1.0, clip / row.norm()) for row in one_by_one(parts)) / len(parts[0][0])


def compare_gradient(function: Callable, parts: Parts, clip: float) -> None:
    """Fail unless it is the mean of the clipped gradients; name the usual mistakes."""
    case = f"for N = {len(parts[0][0])}, layers: {len(parts)}, clip {clip}"
    answer = as_gradient(attempt(function, parts, clip), shapes_of(parts), case)
    found = torch.cat([part.flatten() for part in answer]).numpy()
    expected = np.nan_to_num(clipped_mean(parts, clip).numpy())
    if alike(found, expected, 1e-4):
        return
    rows = torch.stack(one_by_one(parts)).numpy()
    ends = np.cumsum([b.shape[1] * (a.shape[1] + 1) for a, b in parts])[:-1]
    bare = np.sqrt(sum((a**2).sum(1) * (b**2).sum(1) for a, b in parts).numpy())
    hint = diagnosis([found], CLIPPED, [(rows, clip, ends, bare)], 1e-4)
    require(
        False,
        f"F{case[1:]} the mean of the clipped gradients has {by_length(expected, found)}.{hint}",
    )


def lengths(rows: np.ndarray) -> np.ndarray:
    """The length of each row (N,)."""
    return np.sqrt((rows**2).sum(1))


def mean(rows: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The mean of the rows with these weights, at most 1 each."""
    return np.minimum(1, weights) @ rows / len(rows)


def by_layer(rows: np.ndarray, clip: float, ends: np.ndarray) -> np.ndarray:
    """Each layer clipped by itself: a usual mistake."""
    layers = np.split(rows, ends, axis=1)
    return np.concatenate([mean(layer, clip / lengths(layer)) for layer in layers])


# What the mistakes make of the gradients, one a row. ends: where a layer's columns end. bare: the
# lengths without the bias.
CLIPPED: dict[str, Callable] = {
    "That is the sum: take the mean over the examples.": lambda rows, clip, ends, bare: (
        len(rows) * mean(rows, clip / lengths(rows))
    ),
    "The sign is turned.": lambda rows, clip, ends, bare: -mean(rows, clip / lengths(rows)),
    "That is the mean without clipping.": lambda rows, clip, ends, bare: rows.mean(0),
    "You clip the mean: clip each example before you average.": lambda rows, clip, ends, bare: (
        rows.mean(0) * min(1, clip / np.linalg.norm(rows.mean(0)))
    ),
    "You clip each layer by itself: an example is clipped as a whole.": (
        lambda rows, clip, ends, bare: by_layer(rows, clip, ends)
    ),
    "Gradients shorter than the bound must stay as they are.": lambda rows, clip, ends, bare: (
        (clip / lengths(rows)) @ rows / len(rows)
    ),
    "Your lengths leave out the bias: it adds |b|^2, as a weight whose input is 1.": (
        lambda rows, clip, ends, bare: mean(rows, clip / bare)
    ),
    "Add up the squares of the layers' lengths, not the lengths.": lambda rows, clip, ends, bare: (
        mean(rows, clip / sum(map(lengths, np.split(rows, ends, axis=1))))
    ),
    "The length is the root of the sum of squares.": lambda rows, clip, ends, bare: mean(
        rows, clip / lengths(rows) ** 2
    ),
    "Your function ignores `clip` and clips to 1.": lambda rows, clip, ends, bare: mean(
        rows, 1 / lengths(rows)
    ),
    "Long gradients are scaled down, not dropped.": lambda rows, clip, ends, bare: mean(
        rows, (lengths(rows) <= clip).astype(float)
    ),
    "Divide by the number of examples, not by the sum of the weights.": (
        lambda rows, clip, ends, bare: (
            mean(rows, clip / lengths(rows)) / np.minimum(1, clip / lengths(rows)).mean()
        )
    ),
}


def check_slope(function: Callable) -> None:
    """Fail unless the result follows its inputs exactly, through the lengths too."""
    parts, direction = draw_parts(4, (3, 3, 2), seed=5), draw_parts(4, (3, 3, 2), seed=6)
    step = torch.zeros((), dtype=torch.float64, requires_grad=True)
    moved = [(a + step * c, b + step * d) for (a, b), (c, d) in zip(parts, direction, strict=True)]
    answer = attempt(function, moved, 1.0)
    value = sum(part.double().square().sum() for part in answer)
    require(value.requires_grad, "The result has no graph: crafting must differentiate through it.")
    slope = torch.autograd.grad(value, step, retain_graph=True)[0].item()
    exact = torch.autograd.grad(clipped_mean(moved, 1.0).square().sum(), step)[0].item()
    wanted, yours = side_by_side(exact, slope)
    require(
        abs(slope - exact) < 1e-4 * max(1.0, abs(exact)),
        f"The slope of your result along a line of inputs is {yours}, but that of one example "
        f"after another {wanted}: the lengths depend on the inputs too, do not detach them.",
    )


@recorded
def check_hold_constant(function: Callable) -> None:
    """Looks at the values and at the gradient, with and without a graph. Raises CheckFailed."""
    generator = torch.Generator().manual_seed(0)
    for shape in ((1, 1, 2, 2), (3, 1, 4, 4)):
        weights = torch.randn(shape, generator=generator)
        changes: dict[str, Callable] = {
            "no graph": lambda images: images.detach() * 0.5 + 0.1,
            "a graph of its own": lambda images: images * 3 - 0.2,
        }
        for kind, change in changes.items():
            images = torch.rand(shape, generator=generator).requires_grad_()
            seen = change(images)
            found = attempt(function, images, seen)
            case = f"for images of shape {shape}, whose change has {kind}"
            pixels = as_tensor(found, shape, case, "images")
            gap = (pixels - seen.detach()).abs().max().item()
            require(gap < 1e-6, f"The pixels must be those of `seen`, {case}: off by {gap:.2g}.")
            slope = None
            if found.requires_grad:
                made = (found * weights).sum()
                (slope,) = torch.autograd.grad(made, images, allow_unused=True)
            require(
                slope is not None,
                f"The gradient does not reach the poisons ({case}): start from `images`.",
            )
            compare_slope(slope / weights, (seen / images).detach(), case)
    passed(function)


def compare_slope(slope: Tensor, ratio: Tensor, case: str) -> None:
    """Fail unless the slope is 1 in every pixel; name the usual mistakes."""
    if alike(slope, torch.ones_like(slope)):
        return
    hint = "Detach the whole change."
    if alike(slope, ratio):
        hint = "You hold the ratio constant: the change is a sum, not a product."
    elif alike(slope, torch.zeros_like(slope)):
        hint = "Yours has the slope 0: `images` cancels out. Detach the whole change."
    elif slope.std(correction=0) < 1e-5:
        hint = (
            f"Yours has the slope {slope.mean():.3g}: `images` must stand once, with a plus, "
            "outside of what is detached."
        )
    require(
        False,
        f"The gradient is not that of a constant change ({case}): x + delta has slope 1 in every "
        f"pixel. {hint}",
    )


@recorded
def check_worst_rate(function: Callable) -> None:
    """Compares with counting by hand. Raises CheckFailed."""
    rng = np.random.default_rng(0)
    cases = [(np.array([[True, False, False, False], [False, False, True, True]]),)]
    sizes = ((1, 5), (3, 8), (4, 20), (3, 30))
    cases += [(rng.random(size) < rng.random((size[0], 1)),) for size in sizes]
    found = [as_number(attempt(function, hits), f"for {len(hits)} attacks") for (hits,) in cases]
    for (hits,), got in zip(cases, found, strict=True):
        rates = [sum(row) / len(row) for row in hits.tolist()]
        if abs(got - max(rates)) > 1e-6:
            wanted, yours = side_by_side(max(rates), got)
            shown = ", ".join(f"{rate:.2f}" for rate in rates)
            require(
                False,
                f"For attacks with success rates of {shown} the number is {wanted}, not {yours}."
                f"{diagnosis(found, RATES, cases)}",
            )
    passed(function)


RATES: dict[str, Callable] = {
    "You count a trial if any attack succeeds in it: the attacker must choose one attack before "
    "they see the victim.": lambda hits: hits.any(0).mean(),
    "You count a trial if all attacks succeed in it: take the rate of one attack.": lambda hits: (
        hits.all(0).mean()
    ),
    "The attacker does not draw an attack by lot: take the worst, not the mean.": lambda hits: (
        hits.mean()
    ),
    "A high success rate is bad for the defender: take the largest.": lambda hits: hits.mean(
        1
    ).min(),
    "You look at only the first attack.": lambda hits: hits[0].mean(),
    "You look at only the last attack.": lambda hits: hits[-1].mean(),
    "Take the mean of each attack over its trials, along axis 1, not 0.": lambda hits: hits.mean(
        0
    ).max(),
    "That says whether any attack succeeded in a single trial: first the mean, then the maximum.": (
        lambda hits: hits.max()
    ),
    "That is a number of successes: divide by the number of trials.": lambda hits: hits.sum(
        1
    ).max(),
    "Divide by the number of trials, not by that of the attacks.": lambda hits: (
        hits.sum(1).max() / len(hits)
    ),
    "That says which attack is the worst: return its rate.": lambda hits: hits.mean(1).argmax(),
    "The median of the attacks is not the worst.": lambda hits: np.median(hits.mean(1)),
}
