"""Checks of lesson 09, anatomy of a poisoned gradient."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from course_utils.checks import attempt, passed, require
from course_utils.checks.answers import as_gradient, as_number, side_by_side
from course_utils.checks.mistakes import about, alike, by_length, diagnosis
from course_utils.record import recorded

SHAPES = ((3, 4), (3,), (2, 3, 1))
ENDS = np.cumsum([math.prod(shape) for shape in SHAPES])[:-1]  # where a parameter's columns end


def draw_gradients(n: int, seed: int) -> tuple[Tensor, ...]:
    """Gradients of n examples, some long and some short, one tensor for each parameter."""
    generator = torch.Generator().manual_seed(seed)
    scale = 10.0 ** (2 * torch.rand(n, generator=generator, dtype=torch.double) - 1.5)
    return tuple(
        scale.view(-1, *[1] * len(shape))
        * torch.randn(n, *shape, generator=generator, dtype=torch.double)
        for shape in SHAPES
    )


def rows_of(gradients: tuple[Tensor, ...]) -> np.ndarray:
    """Each example's gradient as one long vector (N, D)."""
    return np.concatenate([part.flatten(1).numpy() for part in gradients], axis=1)


@recorded
def check_clip(clip: Callable) -> None:
    """Compares with a loop over the examples in numpy. Raises CheckFailed."""
    for n, bound, seed in ((3, 1.0, 1), (1, 2.0, 0), (8, 0.2, 2), (5, math.inf, 3)):
        compare_clipped(clip, draw_gradients(n, seed), bound)
    nothing = draw_gradients(4, 4)
    for part in nothing:
        part[1] = 0
    with about("One gradient here is of length 0: 0 / 0 is not a number, and it stays as it is."):
        compare_clipped(clip, nothing, 0.5)
    check_refusal(clip)
    passed(clip)


def compare_clipped(clip: Callable, gradients: tuple[Tensor, ...], bound: float) -> None:
    """Fail with the first example that is clipped wrongly; name the usual mistakes."""
    rows = rows_of(gradients)
    case = f"for N = {len(rows)} and the bound {bound}"
    answer = attempt(clip, gradients, bound)
    found = rows_of(tuple(as_gradient(answer, [(len(rows), *shape) for shape in SHAPES], case)))
    norms = [math.sqrt(sum(value**2 for value in row)) for row in rows]
    for i, (row, norm) in enumerate(zip(rows, norms, strict=True)):
        expected = row * (bound / norm) if norm > bound else row
        if not alike(found[i], expected, 1e-4):  # Opacus adds 1e-6 to each length
            hint = diagnosis([found], CLIPPED, [(rows, bound)])
            require(
                False,
                f"F{case[1:]}, example {i} came with the length {norm:.4f} and must leave with "
                f"{by_length(expected, found[i])}.{hint}",
            )


def factors(lengths: np.ndarray, bound: float) -> np.ndarray:
    """The factor of each example (N, 1) if these were the lengths."""
    return np.minimum(1, bound / lengths)[:, None]


def lengths_of(rows: np.ndarray) -> np.ndarray:
    """The length of each row (N,)."""
    return np.sqrt((rows**2).sum(1))


def layers_of(rows: np.ndarray) -> list[np.ndarray]:
    """The columns of each parameter."""
    return np.split(rows, ENDS, axis=1)


CLIPPED: dict[str, Callable] = {
    "Nothing was clipped.": lambda rows, bound: rows,
    "A gradient that is shorter than the bound stays as it is.": lambda rows, bound: (
        rows * bound / lengths_of(rows)[:, None]
    ),
    "The length of an example is that over all parameters together.": lambda rows, bound: (
        np.concatenate([part * factors(lengths_of(part), bound) for part in layers_of(rows)], 1)
    ),
    "Clip each example by its own length, not all of them by one.": lambda rows, bound: (
        rows * min(1, bound / np.linalg.norm(rows.sum(0)))
    ),
    "The single values were cut: that turns the gradient. Scale it down as a whole.": (
        lambda rows, bound: np.clip(rows, -bound, bound)
    ),
    "Add up the squares of the parameters' lengths, not the lengths.": lambda rows, bound: (
        rows * factors(sum(map(lengths_of, layers_of(rows))), bound)
    ),
    "The length is the root of the sum of squares.": lambda rows, bound: (
        rows * factors(lengths_of(rows) ** 2, bound)
    ),
    "The factor is upside down: it is the bound over the length.": lambda rows, bound: (
        rows * np.minimum(1, lengths_of(rows) / bound)[:, None]
    ),
    "Your function ignores the bound and clips to 1.": lambda rows, bound: (
        rows * factors(lengths_of(rows), 1.0)
    ),
    "The sign is turned.": lambda rows, bound: -rows * factors(lengths_of(rows), bound),
    "Long gradients are scaled down, not dropped.": lambda rows, bound: (
        rows * (lengths_of(rows) <= bound)[:, None]
    ),
}


