"""Lesson 09: per-example gradients, shaping, and the measurement of two parts of a batch."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, one_hot

from course_utils.attacks.label_flipping import random_flips
from course_utils.attacks.patch_backdoors import badnets
from course_utils.attacks.triggers import solid_patch
from course_utils.data import Data
from course_utils.defenses.gradient_anatomy import (
    Plan,
    anatomy,
    compare_parts,
    cosine,
    cut,
    group_cosine,
    look,
    matched_rows,
    part_gradient,
    specimen,
    with_noise,
)
from course_utils.defenses.per_example import (
    clip,
    clip_and_noise,
    linear_norms,
    per_example_gradients,
    per_example_norms,
)
from course_utils.models import build
from course_utils.studies.lesson_09 import interpolate
from course_utils.threat import Backdoor, Indiscriminate, Poison, ThreatModel
from course_utils.training import Recipe, TrainingError, train


def problem(name: str = "mlp", n: int = 6, n_classes: int = 3, **options):
    """A tiny model in float64, images and labels."""
    model = build(name, (1, 8, 8), n_classes, seed=1, **options).double()
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(n, 1, 8, 8, generator=generator, dtype=torch.double)
    return model, images, torch.randint(n_classes, (n,), generator=generator)


def loop_gradients(model, images, labels):
    """One call of autograd for each example."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    rows = [
        torch.autograd.grad(cross_entropy(model(x), y), parameters)
        for x, y in zip(images.split(1), labels.split(1), strict=True)
    ]
    return [torch.stack(parts) for parts in zip(*rows, strict=True)]


@pytest.mark.parametrize("name", ["logistic_regression", "mlp", "small_cnn"])
def test_per_example_gradients_are_those_of_a_loop(name):
    model, images, labels = problem(name)
    before = copy.deepcopy(model.state_dict())
    found = per_example_gradients(model.train(), images, labels)
    for mine, expected in zip(found, loop_gradients(model, images, labels), strict=True):
        torch.testing.assert_close(mine, expected)
    assert model.training and all(p.grad is None for p in model.parameters())
    assert all(torch.equal(a, before[key]) for key, a in model.state_dict().items())


def test_frozen_parameters_have_no_gradient():
    model, images, labels = problem("small_cnn")
    model.features.requires_grad_(False)
    found = per_example_gradients(model, images, labels)
    assert [p.shape[1:] for p in found] == [p.shape for p in model.head.parameters()]
    torch.testing.assert_close(per_example_norms(found), linear_norms(model, images, labels))


def test_no_example_gives_empty_gradients():
    model, images, labels = problem()
    found = per_example_gradients(model, images[:0], labels[:0])
    assert [p.shape for p in found] == [(0, *p.shape) for p in model.parameters()]
    assert per_example_norms(found).shape == (0,)
    assert [p.shape for p in clip(found, 1.0)] == [p.shape for p in found]


def test_batchnorm_is_refused():
    model, images, labels = problem("small_cnn", norm="batch")
    with pytest.raises(ValueError, match=r"mixes the images of a batch.*norm='group'"):
        per_example_gradients(model, images, labels)


@pytest.mark.parametrize("name", ["logistic_regression", "mlp"])
def test_the_cheap_norms_are_the_norms(name):
    model, images, labels = problem(name)
    expected = per_example_norms(per_example_gradients(model, images, labels))
    torch.testing.assert_close(linear_norms(model, images, labels), expected)
    assert not model.head._forward_hooks and all(p.grad is None for p in model.parameters())


def test_the_cheap_norms_refuse_other_layers():
    model, images, labels = problem("small_cnn")
    with pytest.raises(ValueError, match=r"features\.0\.weight is not a weight of a linear layer"):
        linear_norms(model, images, labels)


def test_norms_of_logistic_regression_by_hand():
    """The gradient is error times (pixels, 1)."""
    model, images, labels = problem("logistic_regression")
    error = (model(images).softmax(1) - one_hot(labels, 3)).detach().numpy()
    pixels = images.flatten(1).numpy()
    expected = np.sqrt((error**2).sum(1) * ((pixels**2).sum(1) + 1))
    np.testing.assert_allclose(linear_norms(model, images, labels).numpy(), expected)


