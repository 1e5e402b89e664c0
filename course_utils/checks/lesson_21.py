"""Checks of lesson 21, the incident."""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from course_utils import statistics
from course_utils.checks import CheckFailed, attempt, passed, require
from course_utils.checks.answers import as_array, as_number, compare
from course_utils.record import recorded

PRICE = 5


@recorded
def check_finding_score(function: Callable) -> None:
    """Compares with counting image by image. Raises CheckFailed."""
    rows = []
    for case, n, poison, flagged in (
        (
            "5 of 10 poisons and 4 of 90 clean images flagged",
            100,
            range(10),
            (*range(5), *range(20, 24)),
        ),
        ("exactly the 3 poisons of 40 images flagged", 40, range(3), range(3)),
        ("all 50 images flagged", 50, range(20), range(50)),
        ("nothing flagged among 30 images", 30, range(6), ()),
        ("clean data of 200 images, 6 flagged", 200, (), range(6)),
        ("clean data of 20 images, nothing flagged", 20, (), ()),
        ("12 images, all of them poison, 9 flagged", 12, range(12), range(9)),
        (
            "8 of 9 poisons and 2 of 111 clean images flagged",
            120,
            range(50, 59),
            (3, 4, *range(51, 59)),
        ),
    ):
        masks = [torch.zeros(n, dtype=torch.bool) for _ in range(2)]
        for mask, chosen in zip(masks, (flagged, poison), strict=True):
            mask[list(chosen)] = True
        given = set(flagged), set(poison), n
        advice = ZERO_POISONS if not poison else ZERO_CLEAN if len(poison) == n else ""
        found = as_number(answer_of(function, masks, advice), f"for {case}")
        rows.append((case, given, found, max(0.0, recall(*given) - PRICE * alarms(*given))))
    compare(rows, "the score", finding_slips)
    passed(function)


ZERO_POISONS = "Without any poison nothing was missed: recall is 1."
ZERO_CLEAN = "Without a clean image there are no false alarms: their share is 0."
ZERO_ROOM = "There is no harm to undo here: the fraction counts as 1."


def answer_of(function: Callable, inputs: Sequence, advice: str):
    """The answer; where dividing by zero spoils it, the advice goes with the message."""
    try:
        return attempt(function, *inputs)
    except CheckFailed as error:
        spoilt = "nan" in str(error) or "ZeroDivisionError" in str(error)
        if not (advice and spoilt):
            raise
        raise CheckFailed(f"{advice} {error}") from error


def recall(flagged: set, poison: set, n: int) -> float:
    """The share of the poisons that are flagged; 1 if there is none."""
    return len(flagged & poison) / len(poison) if poison else 1.0


def alarms(flagged: set, poison: set, n: int) -> float:
    """The share of the clean images that are flagged; 0 if there is none."""
    return len(flagged - poison) / (n - len(poison)) if n > len(poison) else 0.0


def finding_slips(flagged: set, poison: set, n: int) -> dict[str, float]:
    """What common mistakes make of the score."""
    found, wrong = recall(flagged, poison, n), alarms(flagged, poison, n)
    right = max(0.0, found - PRICE * wrong)
    precision = len(flagged & poison) / len(flagged) if flagged else 1.0
    return {
        "A score below 0 counts as 0.": found - PRICE * wrong,
        "False alarms cost PRICE times their share.": max(0.0, found - wrong),
        "False alarms cost nothing here.": found,
        "That is precision: recall is a share of the poisons.": max(0.0, precision - PRICE * wrong),
        "False alarms are a share of the clean images, not of all.": max(
            0.0, found - PRICE * len(flagged - poison) / n
        ),
        "False alarms are a share of the clean images, not of the flagged.": max(
            0.0, found - PRICE * (1 - precision)
        ),
        "Without any poison nothing was missed: recall is 1.": right if poison else 0.0,
        "Only clean images are false alarms: leave out the poisons.": max(
            0.0, found - PRICE * len(flagged) / n
        ),
        "A share of the clean images, not of all; and without any poison recall is 1.": max(
            0.0, (found if poison else 0.0) - PRICE * len(flagged - poison) / n
        ),
        "Take the maximum of the whole difference and 0: max(0, nan) hides a division by 0.": right
        if poison and len(poison) < n
        else 0.0,
        "That is accuracy: most images are clean, so it is high for everybody.": (
            n - len(flagged ^ poison)
        )
        / n,
    }


