"""The slab attack, lesson 03, by hand and against slow arithmetic."""

import numpy as np
import pytest
import torch

from course_utils.attacks.slab import (
    FeasibleSet,
    behind,
    check_game,
    corner_images,
    cut,
    feasible_sets,
    hinge_gradient,
    maximiser,
    min_max,
    plane,
    repeats,
    slab_attack,
    to_points,
    to_poison,
    train_decoy,
    walk,
)
from course_utils.data import Data
from course_utils.models import build
from course_utils.threat import Indiscriminate, Poison, ThreatModel
from course_utils.training import Recipe, train
from tests.reference.small import drawn


def pair(n: int = 40) -> Data:
    """Two classes of images of 2 x 3 pixels that differ in brightness."""
    y = torch.arange(n) % 2
    x = 0.3 + 0.3 * y[:, None, None, None] + 0.25 * torch.rand(n, 1, 2, 3, generator=drawn(2))
    return Data(x, y, ("dark", "bright"))


DATA = pair()


def linear(weight, bias):
    model = build("logistic_regression", (1, 2, 3), 2)
    with torch.no_grad():
        model.head.weight.copy_(torch.tensor(weight))
        model.head.bias.copy_(torch.tensor(bias))
    return model


WEIGHT = [[0.0, 1.0, 2.0, 0.0, -1.0, 0.5], [3.0, 0.0, 1.0, 0.5, 1.0, 0.5]]
MODEL = linear(WEIGHT, [0.5, 0.25])


def test_points_and_back():
    x, y = to_points(DATA)
    assert x.dtype == np.float64 and x.shape == (40, 6) and y[:3].tolist() == [-1, 1, -1]
    np.testing.assert_allclose(x[3], DATA.x[3].flatten().numpy(), rtol=1e-6)
    poison = to_poison(x[:3], y[:3], DATA)
    assert torch.equal(poison.images, DATA.x[:3]) and poison.labels.tolist() == [0, 1, 0]
    assert poison.base is None and poison.placement == "append"


def test_the_plane_of_a_linear_model():
    weight, bias = plane(MODEL)
    assert weight.tolist() == [3, -1, -1, 0.5, 2, 0] and bias == -0.25


def test_corner_images_have_the_largest_loss():
    poison = corner_images(DATA, ThreatModel(3, placement="append"), MODEL)
    assert poison.labels.tolist() == [0, 1, 0]
    assert poison.images[0].flatten().tolist() == [1, 0, 0, 1, 1, 0]
    assert poison.images[1].flatten().tolist() == [0, 1, 1, 0, 0, 0]


def test_the_excess_over_each_limit_by_hand():
    inside = FeasibleSet(np.array([0.5, 0.5]), 0.3, np.array([1.0, 0.0]), 0.1)
    for point, excess in (
        ([0.5, 0.9], 0.1),  # sphere
        ([0.7, 0.5], 0.1),  # slab
        ([0.35, 0.5], 0.05),  # slab, other side
        ([0.5, 0.5], -0.1),
    ):
        assert inside.excess(np.array(point)) == pytest.approx(excess)
    wide = FeasibleSet(np.array([0.5, 0.5]), 9, np.array([1.0, 0.0]), 9)
    assert wide.excess(np.array([-0.2, 0.5])) == pytest.approx(0.2)
    assert wide.excess(np.array([0.5, 1.3])) == pytest.approx(0.3)


def test_the_feasible_sets_by_slow_arithmetic():
    x, y = to_points(DATA)
    for quantile in (0.5, 0.9):
        sets = feasible_sets(x, y, quantile)
        axis = x[y == 1].mean(0) - x[y == -1].mean(0)
        axis /= np.sqrt((axis**2).sum())
        for label in (-1, 1):
            mean = np.array([np.mean(column) for column in x[y == label].T])
            far = [np.sqrt(((point - mean) ** 2).sum()) for point in x[y == label]]
            along = [abs(((point - mean) * axis).sum()) for point in x[y == label]]
            found = sets[label]
            np.testing.assert_allclose(found.centre, mean)
            np.testing.assert_allclose(found.axis, axis)
            for limit, values in ((found.radius, far), (found.width, along)):
                whole = np.quantile(values, quantile)
                assert whole * (1 - 2e-5) < limit < whole * (1 - 0.5e-5)


def test_the_walk_by_hand():
    centre = np.array([0.5, 0.5, 0.2])
    np.testing.assert_allclose(walk(centre, np.array([3.0, -4.0, 0.0]), 0.25), [0.65, 0.3, 0.2])
    # The first pixel stops at 1 after 0.5; the second has the rest of the radius.
    found = walk(centre, np.array([1.0, 0.1, 0.0]), 0.6)
    np.testing.assert_allclose(found, [1.0, 0.5 + np.sqrt(0.36 - 0.25), 0.2])
    np.testing.assert_allclose(walk(centre, np.array([1.0, -1.0, 1.0]), 9.0), [1, 0, 1])
    np.testing.assert_allclose(walk(centre, np.zeros(3), 0.3), centre)


def test_a_cut_by_hand():
    """The unit circle, cut at x <= 0.6: towards the right the best point is a corner of the cut."""

    def circle(aim):
        return aim / np.linalg.norm(aim)

    best = cut(circle, np.array([2.0, 0.0]), 1.2)
    np.testing.assert_allclose(best(np.array([3.0, 0.1])), [0.6, 0.8], atol=1e-4)
    np.testing.assert_allclose(best(np.array([1.0, -1.0])), [0.6, -0.8], atol=1e-4)
    np.testing.assert_allclose(best(np.array([-1.0, 1.0])), [-np.sqrt(0.5), np.sqrt(0.5)])