@pytest.mark.parametrize("bound", [0.05, 0.5, 100.0, math.inf])
def test_clipping_bounds_every_example_and_keeps_its_direction(bound):
    model, images, labels = problem()
    gradients = per_example_gradients(model, images, labels)
    before, after = per_example_norms(gradients), per_example_norms(clip(gradients, bound))
    torch.testing.assert_close(after, before.clamp(max=bound))
    for old, new in zip(gradients, clip(gradients, bound), strict=True):
        ratio = (after / before).view(-1, *[1] * (old.ndim - 1))
        torch.testing.assert_close(new, ratio * old)


def test_a_gradient_of_zero_stays_zero():
    assert torch.equal(clip((torch.zeros(2, 3),), 1.0)[0], torch.zeros(2, 3))


@pytest.mark.parametrize("bound", [0.0, -1.0, math.nan])
def test_a_bound_without_meaning_is_refused(bound):
    with pytest.raises(ValueError, match="expected a positive length"):
        clip((torch.ones(2, 3),), bound)
    model, images, labels = problem()
    with pytest.raises(ValueError, match="expected a positive length"):
        part_gradient(model, images, labels, bound)


@pytest.mark.parametrize("noise", [-0.1, math.nan, math.inf])
def test_a_noise_without_meaning_is_refused(noise):
    with pytest.raises(ValueError, match="expected 0 or more"):
        clip_and_noise((torch.ones(2, 3),), 1.0, noise, 2, torch.Generator())


def test_noise_needs_a_bound():
    with pytest.raises(ValueError, match="give a finite one"):
        clip_and_noise((torch.ones(2, 3),), math.inf, 0.1, 2, torch.Generator())


def test_noise_has_the_promised_size_and_none_draws_nothing():
    zeros, generator = (torch.zeros(0, 300, 300),), torch.Generator().manual_seed(0)
    (noise,) = clip_and_noise(zeros, bound=2.0, noise=0.5, batch_size=10, generator=generator)
    assert noise.std().item() == pytest.approx(0.1, rel=0.02)
    assert abs(noise.mean().item()) < 0.002
    state = generator.get_state()
    plain = clip_and_noise((torch.ones(4, 3),), math.inf, 0.0, 2, generator)
    assert torch.equal(plain[0], torch.full((3,), 2.0)) and torch.equal(
        generator.get_state(), state
    )


@pytest.mark.parametrize("bound", [0.05, 0.3, math.inf])
def test_a_part_gradient_is_the_mean_of_the_clipped_gradients(bound):
    model, images, labels = problem()
    clipped = clip(per_example_gradients(model, images, labels), bound)
    for mine, part in zip(part_gradient(model, images, labels, bound), clipped, strict=True):
        torch.testing.assert_close(mine, part.mean(0))


def test_lengths_and_cosines_by_hand():
    """Two classes, all weights zero: the gradient of an image is (r x, -r x), with r = +-1/2."""
    model = build("logistic_regression", (1, 1, 2), 2)
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    images = torch.tensor([[3.0, 0.0], [0.0, 4.0], [3.0, 0.0]]).view(3, 1, 1, 2)
    labels = torch.tensor([0, 0, 1])
    parts = {"clean": (images[:1], labels[:1]), "poison": (images[1:2], labels[1:2])}
    parts["label"] = images[2:], labels[2:]
    row = compare_parts({name: part_gradient(model, *part) for name, part in parts.items()})
    assert row["last clean"] == pytest.approx(1.5 * math.sqrt(2))
    assert row["last poison"] == pytest.approx(2 * math.sqrt(2))
    assert row["last cos poison"] == pytest.approx(0.0, abs=1e-6)
    assert row["last cos label"] == pytest.approx(-1.0), "the same image with the other label"
    assert row["all clean"] == pytest.approx(math.sqrt(0.5 * (9 + 1)))
    assert row["all cos poison"] == pytest.approx(1 / math.sqrt(10 * 17)), "the biases agree"


def test_group_cosine_is_the_cosine_of_the_part_gradients():
    model, images, labels = problem()
    first = torch.tensor([True, True, False, False, False, False])
    gradients = per_example_gradients(model, images, labels)
    expected = cosine(*(part_gradient(model, images[m], labels[m]) for m in (first, ~first)))
    assert group_cosine(gradients, first, ~first) == pytest.approx(expected)


