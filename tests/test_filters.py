"""The filters of lesson 11: their scores, their masks, their errors, and that they find poison."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from sklearn.metrics import roc_auc_score, silhouette_score
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

from course_utils.attacks.label_flipping import random_flips
from course_utils.attacks.patch_backdoors import badnets
from course_utils.attacks.triggers import solid_patch
from course_utils.cases import backdoors, label_flips, transfer
from course_utils.cases.filtering import filters
from course_utils.data import Data
from course_utils.defenses.filters import (
    activation_clustering,
    class_scores,
    cluster_scores,
    deep_knn,
    features_of,
    largest,
    neighbour_labels,
    spectral_scores,
    spectral_signatures,
    split_class,
    vote_margin,
)
from course_utils.defenses.sanitizers import sanitizer
from course_utils.models import build
from course_utils.studies import lesson_11
from course_utils.threat import Backdoor, Indiscriminate, ThreatModel
from course_utils.training import Recipe, train
from course_utils.trials import Victim

NAMES = ("Spectral Signatures", "Deep k-NN")
RECIPE = Recipe(epochs=4, batch_size=50, lr=0.1)
FILTERS = {
    "spectral": spectral_signatures(0.1),
    "uncentred": spectral_signatures(0.1, centred=False),
    "clustering": activation_clustering(),
    "every smaller cluster": activation_clustering(0.5, -1),
    "deep k-NN": deep_knn(5),
    "sanitizers": sanitizer("sphere", "slab", "loss", "k-NN"),
}
SIZES = st.tuples(st.integers(3, 40), st.integers(2, 30), st.integers(0, 10**6))


@pytest.fixture(scope="module")
def looker(images):
    """A model that has trained on the images for a moment."""
    return train(build("mlp", images.shape, 10), images, RECIPE)


@pytest.fixture(scope="module")
def features(looker, images):
    return features_of(looker, images)


def cloud(n: int, d: int, seed: int) -> torch.Tensor:
    """Points of a stretched cloud away from zero, in float64."""
    rng = np.random.default_rng(seed)
    return torch.tensor(3 + rng.normal(size=(n, d)) * np.linspace(1, 4, d))


def fit_never(part: Data):
    raise AssertionError("No model may be trained for input that will be refused.")


def dropped(labels: torch.Tensor, kept: torch.Tensor) -> list[int]:
    """How many images of each class went."""
    return [int((~kept[labels == label]).sum()) for label in labels.unique()]


@settings(max_examples=60)
@given(SIZES)
def test_the_spectral_score_is_that_of_numpy(size):
    features = cloud(*size)
    x = features.numpy()
    direction = np.linalg.svd(x - x.mean(0), full_matrices=False)[2][0]
    assert np.allclose(class_scores(features), ((x - x.mean(0)) @ direction) ** 2)
    assert np.allclose(class_scores(features, centred=False), (x @ direction) ** 2)


@settings(max_examples=30)
@given(SIZES)
def test_only_the_centred_score_forgets_where_the_class_lies(size):
    features = cloud(*size)
    moved = features + 7
    assert torch.allclose(class_scores(features), class_scores(moved))
    mean = class_scores(features).mean()
    variances = torch.linalg.eigvalsh(torch.cov(features.T, correction=0))
    assert torch.isclose(mean, variances[-1])  # the mean score is the largest variance


def test_spectral_scores_are_computed_within_each_class(images, features):
    found = spectral_scores(features, images.y)
    for label in range(10):
        x = features[images.y == label].numpy()
        direction = np.linalg.svd(x - x.mean(0), full_matrices=False)[2][0]
        expected = ((x - x.mean(0)) @ direction) ** 2
        assert np.allclose(found[images.y == label], expected)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_spectral_signatures_drop_the_largest_of_each_class(images, looker, features, share):
    kept = spectral_signatures(share).keep(images, lambda part: looker)
    count = min(round(share * 30), 29)
    assert dropped(images.y, kept) == [count] * 10
    scores = spectral_scores(features, images.y)
    for label in range(10):
        mine = images.y == label
        if count > 0:
            assert scores[mine & ~kept].min() >= scores[mine & kept].max()


@given(st.integers(1, 40), st.floats(0, 1, exclude_max=True), st.integers(0, 1000))
def test_largest_never_takes_a_whole_class(n, share, seed):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(3, (n,), generator=generator)
    chosen = largest(torch.rand(n, generator=generator), labels, share)
    for label in labels.unique():
        size = int((labels == label).sum())
        assert chosen[labels == label].sum() == min(round(share * size), size - 1)


def test_the_clusters_are_those_of_scikit_learn(images, features):
    for label in range(10):
        x = features[images.y == label].numpy()
        _, _, axes = np.linalg.svd(x - x.mean(0), full_matrices=False)
        points = (x - x.mean(0)) @ axes[:10].T
        theirs = KMeans(2, n_init=3, random_state=0).fit_predict(points)
        small = theirs == np.bincount(theirs).argmin()
        ours, scores = split_class(features[images.y == label])
        assert (scores > 0).sum() == small.sum() and ((scores > 0) == small).all()
        assert silhouette_score(ours, scores > 0) == pytest.approx(silhouette_score(points, small))


def test_clustering_drops_what_its_rule_says(images, looker, features):
    scores = cluster_scores(features, images.y)
    every = activation_clustering(0.5, -1).keep(images, lambda part: looker)
    for size, limit in ((0.35, 0.1), (0.45, 0.2), (0.2, 0.4)):
        kept = activation_clustering(size, limit).keep(images, lambda part: looker)
        for label in range(10):
            mine = images.y == label
            small = (scores[mine] > 0).numpy()
            points, _ = split_class(features[mine])
            suspicious = small.mean() < size and silhouette_score(points, small) > limit
            assert ((~kept[mine]).numpy() == (small & suspicious)).all()
            if small.mean() < 0.5:
                assert ((~every[mine]).numpy() == small).all()


@settings(max_examples=20)
@given(st.integers(12, 40), st.integers(1, 9), st.integers(2, 4), st.integers(0, 1000))
def test_the_vote_is_that_of_scikit_learn_without_the_image_itself(n, k, n_classes, seed):
    points = cloud(n, 3, seed)
    labels = torch.tensor(np.random.default_rng(seed).integers(n_classes, size=n))
    margins = vote_margin(neighbour_labels(points, labels, k), labels)
    for i in range(n):
        rest = np.arange(n) != i
        voter = KNeighborsClassifier(k).fit(points[rest].numpy(), labels[rest].numpy())
        shares = dict(
            zip(voter.classes_, voter.predict_proba(points[i : i + 1].numpy())[0], strict=True)
        )
        own = shares.pop(labels[i].item(), 0)
        assert margins[i].item() == pytest.approx(max(shares.values(), default=0) - own, abs=1e-6)


def test_an_image_is_not_its_own_neighbour_even_if_it_comes_twice(features, images):
    twice, labels = features.repeat(2, 1), torch.cat([images.y, (images.y + 1) % 10])
    nearest = neighbour_labels(twice, labels, 1)[:, 0]
    assert torch.equal(nearest, torch.cat([(images.y + 1) % 10, images.y]))
    found = NearestNeighbors(n_neighbors=4).fit(features.numpy()).kneighbors(return_distance=False)
    assert torch.equal(neighbour_labels(features, images.y, 4), images.y[torch.as_tensor(found)])


def test_a_plurality_is_enough_and_a_tie_is_kept():
    neighbours = torch.tensor([[0, 0, 1, 2, 3], [0, 0, 1, 1, 2], [1, 1, 2, 0, 3]])
    margins = vote_margin(neighbours, torch.tensor([0, 0, 0]))
    assert torch.allclose(margins, torch.tensor([-0.2, 0.0, 0.2]))


@pytest.mark.parametrize("scenario", ["scratch", "finetune", "transfer"])
@pytest.mark.parametrize("name", FILTERS)
def test_every_filter_works_in_every_scenario(images, held_out, looker, name, scenario):
    flips = random_flips(images, Indiscriminate(), ThreatModel(30), seed=0)
    patched = badnets(images, Backdoor(solid_patch(4), 3), ThreatModel(20), seed=0)
    for poison in (flips, patched):
        seen = poison.apply(images)

        def fit(part: Data):
            return train(looker, part, RECIPE, scenario=scenario, seed=3)

        kept = FILTERS[name].keep(seen, fit)
        assert kept.dtype == torch.bool and kept.shape == (len(seen),) and kept.any()
        defended = train(looker, seen, RECIPE, scenario=scenario, seed=3, defense=FILTERS[name])
        by_hand = fit(seen[kept])
        for a, b in zip(defended.parameters(), by_hand.parameters(), strict=True):
            assert torch.equal(a, b)


def test_in_transfer_the_features_are_those_of_the_extractor(images, looker, features):
    refitted = train(looker, images, RECIPE, scenario="transfer", seed=5)
    assert torch.equal(features_of(refitted, images), features)


@pytest.mark.parametrize("share", [-0.1, 1.0, 1.5, 15, float("nan")])
def test_a_share_outside_0_and_1_is_refused(share):
    with pytest.raises(ValueError, match=r"expected a value in \[0, 1\)"):
        spectral_signatures(share)


@pytest.mark.parametrize("k", [0, -3, 2.5, "5"])
def test_a_k_that_is_no_number_of_neighbours_is_refused(k):
    with pytest.raises(ValueError, match=r"neighbours is .*, expected a whole number"):
        deep_knn(k)


@pytest.mark.parametrize(("size", "limit"), [(0, 0.1), (0.6, 0.1), (0.35, 1.0), (0.35, -2)])
def test_a_rule_that_cannot_be_met_is_refused(size, limit):
    with pytest.raises(ValueError, match="expected"):
        activation_clustering(size, limit)


def test_a_class_with_too_few_images_is_named_before_a_model_is_trained(images):
    rows = torch.cat([(images.y != 3).nonzero()[:, 0], (images.y == 3).nonzero()[:6, 0]])
    few = images[rows]
    with pytest.raises(ValueError, match="Class Dress has 6 images, too few for a vote of 7"):
        deep_knn(7).keep(few, fit_never)
    with pytest.raises(ValueError, match="Class Dress has 6 images, too few for clustering"):
        activation_clustering().keep(few, fit_never)
    alone = images[images.y == 3]
    with pytest.raises(ValueError, match="has 29 others"):
        deep_knn(30).keep(alone, lambda part: build("mlp", images.shape, 10))


@pytest.mark.parametrize("name", ["spectral", "clustering", "deep k-NN"])
def test_constant_features_are_refused(images, looker, name):
    blank = build("mlp", images.shape, 10)
    for layer in blank.features.parameters():
        torch.nn.init.constant_(layer, -0.1)
    with pytest.raises(ValueError, match="constant features"):
        FILTERS[name].keep(images, lambda part: blank)
    if name != "deep k-NN":
        x = images.x.clone()
        x[images.y == 4] = x[images.y == 4][0]
        same = Data(x, images.y, images.classes)
        with pytest.raises(ValueError, match="of class 4 have constant features"):
            FILTERS[name].keep(same, lambda part: looker)


def test_features_that_are_not_finite_or_do_not_fit_are_refused(images, features):
    broken = features.clone()
    broken[3, 2] = float("nan")
    with pytest.raises(ValueError, match="not finite"):
        spectral_scores(broken, images.y)
    with pytest.raises(ValueError, match="not finite"):
        neighbour_labels(broken, images.y, 3)
    with pytest.raises(ValueError, match="expected"):
        spectral_scores(features, images.y[:-1])
    with pytest.raises(ValueError, match="has 299 others"):
        neighbour_labels(features, images.y, 300)


def test_the_looks_of_a_case_are_honest():
    """The bound, the oracle and the random controls are what they say."""
    case = label_flips.flips(301)
    poison, told = case.oblivious, lesson_11.bound(case)
    assert told == int(torch.bincount(poison.labels).max()) and len(poison) == 200
    rows = {row["filter"]: row for row in lesson_11.filter_rows(case, NAMES)}
    assert list(rows) == ["none", "oracle", *NAMES, *(f"random, as {name}" for name in NAMES)]
    assert (rows["oracle"]["poisons removed"], rows["oracle"]["clean removed"]) == (200, 0)
    removed = [
        rows[name]["poisons removed"] + rows[name]["clean removed"]
        for name in ("Deep k-NN", "random, as Deep k-NN")
    ]
    assert removed[0] == removed[1] > 0
    seen = poison.apply(case.data)
    plain = case.goal.measure(case.train(case.plain, seen), case.test)
    assert rows["none"]["accuracy"] == plain["accuracy"]
    victim = case.train(filters(case, told)["Deep k-NN"], seen)
    assert rows["Deep k-NN"]["accuracy"] == case.goal.measure(victim, case.test)["accuracy"]
    assert rows["Deep k-NN"]["auc"] > 0.8


def test_deep_knn_finds_a_collision_and_random_removal_does_not():
    case = transfer.bullseye(301)
    seen, bad = case.oblivious.apply(case.data), case.oblivious.mask(case.data)
    model, filtered = case.train(case.plain, seen), Victim(deep_knn(10), case.recipe)
    kept, lot = (
        victim.defense.keep(seen, lambda part: model)
        for victim in (filtered, lesson_11.at_random(filtered, 301))
    )
    assert (bad & ~kept).sum() >= 4 and (~bad & ~kept).float().mean() < 0.3
    assert lot.sum() == kept.sum() and (bad & ~lot).sum() < (bad & ~kept).sum()


def test_a_strong_backdoor_has_a_spectral_signature():
    case = backdoors.badnets_case(301, rate=0.03, side=14)
    rows = lesson_11.spectral_looks(case, [(20, "first")])
    assert rows[0]["centred"] > 0.9 and rows[0]["strength"] > 0.8


@given(st.integers(4, 60), st.integers(0, 1000))
def test_class_ranks_keep_the_order_within_a_class(n, seed):
    generator = torch.Generator().manual_seed(seed)
    scores, labels = torch.rand(n, generator=generator), torch.arange(n) % 2
    ranks = lesson_11.class_ranks(scores, labels)
    for label in (0, 1):
        mine = labels == label
        assert ranks[mine].min() == 0 and ranks[mine].max() == 1
        assert torch.equal(scores[mine].argsort(), ranks[mine].argsort())
    if (labels == 0).sum() > 2:
        bad = torch.rand(n, generator=generator) < 0.5
        mine = labels == 0
        if 0 < bad[mine].sum() < mine.sum():
            assert roc_auc_score(bad[mine], ranks[mine]) == pytest.approx(
                roc_auc_score(bad[mine], scores[mine])
            )
