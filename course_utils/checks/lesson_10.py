"""Checks of lesson 10, gradient shaping."""

import math
from collections.abc import Callable

import numpy as np

from course_utils.checks import attempt, passed, require


def check_noise_length(noise_length: Callable) -> None:
    """Compares with noise that numpy draws, adds and divides. Raises CheckFailed."""
    random = np.random.default_rng(0)
    cases = ((1.0, 0.5, 100, 7850), (0.1, 4.0, 20, 2000), (4.0, 0.25, 300, 26_000))
    for clip, noise, batch_size, weights in cases:
        draws = random.normal(0, clip * noise, size=(50, weights)) / batch_size
        expected = float(np.sqrt((draws**2).sum(1).mean()))
        case = f"clip {clip}, noise {noise}, batches of {batch_size}, {weights:,} weights"
        found = attempt(noise_length, clip, noise, batch_size, weights)
        require(isinstance(found, int | float), f"Return one number; for {case} you did not.")
        if abs(found / expected - 1) < 0.02:
            continue
        hint = ""
        if abs(found / expected / batch_size - 1) < 0.02:
            hint = " The noisy sum is divided by the batch size, and the noise with it."
        elif abs(found / expected / math.sqrt(batch_size) - 1) < 0.02:
            hint = " Noise is added once a batch, not once an image: divide by the batch size."
        elif abs(found / expected / math.sqrt(weights) - 1) < 0.02:
            hint = " Squares add up over the weights, so the length grows with their square root."
        elif abs(found / expected * math.sqrt(weights) - 1) < 0.02:
            hint = " This is one coordinate: there are as many as weights."
        elif abs(found / expected * clip - 1) < 0.02:
            hint = " The multiplier is in units of the bound C."
        require(False, f"For {case} drawn noise is {expected:.4f} long, yours {found:.4f}.{hint}")
    require(
        attempt(noise_length, 1.0, 0.0, 100, 10) == 0, "Without noise the length must be exactly 0."
    )
    passed(noise_length)


def check_attack_cost(attack_cost: Callable) -> None:
    """Compares with a search by hand over many outcomes. Raises CheckFailed."""
    random = np.random.default_rng(0)
    cases = [
        ((1, 2, 5), (False, False, False)),
        ((1, 2, 5, 10), (False, True, False, True)),
        ((25, 10, 1), (True, True, False)),
        ((3, 7), (True, True)),
    ]
    for n in (1, 4, 6):
        counts = tuple(int(count) for count in random.permutation(30)[:n] + 1)
        cases.append((counts, tuple(bool(hit) for hit in random.random(n) < 0.4)))
    for counts, broken in cases:
        expected = math.inf
        for count, hit in zip(counts, broken, strict=True):
            if hit and count < expected:
                expected = count
        found = attempt(attack_cost, counts, broken)
        if found == expected:
            continue
        hint = ""
        if not any(broken):
            hint = " An attack that never succeeds has no finite cost: return math.inf."
        elif found == broken.index(True):
            hint = " You gave the position: return the number of poisons there."
        elif found == counts[broken.index(True)]:
            hint = " The counts need not be in order: take the smallest."
        elif found == max(c for c, hit in zip(counts, broken, strict=True) if hit):
            hint = " Take the smallest number of poisons, not the largest."
        elif found == sum(broken):
            hint = " You counted the successes."
        require(
            False,
            f"With {counts} poisons and the outcomes {broken} the cost is {expected}, "
            f"you gave {found}.{hint}",
        )
    passed(attack_cost)
