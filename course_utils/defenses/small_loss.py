"""Built in lesson 01, measuring poisoning.

Generated from notebooks/01_measuring_poisoning.ipynb: edit it there, then run make notebooks.
"""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from course_utils.data import Data
from course_utils.defense import Defense


def small_loss(share: float) -> Defense:
    """Drop the given share of the training images: those with the largest loss.

    A model is trained on all the data first, and its loss on each training image decides.
    """

    def keep(data: Data, fit) -> Tensor:
        model = fit(data)
        with torch.no_grad():
            loss = cross_entropy(model(data.x), data.y, reduction="none")
        return loss <= loss.quantile(1 - share)

    return Defense(f"drop {share:.0%}", keep=keep)
