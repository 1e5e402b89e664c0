"""Checks of lesson 11, filtering."""

from collections import Counter
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from course_utils.checks import attempt, passed, require
from course_utils.checks.answers import as_array, side_by_side
from course_utils.checks.mistakes import about, alike, diagnosis
from course_utils.record import recorded


@recorded
def check_class_scores(scores: Callable) -> None:
    """Compares with the eigenvectors of the covariance matrix, in numpy. Raises CheckFailed."""
    for n, d, seed in ((12, 3, 0), (40, 8, 1), (9, 20, 2)):
        generator = torch.Generator().manual_seed(seed)
        stretched = torch.linspace(1, 3, d, dtype=torch.double)
        features = 4 + stretched * torch.randn(n, d, generator=generator, dtype=torch.double)
        inputs = [(features.numpy(), centred) for centred in (True, False)]
        found = [
            as_array(
                attempt(scores, features, centred), (n,), f"for {n} images", "one score an image,"
            )
            for _, centred in inputs
        ]
        for (values, centred), got in zip(inputs, found, strict=True):
            expected = score(values, centred)
            if alike(got, expected, 1e-4):
                continue
            hint = diagnosis(found, SCORES, inputs, 1e-4)
            i = int(np.argmax(np.abs(got - expected)))
            wanted, yours = side_by_side(expected[i], got[i])
            require(
                False,
                f"For {n} images with {d} features, centred={centred}, the score of image {i} is "
                f"{wanted}, you gave {yours}.{hint}",
            )
    passed(scores)


def principal(features: np.ndarray, place: int = -1) -> np.ndarray:
    """A direction of the cloud: the longest one, or the one at this place from the shortest."""
    return np.linalg.eigh(np.cov(features.T))[1][:, place]


def start(features: np.ndarray, centred: bool) -> np.ndarray:
    """What is projected."""
    return features - features.mean(0) if centred else features


def score(features: np.ndarray, centred: bool) -> np.ndarray:
    """The score of each image, by the covariance matrix."""
    return (start(features, centred) @ principal(features)) ** 2


def of_images(features: np.ndarray, centred: bool) -> np.ndarray:
    """The score if the mean is that of each image over its features: a usual mistake."""
    around = features - features.mean(1, keepdims=True)
    direction = np.linalg.eigh(around.T @ around)[1][:, -1]
    return ((around if centred else features) @ direction) ** 2


SCORES: dict[str, Callable] = {
    "Square the projection.": lambda x, centred: np.abs(start(x, centred) @ principal(x)),
    "You mixed up what `centred` means: it says what is projected.": lambda x, centred: score(
        x, not centred
    ),
    "`centred` is ignored: you always project the centred features.": lambda x, centred: score(
        x, True
    ),
    "`centred` is ignored: you always project the features as they are.": lambda x, centred: score(
        x, False
    ),
    "Find the direction on the centred features, in both versions.": lambda x, centred: (
        (start(x, centred) @ np.linalg.eigh(x.T @ x)[1][:, -1]) ** 2
    ),
    "The direction is found on what you project: take the centred features in both versions.": (
        lambda x, centred: (
            (start(x, centred) @ np.linalg.eigh(np.cov(x.T) if centred else x.T @ x)[1][:, -1]) ** 2
        )
    ),
    "Take the direction of the largest singular value, not of the smallest.": lambda x, centred: (
        (start(x, centred) @ principal(x, -min(x.shape))) ** 2
    ),
    "That is the squared length, in all directions at once.": lambda x, centred: (
        start(x, centred) ** 2
    ).sum(1),
    "That is a column of U: project on row 0 of Vh.": lambda x, centred: (
        score(x, True) / score(x, True).sum()
    ),
    "The direction is row 0 of Vh, not its first column.": lambda x, centred: (
        (start(x, centred) @ np.linalg.svd(x - x.mean(0))[2][:, 0]) ** 2
    ),
    "Do not divide by the number of images.": lambda x, centred: score(x, centred) / len(x),
    "The mean is taken over the images: mean(0), one for each feature.": of_images,
    "Do not divide by the spread of the features.": lambda x, centred: (
        (start(x, centred) / x.std(0, ddof=1) @ principal(x / x.std(0, ddof=1))) ** 2
    ),
}


