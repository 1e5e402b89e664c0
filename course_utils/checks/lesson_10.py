"""Checks of lesson 10, gradient shaping."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from course_utils.checks import attempt, passed, require
from course_utils.checks.answers import as_gradient, as_number, side_by_side
from course_utils.checks.mistakes import about, alike, by_length, diagnosis
from course_utils.record import recorded

NEVER = "An attack that never succeeds has no first success: return math.inf."


@recorded
def check_clipped_sum(clipped_sum: Callable) -> None:
    """Compares with one example after another, clipped in numpy. Raises CheckFailed."""
    for n, width, clip, seed in ((6, 3, 1.0, 0), (1, 2, 0.5, 1), (7, 4, 99.0, 2), (5, 3, 0.3, 3)):
        heavy = torch.linspace(0.05, 3, n, dtype=torch.double)
        compare_sum(clipped_sum, heavy, width, clip, seed)
    with about("Here the lengths have a graph of their own: they count as constants, detach them."):
        compare_sum(clipped_sum, torch.tensor([0.3, 3.0, 2.0]), 3, 0.5, 4, graph=True)
    with about(
        "One length here is 0: 0 / 0 is not a number, but clip / 0 is infinite, so at least 1."
    ):
        compare_sum(clipped_sum, torch.tensor([0.3, 0.0, 2.0]), 3, 0.5, 5)
    passed(clipped_sum)


def compare_sum(
    clipped_sum: Callable, heavy: Tensor, width: int, clip: float, seed: int, graph: bool = False
) -> None:
    """Fail unless it is the sum of the clipped gradients; name the usual mistakes.

    heavy: by what the loss of each example is multiplied (N,), so that some weigh much. graph:
    whether the lengths can be differentiated.
    """
    generator = torch.Generator().manual_seed(seed)
    weight, bias, x = (
        torch.randn(shape, generator=generator, dtype=torch.double)
        for shape in ((width, 3), (3,), (len(heavy), width))
    )
    labels = torch.randint(3, (len(heavy),), generator=generator)
    parameters = [nn.Parameter(weight), nn.Parameter(bias)]
    losses = heavy * cross_entropy(x @ parameters[0] + parameters[1], labels, reduction="none")
    each = [torch.autograd.grad(one, parameters, create_graph=True) for one in losses]
    norms = torch.stack([torch.cat([part.flatten() for part in one]).norm() for one in each])
    rows = np.array([np.concatenate([p.detach().flatten() for p in one]) for one in each])
    size = np.sqrt((rows**2).sum(1))
    case = f"for N = {len(rows)} and the bound {clip}"
    answer = attempt(clipped_sum, losses, norms if graph else norms.detach(), parameters, clip)
    found = as_gradient(answer, [p.shape for p in parameters], case)
    found = np.concatenate([part.flatten() for part in found])
    expected = sum(
        row * (clip / norm if norm > clip else 1) for row, norm in zip(rows, size, strict=True)
    )
    if alike(found, expected, 1e-4):
        return
    hint = diagnosis([found], SUMS, [(rows, size, clip)], 1e-4)
    require(
        False,
        f"F{case[1:]} the sum of the clipped gradients has {by_length(expected, found)}.{hint}",
    )


def weighted(weights: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The sum of the examples' gradients with these weights."""
    return weights @ rows


SUMS: dict[str, Callable] = {
    "Nothing was clipped: weigh each loss by min(1, clip / length).": lambda rows, lengths, clip: (
        rows.sum(0)
    ),
    "A gradient that is shorter than the bound keeps the weight 1: clamp(max=1).": (
        lambda rows, lengths, clip: weighted(clip / lengths, rows)
    ),
    "That is the mean: return the sum, the noise comes before the division.": (
        lambda rows, lengths, clip: weighted(np.minimum(1, clip / lengths) / len(rows), rows)
    ),
    "You clip the sum: clip each example, then add up.": lambda rows, lengths, clip: (
        rows.sum(0) * min(1, clip / np.linalg.norm(rows.sum(0)))
    ),
    "The weight is upside down: it is the bound over the length.": lambda rows, lengths, clip: (
        weighted(np.minimum(1, lengths / clip), rows)
    ),
    "Your function ignores `clip` and clips to 1.": lambda rows, lengths, clip: weighted(
        np.minimum(1, 1 / lengths), rows
    ),
    "Long gradients are scaled down, not dropped.": lambda rows, lengths, clip: weighted(
        lengths <= clip, rows
    ),
    "The lengths are lengths already: do not square them.": (
        lambda rows, lengths, clip: weighted(np.minimum(1, clip / lengths**2), rows)
    ),
    "The lengths are lengths already: take no root.": lambda rows, lengths, clip: weighted(
        np.minimum(1, clip / np.sqrt(lengths)), rows
    ),
    "Weigh each loss by its own weight, not all of them by one.": lambda rows, lengths, clip: (
        weighted(np.full(len(rows), np.minimum(1, clip / lengths).mean()), rows)
    ),
    "The sign is turned: the gradient points where the loss grows.": lambda rows, lengths, clip: (
        -weighted(np.minimum(1, clip / lengths), rows)
    ),
}


