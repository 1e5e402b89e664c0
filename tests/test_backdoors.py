"""The backdoors of lesson 07: triggers pixel by pixel, poisons, PGD, and what they refuse."""

import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from course_utils.attacks.first_backdoor import plant_backdoor, stamp
from course_utils.attacks.label_consistent import label_consistent
from course_utils.attacks.label_flipping import budget_for
from course_utils.attacks.patch_backdoors import badnets, clean_label_patch
from course_utils.attacks.pgd import pgd, pgd_step
from course_utils.attacks.triggers import (
    CORNERS,
    apply_trigger,
    bernoulli_patch,
    blended_pattern,
    solid_patch,
)
from course_utils.cases.backdoors import AUGMENTED
from course_utils.data import Data, balanced, load
from course_utils.defenses.pgd_training import pgd_training
from course_utils.models import build, predict
from course_utils.threat import Backdoor, ThreatModel, ThreatModelError, accuracy
from course_utils.training import Recipe, train

RECIPE = Recipe(epochs=10, batch_size=50, lr=0.05)
EPSILON = 32 / 255
TRIGGERS = {
    "solid": solid_patch(4),
    "grey": solid_patch(3, value=0.4, corner="top left"),
    "bernoulli": bernoulli_patch(5, seed=1, corner="top right"),
    "wandering": solid_patch(4, corner="random", seed=2),
    "blended": blended_pattern(0.2, seed=3),
}
each_trigger = pytest.mark.parametrize("trigger", TRIGGERS.values(), ids=TRIGGERS)


@pytest.fixture(scope="module")
def thousand() -> tuple[Data, Data]:
    """1,000 training and 500 test images."""
    train_all, test_all = load()
    return balanced(train_all, 1000, seed=0), balanced(test_all, 500, seed=0)


@pytest.fixture(scope="module")
def surrogate(thousand):
    """An MLP trained on them."""
    return train(build("mlp", thousand[0].shape, 10), thousand[0], RECIPE, seed=10_000)


# Triggers


@each_trigger
@pytest.mark.parametrize("channels", [1, 3])
def test_a_trigger_keeps_shape_box_and_originals(images, trigger, channels):
    x = images.x.repeat(1, channels, 1, 1)
    before = x.clone()
    stamped = trigger(x)
    assert stamped.shape == x.shape and stamped.dtype == x.dtype
    assert stamped.min() >= 0 and stamped.max() <= 1
    assert torch.equal(x, before) and not torch.equal(stamped, x)


@each_trigger
def test_a_trigger_is_deterministic_and_survives_pickling(images, trigger):
    copy = pickle.loads(pickle.dumps(trigger))
    state = torch.random.get_rng_state()
    first = trigger(images.x)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(first, trigger(images.x)) and torch.equal(first, copy(images.x))


def test_the_white_patch_is_the_stamp_of_lesson_00(images):
    assert torch.equal(solid_patch(4)(images.x), stamp(images.x))


@pytest.mark.parametrize("side", [1, 4, 7, 10, 14])
@pytest.mark.parametrize("corner", CORNERS)
def test_a_patch_is_exact_to_the_pixel(images, side, corner):
    x = images.x[:20]
    patch = torch.randint(2, (side, side), generator=torch.Generator().manual_seed(9)).float()
    top = 1 if "top" in corner else 27 - side
    left = 1 if "left" in corner else 27 - side
    inside = torch.zeros(28, 28, dtype=torch.bool)
    inside[top : top + side, left : left + side] = True
    for trigger, expected in (
        (solid_patch(side, value=0.3, corner=corner), torch.full((side, side), 0.3)),
        (bernoulli_patch(side, seed=9, corner=corner), patch),
    ):
        stamped = trigger(x)
        assert torch.equal(stamped[:, :, ~inside], x[:, :, ~inside])
        square = stamped[:, 0, top : top + side, left : left + side]
        assert torch.equal(square, expected.expand_as(square))


def test_a_random_corner_reaches_every_corner_and_follows_its_seed():
    x = torch.zeros(400, 1, 28, 28)
    stamped = solid_patch(4, corner="random", seed=5)(x)
    fixed = [solid_patch(4, corner=corner)(x[:1])[0] for corner in CORNERS]
    counts = [sum(torch.equal(image, one) for image in stamped) for one in fixed]
    assert sum(counts) == 400 and min(counts) > 60
    assert not torch.equal(stamped, solid_patch(4, corner="random", seed=6)(x))
    assert torch.equal(stamped[:100], solid_patch(4, corner="random", seed=5)(x[:100]))