@recorded
def check_vote_margin(margin: Callable) -> None:
    """Compares with counting the votes of one image after the other. Raises CheckFailed."""
    generator = torch.Generator().manual_seed(0)
    found, cases = [], []
    for n, k, n_classes in ((6, 3, 2), (30, 5, 3), (20, 12, 6), (15, 1, 4)):
        labels = torch.randint(n_classes, (n,), generator=generator)
        neighbours = torch.randint(n_classes, (n, k), generator=generator)
        neighbours[: n // 3] = labels[: n // 3, None]  # some images are among their own
        labels[-1] = neighbours[-2, 0] = n_classes - 1
        ask_margins(margin, neighbours, labels, found, cases)
    few = torch.tensor([[0, 1, 1], [1, 1, 0], [0, 0, 0]])
    both = "Count the classes from both, neighbours and labels."
    with about(f"Here a label has no neighbour of its own. {both}"):
        ask_margins(margin, few, torch.tensor([3, 0, 1]), found, cases)
    with about(f"Here a neighbour has a label that no image has. {both}"):
        ask_margins(margin, 3 * few, torch.tensor([1, 0, 0]), found, cases)
    for got, (votes, label, classes) in zip(found, cases, strict=True):
        expected = votes_ahead(votes, label, classes)
        if not abs(got - expected) < 1e-5:
            wanted, yours = side_by_side(expected, got)
            require(
                False,
                f"Label {label}, neighbours {votes}: the margin is {wanted}, you gave {yours}."
                f"{diagnosis(found, MARGINS, cases)}",
            )
    passed(margin)


def ask_margins(
    margin: Callable, neighbours: Tensor, labels: Tensor, found: list, cases: list
) -> None:
    """Ask for the margins of a batch; add them, and votes, label and number of classes of each."""
    n, k = neighbours.shape
    classes = int(max(neighbours.max(), labels.max())) + 1
    case = f"for {n} images, {k} neighbours, {classes} classes"
    answer = attempt(margin, neighbours, labels)
    found += as_array(answer, (n,), case, "one margin an image,").tolist()
    numbers = np.asarray(answer).dtype.kind != "b"
    require(numbers, f"Return one margin an image, a number, not a mask; {case}.")
    cases += [(v, i, classes) for v, i in zip(neighbours.tolist(), labels.tolist(), strict=True)]


def strongest(votes: list[int], label: int) -> int:
    """The votes of the strongest other label."""
    return max(Counter(vote for vote in votes if vote != label).values(), default=0)


def votes_ahead(votes: list[int], label: int, classes: int) -> float:
    """By what share of the votes the strongest other label beats the own one, counted."""
    return (strongest(votes, label) - votes.count(label)) / len(votes)


def two_best(votes: list[int]) -> float:
    """The first place minus the second, whoever has them: a usual mistake."""
    first, second, *_ = sorted([*Counter(votes).values(), 0, 0], reverse=True)
    return (first - second) / len(votes)


MARGINS: dict[str, Callable] = {
    "Divide by the number of neighbours.": lambda votes, label, classes: (
        strongest(votes, label) - votes.count(label)
    ),
    "Divide by the number of neighbours, not by that of the classes.": (
        lambda votes, label, classes: (strongest(votes, label) - votes.count(label)) / classes
    ),
    "`//` rounds down: divide with `/`.": lambda votes, label, classes: (
        (strongest(votes, label) - votes.count(label)) // len(votes)
    ),
    "The sign: an image that is outvoted gets a positive margin.": lambda votes, label, classes: (
        -votes_ahead(votes, label, classes)
    ),
    "An image that wins has a negative margin. The own votes do not count as another label's: set "
    "them to 0 first.": lambda votes, label, classes: max(0, votes_ahead(votes, label, classes)),
    "The strongest single other label counts, not all others together.": (
        lambda votes, label, classes: 1 - 2 * votes.count(label) / len(votes)
    ),
    "That asks for half of the votes, a majority. Compare with the strongest other label, a "
    "plurality.": lambda votes, label, classes: 0.5 - votes.count(label) / len(votes),
    "Take the own votes off.": lambda votes, label, classes: strongest(votes, label) / len(votes),
    "Compare with the votes of the image's own label, not the first place with the second.": (
        lambda votes, label, classes: two_best(votes)
    ),
    "Class 0 counts as any other.": lambda votes, label, classes: (
        (strongest([vote for vote in votes if vote], label) - votes.count(label)) / len(votes)
    ),
}
