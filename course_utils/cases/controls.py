"""Built in lesson 01, measuring poisoning.

Generated from notebooks/01_measuring_poisoning.ipynb: edit it there, then run make notebooks.
"""

from dataclasses import replace

from course_utils import trials
from course_utils.defense import PLAIN
from course_utils.settings import Setting
from course_utils.training import Recipe


def learns_less(setting: Setting) -> dict[str, trials.Victim]:
    """The learns-less curve: plain victims with lower learning rates, and with fewer epochs."""
    found = {}
    for lr in (0.02, 0.008, 0.004):
        slower = replace(setting.recipe, lr=lr)
        found[f"plain, learning rate {lr}"] = trials.Victim(PLAIN, slower)
    for epochs in (13, 9, 6):
        shorter = setting.shortened(Recipe(epochs, lr=setting.recipe.lr))
        found[f"plain, {epochs} epochs"] = trials.Victim(PLAIN, shorter)
    return found