def test_bernoulli_patches_differ_by_seed_and_are_black_and_white():
    x = torch.full((1, 1, 28, 28), 0.5)
    first, other = bernoulli_patch(14, seed=0)(x), bernoulli_patch(14, seed=1)(x)
    assert not torch.equal(first, other)
    values, counts = first[0, 0, 13:27, 13:27].unique(return_counts=True)
    assert values.tolist() == [0, 1] and counts.min() > 60


def test_a_blended_pattern_changes_at_most_its_strength(images):
    stamped = blended_pattern(0.2, seed=0)(images.x)
    assert (stamped - images.x).abs().max() <= 0.2 + 1e-6
    black, white = torch.zeros(1, 1, 28, 28), torch.ones(1, 1, 28, 28)
    trigger = blended_pattern(1.0, seed=0)
    assert torch.equal(trigger(black), trigger(white))  # strength 1: nothing of the image is left
    assert torch.equal(blended_pattern(0.0, seed=0)(images.x), images.x)


@given(st.floats(0, 1, width=32), st.floats(0, 1, width=32), st.floats(0, 1, width=32))
def test_the_formula_stays_in_the_box_and_between_image_and_pattern(x, m, p):
    image, mask, pattern = torch.full((1, 1, 1, 1), x), torch.tensor([[m]]), torch.tensor([[p]])
    found = apply_trigger(image, mask, pattern).item()
    assert 0 <= found <= 1 and min(x, p) - 1e-6 <= found <= max(x, p) + 1e-6


@pytest.mark.parametrize("side", [27, 28, 30])
def test_a_patch_larger_than_the_image_is_refused(images, side):
    for trigger in (solid_patch(side), bernoulli_patch(side, seed=0)):
        with pytest.raises(
            ValueError, match="does not fit into images of 28 by 28: use at"
        ) as refused:
            trigger(images.x)
        assert refused.type is ValueError, "the kind that every bad patch is refused with"
    assert solid_patch(26)(images.x).shape == images.x.shape


@pytest.mark.parametrize("value", [-0.1, 1.5, 255, float("nan")])
def test_a_trigger_outside_the_box_is_refused(value):
    with pytest.raises(ValueError, match=r"expected a value in \[0, 1\]"):
        solid_patch(4, value=value)
    with pytest.raises(ValueError, match=r"expected a value in \[0, 1\]"):
        blended_pattern(value, seed=0)


@pytest.mark.parametrize("side", [0, -3, 2.5])
def test_a_side_that_is_no_positive_whole_number_is_refused(side):
    for make in (solid_patch, lambda side: bernoulli_patch(side, seed=0)):
        with pytest.raises(ValueError, match=r"side of the patch is .*, expected a whole number"):
            make(side)


def test_an_unknown_corner_is_refused(images):
    with pytest.raises(ValueError, match="Unknown corner 'middle'") as refused:
        solid_patch(4, corner="middle")(images.x)
    assert refused.type is ValueError, "the kind that every bad patch is refused with"


# Poisons


def test_badnets_all_to_one_is_the_attack_of_lesson_00(images):
    goal, threat = Backdoor(stamp, 7), ThreatModel(budget=20)
    found, first = (attack(images, goal, threat, 3) for attack in (badnets, plant_backdoor))
    assert torch.equal(found.images, first.images) and torch.equal(found.base, first.base)
    assert torch.equal(found.labels, first.labels)


@pytest.mark.parametrize("placement", ["replace", "append"])
@pytest.mark.parametrize("source", [None, 4])
def test_badnets_keeps_its_promises(images, source, placement):
    goal, threat = Backdoor(solid_patch(4), 7, source), ThreatModel(25, placement=placement)
    poison = badnets(images, goal, threat, seed=0)
    poison.check(threat, images)
    assert len(poison) == len(poison.base.unique()) == 25
    assert (poison.labels == 7).all()
    from_classes = set(images.y[poison.base].tolist())
    assert from_classes == {4} if source == 4 else len(from_classes) > 4 and 7 not in from_classes
    assert torch.equal(poison.images, goal.trigger(images.x[poison.base]))
    again, other = (badnets(images, goal, threat, seed) for seed in (0, 1))
    assert torch.equal(again.base, poison.base) and not torch.equal(other.base, poison.base)


def test_clean_label_poisons_come_from_the_target_class(images, surrogate):
    goal, threat = Backdoor(solid_patch(7), 2), ThreatModel(10, clean_label=True)
    patched = clean_label_patch(images, goal, threat, seed=0)
    hard = label_consistent([surrogate], images, goal, threat, seed=0, epsilon=EPSILON)
    for poison in (patched, hard):
        poison.check(threat, images)
        assert (images.y[poison.base] == 2).all() and (poison.labels == 2).all()
    assert torch.equal(patched.base, hard.base)
    assert torch.equal(patched.images, goal.trigger(images.x[patched.base]))


