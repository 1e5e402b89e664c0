"""The victims and surrogates of the course.

Every model is a `Classifier`: a feature extractor and a linear head. Transfer learning freezes the
one and refits the other; feature collision works on what lies between them.
"""

import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Literal

import torch
import torchvision
from torch import Tensor, nn

Norm = Literal["group", "batch"]


class Classifier(nn.Module):
    """A feature extractor followed by a linear head.

    Input: images (N, C, H, W), values in [0, 1]. Output: logits (N, number of classes).
    """

    def __init__(self, features: nn.Module, feature_size: int, n_classes: int) -> None:
        super().__init__()
        self.features = features
        self.head = nn.Linear(feature_size, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


def logistic_regression(shape: tuple[int, int, int], n_classes: int) -> Classifier:
    """Multinomial logistic regression on the pixels; with two classes, two logits."""
    channels, height, width = shape
    return Classifier(nn.Flatten(), channels * height * width, n_classes)


def mlp(shape: tuple[int, int, int], n_classes: int, width: int = 256) -> Classifier:
    """Two hidden layers of `width` units with ReLU."""
    channels, height, width_in_pixels = shape
    features = nn.Sequential(
        nn.Flatten(),
        nn.Linear(channels * height * width_in_pixels, width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
    )
    return Classifier(features, width, n_classes)


def lenet(shape: tuple[int, int, int], n_classes: int) -> Classifier:
    """Two convolutions of stride 2 (16, 32 channels) and a linear layer of 128 units with ReLU.

    Of the kind of LeNet (LeCun and others, 1998): no normalisation and no pooling. Raises
    ValueError for images of fewer than 4 x 4 pixels.
    """
    channels, height, width = shape
    if min(height, width) < 4:
        raise ValueError(
            f"Images of shape {shape} are too small for two convolutions of stride 2: give at "
            "least 4 x 4 pixels, or take the MLP."
        )
    rows, columns = (-(-side // 4) for side in (height, width))  # halved twice, rounded up
    features = nn.Sequential(
        nn.Conv2d(channels, 16, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * rows * columns, 128),
        nn.ReLU(),
    )
    return Classifier(features, 128, n_classes)


def small_cnn(shape: tuple[int, int, int], n_classes: int, norm: Norm = "group") -> Classifier:
    """Three convolutions (16, 32, 64 channels), each normalised, then global average pooling.

    GroupNorm by default: BatchNorm mixes the images of a batch, so that the gradient of one
    example alone is not defined with it. Raises ValueError for images of fewer than 4 x 4 pixels.
    """
    if min(shape[1:]) < 4:
        raise ValueError(
            f"Images of shape {shape} are too small for three convolutions with pooling: give at "
            "least 4 x 4 pixels, or take the MLP."
        )
    sizes = (shape[0], 16, 32, 64)
    layers: list[nn.Module] = []
    for position, (n_in, n_out) in enumerate(pairwise(sizes)):
        layers += [nn.Conv2d(n_in, n_out, 3, padding=1), norm_layer(norm, n_out), nn.ReLU()]
        layers.append(nn.MaxPool2d(2) if position < 2 else nn.AdaptiveAvgPool2d(1))
    return Classifier(nn.Sequential(*layers, nn.Flatten()), sizes[-1], n_classes)


def resnet18(shape: tuple[int, int, int], n_classes: int, norm: Norm = "batch") -> Classifier:
    """torchvision's ResNet-18 with a stem for small images (3x3, stride 1, no max pooling)."""
    network = torchvision.models.resnet18(norm_layer=lambda size: norm_layer(norm, size))
    network.conv1 = nn.Conv2d(shape[0], 64, 3, stride=1, padding=1, bias=False)
    network.maxpool = nn.Identity()
    feature_size = network.fc.in_features
    network.fc = nn.Identity()
    return Classifier(network, feature_size, n_classes)


class Residual(nn.Module):
    """Layers whose output is added to their input, which has the same shape."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


def resnet9(shape: tuple[int, int, int], n_classes: int, norm: Norm = "batch") -> Classifier:
    """Eight convolutions (64 to 512 channels), two residual blocks, then global average pooling.

    Of the kind with which D. Page trained CIFAR-10 in the shortest time (DAWNBench, 2018): a
    network that is wide early and shallow keeps a GPU busy.
    """

    def convolution(n_in: int, n_out: int) -> nn.Sequential:
        layer = nn.Conv2d(n_in, n_out, 3, padding=1, bias=False)
        return nn.Sequential(layer, norm_layer(norm, n_out), nn.ReLU())

    def halved() -> nn.Module:
        return nn.MaxPool2d(2, ceil_mode=True)  # a side of one pixel stays

    features = nn.Sequential(
        convolution(shape[0], 64),
        convolution(64, 128),
        halved(),
        Residual(convolution(128, 128), convolution(128, 128)),
        convolution(128, 256),
        halved(),
        convolution(256, 512),
        halved(),
        Residual(convolution(512, 512), convolution(512, 512)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    return Classifier(features, 512, n_classes)


def norm_layer(norm: Norm, channels: int) -> nn.Module:
    """GroupNorm with eight groups, or BatchNorm."""
    if norm == "group":
        return nn.GroupNorm(8, channels)
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    raise ValueError(f"Unknown normalisation {norm!r}: use 'group' or 'batch'.")


MODELS: dict[str, Callable[..., Classifier]] = {
    "logistic_regression": logistic_regression,
    "mlp": mlp,
    "lenet": lenet,
    "small_cnn": small_cnn,
    "resnet18": resnet18,
    "resnet9": resnet9,
}


def build(
    name: str, shape: tuple[int, int, int], n_classes: int, seed: int = 0, **options
) -> Classifier:
    """A freshly initialised model, the same for the same seed; the global seed stays untouched.

    Raises ValueError for an unknown name, for a shape that is not (C, H, W) and for fewer than
    two classes.
    """
    if name not in MODELS:
        raise ValueError(f"Unknown model {name!r}: choose one of {', '.join(MODELS)}.")
    if len(shape) != 3:
        raise ValueError(f"The image shape must be (C, H, W), got {tuple(shape)}: use data.shape.")
    if n_classes < 2:
        raise ValueError(f"A classifier needs at least 2 classes, got {n_classes}.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(operator.index(seed))
        return MODELS[name](tuple(shape), n_classes, **options)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside the block; every layer gets its mode back, even after an error."""
    modes = [(layer, layer.training) for layer in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for layer, training in modes:
            layer.training = training


@torch.no_grad()
def predict(model: nn.Module, x: Tensor, batch_size: int = 1000) -> Tensor:
    """The predicted class (N,) of each image (N, C, H, W), in evaluation mode.

    Every layer is left in the mode in which it came: frozen features stay frozen.
    Raises ValueError if a logit is not a number: the largest of them would be class 0.
    """
    with evaluating(model):
        logits = torch.cat([model(part) for part in x.split(batch_size)])
    if logits.isnan().any():
        image = logits.isnan().any(1).nonzero()[0].item()
        raise ValueError(
            f"The model's logits for image {image} of {len(x)} are not numbers (NaN): look for NaN "
            "or infinity in this image, in the weights and in the running statistics."
        )
    return logits.argmax(1)