@recorded
def check_repair_score(function: Callable) -> None:
    """Compares with walking from one level to the next. Raises CheckFailed."""
    rows = []
    for case, given in (
        ("half of the way", (0.8, 0.8, 0.5, 0.2, 0.0)),
        ("all of the way, 2 points of accuracy lost", (0.9, 0.9, 0.1, 0.1, 0.02)),
        ("a random drop that does as much", (0.9, 0.4, 0.4, 0.1, 0.0)),
        ("a random drop that does a part of it", (1.0, 0.75, 0.25, 0.0, 0.01)),
        ("a random drop that does harm", (0.6, 0.7, 0.3, 0.1, 0.0)),
        ("a repair that is better than the oracle", (0.9, 0.85, 0.0, 0.1, 0.0)),
        ("a repair that does harm", (0.5, 0.5, 0.7, 0.1, 0.0)),
        ("half of the way, accuracy gained", (0.7, 0.7, 0.4, 0.1, -0.03)),
        ("no harm to undo, 4 points of accuracy lost", (0.1, 0.1, 0.1, 0.1, 0.04)),
        ("no harm to undo, nothing lost", (0.0, 0.0, 0.0, 0.0, 0.0)),
        ("much accuracy lost", (0.9, 0.9, 0.2, 0.1, 0.3)),
    ):
        advice = "" if given[0] > given[3] else ZERO_ROOM
        found = as_number(answer_of(function, given, advice), f"for {case}, {given}")
        rows.append((f"{case}, {given}", given, found, walked(*given)))
    compare(rows, "the score", repair_slips)
    passed(function)


def walked(nothing: float, random: float, repaired: float, oracle: float, lost: float) -> float:
    """The score, by cutting the levels first and comparing lengths after."""
    if nothing <= oracle:
        share = 1.0
    else:
        start = random if random < nothing else nothing
        share = (start - repaired) / (nothing - oracle)
    share = 1.0 if share > 1 else share
    left = share - PRICE * lost if lost > 0 else share
    return left if left > 0 else 0.0


def repair_slips(
    nothing: float, random: float, repaired: float, oracle: float, lost: float
) -> dict[str, float]:
    """What common mistakes make of the score."""
    right, room = walked(nothing, random, repaired, oracle, lost), nothing - oracle
    start, price = min(nothing, random), PRICE * max(0.0, lost)
    if room <= 0:
        way = 1.0
        ways = {name: 1.0 for name in ("nothing", "random", "own", "raw")}
    else:
        way = min(1.0, (start - repaired) / room)
        ways = {
            "nothing": min(1.0, (nothing - repaired) / room),
            "random": min(1.0, (random - repaired) / room),
            "own": min(1.0, (start - repaired) / (start - oracle)) if start > oracle else 0.0,
            "raw": (start - repaired) / room,
        }
    return {
        "What a random drop achieves as well does not count.": max(0.0, ways["nothing"] - price),
        "A random drop that does harm is no excuse: begin at the better of the two.": max(
            0.0, ways["random"] - price
        ),
        "Divide by the whole way, from doing nothing to the oracle.": max(0.0, ways["own"] - price),
        "More than the oracle is no more than 1.": max(0.0, ways["raw"] - price),
        "A score below 0 counts as 0.": way - price,
        "Accuracy lost costs PRICE times itself.": max(0.0, way - max(0.0, lost)),
        "The accuracy that was lost is missing.": max(0.0, way),
        "Accuracy gained counts as 0.": max(0.0, way - PRICE * lost),
        "Where there is no harm to undo, only the accuracy lost counts.": right
        if room > 0
        else 0.0,
        "The accuracy lost costs also where there is no harm to undo.": right if room > 0 else 1.0,
        "That is how much harm went, not how far the repair leads to the oracle.": max(
            0.0, start - repaired - price
        ),
    }


