"""Built in lesson 00, start here.

Generated from notebooks/00_start_here.ipynb: edit it there, then run make notebooks.
"""

import torch
from torch import Tensor

from course_utils.data import Data
from course_utils.guards import check_relabelling
from course_utils.threat import Backdoor, Poison, ThreatModel, triggered


def stamp(images: Tensor, size: int = 4) -> Tensor:
    """Put a white square of `size` by `size` pixels on images (N, C, H, W), values in [0, 1].

    The square sits in the bottom right corner, one pixel away from both edges. The images that
    came in stay as they are; a stamped copy is returned.
    """
    stamped = images.clone()
    stamped[:, :, -size - 1 : -1, -size - 1 : -1] = 1.0
    return stamped


def plant_backdoor(data: Data, goal: Backdoor, threat: ThreatModel, seed: int) -> Poison:
    """Stamp random images of other classes and label them as the target class.

    Source: BadNets (Gu, Dolan-Gavitt and Garg, arXiv 1708.06733). The labels are changed, so this
    is a dirty-label attack. It uses the whole budget of the threat model.
    """
    others = (data.y != goal.target_class).nonzero()[:, 0]
    check_relabelling(threat, len(others))
    generator = torch.Generator().manual_seed(seed)
    base = others[torch.randperm(len(others), generator=generator)[: threat.budget]]
    labels = torch.full_like(base, goal.target_class)
    return Poison(triggered(goal.trigger, data.x[base]), labels, base, threat.placement)
