"""The attacks of lesson 04: how near they come, what they promise, and what they refuse."""

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

from course_utils.attacks.crafting import granted, project, random_bases, signed_adam
from course_utils.attacks.feature_collision import (
    bullseye_loss,
    collision_loss,
    convex_polytope_loss,
    feature_collision,
    nearest_bases,
    poison_frogs,
    polytope_coefficients,
    project_to_simplex,
    watermark,
)
from course_utils.attacks.feature_plane import feature_plane
from course_utils.cases.goals import NEIGHBOURS, draw_classes, draw_goal
from course_utils.cases.transfer import HEAD, distances, draw_transfer
from course_utils.data import only
from course_utils.guards import check_surrogates
from course_utils.models import build, predict
from course_utils.threat import Targeted, ThreatModel, ThreatModelError
from course_utils.training import Recipe, train

EPSILON = 32 / 255
LOSSES = (collision_loss, convex_polytope_loss, bullseye_loss)
ATTACKS = {
    "watermark": watermark,
    "poison_frogs": poison_frogs,
    **{loss.__name__: partial(feature_collision, loss=loss) for loss in LOSSES},
}


@pytest.fixture(scope="module")
def draw():
    """One trial of transfer learning."""
    return draw_transfer(1071)


@pytest.fixture(scope="module")
def surrogate(images):
    """An MLP trained on 300 images."""
    return train(build("mlp", images.shape, 10), images, Recipe(epochs=20, batch_size=50))


@pytest.fixture(scope="module")
def goal(surrogate, held_out):
    """A target that the surrogate classifies correctly."""
    return draw_goal([surrogate], held_out, seed=0)


