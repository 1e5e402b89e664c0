"""Built in lesson 07, backdoors.

Generated from notebooks/07_backdoors.ipynb: edit it there, then run make notebooks.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from course_utils.attacks.gradient_matching import augment
from course_utils.attacks.label_consistent import label_consistent
from course_utils.attacks.patch_backdoors import badnets, clean_label_patch
from course_utils.attacks.triggers import CORNERS, Trigger, bernoulli_patch, solid_patch
from course_utils.data import Data, balanced, load
from course_utils.defense import Defense
from course_utils.models import Classifier, build
from course_utils.settings import MLP, Setting
from course_utils.threat import Backdoor, Poison, ThreatModel
from course_utils.training import train
from course_utils.trials import Case, Victim


def draw_trigger(side: int, seed: int) -> Trigger:
    """A white or a Bernoulli patch, by the flip of a coin, in one of the four corners.

    A single pixel is always white: a black one could not be seen.
    """
    generator = torch.Generator().manual_seed(seed)
    corner = CORNERS[torch.randint(4, (1,), generator=generator).item()]
    if torch.rand(1, generator=generator).item() < 0.5 or side == 1:
        return solid_patch(side, corner=corner)
    return bernoulli_patch(side, seed, corner)


def draw_pair(seed: int) -> tuple[int, int]:
    """Two different classes of the ten: a source and a target."""
    source, target = torch.randperm(10, generator=torch.Generator().manual_seed(seed))[:2].tolist()
    return source, target


Attack = Callable[[Data, Backdoor, ThreatModel, int], Poison]  # data, goal, threat model, seed


def backdoor_case(
    attack: Attack, goal: Backdoor, threat: ThreatModel, seed: int, setting: Setting, n: int = 3000
) -> Case:
    """An attack that asks no model, on n training images; 2,000 to test on."""
    train_all, test_all = load("fashion_mnist")
    data, test = balanced(train_all, setting.scaled(n), seed), balanced(test_all, 2000, seed=0)
    model = build(setting.network, data.shape, len(data.classes))

    def craft(victim: Victim) -> Poison:
        poison = attack(data, goal, threat, seed)
        poison.check(threat, data)
        return poison

    return Case(data, goal, test, model, setting.recipe, seed, craft)


def badnets_case(
    seed: int, setting: Setting = MLP, rate: float = 0.01, side: int = 4, n: int = 3000
) -> Case:
    """BadNets for all classes: a share `rate` of n images, a patch of `side` by `side` pixels."""
    goal = Backdoor(draw_trigger(side, seed), draw_pair(seed)[1])
    threat = ThreatModel(setting.scaled(round(rate * n)))
    return backdoor_case(badnets, goal, threat, seed, setting, n)


def shift_and_flip(
    model: Classifier, x: Tensor, y: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """A batch (B, C, H, W), each image shifted by up to 2 pixels and flipped or not."""
    return augment(x, generator), y


AUGMENTED = Defense("augmentation", batch=shift_and_flip)


EPSILON = 32 / 255


def clean_label_case(seed: int, setting: Setting = MLP, side: int = 7, budget: int = 30) -> Case:
    """The clean-label patch, on `budget` of 3,000 images."""
    goal = Backdoor(draw_trigger(side, seed), draw_pair(seed)[1])
    threat = ThreatModel(setting.scaled(budget), clean_label=True)
    return backdoor_case(clean_label_patch, goal, threat, seed, setting)


def label_consistent_case(seed: int, setting: Setting = MLP, budget: int = 90) -> Case:
    """The label-consistent attack; its surrogate trains as the victim that it expects."""
    case = clean_label_case(seed, setting, budget=budget)
    threat = ThreatModel(setting.scaled(budget), clean_label=True)
    given, how = (case.data, case.goal, threat, seed), {"steps": setting.scaled(20)}

    def craft(victim: Victim) -> Poison:
        start = dict(defense=victim.defense, seed=10_000 + seed)
        surrogate = train(case.model, case.data, victim.recipe, **start)
        poison = label_consistent([surrogate], *given, epsilon=EPSILON, **how)
        poison.check(threat, case.data)
        return poison

    return replace(case, craft=craft)
