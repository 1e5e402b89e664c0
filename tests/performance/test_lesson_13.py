"""How long adversarial training takes: measured and reported, never asserted."""

import pytest

from course_utils.defense import PLAIN
from course_utils.defenses.noise_training import gaussian_noise, sign_noise
from course_utils.defenses.pgd_training import pgd_training

BOUND = 16 / 255
DEFENSES = {
    "plain": PLAIN,
    "sign noise": sign_noise(BOUND),
    "Gaussian noise": gaussian_noise(BOUND),
    "PGD, 1 step": pgd_training(BOUND, 1),
    "PGD, 3 steps": pgd_training(BOUND, 3),
    "PGD, 5 steps": pgd_training(BOUND, 5),
}


@pytest.mark.benchmark(group="adversarial training, MLP, 3,000 images, 5 epochs")
@pytest.mark.parametrize("name", DEFENSES)
def test_training(time_training, name):
    """The ratios to plain training are what the defense costs."""
    time_training(DEFENSES[name])
