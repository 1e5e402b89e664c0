"""Which of the usual mistakes explains what a reader's function gave."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np

from course_utils.checks import CheckFailed
from course_utils.checks.answers import side_by_side


def alike(first, second, tolerance: float = 1e-5) -> bool:
    """Whether two answers have the same shape and are equal up to rounding, as a whole."""
    a, b = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    size = np.abs(b[np.isfinite(b)]).max(initial=0.0)
    return a.shape == b.shape and np.allclose(a, b, rtol=tolerance, atol=tolerance * size)


def diagnosis(
    found: Sequence,
    mistakes: Mapping[str, Callable],
    cases: Sequence[tuple],
    tolerance: float = 1e-5,
) -> str:
    """The sentence of the first mistake that gives these very answers, in all cases; or nothing.

    mistakes: for each sentence, a function of a case that makes the mistake.
    """
    with np.errstate(all="ignore"):
        for sentence, mistake in mistakes.items():
            pairs = zip(found, cases, strict=True)
            if all(alike(answer, mistake(*case), tolerance) for answer, case in pairs):
                return f" {sentence}"
    return ""


def by_length(expected: np.ndarray, found: np.ndarray) -> str:
    """How two gradients differ that should be the same: in their length, or else in direction."""
    wanted, yours = float(np.linalg.norm(expected)), float(np.linalg.norm(found))
    if abs(wanted - yours) < 1e-4 * wanted:
        return f"the length {wanted:.4f}, which yours has too, but another direction"
    return "the length {}, yours {}".format(*side_by_side(wanted, yours))


@contextmanager
def about(advice: str) -> Iterator[None]:
    """If the check fails inside, its message ends with what is special about this input, if any."""
    try:
        yield
    except CheckFailed as error:
        raise type(error)(f"{error} {advice}".rstrip()) from error.__cause__
