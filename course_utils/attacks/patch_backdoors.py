"""Built in lesson 07, backdoors.

Generated from notebooks/07_backdoors.ipynb: edit it there, then run make notebooks.
"""

from dataclasses import replace

from course_utils.attacks import crafting, first_backdoor
from course_utils.data import Data
from course_utils.threat import Backdoor, Poison, ThreatModel, triggered


def badnets(data: Data, goal: Backdoor, threat: ThreatModel, seed: int) -> Poison:
    """BadNets, dirty label: patched images of the source class, or of all classes but the target.

    It uses the whole budget and takes no image twice.
    Source: Gu, Dolan-Gavitt and Garg, arXiv 1708.06733.
    """
    if goal.source_class is None:
        rows = (data.y != goal.target_class).nonzero()[:, 0]
    else:
        rows = (data.y == goal.source_class).nonzero()[:, 0]
    poison = first_backdoor.plant_backdoor(data[rows], goal, threat, seed)
    return replace(poison, base=rows[poison.base])


def clean_label_patch(data: Data, goal: Backdoor, threat: ThreatModel, seed: int) -> Poison:
    """Patch random images of the target class and leave their labels alone.

    It uses the whole budget. Source: the 'patch' attack of Geiping and others, arXiv 2102.13624.
    """
    base = crafting.random_bases(data, goal.target_class, threat.budget, seed)
    images = triggered(goal.trigger, data.x[base])
    return Poison(images, data.y[base], base, threat.placement)
