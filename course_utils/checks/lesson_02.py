"""Checks of lesson 02, label flipping."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from course_utils.checks import CheckFailed, attempt, passed, require
from course_utils.checks.answers import as_array, as_rows, as_tensor, compare, instead
from course_utils.record import recorded


@recorded
def check_expected_targets(targets: Callable) -> None:
    """Compares with adding up every label that the noise can give. Raises CheckFailed."""
    rows = []
    for labels, n_classes, noise in (
        ([0, 1, 1], 2, 0.3),
        ([2, 0, 1, 2], 3, 0.2),
        ([4, 9], 10, 0.45),
        ([1, 0], 4, 0.0),
    ):
        expected = torch.zeros(len(labels), n_classes)
        for i, label in enumerate(labels):
            for drawn in range(n_classes):
                kept = drawn == label
                expected[i, drawn] += 1 - noise if kept else noise / (n_classes - 1)
        given = torch.tensor(labels), n_classes, noise
        case = f"labels {labels}, {n_classes} classes, noise {noise}"
        found = as_tensor(attempt(targets, *given), expected.shape, case)
        rows.append((case, given, found, expected))
    compare(rows, "the probability (image, class)", target_slips)
    passed(targets)


def target_slips(labels: Tensor, n_classes: int, noise: float) -> dict[str, Tensor]:
    """What common mistakes make of the expected labels."""
    own = labels[:, None] == torch.arange(n_classes)
    others = noise / (n_classes - 1)
    right = torch.where(own, 1 - noise, others)
    one_by_one = torch.arange(len(labels))[:, None] == torch.arange(n_classes)
    return {
        "The probabilities of an image must add up to 1: the other classes share the noise.": (
            torch.where(own, 1 - noise, noise)
        ),
        "The probabilities must add up to 1: the true class loses what the others get.": (
            torch.where(own, 1, others)
        ),
        "The probabilities must add up to 1: share the noise among the n_classes - 1 others.": (
            torch.where(own, 1 - noise, noise / n_classes)
        ),
        "A flipped label never stays what it was: it goes to one of the OTHER classes.": (
            torch.where(own, 1 - noise + noise / n_classes, noise / n_classes)
        ),
        "The noise is what is flipped, not what is kept.": torch.where(
            own, noise, (1 - noise) / (n_classes - 1)
        ),
        "Whole numbers cut off what is behind the point: add .float() to one_hot.": right.trunc(),
        "Those are the labels without noise.": own,
        "That is the most likely label; the expected one is a row of probabilities.": (
            (right == right.amax(1, keepdim=True)) & own
        ),
        "All classes alike would be a noise of (K - 1) / K.": torch.full_like(right, 1 / n_classes),
        "Row i belongs to image i: its true class is labels[i], not i.": torch.where(
            one_by_one, 1 - noise, others
        ),
        "You use a noise of 0.3 whatever `noise` is.": torch.where(own, 0.7, 0.3 / (n_classes - 1)),
        "The rows are logarithms: return the probabilities.": right.log(),
    }


@recorded
def check_choose_flips(choose: Callable) -> None:
    """Compares with walking through all flips, the most harmful first. Raises CheckFailed."""
    generator = torch.Generator().manual_seed(0)
    rows = []
    for n, n_classes, budget in ((6, 2, 2), (8, 3, 3), (12, 5, 6), (40, 10, 25), (5, 4, 5)):
        loss = 5 * torch.rand(n, n_classes, generator=generator)
        labels = torch.randint(n_classes, (n,), generator=generator)
        loss[0, labels[0]] = 6.0  # the surrogate is quite wrong about this image
        case = f"{n} images, {n_classes} classes, budget {budget}"
        answer = attempt(choose, loss, labels, budget)
        require(
            isinstance(answer, tuple | list) and len(answer) == 2,
            f"Return two tensors, the rows and their new labels{instead(answer)}; {case}.",
        )
        chosen = as_rows(answer[0], budget, n, case)
        new = as_rows(answer[1], budget, n_classes, case, "new labels")
        require(len(set(chosen)) == budget, f"An image is flipped more than once: {case}.")
        for row, label in zip(chosen, new, strict=True):
            require(
                label != labels[row],
                f"Image {row} keeps its label {label}: that is no flip ({case}).",
            )
        found = dict(zip(chosen, new, strict=True))
        rows.append((case, loss, found, slowly(loss, labels, budget), flip_slips(loss, labels)))
    compare_flips(rows)
    passed(choose)


def slowly(loss: Tensor, labels: Tensor, budget: int) -> dict[int, int]:
    """The most harmful flips by image, found one after the other."""
    n, n_classes = loss.shape
    every = [(loss[i, k].item(), i, k) for i in range(n) for k in range(n_classes)]
    chosen = {}
    for _, i, k in sorted(every, reverse=True):
        if k != labels[i] and i not in chosen and len(chosen) < budget:
            chosen[i] = k
    return chosen


def flip_slips(loss: Tensor, labels: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """What common mistakes make of the flips: the images in their order, and their new labels."""
    every = torch.arange(len(labels))
    own = labels[:, None] == torch.arange(loss.shape[1])
    worst, to_worst = loss.masked_fill(own, -torch.inf).max(1)
    best, to_best = loss.masked_fill(own, torch.inf).min(1)
    gain = worst - loss[every, labels]
    return {
        "You chose the least harmful images: the largest loss comes first.": (
            worst.argsort(),
            to_worst,
        ),
        "You chose the least harmful label of each image: take the largest loss.": (
            best.argsort(descending=True),
            to_best,
        ),
        "The smallest losses do the least harm: take the largest.": (best.argsort(), to_best),
        "You sorted the images by the loss of their own label: sort by that of the new one.": (
            loss[every, labels].argsort(descending=True),
            to_worst,
        ),
        "You sorted by what a flip adds to the loss: sort by the loss of the new label.": (
            gain.argsort(descending=True),
            to_worst,
        ),
        "You took the first images: sort them by their loss.": (every, to_worst),
        "You gave the next class to each: take the label with the largest loss.": (
            worst.argsort(descending=True),
            (labels + 1) % loss.shape[1],
        ),
    }


def compare_flips(rows: list[tuple]) -> None:
    """Fail with the first image on which the choices differ."""
    for case, loss, found, expected, slips in rows:
        wrong = [row for row, label in expected.items() if found.get(row) != label]
        if not wrong:
            continue
        advice = ""
        for text in slips:
            made = [
                dict(zip(order.tolist()[: len(f)], new[order].tolist(), strict=False)) == f
                for _, _, f, _, by in rows
                for order, new in [by[text]]
            ]
            if all(made):
                advice = text
        row, label = wrong[0], expected[wrong[0]]
        yours = f", you chose its label {found[row]}" if row in found else ""
        raise CheckFailed(
            f"The flip of image {row} to label {label}, with a loss of {loss[row, label]:.3f}, is "
            f"missing{yours}; {case}. {advice}"
        )


@recorded
def check_relative_accuracy_drop(drop: Callable) -> None:
    """Compares with taking one trial after the other. Raises CheckFailed."""
    rows = []
    for clean, poisoned in (
        ([0.8, 0.5], [0.6, 0.4]),
        ([0.9, 0.95, 0.92], [0.9, 0.97, 0.46]),
        ([1.0], [0.25]),
    ):
        expected = [1 - after / before for before, after in zip(clean, poisoned, strict=True)]
        given = np.array(clean), np.array(poisoned)
        case = f"clean {clean}, poisoned {poisoned}"
        found = as_array(attempt(drop, *given), (len(clean),), case, "one value a trial, an array")
        rows.append((case, given, found, expected))
    compare(rows, "the drop", drop_slips)
    passed(drop)


def drop_slips(clean: np.ndarray, poisoned: np.ndarray) -> dict[str, np.ndarray]:
    """What common mistakes make of the drop."""
    points = clean - poisoned
    right = points / clean
    return {
        "That is the drop in points: the relative drop is a share of something.": points,
        "The drop is a share of the clean accuracy, not of the poisoned one.": points / poisoned,
        "A loss of accuracy is a positive drop.": -right,
        "That is what is left, not what is lost.": poisoned / clean,
        "A share, no percent.": 100 * right,
        "Each trial has a clean victim of its own: do not average them.": points / clean.mean(),
        "The mean comes later, and the trials are not alike.": np.full_like(right, right.mean()),
        "A poison may help: the drop is then negative, not cut off at 0.": right.clip(min=0),
        "A poison may help: the drop is then negative.": abs(right),
        "Do not round.": right.round(2),
        "It is a share of the accuracy, not of the error.": points / (1 - clean + 1e-12),
    }
