"""Built in lesson 14, adversarial poisoning.

Generated from notebooks/14_adversarial_poisoning.ipynb: edit it there, then run make notebooks.
"""

from course_utils.cases import robust, transfer
from course_utils.defense import Defense
from course_utils.defenses.adversarial_poisoning import (
    adversarial_poisoning,
    collision_simulation,
    cut,
    matching_simulation,
)
from course_utils.settings import Setting

POISONING, CHEAP = "poisoning training", "cheap poisoning training"


def full(epsilon: float, steps: int = 5) -> Defense:
    """The paper's setting: half of the batch, five steps, the gradient of all parameters."""
    return adversarial_poisoning(matching_simulation(epsilon, steps))


def cheap(epsilon: float, share: float = 0.5) -> Defense:
    """Two steps, and only the gradient of the head (its weights and its biases) is matched."""
    return adversarial_poisoning(matching_simulation(epsilon, 2, last=2), split=cut(share))


def cheaply(setting: Setting) -> robust.Ladder:
    """The victim with cheap poisoning training at 96/255."""
    return robust.ladder(CHEAP, cheap, [96], setting.recipe)


def collision_training(epsilon: float) -> Defense:
    """The loop around Bullseye Polytope: half of the batch, five steps."""
    return adversarial_poisoning(collision_simulation(epsilon))


def heads(setting: Setting) -> robust.Ladder:
    """Heads on frozen features: the plain one, and one with the loop around collision."""
    recipe = setting.shortened(transfer.HEAD)
    return robust.undefended(recipe) | robust.ladder("collision", collision_training, [64], recipe)
