"""The networks of lesson 05 written out, and the pull of poisons from gradients by hand."""

import copy

import pytest
import torch
from torch.nn.functional import batch_norm, conv2d, cross_entropy

from course_utils.cases.networks import networks, pull, small_resnet
from course_utils.models import Residual, build
from course_utils.threat import Poison, Targeted
from tests.reference.small import drawn, flat, noise_data


def test_the_small_resnet_is_three_halvings_and_two_blocks():
    model = small_resnet((2, 9, 10), 3).double().train()
    parameters = iter(list(model.parameters())[:-2])
    x = torch.rand(4, 2, 9, 10, generator=drawn(0), dtype=torch.float64)

    def convolved(x: torch.Tensor, stride: int = 1) -> torch.Tensor:
        """One convolution over zeros at the edges, normalised over the batch, cut at 0."""
        kernel, scale, shift = next(parameters), next(parameters), next(parameters)
        x = conv2d(x, kernel, stride=stride, padding=1)
        return batch_norm(x, None, None, scale, shift, training=True).clamp(min=0)

    out, channels = x, []
    for number in range(3):
        out = convolved(out, stride=2)
        channels.append(out.shape[1])
        if number < 2:
            out = out + convolved(convolved(out))
    assert channels == [16, 32, 64]
    torch.testing.assert_close(model.features(x), out.mean((2, 3)))
    assert next(parameters, None) is None and model.head.out_features == 3


def test_the_five_networks_are_those_of_their_names_and_the_same_at_each_call():
    made = networks((1, 12, 12), 4)
    expected = {
        "MLP": build("mlp", (1, 12, 12), 4),
        "LeNet": build("lenet", (1, 12, 12), 4),
        "small CNN, GroupNorm": build("small_cnn", (1, 12, 12), 4, norm="group"),
        "small CNN, BatchNorm": build("small_cnn", (1, 12, 12), 4, norm="batch"),
    }
    torch.manual_seed(5)
    before = torch.get_rng_state()
    again = networks((1, 12, 12), 4)
    assert torch.equal(torch.get_rng_state(), before)
    assert list(made) == list(again) == [*expected, "small ResNet, BatchNorm"]
    for name, model in again.items():
        other, weights = expected.get(name, made[name]).state_dict(), model.state_dict()
        assert list(other) == list(weights)
        assert all(torch.equal(other[key], value) for key, value in weights.items())
    residual = made["small ResNet, BatchNorm"].modules()
    assert sum(isinstance(layer, Residual) for layer in residual) == 2


def test_the_pull_is_that_of_gradients_taken_one_by_one():
    data = noise_data(7)
    model = build("mlp", data.shape, 3, seed=4, width=5).eval()
    poison = Poison(data.x, data.y, torch.arange(7))
    image = torch.rand(data.shape, generator=drawn(9))
    goal = Targeted(image, true_class=0, adversarial_class=2)

    def by_backward(images: torch.Tensor, labels: list[int]) -> torch.Tensor:
        one = copy.deepcopy(model).double()
        for x, label in zip(images, labels, strict=True):
            (cross_entropy(one(x[None].double()), torch.tensor([label])) / len(images)).backward()
        return flat(p.grad for p in one.parameters())

    found, wanted = by_backward(poison.images, data.y.tolist()), by_backward(image[None], [2])
    cosine = (found * wanted).sum() / (found.norm() * wanted.norm())
    made = pull(model, poison, goal)
    assert made.cosine == pytest.approx(cosine.item(), rel=1e-4)
    assert made.length == pytest.approx(found.norm().item(), rel=1e-5)
    assert made.wanted == pytest.approx(wanted.norm().item(), rel=1e-5)
    assert made.length != pytest.approx(made.wanted, rel=0.1)