def test_the_best_point_beats_random_ones_on_both_sides_of_the_slab():
    x, y = to_points(DATA)
    inside = feasible_sets(x, y, 0.8)[1]
    best, generator = maximiser(inside), np.random.default_rng(3)
    points = inside.centre + generator.normal(size=(20_000, 6)) * 0.12
    points = points[[inside.excess(point) <= 0 for point in points]]
    assert len(points) > 500
    for aim in (inside.axis, -inside.axis, np.eye(6)[2], -np.ones(6), generator.normal(size=6)):
        found = best(aim)
        assert -1e-4 < inside.excess(found) < 1e-6
        assert found @ aim >= (points @ aim).max()
    assert (best(inside.axis) - inside.centre) @ inside.axis == pytest.approx(inside.width)
    assert (best(-inside.axis) - inside.centre) @ inside.axis == pytest.approx(-inside.width)


def test_the_hinge_gradient_is_a_finite_difference():
    x, y = to_points(DATA)
    theta = np.array([0.5, -1.0, 2.0, 0.3, 0.7, -0.4, -0.2])

    def loss(theta):
        return np.mean(np.maximum(0, 1 - y * (x @ theta[:-1] + theta[-1])))

    numeric = [(loss(theta + h) - loss(theta - h)) / 2e-6 for h in 1e-6 * np.eye(7)]
    np.testing.assert_allclose(hinge_gradient(x, y, theta), numeric, atol=1e-6)
    on_the_edge = hinge_gradient(np.array([[1.0]]), np.array([1]), np.array([1.0, 0.0]))
    assert not on_the_edge.any()  # a margin of exactly 1 has no loss


def test_the_game_written_out():
    x, y = to_points(DATA)
    corners = {label: (lambda aim: np.where(aim > 0, 0.9, 0.1)) for label in (-1, 1)}
    for rounds, keep, step, weight in ((9, 4, 0.03, 0.3), (5, 2, 0.2, 0.05)):
        points, labels, theta = min_max(x, y, corners, weight, rounds=rounds, keep=keep, step=step)
        mine, seen, pairs = np.zeros(7), np.full(7, 1e-12), []
        for _ in range(rounds):
            two = np.stack([corners[-1](mine[:-1]), corners[1](-mine[:-1])])
            pairs.append(two)
            slope = hinge_gradient(x, y, mine) + weight * hinge_gradient(
                two, np.array([-1, 1]), mine
            )
            seen += slope**2
            mine = mine - step * slope / np.sqrt(seen)
        np.testing.assert_allclose(theta, mine, rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(points, np.concatenate(pairs[-keep:]))
        assert labels.tolist() == [-1, 1] * keep


def test_repeats_and_weights_by_hand():
    assert repeats(2, 5).tolist() == [0, 0, 0, 1, 1]
    assert repeats(4, 4).tolist() == [0, 1, 2, 3]
    assert repeats(6, 3).tolist() == [0, 1, 2]
    for budget, weight in ((2, 0.05), (4, 0.1), (12, 0.1)):
        assert check_game(ThreatModel(budget, placement="append"), 40, None) == weight
    assert check_game(ThreatModel(2, placement="append"), 40, 0.7) == 0.7


def test_the_attack_is_the_game_on_the_feasible_sets():
    x, y = to_points(DATA)
    threat, game = ThreatModel(7, placement="append"), {"rounds": 12, "keep": 2, "step": 0.1}
    learnt = train(MODEL, DATA, Recipe(30, 10, 0.3), seed=5)
    for quantile, weight, decoy in ((0.9, None, None), (0.6, 0.5, learnt)):
        best = {label: maximiser(s) for label, s in feasible_sets(x, y, quantile).items()}
        if decoy is not None:
            best = {label: behind(best[label], decoy, label) for label in best}
        points, labels, _ = min_max(x, y, best, 0.1 if weight is None else weight, **game)
        poison = slab_attack(DATA, Indiscriminate(), threat, quantile, weight, decoy, **game)
        expected = to_poison(points[repeats(4, 7)], labels[repeats(4, 7)], DATA)
        assert torch.equal(poison.images, expected.images)
        assert torch.equal(poison.labels, expected.labels)
        poison.check(threat, DATA)


@pytest.mark.parametrize(("label", "most"), [(1, 1.0), (-1, 1.0), (1, 0.5), (-1, 0.5)])
def test_behind_a_decoy_the_hinge_loss_is_at_most_so_much(label, most):
    weight, bias = plane(MODEL)

    def box(aim):
        return np.where(aim > 0, 1.0, 0.0)

    found = behind(box, MODEL, label, most)(-label * weight)
    loss = max(0, 1 - label * (found @ weight + bias))
    assert loss == pytest.approx(most, abs=1e-4)
    free = behind(box, MODEL, label, most)(label * weight)
    assert np.array_equal(free, box(label * weight))


def test_a_decoy_learns_the_images_near_the_boundary_with_both_labels():
    recipe, model = Recipe(2, 10, 0.1), build("logistic_regression", DATA.shape, 2)
    first = train(model, DATA, recipe, seed=4)
    with torch.no_grad():
        logits = first(DATA.x).double()
    sides = (logits[:, 1] - logits[:, 0]) * (2 * DATA.y - 1)  # the margin, below 0 where wrong
    for share, count in ((0.1, 4), (0.25, 10)):
        rows = sides.argsort()[:count]
        doubt = Poison(DATA.x[rows], 1 - DATA.y[rows], rows, "append")
        expected = train(model, doubt.apply(DATA), recipe, seed=4)
        found = train_decoy(model, DATA, recipe, 4, share)
        assert torch.equal(found.head.weight, expected.head.weight)
    default = train_decoy(model, DATA, recipe, 4)
    assert torch.equal(default.head.weight, train_decoy(model, DATA, recipe, 4, 0.1).head.weight)
