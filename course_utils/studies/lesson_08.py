"""Built in lesson 08, hidden triggers.

Generated from notebooks/08_hidden_triggers.ipynb: edit it there, then run make notebooks.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from course_utils.attacks.hidden_trigger import covered, faint_trigger, hidden_trigger
from course_utils.attacks.sleeper_agent import sleeper_agent
from course_utils.attacks.triggers import bernoulli_patch
from course_utils.data import Data, balanced, load
from course_utils.models import Classifier, build
from course_utils.stored import Study
from course_utils.studies.goals import draw_classes
from course_utils.threat import Backdoor, Poison, ThreatModel
from course_utils.training import Recipe, train

EXTRACTOR = Recipe(epochs=15, batch_size=100, lr=0.05)
HEAD = Recipe(epochs=20, batch_size=50, lr=0.1)
SIDE = 8


class Draw(NamedTuple):
    """What a trial starts from: surrogates that saw clean data only, training and test images."""

    surrogates: list[Classifier]
    data: Data
    test: Data


def draw_backdoor(
    classes: Sequence[str], seed: int, near: bool = True, side: int = SIDE
) -> Backdoor:
    """Draw a source class, a target class and a trigger; near: neighbouring classes."""
    source, target = draw_classes(classes, seed, near)
    return Backdoor(bernoulli_patch(side, seed), target, source)


def draw_transfer(seed: int, device: torch.device | str = "cpu") -> Draw:
    """Draw an extractor, and 1,000 other images to which a victim fits its head."""
    train_all, test = (part.to(device) for part in load("fashion_mnist"))
    order = torch.randperm(len(train_all), generator=torch.Generator().manual_seed(seed)).to(device)
    seen, data = balanced(train_all[order[:12_000]], 6000, seed), train_all[order[12_000:]]
    model = build("mlp", data.shape, len(data.classes))
    extractor = train(model, seen, EXTRACTOR, seed=10_000 + seed)
    return Draw([extractor], balanced(data, 1000, seed), test)


@torch.no_grad()
def gap(extractor: Classifier, images: Tensor, patched: Tensor) -> float:
    """The mean distance of images to the nearest patched source image, in feature space."""
    distance = torch.cdist(extractor.features(images), extractor.features(patched))
    return distance.amin(1).mean().item()


def measure(victim: Classifier, goal: Backdoor, test: Data) -> dict[str, float]:
    """Accuracy, attack success rate, and the same rate on the same images without the trigger."""
    silent = replace(goal, trigger=torch.clone)
    return {**goal.measure(victim, test), "no_trigger": silent.measure(victim, test)["asr"]}


def copy_of_trigger(poison: Poison, data: Data, goal: Backdoor) -> float:
    """Correlation of the mean change with the trigger, over the trigger's pixels; 0: no change."""
    base = data.x[poison.base]
    mask = covered(goal.trigger, base)
    change, wanted = ((x - base).mean(0)[mask] for x in (poison.images, goal.trigger(base)))
    if change.std() == 0:
        return 0.0
    return torch.corrcoef(torch.stack([change, wanted]))[0, 1].item()


VICTIM = Recipe(epochs=20, batch_size=100, lr=0.05)


def train_surrogates(data: Data, seed: int, count: int) -> list[Classifier]:
    """Models trained in the victim's way, each from a seed of its own."""
    model = build("mlp", data.shape, len(data.classes))
    return [train(model, data, VICTIM, seed=1000 * (seed + 1) + k) for k in range(count)]


def draw_scratch(seed: int, device: torch.device | str = "cpu", count: int = 2) -> Draw:
    """Draw 3,000 training images and `count` surrogates."""
    train_all, test = (part.to(device) for part in load("fashion_mnist"))
    data = balanced(train_all, 3000, seed)
    return Draw(train_surrogates(data, seed, count), data, test)


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


SCRATCH_CELLS = (
    Cell(True, 8, 16, 10),
    Cell(True, 8, 16, 30, full=True),
    Cell(True, 8, 32, 30),
    Cell(True, 8, 32, 150, full=True),
    Cell(True, 4, 32, 30),
    Cell(False, 8, 32, 30),
)


