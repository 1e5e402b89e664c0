"""Gradient matching, lesson 05: gradients in float64, choices by stubs, shifts by scipy."""

import copy

import numpy as np
import pytest
import torch
from scipy.ndimage import shift
from torch.nn.functional import cosine_similarity, cross_entropy

from course_utils.attacks import crafting
from course_utils.attacks.gradient_matching import (
    alignment_loss,
    augment,
    brew,
    choose_bases,
    dot,
    gradient_matching,
    gradient_norms,
    joint_gradient,
    length,
    loss_gradient,
    matching_objective,
    squared_error,
    staggered,
    target_gradient,
)
from course_utils.models import build
from course_utils.threat import ThreatModel
from course_utils.training import Recipe, train
from tests.reference.small import drawn, flat, goal_for, models, noise_data

DATA = noise_data()
SURROGATES = models(DATA, 3, 5)
with torch.no_grad():  # the second has larger gradients
    SURROGATES[1].head.weight.mul_(5)
GOAL = goal_for(SURROGATES, DATA)


def double_model():
    return build("mlp", DATA.shape, 3, seed=4, width=5).double()


def by_backward(model, images, labels) -> torch.Tensor:
    """The gradient of the mean loss by hand: one image after the other, through `.backward()`."""
    model = copy.deepcopy(model)
    for image, label in zip(images, labels, strict=True):
        (cross_entropy(model(image[None]), label[None]) / len(images)).backward()
    return flat(p.grad for p in model.parameters())


def test_products_and_lengths_by_hand():
    first = (torch.tensor([[1.0, 2.0]]), torch.tensor([2.0]))
    second = (torch.tensor([[-3.0, 0.5]]), torch.tensor([4.0]))
    assert dot(first, second).item() == pytest.approx(-3 + 1 + 8)
    assert length(first).item() == pytest.approx(3)


def test_the_losses_are_those_of_gradients_taken_one_by_one():
    model = double_model()
    x, y = DATA.x.double()[:4], DATA.y[:4]
    found = by_backward(model, x, y)
    torch.testing.assert_close(flat(loss_gradient(model, x, y, graph=True)), found)
    torch.testing.assert_close(flat(target_gradient(model, x, y)), found)
    assert not any(part.requires_grad for part in target_gradient(model, x, y))
    wanted = target_gradient(model, x[:1].flip(3), (y[:1] + 1) % 3)
    other = flat(wanted)
    loss = alignment_loss(model, x, y, wanted).item()
    assert loss == pytest.approx(1 - cosine_similarity(found, other, dim=0).item())
    error = squared_error(model, x, y, wanted).item()
    assert error == pytest.approx(((found - other).square().sum() / other.square().sum()).item())


def test_the_norm_of_each_image_and_the_bases_with_the_largest_mean():
    rows = torch.tensor([1, 4, 7, 10, 13, 16, 19])
    table = torch.stack(
        [
            torch.stack([by_backward(m, DATA.x[[r]], DATA.y[[r]]).norm() for r in rows.tolist()])
            for m in SURROGATES
        ]
    )
    for model, norms in zip(SURROGATES, table, strict=True):
        torch.testing.assert_close(gradient_norms(model, DATA.x[rows], DATA.y[rows]), norms)
    mean = table.mean(0)
    expected = rows[mean.topk(3).indices]
    assert choose_bases(SURROGATES, DATA, rows, 3).tolist() == expected.tolist()


def test_bases_are_chosen_by_all_surrogates():
    rows = torch.arange(len(DATA))
    picked = [choose_bases(s, DATA, rows, 5).tolist() for s in (SURROGATES, SURROGATES[:1])]
    assert picked[0] != picked[1]
    assert picked[1] != choose_bases(SURROGATES[1:], DATA, rows, 5).tolist()


def test_surrogates_of_staggered_ages_are_those_of_their_seeds():
    model, recipe = build("mlp", DATA.shape, 3, seed=9, width=4), Recipe(3, 10, 0.1)
    found = staggered(model, DATA, recipe, 2, [1, 4], (1, 3), scenario="finetune")
    expected = []
    for number in (1, 4):
        for epoch in (1, 3):
            kept = {}
            train(
                model,
                DATA,
                recipe,
                seed=3000 + number,
                scenario="finetune",
                after_epoch=lambda m, e, kept=kept: kept.update({e: copy.deepcopy(m)}),
            )
            expected.append(kept[epoch])
    assert len(found) == 4
    for mine, theirs in zip(found, expected, strict=True):
        assert torch.equal(flat(mine.parameters()), flat(theirs.parameters()))


def test_augmentation_is_a_flip_and_a_shift_of_each_axis():
    """The centre of a smooth spot says how far it went; scipy shifts it there too."""
    rows, columns = np.mgrid[0:16, 0:20]
    spot = np.exp(-((rows - 7) ** 2 + (columns - 8) ** 2) / 8).astype(np.float32)
    moved = augment(torch.tensor(spot).expand(400, 1, -1, -1), drawn(3))[:, 0].numpy()
    weight = moved.sum((1, 2))
    down = (moved * rows).sum((1, 2)) / weight - 7
    right = (moved * columns).sum((1, 2)) / weight
    flipped = right > 9.5  # the spot at 8 comes to 11
    right = np.where(flipped, right - 11, right - 8)
    assert flipped.mean() == pytest.approx(0.5, abs=0.1)
    for way in (down, right[~flipped], right[flipped]):
        assert 1.9 < np.abs(way).max() < 2.02
        assert np.abs(np.quantile(way, [0.25, 0.5, 0.75]) - [-1, 0, 1]).max() < 0.3  # uniform
    assert abs(np.corrcoef(down, right)[0, 1]) < 0.2
    for one, up, side, turned in zip(moved[:20], down, right, flipped, strict=False):
        expected = shift(spot[:, ::-1] if turned else spot, (up, side), order=1)
        assert np.abs(one - expected).max() < 0.01
    still = augment(torch.tensor(spot).expand(9, 1, -1, -1), drawn(3), pixels=0.0)
    assert {
        round(float(x), 2) for x in (still[:, 0].numpy() * columns).sum((1, 2)) / spot.sum()
    } == {
        8.0,
        11.0,
    }


