"""The slab attack of lesson 03: its search, its game, its poison, and the sanitizers."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize, minimize_scalar
from sklearn.neighbors import NearestNeighbors

from course_utils.attacks import slab
from course_utils.attacks.label_flipping import budget_for, random_flips
from course_utils.attacks.slab import FeasibleSet, cut, feasible_sets, maximiser, slab_attack, walk
from course_utils.data import Data, DataError, balanced, load, only
from course_utils.defenses import sanitizers
from course_utils.defenses.sanitizers import class_limits, sanitizer
from course_utils.models import build
from course_utils.threat import Indiscriminate, ThreatModel, ThreatModelError, accuracy
from course_utils.training import Recipe, train

GOAL = Indiscriminate()
RECIPE = Recipe(epochs=10)
SEEDS = st.integers(0, 10**6)


@pytest.fixture(scope="module")
def pair() -> tuple[Data, Data]:
    """1,200 training and 800 test images of two classes."""
    train_all, test_all = (only(part, ["Dress", "Coat"]) for part in load())
    return balanced(train_all, 1200, seed=0), test_all


@pytest.fixture(scope="module")
def poison(pair):
    """The slab attack at 20%."""
    return slab_attack(pair[0], GOAL, appended(pair[0], 0.2))


def appended(data: Data, fraction: float) -> ThreatModel:
    """Leave to append this fraction."""
    return ThreatModel(budget_for(data, fraction), placement="append")


def fit_on(part: Data):
    """A linear model."""
    return train(build("logistic_regression", part.shape, len(part.classes)), part, RECIPE)


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def problem(seed: int, dimensions: int | None = None) -> tuple[FeasibleSet, np.ndarray]:
    """A random feasible set and an aim; some aims are parallel to the axis or have zeros."""
    rng = np.random.default_rng(seed)
    d = dimensions or int(rng.integers(1, 9))
    centre, axis, aim = rng.random(d), unit(rng.normal(size=d)), unit(rng.normal(size=d))
    centre[rng.random(d) < 0.1] = rng.integers(2)
    if seed % 5 == 0:
        aim = axis * rng.choice([-1, 1])
    if seed % 5 == 1:
        aim[rng.random(d) < 0.5] = 0.0
    return FeasibleSet(centre, rng.uniform(0.02, 1.5), axis, rng.uniform(0.005, 0.6)), aim


def generic(inside: FeasibleSet, aim: np.ndarray, start: np.ndarray, extra=()) -> np.ndarray:
    """The same problem by a general-purpose solver; `extra` are further cuts <normal, x> <= c."""
    step = [
        lambda x: inside.radius**2 - np.sum((x - inside.centre) ** 2),
        lambda x: inside.width - (x - inside.centre) @ inside.axis,
        lambda x: inside.width + (x - inside.centre) @ inside.axis,
        *[lambda x, n=n, c=c: c - n @ x for n, c in extra],
    ]
    limits = [{"type": "ineq", "fun": function} for function in step]
    box = [(0, 1)] * len(aim)
    options = {"ftol": 1e-12, "maxiter": 500}
    found = minimize(
        lambda x: -aim @ x, start, bounds=box, constraints=limits, method="SLSQP", options=options
    )
    return found.x


@settings(max_examples=100)
@given(SEEDS)
def test_the_answer_is_feasible_and_as_good_as_a_generic_solver_s(seed):
    inside, aim = problem(seed)
    ours = maximiser(inside)(aim)
    assert inside.excess(ours) <= 1e-9
    theirs = generic(inside, aim, inside.centre)
    if inside.excess(theirs) < 1e-8:
        assert aim @ ours >= aim @ theirs - 1e-6


@settings(max_examples=100)
@given(SEEDS, st.floats(0.01, 100))
def test_no_feasible_point_is_better(seed, length):
    inside, aim = problem(seed)
    ours = maximiser(inside)(length * aim)
    rng = np.random.default_rng(seed)
    points = np.concatenate(
        [rng.random((300, len(aim))), ours + 0.02 * rng.normal(size=(300, len(aim)))]
    )
    points = inside.centre + rng.random((600, 1)) * (points - inside.centre)
    allowed = [point for point in points if inside.excess(point) <= 0]
    assert all(aim @ point <= aim @ ours + 1e-9 for point in allowed)


def test_with_two_pixels_no_point_of_a_grid_is_better():
    ticks = np.linspace(0, 1, 201)
    grid = np.stack(np.meshgrid(ticks, ticks), -1).reshape(-1, 2)
    for seed in range(40):
        inside, aim = problem(seed, dimensions=2)
        step = grid - inside.centre
        allowed = np.linalg.norm(step, axis=1) <= inside.radius
        allowed &= np.abs(step @ inside.axis) <= inside.width
        if not allowed.any():
            continue
        ours, best = aim @ maximiser(inside)(aim), (grid[allowed] @ aim).max()
        assert best <= ours + 1e-9, seed
        assert ours <= best + 0.02 or allowed.sum() < 50, seed


@settings(max_examples=10)
@given(SEEDS)
def test_in_784_dimensions_the_dual_proves_the_answer(seed):
    rng = np.random.default_rng(seed)
    axis = unit(rng.normal(size=784))
    inside = FeasibleSet(rng.random(784), 6.0, axis, 0.5)
    aim = unit(unit(rng.normal(size=784)) + axis)
    middle = inside.centre @ axis

    def bound(price: float) -> float:
        turned = aim - price * axis
        return turned @ walk(inside.centre, turned, inside.radius) + price * (inside.width + middle)

    lowest = minimize_scalar(bound, bounds=(0, 5), method="bounded", options={"xatol": 1e-10}).fun
    ours = maximiser(inside)(aim)
    assert inside.excess(ours) <= 1e-9
    assert abs(lowest - aim @ ours) < 1e-6


@settings(max_examples=50)
@given(SEEDS)
def test_a_further_cut_agrees_with_the_generic_solver_or_says_empty(seed):
    inside, aim = problem(seed)
    rng = np.random.default_rng(seed + 1)
    normal = rng.normal(size=len(aim))
    limit = normal @ inside.centre + rng.normal() * 0.2
    try:
        ours = cut(maximiser(inside), normal, limit)(aim)
    except ThreatModelError as error:
        assert "empty" in str(error)
        assert normal @ maximiser(inside)(-normal) > limit
        return
    assert inside.excess(ours) <= 1e-8 and normal @ ours <= limit + 1e-8
    theirs = generic(inside, aim, ours, [(normal, limit)])
    if inside.excess(theirs) < 1e-8 and normal @ theirs <= limit + 1e-8:
        assert aim @ ours >= aim @ theirs - 1e-6


def test_special_aims_and_sets():
    inside = FeasibleSet(np.array([0.5, 0.5, 0.5]), 0.4, np.array([1.0, 0, 0]), 0.1)
    assert np.allclose(maximiser(inside)(np.zeros(3)), inside.centre)
    assert inside.excess(maximiser(inside)(inside.axis)) <= 1e-9
    assert maximiser(inside)(inside.axis)[0] == pytest.approx(0.6)
    flat = FeasibleSet(inside.centre, 0.4, inside.axis, 0.0)
    assert maximiser(flat)(np.array([1.0, 1, 0])) == pytest.approx([0.5, 0.9, 0.5], abs=1e-6)
    huge = FeasibleSet(inside.centre, 9.0, inside.axis, 9.0)
    assert maximiser(huge)(np.array([1.0, -1, 0])) == pytest.approx([1, 0, 0.5])


def test_an_empty_set_is_refused():
    best = maximiser(FeasibleSet(np.array([0.5, 0.5]), 0.3, np.array([1.0, 0]), 0.1))
    with pytest.raises(ThreatModelError, match="empty"):
        cut(best, np.array([0.0, 1.0]), 0.1)(np.array([0.0, 1.0]))


def test_the_feasible_sets_hold_their_share_and_meet_the_filters(pair):
    data, _ = pair
    x, y = slab.to_points(data)
    assert set(y) == {-1, 1} and ((y > 0) == (data.y.numpy() == 1)).all()
    for label, inside in feasible_sets(x, y, 0.9).items():
        mine = x[y == label] - inside.centre
        assert np.mean(np.linalg.norm(mine, axis=1) <= inside.radius) == pytest.approx(
            0.9, abs=0.01
        )
        assert np.mean(np.abs(mine @ inside.axis) <= inside.width) == pytest.approx(0.9, abs=0.01)
        for name, limit in (("sphere", inside.radius), ("slab", inside.width)):
            scores = sanitizers.SCORES[name](data, None)(data)
            fitted = class_limits(scores, data.y, 2, 0.9)[(label + 1) // 2].item()
            assert fitted * (1 - 2e-5) < limit < fitted


def test_hinge_gradient_is_the_derivative():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(30, 4, generator=generator, dtype=torch.double)
    y = 2 * torch.randint(2, (30,), generator=generator) - 1
    theta = torch.randn(5, generator=generator, dtype=torch.double, requires_grad=True)
    loss = (1 - y * (x @ theta[:-1] + theta[-1])).clamp(min=0).mean()
    (expected,) = torch.autograd.grad(loss, theta)
    found = slab.hinge_gradient(x.numpy(), y.numpy(), theta.detach().numpy())
    assert np.allclose(found, expected.numpy())


@settings(max_examples=15)
@given(
    SEEDS, st.integers(7, 30), st.floats(0.02, 0.9), st.floats(0.3, 1.0), st.sampled_from([0.05, 1])
)
def test_every_poison_lies_in_its_feasible_set(seed, half, fraction, quantile, step):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(2 * half, 1, 2, 3, generator=generator)
    y = torch.arange(2 * half) % 2
    data = Data((x + 0.2 * y.view(-1, 1, 1, 1)).clamp(0, 1), y, ("a", "b"))
    before, threat = data.x.clone(), appended(data, fraction)
    found = slab_attack(data, GOAL, threat, quantile, rounds=15, keep=3, step=step)
    found.check(threat, data)
    assert len(found) == threat.budget and torch.equal(data.x, before)
    sets = feasible_sets(*slab.to_points(data), quantile)
    for image, label in zip(found.images.flatten(1).double().numpy(), found.labels, strict=True):
        assert sets[2 * label.item() - 1].excess(image) <= 1e-6
    kept = sanitizer("sphere", "slab", quantile=quantile, reference=data)
    assert kept.keep(found.apply(data), None)[len(data) :].all()


def test_the_poison_is_few_points_repeated_evenly(pair, poison):
    data, _ = pair
    poison.check(appended(data, 0.2), data)
    distinct, counts = poison.images.flatten(1).unique(dim=0, return_counts=True)
    assert len(poison) == 240 and len(distinct) <= 40 and counts.min() >= 6
    assert (poison.labels == 0).sum() == (poison.labels == 1).sum()
    again = slab_attack(data, GOAL, appended(data, 0.2))
    assert torch.equal(poison.images, again.images) and torch.equal(poison.labels, again.labels)


def test_the_weight_is_the_fraction_but_never_more_than_a_tenth(pair):
    data, _ = pair
    short = {"rounds": 10, "keep": 5}
    for fraction, weight in ((0.05, 0.05), (0.3, 0.1)):
        default = slab_attack(data, GOAL, appended(data, fraction), **short)
        same = slab_attack(data, GOAL, appended(data, fraction), weight=weight, **short)
        assert torch.equal(default.images, same.images)


def test_the_game_keeps_the_last_answers(pair):
    x, y = slab.to_points(pair[0])
    best = {label: maximiser(inside) for label, inside in feasible_sets(x, y, 0.95).items()}
    points, labels, theta = slab.min_max(x, y, best, 0.1, rounds=8, keep=2)
    _, _, before = slab.min_max(x, y, best, 0.1, rounds=7, keep=2)
    assert labels.tolist() == [-1, 1, -1, 1] and theta.shape == (785,)
    for point, label in zip(points[-2:], labels[-2:], strict=True):
        assert np.allclose(point, best[label](-label * before[:-1]))


@given(st.integers(1, 50), st.integers(1, 300))
def test_repeats_are_even(n_points, n):
    counts = np.bincount(slab.repeats(n_points, n), minlength=n_points)
    assert counts.sum() == n and len(counts) == n_points and counts.max() - counts.min() <= 1


def test_it_hurts_more_than_flips_and_passes_the_filters(pair, poison):
    data, test = pair
    flips = random_flips(data, GOAL, appended(data, 0.2), seed=0)
    hurt, flipped, clean = (
        accuracy(fit_on(part), test) for part in (poison.apply(data), flips.apply(data), data)
    )
    assert hurt < flipped - 0.02 and hurt < clean - 0.03
    for reference in (data, None):
        kept = sanitizer("sphere", "slab", reference=reference).keep(poison.apply(data), fit_on)
        assert kept[len(data) :].float().mean() >= 0.95
    strict = sanitizer("loss", reference=data).keep(poison.apply(data), fit_on)
    assert strict[len(data) :].float().mean() < 0.1


def test_behind_a_decoy_every_poison_has_a_small_hinge_loss(pair):
    data, _ = pair
    model = build("logistic_regression", data.shape, 2)
    decoy = slab.train_decoy(model, data, RECIPE, seed=1)
    found = slab_attack(data, GOAL, appended(data, 0.05), decoy=decoy, rounds=20, keep=5)
    weight, bias = slab.plane(decoy)
    x, y = found.images.flatten(1).double().numpy(), 2 * found.labels.numpy() - 1
    assert (1 - y * (x @ weight + bias)).max() <= 1 + 1e-4
    logits = decoy(found.images).detach()
    assert torch.allclose(
        logits[:, 1] - logits[:, 0], torch.tensor(x @ weight + bias).float(), atol=1e-4
    )
    with pytest.raises(ThreatModelError, match="linear model"):
        slab.plane(build("mlp", data.shape, 2))


def test_corner_images_have_the_largest_loss_in_the_box(pair):
    data, _ = pair
    surrogate = fit_on(data)
    corners = slab.corner_images(data, appended(data, 0.01), surrogate)
    corners.check(appended(data, 0.01), data)
    assert ((corners.images == 0) | (corners.images == 1)).all()
    loss = torch.nn.functional.cross_entropy(surrogate(corners.images), corners.labels)
    images = torch.rand(200, *data.shape, generator=torch.Generator().manual_seed(0))
    for label in (0, 1):
        labels = torch.full((200,), label)
        others = torch.nn.functional.cross_entropy(surrogate(images), labels, reduction="none")
        assert (others < loss).all()


@pytest.mark.parametrize("fraction", [-0.1, 0.0, 1.0, 40, float("nan")])
def test_a_fraction_outside_0_and_1_is_refused(pair, fraction):
    with pytest.raises(ThreatModelError, match=r"expected a value in \(0, 1\)"):
        slab_attack(pair[0], GOAL, appended(pair[0], fraction))


def test_impossible_tasks_are_refused(pair, images):
    data, _ = pair
    threat = appended(data, 0.1)
    with pytest.raises(ThreatModelError, match=r"expected a value in \(0, 1\)"):
        slab_attack(data, GOAL, ThreatModel(len(data), placement="append"))
    for wrong in (
        ThreatModel(5),
        ThreatModel(5, placement="append", clean_label=True),
        ThreatModel(5, placement="append", epsilon=0.1),
    ):
        with pytest.raises(ThreatModelError, match="images of its own"):
            slab_attack(data, GOAL, wrong)
    for other in (data[data.y == 0], images):
        with pytest.raises(ThreatModelError, match="exactly two classes"):
            slab_attack(other, GOAL, threat)
    for weight in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ThreatModelError, match="positive number"):
            slab_attack(data, GOAL, threat, weight=weight)
    for quantile in (0.0, 1.1, float("nan")):
        with pytest.raises(ThreatModelError, match="quantile"):
            slab_attack(data, GOAL, threat, quantile=quantile)


def test_features_without_a_feasible_set_are_refused(pair):
    data, _ = pair
    x, y = slab.to_points(data)
    x[7, 3] = np.nan
    with pytest.raises(ThreatModelError, match="Row 7 holds NaN"):
        feasible_sets(x, y, 0.9)
    with pytest.raises(ThreatModelError, match=r"both -1 and \+1"):
        feasible_sets(x, np.ones_like(y), 0.9)
    with pytest.raises(ThreatModelError, match="same mean"):
        feasible_sets(np.full((6, 2), 0.5), np.array([-1, 1, -1, 1, -1, 1]), 0.9)
    pixels = data.x.clone()
    pixels[5, 0, 3, 3] = torch.nan
    with pytest.raises(DataError, match="image 5 has the pixel value nan"):
        Data(pixels, data.y, data.classes)


@pytest.mark.parametrize("name", list(sanitizers.SCORES))
def test_a_sanitizer_keeps_its_share_of_every_class(pair, images, name):
    for data in (pair[0], images):
        kept = sanitizer(name, quantile=0.9).keep(data, fit_on)
        assert kept.dtype == torch.bool
        for label in range(len(data.classes)):
            assert kept[data.y == label].float().mean() == pytest.approx(0.9, abs=0.02)


def test_scores_are_what_slow_arithmetic_gives(images):
    flat = images.x.flatten(1)
    sphere = sanitizers.sphere_score(images, None)(images)
    along = sanitizers.slab_score(images, None)(images)
    for i in range(0, len(images), 17):
        own = flat[images.y == images.y[i]].mean(0)
        axis = flat[images.y != images.y[i]].mean(0) - own  # all classes are equally large
        assert sphere[i].item() == pytest.approx((flat[i] - own).norm().item(), abs=1e-4)
        expected = ((flat[i] - own) @ axis / axis.norm()).abs().item()
        assert along[i].item() == pytest.approx(expected, abs=1e-4)


def test_neighbours_agree_with_sklearn_and_no_image_is_its_own(images):
    seen, others = images[::2], images[1::2]
    score = sanitizers.neighbour_score(seen, None)
    for label in range(3):
        points = seen.x[seen.y == label].flatten(1).numpy()
        index = NearestNeighbors(n_neighbors=6).fit(points)
        itself = index.kneighbors(points)[0][:, 5]
        assert score(seen)[seen.y == label].numpy() == pytest.approx(itself, abs=1e-3)
        query = others.x[others.y == label].flatten(1).numpy()
        far = index.kneighbors(query, 5)[0][:, 4]
        assert score(others)[others.y == label].numpy() == pytest.approx(far, abs=1e-3)


def test_filters_together_keep_what_each_keeps(pair):
    data, _ = pair
    both = sanitizer("sphere", "slab").keep(data, fit_on)
    each = [sanitizer(name).keep(data, fit_on) for name in ("sphere", "slab")]
    assert torch.equal(both, each[0] & each[1])
    assert sanitizer("sphere", "slab").name == "sphere + slab"
    model = build("logistic_regression", data.shape, 2)
    train(model, data, Recipe(epochs=1), defense=sanitizer(*sanitizers.SCORES))


def test_limits_come_from_the_reference(pair, poison):
    data, _ = pair
    seen = poison.apply(data)
    kept = sanitizer("sphere", quantile=0.9, reference=data).keep(seen, None)
    assert torch.equal(kept[: len(data)], sanitizer("sphere", quantile=0.9).keep(data, None))


def test_wrong_use_of_a_sanitizer_is_refused(pair, images):
    data, _ = pair
    for names in ((), ("cube",), ("sphere", "loss", "knn")):
        with pytest.raises(ValueError, match="expected some of sphere, slab, loss, k-NN"):
            sanitizer(*names)
    for quantile in (0.0, 1.5, float("nan")):
        with pytest.raises(ValueError, match="more than 0 and at most 1"):
            sanitizer("sphere", quantile=quantile)
    with pytest.raises(ValueError, match="The reference has the classes"):
        sanitizer("sphere", reference=images).keep(data, None)
    for few in (
        data[data.y == 0],
        data[torch.cat([(data.y == k).nonzero()[:5, 0] for k in (0, 1)])],
    ):
        with pytest.raises(ValueError, match="at least 6 images each"):
            sanitizer("slab").keep(few, None)
    with pytest.raises(ValueError, match="at least two classes"):
        sanitizer("slab").keep(only(data, ["Coat"]), None)
