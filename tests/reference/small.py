"""Small data and models for the tests of single functions: nothing here is trained."""

import torch
from torch import Tensor

from course_utils.data import Data
from course_utils.models import Classifier, build, predict
from course_utils.threat import Targeted

CLASSES = ("ant", "bee", "cat")


def drawn(seed: int) -> torch.Generator:
    """A generator of its own."""
    return torch.Generator().manual_seed(seed)


def noise_data(n: int = 30, shape: tuple[int, int, int] = (1, 6, 5), seed: int = 3) -> Data:
    """Random images of three classes in turn."""
    return Data(torch.rand(n, *shape, generator=drawn(seed)), torch.arange(n) % 3, CLASSES)


def models(data: Data, *seeds: int, width: int = 8) -> list[Classifier]:
    """Untrained MLPs with these seeds."""
    n_classes = len(data.classes)
    return [build("mlp", data.shape, n_classes, seed=seed, width=width).eval() for seed in seeds]


def goal_for(surrogates: list[Classifier], data: Data) -> Targeted:
    """A target that the first surrogate does not give to the adversarial class."""
    image = torch.rand(data.shape, generator=drawn(99))
    wanted = (predict(surrogates[0], image[None]).item() + 1) % len(data.classes)
    return Targeted(image, (wanted + 1) % len(data.classes), wanted)


def flat(parts) -> Tensor:
    """All tensors in one row."""
    return torch.cat([part.flatten() for part in parts])
