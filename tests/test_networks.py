"""The five networks of lesson 05: they take the images of the course, and each one can learn."""

import pytest
import torch

from course_utils.cases.networks import networks, pull
from course_utils.data import Data
from course_utils.threat import Poison, Targeted, accuracy
from course_utils.training import Recipe, train

NAMES = list(networks((1, 8, 8), 2))


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32)])
def test_each_network_gives_a_logit_for_each_class(shape):
    for model in networks(shape, 7).values():
        assert model(torch.zeros(2, *shape)).shape == (2, 7)


@pytest.fixture(scope="module")
def halves() -> Data:
    """Noise that is brighter on the left in one class, and on the right in the other."""
    y = torch.arange(80) % 2
    x = torch.rand(80, 1, 12, 12, generator=torch.Generator().manual_seed(0)) / 2
    x[y == 0, :, :, :6] += 0.5
    x[y == 1, :, :, 6:] += 0.5
    return Data(x, y, ("left", "right"))


@pytest.mark.parametrize("name", NAMES)
def test_each_network_learns(name, halves):
    model = networks(halves.shape, 2)[name]
    victim = train(model, halves, Recipe(epochs=6, batch_size=20, lr=0.05), seed=1)
    assert accuracy(victim, halves) > 0.95


@pytest.mark.parametrize("name", NAMES)
def test_the_target_under_its_adversarial_label_pulls_exactly_as_wanted(name, halves):
    model = networks(halves.shape, 2)[name].eval()
    goal = Targeted(halves.x[0], true_class=0, adversarial_class=1)
    copies = Poison(halves.x[:1].repeat(3, 1, 1, 1), torch.ones(3, dtype=torch.int64),
                    torch.arange(3))  # fmt: skip
    found = pull(model, copies, goal)
    assert found.cosine == pytest.approx(1, abs=1e-4)
    assert found.length == pytest.approx(found.wanted, rel=1e-4)
    away = pull(model, Poison(copies.images, copies.labels * 0, copies.base), goal)
    assert away.cosine < 0