@recorded
def check_noise_length(noise_length: Callable) -> None:
    """Compares with noise that numpy draws, adds and divides. Raises CheckFailed."""
    random = np.random.default_rng(0)
    cases = ((1.0, 0.5, 100, 7850), (0.1, 4.0, 20, 2000), (4.0, 0.25, 300, 26_000))
    found, expected = [], []
    for clip, noise, batch_size, weights in cases:
        draws = random.normal(0, clip * noise, size=(50, weights)) / batch_size
        expected.append(float(np.sqrt((draws**2).sum(1).mean())))
        answer = attempt(noise_length, clip, noise, batch_size, weights)
        found.append(as_number(answer, f"for clip {clip}, noise {noise}"))
    for case, got, drawn in zip(cases, found, expected, strict=True):
        if abs(got / drawn - 1) > 0.02:
            wanted, yours = side_by_side(drawn, got)
            hint = diagnosis(
                found, LENGTHS, [(*c, e) for c, e in zip(cases, expected, strict=True)], 0.02
            )
            clip, noise, batch_size, weights = case
            require(
                False,
                f"For clip {clip}, noise {noise}, batches of {batch_size} and {weights:,} weights "
                f"drawn noise is {wanted} long, yours {yours}.{hint}",
            )
    silent = as_number(attempt(noise_length, 1.0, 0.0, 100, 10), "for noise 0")
    require(silent == 0, f"Without noise the length must be exactly 0, yours is {silent}.")
    passed(noise_length)


# What the mistakes make of e, the length of drawn noise: clip c, noise s, batch b, weights d.
LENGTHS: dict[str, Callable] = {
    "The noisy sum is divided by the batch size, and the noise with it.": (
        lambda c, s, b, d, e: e * b
    ),
    "Noise is added once a batch, not once an image: divide by the batch size.": (
        lambda c, s, b, d, e: e * math.sqrt(b)
    ),
    "Squares add up over the weights, so the length grows with their square root.": (
        lambda c, s, b, d, e: e * math.sqrt(d)
    ),
    "Not the sizes add up but their squares: the length grows with the square root of d.": (
        lambda c, s, b, d, e: e * math.sqrt(d * 2 / math.pi)
    ),
    "This is one coordinate: there are as many as weights.": (
        lambda c, s, b, d, e: e / math.sqrt(d)
    ),
    "The multiplier is in units of the bound C.": lambda c, s, b, d, e: e / c,
    "The multiplier is missing: the noise has the deviation C times noise.": (
        lambda c, s, b, d, e: e / s
    ),
    "That is the squared length: take the root.": lambda c, s, b, d, e: e**2,
    "C times noise is the deviation, its square the variance: square it once only.": (
        lambda c, s, b, d, e: e * c * s
    ),
    "That is bound and noise together: the length of the noise alone is asked.": (
        lambda c, s, b, d, e: e + c / b
    ),
}


@recorded
def check_first_success(first_success: Callable) -> None:
    """Compares with a search by hand over many outcomes. Raises CheckFailed."""
    random = np.random.default_rng(0)
    cases = [
        ([1, 2, 5], [False, False, False]),
        ([1, 2, 5, 10], [False, True, False, True]),
        ([25, 10, 1], [True, True, False]),
        ([3, 7], [True, True]),
        ([0, 1, 2, 5], [True, True, False, True]),
        ([5, 0, 7], [True, True, True]),
        ([0, 1], [False, False]),
    ]
    for n in (1, 4, 6):
        counts = [int(count) for count in random.permutation(30)[:n] + 1]
        cases.append((counts, [bool(hit) for hit in random.random(n) < 0.4]))
    found, expected = [], []
    for counts, broken in cases:
        hits = [count for count, hit in zip(counts, broken, strict=True) if hit]
        expected.append(sorted(hits)[0] if hits else math.inf)
        with about("" if hits else NEVER):
            answer = attempt(first_success, counts, broken, finite=False)
            found.append(as_number(answer, f"for {counts} and {broken}"))
            require(not math.isnan(found[-1]), f"There is nan in the answer for {broken}.")
    wrong = [k for k in range(len(cases)) if found[k] != expected[k]]
    if wrong:
        counts, broken = cases[wrong[0]]
        if all(expected[k] == math.inf for k in wrong):
            hint = f" {NEVER}"
        elif all(expected[k] == 0 for k in wrong):
            hint = " A target may fall with 0 poisons: 0 is a count here, not False."
        else:
            hint = diagnosis(found, FIRSTS, cases)
        require(
            False,
            f"With {counts} poisons and the outcomes {broken} the first success is "
            f"{expected[wrong[0]]}, you gave {found[wrong[0]]:g}.{hint}",
        )
    passed(first_success)


def fallen(counts: list[int], broken: list[bool], hit: bool = True) -> list[float]:
    """The counts for which the target fell, or did not, in their order; or infinity alone."""
    return [c for c, fell in zip(counts, broken, strict=True) if fell == hit] or [math.inf]


FIRSTS: dict[str, Callable] = {
    "You gave the position: return the number of poisons there.": lambda counts, broken: (
        broken.index(True) if any(broken) else math.inf
    ),
    "The counts need not be in order: take the smallest, not the first.": lambda counts, broken: (
        fallen(counts, broken)[0]
    ),
    "The counts need not be in order: take the smallest, not the last.": lambda counts, broken: (
        fallen(counts, broken)[-1]
    ),
    "Take the smallest number of poisons, not the largest.": lambda counts, broken: max(
        fallen(counts, broken)
    ),
    "You counted the successes.": lambda counts, broken: sum(broken) if any(broken) else math.inf,
    "That is the smallest count of all: it matters whether the target fell.": (
        lambda counts, broken: min(counts)
    ),
    "That is the largest count with which it did not fall.": lambda counts, broken: max(
        fallen(counts, broken, hit=False)
    ),
}
