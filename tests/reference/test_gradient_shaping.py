"""Gradient shaping, lesson 10: one example after the other, and another accountant."""

import pytest
import torch
from opacus.accountants import RDPAccountant
from torch.nn.functional import cross_entropy

from course_utils.defenses import gradient_shaping as taught
from course_utils.models import build
from tests.reference.small import drawn, flat, noise_data

DATA = noise_data(6, shape=(2, 8, 8))


@pytest.mark.parametrize("name", ["mlp", "small_cnn"])
@pytest.mark.parametrize(("noise", "batch_size"), [(0.0, 6), (0.7, 9)])
def test_the_shaped_gradient_one_example_after_the_other(name, noise, batch_size):
    model = build(name, DATA.shape, 3, seed=4)
    weights = list(model.parameters())
    rows = torch.stack(
        [
            flat(torch.autograd.grad(cross_entropy(model(x[None]), y[None]), weights))
            for x, y in zip(DATA.x, DATA.y, strict=True)
        ]
    )
    norms = rows.norm(dim=1)
    torch.testing.assert_close(taught.ghost_norms(model, DATA.x, DATA.y), norms)
    clip = norms.sort()[0][2:4].mean().item()
    expected = (rows * (clip / norms).clamp(max=1)[:, None]).sum(0)
    generator = drawn(5)
    if noise:
        draws = [torch.randn(p.shape, generator=generator) for p in weights]
        expected = expected + clip * noise * flat(draws)
    defense = taught.gradient_shaping(clip, noise, batch_size)
    found = flat(defense.gradients(model, DATA.x, DATA.y, drawn(5)))
    torch.testing.assert_close(found, expected / batch_size)
    assert defense.poisson


@pytest.mark.parametrize("clip", [0.1, 100.0])
def test_batch_shaping_clips_the_mean_gradient(clip):
    model = build("mlp", DATA.shape, 3, seed=4)
    weights = list(model.parameters())
    mean = flat(torch.autograd.grad(cross_entropy(model(DATA.x), DATA.y), weights))
    found = flat(taught.batch_shaping(clip, 0.0).gradients(model, DATA.x, DATA.y, drawn(1)))
    torch.testing.assert_close(found, mean * min(1, clip / mean.norm().item()))


def test_a_strided_convolution_has_the_lengths_of_its_examples():
    layer = torch.nn.Conv2d(2, 3, 3, stride=2, padding=1)
    for size in (4, 24):  # few places, then many: the two ways to the same sum
        x = torch.rand(4, 2, size, size, generator=drawn(1))
        weight = torch.rand(layer(x).shape, generator=drawn(2))
        expected = [
            flat(torch.autograd.grad((layer(x[[k]]) * weight[[k]]).sum(), list(layer.parameters())))
            for k in range(4)
        ]
        found = taught.convolution_squares(layer, x, weight).sqrt()
        torch.testing.assert_close(found, torch.stack(expected).norm(dim=1))


@pytest.mark.parametrize("delta", [1e-5, 1e-3, 0.2])
def test_epsilon_depends_on_every_argument_as_that_of_opacus(delta):
    for noise, rate, steps in ((1.0, 0.1, 40), (2.0, 0.1, 40), (1.0, 0.3, 40), (1.0, 0.1, 5)):
        accountant = RDPAccountant()
        accountant.history = [(noise, rate, steps)]
        expected = accountant.get_epsilon(delta, alphas=taught.NEAR_ONE + taught.WHOLE)
        assert taught.privacy_epsilon(noise, rate, steps, delta) == pytest.approx(expected)
