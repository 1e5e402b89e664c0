"""Built in lesson 01, measuring poisoning.

Generated from notebooks/01_measuring_poisoning.ipynb: edit it there, then run make notebooks.
"""

from dataclasses import replace

from course_utils import trials
from course_utils.defense import PLAIN
from course_utils.settings import Setting
from course_utils.training import Recipe


def slower_plain(recipe: Recipe, *rates: float) -> dict[str, trials.Victim]:
    """Plain victims with this recipe, at other learning rates."""
    recipes = {lr: replace(recipe, lr=lr) for lr in rates}
    return {f"plain, learning rate {lr}": trials.Victim(PLAIN, recipes[lr]) for lr in rates}


def learns_less(setting: Setting) -> dict[str, trials.Victim]:
    """The learns-less curve: plain victims with lower learning rates, and with fewer epochs."""
    found = slower_plain(setting.recipe, 0.02, 0.008, 0.004)
    for epochs in (13, 9, 6):
        shorter = setting.shortened(Recipe(epochs, lr=setting.recipe.lr))
        found[f"plain, {epochs} epochs"] = trials.Victim(PLAIN, shorter)
    return found
