"""Built in lesson 04, feature collision.

Generated from notebooks/04_feature_collision.ipynb: edit it there, then run make notebooks.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch

from course_utils.attacks.feature_collision import (
    bullseye_loss,
    feature_collision,
    poison_frogs,
    watermark,
)
from course_utils.cases.transfer import (
    BULLSEYE,
    COLLISIONS,
    EPSILON,
    FINETUNE,
    bullseye,
    distances,
    draw_transfer,
    train_extractor,
)
from course_utils.models import Classifier
from course_utils.settings import MLP, Setting
from course_utils.stored import Study
from course_utils.threat import Poison, ThreatModel
from course_utils.trials import Case, columns, compare


def attacks(setting: Setting) -> dict[str, Callable]:
    """Every attack of this lesson, with as many steps as a setting has for it."""
    steps = setting.scaled(100)
    known = {
        "watermark": watermark,
        "Poison Frogs, no bound": partial(poison_frogs, steps=2 * steps),
        "Bullseye Polytope, no bound": partial(
            feature_collision, loss=bullseye_loss, steps=4 * steps, lr=0.005
        ),
    }
    for name, loss in COLLISIONS.items():
        known[name] = partial(feature_collision, loss=loss, steps=steps)
    return known


def craft(
    names: Iterable[str],
    surrogates: Sequence[Classifier],
    case: Case,
    budget: int,
    setting: Setting = MLP,
) -> dict[str, Poison]:
    """The poison of each of these attacks, checked against its threat model."""
    known, poisons = attacks(setting), {}
    for name in names:
        epsilon = None if "no bound" in name else EPSILON
        threat = ThreatModel(setting.scaled(budget), epsilon, clean_label=True)
        poisons[name] = known[name](surrogates, case.data, case.goal, threat, case.seed)
        poisons[name].check(threat, case.data)
    return poisons


def measure(case: Case, poisons: Mapping[str, Poison | None], **labels: object) -> list[dict]:
    """One victim for each poison; the distances are in the features that it starts from."""

    def near(victim: Classifier, poison: Poison | None) -> dict:
        found = {"scenario": case.scenario, "budget": 0, "mean": math.nan, "each": math.nan}
        if poison is not None:
            found |= {"budget": len(poison), **distances(case.model, poison, case.data, case.goal)}
        return found | labels

    names = ("accuracy", "success", "seconds", "scenario", "budget", "mean", "each", *labels)
    rows = compare(case, poisons, also=near)
    return columns(rows, *names, condition="attacker", defense="victim")


OTHERS = ("watermark", "Poison Frogs, no bound", "Bullseye Polytope, no bound")
PLAN = {
    1: [BULLSEYE, "Poison Frogs, no bound"],
    2: [BULLSEYE],
    5: [*COLLISIONS, *OTHERS],
    10: [BULLSEYE],
    25: [*COLLISIONS],
}


def with_noise(poisons: Mapping[str, Poison], case: Case) -> dict[str, Poison]:
    """The poisons, and random noise like Bullseye's: as large, on the same images."""
    generator = torch.Generator(case.data.x.device).manual_seed(case.seed)
    return {**poisons, "noise": poisons[BULLSEYE].noise_control(case.data, generator)}


def near_trial(seed: int, setting: Setting = MLP) -> list[dict]:
    """White box, neighbouring classes: transfer as in PLAN, fine-tuning with 25 poisons."""
    case = bullseye(seed, setting)
    rows = measure(case, {"clean": None})
    for budget, names in PLAN.items():
        poisons = craft(names, [case.model], case, budget, setting)
        if budget in (5, 25):
            poisons = with_noise(poisons, case)
        rows += measure(case, poisons)
    tuned = {"clean": None, BULLSEYE: poisons[BULLSEYE], "noise": poisons["noise"]}
    moving = replace(case, scenario="finetune", recipe=setting.shortened(FINETUNE))
    return rows + measure(moving, tuned)


def far_trial(seed: int, setting: Setting = MLP) -> list[dict]:
    """White box, classes that are no neighbours: Bullseye Polytope and its noise."""
    case = bullseye(seed, setting, draw=draw_transfer(seed, near=False, setting=setting))
    rows = measure(case, {"clean": None})
    for budget in (5, 25):
        poisons = craft([BULLSEYE], [case.model], case, budget, setting)
        rows += measure(case, with_noise(poisons, case))
    return rows


NEAR_STUDY = Study("collision_near", "04", near_trial, range(50))
FAR_STUDY = Study("collision_far", "04", far_trial, range(20))


def black_box_trial(seed: int, setting: Setting = MLP) -> list[dict]:
    """25 poisons from one or two surrogates, against a victim with another extractor."""
    draw = draw_transfer(seed, setting=setting)
    ours, theirs = draw.others[:6500], draw.others[6500:]
    second = train_extractor(ours, seed + 20_000, setting)
    victim = train_extractor(theirs, seed + 100_000, setting)
    case = replace(bullseye(seed, setting, draw=draw), model=victim)
    rows = measure(case, {"clean": None}, surrogates=0)
    for surrogates in ([draw.extractor], [draw.extractor, second]):
        poisons = craft(COLLISIONS, surrogates, case, 25, setting)
        rows += measure(case, poisons, surrogates=len(surrogates))
    return rows


BLACK_STUDY = Study("collision_black_box", "04", black_box_trial, range(40))
