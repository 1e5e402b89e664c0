"""Checks of lesson 07, backdoors."""

from collections.abc import Callable
from itertools import product

import torch
from torch import Tensor

from course_utils.checks import attempt, passed, require


def check_apply_trigger(apply: Callable) -> None:
    """Compares with mixing one pixel after the other. Raises CheckFailed."""
    generator = torch.Generator().manual_seed(0)
    square = torch.zeros(5, 5)
    square[3:, 3:] = 1
    each = (torch.rand(3, 1, 4, 4, generator=generator) < 0.5).float()
    cases = {
        "a 2 by 2 patch on gray images": (torch.rand(2, 1, 5, 5, generator=generator), square),
        "a patch on colour images": (torch.rand(2, 3, 5, 5, generator=generator), square),
        "a faint pattern": (torch.rand(2, 1, 5, 5, generator=generator), torch.full((5, 5), 0.2)),
        "white images": (torch.ones(2, 1, 5, 5), torch.full((5, 5), 0.3)),
        "another mask for each image": (torch.rand(3, 1, 4, 4, generator=generator), each),
    }
    for case, (images, mask) in cases.items():
        pattern = torch.rand(images.shape[-2:], generator=generator)
        if case == "white images":
            pattern = torch.ones_like(pattern)
        before = images.clone()
        found = attempt(apply, images, mask, pattern)
        require(
            torch.equal(images, before),
            f"The images that came in were changed, for {case}: make new ones.",
        )
        require(
            isinstance(found, Tensor) and found.shape == images.shape,
            f"Return images of shape {tuple(images.shape)}; for {case} you did not.",
        )
        compare_pixels(found, images, mask.expand_as(images), pattern.expand_as(images), case)
    passed(apply)


def compare_pixels(found: Tensor, images: Tensor, mask: Tensor, pattern: Tensor, case: str) -> None:
    """Fail with the first pixel that is not the mixture that the mask asks for."""
    for place in product(*map(range, images.shape)):
        x, m, p, got = (t[place].item() for t in (images, mask, pattern, found))
        where = f"pixel {place[-2:]} of image {place[0]} ({case})"
        require(0 <= got <= 1, f"A value of {got:.8g}, outside [0, 1], at {where}: clamp.")
        mixed = x + m * (p - x)
        if abs(got - mixed) < 1e-6:
            continue
        hint = ""
        if abs(got - min(1, x + m * p)) < 1e-6:
            hint = " The pattern is not added to the image: it takes the place of a part of it."
        elif abs(got - (m * x + (1 - m) * p)) < 1e-6:
            hint = " The pattern shows where the mask is 1, not where it is 0."
        require(
            False,
            f"Image {x:.3f}, pattern {p:.3f}, mask {m:.1f} make {mixed:.3f}, you gave {got:.3f} "
            f"at {where}.{hint}",
        )


def check_attack_success_rate(rate: Callable) -> None:
    """Compares with counting one image after the other. Raises CheckFailed."""
    generator = torch.Generator().manual_seed(0)
    for n, n_classes, target, source in (
        (12, 3, 2, None),
        (60, 10, 7, None),
        (40, 3, 0, 1),
        (60, 4, 1, 3),
    ):
        true = torch.arange(n) % n_classes
        predicted = torch.randint(n_classes, (n,), generator=generator)
        predicted[true == target] = target  # the model knows the target class
        tried = [k != target if source is None else k == source for k in true.tolist()]
        hits = [k == target and t for k, t in zip(predicted.tolist(), tried, strict=True)]
        expected = sum(hits) / sum(tried)
        found = attempt(rate, predicted, true, target, source)
        kind = "all-to-one" if source is None else f"one-to-one, source class {source}"
        case = f"{n} images of {n_classes} classes, target class {target}, {kind}"
        require(
            isinstance(found, (float, Tensor)) and torch.as_tensor(found).numel() == 1,
            f"Return one number; for {case} you did not.",
        )
        found = float(found)
        if abs(found - expected) < 1e-6:
            continue
        everything = (predicted == target).float().mean().item()
        every_other = (predicted[true != target] == target).float().mean().item()
        hint = ""
        if abs(found - everything) < 1e-6:
            hint = " You counted all images: those of the target class do not belong here."
        elif abs(found - sum(hits) / n) < 1e-6:
            hint = (
                " The numerator is right; images that were not attacked are still below the line."
            )
        elif source is not None and abs(found - every_other) < 1e-6:
            hint = " In one-to-one only images of the source class count."
        require(False, f"For {case} the rate is {expected:.3f}, you gave {found:.3f}.{hint}")
    passed(rate)


def check_pgd_step(step_function: Callable) -> None:
    """Compares with moving one pixel after the other. Raises CheckFailed."""
    generator = torch.Generator().manual_seed(0)
    for shape, step, epsilon in (((2, 1, 3, 3), 0.02, 0.1), ((3, 3, 4, 4), 0.1, 0.05)):
        base = torch.rand(shape, generator=generator).round(decimals=1)
        walked = epsilon * (2 * torch.rand(shape, generator=generator) - 1)
        images = (base + walked).clamp(0, 1)
        gradient = torch.randn(shape, generator=generator) / 1000
        case = f"step {step}, epsilon {epsilon}"
        before = images.clone()
        found = attempt(step_function, images, gradient, base, step, epsilon)
        require(torch.equal(images, before), f"The images that came in were changed ({case}).")
        require(
            isinstance(found, Tensor) and found.shape == images.shape,
            f"Return images of shape {shape}; for {case} you did not.",
        )
        for place in product(*map(range, shape)):
            x, g, b, got = (t[place].item() for t in (images, gradient, base, found))
            compare_step(x, g, b, step, epsilon, got, f"pixel {place[-2:]} of image {place[0]}")
    passed(step_function)


def compare_step(
    x: float, g: float, base: float, step: float, epsilon: float, got: float, where: str
) -> None:
    """Fail if the pixel is not where one step and the two bounds put it."""

    def bounded(value: float, centre: float) -> float:
        return min(1, max(0, min(centre + epsilon, max(centre - epsilon, value))))

    up = step if g > 0 else -step
    expected = bounded(x + up, base)
    if abs(got - expected) < 1e-6:
        return
    hint = ""
    if not 0 <= got <= 1:
        hint = " That is outside [0, 1]."
    elif abs(got - bounded(x - up, base)) < 1e-6:
        hint = " You went down: PGD RAISES the loss."
    elif abs(got - bounded(x + step * g, base)) < 1e-6:
        hint = " Use the sign of the gradient, not its size."
    elif abs(got - base) > epsilon + 1e-6:
        hint = " That is further than epsilon from the base image: the bound is around that."
    require(
        False,
        f"A pixel of {x:.3f} (base {base:.3f}, gradient {g:.4f}) moves to {expected:.3f} with step "
        f"{step} and epsilon {epsilon}; you gave {got:.3f}, {where}.{hint}",
    )