def check_refusal(clip: Callable) -> None:
    """A bound that is not positive must be refused."""
    for bound in (0.0, -1.0):
        got = "nothing"
        try:
            clip(draw_gradients(2, 0), bound)
        except ValueError:
            continue
        except Exception as error:
            got = type(error).__name__
        require(
            False,
            f"A bound of {bound} must raise a ValueError, not {got}: call check_shaping(bound).",
        )


@recorded
def check_group_cosine(group_cosine: Callable) -> None:
    """Compares with numpy on long vectors. Raises CheckFailed."""
    found, cases = [], []
    for n, seed in ((5, 0), (9, 1), (30, 2), (12, 3), (7, 4)):
        gradients = draw_gradients(n, seed)
        order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
        first, second = torch.zeros(2, n, dtype=torch.bool)
        first[order[: 2 + n // 4]] = True
        second[order[2 + n // 4 : n - 1]] = True
        found.append(as_number(attempt(group_cosine, gradients, first, second), f"for N = {n}"))
        cases.append((rows_of(gradients), first.numpy(), second.numpy()))
    for got, (rows, first, second) in zip(found, cases, strict=True):
        expected = cosine(*means(rows, first, second))
        if not abs(got - expected) < 1e-5:
            wanted, yours = side_by_side(expected, got)
            hint = diagnosis(found, COSINES, cases) or layer_hint(got, rows, first, second)
            require(
                False,
                f"For groups of {first.sum()} and {second.sum()} out of {len(rows)} examples the "
                f"cosine is {wanted}, you gave {yours}.{hint}",
            )
    passed(group_cosine)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """The cosine of the angle between two vectors."""
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def means(rows: np.ndarray, first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean gradient of each group."""
    return rows[first].mean(0), rows[second].mean(0)


def layer_hint(found: float, rows: np.ndarray, first: np.ndarray, second: np.ndarray) -> str:
    """A hint if the cosine was taken for each parameter, or for one of them."""
    parts = [cosine(*means(part, first, second)) for part in layers_of(rows)]
    if any(alike(found, value) for value in (*parts, np.mean(parts))):
        return " Take one cosine over all parameters together, not one for each of them."
    return ""


COSINES: dict[str, Callable] = {
    "Take the mean of each group first, then one cosine: not the mean over the pairs.": (
        lambda rows, a, b: np.mean([cosine(x, y) for x in rows[a] for y in rows[b]])
    ),
    "Do not bring each example to length 1: long gradients pull more.": lambda rows, a, b: cosine(
        *means(rows / lengths_of(rows)[:, None], a, b)
    ),
    "Compare with the second group, not with all examples.": lambda rows, a, b: cosine(
        *means(rows, a, np.ones_like(b))
    ),
    "Compare with the second group, not with all that are outside the first.": (
        lambda rows, a, b: cosine(*means(rows, a, ~a))
    ),
    "Divide the inner product by both lengths.": lambda rows, a, b: np.dot(*means(rows, a, b)),
    "A cosine has a sign: below 0 the groups pull against each other.": lambda rows, a, b: abs(
        cosine(*means(rows, a, b))
    ),
    "The sign is lost: below 0 the groups pull against each other.": lambda rows, a, b: max(
        0.0, cosine(*means(rows, a, b))
    ),
    "The sign is turned.": lambda rows, a, b: -cosine(*means(rows, a, b)),
    "That is one minus the cosine.": lambda rows, a, b: 1 - cosine(*means(rows, a, b)),
    "That is the angle itself.": lambda rows, a, b: math.acos(cosine(*means(rows, a, b))),
    "The groups are masks, not row numbers.": lambda rows, a, b: cosine(
        *means(rows, a.astype(int), b.astype(int))
    ),
    "You compare only the first example of each group.": lambda rows, a, b: cosine(
        rows[a][0], rows[b][0]
    ),
}
