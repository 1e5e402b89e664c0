"""The attacks of lesson 02: their budget, how much they hurt, and what they refuse.

Which rows and labels each function takes: tests/reference/test_label_flipping.py.
"""

import pytest
import torch
from torch import Tensor

from course_utils import statistics
from course_utils.attacks.label_flipping import (
    budget_for,
    random_flips,
    targeted_flips,
    worst_flips,
)
from course_utils.data import Data, DataError, balanced, load, only
from course_utils.defense import Defense
from course_utils.models import Classifier, build
from course_utils.threat import Indiscriminate, Poison, ThreatModel, ThreatModelError, accuracy
from course_utils.training import Recipe, train

GOAL = Indiscriminate()
RECIPE = Recipe(epochs=5, batch_size=50, lr=0.05)


@pytest.fixture(scope="module")
def pair() -> tuple[Data, Data]:
    """1,000 training and 400 test images of two classes."""
    train_all, test_all = (only(part, ["Dress", "Coat"]) for part in load())
    return balanced(train_all, 1000, seed=0), balanced(test_all, 400, seed=0)


@pytest.fixture(scope="module")
def surrogate(pair):
    """A linear model trained on the pair."""
    return train(build("logistic_regression", pair[0].shape, 2), pair[0], RECIPE, seed=10_000)


@pytest.fixture(scope="module")
def ten_surrogate(images):
    """A linear model trained on ten classes."""
    return train(build("logistic_regression", images.shape, 10), images, RECIPE, seed=10_000)


def every_attack(data: Data, threat: ThreatModel, surrogate) -> dict[str, Poison]:
    """One poison of each attack."""
    return {
        "random": random_flips(data, GOAL, threat, seed=0),
        "targeted": targeted_flips(data, GOAL, threat, seed=0, source=1, into=0),
        "worst": worst_flips([surrogate], data, GOAL, threat),
    }


@pytest.mark.parametrize("placement", ["append", "replace"])
@pytest.mark.parametrize("fraction", [0.01, 0.1])
def test_attacks_flip_labels_within_their_budget(images, ten_surrogate, placement, fraction):
    threat = ThreatModel(budget_for(images, fraction), placement=placement)
    for name, poison in every_attack(images, threat, ten_surrogate).items():
        poison.check(threat, images)
        assert len(poison) == len(poison.base.unique()) == round(fraction * len(images)), name
        assert (poison.labels != images.y[poison.base]).all(), name
        assert torch.equal(poison.images, images.x[poison.base]), name
        seen = poison.apply(images)
        assert len(seen) == len(images) + (len(poison) if placement == "append" else 0), name


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_random_flips_are_not_what_a_victim_of_the_same_seed_sees_first(images, seed):
    poison, batches = random_flips(images, GOAL, ThreatModel(30), seed), []

    def note(model: Classifier, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple:
        batches.append((x, y))
        return x, y

    model = build("logistic_regression", images.shape, 10)
    recipe, spy = Recipe(epochs=1, batch_size=30, lr=0.05), Defense("spy", batch=note)
    train(model, poison.apply(images), recipe, defense=spy, seed=seed)
    true = {image.numpy().tobytes(): label for image, label in zip(images.x, images.y, strict=True)}
    wrong = [
        sum(true[image.numpy().tobytes()] != label for image, label in zip(x, y, strict=True))
        for x, y in batches
    ]
    assert sum(wrong) == 30 and len(wrong) == 10
    assert wrong[0] < 10, "as many as elsewhere: three of thirty, and chance"


def test_worst_flips_beat_random_flips_and_appending_hurts_less(pair, surrogate):
    data, test = pair
    model = build("logistic_regression", data.shape, 2)
    found = {}
    for placement in ("append", "replace"):
        threat = ThreatModel(budget_for(data, 0.2), placement=placement)
        for name, poison in every_attack(data, threat, surrogate).items():
            found[name, placement] = accuracy(train(model, poison.apply(data), RECIPE), test)
    clean = accuracy(train(model, data, RECIPE), test)
    assert found["worst", "replace"] < found["random", "replace"] - 0.1
    assert found["worst", "replace"] < found["worst", "append"] - 0.05
    assert found["random", "append"] > clean - 0.04


def test_relative_accuracy_drop_is_a_share_of_the_clean_accuracy():
    clean, poisoned = torch.tensor([0.8, 0.5]).numpy(), torch.tensor([0.6, 0.6]).numpy()
    found = statistics.relative_accuracy_drop(clean, poisoned)
    assert found.tolist() == pytest.approx([0.25, -0.2])


@pytest.mark.parametrize("fraction", [-0.1, 0.0, 1.0, 40, float("nan")])
def test_a_fraction_outside_0_and_1_is_refused(images, fraction):
    with pytest.raises(ThreatModelError, match=r"expected a value in \(0, 1\)"):
        budget_for(images, fraction)


def test_a_tiny_fraction_is_one_image(images):
    assert budget_for(images, 1e-6) == 1


def test_a_single_class_is_refused(images, ten_surrogate):
    shirts, threat = images[images.y == 6], ThreatModel(budget=3)
    with pytest.raises(ThreatModelError, match="fewer than two classes"):
        random_flips(shirts, GOAL, threat, seed=0)
    with pytest.raises(ThreatModelError, match="fewer than two classes"):
        targeted_flips(shirts, GOAL, threat, seed=0, source=6, into=0)
    with pytest.raises(ThreatModelError, match="fewer than two classes"):
        worst_flips([ten_surrogate], shirts, GOAL, threat)
    with pytest.raises(ThreatModelError, match="fewer than two classes"):
        random_flips(only(images, ["Shirt"]), GOAL, threat, seed=0)


@pytest.mark.parametrize("placement", ["append", "replace"])
def test_a_budget_beyond_the_candidates_is_refused(images, ten_surrogate, placement):
    threat = ThreatModel(budget=301, placement=placement)
    with pytest.raises(ThreatModelError, match="only 300 images"):
        random_flips(images, GOAL, threat, seed=0)
    with pytest.raises(ThreatModelError, match="only 300 images"):
        worst_flips([ten_surrogate], images, GOAL, threat)
    with pytest.raises(ThreatModelError, match="only 30 images"):
        targeted_flips(images, GOAL, ThreatModel(31), seed=0, source=0, into=1)


@pytest.mark.parametrize(("source", "into"), [(3, 3), (-1, 2), (0, 10)])
def test_impossible_class_pairs_are_refused(images, source, into):
    with pytest.raises(ThreatModelError, match="choose two different classes"):
        targeted_flips(images, GOAL, ThreatModel(3), seed=0, source=source, into=into)


def test_a_clean_label_threat_model_is_refused(images):
    with pytest.raises(ThreatModelError, match="clean_label"):
        random_flips(images, GOAL, ThreatModel(3, clean_label=True), seed=0)


def test_worst_flips_need_sound_surrogates_and_pixels(images, ten_surrogate):
    with pytest.raises(ThreatModelError, match="No surrogate"):
        worst_flips([], images, GOAL, ThreatModel(3))
    broken = build("logistic_regression", images.shape, 10)
    torch.nn.init.constant_(broken.head.bias, torch.nan)
    with pytest.raises(ThreatModelError, match=r"NaN or infinity in head\.bias"):
        worst_flips([ten_surrogate, broken], images, GOAL, ThreatModel(3))
    pixels = images.x.clone()
    pixels[5, 0, 3, 3] = torch.nan
    with pytest.raises(DataError, match="image 5 has the pixel value nan"):
        Data(pixels, images.y, images.classes)
