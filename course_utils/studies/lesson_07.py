"""Built in lesson 07, backdoors.

Generated from notebooks/07_backdoors.ipynb: edit it there, then run make notebooks.
"""

from dataclasses import replace

import torch
from torch import Tensor

from course_utils.attacks.gradient_matching import augment
from course_utils.attacks.label_consistent import label_consistent
from course_utils.attacks.label_flipping import budget_for
from course_utils.attacks.patch_backdoors import badnets, clean_label_patch
from course_utils.attacks.triggers import (
    CORNERS,
    Trigger,
    bernoulli_patch,
    blended_pattern,
    solid_patch,
)
from course_utils.data import Data, balanced, load
from course_utils.defense import PLAIN, Defense
from course_utils.defenses.pgd_training import pgd_training
from course_utils.models import Classifier, build
from course_utils.stored import Study
from course_utils.threat import Backdoor, ThreatModel
from course_utils.training import Recipe, train
from course_utils.trials import compare

RECIPE = Recipe(epochs=20, batch_size=100, lr=0.05)
RATES = (0.001, 0.003, 0.01, 0.03, 0.1)
SIDES = (1, 4, 7, 10, 14)


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


def plant(
    data: Data, goal: Backdoor, rate: float, seed: int, defense: Defense = PLAIN
) -> Classifier:
    """An MLP that has trained on BadNets poison of this rate."""
    threat = ThreatModel(budget_for(data, rate))
    poison = badnets(data, goal, threat, seed)
    poison.check(threat, data)
    model = build("mlp", data.shape, len(data.classes))
    return train(model, poison.apply(data), RECIPE, seed=seed, defense=defense)


def dose_trial(seed: int) -> list[dict]:
    """3,000 images: every rate with 4 pixels, two rates with the other sides, a clean victim."""
    train_all, test_all = load("fashion_mnist")
    data, test = balanced(train_all, 3000, seed), balanced(test_all, 2000, seed=0)
    clean = train(build("mlp", data.shape, len(data.classes)), data, RECIPE, seed=seed)
    rows = []
    for side in SIDES:
        goal = Backdoor(draw_trigger(side, seed), draw_pair(seed)[1])
        rows.append({"condition": "clean", "side": side, "rate": 0.0, **goal.measure(clean, test)})
        for rate in RATES if side == 4 else (0.001, 0.01):
            measured = goal.measure(plant(data, goal, rate, seed), test)
            rows.append({"condition": "BadNets", "side": side, "rate": rate, **measured})
    return rows


DOSES = Study("badnets_doses", "07", dose_trial, range(20))


LARGE = Recipe(epochs=10, batch_size=100, lr=0.05)


def headline_trial(seed: int) -> list[dict]:
    """10,000 images, 100 poisons, a 4-pixel patch, the MLP: a clean and a BadNets victim."""
    train_all, test_all = load("fashion_mnist")
    data, test = balanced(train_all, 10_000, seed), balanced(test_all, 2000, seed=0)
    goal = Backdoor(draw_trigger(4, seed), draw_pair(seed)[1])
    threat = ThreatModel(budget_for(data, 0.01))
    poison = badnets(data, goal, threat, seed)
    poison.check(threat, data)
    return compare(
        {"clean": None, "BadNets": poison},
        goal=goal,
        data=data,
        test=test,
        model=build("mlp", data.shape, len(data.classes)),
        recipe=LARGE,
        seed=seed,
    )


HEADLINE = Study("badnets", "07", headline_trial, range(40))


def variant_trial(seed: int) -> list[dict]:
    """3,000 images, 1% BadNets poison: four triggers, and the white patch one-to-one."""
    train_all, test_all = load("fashion_mnist")
    data, test = balanced(train_all, 3000, seed), balanced(test_all, 2000, seed=0)
    source, target = draw_pair(seed)
    triggers = {
        "white patch": solid_patch(4),
        "Bernoulli patch": bernoulli_patch(4, seed),
        "white, random corner": solid_patch(4, corner="random", seed=seed),
        "blended pattern, 0.2": blended_pattern(0.2, seed),
    }
    clean = train(build("mlp", data.shape, len(data.classes)), data, RECIPE, seed=seed)
    rows = []
    for name, trigger in triggers.items():
        goal = Backdoor(trigger, target)
        rows.append({"trigger": name, "condition": "clean", **goal.measure(clean, test)})
        measured = goal.measure(plant(data, goal, 0.01, seed), test)
        rows.append({"trigger": name, "condition": "BadNets", **measured})
    return rows + one_to_one(data, test, Backdoor(solid_patch(4), target, source), seed)


