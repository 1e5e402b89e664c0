"""Checks of lesson 08, hidden triggers."""

from collections.abc import Callable

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from course_utils.checks import CheckFailed, attempt, passed, require
from course_utils.checks.answers import as_gradient, as_rows, as_tensor, compare
from course_utils.models import build
from course_utils.record import recorded
from course_utils.threat import Backdoor


@recorded
def check_pair_greedily(pair: Callable) -> None:
    """Compares with walking through all pairs, the nearest first. Raises CheckFailed."""
    generator = torch.Generator().manual_seed(0)
    rows = []
    for n_poisons, n_sources, size in ((1, 1, 2), (3, 3, 2), (4, 7, 3), (12, 12, 5), (9, 30, 2)):
        features = torch.randn(n_poisons, size, generator=generator)
        sources = torch.randn(n_sources, size, generator=generator) + 1
        case = f"{n_poisons} poisons and {n_sources} source images with {size} features"
        found = as_rows(attempt(pair, features, sources), n_poisons, n_sources, case, "partners")
        table = distances(features, sources)
        rows.append((case, found, in_order(table), pair_slips(features, sources, table)))
    for case, found, expected, _ in rows:
        if found == expected:
            continue
        advice = next((t for t in rows[0][3] if all(f == by[t] for _, f, _, by in rows)), "")
        if not advice and len(set(found)) < len(found):
            advice = "A source image has two partners: strike out the row AND the column of a pair."
        poison = next(i for i, right in enumerate(expected) if found[i] != right)
        raise CheckFailed(
            f"For {case}, poison {poison} belongs to source image {expected[poison]}, you gave it "
            f"{found[poison]}. {advice}"
        )
    passed(pair)


def distances(features: Tensor, sources: Tensor) -> np.ndarray:
    """The distance of every poison to every source image, number by number."""
    return np.array(
        [
            [sum((a - b) ** 2 for a, b in zip(x, s, strict=True)) ** 0.5 for s in sources.tolist()]
            for x in features.tolist()
        ]
    )


def in_order(table: np.ndarray) -> list[int]:
    """The greedy pairs, from a sorted list of all pairs."""
    every = sorted((d, i, j) for i, row in enumerate(table.tolist()) for j, d in enumerate(row))
    partner: dict[int, int] = {}
    for _, i, j in every:
        if i not in partner and j not in partner.values():
            partner[i] = j
    return [partner[i] for i in range(len(table))]


def one_after_the_other(table: np.ndarray) -> list[int]:
    """What comes out if each poison in turn takes the nearest that is left."""
    left, chosen = set(range(table.shape[1])), []
    for row in table:
        chosen.append(min(left, key=row.__getitem__))
        left.remove(chosen[-1])
    return chosen


def pair_slips(features: Tensor, sources: Tensor, table: np.ndarray) -> dict[str, list[int]]:
    """What common mistakes make of the pairs."""
    x, s = (part.double().numpy() for part in (features, sources))
    units = [part / np.linalg.norm(part, axis=1, keepdims=True) for part in (x, s)]
    right = in_order(table)
    in_turn = sorted(range(len(right)), key=lambda i: table[i, right[i]])
    return {
        "A source image has two partners: strike out its column when it is taken.": (
            table.argmin(1).tolist()
        ),
        "You let the poisons choose in their order: the two that are nearest of ALL that are left "
        "go first.": one_after_the_other(table),
        "You paired the farthest: the nearest go first.": in_order(-table),
        "That is the pairing with the smallest sum; the greedy one takes the nearest two first.": (
            linear_sum_assignment(table)[1].tolist()
        ),
        "Place i belongs to poison i: you gave the pairs in the order in which they were made.": [
            right[i] for i in in_turn
        ],
        "The nearest by the largest inner product is another one: take distances.": in_order(
            -x @ s.T
        ),
        "The nearest by the angle is another one: take distances.": in_order(
            -units[0] @ units[1].T
        ),
        "The distance is Euclidean, not the sum of sizes.": in_order(
            abs(x[:, None] - s[None]).sum(2)
        ),
        "You paired in the order of the data, without a look at the distances.": [
            *range(len(right))
        ],
    }


@recorded
def check_faint_trigger(faint: Callable) -> None:
    """Compares with moving pixel by pixel. Raises CheckFailed."""
    generator = torch.Generator().manual_seed(0)
    rows = []
    for side, epsilon in ((4, 16 / 255), (6, 0.25), (5, 1.0)):
        images = torch.rand(3, 1, side, side, generator=generator)
        trigger = corner_trigger(side, generator)
        case = f"images of {side} by {side} pixels, epsilon {epsilon:.3f}"
        found = as_tensor(attempt(faint, images, trigger, epsilon), images.shape, case, "images")
        given = images.double().numpy(), trigger(images).double().numpy(), epsilon
        pairs = zip(*(part.ravel() for part in given[:2]), strict=True)
        expected = [was + max(-epsilon, min(epsilon, aim - was)) for was, aim in pairs]
        rows.append((case, given, found, np.reshape(expected, images.shape)))
    compare(rows, "the pixel", faint_slips)
    passed(faint)


