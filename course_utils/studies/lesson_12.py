"""Built in lesson 12, mixing augmentations.

Generated from notebooks/12_mixing_augmentations.ipynb: edit it there, then run make notebooks.
"""

from collections.abc import Sequence
from dataclasses import replace

from course_utils.cases import backdoors, from_scratch, transfer
from course_utils.cases.controls import slower_plain
from course_utils.cases.mixing import AUGMENTATION, CUTMIX, DEFENSES, by_itself, heads, mixed
from course_utils.defense import PLAIN
from course_utils.defenses.mixing import cutmix, cutout, maxup, mixup
from course_utils.models import Classifier
from course_utils.settings import MLP, Setting
from course_utils.stored import Study
from course_utils.threat import Backdoor, Poison, accuracy
from course_utils.trials import Case, Victim, columns, compare


def faced(case: Case, victims: dict[str, Victim]) -> list[dict]:
    """A row a victim of the oblivious attacker. fitted: its accuracy on all that it was given."""

    def also(victim: Classifier, poison: Poison | None) -> dict[str, float]:
        seen = case.data if poison is None else poison.apply(case.data)
        alone = by_itself(victim, case.goal, case.test)
        return {"fitted": accuracy(victim, seen), "by itself": alone}

    found = compare(case, {"attack": case.oblivious}, victims, also)
    measure = "asr" if isinstance(case.goal, Backdoor) else "success"
    return columns(found, "victim", "seconds", "accuracy", measure, "fitted", "by itself")


SECOND = ("plain", AUGMENTATION, "Mixup", CUTMIX)


def chosen(names: Sequence[str], setting: Setting) -> dict[str, Victim]:
    """Some of the victims that train from scratch."""
    return {name: mixed(setting)[name] for name in names}


def fewer_trial(seed: int, setting: Setting = MLP) -> list[dict]:
    """Gradient matching as in lesson 05, but with 60 poisons."""
    return faced(from_scratch.matching(seed, setting, 60), chosen(SECOND, setting))


FEWER = Study("mixing_matching_60", "12", fewer_trial, range(40))


def controls(setting: Setting) -> dict[str, Victim]:
    """The controls of the fixed trials: plain for 20 epochs, and two for fewer."""
    less = chosen(("plain, 13 epochs", "plain, 9 epochs"), setting)
    return {"plain": Victim(PLAIN, setting.recipe), **less}


def matching_controls_trial(seed: int, setting: Setting = MLP) -> list[dict]:
    """The trial of `fewer_trial` against its controls; 150 poisons against lesson 13's control."""
    scene = from_scratch.draw_scene(seed, setting=setting)
    few, many = (from_scratch.matching(seed, setting, n, scene=scene) for n in (60, 150))
    slow = slower_plain(setting.recipe, 0.008)
    found = []
    for poisons, case, victims in ((60, few, controls(setting)), (150, many, slow)):
        found += [{"poisons": poisons, **row} for row in faced(case, victims)]
    return found


MATCHING_CONTROLS = Study("mixing_matching_controls", "12", matching_controls_trial, range(40))


def badnets_trial(seed: int, setting: Setting = MLP) -> list[dict]:
    """BadNets as in lesson 07: 30 of 3,000 images, a 4-pixel patch."""
    victims = chosen((*DEFENSES, "plain, 9 epochs"), setting)
    return faced(backdoors.badnets_case(seed, setting), victims)


def consistent_trial(seed: int, setting: Setting = MLP) -> list[dict]:
    """The label-consistent attack of lesson 07: 90 of 3,000 images, a 7-pixel patch."""
    return faced(backdoors.label_consistent_case(seed, setting), chosen(SECOND, setting))


BADNETS = Study("mixing_badnets", "12", badnets_trial, range(40))
CONSISTENT = Study("mixing_label_consistent", "12", consistent_trial, range(40))


def backdoor_controls_trial(seed: int, setting: Setting = MLP) -> list[dict]:
    """Both backdoors, against the controls."""
    cases = {
        "BadNets": backdoors.badnets_case(seed, setting),
        "label-consistent": backdoors.label_consistent_case(seed, setting),
    }
    found = []
    for attack, case in cases.items():
        found += [{"attack": attack, **row} for row in faced(case, controls(setting))]
    return found


BACKDOOR_CONTROLS = Study("mixing_backdoor_controls", "12", backdoor_controls_trial, range(40))


def transfer_trial(seed: int, setting: Setting = MLP) -> list[dict]:
    """Bullseye Polytope in transfer as in lesson 04, 5 poisons, against every head."""
    return faced(transfer.bullseye(seed, setting), heads(setting))


TRANSFER = Study("mixing_transfer", "12", transfer_trial, range(40))


def slower_heads(setting: Setting) -> dict[str, Victim]:
    """Plain heads that learn less: for one epoch or two, or with a lower learning rate."""
    recipe = setting.shortened(transfer.HEAD)
    found = slower_plain(recipe, 0.1, 0.01, 0.001, 0.0005)
    for name, epochs in {"plain, 1 epoch": 1, "plain, 2 epochs": 2}.items():
        found[name] = Victim(PLAIN, replace(recipe, epochs=setting.scaled(epochs)))
    return found


def transfer_controls_trial(seed: int, setting: Setting = MLP) -> list[dict]:
    """The trial of `transfer_trial`: plain heads that learn less, and every head without poison."""
    case, less = transfer.bullseye(seed, setting), slower_heads(setting)
    found = compare(case, {"clean": None}, heads(setting) | less)
    found += compare(case, {"oblivious": case.oblivious}, less)
    return columns(found, "attacker", "victim", "accuracy", "success", "seconds")


TRANSFER_CONTROLS = Study("mixing_transfer_controls", "12", transfer_controls_trial, range(40))


STRENGTHS = {
    "Mixup, alpha 0.2": mixup(0.2),
    "Mixup, alpha 8": mixup(8.0),
    "CutMix, alpha 0.2": cutmix(0.2),
    "CutMix, alpha 8": cutmix(8.0),
    "Cutout, side 7": cutout(7),
    "Cutout, side 21": cutout(21),
    "MaxUp, 2 candidates": maxup(2, cutout(14)),
    "MaxUp, 8 candidates": maxup(8, cutout(14)),
}


def strength_trial(seed: int, setting: Setting = MLP) -> list[dict]:
    """The trial of `transfer_trial`, against weaker and stronger settings."""
    recipe = setting.shortened(transfer.HEAD)
    victims = {name: Victim(defense, recipe) for name, defense in STRENGTHS.items()}
    return faced(transfer.bullseye(seed, setting), victims)


STRENGTH = Study("mixing_strength", "12", strength_trial, range(20))