def conditions(attack: Callable, draw: Draw, goal: Backdoor, cell: Cell, seed: int) -> dict:
    """The poisons of one cell by condition, all of them checked; None for clean data."""
    data, epsilon = draw.data, cell.level / 255
    threat = ThreatModel(cell.budget, epsilon, clean_label=True)
    poison = attack(draw.surrogates, data, goal, threat, seed)
    made = {"attack": poison}
    if cell.full:
        mask = covered(goal.trigger, data.x)
        faint = faint_trigger(data.x[poison.base], goal.trigger, epsilon)
        made |= {
            "noise": poison.noise_control(data, torch.Generator().manual_seed(seed)),
            "pixels spared": attack(draw.surrogates, data, goal, threat, seed, spare=mask),
            "faint trigger": replace(poison, images=faint),
        }
    for one in made.values():
        one.check(threat, data)
    return {"clean": None, **made}


def measure_cells(
    attack: Callable,
    cells: Sequence[Cell],
    draw: Draw,
    fit: Callable[[Data], Classifier],
    seed: int,
) -> list[dict]:
    """One victim for each cell and condition; the clean victim is the same one in all cells."""
    rows, clean, data = [], fit(draw.data), draw.data
    for cell in cells:
        goal = draw_backdoor(data.classes, seed, cell.near, cell.side)
        patched = goal.trigger(data.x[data.y == goal.source_class])
        names = [data.classes[k] for k in (goal.source_class, goal.target_class)]
        for name, poison in conditions(attack, draw, goal, cell, seed).items():
            victim = clean if poison is None else fit(poison.apply(data))
            images = data.x[data.y == goal.target_class] if poison is None else poison.images
            row = {"condition": name, **cell._asdict(), "pair": " > ".join(names)}
            row |= measure(victim, goal, draw.test)
            row["gap"] = gap(draw.surrogates[0], images, patched)
            row["copy"] = 0.0 if poison is None else copy_of_trigger(poison, data, goal)
            rows.append(row)
    return rows


def transfer_trial(seed: int) -> list[dict]:
    """Hidden Trigger Backdoor in all cells: a new head on frozen features."""
    draw = draw_transfer(seed)

    def fit(seen: Data) -> Classifier:
        return train(draw.surrogates[0], seen, HEAD, scenario="transfer", seed=seed)

    return measure_cells(hidden_trigger, TRANSFER_CELLS, draw, fit, seed)


def scratch_trial(seed: int) -> list[dict]:
    """Sleeper Agent in all cells: every layer from scratch."""
    draw = draw_scratch(seed)
    model = build("mlp", draw.data.shape, len(draw.data.classes))

    def fit(seen: Data) -> Classifier:
        return train(model, seen, VICTIM, seed=seed)

    return measure_cells(sleeper_agent, SCRATCH_CELLS, draw, fit, seed)


TRANSFER = Study("hidden_trigger", "08", transfer_trial, range(20))
SCRATCH = Study("sleeper_agent", "08", scratch_trial, range(20))


def retraining_trial(seed: int) -> list[dict]:
    """Sleeper Agent with and without new surrogates along the way, as many steps each."""
    draw, threat = draw_scratch(seed, count=1), ThreatModel(30, 16 / 255, clean_label=True)
    goal, data = draw_backdoor(draw.data.classes, seed), draw.data
    model = build("mlp", data.shape, len(data.classes))

    def retrain(seen: Data, number: int) -> list[Classifier]:
        return train_surrogates(seen, 1000 * number + seed, count=1)

    made = {
        "never": sleeper_agent(draw.surrogates, data, goal, threat, seed),
        "three times": sleeper_agent(draw.surrogates, data, goal, threat, seed, retrain=retrain),
    }
    rows = []
    for name, poison in made.items():
        poison.check(threat, data)
        victim = train(model, poison.apply(data), VICTIM, seed=seed)
        row = {"condition": name, **measure(victim, goal, draw.test)}
        rows.append({**row, "copy": copy_of_trigger(poison, data, goal)})
    return rows


RETRAINING = Study("sleeper_agent_retraining", "08", retraining_trial, range(100, 140))
