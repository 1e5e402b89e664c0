"""How long training takes with mixing: measured as ratios in one run, never asserted."""

import pytest

from course_utils.cases.mixing import DEFENSES
from course_utils.data import balanced, load
from course_utils.models import build
from course_utils.runtime import one_thread
from course_utils.training import Recipe, train


@pytest.fixture(scope="module")
def data():
    """3,000 images, as in the studies."""
    return balanced(load()[0], 3000, seed=0)


@pytest.mark.benchmark(group="training with mixing, MLP, 3 epochs")
@pytest.mark.parametrize("name", DEFENSES)
def test_training_of_an_mlp(benchmark, data, name):
    """One thread, as in every trial. Plain training is the row to compare with."""
    model = build("mlp", data.shape, 10)
    recipe = Recipe(epochs=3, batch_size=100)
    with one_thread():
        benchmark.pedantic(
            train, (model, data, recipe), {"defense": DEFENSES[name]}, rounds=5, warmup_rounds=1
        )