def corner_trigger(side: int, generator: torch.Generator) -> Callable[[Tensor], Tensor]:
    """A trigger of 2 by 2 random grey levels in a corner."""
    patch = torch.rand(2, 2, generator=generator)

    def trigger(images: Tensor) -> Tensor:
        images = images.clone()
        images[:, :, side - 2 :, side - 2 :] = patch
        return images

    return trigger


def faint_slips(images: np.ndarray, patched: np.ndarray, epsilon: float) -> dict[str, np.ndarray]:
    """What common mistakes make of the faint trigger."""
    way = patched - images
    cut = way.clip(-epsilon, epsilon)
    return {
        "That is the trigger in full: no pixel may move by more than epsilon.": patched,
        "That mixes the two: a pixel may go all of epsilon, but not further.": images
        + epsilon * way,
        "The way is shorter than epsilon: stop at the patched copy.": images
        + epsilon * np.sign(way),
        "Pixel by pixel: do not scale the whole way down to epsilon.": images
        + way * min(1, epsilon / abs(way).max()),
        "Epsilon bounds each pixel, not the Euclidean length of the way.": images
        + way * min(1, epsilon / np.sqrt((way**2).sum())),
        "You walked away from the patched copy: mind the sign.": images - cut,
        "That is the change: add it to the images.": cut,
        "Start at the images, not at their patched copies.": patched + cut,
        "A pixel may get darker too: the lower end is missing.": images + way.clip(max=epsilon),
        "A pixel may get darker too: do not cut the way off at 0.": images + way.clip(0, epsilon),
        "A pixel may get brighter too: the upper end is missing.": images + way.clip(min=-epsilon),
        "Clamp the way to the patched copy, not the pixels.": patched.clip(0, epsilon),
        "A pixel that is too far is to go as far as it may, not to stay.": np.where(
            abs(way) <= epsilon, patched, images
        ),
        "Epsilon is in values of [0, 1] already: do not divide by 255.": images
        + way.clip(-epsilon / 255, epsilon / 255),
        "The images came back as they were.": images,
    }


@recorded
def check_patched_gradient(gradient: Callable) -> None:
    """Compares with the mean of gradients of one image at a time. Raises CheckFailed."""
    generator = torch.Generator().manual_seed(0)
    rows = []
    for source, target, n_classes in ((0, 1, 2), (2, 0, 3), (1, 3, 4)):
        images = torch.rand(20, 1, 6, 6, generator=generator)
        labels = torch.arange(20) % n_classes
        goal = Backdoor(corner_trigger(6, generator), target, source)
        model = build("mlp", (1, 6, 6), n_classes, seed=source, width=8)
        case = f"20 images, source class {source}, target class {target}"
        answer = attempt(gradient, model, images, labels, goal)
        shapes = [p.shape for p in model.parameters()]
        found = np.concatenate([part.ravel() for part in as_gradient(answer, shapes, case)])
        require(
            not any(part.requires_grad for part in answer),
            f"The gradient still hangs on the model: it is a constant from here on; {case}.",
        )
        chosen = labels == source
        wanted = torch.full((int(chosen.sum()),), target)
        right = slow_gradient(model, goal.trigger(images[chosen]), wanted)
        rows.append((case, (model, images, labels, goal), found, right))
    compare(rows, "the gradient, over all parameters,", gradient_slips)
    passed(gradient)


def slow_gradient(model: nn.Module, images: Tensor, labels: Tensor) -> np.ndarray:
    """The mean over images of the gradient of minus the log-probability of the label."""
    parameters = list(model.parameters())
    total = np.zeros(sum(p.numel() for p in parameters))
    for image, label in zip(images, labels.tolist(), strict=True):
        loss = -torch.log(torch.softmax(model(image[None])[0], 0)[label])
        parts = torch.autograd.grad(loss, parameters)
        total += np.concatenate([part.numpy().ravel() for part in parts]) / len(images)
    return total


def gradient_slips(
    model: nn.Module, images: Tensor, labels: Tensor, goal: Backdoor
) -> dict[str, np.ndarray]:
    """What common mistakes make of the gradient of the backdoor."""
    source, of_target = labels == goal.source_class, labels == goal.target_class
    target, patched = torch.full_like(labels, goal.target_class), goal.trigger(images)

    def slope(chosen: Tensor, images: Tensor = patched, labels: Tensor = target) -> np.ndarray:
        return slow_gradient(model, images[chosen], labels[chosen])

    right = slope(source)
    return {
        "The trigger is missing.": slope(source, images),
        "The labels must be those that the attacker wants, the target class.": slope(
            source, patched, labels
        ),
        "The trigger and the label of the target class are missing.": slope(source, images, labels),
        "Only the source class counts.": slope(labels >= 0),
        "Only the source class counts, not every class but the target.": slope(~of_target),
        "You took the images of the target class: take those of the source class.": slope(
            of_target
        ),
        "Take the mean of the losses, not the sum.": right * int(source.sum()),
        "The mean goes over the source images, not over the whole batch.": right
        * source.float().mean().item(),
        "The sign is turned: no minus is needed.": -right,
        "All source images count, not only the first.": slow_gradient(
            model, patched[source][:1], target[:1]
        ),
        "Leave the length of the gradient as it is.": right / np.linalg.norm(right),
        "You use target class 0 whatever the goal says.": slope(
            source, patched, torch.zeros_like(labels)
        ),
    }
