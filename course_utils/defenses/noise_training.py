"""Built in lesson 13, adversarial training.

Generated from notebooks/13_adversarial_training.ipynb: edit it there, then run make notebooks.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from course_utils.attacks.crafting import project, random_start
from course_utils.defense import Defense
from course_utils.guards import check_epsilon
from course_utils.models import Classifier


def random_signs(images: Tensor, epsilon: float, generator: torch.Generator) -> Tensor:
    """Every pixel of images (N, C, H, W) moved up or down by `epsilon`, by the flip of a coin.

    The result lies in [0, 1]. generator: on the device of the images, which stay as they are.
    """
    signs = torch.randint(2, images.shape, generator=generator, device=images.device) * 2 - 1
    return project(images + epsilon * signs, images, epsilon)


def noise_training(name: str, add: Callable, epsilon: float) -> Defense:
    """Train on images to which `add(images, epsilon, generator)` has added noise."""
    check_epsilon(epsilon)

    def batch(
        model: Classifier, x: Tensor, y: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        return add(x, epsilon, generator), y

    return Defense(name, batch=batch)


def sign_noise(epsilon: float) -> Defense:
    """Train on images whose pixels are moved up or down by `epsilon` (in pixel values) at random.

    Raises ThreatModelError for an epsilon outside (0, 1].
    Source: the 'bernoulli' baseline of Geiping and others (arXiv 2102.13624), released code.
    """
    return noise_training("sign noise", random_signs, epsilon)


def gaussian_noise(epsilon: float) -> Defense:
    """Train on images with Gaussian noise of deviation `epsilon`, cut to the bound `epsilon`.

    Raises ThreatModelError for an epsilon outside (0, 1].
    Source: the 'random' baseline of Geiping and others (arXiv 2102.13624), released code.
    """
    return noise_training("Gaussian noise", random_start, epsilon)
