"""Built in lesson 12, mixing augmentations.

Generated from notebooks/12_mixing_augmentations.ipynb: edit it there, then run make notebooks.
"""

from collections.abc import Sequence
from dataclasses import replace

from course_utils.cases import backdoors, transfer
from course_utils.data import Data
from course_utils.defense import PLAIN
from course_utils.defenses.mixing import cutmix, cutout, maxup, mixup
from course_utils.models import Classifier, predict
from course_utils.settings import MLP, Setting
from course_utils.threat import Backdoor, Targeted
from course_utils.training import Recipe
from course_utils.trials import Victim

AUGMENTATION, CUTMIX = backdoors.AUGMENTED.name, "CutMix"
DEFENSES = {
    "plain": PLAIN,
    AUGMENTATION: backdoors.AUGMENTED,
    "Mixup": mixup(1.0),
    CUTMIX: cutmix(1.0),
    "Cutout": cutout(14),
    "MaxUp": maxup(4, cutout(14)),
}


def and_early_stops(recipe: Recipe, epochs: Sequence[int], setting: Setting) -> dict[str, Victim]:
    """Each defense with this recipe, and plain victims with so many epochs of their own."""
    victims = {name: Victim(defense, recipe) for name, defense in DEFENSES.items()}
    for n in epochs:
        victims[f"plain, {n} epochs"] = Victim(PLAIN, replace(recipe, epochs=setting.scaled(n)))
    return victims


def mixed(setting: Setting = MLP) -> dict[str, Victim]:
    """The victims that train from scratch, for 30 epochs."""
    recipe = replace(setting.recipe, epochs=setting.scaled(30))
    return and_early_stops(recipe, (6, 9, 13), setting)


def by_itself(victim: Classifier, goal: Targeted | Backdoor, test: Data) -> float:
    """How often a victim errs in the attacker's favour where the attack has no part in it.

    For a target: the share of all test images of its class that get the adversarial class. For a
    backdoor: the attack success rate without the trigger.
    """
    if isinstance(goal, Backdoor):
        return goal.by_itself(victim, test)
    same = test.x[test.y == goal.true_class]
    return (predict(victim, same) == goal.adversarial_class).float().mean().item()


def heads(setting: Setting = MLP) -> dict[str, Victim]:
    """The victims that fit a head to frozen features."""
    return and_early_stops(setting.shortened(transfer.HEAD), (5, 10, 16), setting)
