"""Adaptive attacks, lesson 15: by hand and against gradients taken one by one."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from course_utils.attacks import adaptive, feature_collision, gradient_matching
from course_utils.defense import Defense
from course_utils.threat import Targeted
from tests.reference.small import drawn, flat, goal_for, models, noise_data

DATA = noise_data()
(MODEL,) = models(DATA, 4)
X, Y = DATA.x[:5], DATA.y[:5]
WANTED = gradient_matching.target_gradient(MODEL, DATA.x[9:10], torch.tensor([2]))


def one_by_one(model, images, labels):
    """The gradient of each example's own loss (N, parameters)."""
    rows = []
    for image, label in zip(images, labels, strict=True):
        loss = cross_entropy(model(image[None]), label[None])
        rows.append(flat(torch.autograd.grad(loss, list(model.parameters()))))
    return torch.stack(rows)


def test_the_clipped_gradient_and_its_loss_are_those_of_a_slow_loop():
    rows = one_by_one(MODEL, X, Y)
    clip = rows.norm(dim=1).sort()[0][2].item()  # two are shorter, two longer
    parts = adaptive.layer_parts(MODEL, X, Y)
    for bound in (clip, 100.0):
        expected = torch.stack([row * min(1, bound / row.norm().item()) for row in rows]).mean(0)
        torch.testing.assert_close(flat(adaptive.clipped_gradient(parts, bound)), expected)
        cosine = torch.nn.functional.cosine_similarity(expected, flat(WANTED), dim=0)
        loss = adaptive.clipped_alignment(bound)(MODEL, X, Y, WANTED)
        assert loss.item() == pytest.approx(1 - cosine.item(), abs=1e-5)


def test_the_clipped_loss_has_the_slope_of_a_finite_difference():
    (model,) = models(DATA, 4)
    model.double()
    x = X.double().requires_grad_()
    lengths = one_by_one(model, x, Y).norm(dim=1).sort()[0]
    loss = adaptive.clipped_alignment(lengths[1:3].mean().item())
    wanted = tuple(part.double() for part in WANTED)
    (slope,) = torch.autograd.grad(loss(model, x, Y, wanted), x)
    for place in ((0, 0, 1, 1), (2, 0, 3, 2), (4, 0, 5, 4)):
        h = torch.zeros_like(x)
        h[place] = 1e-5
        up, down = (loss(model, (x + way * h).detach(), Y, wanted).item() for way in (1, -1))
        assert slope[place].item() == pytest.approx((up - down) / 2e-5, abs=1e-5, rel=1e-3)


def test_a_held_change_by_hand():
    images = torch.tensor([0.2, 0.4], requires_grad=True)
    held = adaptive.hold_constant(images, 3 * images)
    assert held.tolist() == pytest.approx([0.6, 1.2])
    assert torch.autograd.grad(held.sum(), images)[0].tolist() == [1, 1]


def recorded(seen):
    def batch(model, x, y, generator):
        seen.append((x, y))
        return x * 0.5, (y + 1) % 3

    return Defense("half", batch=batch)


@pytest.mark.parametrize("constant", [True, False])
def test_poisons_stand_among_random_company_and_are_found_again(constant):
    batches, company = [], DATA[10:]
    images = X.clone().requires_grad_()
    given = (recorded(batches), MODEL, (images, Y), company, drawn(3))
    seen, taught = adaptive.as_trained(*given, constant=constant)
    torch.testing.assert_close(seen, X * 0.5)
    assert torch.equal(taught, (Y + 1) % 3)
    slope = torch.autograd.grad(seen.sum(), images)[0]
    assert (slope == (1.0 if constant else 0.5)).all()
    x, _ = batches[0]
    assert len(x) == 10 and not torch.equal(x[:5], X)
    others = [row for row in x if not any(torch.equal(row, one) for one in X)]
    assert len(others) == 5 and len({tuple(row.flatten().tolist()) for row in others}) > 2
    assert all(any(torch.equal(row, one) for one in company.x) for row in others)


def test_the_loss_under_a_defense_is_that_of_the_mean_of_five_gradients():
    drawings = []

    def noisy(model, x, y, generator):
        parts = gradient_matching.target_gradient(model, x, y)
        drawings.append(tuple(p + torch.randn(p.shape, generator=generator) for p in parts))
        return drawings[-1]

    given = (MODEL, (X, Y), WANTED, DATA[10:], drawn(3))
    loss = adaptive.loss_under(Defense("noisy", gradients=noisy), *given)
    assert len(drawings) == 5
    mean = torch.stack([flat(parts) for parts in drawings]).mean(0)
    cosine = torch.nn.functional.cosine_similarity(mean, flat(WANTED), dim=0).item()
    assert loss == pytest.approx(1 - cosine, abs=1e-5)


def test_the_outvoted_loss_by_hand():
    features = torch.tensor([[0.0], [10.0]])
    own, others = torch.tensor([[4.0], [30.0]]), torch.tensor([[1.0], [13.0], [-7.0]])
    # Near 0: friends at 4, 10 and strangers at 1, 7. Near 10: friends at 6, 10, strangers at 3, 9.
    # The excess is 3, 3 and 3, 1, over the mean distance to the strangers, 5.
    loss = adaptive.outvoted_loss(features, own, others, 2)
    assert loss.item() == pytest.approx((9 + 9 + 9 + 1) / 4 / 25)
    near = adaptive.outvoted_loss(features, own, others, 1)
    assert near.item() == pytest.approx((9 + 9) / 2 / 4)
    assert adaptive.outvoted_loss(features, others, own + 50, 1).item() == 0


def test_kept_alive_adds_a_weighted_penalty_without_the_bases():
    goal, (model,) = goal_for([MODEL], DATA), (MODEL,)
    goal = Targeted(goal.image, goal.true_class, goal.adversarial_class)
    bases = feature_collision.nearest_bases([model], DATA, goal, 3).tolist()
    label = goal.adversarial_class
    rows = [r for r in range(30) if DATA.y[r] == label and r not in bases]
    with torch.no_grad():
        features, target = model.features(DATA.x[bases] * 0.9), model.features(goal.image[None])
        own, others = model.features(DATA.x[rows]), model.features(DATA.x[DATA.y != label])
    for weight in (0.5, 4.0):
        found = adaptive.kept_alive(model, DATA, goal, 3, weight, 4)(features, target)
        penalty = adaptive.outvoted_loss(features, own, others, 4)
        expected = feature_collision.bullseye_loss(features, target) + weight * penalty
        assert found.item() == pytest.approx(expected.item()) and penalty > 0


def test_the_hidden_loss_by_hand():
    moved = X * 0.8
    with torch.no_grad():
        before, after = MODEL.features(X), MODEL.features(moved)
    share = (after - before).square().sum() / before.square().sum()
    plain = gradient_matching.alignment_loss(MODEL, moved, Y, WANTED)
    for weight in (0.5, 3.0):
        found = adaptive.hidden_alignment(X, weight)(MODEL, moved, Y, WANTED)
        assert found.item() == pytest.approx((plain + weight * share).item())