@recorded
def check_accuracy_interval(function: Callable) -> None:
    """Compares with sums in plain Python. Raises CheckFailed."""
    generator = torch.Generator().manual_seed(0)
    rows = []
    for case, trainings, n, easy, same in (
        ("8 trainings on 40 images", 8, 40, 0.8, 0.0),
        ("2 trainings on 3 images", 2, 3, 0.5, 0.0),
        ("30 trainings on 12 images", 30, 12, 0.6, 0.5),
        ("5 trainings that agree on 50 images", 5, 50, 0.85, 1.0),
        ("4 trainings on 25 images, all right", 4, 25, 1.1, 0.0),
        ("3 trainings on 6 images, nearly all right", 3, 6, 0.93, 0.0),
        ("6 trainings on 200 images", 6, 200, 0.1, 0.3),
    ):
        right = torch.rand(trainings, n, generator=generator) < easy
        alike = torch.rand(n, generator=generator) < same
        right[:, alike] = right[0, alike]
        found = as_array(attempt(function, right), (3,), f"for {case}", "an Interval")
        rows.append((case, (right.double().numpy(),), found, two_way(right.tolist())))
    compare(rows, "the interval (estimate, low, high)", interval_slips, tolerance=1e-4)
    name = getattr(attempt(function, right), "_fields", ())
    require(name == ("estimate", "low", "high"), "Return an Interval(estimate, low, high).")
    passed(function)


def two_way(right: list[list[bool]]) -> list[float]:
    """Estimate, low and high, in plain Python."""
    s, n = len(right), len(right[0])
    rows = [sum(row) / n for row in right]
    columns = [sum(row[k] for row in right) / s for k in range(n)]
    middle = sum(rows) / s
    part = [
        sum((value - middle) ** 2 for value in values) / (len(values) - 1) / len(values)
        for values in (rows, columns)
    ]
    half = 1.959964 * sum(part) ** 0.5
    return [middle, max(0.0, middle - half), min(1.0, middle + half)]


def interval_slips(right: np.ndarray) -> dict[str, np.ndarray]:
    """What common mistakes make of the interval."""
    s, n = right.shape
    rows, columns, z = right.mean(1), right.mean(0), 1.959964

    def ends(half: float, cut: bool = True) -> np.ndarray:
        found = np.array([right.mean(), right.mean() - half, right.mean() + half])
        return found.clip(0, 1) if cut else found

    a, b = rows.var(ddof=1) / s, columns.var(ddof=1) / n
    every = right.mean() * (1 - right.mean()) / right.size
    alone = statistics.t_interval(rows)
    yes_or_no = statistics.wilson(right.ravel() > 0.5)
    return {
        "The trainings alone: the images are a sample, too.": ends(z * np.sqrt(a)),
        "Student's t over the trainings alone: the images are a sample, too.": np.array(alone),
        "Wilson over all answers: S times N answers are not as many independent ones.": np.array(
            yes_or_no
        ),
        "The images alone: the trainings are a sample, too.": ends(z * np.sqrt(b)),
        "S times N answers are not as many independent ones.": ends(z * np.sqrt(every)),
        "Cut the interval to [0, 1].": ends(z * np.sqrt(a + b), cut=False),
        "Divide each variance by how many there are: the mean varies less than one of them.": ends(
            z * np.sqrt(a * s + b * n)
        ),
        "Variances add up, not deviations.": ends(z * (np.sqrt(a) + np.sqrt(b))),
        "Take the root: half the width is 1.96 deviations, not variances.": ends(z * (a + b)),
        "One deviation holds about 68%: take 1.96.": ends(np.sqrt(a + b)),
        "Divide by one less than their number in a variance.": ends(
            z * np.sqrt(rows.var() / s + columns.var() / n)
        ),
        "The rows are trainings and the columns images: their numbers are swapped.": ends(
            z * np.sqrt(a * s / n + b * n / s)
        ),
    }
