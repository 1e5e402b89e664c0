"""Built in lesson 10, gradient shaping.

Generated from notebooks/10_gradient_shaping.ipynb: edit it there, then run make notebooks.
"""

from dataclasses import replace

from course_utils import training
from course_utils.cases import transfer
from course_utils.defense import PLAIN
from course_utils.defenses.gradient_shaping import gradient_shaping
from course_utils.settings import MLP, Setting
from course_utils.trials import Victim

BOTH = "clip + noise"  # the victim with both parts of gradient shaping


def tuned(lr: float, setting: Setting = MLP) -> training.Recipe:
    """The setting's recipe with another learning rate, without weight decay."""
    return replace(setting.recipe, lr=lr, weight_decay=0.0)


def shaped(setting: Setting = MLP) -> dict[tuple[str, str], Victim]:
    """Plain and shaped victims by defense and learning rate, for training from scratch."""
    recipe = setting.recipe
    clip, both = (gradient_shaping(1.0, noise, recipe.batch_size) for noise in (0.0, 0.5))
    return {
        ("plain", "equal"): Victim(PLAIN, recipe),
        ("plain", "slow"): Victim(PLAIN, replace(recipe, lr=0.008)),
        ("plain", "slower"): Victim(PLAIN, replace(recipe, lr=0.004)),
        ("clip", "equal"): Victim(clip, recipe),
        ("plain", "tuned"): Victim(PLAIN, tuned(0.1, setting)),
        ("clip", "tuned"): Victim(clip, tuned(1.6, setting)),
        (BOTH, "tuned"): Victim(both, tuned(0.2, setting)),
    }


def heads(setting: Setting = MLP) -> dict[tuple[str, str], Victim]:
    """Plain and shaped victims by defense and learning rate, that fit a head on frozen features."""
    recipe = setting.shortened(transfer.HEAD)
    clip, both = (gradient_shaping(1.0, noise, recipe.batch_size) for noise in (0.0, 0.5))
    return {
        ("plain", "equal"): Victim(PLAIN, recipe),
        ("clip", "equal"): Victim(clip, recipe),
        ("plain", "tuned"): Victim(PLAIN, replace(recipe, lr=0.003)),
        ("clip", "tuned"): Victim(clip, replace(recipe, lr=0.03)),
        (BOTH, "tuned"): Victim(both, replace(recipe, lr=0.03)),
    }