def test_label_consistent_keeps_its_bound_beside_the_trigger(images, surrogate):
    goal, threat = Backdoor(solid_patch(7), 2), ThreatModel(10, clean_label=True)
    hard = label_consistent([surrogate], images, goal, threat, seed=0, epsilon=EPSILON)
    change = (hard.images - images.x[hard.base]).abs()
    inside = torch.zeros(28, 28, dtype=torch.bool)
    inside[20:27, 20:27] = True
    assert (hard.images[:, :, inside] == 1).all()
    assert change[:, :, ~inside].max() <= EPSILON + 1e-6
    assert change[:, :, ~inside].max() > EPSILON / 2
    assert (predict(surrogate, hard.images) == 2).float().mean() < 0.5


# PGD


def test_pgd_stays_in_its_bounds_and_fools_the_model(thousand, surrogate):
    data, generator = thousand[0][:200], torch.Generator().manual_seed(0)
    before, left = data.x.clone(), [p.grad.clone() for p in surrogate.parameters()]
    moved = pgd(surrogate, data.x, data.y, EPSILON, 20, generator)
    assert torch.equal(data.x, before) and not moved.requires_grad
    assert (moved - data.x).abs().max() <= EPSILON + 1e-6
    assert moved.min() >= 0 and moved.max() <= 1
    noise = data.x + EPSILON * (2 * torch.rand(data.x.shape, generator=generator) - 1)
    assert (predict(surrogate, moved) == data.y).float().mean() < 0.1
    assert (predict(surrogate, noise.clamp(0, 1)) == data.y).float().mean() > 0.7
    assert all(torch.equal(p.grad, g) for p, g in zip(surrogate.parameters(), left, strict=True))


def test_a_pgd_step_raises_the_loss_of_a_linear_model():
    model = build("logistic_regression", (1, 4, 4), 3)
    images, labels = torch.full((5, 1, 4, 4), 0.5).requires_grad_(), torch.arange(5) % 3
    loss = torch.nn.functional.cross_entropy(model(images), labels, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, images)
    moved = pgd_step(images.detach(), gradient, images.detach(), step=0.01, epsilon=0.1)
    after = torch.nn.functional.cross_entropy(model(moved), labels, reduction="sum")
    expected = 0.01 * gradient.abs().sum()
    assert (after - loss).item() == pytest.approx(expected.item(), rel=0.1)


@pytest.mark.parametrize("epsilon", [0, -0.1, 8])
def test_pgd_with_a_senseless_bound_is_refused(images, surrogate, epsilon):
    with pytest.raises(ThreatModelError, match=r"epsilon is .*, expected a value in \(0, 1\]"):
        pgd(surrogate, images.x, images.y, epsilon, 5, torch.Generator())


def test_pgd_without_a_step_is_refused(images, surrogate):
    with pytest.raises(
        ValueError, match="number of steps is 0, expected a whole number, 1 or more"
    ):
        pgd(surrogate, images.x, images.y, 0.1, 0, torch.Generator())


def test_pgd_training_makes_a_model_harder_to_fool(thousand, surrogate):
    data, test = thousand
    defense = pgd_training(EPSILON, steps=3)
    robust = train(build("mlp", data.shape, 10), data, RECIPE, seed=10_000, defense=defense)
    right = {}
    for name, model in (("plain", surrogate), ("robust", robust)):
        moved = pgd(model, test.x, test.y, EPSILON, 10, torch.Generator().manual_seed(0))
        right[name] = (predict(model, moved) == test.y).float().mean().item()
    assert right["robust"] > right["plain"] + 0.2
    assert accuracy(robust, test) < accuracy(surrogate, test)


# What they do to a victim


def test_badnets_opens_a_backdoor_and_one_to_one_opens_it_for_its_class(thousand):
    data, test = thousand
    model = build("mlp", data.shape, 10)
    trigger, threat = solid_patch(5), ThreatModel(budget=30)
    clean = train(model, data, RECIPE)
    for source in (None, 1):
        goal = Backdoor(trigger, 7, source)
        victim = train(model, badnets(data, goal, threat, seed=0).apply(data), RECIPE)
        measured, before = goal.measure(victim, test), goal.measure(clean, test)
        assert measured["asr"] > 0.6 > 0.1 > before["asr"]
        assert measured["accuracy"] > before["accuracy"] - 0.05


