"""Checks of lesson 05, gradient matching."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from course_utils.checks import CheckFailed, attempt, passed, require
from course_utils.checks.answers import as_gradient, as_rows, as_tensor, compare
from course_utils.data import Data
from course_utils.models import Classifier, build
from course_utils.record import recorded


@recorded
def check_alignment_loss(alignment: Callable) -> None:
    """Compares with numpy on one long vector, and with finite differences. Raises CheckFailed."""
    rows, slopes = [], []
    for n, n_classes, seed in ((1, 2, 0), (4, 3, 1), (7, 5, 2)):
        model = build("mlp", (1, 5, 5), n_classes, seed, width=8).double()
        generator = torch.Generator().manual_seed(seed)
        images = torch.rand(n, 1, 5, 5, generator=generator, dtype=torch.double).requires_grad_()
        labels = torch.randint(n_classes, (n,), generator=generator)
        wanted = tuple(
            torch.randn(p.shape, generator=generator, dtype=torch.double)
            for p in model.parameters()
        )
        case = f"{n} images and {n_classes} classes"
        answer = attempt(alignment, model, images, labels, wanted)
        found = as_tensor(answer, (), case, "one number, a tensor")
        aim = [part.numpy().ravel() for part in wanted]

        def slowly(x: Tensor, model=model, labels=labels, aim=aim) -> float:
            return 1 - cosine(np.concatenate(slow_gradient(model, x, labels)), np.concatenate(aim))

        rows.append((case, (slow_gradient(model, images, labels), aim), found, slowly(images)))
        slopes.append((case, answer, images, slowly))
    compare(rows, "the loss", alignment_slips)
    for case, answer, images, slowly in slopes:
        require_slope(answer, images, slowly, case)
    passed(alignment)


def slow_gradient(model: Classifier, images: Tensor, labels: Tensor) -> list[np.ndarray]:
    """The gradient of the mean loss by parameter, added up image by image."""
    total = [np.zeros(p.numel()) for p in model.parameters()]
    for image, label in zip(images.detach(), labels, strict=True):
        loss = cross_entropy(model(image[None]), label[None]) / len(images)
        for part, one in zip(total, torch.autograd.grad(loss, [*model.parameters()]), strict=True):
            part += one.numpy().ravel()
    return total


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """The cosine of the angle between two vectors."""
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def alignment_slips(found: list[np.ndarray], wanted: list[np.ndarray]) -> dict[str, float]:
    """What common mistakes make of the alignment loss."""
    a, b = np.concatenate(found), np.concatenate(wanted)
    whole, product, lengths = cosine(a, b), a @ b, [np.linalg.norm(part) for part in (a, b)]
    layers = [cosine(*parts) for parts in zip(found, wanted, strict=True)]
    last = sum(x @ y for x, y in zip(found[-2:], wanted[-2:], strict=True))
    tail = [np.concatenate(parts[-2:]) for parts in (found, wanted)]
    by_layer = "Take one cosine over all parameters together, not one for each of them."
    same_way = "It must be 0 where the two point the same way, and 2 where they are opposed."
    return {
        by_layer: 1 - float(np.mean(layers)),
        by_layer + " Nor their sum.": 1 - sum(layers),
        by_layer + " Nor add up the losses.": len(layers) - sum(layers),
        same_way: whole,
        same_way + " You added the cosine.": 1 + whole,
        same_way + " You left out the 1.": -whole,
        "Divide the inner product by both lengths.": 1 - product,
        "Divide the inner product by both lengths, not only by that of the wanted gradient.": 1
        - product / lengths[1],
        "Divide the inner product by both lengths, not only by that of the images' gradient.": 1
        - product / lengths[0],
        "Divide by the lengths, not by their squares.": 1
        - product / (lengths[0] * lengths[1]) ** 2,
        "Every parameter counts, not only the last layer.": 1 - cosine(*tail),
        "Every parameter counts above the line as below it.": 1 - last / (lengths[0] * lengths[1]),
        "Opposed is worse than unrelated: no absolute value, no square.": 1 - abs(whole),
        "Opposed is worse than unrelated: no square of the cosine.": 1 - whole**2,
        "That is the squared distance of the two gradients: their lengths must not count.": (
            ((a - b) ** 2).sum()
        ),
    }


def require_slope(answer: Tensor, images: Tensor, slowly: Callable, case: str) -> None:
    """Fail unless the loss can be differentiated for the images, and rightly."""
    slope = None
    if answer.requires_grad:
        (slope,) = torch.autograd.grad(answer, images, allow_unused=True)
    require(
        slope is not None,
        "The loss cannot be differentiated for the images: ask for a gradient that keeps its "
        f"graph (graph=True), and detach nothing; {case}.",
    )
    way = torch.randn(images.shape, generator=torch.Generator().manual_seed(0)).double()
    expected = (slowly(images + 1e-6 * way) - slowly(images - 1e-6 * way)) / 2e-6
    found = float((slope * way).sum())
    require(
        abs(expected - found) < 1e-4 * (1 + abs(expected)),
        f"The loss is right, but a small step changes it by {expected:.6f} a unit, and its "
        f"gradient says {found:.6f}: a part of the graph is cut; {case}.",
    )


@recorded
def check_choose_bases(choose: Callable) -> None:
    """Compares with the formula that a linear model has for the length. Raises CheckFailed."""
    generator = torch.Generator().manual_seed(0)
    results = []
    for n, n_classes, count, budget in ((8, 2, 1, 2), (20, 3, 2, 5), (40, 4, 3, 12)):
        x = torch.rand(n, 1, 4, 4, generator=generator)
        y = torch.randint(n_classes, (n,), generator=generator)
        data = Data(x, y, tuple("abcdef"[:n_classes]))
        surrogates = [build("logistic_regression", data.shape, n_classes, s) for s in range(count)]
        for surrogate in surrogates:
            with torch.no_grad():
                surrogate.head.weight.mul_(8)
        rows = torch.randperm(n, generator=generator)[: n // 2 + 1]
        case = f"{len(rows)} of {n} images, {count} surrogates, budget {budget}"
        found = as_rows(attempt(choose, surrogates, data, rows, budget), budget, n, case)
        lengths = torch.stack([errors(s, data).norm(dim=1) for s in surrogates])
        pixels = (data.x.flatten(1).square().sum(1) + 1).sqrt()
        scores = (lengths * pixels).mean(0)
        slips = base_slips(surrogates, data, rows, lengths, pixels)
        results.append((case, found, best(scores, rows), scores, slips))
    for case, found, order, scores, _ in results:
        if found == order[: len(found)]:
            continue
        advice = (
            text for text in slips if all(f == by[text][: len(f)] for _, f, _, _, by in results)
        )
        missing = [row for row in order[: len(found)] if row not in found]
        place = next(
            i for i, pair in enumerate(zip(found, order, strict=False)) if len({*pair}) > 1
        )
        fault = (
            f"image {missing[0]}, with a mean length of {scores[missing[0]]:.3f}, is missing"
            if missing
            else f"image {order[place]} belongs at place {place}: the largest gradient comes first"
        )
        raise CheckFailed(f"For {case} {fault}. {next(advice, '')}")
    passed(choose)


def best(scores: Tensor, rows: Tensor) -> list[int]:
    """The rows with the largest scores first."""
    return sorted(rows.tolist(), key=lambda row: -scores[row])


def errors(model: Classifier, data: Data) -> Tensor:
    """The gradient for the logits, of each image. The whole gradient is this times (pixels, 1)."""
    return (model(data.x).softmax(1) - one_hot(data.y, len(data.classes))).detach()


def base_slips(
    surrogates: list[Classifier], data: Data, rows: Tensor, lengths: Tensor, pixels: Tensor
) -> dict[str, list[int]]:
    """What common mistakes make of the choice."""
    scores = (lengths * pixels).mean(0)
    together = torch.stack([errors(model, data) for model in surrogates]).mean(0).norm(dim=1)
    losses = torch.stack(
        [cross_entropy(model(data.x), data.y, reduction="none") for model in surrogates]
    ).mean(0)
    order = best(scores, rows)
    return {
        "You chose the smallest gradients.": order[::-1],
        "You gave positions within `rows`: return the rows themselves.": [
            rows.tolist().index(row) for row in order
        ],
        "Only images in `rows` may be chosen.": best(scores, torch.arange(len(data))),
        "Average over all surrogates, not only the first.": best(lengths[0] * pixels, rows),
        "Average over all surrogates, not only the last.": best(lengths[-1] * pixels, rows),
        "Average over the surrogates; you took the largest of them.": best(
            (lengths * pixels).amax(0), rows
        ),
        "Average the lengths; you took the length of the mean gradient.": best(
            together * pixels, rows
        ),
        "Average the lengths, not their squares.": best((lengths * pixels).square().mean(0), rows),
        "That is the order of the losses: take the lengths of the gradients.": best(losses, rows),
        "The gradient is that for all parameters, not only for the biases.": best(
            lengths.mean(0), rows
        ),
        "You took the first of `rows`: sort them by the length of their gradient.": rows.tolist(),
    }


@recorded
def check_joint_gradient(joint: Callable) -> None:
    """Compares with numpy on one long vector for each target. Raises CheckFailed."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((3, 4), (3,), (2, 3))
    rows = []
    for count in (1, 2, 5):
        draws = [
            tuple(10**k * torch.randn(s, generator=generator, dtype=torch.double) for s in shapes)
            for k in range(count)
        ]
        case = f"{count} targets"
        found = as_gradient(attempt(joint, draws), shapes, case)
        expected = np.mean([flat(draw) / np.linalg.norm(flat(draw)) for draw in draws], 0)
        rows.append((case, (draws,), flat(found), expected))
    compare(rows, "the gradient, over all parameters,", joint_slips)
    passed(joint)


