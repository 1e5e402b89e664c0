"""Built in lesson 07, backdoors.

Generated from notebooks/07_backdoors.ipynb: edit it there, then run make notebooks.
"""

import torch
from torch import Tensor

from course_utils.attacks.pgd import pgd
from course_utils.defense import Defense
from course_utils.models import Classifier


def pgd_training(epsilon: float, steps: int) -> Defense:
    """Train on images that PGD has changed against the model as it is at that step."""

    def batch(
        model: Classifier, x: Tensor, y: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        model.eval()  # PGD meets the model as a user does; train() sets the mode of its own step
        return pgd(model, x, y, epsilon, steps, generator), y

    return Defense("PGD training", batch=batch)
