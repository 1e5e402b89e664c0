"""Built in lesson 08, hidden triggers.

Generated from notebooks/08_hidden_triggers.ipynb: edit it there, then run make notebooks.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from course_utils import training
from course_utils.attacks.hidden_trigger import hidden_trigger
from course_utils.attacks.sleeper_agent import sleeper_agent
from course_utils.attacks.triggers import bernoulli_patch
from course_utils.cases.goals import draw_classes
from course_utils.data import Data, balanced, load
from course_utils.defense import PLAIN
from course_utils.models import Classifier, build
from course_utils.settings import MLP, Setting
from course_utils.threat import Backdoor, Poison, ThreatModel
from course_utils.trials import Case, Victim

EXTRACTOR = training.Recipe(epochs=15, batch_size=100, lr=0.05)
HEAD = training.Recipe(epochs=20, batch_size=50, lr=0.1)
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


def draw_transfer(seed: int, device: torch.device | str = "cpu", setting: Setting = MLP) -> Draw:
    """Draw an extractor, and 1,000 other images to which a victim fits its head."""
    train_all, test = (part.to(device) for part in load("fashion_mnist"))
    order = torch.randperm(len(train_all), generator=torch.Generator().manual_seed(seed)).to(device)
    seen = balanced(train_all[order[:12_000]], setting.scaled(6000), seed)
    data = balanced(train_all[order[12_000:]], setting.scaled(1000), seed)
    model = build(setting.network, data.shape, len(data.classes))
    extractor = training.train(model, seen, setting.shortened(EXTRACTOR), seed=10_000 + seed)
    return Draw([extractor], data, test)


def hidden_trigger_on(
    draw: Draw,
    goal: Backdoor,
    threat: ThreatModel,
    seed: int,
    setting: Setting,
    spare: Tensor | None = None,
) -> Case:
    """Hidden Trigger Backdoor on this draw: the attacker has the victim's frozen features."""
    (extractor,) = draw.surrogates
    options = {"spare": spare, "steps": setting.scaled(200)}

    def craft(victim: Victim) -> Poison:
        poison = hidden_trigger([extractor], draw.data, goal, threat, seed, **options)
        poison.check(threat, draw.data)
        return poison

    recipe = setting.shortened(HEAD)
    return Case(draw.data, goal, draw.test, extractor, recipe, seed, craft, scenario="transfer")


def train_surrogates(
    data: Data, seed: int, count: int, setting: Setting = MLP, victim: Victim | None = None
) -> list[Classifier]:
    """Models that train as this victim does, or as the plain one, each from a seed of its own."""
    how = victim or Victim(PLAIN, setting.recipe)
    model = build(setting.network, data.shape, len(data.classes))
    seeds = [1000 * (seed + 1) + number for number in range(count)]
    options = {"defense": how.defense}
    return [training.train(model, data, how.recipe, seed=one, **options) for one in seeds]


def draw_scratch(
    seed: int, device: torch.device | str = "cpu", count: int = 2, setting: Setting = MLP
) -> Draw:
    """Draw 3,000 training images and `count` surrogates."""
    train_all, test = (part.to(device) for part in load("fashion_mnist"))
    data = balanced(train_all, setting.scaled(3000), seed)
    return Draw(train_surrogates(data, seed, count, setting), data, test)


def sleeper_on(
    draw: Draw,
    goal: Backdoor,
    threat: ThreatModel,
    seed: int,
    setting: Setting,
    spare: Tensor | None = None,
) -> Case:
    """Sleeper Agent on this draw; who knows the victim has surrogates that train as it does."""
    data, options = draw.data, {"spare": spare, "steps": setting.scaled(60)}
    plain = Victim(PLAIN, setting.recipe)

    def craft(victim: Victim) -> Poison:
        models = draw.surrogates
        if victim != plain:
            models = train_surrogates(data, seed, len(models), setting, victim)
        poison = sleeper_agent(models, data, goal, threat, seed, **options)
        poison.check(threat, data)
        return poison

    model = build(setting.network, data.shape, len(data.classes))
    return Case(data, goal, draw.test, model, setting.recipe, seed, craft)


def drawn_case(
    on: Callable[..., Case], draw: Draw, budget: int, seed: int, setting: Setting
) -> Case:
    """An attack on a draw, as a case: so many poisons at 32/255, and a backdoor from the seed."""
    goal = draw_backdoor(draw.data.classes, seed)
    threat = ThreatModel(setting.scaled(budget), 32 / 255, clean_label=True)
    return on(draw, goal, threat, seed, setting)


def hidden_trigger_case(seed: int, setting: Setting = MLP) -> Case:
    """Hidden Trigger Backdoor: 50 of 1,000 images at 32/255, a new head on frozen features."""
    draw = draw_transfer(seed, setting=setting)
    return drawn_case(hidden_trigger_on, draw, 50, seed, setting)


def sleeper_case(seed: int, setting: Setting = MLP) -> Case:
    """Sleeper Agent: 30 of 3,000 images at 32/255, from two surrogates."""
    return drawn_case(sleeper_on, draw_scratch(seed, setting=setting), 30, seed, setting)
