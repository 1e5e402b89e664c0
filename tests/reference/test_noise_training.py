"""Noise training, lesson 13: signs of their own for each pixel, and the two kinds of noise."""

import pytest
import torch

from course_utils.attacks.crafting import random_start
from course_utils.defenses.noise_training import gaussian_noise, random_signs, sign_noise
from tests.reference.small import drawn


def test_signs_by_hand():
    images = torch.rand(40, 2, 6, 5, generator=drawn(1))
    signs = torch.randint(2, images.shape, generator=drawn(3)) * 2.0 - 1
    expected = (images + 0.1 * signs).clamp(0, 1)
    torch.testing.assert_close(random_signs(images, 0.1, drawn(3)), expected)
    grey = torch.full((40, 2, 6, 5), 0.5)
    change = random_signs(grey, 0.1, drawn(4)) - 0.5
    assert change.abs().flatten().tolist() == pytest.approx([0.1] * 2400, abs=1e-6)
    for axis in range(4):  # no axis shares its signs
        assert (change.sign().mean(axis).abs() < 1).any()


def test_a_batch_has_the_noise_of_its_kind():
    images, labels = torch.rand(9, 1, 6, 5, generator=drawn(1)), torch.arange(9)
    for make, add in ((sign_noise, random_signs), (gaussian_noise, random_start)):
        for epsilon in (0.1, 0.02):
            x, y = make(epsilon).batch(None, images, labels, drawn(5))
            assert torch.equal(x, add(images, epsilon, drawn(5))) and torch.equal(y, labels)
