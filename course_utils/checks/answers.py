"""What a reader's function gave back, as numbers that a check can compare, or a clear message."""

from collections.abc import Callable, Sequence
from numbers import Real

import numpy as np
import torch
from torch import Tensor

from course_utils.checks import CheckFailed, require


def as_number(answer, case: str) -> float:
    """One number: int, float, numpy's, or a tensor or an array that holds a single one."""
    single = isinstance(answer, Tensor | np.ndarray) and answer.ndim == 0
    good = single or (isinstance(answer, Real) and not isinstance(answer, bool))
    require(good, f"Return one number{instead(answer)}; {case}.")
    return float(answer.detach() if isinstance(answer, Tensor) else answer)


def as_tensor(answer, shape: tuple[int, ...], case: str, what: str = "a tensor") -> Tensor:
    """A tensor of this shape, of any type of number, without its graph, in double precision."""
    shape = tuple(shape)
    good = isinstance(answer, Tensor) and tuple(answer.shape) == shape
    require(good, f"Return {what} of shape {shape}{instead(answer)}; {case}.")
    return answer.detach().cpu().double()


def as_array(answer, shape: tuple[int, ...], case: str, what: str = "an array") -> np.ndarray:
    """An array of this shape; a list of numbers, a Series and a tensor will do. Floats."""
    try:
        found = np.asarray(answer.detach() if isinstance(answer, Tensor) else answer, dtype=float)
    except (TypeError, ValueError):
        found = None
    good = found is not None and found.shape == tuple(shape)
    require(good, f"Return {what} of shape {tuple(shape)}{instead(answer)}; {case}.")
    return found


def as_gradient(answer, shapes, case: str) -> list[Tensor]:
    """A tuple or a list of tensors of these shapes, one for each parameter, as `as_tensor`."""
    good = isinstance(answer, tuple | list) and len(answer) == len(shapes)
    require(good, f"Return one tensor for each parameter, {len(shapes)}{instead(answer)}; {case}.")
    pairs = zip(answer, shapes, strict=True)
    return [as_tensor(part, shape, case, "for each parameter a tensor") for part, shape in pairs]


def as_rows(answer, count: int, below: int, case: str, what: str = "row numbers") -> list[int]:
    """`count` whole numbers from 0 to `below` - 1, from a tensor (count,) of them."""
    require(isinstance(answer, Tensor), f"Return a tensor of {what}{instead(answer)}; {case}.")
    if answer.dtype == torch.bool:
        raise CheckFailed(f"A mask says which, but not in which order: return {what}; {case}.")
    if answer.is_floating_point():
        raise CheckFailed(f"The {what} must be whole numbers, not {answer.dtype}; {case}.")
    good = tuple(answer.shape) == (count,)
    require(good, f"Return {count} {what}, of shape ({count},){instead(answer)}; {case}.")
    numbers = answer.tolist()
    outside = [number for number in numbers if not 0 <= number < below]
    require(not outside, f"The {what} go from 0 to {below - 1}, not to {outside[:1]}; {case}.")
    return numbers


def instead(answer) -> str:
    """What came in place of what was asked, for a message."""
    if isinstance(answer, Tensor | np.ndarray):
        kind = "a tensor" if isinstance(answer, Tensor) else "a numpy array"
        return f", not {kind} of shape {tuple(answer.shape)}"
    if isinstance(answer, list | tuple):
        return f", not a {type(answer).__name__} of {len(answer)}"
    if isinstance(answer, Real):
        return f", not a plain {type(answer).__name__}"
    return f", not {type(answer).__name__}"


def side_by_side(expected, found, digits: int = 3) -> tuple[str, str]:
    """Two numbers, or two rows of numbers, with the decimals that it takes to tell them apart."""
    for decimals in range(digits, 18):
        texts = text(expected, decimals), text(found, decimals)
        if texts[0] != texts[1]:
            break
    return texts


def text(values, decimals: int) -> str:
    """A number or a row of numbers with so many decimals."""
    if np.ndim(values) == 0:
        return f"{float(values):.{decimals}f}"
    return f"[{', '.join(f'{float(value):.{decimals}f}' for value in values)}]"


def compare(rows: Sequence[tuple], what: str, slips: Callable, tolerance: float = 1e-5) -> None:
    """Fail with the first case whose answer is not the right one.

    rows: of each case its name, what came in, the answer and the right answer. what: what is
    compared, for the message. slips: from what came in, what common mistakes make of it, by the
    advice for each; given if the mistake explains the answers of all cases.
    """
    for case, _, found, right in rows:
        if same(found, right, tolerance):
            continue
        made = [(answer, slips(*given)) for _, given, answer, _ in rows]
        advice = next(
            (text for text in made[0][1] if all(same(a, by[text], tolerance) for a, by in made)), ""
        )
        found, right, place = np.asarray(found), np.asarray(right), ""
        if right.size > 12 or right.ndim > 1:
            at = np.unravel_index(np.abs(found - right).argmax(), right.shape)
            found, right, place = found[at], right[at], f" at {[*map(int, at)]}"
        wanted, given = side_by_side(right, found)
        raise CheckFailed(f"For {case}: {what}{place} is {wanted}, you gave {given}. {advice}")


def same(first, second, tolerance: float) -> bool:
    """Whether two answers have the same shape and nearly the same numbers."""
    first, second = (np.asarray(values, dtype=float) for values in (first, second))
    return first.shape == second.shape and np.allclose(first, second, tolerance, tolerance)
