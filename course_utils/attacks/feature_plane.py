"""Built in lesson 04, feature collision.

Generated from notebooks/04_feature_collision.ipynb: edit it there, then run make notebooks.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from course_utils.data import Data
from course_utils.models import Classifier
from course_utils.threat import Targeted


@torch.no_grad()
def feature_plane(model: Classifier, data: Data, goal: Targeted) -> Callable[[Tensor], Tensor]:
    """A function from images (N, C, H, W) to their places (N, 2) in a plane of feature space.

    The first axis joins the centroids of the adversarial and the true class in the data; the
    second is the first principal component of the two classes at right angles to it.
    Source: Geiping and others (arXiv 2102.13624), figures and released code.
    """
    adversarial, true = (
        model.features(data.x[data.y == k]) for k in (goal.adversarial_class, goal.true_class)
    )
    axis = nn.functional.normalize(true.mean(0) - adversarial.mean(0), dim=0)
    both = torch.cat([adversarial, true])
    centred = both - both.mean(0)
    rest = centred - (centred @ axis)[:, None] * axis
    second = torch.linalg.svd(rest, full_matrices=False).Vh[0]
    plane = torch.stack([axis, second], dim=1)

    @torch.no_grad()
    def place(images: Tensor) -> Tensor:
        return model.features(images) @ plane

    return place
