"""PGD training, lesson 07: the batch that it makes."""

import torch

from course_utils.attacks.pgd import pgd
from course_utils.defenses.pgd_training import pgd_training
from course_utils.models import build
from tests.reference.small import drawn, noise_data


def test_a_batch_is_that_of_pgd_against_the_model_in_evaluation_mode():
    data = noise_data(9, (1, 8, 8))
    for epsilon, steps in ((0.1, 1), (0.05, 4)):
        model = build("small_cnn", data.shape, 3, seed=4, norm="batch")
        expected = pgd(model.eval(), data.x, data.y, epsilon, steps, drawn(3))
        before = model.features[1].running_mean.clone()
        x, y = pgd_training(epsilon, steps).batch(model.train(), data.x, data.y, drawn(3))
        assert torch.equal(x, expected) and torch.equal(y, data.y)
        assert torch.equal(model.features[1].running_mean, before)
