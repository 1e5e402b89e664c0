"""How long feature collision takes, in one thread: measured and reported, never asserted."""

import pytest

from course_utils.attacks.crafting import signed_adam
from course_utils.attacks.feature_collision import (
    bullseye_loss,
    collision_loss,
    convex_polytope_loss,
    feature_collision,
    surrogate_loss,
)
from course_utils.cases.transfer import HEAD, draw_transfer
from course_utils.runtime import one_thread
from course_utils.threat import ThreatModel
from course_utils.training import train

LOSSES = (collision_loss, convex_polytope_loss, bullseye_loss)


@pytest.fixture(scope="module")
def draw():
    """One trial of transfer learning."""
    with one_thread():
        return draw_transfer(1071)


@pytest.mark.benchmark(group="feature collision, one step over 25 poisons")
@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.__name__)
def test_one_step(benchmark, draw, loss):
    """Loss, gradient, signed Adam and projection; the Bullseye step is the last."""
    rows = (draw.data.y == draw.goal.adversarial_class).nonzero()[:25, 0]
    base = draw.data.x[rows]
    objective = surrogate_loss([draw.extractor], draw.goal, loss)
    with one_thread():
        benchmark.pedantic(
            signed_adam,
            (objective, base, base, 32 / 255),
            {"steps": 1, "lr": 0.03},
            rounds=100,
            warmup_rounds=5,
        )


@pytest.mark.benchmark(group="feature collision, 25 poisons and a victim")
@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.__name__)
def test_whole_crafting(benchmark, draw, loss):
    """100 steps and the choice of the bases."""
    threat = ThreatModel(25, 32 / 255, clean_label=True)
    arguments = ([draw.extractor], draw.data, draw.goal, threat, 0)
    with one_thread():
        benchmark.pedantic(feature_collision, arguments, {"loss": loss}, rounds=5, warmup_rounds=1)


@pytest.mark.benchmark(group="feature collision, 25 poisons and a victim")
def test_victim(benchmark, draw):
    """A new head on the frozen features, beside the craftings."""
    with one_thread():
        benchmark.pedantic(
            train,
            (draw.extractor, draw.data, HEAD),
            {"scenario": "transfer"},
            rounds=5,
            warmup_rounds=1,
        )
