"""Every attack of lessons 00 to 07 refuses what would make it return noise or less than it says."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from course_utils.attacks.feature_collision import (
    bullseye_loss,
    collision_loss,
    convex_polytope_loss,
    feature_collision,
    poison_frogs,
    watermark,
)
from course_utils.attacks.first_backdoor import plant_backdoor, stamp
from course_utils.attacks.gradient_matching import gradient_matching
from course_utils.attacks.label_consistent import label_consistent
from course_utils.attacks.label_flipping import worst_flips
from course_utils.attacks.metapoison import metapoison
from course_utils.attacks.neighbour_flips import flip_neighbours, flip_random
from course_utils.attacks.patch_backdoors import badnets, clean_label_patch
from course_utils.attacks.slab import corner_images
from course_utils.data import Data, only
from course_utils.defenses.pgd_training import pgd_training
from course_utils.models import Classifier, build, predict
from course_utils.threat import Backdoor, Indiscriminate, Targeted, ThreatModel, ThreatModelError
from course_utils.training import Recipe, train

THREAT = ThreatModel(3, epsilon=32 / 255, clean_label=True)
STAMPED = Backdoor(stamp, 7)
POLYTOPES = {
    loss.__name__: partial(feature_collision, loss=loss)
    for loss in (collision_loss, convex_polytope_loss, bullseye_loss)
}
CRAFTED = {
    "poison_frogs": poison_frogs,
    **POLYTOPES,
    "gradient_matching": gradient_matching,
    "metapoison": metapoison,
}


def consistent(models: list[Classifier], data: Data, goal: Targeted, threat: ThreatModel, seed=0):
    return label_consistent(models, data, STAMPED, ThreatModel(3), seed, epsilon=0.1, steps=2)


def flips(models: list[Classifier], data: Data, goal: Targeted, threat: ThreatModel, seed=0):
    return worst_flips(models, data, Indiscriminate(), ThreatModel(3))


ALL = {"watermark": watermark, **CRAFTED, "label_consistent": consistent, "worst_flips": flips}


@pytest.fixture
def surrogate(images) -> Classifier:
    """A network with BatchNorm that has learnt something."""
    model = build("small_cnn", images.shape, 10, norm="batch")
    return train(model, images, Recipe(epochs=1, batch_size=50, lr=0.05), seed=1)


@pytest.fixture
def goal(surrogate, images) -> Targeted:
    seen_as = predict(surrogate, images.x[:1]).item()
    return Targeted(images.x[0], seen_as, (seen_as + 1) % 10)


@pytest.mark.parametrize("bad", [{"steps": 0}, {"steps": -5}])
@pytest.mark.parametrize("name", CRAFTED)
def test_crafting_that_changes_nothing_is_refused(images, surrogate, goal, name, bad):
    with pytest.raises(ThreatModelError, match="would leave the start as it is"):
        CRAFTED[name]([surrogate], images, goal, THREAT, 0, **bad)


@pytest.mark.parametrize("lr", [0.0, -0.1, float("nan")])
@pytest.mark.parametrize("name", [*POLYTOPES, "gradient_matching"])
def test_a_step_of_no_length_is_refused(images, surrogate, goal, name, lr):
    with pytest.raises(ThreatModelError, match="would leave the start as it is"):
        CRAFTED[name]([surrogate], images, goal, THREAT, 0, steps=1, lr=lr)


@pytest.mark.parametrize("name", ALL)
def test_a_surrogate_of_nan_is_refused(images, surrogate, goal, name):
    with torch.no_grad():
        surrogate.head.weight[0] = torch.nan
    with pytest.raises(ThreatModelError, match=r"NaN or infinity in head\.weight"):
        ALL[name]([surrogate], images, goal, THREAT, 0)


@pytest.mark.parametrize("name", ALL)
def test_a_surrogate_in_training_mode_is_refused_and_left_alone(images, surrogate, goal, name):
    surrogate.train()
    before = {key: value.clone() for key, value in surrogate.state_dict().items()}
    with pytest.raises(ThreatModelError, match=r"call surrogate\.eval\(\)"):
        ALL[name]([surrogate], images, goal, THREAT, 0)
    assert all(torch.equal(value, before[key]) for key, value in surrogate.state_dict().items())


@pytest.mark.parametrize("name", ["poison_frogs", *POLYTOPES])
def test_a_loss_that_is_no_number_is_refused(images, surrogate, goal, name):
    with torch.no_grad():  # finite weights, but all features are 0: a distance is a share of 0
        for weight in surrogate.features.parameters():
            weight.zero_()
        surrogate.head.bias[goal.true_class] = 100
    with pytest.raises(ThreatModelError, match="The loss of crafting is"):
        CRAFTED[name]([surrogate], images, goal, THREAT, 0, steps=2)


def relabellings() -> dict[str, Callable]:
    shirt = Targeted(torch.zeros(1, 28, 28), 6, 0)
    return {
        "plant_backdoor": lambda data, threat: plant_backdoor(data, STAMPED, threat, 0),
        "badnets": lambda data, threat: badnets(data, STAMPED, threat, 0),
        "flip_neighbours": lambda data, threat: flip_neighbours(data, shirt, threat),
        "flip_random": lambda data, threat: flip_random(data, shirt, threat, 0),
    }


CANDIDATES = {"plant_backdoor": 270, "badnets": 270, "flip_neighbours": 30, "flip_random": 30}


@pytest.mark.parametrize("name", CANDIDATES)
def test_attacks_on_labels_keep_to_the_threat_model_or_refuse(images, name):
    attack, most = relabellings()[name], CANDIDATES[name]
    with pytest.raises(ThreatModelError, match=f"only {most} images can be poisoned"):
        attack(images, ThreatModel(most + 1))
    with pytest.raises(ThreatModelError, match="changes labels, but the threat model says"):
        attack(images, ThreatModel(2, clean_label=True))
    for placement in ("append", "replace"):
        threat = ThreatModel(most, placement=placement)
        poison = attack(images, threat)
        poison.check(threat, images)
        assert len(poison) == most and poison.placement == placement


def test_corner_images_that_the_data_cannot_count_are_refused(images):
    pair = only(images, ["Dress", "Coat"])
    model = build("logistic_regression", pair.shape, 2)
    with pytest.raises(ThreatModelError, match="only 60 images can be poisoned"):
        corner_images(pair, ThreatModel(10**9, placement="append"), model)


def halves(images: Tensor) -> Tensor:
    return images[: len(images) // 2]


def doubles(images: Tensor) -> Tensor:
    return images + 1


@pytest.mark.parametrize("trigger", [halves, doubles])
@pytest.mark.parametrize("attack", [plant_backdoor, badnets, clean_label_patch])
def test_a_trigger_that_spoils_the_images_is_refused(images, attack, trigger):
    with pytest.raises(ThreatModelError, match="trigger"):
        attack(images, Backdoor(trigger, 7), ThreatModel(4), 0)


def test_label_consistent_refuses_a_trigger_that_spoils_the_images(images, surrogate):
    goal, calls = Backdoor(lambda x: x if not calls.append(0) and len(calls) < 2 else x + 1, 7), []
    with pytest.raises(ThreatModelError, match="An image with the trigger has the pixel value"):
        label_consistent([surrogate], images, goal, ThreatModel(4), 0, epsilon=0.1, steps=1)


def test_the_inner_attack_of_pgd_training_does_not_move_batch_norm(images):
    model = build("small_cnn", images.shape, 10, norm="batch")
    recipe = Recipe(epochs=1, batch_size=100, lr=0.05)
    victim = train(model, images, recipe, defense=pgd_training(0.1, steps=5))
    counts = [v.item() for k, v in victim.state_dict().items() if k.endswith("batches_tracked")]
    assert counts and set(counts) == {3}
