"""Checks of lesson 17, certificates."""

from collections.abc import Callable

import torch
from scipy.stats import binomtest
from torch import Tensor

from course_utils.checks import attempt, passed, require
from course_utils.record import recorded


@recorded
def check_to_overtake(function: Callable) -> None:
    """Compares with moving one vote after the other. Raises CheckFailed."""
    generator = torch.Generator().manual_seed(0)
    tables = [torch.tensor([[2, 7, 1], [5, 5, 0], [3, 3, 3], [4, 0, 5]])]
    for k, n_classes in ((7, 2), (30, 4), (100, 10)):
        drawn = torch.randint(n_classes, (40, k), generator=generator)
        tables.append(torch.nn.functional.one_hot(drawn, n_classes).sum(1))
    for votes in tables:
        for leader in (votes.argmax(1), votes.argmin(1), torch.zeros_like(votes[:, 0])):
            found = called(function, [votes, leader], votes.shape)
            for row, counts, first in zip(found, votes.tolist(), leader.tolist(), strict=True):
                for c in [first, *range(len(counts))]:
                    compare_changes(float(row[c]), counts, first, c)
    passed(function)


def called(function: Callable, inputs: list[Tensor], shape: tuple[int, ...]) -> Tensor:
    """What the function returns, once its form is right and its inputs are as they were."""
    copies = [tensor.clone() for tensor in inputs]
    found = attempt(function, *copies)
    require(
        isinstance(found, Tensor) and found.shape == shape,
        f"Return a tensor of shape {tuple(shape)}; for inputs of the shapes "
        f"{[tuple(tensor.shape) for tensor in inputs]} you did not.",
    )
    same = all(torch.equal(a, b) for a, b in zip(copies, inputs, strict=True))
    require(same, "The tensors that came in were changed: work on copies.")
    return found


def is_ahead(counts: list[int], first: int, c: int) -> bool:
    """Whether class c comes before class `first`: more votes, or as many and a smaller number."""
    return (counts[c], -c) > (counts[first], -first)


def moves_until_ahead(counts: list[int], first: int, c: int) -> int:
    """How many votes must go from `first` to c, one after the other, until c comes before it."""
    counts, moves = list(counts), 0
    while c != first and not is_ahead(counts, first, c):
        counts[first], counts[c], moves = counts[first] - 1, counts[c] + 1, moves + 1
    return moves


def compare_changes(found: float, counts: list[int], first: int, c: int) -> None:
    """Fail if one number is not what moving votes gives; name the usual mistakes."""
    expected, gap = moves_until_ahead(counts, first, c), counts[first] - counts[c]
    if found == expected:
        return
    mistakes = [
        (c == first, " Nobody has to move for a class to reach itself: 0."),
        (found < 0, " A class that is ahead already needs 0 changes, not fewer."),
        (found != int(found), " Half a model cannot change its vote: round up, to whole numbers."),
        (found == expected - 1 and gap % 2 == 0, TIE_LOST),
        (found == expected - 1, " Round up: an odd gap needs one more change."),
        (found == expected + 1 and gap % 2 == 0, TIE_WON),
        (found in (gap, gap + 1), " A change takes one vote away and gives one: half the gap."),
        (found == -gap or found == counts[c], " The gap is the votes of the leader minus those."),
    ]
    hint = next((text for wrong, text in mistakes if wrong), "")
    require(
        False,
        f"Votes {counts}: for class {c} to overtake class {first}, {expected} models must change, "
        f"you gave {found:g}.{hint}",
    )


TIE_LOST = " With as many votes the smaller class comes first: a larger one must have one more."
TIE_WON = " With as many votes the smaller class comes first: it needs no vote more than that."


@recorded
def check_run_off(function: Callable) -> None:
    """Compares with an election of Python loops. Raises CheckFailed."""
    generator = torch.Generator().manual_seed(0)
    for k, n, n_classes, levels in ((1, 9, 3, 9), (5, 60, 3, 3), (12, 60, 4, 4), (25, 60, 10, 90)):
        logits = torch.randint(levels, (k, n, n_classes), generator=generator).float() - 1
        found = called(function, [logits], (n,))
        for i in range(n):
            compare_winner(float(found[i]), logits[:, i].tolist())
    passed(function)


def best(numbers: list[float], among: list[int]) -> int:
    """The class with the largest number; of equal ones, the smallest."""
    return max(among, key=lambda c: (numbers[c], -c))


def tally(ballots: list[list[float]], among: list[int]) -> list[int]:
    """The votes of every class, when each model votes for its best class among these."""
    votes = [best(ballot, among) for ballot in ballots]
    return [votes.count(c) for c in range(len(ballots[0]))]


