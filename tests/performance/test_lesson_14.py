"""How long poisoning training takes: measured and reported, never asserted."""

import pytest

from course_utils.defense import PLAIN
from course_utils.defenses.adversarial_poisoning import (
    adversarial_poisoning,
    collision_simulation,
    matching_simulation,
    patch_simulation,
)

BOUND = 64 / 255
DEFENSES = {
    "plain": PLAIN,
    "matching, 5 steps (the paper's)": adversarial_poisoning(matching_simulation(BOUND)),
    "matching, 2 steps, head only": adversarial_poisoning(matching_simulation(BOUND, 2, last=2)),
    "collision, 5 steps": adversarial_poisoning(collision_simulation(BOUND)),
    "patches": adversarial_poisoning(patch_simulation()),
}


@pytest.mark.benchmark(group="poisoning training, MLP, 3,000 images, 5 epochs")
@pytest.mark.parametrize("name", DEFENSES)
def test_training(time_training, name):
    """The ratios to plain training are what the defense costs."""
    time_training(DEFENSES[name])
