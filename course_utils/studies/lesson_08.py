"""Built in lesson 08, hidden triggers.

Generated from notebooks/08_hidden_triggers.ipynb: edit it there, then run make notebooks.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from course_utils.attacks.hidden_trigger import covered, faint_trigger
from course_utils.attacks.sleeper_agent import sleeper_agent
from course_utils.cases.hidden_triggers import (
    Draw,
    draw_backdoor,
    draw_scratch,
    draw_transfer,
    hidden_trigger_on,
    sleeper_on,
    train_surrogates,
)
from course_utils.data import Data
from course_utils.models import Classifier
from course_utils.settings import MLP, Setting
from course_utils.stored import Study
from course_utils.threat import Backdoor, Poison, ThreatModel
from course_utils.trials import Case, columns, compare


@torch.no_grad()
def gap(extractor: Classifier, images: Tensor, patched: Tensor) -> float:
    """The mean distance of images to the nearest patched source image, in feature space."""
    distance = torch.cdist(extractor.features(images), extractor.features(patched))
    return distance.amin(1).mean().item()


def silent(case: Case) -> Callable:
    """What `compare` shall measure too: the rate on the same images without the trigger."""
    return lambda victim, poison: {"no_trigger": case.goal.by_itself(victim, case.test)}


def copy_of_trigger(poison: Poison, data: Data, goal: Backdoor) -> float:
    """Correlation of the mean change with the trigger, over the trigger's pixels; 0: no change."""
    base = data.x[poison.base]
    mask = covered(goal.trigger, base)
    change, wanted = ((x - base).mean(0)[mask] for x in (poison.images, goal.trigger(base)))
    if change.std() == 0:
        return 0.0
    return torch.corrcoef(torch.stack([change, wanted]))[0, 1].item()


class Cell(NamedTuple):
    """One setting. level: epsilon in steps of 1/255. full: with every control and test."""

    near: bool
    side: int
    level: int
    budget: int
    full: bool = False


TRANSFER_CELLS = (
    Cell(True, 8, 16, 50, full=True),
    Cell(True, 8, 32, 10),
    Cell(True, 8, 32, 50, full=True),
    Cell(True, 8, 32, 100),
    Cell(True, 4, 32, 50),
    Cell(True, 12, 32, 50),
    Cell(False, 8, 32, 50),
)


MEASURED = ("accuracy", "asr", "no_trigger", "gap", "copy")
SCRATCH_CELLS = (
    Cell(True, 8, 16, 10),
    Cell(True, 8, 16, 30, full=True),
    Cell(True, 8, 32, 30),
    Cell(True, 8, 32, 150, full=True),
    Cell(True, 4, 32, 30),
    Cell(False, 8, 32, 30),
)


def signs(case: Case, extractor: Classifier) -> Callable:
    """What `compare` shall measure too: the rate without the trigger, the gap, and the copy."""
    data, goal, quiet = case.data, case.goal, silent(case)
    patched = goal.trigger(data.x[data.y == goal.source_class])

    def also(victim: Classifier, poison: Poison | None) -> dict[str, float]:
        images = data.x[data.y == goal.target_class] if poison is None else poison.images
        copied = 0.0 if poison is None else copy_of_trigger(poison, data, goal)
        found = {"gap": gap(extractor, images, patched), "copy": copied}
        return quiet(victim, poison) | found

    return also


def controls(case: Case, spared: Case, threat: ThreatModel) -> dict[str, Poison]:
    """The other poisons of a full cell, all of them checked; `spared`: the trigger's pixels are."""
    faint = faint_trigger(case.data.x[case.oblivious.base], case.goal.trigger, threat.epsilon)
    faint = replace(case.oblivious, images=faint)
    made = {"noise": case.noise, "pixels spared": spared.oblivious, "faint trigger": faint}
    for poison in made.values():
        poison.check(threat, case.data)
    return made


def measure_cells(
    on: Callable[..., Case], cells: Sequence[Cell], draw: Draw, seed: int, setting: Setting
) -> list[dict]:
    """One victim for each cell and condition. on: the attack on a draw, as a case."""
    rows, classes = [], draw.data.classes
    for cell in cells:
        goal = draw_backdoor(classes, seed, cell.near, cell.side)
        threat = ThreatModel(setting.scaled(cell.budget), cell.level / 255, clean_label=True)
        mask = covered(goal.trigger, draw.data.x)
        case, spared = (on(draw, goal, threat, seed, setting, spare) for spare in (None, mask))
        attackers = {"clean": None, "attack": case.oblivious}
        if cell.full:
            attackers |= controls(case, spared, threat)
        pair = f"{classes[goal.source_class]} > {classes[goal.target_class]}"
        for row in compare(case, attackers, also=signs(case, draw.surrogates[0])):
            where = {"condition": row["attacker"], **cell._asdict(), "pair": pair}
            rows.append(where | {name: row[name] for name in MEASURED})
    return rows


def transfer_trial(seed: int, setting: Setting = MLP) -> list[dict]:
    """Hidden Trigger Backdoor in all cells: a new head on frozen features."""
    draw = draw_transfer(seed, setting=setting)
    return measure_cells(hidden_trigger_on, TRANSFER_CELLS, draw, seed, setting)


def scratch_trial(seed: int, setting: Setting = MLP) -> list[dict]:
    """Sleeper Agent in all cells: every layer from scratch."""
    draw = draw_scratch(seed, setting=setting)
    return measure_cells(sleeper_on, SCRATCH_CELLS, draw, seed, setting)


TRANSFER = Study("hidden_trigger", "08", transfer_trial, range(20))
SCRATCH = Study("sleeper_agent", "08", scratch_trial, range(20))


def retraining_trial(seed: int, setting: Setting = MLP) -> list[dict]:
    """Sleeper Agent with and without new surrogates along the way, as many steps each."""
    draw = draw_scratch(seed, count=1, setting=setting)
    threat = ThreatModel(setting.scaled(30), 16 / 255, clean_label=True)
    given = (draw.data, draw_backdoor(draw.data.classes, seed), threat, seed)

    def retrain(seen: Data, number: int) -> list[Classifier]:
        return train_surrogates(seen, 1000 * number + seed, 1, setting)

    steps = {"steps": setting.scaled(60)}
    again = sleeper_agent(draw.surrogates, *given, retrain=retrain, **steps)
    again.check(threat, draw.data)
    case = sleeper_on(draw, *given[1:], setting)
    attackers = {"never": case.oblivious, "three times": again}
    found = compare(case, attackers, also=signs(case, draw.surrogates[0]))
    return columns(found, "accuracy", "asr", "no_trigger", "copy", condition="attacker")


RETRAINING = Study("sleeper_agent_retraining", "08", retraining_trial, range(100, 140))