def compare_winner(found: float, ballots: list[list[float]]) -> None:
    """Fail if the winner is another; name the usual mistakes."""
    everyone = list(range(len(ballots[0])))
    first = tally(ballots, everyone)
    leader = best(first, everyone)
    finalists = sorted([leader, best(first, [c for c in everyone if c != leader])])
    second = tally(ballots, finalists)
    expected = best(second, finalists)
    if found == expected:
        return
    sums = [sum(ballot[c] for ballot in ballots) for c in everyone]
    hint = ""
    if found not in everyone:
        hint = " Return the number of a class."
    elif second[finalists[0]] == second[finalists[1]] and found in finalists:
        hint = " In a tie of the second round the smaller class wins."
    elif found == leader:
        hint = " This class leads in the first round: hold the second one, with all models."
    elif found not in finalists and first[int(found)] == first[finalists[1]]:
        hint = " Of classes with as many votes in the first round the smaller goes on."
    elif found not in finalists:
        hint = " Only the two classes with the most votes of the first round go on."
    elif sums[int(found)] > sums[expected]:
        hint = " Count votes in the second round; do not add logits."
    else:
        hint = " Every model votes in the second round; equal logits go to the smaller class."
    require(
        False,
        f"First round {first}, so classes {finalists} go on; second round "
        f"{[second[c] for c in finalists]}: class {expected} wins, you gave {found:g}.{hint}",
    )


@recorded
def check_bagging_radius(function: Callable) -> None:
    """Compares with raising the number of changed images until the promise ends. CheckFailed."""
    generator = torch.Generator().manual_seed(0)
    for k, n_classes, size, n_images, alpha in (
        (100, 10, 100, 60_000, 0.001),
        (1000, 3, 50, 2000, 0.05),
        (40, 2, 30, 600, 0.01),
    ):
        sharp = torch.rand(12, 1, generator=generator) * 6
        shares = (sharp * torch.randn(12, n_classes, generator=generator)).softmax(1)
        drawn = torch.multinomial(shares, k, replacement=True, generator=generator)
        votes = torch.nn.functional.one_hot(drawn, n_classes).sum(1)
        votes[0] = torch.eye(n_classes)[0].long() * k
        found = attempt(function, votes.clone(), size, n_images, alpha)
        require(
            isinstance(found, Tensor) and found.shape == (len(votes),),
            f"Return a tensor with one radius an image, of shape ({len(votes)},).",
        )
        for i, counts in enumerate(votes.tolist()):
            compare_bagging(float(found[i]), counts, size, n_images, alpha)
    passed(function)


def bounds(counts: list[int], error: float) -> tuple[float, float]:
    """The lower end of the interval of the top class, the upper end of that of the second."""
    second, top = sorted(counts)[-2:]
    level = {"confidence_level": 1 - error, "method": "exact"}
    ends = [binomtest(count, sum(counts)).proportion_ci(**level) for count in (top, second)]
    return float(ends[0].low), float(ends[1].high)


def grown(gap: float, size: int, n_images: int, times: float = 2) -> int:
    """The largest number r of changed images that leaves a gap; -1 if there is none to begin."""
    r = -1
    while r < n_images and gap > times * (1 - (1 - (r + 1) / n_images) ** size):
        r += 1
    return r


def compare_bagging(
    found: float, counts: list[int], size: int, n_images: int, alpha: float
) -> None:
    """Fail if one radius is another; name the usual mistakes."""
    low, high = bounds(counts, alpha / len(counts))
    expected = grown(low - high, size, n_images)
    if found == expected:
        return
    second, top = sorted(counts)[-2:]
    unshared, whole = bounds(counts, alpha), sum(counts)
    one_sided = bounds(counts, 2 * alpha / len(counts))
    mistakes = [
        (-1 if expected < 0 else expected + 1, " The radius is the last number that still holds."),
        (grown((top - second) / whole, size, n_images), " Shares of few bags: use the intervals."),
        (grown(unshared[0] - unshared[1], size, n_images), " Share alpha between the classes."),
        (grown(one_sided[0] - one_sided[1], size, n_images), " Two-sided intervals: alpha / 2."),
        (grown(low - high, size, n_images, 1), " One class loses and another gains: twice."),
    ]
    hint = next((text for value, text in mistakes if found == value), "")
    if expected < 0:
        hint = " The intervals meet, so even without any change nothing is promised: -1."
    elif found != int(found):
        hint = " A radius is a whole number of images."
    require(
        False,
        f"Votes {counts} of bags of {size} out of {n_images}, alpha {alpha}: the radius is "
        f"{expected}, you gave {found:g}.{hint}",
    )
