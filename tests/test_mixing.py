"""The defenses of lesson 12: labels, pixels, draws and errors, and that train() takes them."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import nn
from torch.nn.functional import cross_entropy

from course_utils.cases.backdoors import AUGMENTED
from course_utils.data import Data
from course_utils.defense import PLAIN, Defense
from course_utils.defenses.mixing import (
    candidate_losses,
    cutmix,
    cutmix_box,
    cutout,
    draw_share,
    hardest,
    holes,
    maxup,
    mixup,
)
from course_utils.models import build
from course_utils.runtime import one_thread
from course_utils.training import Recipe, train

ALL = [mixup(1.0), cutmix(1.0), cutout(5), maxup(3, cutout(5)), maxup(2, mixup(1.0))]
each_defense = pytest.mark.parametrize("defense", ALL, ids=lambda defense: defense.name)
SHORT = Recipe(epochs=2, batch_size=32, lr=0.05)


def numbered(n: int, height: int, width: int, n_classes: int) -> tuple:
    """Images that can be told apart in every pixel: image i has the value i / n everywhere."""
    x = (torch.arange(n) / n).view(n, 1, 1, 1).expand(n, 1, height, width).clone()
    return build("mlp", (1, height, width), n_classes, width=8), x, torch.arange(n) % n_classes


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


alphas = st.sampled_from([1e-3, 0.2, 1.0, 8.0, 1e4])
sizes = st.integers(1, 12)
seeds = st.integers(0, 2**31)


@given(n=sizes, height=sizes, width=sizes, alpha=alphas, seed=seeds)
def test_mixup_blends_images_and_labels_with_one_share(n, height, width, alpha, seed):
    model, x, y = numbered(n, height, width, 4)
    mixed, labels = mixup(alpha).batch(model, x, y, seeded(seed))
    again = seeded(seed)
    share, partner = draw_share(alpha, again), torch.randperm(n, generator=again)
    expected = share * x + (1 - share) * x[partner]
    torch.testing.assert_close(mixed, expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(labels.sum(1), torch.ones(n))
    for row, own, other in zip(labels, y, y[partner], strict=True):
        rest = torch.zeros(4)
        rest[own] += share
        rest[other] += 1 - share
        torch.testing.assert_close(row, rest, atol=1e-6, rtol=0)


@given(n=sizes, height=sizes, width=sizes, alpha=alphas, seed=seeds)
def test_cutmix_mixes_labels_by_the_pixels_that_are_there(n, height, width, alpha, seed):
    model, x, y = numbered(n, height, width, 4)
    before = x.clone()
    mixed, labels = cutmix(alpha).batch(model, x, y, seeded(seed))
    assert torch.equal(x, before), "the images that came in must stay"
    torch.testing.assert_close(labels.sum(1), torch.ones(n))
    for i in range(n):
        counted = torch.zeros(4)
        for pixel in mixed[i].flatten():  # every pixel shows the image that it came from
            counted[y[(pixel * n).round().long()]] += 1 / (height * width)
        torch.testing.assert_close(labels[i], counted, atol=1e-5, rtol=0)


@given(height=st.integers(1, 40), width=st.integers(1, 40), share=st.floats(0, 1), data=st.data())
def test_a_box_lies_inside_and_has_its_sides_unless_it_is_cut_off(height, width, share, data):
    row, column = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    top, bottom, left, right = cutmix_box(height, width, share, row, column)
    assert 0 <= top <= bottom <= height and 0 <= left <= right <= width
    tall, wide = int(height * (1 - share) ** 0.5), int(width * (1 - share) ** 0.5)
    assert bottom - top <= tall and right - left <= wide
    if top > 0 and bottom < height and left > 0 and right < width:
        assert (bottom - top, right - left) == (tall, wide)
        assert top <= row <= bottom and left <= column <= right


@pytest.mark.parametrize("alpha", [0.2, 1.0, 8.0])
def test_the_shares_follow_the_beta_distribution(alpha):
    generator = seeded(0)
    draws = [draw_share(alpha, generator) for _ in range(2000)]
    assert all(0 <= share <= 1 for share in draws)
    assert stats.kstest(draws, stats.beta(alpha, alpha).cdf).pvalue > 0.01
    assert stats.kstest(draws, stats.beta(3 * alpha, alpha).cdf).pvalue < 1e-6


@given(n=sizes, side=st.integers(1, 9), seed=seeds)
def test_cutout_paints_one_square_of_each_image_black(n, side, seed):
    model, x, y = numbered(n, 9, 12, 3)
    x = x + 0.5
    painted, labels = cutout(side).batch(model, x, y, seeded(seed))
    assert torch.equal(labels, y)
    for image, before in zip(painted[:, 0], x[:, 0], strict=True):
        black = image == 0
        assert torch.equal(image[~black], before[~black])
        rows, columns = black.any(1), black.any(0)
        assert black.sum() == rows.sum() * columns.sum(), "a rectangle"
        assert 1 <= rows.sum() <= side and 1 <= columns.sum() <= side
        inside = not (rows[0] or rows[-1] or columns[0] or columns[-1])
        if inside:
            assert rows.sum() == columns.sum() == side, "the whole square"


def test_every_pixel_can_be_covered():
    covered = holes(torch.Size((500, 1, 6, 9)), 2, seeded(0))
    assert covered.shape == (500, 1, 6, 9) and covered.any(0).all()


@pytest.mark.parametrize("inner", [cutout(4), mixup(1.0), cutmix(0.5), AUGMENTED])
def test_the_loss_of_maxup_is_at_least_that_of_every_candidate(images, inner):
    model = build("mlp", images.shape, 10, seed=1).eval()
    x, y = images.x[:40], images.y[:40]
    picked, labels = maxup(5, inner).batch(model, x, y, seeded(3))
    losses = cross_entropy(model(picked), labels, reduction="none")
    generator, candidates = seeded(3), []
    for _ in range(5):
        candidate, soft = inner.batch(model, x, y, generator)
        candidates.append(cross_entropy(model(candidate), soft, reduction="none"))
    torch.testing.assert_close(losses, torch.stack(candidates).amax(0))
    assert all((losses >= loss - 1e-5).all() for loss in candidates)
    assert (losses > torch.stack(candidates).mean(0) + 1e-4).any(), "no mean"


def test_the_gradient_of_the_maximum_is_that_of_the_batch_that_maxup_returns(images):
    model = build("small_cnn", images.shape, 10, seed=1).eval().double()
    x, y = images.x[:12].double(), images.y[:12]
    parameters = tuple(model.parameters())
    picked, labels = maxup(4, cutout(10)).batch(model, x, y, seeded(3))
    found = torch.autograd.grad(cross_entropy(model(picked), labels), parameters)
    generator = seeded(3)
    drawn = [cutout(10).batch(model, x, y, generator)[0] for _ in range(4)]
    losses = torch.stack([cross_entropy(model(z), y, reduction="none") for z in drawn])
    expected = torch.autograd.grad(losses.amax(0).mean(), parameters)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)


def test_one_candidate_is_the_augmentation_itself(images):
    model = build("mlp", images.shape, 10)
    x, y = images.x[:20], images.y[:20]
    alone, _ = maxup(1, cutout(7)).batch(model, x, y, seeded(0))
    assert torch.equal(alone, cutout(7).batch(model, x, y, seeded(0))[0])


def test_maxup_leaves_the_model_as_it_came(images):
    model = build("small_cnn", images.shape, 10, norm="batch").train()
    model.features[1].eval()
    before, modes = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]
    x, _ = maxup(3, cutout(7)).batch(model, images.x[:10], images.y[:10], seeded(0))
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not x.requires_grad and all(p.grad is None for p in model.parameters())


def test_the_modes_come_back_even_after_an_error():
    model = build("mlp", (1, 4, 4), 3).train()
    with pytest.raises(RuntimeError):
        candidate_losses(model, torch.rand(2, 3, 1, 5, 5), torch.zeros(2, 3, dtype=torch.long))
    assert all(layer.training for layer in model.modules())


@each_defense
def test_the_same_generator_gives_the_same_batch_and_another_one_another(images, defense):
    model = build("mlp", images.shape, 10)
    drawn = [defense.batch(model, images.x, images.y, seeded(s)) for s in (1, 1, 2)]
    assert torch.equal(drawn[0][0], drawn[1][0]) and torch.equal(drawn[0][1], drawn[1][1])
    assert not torch.equal(drawn[0][0], drawn[2][0])


@each_defense
def test_the_global_random_state_is_not_used(images, defense):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    defense.batch(build("mlp", images.shape, 10), images.x, images.y, seeded(1))
    assert torch.equal(torch.get_rng_state(), before)


@each_defense
@pytest.mark.parametrize("n", [1, 2])
def test_a_batch_of_one_or_two_images(images, defense, n):
    model = build("mlp", images.shape, 10)
    x, y = defense.batch(model, images.x[:n], images.y[:n], seeded(0))
    assert x.shape == images.x[:n].shape and len(y) == n
    assert x.min() >= 0 and x.max() <= 1
    if n == 1 and y.ndim == 2:  # its only partner is itself
        torch.testing.assert_close(x, images.x[:1])
        assert y[0, images.y[0]].item() == pytest.approx(1)


@each_defense
@pytest.mark.parametrize("scenario", ["scratch", "finetune", "transfer"])
@pytest.mark.parametrize("name", ["mlp", "small_cnn"])
def test_every_scenario_takes_every_defense(images, defense, scenario, name):
    model = train(build(name, images.shape, 10), images, SHORT)
    part = images[:65]  # the last batch holds one image
    with one_thread():
        first, second = (
            train(model, part, SHORT, scenario=scenario, defense=defense, seed=4) for _ in range(2)
        )
        plain = train(model, part, SHORT, scenario=scenario, seed=4)
    weights = [torch.cat([p.flatten() for p in m.parameters()]) for m in (first, second, plain)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    if scenario == "transfer":
        for a, b in zip(first.features.parameters(), model.features.parameters(), strict=True):
            assert torch.equal(a, b)


def test_frozen_batchnorm_does_not_move_in_transfer(images):
    model = train(build("small_cnn", images.shape, 10, norm="batch"), images, SHORT)
    victim = train(model, images, SHORT, scenario="transfer", defense=maxup(2, cutmix(1.0)))
    norms = [m for m in victim.modules() if isinstance(m, nn.BatchNorm2d)]
    olds = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for new, old in zip(norms, olds, strict=True):
        assert torch.equal(new.running_mean, old.running_mean)


def test_mixing_learns_and_two_classes_are_enough(images):
    two = Data(images.x[images.y < 2], images.y[images.y < 2], images.classes[:2])
    model = build("logistic_regression", two.shape, 2)
    for defense in ALL:
        victim = train(model, two, Recipe(epochs=20, batch_size=20), defense=defense)
        assert (victim(two.x).argmax(1) == two.y).float().mean() > 0.85, defense.name


@pytest.mark.parametrize("alpha", [0, -1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("make", [mixup, cutmix])
def test_alpha_must_be_positive(make, alpha):
    with pytest.raises(ValueError, match=r"alpha is .*, expected a positive number"):
        make(alpha)


@pytest.mark.parametrize("side", [0, -3, 2.5])
def test_the_side_must_be_a_positive_whole_number(side):
    with pytest.raises(ValueError, match="side of the square"):
        cutout(side)


def test_the_square_must_fit_into_the_image(images):
    model = build("mlp", images.shape, 10)
    with pytest.raises(ValueError, match=r"29 pixels does not fit into images of 28 by 28.*28"):
        cutout(29).batch(model, images.x[:2], images.y[:2], seeded(0))
    x, _ = cutout(28).batch(model, images.x[:2], images.y[:2], seeded(0))
    assert x.shape == images.x[:2].shape


@pytest.mark.parametrize("candidates", [0, -1, 1.5])
def test_maxup_needs_a_candidate(candidates):
    with pytest.raises(ValueError, match=r"candidates is .*, expected a whole number, 1 or more"):
        maxup(candidates, cutout(5))


@pytest.mark.parametrize("defense", [PLAIN, Defense("filter", keep=lambda data, fit: None)])
def test_maxup_needs_a_defense_that_rewrites_batches(defense):
    with pytest.raises(ValueError, match="rewrites no batch"):
        maxup(2, defense)


def test_hardest_keeps_the_label_of_its_candidate():
    losses = torch.tensor([[1.0, 5.0], [2.0, 3.0]])
    images = torch.arange(4.0).view(2, 2, 1, 1, 1)
    picked, labels = hardest(losses, images, torch.tensor([[7, 8], [9, 6]]))
    assert picked.flatten().tolist() == [2.0, 1.0] and labels.tolist() == [9, 8]
