"""Built in lesson 07, backdoors.

Generated from notebooks/07_backdoors.ipynb: edit it there, then run make notebooks.
"""

from dataclasses import replace

import torch

from course_utils import stored
from course_utils.attacks.label_consistent import label_consistent
from course_utils.attacks.patch_backdoors import badnets
from course_utils.attacks.triggers import bernoulli_patch, blended_pattern, solid_patch
from course_utils.cases.backdoors import (
    AUGMENTED,
    EPSILON,
    backdoor_case,
    badnets_case,
    clean_label_case,
    draw_pair,
)
from course_utils.defenses.pgd_training import pgd_training
from course_utils.models import Classifier
from course_utils.settings import MLP, Setting
from course_utils.threat import Backdoor, Poison, ThreatModel
from course_utils.training import train
from course_utils.trials import Case, Victim, columns, compare

RATES = (0.001, 0.003, 0.01, 0.03, 0.1)
SIDES = (1, 4, 7, 10, 14)


def as_stored(found: list[dict], **where: float) -> list[dict]:
    """The two rates that each victim was measured by, with its condition and where it stood."""
    return [
        {"condition": row["attacker"], **where, "accuracy": row["accuracy"], "asr": row["asr"]}
        for row in found
    ]


def dose_trial(seed: int, setting: Setting = MLP) -> list[dict]:
    """3,000 images: every rate with 4 pixels, two rates with the other sides, a clean victim."""
    rows = []
    for side in SIDES:
        clean = badnets_case(seed, setting, side=side)
        rows += as_stored(compare(clean, {"clean": None}), side=side, rate=0.0)
        for rate in RATES if side == 4 else (0.001, 0.01):
            case = badnets_case(seed, setting, rate, side)
            rows += as_stored(compare(case, {"BadNets": case.oblivious}), side=side, rate=rate)
    return rows


DOSES = stored.Study("badnets_doses", "07", dose_trial, range(20))


SHORT = replace(MLP.recipe, epochs=10)


def headline_trial(seed: int, setting: Setting = MLP) -> list[dict]:
    """10,000 images, 100 poisons, a 4-pixel patch, the MLP: a clean and a BadNets victim."""
    case = replace(badnets_case(seed, setting, n=10_000), recipe=setting.shortened(SHORT))
    found = compare(case, {"clean": None, "BadNets": case.oblivious})
    return columns(found, "accuracy", "asr", "seconds", condition="attacker", defense="victim")


HEADLINE = stored.Study("badnets", "07", headline_trial, range(40))


def variant_trial(seed: int, setting: Setting = MLP) -> list[dict]:
    """3,000 images, 1% BadNets poison: four triggers, and the white patch one-to-one."""
    (source, target), threat = draw_pair(seed), ThreatModel(setting.scaled(30))
    triggers = {
        "white patch": solid_patch(4),
        "Bernoulli patch": bernoulli_patch(4, seed),
        "white, random corner": solid_patch(4, corner="random", seed=seed),
        "blended pattern, 0.2": blended_pattern(0.2, seed),
    }
    rows = []
    for name, trigger in triggers.items():
        case = backdoor_case(badnets, Backdoor(trigger, target), threat, seed, setting)
        found = as_stored(compare(case, {"clean": None, "BadNets": case.oblivious}))
        rows += [{"trigger": name, **row} for row in found]
    goal = Backdoor(solid_patch(4), target, source)
    return rows + one_to_one(backdoor_case(badnets, goal, threat, seed, setting))


def one_to_one(case: Case) -> list[dict]:
    """One victim, 1% poison from the source class: the rate there, and on all other classes."""
    others = case.test[case.test.y != case.goal.source_class]

    def leak(victim: Classifier, poison: Poison | None) -> dict:
        return {"leak": replace(case.goal, source_class=None).measure(victim, others)}

    (found,) = compare(case, {"source class": case.oblivious}, also=leak)
    rows = as_stored([found, {"attacker": "other classes", **found["leak"]}])
    return [{"trigger": "one-to-one", **row} for row in rows]


VARIANTS = stored.Study("badnets_variants", "07", variant_trial, range(20))


def augmentation_trial(seed: int, setting: Setting = MLP) -> list[dict]:
    """3,000 images, BadNets on victims that train with augmentation, 4 pixels."""
    rows, victims = [], {"augmentation": Victim(AUGMENTED, setting.recipe)}
    for rate in (0.01, 0.03, 0.1):
        case = badnets_case(seed, setting, rate)
        found = compare(case, {"augmentation": case.oblivious}, victims)
        rows += as_stored(found, side=4, rate=rate)
    return rows


AUGMENTATION = stored.Study("badnets_augmentation", "07", augmentation_trial, range(20))


def train_surrogates(case: Case, setting: Setting = MLP) -> dict[str, Classifier]:
    """A plain and a robust surrogate, from first weights that are not the victim's."""
    given, seed = (case.model, case.data), 10_000 + case.seed
    defense = pgd_training(EPSILON, steps=setting.scaled(3))
    return {
        "plain": train(*given, setting.recipe, seed=seed),
        "robust": train(*given, setting.shortened(SHORT), seed=seed, defense=defense),
    }


def clean_label_poisons(case: Case, surrogates: dict, setting: Setting = MLP) -> dict[str, Poison]:
    """The poison of each condition, all on the same images of the target class."""
    data, bare = case.data, replace(case.goal, trigger=torch.clone)  # bare: without the patch
    threat = ThreatModel(len(case.oblivious), EPSILON, clean_label=True)
    how = {"epsilon": EPSILON, "steps": setting.scaled(20)}
    moved = {
        name: label_consistent([surrogate], data, bare, threat, case.seed, **how)
        for name, surrogate in surrogates.items()
    }
    generator = torch.Generator(data.x.device).manual_seed(case.seed)
    moved["noise"] = moved["plain"].noise_control(data, generator)
    poisons = {"patch": case.oblivious}
    for name, poison in moved.items():
        poison.check(threat, data)
        poisons[f"{name} + patch"] = replace(poison, images=case.goal.trigger(poison.images))
        poisons[f"{name} + patch"].check(replace(threat, epsilon=None), data)
    return poisons


BUDGETS = (10, 30, 90)


def clean_label_trial(seed: int, setting: Setting = MLP) -> list[dict]:
    """3,000 images, a 7-pixel patch: a clean victim, and each condition at each budget."""
    cases = {budget: clean_label_case(seed, setting, budget=budget) for budget in BUDGETS}
    surrogates, found = train_surrogates(cases[30], setting), {}
    found[0] = compare(cases[30], {"clean": None})
    for budget, case in cases.items():
        poisons = clean_label_poisons(case, surrogates, setting)
        if budget != 30:
            poisons = {name: poisons[name] for name in ("patch", "plain + patch")}
        found[budget] = compare(case, poisons)
    names = dict(condition="attacker", defense="victim")
    return [
        {"budget": budget, **row}
        for budget, rows in found.items()
        for row in columns(rows, "accuracy", "asr", "seconds", **names)
    ]


CLEAN_LABEL = stored.Study("clean_label_backdoors", "07", clean_label_trial, range(40))