def test_two_logits_turn_the_gradient_around_with_the_label():
    model, images, labels = problem("logistic_regression", n_classes=2)
    for x, y in zip(images.split(1), labels.split(1), strict=True):
        right, wrong = (part_gradient(model, x, label) for label in (y, 1 - y))
        assert cosine(right, wrong) == pytest.approx(-1.0)
        torch.testing.assert_close(right[0][0], -right[0][1])


@pytest.fixture(scope="module")
def backdoor(images, held_out):
    """Twelve BadNets poisons among 300 images."""
    goal = Backdoor(solid_patch(4), target_class=3)
    return badnets(images, goal, ThreatModel(12), seed=0), images, held_out


def test_a_batch_is_cut_into_its_parts_with_partners(backdoor):
    poison, images, held_out = backdoor
    what = specimen(poison, images, held_out)
    rows = torch.cat([poison.base[:3], (~what.is_poison).nonzero()[:20, 0]])
    parts = cut(what, rows, torch.Generator().manual_seed(0))
    assert {name: len(part) for name, part in parts.items()} == {
        "clean": 20, "poison": 3, "label": 3, "class": 3, "new": 3,
    }  # fmt: skip
    assert (parts["label"].y == 3).all() and (parts["new"].y == 3).all()
    assert torch.equal(parts["class"].y, images.y[poison.base[:3]])
    clean = {x.numpy().tobytes() for x in images.x[~what.is_poison]}
    batch = {x.numpy().tobytes() for x in what.seen.x[rows]}
    unseen = {x.numpy().tobytes() for x in held_out.x}
    for name in ("label", "class"):
        drawn = {x.numpy().tobytes() for x in parts[name].x}
        assert len(drawn) == 3 and drawn <= clean and not drawn & batch
    assert {x.numpy().tobytes() for x in parts["new"].x} <= unseen


def test_clean_labels_need_no_second_control(images, held_out):
    poison = Poison(images.x[:5].flip(3), images.y[:5], torch.arange(5))
    assert set(specimen(poison, images, held_out).partners) == {"label"}


def test_appended_flips_know_their_true_class(images, held_out):
    threat = ThreatModel(10, placement="append")
    flips = random_flips(images, Indiscriminate(), threat, seed=0)
    what = specimen(flips, images, held_out)
    assert torch.equal(what.partners["class"][-10:], images.y[flips.base])
    assert torch.equal(what.partners["label"][-10:], flips.labels)


def test_a_poison_that_is_a_clean_image_is_refused(images, held_out):
    copied = Poison(images.x[:2], images.y[:2], torch.arange(2), "append")
    with pytest.raises(ValueError, match="cannot be told apart"):
        specimen(copied, images, held_out)


def test_too_few_images_for_a_control_are_named(images):
    everyone, wanted = torch.ones(len(images), dtype=torch.bool), torch.full((31,), 2)
    with pytest.raises(ValueError, match=r"31 images of class Pullover are needed.*only 30"):
        matched_rows(images, everyone, wanted, torch.Generator())


def test_a_batch_without_poison_or_without_clean_images_gives_no_row(backdoor):
    poison, images, held_out = backdoor
    what, model = specimen(poison, images, held_out), build("mlp", images.shape, 10)
    generator = torch.Generator().manual_seed(0)
    assert look(model, what, (~what.is_poison).nonzero()[:5, 0], generator) == []
    assert look(model, what, poison.base[:5], generator) == []


def test_untouched_images_look_like_their_control(images, held_out):
    """Thirty random images of one class as 'poison': ratio 1 and the same cosine on average."""
    base = (images.y == 4).nonzero()[:15, 0]
    what = specimen(Poison(images.x[base], images.y[base], base), images, held_out)
    model = train(build("mlp", images.shape, 10), images, Recipe(epochs=2), seed=0)
    generator, rows = torch.Generator().manual_seed(0), []
    for _ in range(100):
        clean = (~what.is_poison).nonzero()[:, 0]
        clean = clean[torch.randperm(len(clean), generator=generator)[:50]]
        some = base[torch.randperm(15, generator=generator)[:4]]
        rows += look(model, what, torch.cat([some, clean]), generator)
    ratio = np.mean([row["all poison"] for row in rows]) / np.mean([r["all label"] for r in rows])
    turn = np.mean([row["all cos poison"] - row["all cos label"] for row in rows])
    assert 0.85 < ratio < 1.15 and abs(turn) < 0.1
    raw = np.mean([row["all poison"] for row in rows]) / np.mean([r["all clean"] for r in rows])
    assert raw > 1.3, "and yet the part looks longer than the rest of its batch"


