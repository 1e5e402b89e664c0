"""Built in lesson 01, measuring poisoning.

Generated from notebooks/01_measuring_poisoning.ipynb: edit it there, then run make notebooks.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from course_utils.data import Data
from course_utils.defense import Defense


@torch.no_grad()
def image_losses(model: nn.Module, data: Data) -> Tensor:
    """The loss of each image (N,) under a model, 5,000 at a time to save memory."""
    parts = zip(data.x.split(5000), data.y.split(5000), strict=True)
    return torch.cat([cross_entropy(model(x), y, reduction="none") for x, y in parts])


def small_loss(share: float) -> Defense:
    """Drop the given share of the training images: those with the largest loss.

    A model is trained on all the data first, and its loss on each training image decides.
    """

    def keep(data: Data, fit) -> Tensor:
        loss = image_losses(fit(data), data)
        return loss <= loss.quantile(1 - share)

    return Defense(f"drop {share:.0%}", keep=keep)
