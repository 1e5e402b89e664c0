"""MetaPoison, lesson 06: losses by hand, one step by hand, and what a batch holds."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from course_utils.attacks import crafting, metapoison
from course_utils.attacks.gradient_matching import choose_bases
from course_utils.attacks.metapoison import (
    Unrolling,
    adversarial_cross_entropy,
    draw,
    first_order_step,
    largest_gradients,
    margin_loss,
    meta_objective,
    unrolled_loss,
    unrolled_step,
    weights_of,
    without,
)
from course_utils.models import build
from course_utils.threat import ThreatModel
from tests.reference.small import drawn, flat, goal_for, models, noise_data

DATA = noise_data()
SURROGATES = models(DATA, 3, 5)
GOAL = goal_for(SURROGATES, DATA)


def test_the_losses_by_hand():
    logits = torch.tensor([[1.0, 3.0, 2.5], [0.0, 4.0, 1.0], [2.0, 2.1, 0.0]])
    # Class 1 leads by 0.5 and 3 (no loss under 0.2) and by 0.1: 0.2 - 0.1 is left, over three.
    assert margin_loss(logits, 1).item() == pytest.approx(0.1 / 3, abs=1e-6)
    assert margin_loss(logits, 2, 1.0).item() == pytest.approx((1.5 + 4.0 + 3.1) / 3)
    assert logits[0, 1] == 3.0
    expected = cross_entropy(logits, torch.tensor([2, 2, 2])).item()
    assert adversarial_cross_entropy(logits, 2).item() == pytest.approx(expected)


def linear():
    """Logistic regression on two pixels in float64: its gradient can be written out."""
    model = build("logistic_regression", (1, 1, 2), 3, seed=4).double()
    x = torch.tensor([[[[0.2, 0.9]]], [[[0.7, 0.1]]]], dtype=torch.float64)
    return model, x, torch.tensor([2, 0])


def test_one_step_by_hand():
    model, x, y = linear()
    before = weights_of(model)
    after = unrolled_step(model, before, x, y, 0.5)
    weight, bias = model.head.weight.detach(), model.head.bias.detach()
    flat_x = x.flatten(1)
    error = (flat_x @ weight.T + bias).softmax(1) - torch.eye(3, dtype=torch.float64)[y]
    torch.testing.assert_close(after["head.weight"], weight - 0.5 * error.T @ flat_x / 2)
    torch.testing.assert_close(after["head.bias"], bias - 0.5 * error.mean(0))
    assert torch.equal(before["head.weight"], weight)


def test_the_copied_weights_are_leaves_of_their_own():
    model = linear()[0]
    weights = weights_of(model)
    assert all(w.is_leaf and w.requires_grad for w in weights.values())
    assert weights["head.bias"].data_ptr() != model.head.bias.data_ptr()


def test_first_order_is_the_same_step_with_another_slope():
    model, x, y = linear()
    x.requires_grad_()
    second = unrolled_step(model, unrolled_step(model, weights_of(model), x, y, 0.5), x, y, 0.5)
    middle = unrolled_step(model, weights_of(model), x, y, 0.5)
    first = first_order_step(model, middle, x, y, 0.5)
    torch.testing.assert_close(first["head.weight"], second["head.weight"])
    slopes = [
        torch.autograd.grad(w["head.bias"][1], x, retain_graph=True)[0] for w in (first, second)
    ]
    fixed = {k: v.detach().requires_grad_() for k, v in middle.items()}
    direct = torch.autograd.grad(unrolled_step(model, fixed, x, y, 0.5)["head.bias"][1], x)[0]
    through = torch.autograd.grad(middle["head.bias"][1], x)[0]
    torch.testing.assert_close(slopes[0], direct + through)
    assert not torch.allclose(slopes[1], slopes[0])


def test_the_meta_loss_is_that_of_plain_training():
    model, x, y = linear()
    target = torch.tensor([[[[0.4, 0.6]]], [[[0.1, 0.1]]]], dtype=torch.float64)
    for steps, lr in ((1, 0.5), (3, 0.5), (3, 0.1)):
        twin = linear()[0]
        sgd = torch.optim.SGD(twin.parameters(), lr=lr)
        for _ in range(steps):
            sgd.zero_grad()
            cross_entropy(twin(x), y).backward()
            sgd.step()
        for loss in (adversarial_cross_entropy, margin_loss):
            for first_order in (False, True):
                found = unrolled_loss(
                    model, weights_of(model), x, y, target, 1, lr, steps,
                    loss=loss, first_order=first_order,
                )  # fmt: skip
                assert found.item() == pytest.approx(loss(twin(target), 1).item())


def test_rows_are_left_out_and_drawn():
    rest = without(DATA, torch.tensor([0, 5, 29]))
    assert torch.equal(rest.x, DATA.x[[r for r in range(30) if r not in (0, 5, 29)]])
    rows = [draw(DATA, 4, drawn(seed)).tolist() for seed in range(40)]
    assert all(len(set(some)) == 4 for some in rows)
    assert {row for some in rows for row in some} == set(range(30))
    assert sorted(draw(DATA, 99, drawn(1)).tolist()) == list(range(30))


def test_bases_have_the_largest_gradients():
    threat = ThreatModel(4, 0.1)
    rows = (DATA.y == GOAL.adversarial_class).nonzero()[:, 0]
    expected = choose_bases(SURROGATES, DATA, rows, 4)
    assert torch.equal(largest_gradients(SURROGATES, DATA, GOAL, threat), expected)


@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("loss", [adversarial_cross_entropy, margin_loss])
def test_the_objective_is_the_meta_loss_of_a_drawn_batch_and_surrogate(first_order, loss):
    poisons, clean = DATA[:8], DATA[8:]
    how = Unrolling(3, 0.2, poisons=5, clean=6, loss=loss, first_order=first_order)
    objective = meta_objective(SURROGATES, clean, poisons, GOAL, drawn(3), how)
    images, generator, seen = poisons.x * 0.9, drawn(3), set()
    for _ in range(6):
        number = torch.randint(2, (1,), generator=generator).item()
        some = torch.randperm(8, generator=generator)[:5]
        rest = torch.randperm(22, generator=generator)[:6]
        x, y = torch.cat([images[some], clean.x[rest]]), torch.cat([poisons.y[some], clean.y[rest]])
        x.requires_grad_()
        model = SURROGATES[number]
        given = (GOAL.image[None], GOAL.adversarial_class, 0.2, 3)
        expected = unrolled_loss(
            model, weights_of(model), x, y, *given, loss=loss, first_order=first_order
        )
        asked = images.clone().requires_grad_()
        found = objective(asked)
        assert found.item() == pytest.approx(expected.item())
        slope, wanted = torch.zeros_like(images), torch.autograd.grad(expected, x)[0]
        slope[some] = wanted[:5]
        torch.testing.assert_close(torch.autograd.grad(found, asked)[0], slope)
        seen.add(number)
    assert seen == {0, 1}


def test_metapoison_crafts_from_noise_without_its_bases_among_the_clean_images(monkeypatch):
    given, begun = [], []
    objective, adam = metapoison.meta_objective, crafting.signed_adam
    monkeypatch.setattr(
        metapoison, "meta_objective", lambda *all: given.append(all) or objective(*all)
    )
    monkeypatch.setattr(
        crafting, "signed_adam", lambda *a, **k: begun.append((a, k)) or adam(*a, **k)
    )
    how = Unrolling(2, 0.3, poisons=3, clean=7)
    threat = ThreatModel(4, 0.06, clean_label=True, placement="append")
    for seed, base in ((5, None), (6, torch.tensor([4, 7, 9, 13]))):
        poison = metapoison.metapoison(
            SURROGATES, DATA, GOAL, threat, seed, base=base, how=how, steps=4
        )
        rows = largest_gradients(SURROGATES, DATA, GOAL, threat) if base is None else base
        assert torch.equal(poison.base, rows) and torch.equal(poison.labels, DATA.y[rows])
        assert poison.placement == "append"
        _, clean, poisons, goal, _, seen_how = given.pop()
        assert torch.equal(clean.x, without(DATA, rows).x) and torch.equal(poisons.x, DATA.x[rows])
        assert goal is GOAL and seen_how is how
        (_, start, around, epsilon), options = begun.pop()
        assert torch.equal(around, DATA.x[rows]) and epsilon == 0.06
        assert options["steps"] == 4
        assert torch.equal(start, crafting.random_start(DATA.x[rows], 0.06, drawn(seed)))
        poison.check(threat, DATA)
    assert flat(SURROGATES[0].parameters()).isfinite().all()
