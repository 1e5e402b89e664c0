"""Feature collision, lesson 04: its losses by hand, its attacks step by step."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from course_utils.attacks import feature_collision as taught
from course_utils.attacks.crafting import signed_adam
from course_utils.attacks.feature_collision import (
    bullseye_loss,
    collision_loss,
    convex_polytope_loss,
    feature_collision,
    forward_backward,
    nearest_bases,
    poison_frogs,
    polytope_coefficients,
    project_to_simplex,
    surrogate_loss,
    watermark,
)
from course_utils.threat import ThreatModel
from tests.reference.small import drawn, goal_for, models, noise_data

DATA = noise_data()
SURROGATES = models(DATA, 3, 5)
with torch.no_grad():  # the second has large features: shares of the target's length must not care
    SURROGATES[1].features[3].weight.mul_(30)
GOAL = goal_for(SURROGATES, DATA)
THREAT = ThreatModel(4, 0.1, clean_label=True, placement="append")


def relative_distances(surrogates) -> dict[int, float]:
    """Of each image of the adversarial class, one by one: row -> mean distance."""
    found = {}
    with torch.no_grad():
        for row in range(len(DATA)):
            if DATA.y[row] == GOAL.adversarial_class:
                shares = []
                for model in surrogates:
                    target = model.features(GOAL.image[None])[0].numpy()
                    mine = model.features(DATA.x[row : row + 1])[0].numpy()
                    shares.append(np.linalg.norm(mine - target) / np.linalg.norm(target))
                found[row] = float(np.mean(shares))
    return found


def test_the_nearest_bases_are_those_of_a_slow_loop():
    for surrogates in (SURROGATES, SURROGATES[:1], SURROGATES[1:]):
        distances = relative_distances(surrogates)
        expected = sorted(distances, key=distances.get)[:4]
        assert nearest_bases(surrogates, DATA, GOAL, 4).tolist() == expected
    picked = [nearest_bases(s, DATA, GOAL, 4).tolist() for s in (SURROGATES[:1], SURROGATES[1:])]
    assert picked[0] != picked[1]  # else the mean could not be told from one of them


def test_a_watermark_goes_as_far_towards_the_target_as_it_may():
    poison = watermark(SURROGATES, DATA, GOAL, THREAT, 7)
    rows = nearest_bases(SURROGATES, DATA, GOAL, 4)
    assert torch.equal(poison.base, rows) and poison.placement == "append"
    assert torch.equal(poison.labels, DATA.y[rows])
    base = DATA.x[rows]
    expected = base + (GOAL.image - base).clamp(-0.1, 0.1)
    torch.testing.assert_close(poison.images, expected)
    assert (poison.images - base).abs().max().item() == pytest.approx(0.1, abs=1e-6)


def test_the_losses_by_hand():
    targets = torch.tensor([[2.0, 0.0], [0.0, 2.0]])  # their mean is (1, 1), of squared length 2
    features = torch.tensor([[1.0, 0.0], [0.0, 3.0]])
    assert collision_loss(features, targets).item() == pytest.approx((1 + 5) / 2 / 2)
    assert bullseye_loss(features, targets).item() == pytest.approx((0.25 + 0.25) / 2)
    # The polytope of these two is a line: the nearest point to (1, 1) is (0.7, 0.9).
    weights = polytope_coefficients(features, torch.tensor([1.0, 1.0]))
    torch.testing.assert_close(weights, torch.tensor([0.7, 0.3]), atol=1e-4, rtol=0)
    loss = convex_polytope_loss(features, targets)
    assert loss.item() == pytest.approx((0.09 + 0.01) / 2, abs=1e-5)


@pytest.mark.parametrize(
    ("values", "nearest"),
    [
        ([0.5, 0.5], [0.5, 0.5]),
        ([2.0, 0.0, -1.0], [1.0, 0.0, 0.0]),
        ([0.6, 0.8, -5.0], [0.4, 0.6, 0.0]),
        ([-1.0, -1.0], [0.5, 0.5]),
    ],
)
def test_the_nearest_point_of_the_simplex_by_hand(values, nearest):
    torch.testing.assert_close(project_to_simplex(torch.tensor(values)), torch.tensor(nearest))


def test_the_coefficients_of_a_polytope_are_those_of_scipy():
    features = torch.randn(4, 3, generator=drawn(8), dtype=torch.float64)
    target = torch.tensor([0.3, -0.2, 0.4], dtype=torch.float64)
    expected = minimize(
        lambda c: ((c @ features.numpy() - target.numpy()) ** 2).sum(),
        np.full(4, 0.25),
        bounds=4 * [(0, 1)],
        constraints={"type": "eq", "fun": lambda c: c.sum() - 1},
        options={"ftol": 1e-14},
    ).x
    found = polytope_coefficients(features, target, steps=3000)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-3)
    early = [polytope_coefficients(features, target, steps=steps) for steps in (1, 2)]
    assert not torch.equal(*early)
    step = 1 / np.linalg.eigvalsh((features - target) @ (features - target).T)[-1]
    slope = (features - target) @ (features - target).T @ torch.full((4,), 0.25).double()
    by_hand = project_to_simplex(0.25 - step * slope)
    torch.testing.assert_close(early[0], by_hand)


def test_the_loss_over_surrogates_is_their_mean():
    images = DATA.x[:3]
    mean = surrogate_loss(SURROGATES, GOAL, collision_loss)(images)
    each = [
        collision_loss(model.features(images), model.features(GOAL.image[None]))
        for model in SURROGATES
    ]
    assert mean.item() == pytest.approx((each[0].item() + each[1].item()) / 2)
    (slope,) = torch.autograd.grad(
        surrogate_loss(SURROGATES, GOAL, collision_loss)(images.requires_grad_()), images
    )
    images.requires_grad_(False)
    assert slope.abs().sum() > 0


def test_one_step_of_forward_backward_by_hand():
    images, base = torch.tensor([0.5]), torch.tensor([0.2])
    given = (lambda x: 2 * x.square().sum(), images, base, 0.4, 0.1)
    # The objective is 2 * 0.25 + 0.4 / 2 * 0.09 = 0.518, the gradient of the distance 2.
    for before, step in ((float("inf"), 0.1), (0.1, 0.05), (0.52, 0.1)):
        moved, size, total = forward_backward(*given, before)
        assert (size, total) == (pytest.approx(step), pytest.approx(0.518))
        expected = (0.5 - 2 * step + step * 0.4 * 0.2) / (1 + step * 0.4)
        assert moved.item() == pytest.approx(expected)


@pytest.mark.parametrize(("epsilon", "beta"), [(None, 0.3), (0.01, 0.3), (None, 2.0)])
def test_poison_frogs_is_the_published_loop(epsilon, beta):
    threat = ThreatModel(2, epsilon, placement="append")
    poison = poison_frogs(SURROGATES, DATA, GOAL, threat, 9, beta=beta, steps=3)
    base = DATA.x[poison.base]
    images, step, before = base, 1.0, float("inf")
    for _ in range(3):
        x = images.clone().requires_grad_()
        distance = 0
        for model in SURROGATES:
            target = model.features(GOAL.image[None]).detach()
            for one in x:
                gap = (model.features(one[None]) - target).square().sum()
                distance = distance + gap / target.square().sum() / 2
        total = distance.item() + beta / 2 * (images - base).square().sum().item()
        step, before = (step / 2 if total > before else step), total
        (slope,) = torch.autograd.grad(distance, x)
        images = (images - step * slope + step * beta * base) / (1 + step * beta)
        if epsilon is not None:
            images = images.clamp(base - epsilon, base + epsilon)
        images = images.clamp(0, 1)
    torch.testing.assert_close(poison.images, images)
    assert poison.placement == "append" and torch.equal(poison.labels, DATA.y[poison.base])
    other = poison_frogs(SURROGATES, DATA, GOAL, threat, 9, beta=beta, steps=1)
    assert not torch.equal(other.images, poison.images)


def test_poison_frogs_hands_step_and_objective_on(monkeypatch):
    seen = []

    def step_of(distance, images, base, beta, step, before):
        seen.append((beta, step, before))
        return images, step / 2, len(seen)

    monkeypatch.setattr(taught, "forward_backward", step_of)
    poison_frogs(SURROGATES, DATA, GOAL, THREAT, 9, beta=0.3, steps=3)
    assert seen == [(0.3, 1.0, float("inf")), (0.3, 0.5, 1), (0.3, 0.25, 2)]


def test_without_a_bound_feature_collision_crafts_from_the_base_images():
    threat = ThreatModel(3, placement="append")
    targets = [model.features(GOAL.image[None]).detach() for model in SURROGATES]

    def mean(images):
        pairs = zip(SURROGATES, targets, strict=True)
        return sum(collision_loss(model.features(images), target) for model, target in pairs) / 2

    for steps, lr in ((4, 0.02), (4, 0.05), (8, 0.02)):
        options = {"loss": collision_loss, "steps": steps, "lr": lr}
        poison = feature_collision(SURROGATES, DATA, GOAL, threat, 5, **options)
        base = DATA.x[poison.base]
        expected, _ = signed_adam(mean, base, base, None, steps=steps, lr=lr)
        torch.testing.assert_close(poison.images, expected)
    assert torch.equal(poison.base, nearest_bases(SURROGATES, DATA, GOAL, 3))
    assert torch.equal(poison.labels, DATA.y[poison.base]) and poison.placement == "append"


def test_with_a_bound_feature_collision_starts_from_noise_of_its_seed():
    def crafted(seed: int):
        options = {"loss": collision_loss, "steps": 1, "lr": 1e-6}
        return feature_collision(SURROGATES, DATA, GOAL, THREAT, seed, **options)

    first, again, other = (crafted(seed).images for seed in (4, 4, 5))
    assert torch.equal(first, again) and (first - other).abs().max() > 0.01
    size = (first - DATA.x[crafted(4).base]).abs()
    assert 0.03 < size.mean() < 0.1 and size.max() <= 0.1 + 1e-6
