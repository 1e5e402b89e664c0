"""Built in lesson 05, gradient matching.

Generated from notebooks/05_gradient_matching.ipynb: edit it there, then run make notebooks.
"""

from typing import NamedTuple

import torch
from torch import nn

from course_utils.attacks.gradient_matching import dot, length, target_gradient
from course_utils.models import Classifier, Residual, build, norm_layer
from course_utils.threat import Poison, Targeted


def small_resnet(shape: tuple[int, int, int], n_classes: int) -> Classifier:
    """Three convolutions of stride 2 (16, 32, 64 channels), two residual blocks between them,
    BatchNorm everywhere, then global average pooling."""

    def convolution(n_in: int, n_out: int, stride: int = 1) -> nn.Sequential:
        layer = nn.Conv2d(n_in, n_out, 3, stride, padding=1, bias=False)
        return nn.Sequential(layer, norm_layer("batch", n_out), nn.ReLU())

    features = nn.Sequential(
        convolution(shape[0], 16, stride=2),
        Residual(convolution(16, 16), convolution(16, 16)),
        convolution(16, 32, stride=2),
        Residual(convolution(32, 32), convolution(32, 32)),
        convolution(32, 64, stride=2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    return Classifier(features, 64, n_classes)


def networks(shape: tuple[int, int, int], n_classes: int) -> dict[str, Classifier]:
    """Five networks for small images: without convolutions, without and with normalisation."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        residual = small_resnet(shape, n_classes)
    return {
        "MLP": build("mlp", shape, n_classes),
        "LeNet": build("lenet", shape, n_classes),
        "small CNN, GroupNorm": build("small_cnn", shape, n_classes),
        "small CNN, BatchNorm": build("small_cnn", shape, n_classes, norm="batch"),
        "small ResNet, BatchNorm": residual,
    }


class Pull(NamedTuple):
    """How the poisons pull at a model: see `pull`."""

    cosine: float
    length: float
    wanted: float


def pull(model: Classifier, poison: Poison, goal: Targeted) -> Pull:
    """The cosine of the poisons' gradient with the wanted one, and the lengths of the two."""
    label = torch.tensor([goal.adversarial_class], device=goal.image.device)
    found = target_gradient(model, poison.images, poison.labels)
    wanted = target_gradient(model, goal.image[None], label)
    cosine = (dot(found, wanted) / (length(found) * length(wanted))).item()
    return Pull(cosine, length(found).item(), length(wanted).item())
