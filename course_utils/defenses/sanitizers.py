"""Built in lesson 03, the slab attack.

Generated from notebooks/03_the_slab_attack.ipynb: edit it there, then run make notebooks.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from course_utils.data import Data
from course_utils.defense import Defense


def class_limits(scores: Tensor, labels: Tensor, n_classes: int, quantile: float) -> Tensor:
    """The limit of each class (n_classes,): the share `quantile` of its scores lie below it.

    scores: how suspicious each image is (N,). labels: the class of each image (N,), from 0 on.
    """
    limits = [scores[labels == k].quantile(quantile) for k in range(n_classes)]
    return torch.stack(limits)


Score = Callable[[Data], Tensor]  # how suspicious each image is (N,)


def class_means(data: Data) -> Tensor:
    """The mean image of each class, as rows (classes, pixels)."""
    flat = data.x.flatten(1)
    return torch.stack([flat[data.y == k].mean(0) for k in range(len(data.classes))])


def sphere_score(seen: Data, fit: Callable) -> Score:
    """Distance from the mean of the class."""
    means = class_means(seen)
    return lambda data: (data.x.flatten(1) - means[data.y]).norm(dim=1)


def slab_distance(x: Tensor, y: Tensor, means: Tensor, others: Tensor) -> Tensor:
    """How far each point is from the mean of its class, along the line to the other mean (N,).

    x: points (N, d). y: their classes (N,). means: the mean of each class (classes, d).
    others: for each class, the mean of what is not in it (classes, d). Never negative.
    """
    axis = others - means
    axis = axis / axis.norm(dim=1, keepdim=True)
    return ((x - means[y]) * axis[y]).sum(1).abs()


def slab_score(seen: Data, fit: Callable) -> Score:
    """Distance from the mean of the class, along the line to the mean of the other classes."""
    means = class_means(seen)
    others = (means.sum(0) - means) / (len(means) - 1)
    return lambda data: slab_distance(data.x.flatten(1), data.y, means, others)


def loss_score(seen: Data, fit: Callable) -> Score:
    """Loss under a model trained on what was seen."""
    model = fit(seen)

    @torch.no_grad()
    def score(data: Data) -> Tensor:
        parts = zip(data.x.split(5000), data.y.split(5000), strict=True)  # to save memory
        return torch.cat([cross_entropy(model(x), y, reduction="none") for x, y in parts])

    return score


def neighbour_score(seen: Data, fit: Callable, k: int = 5) -> Score:
    """Distance to the k-th nearest other image with the same label."""

    def score(data: Data) -> Tensor:
        far = torch.zeros(len(data))
        for label in range(len(data.classes)):
            # On the CPU, since not every GPU has float64; 5,000 rows at a time, to save memory.
            mine = seen.x[seen.y == label].flatten(1).cpu().double()
            for rows in (data.y == label).nonzero()[:, 0].split(5000):
                points = data.x[rows].flatten(1).cpu().double()
                near, _ = torch.cdist(points, mine).topk(k + 1, largest=False)
                itself = near[:, 0] < 1e-4  # an image that was seen is its own nearest neighbour
                far[rows.cpu()] = torch.where(itself, near[:, k], near[:, k - 1]).float()
        return far.to(data.x.device)

    return score


SCORES = {"sphere": sphere_score, "slab": slab_score, "loss": loss_score, "k-NN": neighbour_score}


def sanitizer(*names: str, quantile: float = 0.95, reference: Data | None = None) -> Defense:
    """Keep the images that pass every named filter: "sphere", "slab", "loss" or "k-NN".

    The limits are fitted on the reference, or without one on the data that is to be filtered.
    """
    if not names or set(names) - set(SCORES):
        raise ValueError(f"The filters are {names}, expected some of {', '.join(SCORES)}.")
    if not 0 < quantile <= 1:
        raise ValueError(f"The quantile is {quantile}, expected more than 0 and at most 1.")

    def keep(data: Data, fit: Callable) -> Tensor:
        seen = data if reference is None else reference
        check_classes(seen, data.classes)
        kept = torch.ones_like(data.y, dtype=torch.bool)
        for name in names:
            score = SCORES[name](seen, fit)
            found = score(data)
            known = found if reference is None else score(seen)
            kept &= found <= class_limits(known, seen.y, len(seen.classes), quantile)[data.y]
        return kept

    return Defense(" + ".join(names), keep=keep)


def check_classes(seen: Data, classes: tuple[str, ...]) -> None:
    """Raise ValueError unless a limit can be fitted for each of at least two classes."""
    if seen.classes != classes:
        raise ValueError(f"The reference has the classes {seen.classes}, the data {classes}.")
    counts = torch.bincount(seen.y, minlength=len(classes))
    if len(classes) < 2 or counts.min() < 6:
        raise ValueError(
            "The limits cannot be fitted: there must be at least two classes with at least 6 "
            f"images each, but the counts are {dict(zip(classes, counts.tolist(), strict=True))}."
        )