def one_to_one(data: Data, test: Data, goal: Backdoor, seed: int) -> list[dict]:
    """One victim, 1% poison from the source class: the rate there, and on all other classes."""
    victim = plant(data, goal, 0.01, seed)
    leak = replace(goal, source_class=None).measure(victim, test[test.y != goal.source_class])
    found = {"source class": goal.measure(victim, test), "other classes": leak}
    return [{"trigger": "one-to-one", "condition": name, **row} for name, row in found.items()]


VARIANTS = Study("badnets_variants", "07", variant_trial, range(20))


def shift_and_flip(
    model: Classifier, x: Tensor, y: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """A batch (B, C, H, W), each image shifted by up to 2 pixels and flipped or not."""
    return augment(x, generator), y


AUGMENTED = Defense("augmentation", batch=shift_and_flip)


def augmentation_trial(seed: int) -> list[dict]:
    """3,000 images, BadNets on victims that train with augmentation, 4 pixels."""
    train_all, test_all = load("fashion_mnist")
    data, test = balanced(train_all, 3000, seed), balanced(test_all, 2000, seed=0)
    rows = []
    goal = Backdoor(draw_trigger(4, seed), draw_pair(seed)[1])
    for rate in (0.01, 0.03, 0.1):
        measured = goal.measure(plant(data, goal, rate, seed, AUGMENTED), test)
        rows.append({"condition": "augmentation", "side": 4, "rate": rate, **measured})
    return rows


AUGMENTATION = Study("badnets_augmentation", "07", augmentation_trial, range(20))


EPSILON = 32 / 255
ROBUST = Recipe(epochs=10, batch_size=100, lr=0.05)


def train_surrogates(data: Data, seed: int) -> dict[str, Classifier]:
    """A plain and a robust surrogate, from first weights that are not the victim's."""
    model, seed = build("mlp", data.shape, len(data.classes)), 10_000 + seed
    defense = pgd_training(EPSILON, steps=3)
    return {
        "plain": train(model, data, RECIPE, seed=seed),
        "robust": train(model, data, ROBUST, seed=seed, defense=defense),
    }


def draw_clean_label(data: Data, goal: Backdoor, budget: int, seed: int, surrogates: dict) -> dict:
    """The poison of each condition, all on the same images of the target class."""
    threat = ThreatModel(budget, clean_label=True)
    bare = replace(goal, trigger=torch.clone)  # the perturbation without the patch
    moved = {
        name: label_consistent([surrogate], data, bare, threat, seed, epsilon=EPSILON)
        for name, surrogate in surrogates.items()
    }
    generator = torch.Generator(data.x.device).manual_seed(seed)
    moved["noise"] = moved["plain"].noise_control(data, generator)
    poisons = {"patch": clean_label_patch(data, goal, threat, seed)}
    for name, poison in moved.items():
        poison.check(replace(threat, epsilon=EPSILON), data)
        poisons[f"{name} + patch"] = replace(poison, images=goal.trigger(poison.images))
        poisons[f"{name} + patch"].check(threat, data)
    return poisons


BUDGETS = (10, 30, 90)


def clean_label_trial(seed: int) -> list[dict]:
    """3,000 images, a 7-pixel patch: a clean victim, and each condition at each budget."""
    train_all, test_all = load("fashion_mnist")
    data, test = balanced(train_all, 3000, seed), balanced(test_all, 2000, seed=0)
    goal = Backdoor(draw_trigger(7, seed), draw_pair(seed)[1])
    surrogates = train_surrogates(data, seed)
    shared = {"goal": goal, "data": data, "test": test, "recipe": RECIPE, "seed": seed}
    model = build("mlp", data.shape, len(data.classes))
    rows = [{"budget": 0, **row} for row in compare({"clean": None}, model=model, **shared)]
    for budget in BUDGETS:
        poisons = draw_clean_label(data, goal, budget, seed, surrogates)
        if budget != 30:
            poisons = {name: poisons[name] for name in ("patch", "plain + patch")}
        rows += [{"budget": budget, **row} for row in compare(poisons, model=model, **shared)]
    return rows


CLEAN_LABEL = Study("clean_label_backdoors", "07", clean_label_trial, range(40))
