"""Checks of lesson 00, start here."""

from collections.abc import Callable

import torch

from course_utils.checks import attempt, passed, require


def check_stamp(stamp: Callable) -> None:
    """The square is where the docstring says, everything else is untouched. Raises CheckFailed."""
    generator = torch.Generator().manual_seed(0)
    for shape, size in (((3, 1, 28, 28), 4), ((2, 3, 12, 16), 3), ((1, 1, 6, 6), 1)):
        images = torch.rand(shape, generator=generator) * 0.9
        before = images.clone()
        stamped = attempt(stamp, images, size)
        case = f"images of shape {shape} with size={size}"
        require(isinstance(stamped, torch.Tensor), f"Return a tensor; for {case} you did not.")
        require(torch.equal(images, before), f"The images that came in were changed, for {case}.")
        require(
            stamped.shape == images.shape,
            f"The shape changed from {shape} to {tuple(stamped.shape)}: return whole images.",
        )
        height, width = shape[2:]
        for row in range(height):
            for column in range(width):
                in_rows = height - 1 - size <= row < height - 1
                in_columns = width - 1 - size <= column < width - 1
                pixel, old = stamped[:, :, row, column], images[:, :, row, column]
                where = f"row {row}, column {column}, {case}"
                if in_rows and in_columns:
                    require(bool((pixel == 1).all()), f"This pixel should be white: {where}.")
                else:
                    require(torch.equal(pixel, old), f"This pixel should not change: {where}.")
    default = attempt(stamp, torch.zeros(1, 1, 28, 28))
    require(int(default.sum()) == 16, "Without a size, the square should be 4 by 4 pixels.")
    passed(stamp)


def check_attack_success_rate(rate: Callable) -> None:
    """Compares with counting one image after the other. Raises CheckFailed."""
    cases = [
        ([7, 7, 1, 2], [0, 1, 1, 2], 7),
        ([7, 7, 7, 0], [7, 7, 0, 0], 7),
        ([3, 3, 3, 3], [3, 3, 3, 5], 3),
        ([0, 1, 2, 0], [1, 1, 2, 0], 0),
        ([2, 5, 1, 0], [1, 1, 1, 0], 0),
    ]
    for predicted, true, target in cases:
        attacked = [p for p, t in zip(predicted, true, strict=True) if t != target]
        expected = sum(p == target for p in attacked) / len(attacked)
        found = attempt(rate, torch.tensor(predicted), torch.tensor(true), target)
        case = f"predicted {predicted}, true {true}, target class {target}"
        require(
            isinstance(found, (int, float)), f"Return a number, not {type(found).__name__}: {case}."
        )
        if abs(found - expected) > 1e-6:
            everyone = sum(p == target for p in predicted) / len(predicted)
            hint = ""
            if abs(found - everyone) < 1e-6:
                hint = " You counted images that truly belong to the target class."
            elif abs(found - sum(p == target for p in attacked) / len(predicted)) < 1e-6:
                hint = " The numerator is right; the denominator counts too many images."
            require(False, f"For {case} the rate is {expected:.3f}, you gave {found:.3f}.{hint}")
    passed(rate)