def test_harder_images_make_the_clean_label_patch_work_better(thousand, surrogate):
    data, test = thousand
    goal, threat = Backdoor(solid_patch(7), 2), ThreatModel(20, clean_label=True)
    model = build("mlp", data.shape, 10)
    patched = clean_label_patch(data, goal, threat, seed=0)
    hard = label_consistent([surrogate], data, goal, threat, seed=0, epsilon=EPSILON)
    rates = [
        goal.measure(train(model, poison.apply(data), RECIPE), test)["asr"]
        for poison in (patched, hard)
    ]
    assert rates[1] > rates[0] + 0.05


def test_the_trigger_survives_training_with_augmentation(thousand):
    data, test = thousand
    goal = Backdoor(solid_patch(5), 7)
    poison = badnets(data, goal, ThreatModel(budget=150), seed=0)
    victim = train(
        build("mlp", data.shape, 10), poison.apply(data), RECIPE, defense=AUGMENTED, seed=0
    )
    assert goal.measure(victim, test)["asr"] > 0.6


# The denominator


class Constant(torch.nn.Module):
    """A model that puts every image into one class."""

    def __init__(self, label: int) -> None:
        super().__init__()
        self.label = label

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.eye(10)[self.label].expand(len(x), 10)


class Corner(torch.nn.Module):
    """A model that finds class 7 where the corner is white, and class 0 elsewhere."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        white = x[:, 0, 26, 26] == 1
        return torch.eye(10)[torch.where(white, 7, 0)]


def test_the_rate_does_not_depend_on_how_many_images_of_the_target_class_there_are(held_out):
    x = held_out.x.clone()
    x[:, :, 26, 26] = 0.0
    half = torch.rand(len(x), generator=torch.Generator().manual_seed(0)) < 0.5
    data = Data(x, held_out.y, held_out.classes)

    def half_stamped(images: torch.Tensor) -> torch.Tensor:
        stamped = images.clone()
        stamped[half[: len(images)], :, 26, 26] = 1.0
        return stamped

    others = data[data.y != 7]
    rate = Backdoor(half_stamped, 7).measure(Corner(), others)["asr"]
    assert rate == pytest.approx(half[: len(others)].float().mean().item())
    for copies in (0, 1, 50):
        targets = data[data.y == 7]
        y = torch.cat([others.y, targets.y.repeat(copies)])
        mixed = Data(torch.cat([others.x, targets.x.repeat(copies, 1, 1, 1)]), y, data.classes)
        assert Backdoor(half_stamped, 7).measure(Corner(), mixed)["asr"] == pytest.approx(rate)


def test_a_model_that_knows_only_the_target_class_gets_no_success(held_out):
    goal = Backdoor(solid_patch(4), 7)
    assert goal.measure(Constant(7), held_out)["asr"] == 1
    assert goal.measure(Constant(3), held_out)["asr"] == 0
    with pytest.raises(ThreatModelError, match="no image on which the trigger could be tried"):
        goal.measure(Constant(7), held_out[held_out.y == 7])


def test_one_to_one_counts_the_source_class_only(held_out):
    goal = Backdoor(solid_patch(4), 7, source_class=2)
    seen = []

    class Watching(Constant):
        def forward(self, x):
            seen.append(len(x))
            return super().forward(x)

    goal.measure(Watching(7), held_out)
    assert seen[0] == (held_out.y == 2).sum()


# Bad input


def test_equal_source_and_target_class_are_refused():
    with pytest.raises(ThreatModelError, match="Source and target class are both 7"):
        Backdoor(solid_patch(4), 7, source_class=7)


def test_a_budget_with_no_poison_is_refused(images):
    with pytest.raises(ThreatModelError, match="makes no sense"):
        ThreatModel(budget=0)
    with pytest.raises(ThreatModelError, match=r"expected a value in \(0, 1\)"):
        budget_for(images, 0.0)


def test_a_budget_larger_than_the_classes_allow_is_refused(images, surrogate):
    with pytest.raises(ThreatModelError, match="only 30 images can be poisoned"):
        badnets(images, Backdoor(stamp, 7, source_class=1), ThreatModel(31), seed=0)
    goal, threat = Backdoor(stamp, 7), ThreatModel(31, clean_label=True)
    with pytest.raises(ThreatModelError, match="has 30 images of class Sneaker"):
        clean_label_patch(images, goal, threat, seed=0)
    with pytest.raises(ThreatModelError, match="has 30 images of class Sneaker"):
        label_consistent([surrogate], images, goal, threat, seed=0, epsilon=EPSILON)


def test_attacks_refuse_what_they_cannot_keep(images):
    goal, threat = Backdoor(stamp, 7), ThreatModel(10, clean_label=True)
    with pytest.raises(ThreatModelError, match="changes labels, but the threat model"):
        badnets(images, goal, threat, seed=0)
    with pytest.raises(ThreatModelError, match="No surrogate"):
        label_consistent([], images, goal, threat, seed=0, epsilon=EPSILON)
