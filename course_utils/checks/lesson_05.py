"""Checks of lesson 05, gradient matching."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from course_utils.checks import attempt, passed, require
from course_utils.data import Data
from course_utils.models import Classifier, build


def check_alignment_loss(alignment: Callable) -> None:
    """Compares with numpy on one long vector, and with finite differences. Raises CheckFailed."""
    for n, n_classes, seed in ((1, 2, 0), (4, 3, 1), (7, 5, 2)):
        model = build("mlp", (1, 5, 5), n_classes, seed, width=8).double()
        generator = torch.Generator().manual_seed(seed)
        images = torch.rand(n, 1, 5, 5, generator=generator, dtype=torch.double)
        labels = torch.randint(n_classes, (n,), generator=generator)
        wanted = tuple(
            torch.randn(p.shape, generator=generator, dtype=torch.double)
            for p in model.parameters()
        )
        case = f"{n} images and {n_classes} classes"
        images.requires_grad_()
        answer = attempt(alignment, model, images, labels, wanted)
        require(
            isinstance(answer, Tensor) and answer.numel() == 1,
            f"Return one number as a tensor; for {case} you did not.",
        )
        compare_alignment(answer.item(), slow_gradients(model, images, labels), wanted, case)
        check_slope(alignment, answer, model, images, labels, wanted, case)
    passed(alignment)


def slow_gradients(model: Classifier, images: Tensor, labels: Tensor) -> list[np.ndarray]:
    """The gradient of the mean loss by parameter, added up image by image."""
    model.zero_grad()
    for image, label in zip(images.detach(), labels, strict=True):
        (cross_entropy(model(image[None]), label[None]) / len(images)).backward()
    found = [p.grad.numpy().copy() for p in model.parameters()]
    model.zero_grad()
    return found


def compare_alignment(
    found: float, gradients: list[np.ndarray], wanted: tuple[Tensor, ...], case: str
) -> None:
    """Fail unless it is one minus the cosine; name the usual mistakes."""
    pairs = [(a.ravel(), b.numpy().ravel()) for a, b in zip(gradients, wanted, strict=True)]
    layers = np.mean([cosine(a, b) for a, b in pairs])
    whole = cosine(*(np.concatenate(parts) for parts in zip(*pairs, strict=True)))
    product = sum(a @ b for a, b in pairs)
    if abs(found - (1 - whole)) < 1e-6:
        return
    hint = ""
    if abs(found - (1 - layers)) < 1e-6:
        hint = " Take one cosine over all parameters together, not one for each of them."
    elif abs(found - whole) < 1e-6 or abs(found - (1 + whole)) < 1e-6:
        hint = " It must be 0 where the two point the same way, and 2 where they are opposed."
    elif abs(found - (1 - product)) < 1e-6:
        hint = " Divide the inner product by both lengths."
    require(False, f"For {case} the loss should be {1 - whole:.4f}, you gave {found:.4f}.{hint}")


def check_slope(
    alignment: Callable, answer: Tensor, model: Classifier, images: Tensor, *rest
) -> None:
    """Fail unless the loss can be differentiated for the images, and rightly."""
    *inputs, case = rest
    require(
        answer.requires_grad,
        "The loss cannot be differentiated for the images: ask for a gradient that keeps its "
        "graph (graph=True).",
    )
    slope = torch.autograd.grad(answer, images, allow_unused=True)[0]
    require(slope is not None, f"The loss does not depend on the images, for {case}.")
    step = torch.full_like(images, 1e-5)
    ahead, behind = (
        attempt(alignment, model, images.detach() + side * step, *inputs).item() for side in (1, -1)
    )
    expected, found = (ahead - behind) / 2, (slope * step).sum().item()
    require(
        abs(expected - found) < 1e-8,
        f"For {case} a small step changes the loss by {expected:.3e}, its gradient says "
        f"{found:.3e}.",
    )


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """The cosine of the angle between two vectors."""
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def check_choose_bases(choose: Callable) -> None:
    """Compares with the formula that a linear model has for the length. Raises CheckFailed."""
    generator = torch.Generator().manual_seed(0)
    for n, n_classes, count, budget in ((8, 2, 1, 2), (20, 3, 2, 5), (40, 4, 3, 12)):
        x = torch.rand(n, 1, 4, 4, generator=generator)
        y = torch.randint(n_classes, (n,), generator=generator)
        data = Data(x, y, tuple("abcdef"[:n_classes]))
        surrogates = [build("logistic_regression", data.shape, n_classes, s) for s in range(count)]
        for surrogate in surrogates:
            with torch.no_grad():
                surrogate.head.weight.mul_(8)
        rows = torch.randperm(n, generator=generator)[: n // 2 + 1]
        lengths = torch.stack([linear_lengths(s, data) for s in surrogates])
        case = f"{len(rows)} of {n} images, {count} surrogates, budget {budget}"
        chosen = attempt(choose, surrogates, data, rows, budget)
        require(
            isinstance(chosen, Tensor) and chosen.dtype == torch.int64,
            f"Return the chosen rows as a tensor; for {case} you did not.",
        )
        compare_bases(chosen.tolist(), lengths, rows, budget, case)
    passed(choose)


def linear_lengths(model: Classifier, data: Data) -> Tensor:
    """The gradient's length of each image: the error's length times that of (pixels, 1)."""
    error = model(data.x).softmax(1) - one_hot(data.y, len(data.classes))
    return (error.norm(dim=1) * (data.x.flatten(1).square().sum(1) + 1).sqrt()).detach()


def compare_bases(found: list[int], lengths: Tensor, rows: Tensor, budget: int, case: str) -> None:
    """Fail with the first image that should have been chosen."""
    mean = lengths.mean(0)
    order = sorted(rows.tolist(), key=lambda row: -mean[row])
    expected = set(order[:budget])
    require(len(found) == budget, f"Choose {budget} images, not {len(found)}: {case}.")
    if set(found) == expected:
        return
    places = {rows.tolist().index(row) for row in expected}
    first = sorted(rows.tolist(), key=lambda row: -lengths[0, row])[:budget]
    hint = ""
    if set(found) == places:
        hint = " You gave positions within `rows`: return the rows themselves."
    elif set(found) == set(order[-budget:]):
        hint = " You chose the smallest gradients."
    elif set(found) == set(first):
        hint = " Average over all surrogates, not only the first."
    elif not set(found) <= set(rows.tolist()):
        hint = " Only images in `rows` may be chosen."
    missing = max(expected - set(found), key=lambda row: mean[row])
    require(
        False, f"Image {missing}, with a length of {mean[missing]:.3f}, is missing: {case}.{hint}"
    )


def check_joint_gradient(joint: Callable) -> None:
    """Its alignment must be the mean alignment with every target. Raises CheckFailed."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((3, 4), (3,), (2, 3))
    for count in (1, 2, 5):
        draws = [
            tuple(10**k * torch.randn(s, generator=generator, dtype=torch.double) for s in shapes)
            for k in range(count)
        ]
        case = f"{count} targets"
        answer = attempt(joint, draws)
        require(
            isinstance(answer, tuple | list)
            and [p.shape for p in answer] == [*map(torch.Size, shapes)],
            f"Return one tensor for each parameter, of its shape; for {case} you did not.",
        )
        poison = flat([torch.randn(s, generator=generator, dtype=torch.double) for s in shapes])
        expected = float(np.mean([cosine(poison, flat(g)) for g in draws]))
        found = float(poison @ flat(answer) / np.linalg.norm(poison))
        if abs(found - expected) < 1e-9:
            continue
        hint = ""
        if np.allclose(flat(answer), np.mean([flat(g) for g in draws], 0)):
            hint = " The target with the longest gradient drowns the others: make each length 1."
        elif abs(found - expected * count) < 1e-9:
            hint = " Take the mean, not the sum."
        elif np.allclose(np.linalg.norm(flat(answer)), 1):
            hint = " The mean of unit vectors is shorter than 1: leave its length as it is."
        require(
            False,
            f"For {case} a test vector has the mean cosine {expected:.4f} with the gradients, but "
            f"{found:.4f} with yours.{hint}",
        )
    passed(joint)


def flat(gradient) -> np.ndarray:
    """All parameters as one vector."""
    return np.concatenate([part.numpy().ravel() for part in gradient])
