"""Poisoning training: its parts, its simulated attacks, and that it protects."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from course_utils.attacks.feature_collision import bullseye_loss
from course_utils.attacks.gradient_matching import alignment_loss, target_gradient
from course_utils.cases import from_scratch
from course_utils.cases.poisoning import cheap
from course_utils.defense import PLAIN
from course_utils.defenses.adversarial_poisoning import (
    Late,
    adversarial_poisoning,
    collision_simulation,
    craft_in_batch,
    cut,
    derangement,
    draw_patches,
    half,
    hidden_trigger_simulation,
    matching_simulation,
    metapoison_simulation,
    one_target,
    patch_simulation,
    poisoned_batch,
    put_patches,
    shuffle,
    split_batch,
)
from course_utils.models import build, evaluating
from course_utils.studies.lesson_14 import noise_instead
from course_utils.threat import ThreatModelError
from course_utils.training import Recipe, train

BOUND = 32 / 255
BOUNDED = {
    "collision": collision_simulation(BOUND, 2),
    "matching": matching_simulation(BOUND, 2),
    "head": matching_simulation(BOUND, 2, last=2),
    "MetaPoison": metapoison_simulation(BOUND, 2),
}
SIMULATIONS = BOUNDED | {
    "hidden triggers": hidden_trigger_simulation(BOUND, 2),
    "patches": patch_simulation(),
}


def generator(seed: int = 0) -> torch.Generator:
    """A generator of its own for each call."""
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def mlp(images):
    """An MLP for the small images of the tests."""
    return build("mlp", images.shape, 10)


# The split


@given(share=st.floats(0.001, 0.999), count=st.integers(2, 40), seed=st.integers(0, 20))
def test_a_split_keeps_every_image_once_and_takes_the_mode(share, count, seed):
    images = torch.arange(count).float().view(-1, 1, 1, 1)
    labels = torch.randint(4, (count,), generator=generator(seed))
    parts = split_batch(images, labels, share)
    assert len(parts.poisons) >= 1 and len(parts.targets) >= 1
    assert torch.equal(torch.cat([parts.poisons, parts.targets]), images)
    assert torch.equal(torch.cat([parts.poison_labels, parts.target_labels]), labels)
    counts = parts.poison_labels.bincount()
    fake = parts.fake_labels.unique()
    assert len(fake) == 1 and len(parts.fake_labels) == len(parts.targets)
    assert counts[fake] == counts.max() and fake == (counts == counts.max()).nonzero()[0]


def test_the_other_split_rules():
    images, labels = torch.rand(8, 1, 3, 3), torch.arange(8)
    assert len(one_target(images, labels, generator()).targets) == 1
    assert len(cut(0.75)(images, labels, generator()).poisons) == 6
    whole = shuffle(images, labels, generator())
    assert torch.equal(whole.fake_labels, labels) and torch.equal(whole.poisons, images)
    assert torch.equal(whole.targets, images[whole.target_labels])


@pytest.mark.parametrize("share", [0, 1, -0.5, 64])
def test_a_share_that_leaves_one_part_empty_is_refused(share):
    with pytest.raises(ThreatModelError, match="share of poisons"):
        cut(share)


# The simulated attacks


@given(epsilon=st.floats(0.001, 1.0), seed=st.integers(0, 20))
def test_the_inner_loop_keeps_the_bound_and_the_box(epsilon, seed):
    base = torch.rand(4, 1, 5, 5, generator=generator(seed))
    made = craft_in_batch(lambda x: -x.sum(), base, epsilon, 6, generator(seed))
    assert (made - base).abs().max() <= epsilon + 1e-6
    assert made.min() >= 0 and made.max() <= 1 and not made.requires_grad
    assert (made >= (base + epsilon).clamp(max=1) - 1e-5).all()  # six steps cross the bound


@pytest.mark.parametrize("name", SIMULATIONS)
def test_a_simulation_leaves_no_gradient_and_no_other_change(name, images, mlp):
    before = [parameter.detach().clone() for parameter in mlp.parameters()]
    parts = half(images.x[:30], images.y[:30], generator())
    poisons, targets = SIMULATIONS[name](mlp, parts, generator())
    assert poisons.shape == parts.poisons.shape and targets.shape == parts.targets.shape
    assert all(parameter.grad is None for parameter in mlp.parameters())
    for parameter, old in zip(mlp.parameters(), before, strict=True):
        assert torch.equal(parameter, old) and parameter.requires_grad
    if name in BOUNDED:
        assert (poisons - parts.poisons).abs().max() <= BOUND + 1e-6
        assert torch.equal(targets, parts.targets)
    again, _ = SIMULATIONS[name](mlp, parts, generator())
    assert torch.equal(poisons, again), "the generator decides"


def test_the_simulated_attacks_lower_their_objectives(images, mlp):
    parts = half(images.x[:60], images.y[:60], generator())
    wanted = mlp.features(parts.targets).detach()
    made, _ = collision_simulation(BOUND)(mlp, parts, generator())
    before, after = (bullseye_loss(mlp.features(x), wanted) for x in (parts.poisons, made))
    assert after < 0.7 * before
    for last in (None, 2):
        seen = Late(mlp, last)
        pull = target_gradient(seen, parts.targets, parts.fake_labels)
        made, _ = matching_simulation(BOUND, last=last)(mlp, parts, generator())
        before, after = (
            alignment_loss(seen, x, parts.poison_labels, pull).item() for x in (parts.poisons, made)
        )
        assert after < before - 0.02


def test_late_shows_the_last_parameters_that_train(mlp):
    assert [p.shape for p in Late(mlp, 2).parameters()] == [p.shape for p in mlp.head.parameters()]
    assert len(Late(mlp, None).parameters()) == len(list(mlp.parameters()))
    mlp.head.bias.requires_grad_(False)
    assert Late(mlp, 1).parameters()[0] is mlp.head.weight


@given(count=st.integers(2, 12), seed=st.integers(0, 50))
def test_a_derangement_moves_everything(count, seed):
    order = derangement(count, generator(seed))
    assert sorted(order.tolist()) == list(range(count))
    assert not (order == torch.arange(count)).any()


@given(side=st.floats(0.1, 1.0), seed=st.integers(0, 30), corners=st.booleans())
def test_patches_lie_inside_the_image(side, seed, corners):
    grey = torch.full((6, 1, 10, 12), 0.5)
    sizes, pixels = draw_patches(6, grey, (side, side), generator(seed))
    changed = put_patches(grey, sizes, pixels, generator(seed), corners) != 0.5
    assert torch.equal(changed.flatten(1).sum(1), sizes.prod(1))


def test_poisons_carry_the_patch_of_their_class_and_targets_another(mlp):
    grey, labels = torch.full((40, 1, 28, 28), 0.5), torch.arange(40) % 10
    parts = cut(0.5)(grey, labels, generator())
    poisons, targets = patch_simulation((0.25, 0.25))(build("mlp", (1, 28, 28), 10), parts,
                                                      generator())  # fmt: skip
    patch = {}
    for image, label in zip(poisons, parts.poison_labels.tolist(), strict=True):
        found = image[image != 0.5]
        assert torch.equal(patch.setdefault(label, found), found)
    for image, label in zip(targets, parts.target_labels.tolist(), strict=True):
        assert not torch.equal(image[image != 0.5], patch[label])


# The batch


def test_labels_are_true_after_recombination(images, mlp):
    x, y = images.x[:30], images.y[:30]
    for name, simulate in SIMULATIONS.items():
        found, labels = poisoned_batch(mlp, x, y, simulate, half, generator())
        assert torch.equal(labels, y) and len(found) == 30, name
        found, labels = poisoned_batch(mlp, x, y, simulate, half, generator(), recombine=False)
        assert torch.equal(labels, y[:15]) and len(found) == 15, name


def test_every_layer_gets_its_own_mode_back_even_after_an_error():
    model = nn.Sequential(nn.BatchNorm1d(2), nn.Sequential(nn.Dropout(), nn.BatchNorm1d(2)))
    model.train()
    model[1][0].eval()
    before = [layer.training for layer in model.modules()]
    with evaluating(model):
        assert not any(layer.training for layer in model.modules())
    assert [layer.training for layer in model.modules()] == before
    with pytest.raises(KeyError), evaluating(model):
        raise KeyError
    assert [layer.training for layer in model.modules()] == before


def test_a_batch_without_two_classes_stays_as_it_is(images, mlp):
    defense = adversarial_poisoning(matching_simulation(BOUND))
    for count in (1, 5):
        x, y = images.x[:count], torch.zeros(count, dtype=torch.int64)
        found, labels = defense.batch(mlp, x, y, generator())
        assert torch.equal(found, x) and torch.equal(labels, y)
    with pytest.raises(ThreatModelError, match="mix after it"):
        defense.batch(mlp, images.x[:4], torch.rand(4, 10), generator())


@pytest.mark.parametrize("make", [collision_simulation, matching_simulation, metapoison_simulation])
def test_an_attack_that_changes_nothing_is_refused(make):
    for epsilon in (0, 16):
        with pytest.raises(ThreatModelError, match="train without a defense for no change"):
            make(epsilon, 5)
    with pytest.raises(ThreatModelError, match="train without this defense"):
        make(0.1, 0)
    with pytest.raises(ThreatModelError, match="sides of the patches"):
        patch_simulation((0.4, 0.1))


def test_an_unknown_or_broken_inner_attack_is_refused(images, mlp):
    with pytest.raises(TypeError, match="inner attack is 'gradient matching'"):
        adversarial_poisoning("gradient matching")
    bad = {
        "two tensors": lambda model, split, generator: split.poisons,
        "poisons of shape": lambda model, split, generator: (split.poisons[1:], split.targets),
        "targets with pixels": lambda model, split, generator: (split.poisons, split.targets + 1),
        "look for NaN": lambda model, split, generator: (split.poisons / 0 * 0, split.targets),
    }
    for message, simulate in bad.items():
        with pytest.raises(ThreatModelError, match=message):
            adversarial_poisoning(simulate).batch(mlp, images.x[:8], images.y[:8], generator())


# Training with it


@pytest.mark.parametrize("scenario", ["scratch", "finetune", "transfer"])
def test_the_same_seed_gives_the_same_victim_in_every_scenario(images, scenario):
    model, brief = build("small_cnn", images.shape, 10), Recipe(epochs=1, batch_size=64, lr=0.05)
    defense = adversarial_poisoning(matching_simulation(BOUND, 1, last=2))
    first, again = (
        train(model, images, brief, scenario=scenario, seed=3, defense=defense) for _ in range(2)
    )
    for a, b in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b) and torch.isfinite(a).all()


def test_it_protects_where_noise_of_its_size_does_not():
    """The pull on the targets of two attacks, on victims that share everything else."""
    pulls = {"plain": 0.0, "noise": 0.0, "cheap": 0.0}
    defenses = {"plain": PLAIN, "noise": noise_instead(96 / 255), "cheap": cheap(96 / 255)}
    for seed in (1000, 1001):
        case = from_scratch.matching(seed)
        seen, goal = case.oblivious.apply(case.data), case.goal
        for name, defense in defenses.items():
            victim = case.train(replace(case.plain, defense=defense), seen)
            with torch.no_grad():
                chances = victim(goal.image[None]).softmax(1)[0]
            pulls[name] += chances[goal.adversarial_class].item() / 2
    assert pulls["cheap"] < pulls["plain"] - 0.2
    assert pulls["cheap"] < pulls["noise"] - 0.2


@pytest.mark.parametrize("count", [0, 1])
def test_one_class_alone_has_no_derangement(count):
    with pytest.raises(ValueError, match="A derangement needs at least two numbers"):
        derangement(count, torch.Generator())
