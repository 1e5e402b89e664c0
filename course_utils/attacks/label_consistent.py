"""Built in lesson 07, backdoors.

Generated from notebooks/07_backdoors.ipynb: edit it there, then run make notebooks.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from course_utils import guards
from course_utils.attacks.patch_backdoors import clean_label_patch
from course_utils.attacks.pgd import pgd
from course_utils.data import Data
from course_utils.models import Classifier
from course_utils.threat import Backdoor, Poison, ThreatModel, triggered


def label_consistent(
    surrogates: Sequence[Classifier],
    data: Data,
    goal: Backdoor,
    threat: ThreatModel,
    seed: int,
    *,
    epsilon: float,
    steps: int = 20,
) -> Poison:
    """Make images of the target class hard for the surrogates, then put the trigger on them; the
    labels stay. It uses the whole budget, on the same images as `clean_label_patch`. epsilon
    bounds the change before the trigger. Source: Turner, Tsipras and Madry, arXiv 1912.02771."""
    guards.check_models(surrogates, data)
    poison = clean_label_patch(data, goal, threat, seed)

    def average(images: Tensor) -> Tensor:
        return torch.stack([surrogate(images) for surrogate in surrogates]).mean(0)

    base = data.x[poison.base]
    generator = torch.Generator(base.device).manual_seed(seed)
    hard = pgd(average, base, poison.labels, epsilon, steps, generator)
    guards.check_loss(cross_entropy(average(hard), poison.labels).item())
    return replace(poison, images=triggered(goal.trigger, hard))
