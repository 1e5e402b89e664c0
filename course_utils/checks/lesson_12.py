"""Checks of lesson 12, mixing augmentations."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from course_utils.checks import attempt, passed, require

# height, width, share that stays, centre
BOXES = (
    (28, 28, 0.75, 14, 14),
    (28, 28, 0.75, 2, 25),
    (28, 28, 0.36, 27, 0),
    (10, 20, 0.5, 5, 10),
    (10, 20, 0.19, 9, 3),
    (9, 9, 0.0, 4, 4),
    (9, 9, 1.0, 4, 4),
)


def check_cutmix_box(box: Callable) -> None:
    """Compares with the pixels whose distance from the centre is small. Raises CheckFailed."""
    for height, width, share, row, column in BOXES:
        case = f"{height} by {width} pixels, share {share}, centre ({row}, {column})"
        answer = attempt(box, height, width, share, row, column)
        require(
            isinstance(answer, tuple | list)
            and len(answer) == 4
            and all(isinstance(end, int | np.integer) for end in answer),
            f"Return four whole numbers, top, bottom, left and right; for {case} you gave "
            f"{answer!r}.",
        )
        top, bottom, left, right = answer
        expected = ends(height, share, row), ends(width, share, column)
        compare_box(((top, bottom), (left, right)), expected, (height, width), case)
    passed(box)


def ends(size: int, share: float, centre: int) -> tuple[int, int]:
    """The ends of the box along one axis, found pixel by pixel."""
    length = 0
    while (length + 1) ** 2 <= size**2 * (1 - share) + 1e-9:
        length += 1
    inside = [i for i in range(size) if centre - length // 2 <= i < centre - length // 2 + length]
    return (inside[0], inside[-1] + 1) if inside else (centre, centre)


def compare_box(found: tuple, expected: tuple, sizes: tuple[int, int], case: str) -> None:
    """Fail unless both axes agree; name the usual mistakes."""
    if found == expected or (empty(found) and empty(expected)):
        return
    hint = ""
    lengths = [last - first for first, last in found]
    outside = any(
        first < 0 or last > size for (first, last), size in zip(found, sizes, strict=True)
    )
    if outside:
        hint = " It reaches over an edge of the image: cut that off."
    elif found == expected[::-1]:
        hint = " Rows first: top and bottom go with the height, left and right with the width."
    elif any(
        length > last - first for length, (first, last) in zip(lengths, expected, strict=True)
    ):
        hint = (
            " It is too large: the share is that of the image that stays, and the box has the rest."
        )
    elif any(
        length < last - first for length, (first, last) in zip(lengths, expected, strict=True)
    ):
        hint = " It is too small: a share of 0.25 needs sides of a half, the square root."
    (top, bottom), (left, right) = expected
    require(
        False,
        f"For {case} the box has the rows {top} to {bottom} and the columns {left} to {right}, "
        f"you gave {found[0][0]} to {found[0][1]} and {found[1][0]} to {found[1][1]}.{hint}",
    )


def empty(box: tuple) -> bool:
    """Whether a box holds no pixel."""
    return any(last <= first for first, last in box)


def check_hardest(hardest: Callable) -> None:
    """Compares with a loop over the images. Raises CheckFailed."""
    generator = torch.Generator().manual_seed(0)
    for count, n, n_classes in ((1, 3, 2), (3, 4, 3), (4, 4, 5), (5, 2, 4)):
        losses = torch.rand(count, n, generator=generator)
        images = torch.rand(count, n, 1, 3, 3, generator=generator)
        hard = torch.randint(n_classes, (count, n), generator=generator)
        soft = torch.rand(count, n, n_classes, generator=generator)
        for kind, labels in (("labels", hard), ("soft labels", soft / soft.sum(2, keepdim=True))):
            case = f"{count} candidates for {n} images, with {kind}"
            inputs = losses.clone(), images.clone(), labels.clone()
            answer = attempt(hardest, *inputs)
            require(
                isinstance(answer, tuple | list)
                and len(answer) == 2
                and all(isinstance(part, Tensor) for part in answer),
                f"Return two tensors, the images and their labels; for {case} you did not.",
            )
            compare_candidates(answer, losses, images, labels, case)
    passed(hardest)


def compare_candidates(
    answer: tuple, losses: Tensor, images: Tensor, labels: Tensor, case: str
) -> None:
    """Fail with the first image whose candidate is not its worst."""
    found, named = answer
    shapes = images.shape[1:], labels.shape[1:]
    require(
        (found.shape, named.shape) == shapes,
        f"For {case} the shapes should be {tuple(shapes[0])} and {tuple(shapes[1])}, yours are "
        f"{tuple(found.shape)} and {tuple(named.shape)}: keep one candidate of each image.",
    )
    for i in strangers_first(found, images):
        table = [round(loss.item(), 2) for loss in losses[:, i]]
        worst = max(range(len(losses)), key=lambda k: losses[k, i].item())
        if not torch.equal(found[i], images[worst, i]):
            hint = pick_hint(found[i], i, losses, images)
            require(
                False,
                f"For {case}, image {i} has the losses {table}, so its candidate {worst} is the "
                f"hardest, but you gave something else.{hint}",
            )
        require(
            torch.equal(named[i], labels[worst, i]),
            f"For {case}, image {i} is candidate {worst}, but its label is not that candidate's: "
            "an augmentation may change labels, so they must come from the same candidate.",
        )


def pick_hint(picked: Tensor, i: int, losses: Tensor, images: Tensor) -> str:
    """What the usual mistakes would have picked for image i."""
    if torch.equal(picked, images[losses[:, i].argmin(), i]):
        return " You gave the easiest."
    if torch.allclose(picked, images[:, i].mean(0)):
        return " You gave the mean of the candidates: a mean is not a maximum."
    if torch.equal(picked, images[losses.sum(1).argmax(), i]):
        return " Choose for each image by itself, not one candidate for the whole batch."
    if not is_candidate(picked, images[:, i]):
        return f" It is no candidate of image {i} at all: the first axis counts the candidates."
    return ""


def is_candidate(picked: Tensor, candidates: Tensor) -> bool:
    """Whether an image is one of its candidates."""
    return any(torch.equal(picked, candidate) for candidate in candidates)


def strangers_first(found: Tensor, images: Tensor) -> list[int]:
    """The images, first those that are none of their candidates: they say most of a mistake."""
    return sorted(range(len(found)), key=lambda i: is_candidate(found[i], images[:, i]))
