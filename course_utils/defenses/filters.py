"""Built in lesson 11, filtering.

Generated from notebooks/11_filtering.ipynb: edit it there, then run make notebooks.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import silhouette_score
from sklearn.neighbors import NearestNeighbors
from torch import Tensor
from torch.nn.functional import one_hot

from course_utils import guards
from course_utils.data import Data
from course_utils.defense import Defense
from course_utils.models import Classifier


@torch.no_grad()
def features_of(model: Classifier, data: Data) -> Tensor:
    """What the model makes of each image just before its last layer: (N, features), float64.

    They lie on the CPU, where everything in this lesson looks at them.
    """
    return torch.cat([model.features(part) for part in data.x.split(1000)]).cpu().double()


def rows_by_class(features: Tensor, labels: Tensor) -> Iterator[tuple[int, Tensor]]:
    """The label and the rows of each class that occurs.

    Raises ValueError where `check_features` or `check_spread` does.
    """
    guards.check_features(features, labels)
    for label in labels.unique().tolist():
        rows = (labels == label).nonzero()[:, 0]
        guards.check_spread(features[rows], f"class {label}")
        yield label, rows


def class_scores(features: Tensor, centred: bool = True) -> Tensor:
    """The spectral score (n,) of each image of one class, from its features (n, features).

    centred: square the projection of the centred features (Tran and others, arXiv 1811.00636,
    algorithm 1), or of the features as they are, as the released code does. The direction is the
    first right singular vector of the centred features in both cases.
    """
    around = features - features.mean(0)
    direction = torch.linalg.svd(around, full_matrices=False).Vh[0]
    return ((around if centred else features) @ direction).square()


def spectral_scores(features: Tensor, labels: Tensor, centred: bool = True) -> Tensor:
    """The spectral score (N,) of each image within its class. features: (N, features).

    Raises ValueError for a class with constant features and for features that are not finite.
    """
    scores = torch.zeros(len(labels), dtype=features.dtype, device=features.device)
    for _, rows in rows_by_class(features, labels):
        scores[rows] = class_scores(features[rows], centred)
    return scores


def largest(scores: Tensor, labels: Tensor, share: float) -> Tensor:
    """A mask (N,) of the largest scores: this share of each class, but never all of it."""
    guards.check_removal(share)
    chosen = torch.zeros_like(labels, dtype=torch.bool)
    for label in labels.unique():
        rows = (labels == label).nonzero()[:, 0]
        count = min(round(share * len(rows)), len(rows) - 1)
        chosen[rows[scores[rows].argsort(descending=True)[:count]]] = True
    return chosen


def spectral_signatures(share: float, centred: bool = True) -> Defense:
    """Remove this share of each class, in [0, 1): the images with the largest spectral scores.

    The paper removes 1.5 times the share of a class that may be poison, in every class.
    Source: Tran, Li and Madry (arXiv 1811.00636), algorithm 1.
    """
    guards.check_removal(share)

    def keep(data: Data, fit: Callable) -> Tensor:
        labels = data.y.cpu()
        scores = spectral_scores(features_of(fit(data), data), labels, centred)
        return ~largest(scores, labels, share)

    return Defense(f"spectral {share:.0%}" + ("" if centred else ", uncentred"), keep=keep)


DIMENSIONS = 10


def split_class(features: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Split one class in two: its images after PCA (n, 10), and the score (n,) of each.

    The score is the distance from the centre of the larger cluster minus that from the centre of
    the smaller one, so that it is positive in the smaller cluster.
    """
    reduce = PCA(min(DIMENSIONS, *features.shape), svd_solver="full")
    points = reduce.fit_transform(features.cpu().numpy())
    found = KMeans(2, n_init=3, random_state=0).fit(points)
    small = np.bincount(found.labels_, minlength=2).argmin()
    distance = found.transform(points)
    return points, distance[:, 1 - small] - distance[:, small]


def cluster_scores(features: Tensor, labels: Tensor) -> Tensor:
    """How far each image lies on the side of the smaller cluster of its class: (N,)."""
    scores = torch.zeros(len(labels), dtype=features.dtype, device=features.device)
    for _, rows in rows_by_class(features, labels):
        scores[rows] = torch.as_tensor(split_class(features[rows])[1]).to(scores)
    return scores


def activation_clustering(size: float = 0.35, silhouette: float = 0.1) -> Defense:
    """Drop the smaller cluster of each class that seems to consist of two kinds of images.

    size: the smaller cluster must hold less than this share of the class, in (0, 0.5].
    silhouette: and the silhouette score of the split must be above this, in [-1, 1). With 0.5 and
    -1 the smaller cluster of every class goes.
    Source: Chen and others (arXiv 1811.03728).
    """
    if not (0 < size <= 0.5 and -1 <= silhouette < 1):
        raise ValueError(f"{size=} and {silhouette=}, expected (0, 0.5] and [-1, 1).")

    def keep(data: Data, fit: Callable) -> Tensor:
        guards.check_counts(data, DIMENSIONS, f"clustering in {DIMENSIONS} dimensions")
        labels, features = data.y.cpu(), features_of(fit(data), data)
        kept = torch.ones_like(labels, dtype=torch.bool)
        for _, rows in rows_by_class(features, labels):
            points, scores = split_class(features[rows])
            smaller = scores > 0
            if smaller.mean() < size and silhouette_score(points, smaller) > silhouette:
                kept[rows] = torch.as_tensor(~smaller)
        return kept

    return Defense("activation clustering", keep=keep)


def vote_margin(neighbours: Tensor, labels: Tensor) -> Tensor:
    """By what share of the votes the strongest other label beats an image's own: (N,).

    neighbours: the labels (N, k) of the k nearest images of each. labels: their own labels (N,).
    Above 0 the image is outvoted; a tie is 0. Source: Peri and others (arXiv 1909.13374).
    """
    n_classes = int(max(neighbours.max(), labels.max())) + 1
    votes = one_hot(neighbours, n_classes).sum(1)
    own = votes.gather(1, labels[:, None])[:, 0]
    others = votes.scatter(1, labels[:, None], 0).amax(1)
    return (others - own) / neighbours.shape[1]


def neighbour_labels(features: Tensor, labels: Tensor, k: int) -> Tensor:
    """The labels (N, k) of the k other images that are nearest to each in features (N, features).

    Raises ValueError for features as `check_features` does, and unless k is 1 to N - 1.
    """
    guards.check_features(features, labels)
    guards.check_spread(features, "the data")
    if not 1 <= k < len(labels):
        raise ValueError(
            f"k is {k}, but each of {len(labels)} images has {len(labels) - 1} others."
        )
    points = features.cpu().numpy()
    nearest = NearestNeighbors(n_neighbors=k).fit(points).kneighbors(return_distance=False)
    return labels[torch.as_tensor(nearest, device=labels.device)]


def deep_knn(k: int) -> Defense:
    """Drop the images that are outvoted by their k nearest neighbours in feature space.

    The time grows with the square of the number of images. Source: Peri and others (arXiv
    1909.13374).
    """
    guards.check_whole("The number of neighbours", k)

    def keep(data: Data, fit: Callable) -> Tensor:
        guards.check_counts(data, k, f"a vote of {k} neighbours")
        labels, features = data.y.cpu(), features_of(fit(data), data)
        return vote_margin(neighbour_labels(features, labels, k), labels) <= 0

    return Defense(f"deep {k}-NN", keep=keep)
