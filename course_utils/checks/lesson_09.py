"""Checks of lesson 09, anatomy of a poisoned gradient."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from course_utils.checks import attempt, passed, require

SHAPES = ((3, 4), (3,), (2, 3, 1))


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


def check_clip(clip: Callable) -> None:
    """Compares with a loop over the examples in numpy. Raises CheckFailed."""
    for n, bound, seed in ((1, 1.0, 0), (3, 1.0, 1), (8, 0.2, 2), (5, math.inf, 3)):
        gradients = draw_gradients(n, seed)
        before = rows_of(gradients).copy()
        case = f"{n} examples and the bound {bound}"
        answer = attempt(clip, gradients, bound)
        require(
            isinstance(answer, tuple | list)
            and [tuple(part.shape) for part in answer] == [(n, *shape) for shape in SHAPES],
            f"Return one tensor for each parameter, of the shape it came in; for {case} you did "
            "not.",
        )
        require(
            np.array_equal(rows_of(gradients), before),
            "The gradients that came in have changed: return new tensors.",
        )
        compare_clipped(rows_of(tuple(answer)), before, tuple(answer), gradients, bound, case)
    check_refusal(clip)
    passed(clip)


def compare_clipped(
    found: np.ndarray,
    before: np.ndarray,
    answer: tuple[Tensor, ...],
    gradients: tuple[Tensor, ...],
    bound: float,
    case: str,
) -> None:
    """Fail with the first example that is clipped wrongly; name the usual mistakes."""
    norms = np.array([math.sqrt(sum(value**2 for value in row)) for row in before])
    expected = before * np.minimum(1, bound / norms)[:, None]
    wrong = np.abs(found - expected).max(1) > 1e-9
    if not wrong.any():
        return
    i = int(wrong.argmax())
    total = np.linalg.norm(before.sum(0))
    hint = ""
    if bound < math.inf and np.allclose(found, before * bound / norms[:, None]):
        hint = " A gradient that is shorter than the bound stays as it is."
    elif by_layer(answer, gradients, bound):
        hint = " The length of an example is that over all parameters together."
    elif np.allclose(found, before * min(1, bound / total)):
        hint = " Clip each example by its own length, not all of them by one."
    elif np.allclose(found, before):
        hint = " Nothing was clipped."
    require(
        False,
        f"For {case}, example {i} came with the length {norms[i]:.4f} and must leave with "
        f"{min(norms[i], bound):.4f}, in the same direction; yours has "
        f"{np.linalg.norm(found[i]):.4f}.{hint}",
    )


def by_layer(answer: tuple[Tensor, ...], gradients: tuple[Tensor, ...], bound: float) -> bool:
    """Whether each parameter was clipped by its own length."""
    for mine, part in zip(answer, gradients, strict=True):
        norms = part.flatten(1).norm(dim=1).view(-1, *[1] * (part.ndim - 1))
        if not torch.allclose(mine, part * (bound / norms).clamp(max=1)):
            return False
    return True


def check_refusal(clip: Callable) -> None:
    """A bound that is not positive must be refused."""
    for bound in (0.0, -1.0):
        try:
            clip(draw_gradients(2, 0), bound)
        except ValueError:
            continue
        require(False, f"A bound of {bound} must raise a ValueError: call check_shaping(bound).")


def check_group_cosine(group_cosine: Callable) -> None:
    """Compares with numpy on long vectors. Raises CheckFailed."""
    for n, seed in ((4, 0), (9, 1), (30, 2)):
        gradients = draw_gradients(n, seed)
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(n, generator=generator)
        first, second = torch.zeros(2, n, dtype=torch.bool)
        first[order[: 1 + n // 4]] = True
        second[order[1 + n // 4 : n - 1]] = True
        case = f"groups of {int(first.sum())} and {int(second.sum())} out of {n} examples"
        answer = attempt(group_cosine, gradients, first, second)
        require(
            isinstance(answer, float) or (isinstance(answer, Tensor) and answer.numel() == 1),
            f"Return one number; for {case} you did not.",
        )
        compare_cosine(float(answer), rows_of(gradients), first.numpy(), second.numpy(), case)
    passed(group_cosine)


def compare_cosine(
    found: float, rows: np.ndarray, first: np.ndarray, second: np.ndarray, case: str
) -> None:
    """Fail unless it is the cosine of the two mean gradients; name the usual mistakes."""
    expected = cosine(rows[first].mean(0), rows[second].mean(0))
    if abs(found - expected) < 1e-9:
        return
    pairs = [cosine(a, b) for a in rows[first] for b in rows[second]]
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    hint = ""
    if abs(found - np.mean(pairs)) < 1e-9:
        hint = " Take the mean of each group first, then one cosine: not the mean over the pairs."
    elif abs(found - cosine(units[first].mean(0), units[second].mean(0))) < 1e-9:
        hint = " Do not bring each example to length 1: long gradients pull more."
    elif abs(found - cosine(rows[first].mean(0), rows.mean(0))) < 1e-9:
        hint = " Compare with the second group, not with all examples."
    elif abs(found - rows[first].mean(0) @ rows[second].mean(0)) < 1e-9:
        hint = " Divide the inner product by both lengths."
    else:
        hint = layer_hint(found, rows, first, second)
    require(False, f"For {case} the cosine is {expected:.4f}, you gave {found:.4f}.{hint}")


def layer_hint(found: float, rows: np.ndarray, first: np.ndarray, second: np.ndarray) -> str:
    """A hint if the cosine was taken for each parameter, or for one of them."""
    ends = np.cumsum([math.prod(shape) for shape in SHAPES])[:-1]
    parts = [
        cosine(part[first].mean(0), part[second].mean(0)) for part in np.split(rows, ends, axis=1)
    ]
    if abs(found - np.mean(parts)) < 1e-9 or np.min(np.abs(np.array(parts) - found)) < 1e-9:
        return " Take one cosine over all parameters together, not one for each of them."
    return ""


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """The cosine of the angle between two vectors."""
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
