"""Checks of lesson 15, adaptive attacks."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from course_utils.checks import attempt, passed, require

Parts = list[tuple[Tensor, Tensor]]


def check_clipped_gradient(function: Callable) -> None:
    """Compares with one example at a time, and with finite differences. Raises CheckFailed."""
    for n, sizes, clip, seed in ((1, (3, 2), 0.5, 0), (6, (4, 3, 2), 2.0, 1), (5, (2, 3), 99.0, 2)):
        parts = draw_parts(n, sizes, seed)
        case = f"{n} examples, {len(parts)} layers and clip {clip}"
        found = attempt(function, [(a.clone(), b.clone()) for a, b in parts], clip)
        shapes = [shape for a, b in parts for shape in ((b.shape[1], a.shape[1]), (b.shape[1],))]
        require(
            isinstance(found, tuple) and [tuple(part.shape) for part in found] == shapes,
            f"Return a tuple with a tensor for each weight (out, in) and bias (out,), in turn: "
            f"shapes {shapes} for {case}.",
        )
        compare_gradient(found, parts, clip, case)
    check_slope(function)
    passed(function)


def draw_parts(n: int, sizes: Sequence[int], seed: int) -> Parts:
    """Inputs (n, in) and slopes (n, out) of layers of these sizes: some examples weigh much."""
    generator = torch.Generator().manual_seed(seed)
    heavy = torch.linspace(0.1, 3, n, dtype=torch.float64)[:, None]
    draw = [torch.randn(n, size, generator=generator, dtype=torch.float64) for size in sizes]
    slopes = [torch.randn(n, size, generator=generator, dtype=torch.float64) for size in sizes[1:]]
    return [(a, heavy * b) for a, b in zip(draw, slopes, strict=False)]


def one_by_one(parts: Parts, clip: float) -> list[list[Tensor]]:
    """The gradient of each example alone, as one tensor a parameter; clipped as a whole."""
    examples = []
    for i in range(len(parts[0][0])):
        single = [part for a, b in parts for part in (torch.outer(b[i], a[i]), b[i])]
        length = torch.cat([part.flatten() for part in single]).norm()
        examples.append([part * min(1.0, clip / length.item()) for part in single])
    return examples


def mean_of(examples: list[list[Tensor]]) -> list[Tensor]:
    """The mean over examples of each parameter's gradient."""
    return [torch.stack(parts).mean(0) for parts in zip(*examples, strict=True)]


def compare_gradient(found: tuple, parts: Parts, clip: float, case: str) -> None:
    """Fail unless it is the mean of the clipped gradients; name the usual mistakes."""
    expected = mean_of(one_by_one(parts, clip))
    if near(found, expected):
        return
    hint, n = "", len(parts[0][0])
    plain = mean_of(one_by_one(parts, float("inf")))
    whole = torch.cat([part.flatten() for part in plain]).norm().item()
    layers = [mean_of(one_by_one([part], clip)) for part in parts]
    if near(found, [n * part for part in expected]):
        hint = " That is the sum: take the mean over the examples."
    elif near(found, plain):
        hint = " That is the mean without clipping."
    elif near(found, [min(1.0, clip / whole) * part for part in plain]):
        hint = " You clip the mean: clip each example before you average."
    elif near(found, [part for layer in layers for part in layer]):
        hint = " You clip each layer by itself: an example is clipped as a whole."
    elif near(found, mean_of(scaled_up(parts, clip))):
        hint = " Gradients shorter than the bound must stay as they are."
    got, want = (torch.cat([p.flatten() for p in g]).norm().item() for g in (found, expected))
    require(
        False,
        f"For {case} the mean of the clipped gradients has length {want:.4f}, yours {got:.4f}, and "
        f"they differ.{hint}",
    )


def scaled_up(parts: Parts, clip: float) -> list[list[Tensor]]:
    """Every gradient brought to the length `clip`, short ones too: a usual mistake."""
    examples = one_by_one(parts, float("inf"))
    lengths = [torch.cat([p.flatten() for p in parts]).norm() for parts in examples]
    return [[p * clip / size for p in parts] for parts, size in zip(examples, lengths, strict=True)]


def near(found: Sequence[Tensor], expected: Sequence[Tensor]) -> bool:
    """Whether two gradients are the same up to rounding."""
    return all(torch.allclose(a, b, atol=1e-6) for a, b in zip(found, expected, strict=True))


def check_slope(function: Callable) -> None:
    """Fail unless the result follows its inputs exactly, through the lengths too."""
    parts = draw_parts(4, (3, 3, 2), seed=5)
    direction = draw_parts(4, (3, 3, 2), seed=6)

    def along(step: float | Tensor) -> Tensor:
        moved = [
            (a + step * c, b + step * d) for (a, b), (c, d) in zip(parts, direction, strict=True)
        ]
        return torch.cat([part.flatten() for part in function(moved, 1.0)]).square().sum()

    step = torch.zeros((), dtype=torch.float64, requires_grad=True)
    value = along(step)
    require(value.requires_grad, "The result has no graph: crafting must differentiate through it.")
    slope = torch.autograd.grad(value, step)[0].item()
    exact = ((along(1e-6) - along(-1e-6)) / 2e-6).item()
    require(
        abs(slope - exact) < 1e-4 * max(1.0, abs(exact)),
        f"The slope of your result along a line of inputs is {slope:.4f}, but finite differences "
        f"give {exact:.4f}: the lengths depend on the inputs too, do not detach them.",
    )


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
            case = f"images of shape {shape}, whose change has {kind}"
            require(
                isinstance(found, Tensor) and found.shape == images.shape,
                f"Return images of shape {shape}, for {case}.",
            )
            gap = (found - seen).abs().max().item()
            require(gap < 1e-6, f"The pixels must be those of `seen`; {case}: off by {gap:.2f}.")
            require(
                found.requires_grad,
                f"The gradient does not reach the poisons ({case}): start from `images`.",
            )
            (slope,) = torch.autograd.grad((found * weights).sum(), images, allow_unused=True)
            require(
                slope is not None and torch.allclose(slope, weights, atol=1e-6),
                f"The gradient is not that of a constant change ({case}): x + delta has slope 1 in "
                "every pixel. Detach the whole change.",
            )
    passed(function)


def check_worst_rate(function: Callable) -> None:
    """Compares with counting by hand. Raises CheckFailed."""
    rng = np.random.default_rng(0)
    cases = [np.array([[True, False, False, False], [False, False, True, True]])]
    cases += [rng.random((attacks, trials)) < 0.4 for attacks, trials in ((1, 5), (3, 8), (4, 20))]
    for successes in cases:
        rates = [sum(bool(hit) for hit in row) / len(row) for row in successes]
        either = sum(any(column) for column in successes.T) / successes.shape[1]
        found = attempt(function, successes.copy())
        case = f"success rates of {', '.join(f'{rate:.2f}' for rate in rates)}"
        require(np.ndim(found) == 0, f"Return one number for {len(rates)} attacks.")
        if abs(float(found) - max(rates)) < 1e-9:
            continue
        hint = ""
        if abs(float(found) - either) < 1e-9:
            hint = (
                " You count a trial if any attack succeeds in it: the attacker must choose one "
                "attack before they see the victim."
            )
        elif abs(float(found) - sum(rates) / len(rates)) < 1e-9:
            hint = " The attacker does not draw an attack by lot: take the worst, not the mean."
        elif abs(float(found) - min(rates)) < 1e-9:
            hint = " A high success rate is bad for the defender."
        require(
            False, f"For attacks with {case} the number is {max(rates):.3f}, not {found}.{hint}"
        )
    passed(function)