def joint_slips(draws: list[tuple[Tensor, ...]]) -> dict[str, np.ndarray]:
    """What common mistakes make of the joint gradient, over all parameters."""
    whole = np.array([flat(draw) for draw in draws])
    lengths = np.linalg.norm(whole, axis=1, keepdims=True)
    units = whole / lengths
    mean = units.mean(0)
    layers = [flat([part / part.norm() for part in draw]) for draw in draws]
    return {
        "The target with the longest gradient drowns the others: make each length 1.": (
            whole.mean(0)
        ),
        "Make each length 1, and take the mean, not the sum.": whole.sum(0),
        "Take the mean, not the sum.": units.sum(0),
        "The mean of unit vectors is shorter than 1: leave its length as it is.": mean
        / np.linalg.norm(mean),
        "Bring each gradient to length 1 before the mean, not the mean afterwards.": whole.mean(0)
        / np.linalg.norm(whole.mean(0)),
        "The length is that over all parameters together, not of each of them.": np.mean(layers, 0),
        "Divide by the length, not by its square.": (whole / lengths**2).mean(0),
        "The length is the root of the sum of squares, not the largest entry.": (
            whole / abs(whole).max(1, keepdims=True)
        ).mean(0),
        "The length is the root of the sum of squares, not the sum of sizes.": (
            whole / abs(whole).sum(1, keepdims=True)
        ).mean(0),
        "All targets count, not only the first.": units[0],
        "All targets count, not only the last.": units[-1],
        "Divide each gradient by its own length, not by that of the first.": (
            whole / lengths[0]
        ).mean(0),
        "The joint gradient points the same way as the others: no minus.": -mean,
        "Take the mean over the targets, not the median.": np.median(units, axis=0),
    }


def flat(gradient) -> np.ndarray:
    """All parameters as one vector."""
    return np.concatenate([part.numpy().ravel() for part in gradient])
