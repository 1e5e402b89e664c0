"""Checks of lesson 12, mixing augmentations."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from course_utils.checks import attempt, passed, require
from course_utils.checks.answers import as_array, as_tensor, instead
from course_utils.checks.mistakes import diagnosis
from course_utils.record import recorded

# height, width, share that stays, centre
BOXES = (
    (28, 28, 0.75, 14, 14),
    (28, 28, 0.75, 2, 25),
    (28, 28, 0.36, 27, 0),
    (10, 20, 0.5, 5, 10),
    (10, 20, 0.2, 4, 12),
    (9, 13, 0.4, 8, 3),
    (9, 9, 0.0, 4, 4),
    (9, 9, 1.0, 4, 4),
)


@recorded
def check_cutmix_box(box: Callable) -> None:
    """Compares with the pixels whose distance from the centre is small. Raises CheckFailed."""
    found, expected = [], []
    for inputs in BOXES:
        height, width, share, row, column = inputs
        answer = attempt(box, *inputs)
        as_array(answer, (4,), told(inputs), "top, bottom, left and right, four whole numbers,")
        ends = np.asarray(answer)
        require(
            ends.dtype.kind in "iu",
            f"Return four whole numbers, top, bottom, left and right; {told(inputs)} you gave "
            f"{answer!r}.",
        )
        found.append(tuple(ends.tolist()))
        expected.append((*inside(height, share, row), *inside(width, share, column)))
    for inputs, got, wanted in zip(BOXES, found, expected, strict=True):
        if got == wanted or (empty(got) and empty(wanted)):
            continue
        hint = diagnosis(found, MISTAKES, BOXES)
        if not hint and (min(got) < 0 or got[1] > inputs[0] or got[3] > inputs[1]):
            hint = " It reaches over an edge of the image: cut that off."
        require(
            False,
            f"{told(inputs).capitalize()} the box has the rows {wanted[0]} to {wanted[1]} and the "
            f"columns {wanted[2]} to {wanted[3]}, you gave {got[0]} to {got[1]} and {got[2]} to "
            f"{got[3]}.{hint}",
        )
    passed(box)


def told(inputs: tuple) -> str:
    """A case in words."""
    height, width, share, row, column = inputs
    return f"for {height} by {width} pixels, share {share}, centre ({row}, {column})"


def inside(size: int, share: float, centre: int) -> tuple[int, int]:
    """The ends of the box along one axis, found pixel by pixel."""
    length = 0
    while (length + 1) ** 2 <= size**2 * (1 - share) + 1e-9:
        length += 1
    pixels = [i for i in range(size) if centre - length // 2 <= i < centre - length // 2 + length]
    return (pixels[0], pixels[-1] + 1) if pixels else (centre, centre)


def empty(box: tuple) -> bool:
    """Whether a box holds no pixel."""
    return box[1] <= box[0] or box[3] <= box[2]


def made(tall: float, wide: float, height: int, width: int, row: int, column: int) -> tuple:
    """The box of these sides around the centre, cut to the image."""
    top, left = row - tall // 2, column - wide // 2
    return max(top, 0), min(top + tall, height), max(left, 0), min(left + wide, width)


def sides(height: int, width: int, share: float, whole: Callable = math.floor) -> tuple[int, int]:
    """The sides of the box, as whole pixels."""
    return tuple(whole(side * (1 - share) ** 0.5) for side in (height, width))


def right(h: int, w: int, share: float, row: int, column: int) -> tuple:
    """The box by its formula."""
    return made(*sides(h, w, share), h, w, row, column)


def moved(h: int, w: int, share: float, row: int, column: int) -> tuple:
    """The whole box, moved into the image: a usual mistake."""
    tall, wide = sides(h, w, share)
    top, left = np.clip((row - tall // 2, column - wide // 2), 0, (h - tall, w - wide))
    return top, top + tall, left, left + wide


def halves(h: int, w: int, share: float, row: int, column: int) -> tuple:
    """Half a side, rounded down, on both sides of the centre: a usual mistake."""
    tall, wide = (2 * (side // 2) for side in sides(h, w, share))
    return made(tall, wide, h, w, row, column)


def middle(h: int, w: int, tall: int, wide: int) -> tuple:
    """A box in the middle of the image."""
    top, left = (h - tall) // 2, (w - wide) // 2
    return top, top + tall, left, left + wide


MISTAKES: dict[str, Callable] = {
    "It is too small: a share of 0.25 needs sides of a half, the square root.": (
        lambda h, w, s, r, c: made(int(h * (1 - s)), int(w * (1 - s)), h, w, r, c)
    ),
    "The share is that of the image that stays, and the box has the rest.": (
        lambda h, w, s, r, c: right(h, w, 1 - s, r, c)
    ),
    "You moved it inside: it stays where it is, and what reaches over is cut off.": moved,
    "Rows first: top and bottom go with the height, left and right with the width.": (
        lambda h, w, s, r, c: (*right(h, w, s, r, c)[2:], *right(h, w, s, r, c)[:2])
    ),
    "The order is top and bottom before left and right.": (
        lambda h, w, s, r, c: tuple(right(h, w, s, r, c)[k] for k in (0, 2, 1, 3))
    ),
    "Round the sides down to whole pixels, not to the nearest.": lambda h, w, s, r, c: made(
        *sides(h, w, s, round), h, w, r, c
    ),
    "Round the sides down to whole pixels, not up.": lambda h, w, s, r, c: made(
        *sides(h, w, s, math.ceil), h, w, r, c
    ),
    "(row, column) is the centre of the box, not its first corner.": lambda h, w, s, r, c: (
        r,
        min(r + sides(h, w, s)[0], h),
        c,
        min(c + sides(h, w, s)[1], w),
    ),
    "Return both ends of an axis, not the length of the box.": lambda h, w, s, r, c: tuple(
        end - start
        for ends in (right(h, w, s, r, c)[:2], right(h, w, s, r, c)[2:])
        for end, start in zip(ends, (0, ends[0]), strict=True)
    ),
    "bottom and right are one after the last row and column.": lambda h, w, s, r, c: tuple(
        end - k % 2 for k, end in enumerate(right(h, w, s, r, c))
    ),
    "With an odd side the box has one pixel more after the centre: end at first + side.": halves,
    "Each axis has a side of its own.": lambda h, w, s, r, c: made(
        *sides(min(h, w), min(h, w), s), h, w, r, c
    ),
    "The centre is at `row` and `column`, not in the middle of the image.": (
        lambda h, w, s, r, c: middle(h, w, *sides(h, w, s))
    ),
}


@recorded
def check_hardest(hardest: Callable) -> None:
    """Compares with a loop over the images. Raises CheckFailed."""
    generator = torch.Generator().manual_seed(0)
    for count, n, n_classes in ((3, 4, 3), (1, 3, 2), (4, 4, 5), (5, 2, 4)):
        losses = torch.rand(count, n, generator=generator)
        images = torch.rand(count, n, 1, 3, 3, generator=generator)
        hard = torch.randint(n_classes, (count, n), generator=generator)
        soft = torch.rand(count, n, n_classes, generator=generator)
        for kind, labels in (("labels", hard), ("soft labels", soft / soft.sum(2, keepdim=True))):
            case = f"for {count} candidates of {n} images, with {kind}"
            answer = attempt(hardest, losses, images, labels)
            pair = isinstance(answer, tuple | list) and len(answer) == 2
            require(pair, f"Return two tensors, images and labels{instead(answer)}; {case}.")
            compare_candidates(answer, losses, images, labels, case)
    passed(hardest)


def compare_candidates(
    answer: tuple, losses: Tensor, images: Tensor, labels: Tensor, case: str
) -> None:
    """Fail with the first image whose candidate is not its worst."""
    hint = shape_hint(answer, losses, images)
    found = as_tensor(
        answer[0], images.shape[1:], f"keep one candidate of each image, {case}.{hint}", "images"
    )
    hint = " Soft labels stay soft, one row an image" if labels.ndim == 3 else ""
    named = as_tensor(answer[1], labels.shape[1:], f"{case}.{hint}", "labels")
    whole = answer[1].is_floating_point() == labels.is_floating_point()
    require(whole, f"The labels came as {labels.dtype} and left as {answer[1].dtype}; {case}.")
    for i in strangers_first(found, images):
        table = [round(loss.item(), 2) for loss in losses[:, i]]
        worst = max(range(len(losses)), key=lambda k: losses[k, i].item())
        if not near(found[i], images[worst, i]):
            require(
                False,
                f"F{case[1:]}, image {i} has the losses {table}, so its candidate {worst} is the "
                f"hardest, but you gave something else.{pick_hint(found, i, losses, images)}",
            )
        require(
            near(named[i], labels[worst, i]),
            f"F{case[1:]}, image {i} is candidate {worst}, but its label is not that candidate's: "
            "an augmentation may change labels, so they must come from the same candidate.",
        )


def shape_hint(answer: tuple, losses: Tensor, images: Tensor) -> str:
    """What images of a wrong shape come from."""
    shape, (count, n) = tuple(getattr(answer[0], "shape", ())), losses.shape
    if shape == (n,):
        return " Those are the losses themselves: return the images"
    if shape == (n, n, *images.shape[2:]):
        return " To pick one for each image, index with two lists: images[worst, columns]"
    if len(shape) == 4 and count == shape[0] != n:
        return " The first axis counts the candidates, so choose with argmax(0)"
    return ""


def pick_hint(found: Tensor, i: int, losses: Tensor, images: Tensor) -> str:
    """What the usual mistakes would have picked for image i."""
    picked, (low, high) = found[i], images[:, i].aminmax(dim=0)
    if near(found, images[losses.argmin(0), range(len(found))]):
        return " You gave the easiest."
    if near(found, images[losses.sum(1).argmax()]):
        return " Choose for each image by itself, not one candidate for the whole batch."
    if any(near(found, candidates) for candidates in images):
        return " Your choice ignores the losses: it is the same candidate for every image."
    if not is_candidate(picked, images[:, i]) and ((low <= picked) & (picked <= high)).all():
        return " You gave a mixture of the candidates: a mean is not a maximum."
    if not is_candidate(picked, images[:, i]):
        return f" It is no candidate of image {i} at all: the first axis counts the candidates."
    return ""


def near(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors have one shape and are equal up to rounding."""
    return first.shape == second.shape and torch.allclose(first.double(), second.double())


def is_candidate(picked: Tensor, candidates: Tensor) -> bool:
    """Whether an image is one of its candidates."""
    return any(near(picked, candidate) for candidate in candidates)


def strangers_first(found: Tensor, images: Tensor) -> list[int]:
    """The images, first those that are none of their candidates: they say most of a mistake."""
    return sorted(range(len(found)), key=lambda i: is_candidate(found[i], images[:, i]))
