"""Built in lesson 07, backdoors.

Generated from notebooks/07_backdoors.ipynb: edit it there, then run make notebooks.
"""

from dataclasses import replace

import torch

from course_utils.attacks import first_backdoor
from course_utils.attacks.crafting import candidates
from course_utils.data import Data
from course_utils.threat import Backdoor, Poison, ThreatModel, ThreatModelError


def badnets(data: Data, goal: Backdoor, threat: ThreatModel, seed: int) -> Poison:
    """BadNets, dirty label: patched images of the source class, or of all classes but the target.

    It uses the whole budget and takes no image twice.
    Source: Gu, Dolan-Gavitt and Garg, arXiv 1708.06733.
    """
    if threat.clean_label:
        raise ThreatModelError("BadNets changes labels, but the threat model says clean_label.")
    if goal.source_class is None:
        rows = (data.y != goal.target_class).nonzero()[:, 0]
    else:
        rows = (data.y == goal.source_class).nonzero()[:, 0]
    if len(rows) < threat.budget:
        raise ThreatModelError(
            f"The budget is {threat.budget}, but the backdoor can start from {len(rows)} images: "
            "lower the budget."
        )
    poison = first_backdoor.plant_backdoor(data[rows], goal, threat, seed)
    return replace(poison, base=rows[poison.base])


def clean_label_patch(data: Data, goal: Backdoor, threat: ThreatModel, seed: int) -> Poison:
    """Patch random images of the target class and leave their labels alone.

    It uses the whole budget. Source: the 'patch' attack of Geiping and others, arXiv 2102.13624.
    """
    rows = candidates(data, goal.target_class, threat.budget)
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    base = rows[order.to(rows.device)[: threat.budget]]
    return Poison(goal.trigger(data.x[base]), data.y[base], base, threat.placement)
