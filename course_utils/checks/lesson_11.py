"""Checks of lesson 11, filtering."""

from collections import Counter
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from course_utils.checks import attempt, passed, require


def check_class_scores(scores: Callable) -> None:
    """Compares with the eigenvectors of the covariance matrix, in numpy. Raises CheckFailed."""
    for n, d, seed in ((12, 3, 0), (40, 8, 1), (9, 20, 2)):
        generator = torch.Generator().manual_seed(seed)
        stretched = torch.linspace(1, 3, d, dtype=torch.double)
        features = 4 + stretched * torch.randn(n, d, generator=generator, dtype=torch.double)
        before = features.clone()
        for centred in (True, False):
            case = f"{n} images with {d} features, centred={centred}"
            found = attempt(scores, features, centred)
            require(
                isinstance(found, Tensor) and found.shape == (n,),
                f"Return a tensor with one score an image, of shape ({n},); for {case} you did "
                "not.",
            )
            require(
                torch.equal(features, before), f"The features that came in were changed: {case}."
            )
            compare_scores(found.numpy(), features.numpy(), centred, case)
    passed(scores)


def compare_scores(found: np.ndarray, features: np.ndarray, centred: bool, case: str) -> None:
    """Fail with the first image whose score is another; name the usual mistakes."""
    mean = features.mean(0)
    values, vectors = np.linalg.eigh(np.cov(features.T))
    first, last = vectors[:, -1], vectors[:, 0]
    raw = np.linalg.eigh(features.T @ features)[1][:, -1]
    start = features - mean if centred else features
    expected = (start @ first) ** 2
    if np.allclose(found, expected):
        return
    other = ((features if centred else features - mean) @ first) ** 2
    mistakes = [
        (np.abs(start @ first), " Square the projection."),
        (other, " You mixed up what `centred` means: it says what is projected."),
        ((start @ raw) ** 2, " Find the direction on the centred features, in both versions."),
        ((start @ last) ** 2, " Take the direction of the largest singular value."),
        ((start**2).sum(1), " That is the squared length, in all directions at once."),
    ]
    hint = next((text for value, text in mistakes if np.allclose(found, value)), "")
    if not hint and values[-1] > 0 and np.allclose(found, -(start @ first)):
        hint = " Square the projection."
    i = int(np.argmax(~np.isclose(found, expected)))
    require(
        False,
        f"For {case} the score of image {i} is {expected[i]:.4f}, you gave {found[i]:.4f}.{hint}",
    )


def check_vote_margin(margin: Callable) -> None:
    """Compares with counting the votes of one image after the other. Raises CheckFailed."""
    generator = torch.Generator().manual_seed(0)
    for n, k, n_classes in ((6, 3, 2), (30, 5, 3), (20, 12, 6), (15, 1, 4)):
        labels = torch.randint(n_classes, (n,), generator=generator)
        neighbours = torch.randint(n_classes, (n, k), generator=generator)
        neighbours[: n // 3] = labels[: n // 3, None]  # some images are among their own
        inputs = neighbours.clone(), labels.clone()
        case = f"{n} images, {k} neighbours, {n_classes} classes"
        found = attempt(margin, *inputs)
        require(
            isinstance(found, Tensor) and found.shape == (n,),
            f"Return a tensor with one margin an image, of shape ({n},); for {case} you did not.",
        )
        require(
            torch.equal(inputs[0], neighbours) and torch.equal(inputs[1], labels),
            f"The labels that came in were changed: {case}.",
        )
        for i in range(n):
            compare_margin(float(found[i]), neighbours[i].tolist(), labels[i].item())
    passed(margin)


def compare_margin(found: float, votes: list[int], label: int) -> None:
    """Fail if one margin is not what counting gives; name the usual mistakes."""
    counts = Counter(votes)
    own = counts.pop(label, 0)
    strongest, together = max(counts.values(), default=0), sum(counts.values())
    expected = (strongest - own) / len(votes)
    if abs(found - expected) < 1e-5:
        return
    hint = ""
    if abs(found - (strongest - own)) < 1e-5:
        hint = " Divide by the number of neighbours."
    elif abs(found + expected) < 1e-5:
        hint = " The sign: an image that is outvoted gets a positive margin."
    elif abs(found - (together - own) / len(votes)) < 1e-5:
        hint = " The strongest single other label counts, not all others together."
    elif abs(found - (max(strongest, own) - own) / len(votes)) < 1e-5:
        hint = " The own votes do not count as another label's: set them to 0 first."
    require(
        False,
        f"Label {label}, neighbours {votes}: the margin is {expected:.3f}, you gave {found:.3f}."
        f"{hint}",
    )
