"""The filters of lesson 11 against scikit-learn and slow loops."""

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import silhouette_score

from course_utils.defenses import filters
from tests.reference.small import drawn, models, noise_data

FEATURES = torch.randn(40, 6, generator=drawn(3), dtype=torch.float64) + 2
LABELS = torch.arange(40) % 2


@pytest.mark.parametrize("centred", [True, False])
def test_spectral_scores_are_squared_projections_within_a_class(centred):
    found = filters.spectral_scores(FEATURES, LABELS, centred)
    for label in (0, 1):
        part = FEATURES[label == LABELS].numpy()
        direction = PCA(1, svd_solver="full").fit(part).components_[0]
        around = part - part.mean(0) if centred else part
        np.testing.assert_allclose(found[label == LABELS], (around @ direction) ** 2, rtol=1e-6)


def test_the_largest_scores_of_each_class_by_hand():
    scores = torch.tensor([5.0, 1.0, 4.0, 9.0, 2.0, 8.0, 3.0])
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 1])
    assert filters.largest(scores, labels, 0.5).tolist() == [1, 0, 0, 1, 0, 1, 1]
    assert filters.largest(scores, labels, 0.99).tolist() == [1, 0, 1, 1, 0, 1, 1]
    assert not filters.largest(scores, labels, 0.0).any()


def looked_at(defense):
    """What a defense keeps of random images, seen with an untrained model; and the features."""
    data = noise_data(60)
    (model,) = models(data, 4)
    return defense.keep(data, lambda seen: model), data, filters.features_of(model, data)


@pytest.mark.parametrize("centred", [True, False])
def test_spectral_signatures_removes_the_largest_scores(centred):
    kept, data, features = looked_at(filters.spectral_signatures(0.2, centred))
    scores = filters.spectral_scores(features, data.y, centred)
    assert torch.equal(~kept, filters.largest(scores, data.y, 0.2)) and (~kept).sum() == 12


def test_a_class_is_split_as_scikit_learn_does():
    part = torch.cat([FEATURES[:20], FEATURES[:6] + 9])
    points, scores = filters.split_class(part)
    assert (scores > 0).tolist() == [False] * 20 + [True] * 6
    found = KMeans(2, n_init=3, random_state=0).fit(points)
    centres = found.cluster_centers_[[found.labels_[0], found.labels_[-1]]]
    far, near = (np.linalg.norm(points - centre, axis=1) for centre in centres)
    np.testing.assert_allclose(scores, far - near, atol=1e-9)


@pytest.mark.parametrize(("size", "silhouette"), [(0.5, -1), (0.35, -1), (0.5, 0.15), (0.5, 0.99)])
def test_activation_clustering_drops_small_clusters_that_stand_apart(size, silhouette):
    kept, data, features = looked_at(filters.activation_clustering(size, silhouette))
    for label in range(3):
        points, scores = filters.split_class(features[data.y == label])
        smaller = scores > 0
        drops = smaller.mean() < size and silhouette_score(points, smaller) > silhouette
        expected = ~smaller if drops else np.ones(20, dtype=bool)
        assert kept[data.y == label].tolist() == expected.tolist()


def test_vote_margins_by_hand():
    neighbours = torch.tensor([[0, 0, 1, 2], [1, 1, 2, 2], [0, 0, 0, 3], [1, 2, 2, 0]])
    labels = torch.tensor([0, 1, 4, 2])
    assert filters.vote_margin(neighbours, labels).tolist() == [-0.25, 0.0, 0.75, -0.25]


@pytest.mark.parametrize("k", [1, 2, 4])
def test_deep_knn_keeps_what_is_not_outvoted_ties_included(k):
    kept, data, features = looked_at(filters.deep_knn(k))
    ties = 0
    for row in range(60):
        far = (features - features[row]).norm(dim=1)
        far[row] = torch.inf
        votes = data.y[far.argsort()[:k]].bincount(minlength=3).tolist()
        own = votes.pop(data.y[row].item())
        ties += own == max(votes)
        assert kept[row].item() == (own >= max(votes))
    assert ties > 0 or k % 2