def test_whoever_only_looks_changes_nothing(backdoor):
    poison, images, held_out = backdoor
    what, record, model = specimen(poison, images, held_out), [], build("mlp", images.shape, 10)
    recipe = Recipe(epochs=3, batch_size=50)
    watching = anatomy(what, record, 50, Plan(epochs=(1, 3), every=1))
    seen = train(model, what.seen, recipe, defense=watching)
    plain = train(model, what.seen, recipe)
    pairs = zip(seen.parameters(), plain.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert {row["epoch"] for row in record} == {1, 3}
    assert sum(row["poisons"] for row in record if row["epoch"] == 1) == 12


def test_shaped_training_follows_the_clipped_gradient(backdoor):
    poison, images, held_out = backdoor
    what, record, model = specimen(poison, images, held_out), [], build("mlp", images.shape, 10)
    plan = Plan(epochs=(1,), every=1, bound=0.5, noise=0.1)
    defense = anatomy(what, record, 50, plan)
    generator = torch.Generator().manual_seed(0)
    x, y = what.seen.x[:50], what.seen.y[:50]
    found = defense.gradients(model, x, y, generator)
    expected = clip_and_noise(
        per_example_gradients(model, x, y), 0.5, 0.1, 50, torch.Generator().manual_seed(0)
    )
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    assert [row["noise"] for row in record] == ["none", "independent", "shared"]


def test_shared_noise_makes_any_two_parts_agree():
    generator = torch.Generator().manual_seed(0)
    small = tuple(1e-3 * torch.randn(50, 50, generator=generator) for _ in range(2))
    parts, sizes = {"clean": (small[0],), "poison": (small[1],)}, {"clean": 99, "poison": 1}
    shared = with_noise(parts, sizes, 1.0, generator, shared=True)
    independent = with_noise(parts, sizes, 1.0, generator, shared=False)
    assert cosine(shared["clean"], shared["poison"]) > 0.95
    assert abs(cosine(independent["clean"], independent["poison"])) < 0.1


def test_interpolated_collisions_keep_their_label_and_their_pixels(images):
    poison = interpolate(images, 2, 7, 5, alpha=0.4, seed=0)
    poison.check(ThreatModel(5, clean_label=True, placement="append"), images)
    assert (poison.labels == 2).all() and len(poison) == 5
    whole = interpolate(images, 2, 7, 5, alpha=1.0, seed=0)
    sneakers = {x.numpy().tobytes() for x in images.x[images.y == 7]}
    assert {x.numpy().tobytes() for x in whole.images} <= sneakers
    assert isinstance(poison.apply(images), Data)


def test_dropout_draws_for_each_image_alone():
    model, images, labels = problem("mlp")
    model.features.append(nn.Dropout(0.5))
    found = per_example_gradients(model.train(), images, labels)
    shapes = [(len(images), *p.shape) for p in model.parameters()]
    assert [tuple(part.shape) for part in found] == shapes
    assert all(part.isfinite().all() for part in found)
    twins = images[:1].repeat(8, 1, 1, 1), labels[:1].repeat(8)
    head = per_example_gradients(model, *twins)[-2]
    assert not torch.equal(head[0], head[1]), "each image has a mask of its own"
    model.eval()
    found = per_example_gradients(model, images, labels)
    for mine, expected in zip(found, loop_gradients(model, images, labels), strict=True):
        torch.testing.assert_close(mine, expected)


def test_the_anatomy_is_made_for_the_batch_size_of_the_recipe(images):
    poison = Poison(images.x[:2] / 2, images.y[:2], torch.arange(2))
    looking = anatomy(specimen(poison, images, images), [], 50, Plan())
    with pytest.raises(TrainingError, match="is made for batches of 50"):
        train(build("mlp", images.shape, 10), images, Recipe(1, 20), defense=looking)


@pytest.mark.parametrize("part", ["weight", "bias"])
def test_a_layer_that_trains_in_part_has_no_length(part):
    model, images, labels = problem("mlp")
    getattr(model.head, part).requires_grad_(False)
    with pytest.raises(ValueError, match=r"used by 0 layers|Only a part"):
        linear_norms(model, images, labels)
