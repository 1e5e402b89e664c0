"""What the measurements of several lessons share."""

from collections.abc import Callable

import pytest

from course_utils.data import balanced, load
from course_utils.defense import Defense
from course_utils.models import build
from course_utils.runtime import one_thread
from course_utils.training import Recipe, train


@pytest.fixture
def time_training(benchmark) -> Callable[[Defense], None]:
    """Measures five epochs of an MLP on 3,000 images with a defense, in one thread."""

    def measure(defense: Defense) -> None:
        data = balanced(load()[0], 3000, seed=0)
        model = build("mlp", data.shape, 10)
        with one_thread():
            benchmark.pedantic(
                train,
                (model, data, Recipe(epochs=5)),
                {"defense": defense},
                rounds=3,
                warmup_rounds=1,
            )

    return measure
