"""How long it takes to look at gradients: measured and reported, never asserted."""

import pytest

from course_utils.attacks.gradient_matching import gradient_norms
from course_utils.attacks.patch_backdoors import badnets
from course_utils.attacks.triggers import solid_patch
from course_utils.data import balanced, load
from course_utils.defense import PLAIN
from course_utils.defenses.gradient_anatomy import Plan, anatomy, specimen
from course_utils.defenses.per_example import (
    linear_norms,
    per_example_gradients,
    per_example_norms,
)
from course_utils.models import build
from course_utils.runtime import one_thread
from course_utils.threat import Backdoor, ThreatModel
from course_utils.training import Recipe, train


@pytest.fixture(scope="module")
def scene():
    """3,000 images, 30 of them poisons, and an MLP that has trained on the others."""
    train_all, test = load()
    data = balanced(train_all, 3000, seed=0)
    model = build("mlp", data.shape, 10)
    poison = badnets(data, Backdoor(solid_patch(4), 7), ThreatModel(30), seed=0)
    return data, train(model, data, Recipe(epochs=5)), specimen(poison, data, test)


WAYS = {
    "loop": gradient_norms,
    "vmap": lambda *batch: per_example_norms(per_example_gradients(*batch)),
    "formula": linear_norms,
}


@pytest.mark.benchmark(group="lengths of 100 gradients, MLP")
@pytest.mark.parametrize("way", WAYS)
def test_lengths_of_a_batch(benchmark, scene, way):
    """The formula never writes a gradient of an example into memory."""
    data, model, _ = scene
    with one_thread():
        benchmark.pedantic(
            WAYS[way], (model, data.x[:100], data.y[:100]), rounds=10, warmup_rounds=1
        )


@pytest.mark.benchmark(group="three epochs, MLP")
@pytest.mark.parametrize("way", ["plain", "looked at in one epoch", "looked at in all epochs"])
def test_training_that_is_looked_at(benchmark, scene, way):
    """Looking costs a few backward passes in each batch that is looked at."""
    _, model, what = scene
    epochs = {"plain": (), "looked at in one epoch": (1,), "looked at in all epochs": (1, 2, 3)}[
        way
    ]
    defense = PLAIN if way == "plain" else anatomy(what, [], 100, Plan(epochs, every=1))

    def run():
        return train(model, what.seen, Recipe(epochs=3), defense=defense)

    with one_thread():
        benchmark.pedantic(run, rounds=3)
