"""Built in lesson 12, mixing augmentations.

Generated from notebooks/12_mixing_augmentations.ipynb: edit it there, then run make notebooks.
"""

import time
from dataclasses import replace

import torch

from course_utils.attacks.label_consistent import label_consistent
from course_utils.attacks.patch_backdoors import badnets
from course_utils.data import Data, balanced, load
from course_utils.defense import PLAIN, Defense
from course_utils.defenses.mixing import cutmix, cutout, maxup, mixup
from course_utils.models import Classifier, build, predict
from course_utils.stored import Study
from course_utils.studies.goals import draw_goal
from course_utils.studies.lesson_04 import BULLSEYE, COLLISIONS, HEAD, draw_transfer
from course_utils.studies.lesson_04 import craft as craft_collisions
from course_utils.studies.lesson_05 import RECIPE, best_bases, craft, draw_scene
from course_utils.studies.lesson_07 import AUGMENTED, EPSILON, draw_pair, draw_trigger
from course_utils.threat import Backdoor, Targeted, ThreatModel, accuracy
from course_utils.training import Recipe, Scenario, train

DEFENSES = {
    "plain": PLAIN,
    "augmentation": AUGMENTED,
    "Mixup": mixup(1.0),
    "CutMix": cutmix(1.0),
    "Cutout": cutout(14),
    "MaxUp": maxup(4, cutout(14)),
}


def by_itself(victim: Classifier, goal: Targeted | Backdoor, test: Data) -> float:
    """How often a victim errs in the attacker's favour where the attack has no part in it.

    For a target: the share of all test images of its class that get the adversarial class. For a
    backdoor: the attack success rate without the trigger.
    """
    if isinstance(goal, Backdoor):
        return replace(goal, trigger=torch.clone).measure(victim, test)["asr"]
    same = test.x[test.y == goal.true_class]
    return (predict(victim, same) == goal.adversarial_class).float().mean().item()


def defended(
    defense: Defense, recipe: Recipe, model: Classifier, seen: Data, goal: Targeted | Backdoor,
    test: Data, seed: int, scenario: Scenario = "scratch",
) -> dict[str, float | bool]:  # fmt: skip
    """Train a victim and measure it. fitted: its accuracy on the images it was given, as they came.

    The seconds are those of the processor, for the training alone.
    """
    begin = time.process_time()
    victim = train(model, seen, recipe, scenario=scenario, defense=defense, seed=seed)
    found = {"seconds": time.process_time() - begin, **goal.measure(victim, test)}
    return {**found, "fitted": accuracy(victim, seen), "by itself": by_itself(victim, goal, test)}


LONG = replace(RECIPE, epochs=30)
SHORT = {f"plain, {n} epochs": replace(LONG, epochs=n) for n in (6, 9, 13)}
VICTIMS = {name: (defense, LONG) for name, defense in DEFENSES.items()}
VICTIMS |= {name: (PLAIN, recipe) for name, recipe in SHORT.items()}
SECOND = ("plain", "augmentation", "Mixup", "CutMix")


def matching_trial(seed: int) -> list[dict]:
    """Gradient matching as in lesson 05: 150 poisons for every victim, 60 for some."""
    scene = draw_scene(seed)
    goal = draw_goal(scene.adults, scene.test, seed)
    base, rows = best_bases(scene, goal), []
    for budget, victims in ((150, VICTIMS), (60, SECOND)):
        seen = craft(scene, goal, base[:budget], "32/255").apply(scene.data)
        for name in victims:
            found = defended(*VICTIMS[name], scene.model, seen, goal, scene.test, seed)
            rows.append({"budget": budget, "victim": name, **found})
    return rows


MATCHING = Study("mixing_matching", "12", matching_trial, range(40))


STRENGTHS = {
    "Mixup, alpha 0.2": mixup(0.2),
    "Mixup, alpha 8": mixup(8.0),
    "CutMix, alpha 0.2": cutmix(0.2),
    "CutMix, alpha 8": cutmix(8.0),
    "Cutout, side 7": cutout(7),
    "Cutout, side 21": cutout(21),
    "MaxUp, 2 candidates": maxup(2, cutout(14)),
}


def strength_trial(seed: int) -> list[dict]:
    """The 150 poisons of `matching_trial`, against weaker and stronger settings."""
    scene = draw_scene(seed)
    goal = draw_goal(scene.adults, scene.test, seed)
    seen = craft(scene, goal, best_bases(scene, goal), "32/255").apply(scene.data)
    return [
        {"victim": name} | defended(defense, LONG, scene.model, seen, goal, scene.test, seed)
        for name, defense in STRENGTHS.items()
    ]


STRENGTH = Study("mixing_strength", "12", strength_trial, range(20))


def backdoor_trial(seed: int) -> list[dict]:
    """As in lesson 07: BadNets, 30 poisons, 4 pixels; label-consistent, 90 poisons, 7 pixels."""
    train_all, test_all = load("fashion_mnist")
    data, test = balanced(train_all, 3000, seed), balanced(test_all, 2000, seed=0)
    model, rows = build("mlp", data.shape, len(data.classes)), []
    small, large = (Backdoor(draw_trigger(side, seed), draw_pair(seed)[1]) for side in (4, 7))
    dirty, clean = ThreatModel(30), ThreatModel(90, clean_label=True)
    poison = badnets(data, small, dirty, seed)
    poison.check(dirty, data)
    for name in (*DEFENSES, "plain, 9 epochs"):
        found = defended(*VICTIMS[name], model, poison.apply(data), small, test, seed)
        rows.append({"attack": "BadNets", "victim": name, **found})
    surrogate = train(model, data, RECIPE, seed=10_000 + seed)
    poison = label_consistent([surrogate], data, large, clean, seed, epsilon=EPSILON)
    poison.check(clean, data)
    for name in SECOND:
        found = defended(*VICTIMS[name], model, poison.apply(data), large, test, seed)
        rows.append({"attack": "label-consistent", "victim": name, **found})
    return rows


BACKDOOR = Study("mixing_backdoors", "12", backdoor_trial, range(40))


def transfer_trial(seed: int) -> list[dict]:
    """Bullseye Polytope in transfer as in lesson 04, 5 poisons, against every defense."""
    draw = draw_transfer(seed)
    attack = {BULLSEYE: COLLISIONS[BULLSEYE]}
    poison = craft_collisions(attack, [draw.extractor], draw, 5, seed)[BULLSEYE]
    seen, shared = poison.apply(draw.data), (draw.goal, draw.test, seed, "transfer")
    return [
        {"victim": name} | defended(defense, HEAD, draw.extractor, seen, *shared)
        for name, defense in DEFENSES.items()
    ]


TRANSFER = Study("mixing_transfer", "12", transfer_trial, range(40))
