"""The defense of lesson 10: its lengths, gradients, epsilon and errors, and that it bounds."""

import copy
import math
import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from opacus import GradSampleModule
from opacus.accountants import PRVAccountant
from opacus.optimizers import DPOptimizer
from torch import nn
from torch.nn.functional import cross_entropy, one_hot

from course_utils.attacks.adaptive import layer_parts
from course_utils.attacks.gradient_matching import length
from course_utils.cases.slab import RECIPES, poisons, slab_case
from course_utils.data import Data
from course_utils.defense import PLAIN, Defense
from course_utils.defenses.gradient_shaping import (
    batch_shaping,
    ghost_norms,
    gradient_shaping,
    privacy_epsilon,
    shaped_gradient,
)
from course_utils.defenses.per_example import (
    clip_and_noise,
    linear_norms,
    per_example_gradients,
    per_example_norms,
)
from course_utils.models import Classifier, build
from course_utils.threat import accuracy
from course_utils.training import Recipe, TrainingError, train

NAMES = ["logistic_regression", "mlp", "small_cnn", "resnet18"]


def problem(name: str, n: int = 4, side: int = 12, seed: int = 0):
    """A model in float64, images and labels."""
    options = {"norm": "group"} if name == "resnet18" else {}
    model = build(name, (1, side, side), 3, seed, **options).double()
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(n, 1, side, side, generator=generator, dtype=torch.double)
    return model, images, torch.arange(n) % 3


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("side", [8, 24])
def test_ghost_norms_are_the_lengths_of_the_examples_gradients(name, side):
    model, images, labels = problem(name, side=side)
    slow = per_example_norms(per_example_gradients(model, images, labels))
    torch.testing.assert_close(ghost_norms(model, images, labels), slow, rtol=1e-9, atol=0)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(1, 3, 3, stride=2, padding=1),
        nn.Conv2d(1, 3, 3, dilation=2, bias=False),
        nn.Conv2d(1, 40, 5, stride=5),  # many weights, few places
    ],
    ids=["stride", "dilation", "few places"],
)
def test_ghost_norms_of_other_convolutions(layer):
    features = nn.Sequential(layer, nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model = Classifier(features, layer.out_channels, 3).double()
    _, images, labels = problem("mlp", side=11)
    slow = per_example_norms(per_example_gradients(model, images, labels))
    torch.testing.assert_close(ghost_norms(model, images, labels), slow, rtol=1e-9, atol=0)


def test_the_length_of_a_linear_layer_in_closed_form():
    model, images, labels = problem("logistic_regression")
    error = (model(images).softmax(1) - one_hot(labels, 3)).norm(dim=1)
    expected = error * (images.flatten(1).square().sum(1) + 1).sqrt()
    torch.testing.assert_close(ghost_norms(model, images, labels), expected)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("noise", [0.0, 0.7])
def test_two_passes_give_the_naive_shaped_gradient(name, noise):
    model, images, labels = problem(name)
    found = shaped_gradient(model, images, labels, 0.5, noise, 10, seeded())
    examples = per_example_gradients(model, images, labels)
    slow = clip_and_noise(examples, 0.5, noise, 10, seeded())
    for ours, theirs in zip(found, slow, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", ["logistic_regression", "mlp", "small_cnn"])
@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_the_same_as_opacus_on_the_same_batch_and_noise(name, noise, images):
    x, y = images.x[:50], images.y[:50]
    model = build(name, images.shape, 10)
    ours = shaped_gradient(model, x, y, 1.0, noise, 50, seeded())
    wrapped = GradSampleModule(copy.deepcopy(model))
    optimizer = DPOptimizer(
        torch.optim.SGD(wrapped.parameters(), lr=1.0),
        noise_multiplier=noise,
        max_grad_norm=1.0,
        expected_batch_size=50,
        generator=seeded(),
    )
    cross_entropy(wrapped(x.clone().requires_grad_()), y).backward()
    optimizer.pre_step()
    theirs = tuple(p.grad for p in wrapped.parameters())
    rest = tuple(a - b for a, b in zip(ours, theirs, strict=True))
    assert (length(rest) / length(theirs)).item() < 1e-5
    clipped = ghost_norms(model, x, y) > 1.0
    assert clipped.any()  # otherwise nothing was compared


@given(
    clip=st.floats(0.01, 10),
    seed=st.integers(0, 100),
    name=st.sampled_from(["logistic_regression", "mlp", "small_cnn"]),
)
def test_one_image_moves_the_gradient_by_at_most_the_bound(clip, seed, name):
    model, images, labels = problem(name, side=8, seed=seed)
    images[0] *= 1000  # an image that no data set would hold
    whole = shaped_gradient(model, images, labels, clip, 0.0, 10, seeded())
    without = shaped_gradient(model, images[1:], labels[1:], clip, 0.0, 10, seeded())
    moved = tuple(a - b for a, b in zip(whole, without, strict=True))
    assert length(moved).item() <= clip / 10 * (1 + 1e-9)


def test_a_huge_bound_gives_the_plain_gradient():
    model, images, labels = problem("small_cnn")
    shaped = shaped_gradient(model, images, labels, math.inf, 0.0, len(images), seeded())
    plain = torch.autograd.grad(cross_entropy(model(images), labels), tuple(model.parameters()))
    for ours, theirs in zip(shaped, plain, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_soft_labels_are_clipped_row_by_row():
    model, images, labels = problem("mlp")
    hard = shaped_gradient(model, images, labels, 0.3, 0.0, 4, seeded())
    soft = shaped_gradient(model, images, one_hot(labels, 3).double(), 0.3, 0.0, 4, seeded())
    for a, b in zip(hard, soft, strict=True):
        torch.testing.assert_close(a, b)
    mixed = torch.tensor([[0.5, 0.5, 0.0]] * 4, dtype=torch.double)
    slow = per_example_norms(per_example_gradients(model, images, mixed))
    torch.testing.assert_close(ghost_norms(model, images, mixed), slow)


def test_an_empty_batch_gives_the_noise_alone():
    model, images, labels = problem("mlp")
    noisy = shaped_gradient(model, images[:0], labels[:0], 2.0, 0.5, 10, seeded())
    values = torch.cat([part.flatten() for part in noisy])
    assert values.std().item() == pytest.approx(2.0 * 0.5 / 10, rel=0.02)
    quiet = shaped_gradient(model, images[:0], labels[:0], 2.0, 0.0, 10, seeded())
    assert all(not part.any() for part in quiet)
    assert ghost_norms(model, images[:0], labels[:0]).shape == (0,)


def test_training_survives_empty_poisson_batches(images):
    few = images[:8]
    model = build("logistic_regression", images.shape, 10)
    shaping = gradient_shaping(1.0, 0.1, batch_size=1)
    victim = train(model, few, Recipe(epochs=4, batch_size=1), defense=shaping)
    assert all(p.isfinite().all() for p in victim.parameters())


def test_only_the_head_counts_in_transfer():
    model, images, labels = problem("small_cnn")
    model.features.requires_grad_(False)
    found = shaped_gradient(model, images, labels, 0.1, 0.5, 4, seeded())
    assert [part.shape for part in found] == [p.shape for p in model.head.parameters()]
    with torch.no_grad():
        features = model.features(images)
    error = (model(images).softmax(1) - one_hot(labels, 3)).norm(dim=1)
    expected = error * (features.square().sum(1) + 1).sqrt()
    torch.testing.assert_close(ghost_norms(model, images, labels), expected)


def test_nothing_is_left_behind_on_the_model():
    model, images, labels = problem("mlp")
    before = copy.deepcopy(model.state_dict())
    shaped_gradient(model, images, labels, 1.0, 0.5, 4, seeded())
    assert all(p.grad is None for p in model.parameters())
    assert all(not layer._forward_hooks for layer in model.modules())
    after = model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("scenario", ["scratch", "finetune", "transfer"])
@pytest.mark.parametrize("name", ["mlp", "small_cnn"])
def test_a_shaped_victim_learns_in_every_scenario(scenario, name, images, held_out):
    model = build(name, images.shape, 10, seed=3)
    recipe = Recipe(epochs=10, batch_size=20, lr=0.5)
    shaping = gradient_shaping(1.0, 0.1, batch_size=20)
    victim, again = (
        train(model, images, recipe, scenario=scenario, defense=shaping) for _ in range(2)
    )
    assert accuracy(victim, held_out) > 0.25
    pairs = zip(victim.parameters(), again.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    if scenario == "transfer":
        frozen = zip(victim.features.parameters(), model.features.parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in frozen)


def test_a_batch_defense_may_come_before(images):
    def soften(model, x, y, generator):
        return x, 0.9 * one_hot(y, 10) + 0.01

    shaping = gradient_shaping(1.0, 0.0, batch_size=50)
    both = Defense("both", batch=soften, gradients=shaping.gradients, poisson=True)
    recipe = Recipe(epochs=5, batch_size=50, lr=0.5)
    victim = train(build("mlp", images.shape, 10), images, recipe, defense=both)
    assert accuracy(victim, images) > 0.3


def test_shaping_beats_plain_training_under_label_flips():
    """Logistic regression, Dress against Coat, 30% random flips appended."""
    case = slab_case(1000)
    data, test = case.data, case.test
    seen = poisons(data, 0.3, 1000)["random flips"].apply(data)
    model, recipe = build("logistic_regression", data.shape, 2), RECIPES["course"]
    plain, shaped = (
        accuracy(train(model, seen, recipe, defense=defense), test)
        for defense in (PLAIN, gradient_shaping(1.0, 0.0))
    )
    assert shaped > plain + 0.005


# Batch shaping


def test_batch_shaping_bounds_the_whole_batch_and_its_noise_is_not_divided():
    model, images, labels = problem("mlp")
    (quiet,) = (batch_shaping(0.1, 0.0).gradients(model, images, labels, seeded()),)
    assert length(quiet).item() == pytest.approx(0.1)
    noisy = batch_shaping(0.1, 5.0).gradients(model, images, labels, seeded())
    values = torch.cat([(a - b).flatten() for a, b in zip(noisy, quiet, strict=True)])
    assert values.std().item() == pytest.approx(0.5, rel=0.02)


def test_batch_shaping_works_with_batch_norm(images):
    model = build("small_cnn", images.shape, 10, norm="batch")
    victim = train(model, images, Recipe(epochs=2, batch_size=50), defense=batch_shaping(1.0, 0.01))
    assert all(p.isfinite().all() for p in victim.parameters())


# Epsilon


def test_epsilon_falls_with_noise_and_grows_with_steps_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        by_noise = [privacy_epsilon(s, 1 / 30, 600) for s in (5e-4, 0.01, 0.1, 1.0, 10.0, 50.0)]
        by_steps = [privacy_epsilon(1.0, 1 / 30, steps) for steps in (1, 10, 100)]
    assert by_noise == sorted(by_noise, reverse=True) and by_noise[-1] > 0
    assert by_steps == sorted(by_steps)
    assert privacy_epsilon(0.0, 1 / 30, 600) == math.inf


@pytest.mark.parametrize("rate", [0.005, 0.064, 0.2, 1.0])
def test_no_order_breaks_the_sum_of_epsilon(rate):
    """Sums for large fractional orders lose their digits: epsilon then came out negative."""
    noises = (0.01, 0.125, 0.5, 1.0, 4.0, 10.0, 20.0, 50.0, 100.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = [privacy_epsilon(noise, rate, 640) for noise in noises]
    assert found == sorted(found, reverse=True) and found[-1] > 0


@pytest.mark.filterwarnings("ignore:Optimal order")  # the other accountant asks this one coarsely
@pytest.mark.parametrize("noise", [0.8, 1.5, 4.0])
def test_epsilon_lies_a_little_above_that_of_another_accountant(noise):
    prv = PRVAccountant()
    prv.history = [(noise, 1 / 30, 600)]
    tight = prv.get_epsilon(1e-5)
    assert tight <= privacy_epsilon(noise, 1 / 30, 600) <= 1.3 * tight


def test_epsilon_of_the_gaussian_mechanism_in_closed_form():
    """Without sampling the bound of order a is a / (2 sigma^2) a step."""
    sigma, steps, delta = 20.0, 50, 1e-5
    orders = torch.linspace(1.01, 200, 200_000, dtype=torch.double)
    bound = steps * orders / (2 * sigma**2)
    bound += ((orders - 1) / orders).log() - (math.log(delta) + orders.log()) / (orders - 1)
    assert privacy_epsilon(sigma, 1.0, steps, delta) == pytest.approx(bound.min().item(), rel=0.01)


# Bad input


@pytest.mark.parametrize("make", [gradient_shaping, batch_shaping])
@pytest.mark.parametrize(
    ("clip", "noise", "message"),
    [
        (0.0, 0.0, "expected a positive length"),
        (-1.0, 0.5, "expected a positive length"),
        (math.nan, 0.0, "expected a positive length"),
        (1.0, -0.1, "expected 0 or more"),
        (math.inf, 0.5, "finite"),
    ],
)
def test_values_without_meaning_are_refused(make, clip, noise, message):
    with pytest.raises(ValueError, match=message):
        make(clip, noise)


def test_a_batch_size_below_one_is_refused():
    with pytest.raises(ValueError, match="batch size is 0, expected a whole number, 1 or more"):
        gradient_shaping(1.0, 0.0, batch_size=0)


@pytest.mark.parametrize("delta", [0.0, 1.0, -0.1, 2.0])
def test_a_delta_outside_its_range_is_refused(delta):
    with pytest.raises(ValueError, match=r"in \(0, 1\)"):
        privacy_epsilon(1.0, 0.1, 10, delta)


@pytest.mark.parametrize(("rate", "steps"), [(0.0, 1), (1.5, 1), (0.1, 0)])
def test_training_that_cannot_be_accounted_is_refused(rate, steps):
    with pytest.raises(ValueError, match="at least one step"):
        privacy_epsilon(1.0, rate, steps)


def test_batch_norm_is_refused_with_the_way_out(images):
    model = build("small_cnn", images.shape, 10, norm="batch")
    with pytest.raises(ValueError, match="norm='group'"):
        train(model, images, Recipe(epochs=1), defense=gradient_shaping(1.0, 0.0))
    with pytest.raises(ValueError, match="norm='group'"):
        ghost_norms(model, images.x[:5], images.y[:5])


class Tricky(nn.Module):
    """Two linear layers that are used in a way for which no formula holds."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way, self.a, self.b = way, nn.Linear(64, 64), nn.Linear(64, 64)
        if way == "shared":
            self.b.weight = self.a.weight

    def forward(self, x):
        seen = self.b(self.a(x.flatten(1)))
        if self.way == "twice":
            return self.a(seen)
        if self.way == "around":
            return seen + nn.functional.linear(x.flatten(1), self.a.weight)
        return seen


class Bypassed(nn.Module):
    """A linear layer that never runs, though its weights do."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 64)

    def forward(self, x):
        return nn.functional.linear(x.flatten(1), self.layer.weight, self.layer.bias)


@pytest.mark.parametrize(
    ("features", "words"),
    [
        (Tricky("twice"), "used by 2 layers in one pass"),
        (Tricky("shared"), "used by 2 layers in one pass"),
        (Bypassed(), "used by 0 layers in one pass"),
        (nn.Sequential(nn.Linear(8, 8), nn.Flatten()), "expected one vector an image"),
    ],
    ids=["twice", "shared", "bypassed", "many vectors"],
)
def test_lengths_that_would_be_wrong_are_refused(features, words):
    model, images, labels = Classifier(features, 64, 3), torch.rand(2, 1, 8, 8), torch.arange(2)
    for lengths_of in (ghost_norms, linear_norms):
        with pytest.raises(ValueError, match=words):
            lengths_of(model, images, labels)
    with pytest.raises(ValueError, match=words):
        layer_parts(model, images, labels)
    assert all(not layer._forward_hooks for layer in model.modules())


@pytest.mark.parametrize("way", ["twice", "shared", "around"])
def test_a_weight_that_escapes_the_bound_stops_the_training(way, images):
    small = Data(images.x[:60, :, 10:18, 10:18].contiguous(), images.y[:60], images.classes)
    model, shaping = Classifier(Tricky(way), 64, 10), gradient_shaping(1.0, 0.0, batch_size=20)
    with pytest.raises(ValueError, match=r"layers in one pass|outside of its layer"):
        train(model, small, Recipe(1, 20), defense=shaping)
    sound = Classifier(Tricky("none"), 64, 10)
    for _ in range(2):  # what is proven for one model says nothing of the next
        train(sound, small, Recipe(1, 20), defense=shaping)
    with pytest.raises(ValueError, match=r"layers in one pass|outside of its layer"):
        train(model, small, Recipe(1, 20), defense=shaping)


def test_proving_the_lengths_draws_nothing_from_the_training(images):
    model = build("mlp", images.shape, 10)
    model.features.append(nn.Dropout(0.5))
    shaping, random = gradient_shaping(1.0, 0.0, batch_size=5), torch.Generator().manual_seed(0)
    given = model.train(), images.x[:5], images.y[:5], random
    torch.manual_seed(0)
    first = shaping.gradients(*given)
    torch.manual_seed(0)
    again = shaping.gradients(*given)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize("batch_size", [20, 101])
def test_another_batch_size_than_the_recipe_has_is_refused(batch_size, images):
    with pytest.raises(TrainingError, match="is made for batches of 100"):
        shaping = gradient_shaping(1.0, 0.0, batch_size=100)
        train(build("mlp", images.shape, 10), images, Recipe(1, batch_size), defense=shaping)


def test_group_norm_on_vectors():
    features = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.GroupNorm(4, 16), nn.ReLU())
    model = Classifier(features, 16, 3).double()
    nn.init.normal_(model.features[2].weight)
    _, images, labels = problem("mlp", side=8)
    slow = per_example_norms(per_example_gradients(model, images, labels))
    torch.testing.assert_close(ghost_norms(model, images, labels), slow, rtol=1e-9, atol=0)


@pytest.mark.parametrize(
    ("features", "size"),
    [
        (nn.Sequential(nn.Flatten(), nn.LayerNorm(64)), 64),
        (nn.Sequential(nn.Conv2d(1, 4, 3, padding="same"), nn.Flatten()), 256),
        (nn.Sequential(nn.Conv2d(1, 4, 3, padding=1, padding_mode="circular"), nn.Flatten()), 256),
        (
            nn.Sequential(
                nn.Conv2d(1, 2, 1), nn.Conv2d(2, 4, 3, padding=1, groups=2), nn.Flatten()
            ),
            256,
        ),
    ],
    ids=["LayerNorm", "same", "circular", "groups"],
)
def test_layers_without_a_formula_are_refused(features, size):
    model = Classifier(features, size, 3)
    with pytest.raises(ValueError, match="No formula for"):
        ghost_norms(model, torch.rand(2, 1, 8, 8), torch.tensor([0, 1]))
    assert all(not layer._forward_hooks for layer in model.modules())


def test_a_layer_that_trains_in_part_is_refused():
    model = build("mlp", (1, 8, 8), 3)
    model.head.bias.requires_grad_(False)
    with pytest.raises(ValueError, match="as a whole"):
        ghost_norms(model, torch.rand(2, 1, 8, 8), torch.tensor([0, 1]))