def simplex_by_scipy(features: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The best coefficients by SLSQP."""
    n = len(features)
    return minimize(
        lambda c: ((c @ features - target) ** 2).sum(),
        np.full(n, 1 / n),
        jac=lambda c: 2 * features @ (c @ features - target),
        method="SLSQP",
        bounds=n * [(0, 1)],
        constraints={"type": "eq", "fun": lambda c: c.sum() - 1, "jac": np.ones_like},
        options={"ftol": 1e-14, "maxiter": 1000},
    ).x


@given(st.lists(st.floats(-5, 5, width=32), min_size=1, max_size=30))
def test_the_projection_is_the_nearest_point_of_the_simplex(values):
    """On the simplex, and no corner of it lies on the side of the values: the condition for it."""
    values = torch.tensor(values, dtype=torch.float64)
    found = project_to_simplex(values)
    assert (found >= 0).all() and found.sum().item() == pytest.approx(1)
    towards_corners = (values - found) - (found * (values - found)).sum()
    assert towards_corners.max() <= 1e-9


@pytest.mark.parametrize("n", [1, 2, 5, 10, 25])
@pytest.mark.parametrize("inside", [True, False])
def test_polytope_coefficients_solve_the_problem_as_scipy_does(n, inside):
    generator = torch.Generator().manual_seed(n)
    features = torch.rand(n, 40, generator=generator, dtype=torch.float64)
    target = torch.rand(40, generator=generator, dtype=torch.float64)
    if inside:
        weights = torch.rand(n, generator=generator, dtype=torch.float64)
        target = weights / weights.sum() @ features
    found = polytope_coefficients(features, target, steps=20_000)
    reference = torch.tensor(simplex_by_scipy(features.numpy(), target.numpy()))
    assert (found >= 0).all() and found.sum().item() == pytest.approx(1)
    ours, theirs = ((c @ features - target).square().sum().item() for c in (found, reference))
    assert ours <= theirs + 1e-6
    assert torch.allclose(found, reference, atol=1e-3)


def test_convex_polytope_loss_is_never_above_the_bullseye_loss_and_has_its_gradient():
    """Its inner problem has the equal weights among its candidates; at the best weights, the
    gradient is the one for fixed weights (the envelope theorem), as a finite difference shows."""
    generator = torch.Generator().manual_seed(0)
    features = torch.rand(4, 12, generator=generator, dtype=torch.float64, requires_grad=True)
    target = torch.rand(1, 12, generator=generator, dtype=torch.float64)
    assert convex_polytope_loss(features, target) <= bullseye_loss(features, target)

    def exact(f: torch.Tensor) -> float:
        weights = polytope_coefficients(f, target[0], steps=20_000)
        return ((weights @ f - target[0]).square().sum() / target.square().sum()).item()

    (gradient,) = torch.autograd.grad(convex_polytope_loss(features, target), features)
    for row, column in ((0, 0), (2, 7), (3, 11)):
        shift = torch.zeros_like(features)
        shift[row, column] = 1e-4
        slope = (exact(features.detach() + shift) - exact(features.detach() - shift)) / 2e-4
        assert gradient[row, column].item() == pytest.approx(slope, abs=1e-3)


@pytest.mark.parametrize("loss", [collision_loss, bullseye_loss])
def test_loss_gradients_equal_finite_differences(loss):
    generator = torch.Generator().manual_seed(0)
    features = torch.rand(3, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    target = torch.rand(2, 5, generator=generator, dtype=torch.float64)
    assert torch.autograd.gradcheck(loss, (features, target.requires_grad_()))


def test_with_one_poison_the_three_losses_are_one():
    features, target = torch.rand(1, 20), torch.rand(1, 20)
    values = [loss(features, target).item() for loss in LOSSES]
    assert values == pytest.approx([values[0]] * 3, rel=1e-5)


@pytest.mark.parametrize("epsilon", [8 / 255, EPSILON, None])
@pytest.mark.parametrize("name", ATTACKS)
def test_every_poison_passes_its_own_check(images, surrogate, goal, name, epsilon):
    if name == "watermark" and epsilon is None:
        pytest.skip("a watermark needs a bound")
    threat = ThreatModel(4, epsilon, clean_label=True)
    poison = ATTACKS[name]([surrogate], images, goal, threat, seed=0)
    poison.check(threat, images)
    assert len(poison) == 4 and (poison.labels == goal.adversarial_class).all()
    assert not torch.equal(poison.images, images.x[poison.base])


@pytest.mark.parametrize("name", sorted(ATTACKS.keys() - {"watermark"}))
def test_two_targets_give_different_poisons(images, held_out, surrogate, goal, name):
    known = (held_out.y == goal.true_class) & (predict(surrogate, held_out.x) == goal.true_class)
    other = next(image for image in held_out.x[known] if not torch.equal(image, goal.image))
    second = Targeted(other, goal.true_class, goal.adversarial_class)
    pictures = goal.image[None], other[None]
    threat = ThreatModel(20, EPSILON, clean_label=True)
    poisons = [ATTACKS[name]([surrogate], images, g, threat, seed=0) for g in (goal, second)]
    rows = [poison.base.argsort() for poison in poisons]
    pixels = [poison.images[row] for poison, row in zip(poisons, rows, strict=True)]
    assert (pixels[0] - pixels[1]).abs().max() > EPSILON / 2
    with torch.no_grad():
        features, *aims = (surrogate.features(x) for x in (poisons[0].images, *pictures))
    own, foreign = (convex_polytope_loss(features, aim) for aim in aims)
    assert own < foreign


def test_bullseye_brings_the_mean_to_the_target(draw):
    """A third of the way is left inside the bound, a twentieth without it."""
    bullseye = partial(feature_collision, loss=bullseye_loss)
    for epsilon, left in ((EPSILON, 1 / 3), (None, 0.05)):
        threat = ThreatModel(5, epsilon, clean_label=True)
        more = {} if epsilon else {"steps": 400, "lr": 0.005}
        poison = bullseye([draw.extractor], draw.data, draw.goal, threat, seed=0, **more)
        assert distances(draw.extractor, poison, draw.data, draw.goal)["mean"] <= left


def test_bullseye_hits_where_noise_and_clean_data_do_not(draw):
    threat = ThreatModel(25, EPSILON, clean_label=True)
    attack = feature_collision(
        [draw.extractor], draw.data, draw.goal, threat, seed=0, loss=bullseye_loss
    )
    noise = attack.noise_control(draw.data, torch.Generator().manual_seed(0))
    seen = {"attack": attack.apply(draw.data), "noise": noise.apply(draw.data), "clean": draw.data}
    predicted = {}
    for name, data in seen.items():
        victim = train(draw.extractor, data, HEAD, scenario="transfer", seed=0)
        predicted[name] = predict(victim, draw.goal.image[None]).item()
    assert predicted["attack"] == draw.goal.adversarial_class
    assert predicted["noise"] == predicted["clean"] == draw.goal.true_class


def test_the_parts_of_a_draw_share_no_image(draw):
    parts = [draw.data.x, draw.others.x, draw.test.x, draw.goal.image[None]]
    known = [{image.numpy().tobytes() for image in part} for part in parts]
    assert len(set.union(*known)) >= sum(map(len, known)) - 3  # a few images come twice in it
    again = draw_transfer(1071)
    assert torch.equal(again.data.x, draw.data.x) and torch.equal(again.goal.image, draw.goal.image)
    weights = (model.head.weight for model in (draw.extractor, again.extractor))
    assert torch.equal(*weights)


def test_near_classes_are_neighbours_and_far_ones_are_not(images):
    for near in (True, False):
        drawn = {draw_classes(images.classes, seed, near) for seed in range(300)}
        names = [{images.classes[k] for k in pair} for pair in drawn]
        together = [any(pair <= set(group) for group in NEIGHBOURS) for pair in names]
        assert all(together) if near else not any(together)
        assert len(drawn) == (26 if near else 46)


def test_bases_are_the_nearest_images_of_the_adversarial_class(images, surrogate, goal):
    rows = nearest_bases([surrogate], images, goal, 5)
    with torch.no_grad():
        gap = (surrogate.features(images.x) - surrogate.features(goal.image[None])).norm(dim=1)
    gap[images.y != goal.adversarial_class] = torch.inf
    assert set(rows.tolist()) == set(gap.argsort()[:5].tolist())


def test_signed_adam_finds_the_corner_of_the_ball():
    """A linear objective is lowest where every pixel is at its bound or at the box."""
    slope = torch.tensor([[[[1.0, -2.0], [-0.5, 3.0]]]])
    base = torch.tensor([[[[0.5, 0.5], [0.98, 0.02]]]])
    found, losses = signed_adam(
        lambda images: (slope * images).sum(), base, base, 0.1, steps=60, lr=0.02
    )
    assert torch.allclose(found, torch.tensor([[[[0.4, 0.6], [1.0, 0.0]]]]))
    assert len(losses) == 60 and losses[-1] < losses[0]


def test_project_leaves_its_inputs_alone():
    images, base = torch.tensor([[[[2.0]]]]), torch.tensor([[[[0.5]]]])
    assert project(images, base, 0.1).item() == pytest.approx(0.6)
    assert images.item() == 2.0


def test_the_plane_puts_the_centroids_on_its_first_axis(images, surrogate, goal):
    place = feature_plane(surrogate, images, goal)
    means = [
        place(images.x[images.y == k]).mean(0) for k in (goal.adversarial_class, goal.true_class)
    ]
    assert means[1][0] > means[0][0]
    with torch.no_grad():
        centroids = [
            surrogate.features(images.x[images.y == k]).mean(0)
            for k in (goal.true_class, goal.adversarial_class)
        ]
    length = (centroids[0] - centroids[1]).norm()
    assert (means[1][0] - means[0][0]).item() == pytest.approx(length.item(), rel=1e-4)
    assert (means[1][1] - means[0][1]).abs() < 1e-3 * length


@pytest.mark.parametrize("epsilon", [0.0, -0.1, 1.5])
def test_an_impossible_epsilon_is_refused(epsilon):
    with pytest.raises(ThreatModelError, match=r"expected a value in \(0, 1\]"):
        ThreatModel(5, epsilon, clean_label=True)


@pytest.mark.parametrize("name", ATTACKS)
def test_bad_input_is_refused_by_every_attack(images, surrogate, goal, name):
    attack, threat = ATTACKS[name], ThreatModel(5, EPSILON, clean_label=True)
    seen_as = predict(surrogate, goal.image[None]).item()
    reached = Targeted(goal.image, goal.adversarial_class, seen_as)
    without = images[images.y != goal.adversarial_class]
    two = only(images, ["Shirt", "Coat"])
    normalised = build("small_cnn", images.shape, 10, norm="batch").train()
    for surrogates, data, aim, words in (
        ([], images, goal, "No surrogate"),
        ([surrogate], images, reached, "already classifies the target"),
        ([surrogate], without, goal, "0 images of class"),
        ([surrogate], two, Targeted(goal.image, 0, 1), "10 classes, the data 2"),
        ([normalised], images, goal, "BatchNorm in training mode"),
    ):
        with pytest.raises(ThreatModelError, match=words):
            attack(surrogates, data, aim, threat, seed=0)
    with pytest.raises(ThreatModelError, match="lower the budget"):
        attack([surrogate], images, goal, ThreatModel(31, EPSILON, clean_label=True), seed=0)
    check_surrogates([normalised.eval()], images, goal.image[None], goal.adversarial_class)


def test_surrogates_are_refused_only_where_all_grant_all_images(surrogate, images):
    seen_as = predict(surrogate, images.x[:2]).tolist()
    one = Targeted(images.x[0], (seen_as[0] + 1) % 10, seen_as[0])
    assert granted([surrogate], one)
    assert not granted([surrogate], Targeted(images.x[0], seen_as[0], (seen_as[0] + 1) % 10))
    with pytest.raises(ThreatModelError, match="nothing is left"):
        check_surrogates([surrogate], images, images.x[:1], seen_as[0])
    mixed = torch.cat([images.x[predict(surrogate, images.x) == k][:1] for k in (1, 2)])
    check_surrogates([surrogate], images, mixed, 1)


def test_random_bases_are_of_one_class_and_each_comes_once(images):
    rows = random_bases(images, 3, 12, seed=0)
    assert len(rows.unique()) == 12 and (images.y[rows] == 3).all()
    assert torch.equal(rows, random_bases(images, 3, 12, seed=0))
    assert not torch.equal(rows, random_bases(images, 3, 12, seed=1))
    with pytest.raises(ThreatModelError, match="lower the budget"):
        random_bases(images, 3, 31, seed=0)


def test_a_watermark_without_a_bound_is_refused(images, surrogate, goal):
    with pytest.raises(ThreatModelError, match="copy of the target"):
        watermark([surrogate], images, goal, ThreatModel(5, clean_label=True), seed=0)


def test_a_goal_that_no_surrogate_knows_is_refused(held_out):
    blind = build("mlp", held_out.shape, 10)
    torch.nn.init.zeros_(blind.head.weight)
    torch.nn.init.constant_(blind.head.bias, 0.0)
    blind.head.bias.data[8] = 1.0  # it calls everything a bag
    with pytest.raises(ThreatModelError, match="train the surrogates longer"):
        draw_goal([blind], held_out, seed=0)
