"""Checks of lesson 02, label flipping."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from course_utils.checks import attempt, passed, require


def check_expected_targets(targets: Callable) -> None:
    """Compares with adding up every label that the noise can give. Raises CheckFailed."""
    cases = [([0, 1, 1], 2, 0.3), ([2, 0, 1, 2], 3, 0.2), ([4, 9], 10, 0.45), ([1, 0], 4, 0.0)]
    for labels, n_classes, noise in cases:
        expected = torch.zeros(len(labels), n_classes)
        for i, label in enumerate(labels):
            for drawn in range(n_classes):
                kept = drawn == label
                expected[i, drawn] += 1 - noise if kept else noise / (n_classes - 1)
        found = attempt(targets, torch.tensor(labels), n_classes, noise)
        case = f"labels {labels}, {n_classes} classes, noise {noise}"
        require(
            isinstance(found, Tensor) and found.shape == expected.shape,
            f"Return a tensor of shape {tuple(expected.shape)}; for {case} you did not.",
        )
        if torch.allclose(found.float(), expected, atol=1e-6):
            continue
        hint = ""
        if not torch.allclose(found.float().sum(1), torch.ones(len(labels)), atol=1e-5):
            hint = " The probabilities of an image must add up to 1."
        elif torch.allclose(found.float().max(1).values, (expected + noise / n_classes).max(1)[0]):
            hint = " A flipped label never stays what it was: it goes to one of the OTHER classes."
        row = int((found.float() - expected).abs().amax(1).argmax())
        require(
            False,
            f"For {case} the row of label {labels[row]} should be {rounded(expected[row])}, "
            f"you gave {rounded(found[row])}.{hint}",
        )
    passed(targets)


def check_choose_flips(choose: Callable) -> None:
    """Compares with walking through all flips, the most harmful first. Raises CheckFailed."""
    generator = torch.Generator().manual_seed(0)
    for n, n_classes, budget in ((6, 2, 2), (8, 3, 3), (12, 5, 6), (40, 10, 25), (5, 4, 5)):
        loss = 5 * torch.rand(n, n_classes, generator=generator)
        labels = torch.randint(n_classes, (n,), generator=generator)
        loss[0, labels[0]] = 6.0  # the surrogate is quite wrong about this image
        case = f"{n} images, {n_classes} classes, budget {budget}"
        before = loss.clone(), labels.clone()
        answer = attempt(choose, loss, labels, budget)
        require(
            isinstance(answer, tuple) and len(answer) == 2,
            f"Return two tensors, the rows and their new labels; for {case} you did not.",
        )
        require(
            torch.equal(loss, before[0]) and torch.equal(labels, before[1]),
            f"The tensors that came in were changed, for {case}: work on a clone().",
        )
        rows, new = answer[0].tolist(), answer[1].tolist()
        require(len(rows) == len(new) == budget, f"Choose {budget} flips, not {len(rows)}: {case}.")
        require(len(set(rows)) == budget, f"An image is flipped more than once: {case}.")
        for row, label in zip(rows, new, strict=True):
            require(
                label != labels[row],
                f"Image {row} keeps its label {label}: that is no flip ({case}).",
            )
        compare_flips(dict(zip(rows, new, strict=True)), slowly(loss, labels, budget), loss, case)
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


def compare_flips(found: dict[int, int], expected: dict[int, int], loss: Tensor, case: str) -> None:
    """Fail with the first image on which the choices differ."""
    for row, label in expected.items():
        flip = f"image {row} to label {label}, with a loss of {loss[row, label]:.2f}"
        require(row in found, f"The flip of {flip}, is missing: {case}.")
        require(
            found[row] == label,
            f"The most harmful flip is {flip}; you chose label {found[row]}, with "
            f"{loss[row, found[row]]:.2f}: {case}.",
        )


def check_relative_accuracy_drop(drop: Callable) -> None:
    """Compares with taking one trial after the other. Raises CheckFailed."""
    cases = [([0.8, 0.5], [0.6, 0.4]), ([0.9, 0.95, 0.92], [0.9, 0.97, 0.46]), ([1.0], [0.25])]
    for clean, poisoned in cases:
        pairs = list(zip(clean, poisoned, strict=True))
        expected = [1 - after / before for before, after in pairs]
        found = np.asarray(attempt(drop, np.array(clean), np.array(poisoned)))
        case = f"clean {clean}, poisoned {poisoned}"
        require(
            found.shape == (len(clean),),
            f"Return one value a trial; for {case} you gave an array of shape {found.shape}.",
        )
        if np.allclose(found, expected, atol=1e-6):
            continue
        hint = ""
        if np.allclose(found, [before - after for before, after in pairs]):
            hint = " That is the drop in points: the relative drop is a share of something."
        elif np.allclose(found, [(before - after) / after for before, after in pairs]):
            hint = " The drop is a share of the clean accuracy, not of the poisoned one."
        elif np.allclose(found, [-value for value in expected]):
            hint = " A loss of accuracy is a positive drop."
        require(
            False,
            f"For {case} the drops are {rounded(expected)}, you gave {rounded(found)}.{hint}",
        )
    passed(drop)


def rounded(values) -> list[float]:
    """Three decimals, for a message."""
    return [round(float(value), 3) for value in values]