def test_an_objective_draws_as_many_surrogates_as_it_should():
    def paired(model, images, labels, wanted):
        assert labels == "labels"
        return torch.tensor(float(model * wanted)) + images.sum() * 0

    def objective(**options):
        given = ([1, 2, 5], [1, 10, 100], "labels", drawn(6))
        return matching_objective(*given, loss=paired, **options)

    image = torch.zeros(1, 1, 4, 4)
    assert objective(per_step=None)(image).item() == pytest.approx((1 + 20 + 500) / 3)
    one, two, default = objective(per_step=1), objective(per_step=2), objective()
    assert {one(image).item() for _ in range(30)} == {1, 20, 500}
    assert {round(two(image).item(), 1) for _ in range(40)} == {10.5, 250.5, 260.0}
    assert {default(image).item() for _ in range(30)} == {1, 20, 500}


def test_an_objective_augments_only_when_asked():
    def seen(model, images, labels, wanted):
        return (images * torch.arange(16.0).view(4, 4)).sum()

    image = torch.rand(3, 1, 4, 4, generator=drawn(1))
    plain = matching_objective([0], [0], None, drawn(6), loss=seen)(image)
    assert plain == matching_objective([0], [0], None, drawn(7), loss=seen)(image)
    moved = matching_objective([0], [0], None, drawn(6), loss=seen, augmented=True)(image)
    assert moved == seen(None, augment(image, drawn(6)), None, None) and moved != plain


def test_of_several_restarts_the_one_with_the_lowest_loss_over_all_surrogates_wins():
    def loss(model, images, labels, wanted):
        return ((images - model).abs()).mean()

    targets, seed = [0.0, 0.2, 1.0], 2
    generator = drawn(seed)
    starts = [crafting.random_start(DATA.x[:2], 0.3, generator) for _ in range(5)]
    judged = [sum((x - t).abs().mean().item() for t in targets) for x in starts]
    best = judged.index(min(judged))
    assert best not in (0, 4)
    options = {"loss": loss, "steps": 4, "lr": 1e-7, "per_step": None}
    images = brew(targets, [None] * 3, DATA[:2], 0.3, drawn(seed), restarts=5, **options)
    torch.testing.assert_close(images, starts[best], atol=1e-5, rtol=0)
    once = brew(targets, [None] * 3, DATA[:2], 0.3, drawn(seed), **options)
    torch.testing.assert_close(once, starts[0], atol=1e-5, rtol=0)


def test_restarts_are_judged_over_all_surrogates_whatever_a_step_draws():
    def loss(model, images, labels, wanted):
        judging.append(model)
        return images.mean()

    judging = []
    brew([1, 2, 3], [None] * 3, DATA[:2], 0.1, drawn(2), steps=4, restarts=2, loss=loss)
    assert len(judging) == 2 * 4 + 2 * 3 and judging[-3:] == [1, 2, 3]


def test_brewing_takes_its_steps_and_its_learning_rate():
    def loss(model, images, labels, wanted):
        return images.sum()  # every pixel falls by lr at each step until the schedule acts

    options = {"loss": loss, "steps": 8}
    found = [brew([0], [None], DATA[:1], 1.0, drawn(2), lr=lr, **options) for lr in (0.001, 0.01)]
    start = crafting.random_start(DATA.x[:1], 1.0, drawn(2))
    rates = (0.001 * 3 + 0.0001 * 2 + 0.00001 * 2 + 0.000001, 0.0321 - 0.00009 + 0.00001)
    for images, fall in zip(found, rates, strict=True):
        inside = (start > 0.1) & (start < 0.99)
        assert (start - images)[inside].mean().item() == pytest.approx(fall, rel=0.02)


@pytest.mark.parametrize("placement", ["append", "replace"])
def test_gradient_matching_is_brewing_for_the_adversarial_class(placement):
    threat = ThreatModel(4, 0.05, clean_label=True, placement=placement)
    wanted = [
        target_gradient(m, GOAL.image[None], torch.tensor([GOAL.adversarial_class]))
        for m in SURROGATES
    ]
    rows = choose_bases(SURROGATES, DATA, (DATA.y == GOAL.adversarial_class).nonzero()[:, 0], 4)
    for base in (None, torch.tensor([2, 3, 7, 9])):
        mine = rows if base is None else base
        options = {"steps": 9, "lr": 0.02}
        poison = gradient_matching(SURROGATES, DATA, GOAL, threat, 8, base=base, **options)
        expected = brew(SURROGATES, wanted, DATA[mine], 0.05, drawn(8), **options)
        assert torch.equal(poison.images, expected) and torch.equal(poison.base, mine)
        assert torch.equal(poison.labels, DATA.y[mine]) and poison.placement == placement
        size = (poison.images - DATA.x[mine]).abs().max().item()
        assert size == pytest.approx(0.05, abs=1e-6)


def test_the_joint_gradient_by_hand():
    first = (torch.tensor([3.0]), torch.tensor([4.0]))
    second = (torch.tensor([0.0]), torch.tensor([-2.0]))
    joint = joint_gradient([first, second])
    assert [part.item() for part in joint] == pytest.approx([0.3, (0.8 - 1) / 2])
