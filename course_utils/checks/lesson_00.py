"""Checks of lesson 00, start here."""

from collections.abc import Callable

import torch
from torch import Tensor

from course_utils.checks import attempt, passed, require
from course_utils.checks.answers import as_number, as_tensor, compare, side_by_side
from course_utils.record import recorded


@recorded
def check_stamp(stamp: Callable) -> None:
    """The square is where the docstring says, everything else is untouched. Raises CheckFailed."""
    generator = torch.Generator().manual_seed(0)
    for shape, size in (((3, 1, 28, 28), 4), ((2, 3, 12, 16), 3), ((1, 1, 6, 6), 1)):
        images = torch.rand(shape, generator=generator) * 0.9
        case = f"images of shape {shape} with size={size}"
        found = as_tensor(attempt(stamp, images, size), shape, case, "stamped copies of all images")
        compare_squares(found, images.double(), size, case)
    found = attempt(stamp, torch.zeros(1, 1, 28, 28))
    require(int(found.sum()) == 16, "Without a size, the square should be 4 by 4 pixels.")
    passed(stamp)


def compare_squares(found: Tensor, images: Tensor, size: int, case: str) -> None:
    """Fail with the first image and channel whose square is elsewhere, or is not white."""
    sides = [range(side - 1 - size, side - 1) for side in images.shape[2:]]
    wanted = " and ".join(
        f"{name} {side[0]} to {side[-1]}"
        for name, side in zip(("rows", "columns"), sides, strict=True)
    )
    for image in range(len(images)):
        for channel in range(images.shape[1]):
            places = (found[image, channel] != images[image, channel]).nonzero()
            where = f"image {image}, channel {channel} of {case}"
            require(len(places) > 0, f"No pixel has changed in {where}.")
            (top, left), (bottom, right) = places.min(0).values, places.max(0).values
            box = [*range(top, bottom + 1)], [*range(left, right + 1)]
            require(
                box == tuple(map(list, sides)),
                f"The square should cover {wanted}; you changed rows {top} to {bottom} and columns "
                f"{left} to {right}, in {where}.",
            )
            square = found[image, channel][places[:, 0], places[:, 1]]
            worst = square[(square - 1).abs().argmax()].item()
            require(
                len(square) == size**2 and worst == 1,
                f"Every pixel of the square should be white, a value of {side_by_side(1, worst)[0]}"
                f"; one is {side_by_side(1, worst)[1]}, in {where}. Assign 1.0, do not add it.",
            )


@recorded
def check_attack_success_rate(rate: Callable) -> None:
    """Compares with counting one image after the other. Raises CheckFailed."""
    cases = [
        ([7, 7, 1, 2, 7], [0, 1, 1, 2, 7], 7),
        ([7, 7, 7, 0, 4], [7, 7, 0, 0, 3], 7),
        ([3, 3, 3, 3, 1], [3, 3, 3, 5, 3], 3),
        ([0, 1, 2, 0, 0, 2], [1, 1, 2, 0, 2, 1], 0),
        ([2, 5, 1, 0, 2], [1, 1, 1, 0, 0], 0),
    ]
    rows = []
    for predicted, true, target in cases:
        case = f"predicted {predicted}, true {true}, target class {target}"
        attacked = [p for p, t in zip(predicted, true, strict=True) if t != target]
        expected = sum(p == target for p in attacked) / len(attacked)
        given = torch.tensor(predicted), torch.tensor(true), target
        found = attempt(rate, *given)
        require(
            not isinstance(found, Tensor),
            f"Return a number, not Tensor: end with .item(); {case}.",
        )
        rows.append((case, given, as_number(found, case), expected))
    compare(rows, "the rate", rate_slips)
    passed(rate)


def rate_slips(predicted: Tensor, true: Tensor, target: int) -> dict[str, float]:
    """What common mistakes make of the attack success rate."""
    hits, attacked = predicted == target, true != target
    right = share(hits[attacked])
    return {
        "You counted images that truly belong to the target class.": share(hits),
        "The numerator is right; the denominator counts too many images.": share(hits & attacked),
        "You counted every mistake: a success is one INTO the target class.": share(
            (predicted != true)[attacked]
        ),
        "That is the share of failures.": 1 - right,
        "You kept the images OF the target class; they are those that do not count.": share(
            hits[~attacked]
        ),
        "A share lies between 0 and 1: no percent.": 100 * right,
        "That is how many, not which share.": int((hits & attacked).sum()),
        "You divided by the images that were called the target class.": share(attacked[hits]),
        "You look for class 7 whatever `target_class` is.": share((predicted == 7)[true != 7]),
        "Do not round the rate.": round(right),
    }


def share(mask: Tensor) -> float:
    """The share of True; NaN if there is nothing to count."""
    return mask.double().mean().item()
