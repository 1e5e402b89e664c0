"""Built in lesson 12, mixing augmentations.

Generated from notebooks/12_mixing_augmentations.ipynb: edit it there, then run make notebooks.
"""

import time
from collections.abc import Mapping, Sequence
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
from course_utils.trials import Rows

DEFENSES = {
    "plain": PLAIN,
    "augmentation": AUGMENTED,
    "Mixup": mixup(1.0),
    "CutMix": cutmix(1.0),
    "Cutout": cutout(14),
    "MaxUp": maxup(4, cutout(14)),
}


LONG = replace(RECIPE, epochs=30)
SHORT = {f"plain, {n} epochs": replace(LONG, epochs=n) for n in (6, 9, 13)}
VICTIMS = {name: (defense, LONG) for name, defense in DEFENSES.items()}
VICTIMS |= {name: (PLAIN, recipe) for name, recipe in SHORT.items()}
SECOND = ("plain", "augmentation", "Mixup", "CutMix")


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


def matching_trial(seed: int, budget: int = 150, victims: Sequence[str] = tuple(VICTIMS)) -> Rows:
    """Gradient matching as in lesson 05, the same poisons against each of these victims."""
    scene = draw_scene(seed)
    goal = draw_goal(scene.adults, scene.test, seed)
    base = best_bases(scene, goal)[:budget]
    seen = craft(scene, goal, base, "32/255").apply(scene.data)
    return [
        {"victim": name} | defended(*VICTIMS[name], scene.model, seen, goal, scene.test, seed)
        for name in victims
    ]


def fewer_trial(seed: int) -> Rows:
    """The same trial with 60 poisons, against fewer victims."""
    return matching_trial(seed, 60, SECOND)


MATCHING = Study("mixing_matching", "12", matching_trial, range(40))
FEWER = Study("mixing_matching_60", "12", fewer_trial, range(40))


def badnets_trial(seed: int) -> Rows:
    """BadNets as in lesson 07: 30 of 3,000 images, a 4-pixel patch."""
    train_all, test_all = load("fashion_mnist")
    data, test = balanced(train_all, 3000, seed), balanced(test_all, 2000, seed=0)
    goal, threat = Backdoor(draw_trigger(4, seed), draw_pair(seed)[1]), ThreatModel(30)
    poison = badnets(data, goal, threat, seed)
    poison.check(threat, data)
    model, seen = build("mlp", data.shape, len(data.classes)), poison.apply(data)
    return [
        {"victim": name} | defended(*VICTIMS[name], model, seen, goal, test, seed)
        for name in (*DEFENSES, "plain, 9 epochs")
    ]


BADNETS = Study("mixing_badnets", "12", badnets_trial, range(40))


def consistent_trial(seed: int) -> Rows:
    """The label-consistent attack of lesson 07: 90 of 3,000 images, a 7-pixel patch."""
    train_all, test_all = load("fashion_mnist")
    data, test = balanced(train_all, 3000, seed), balanced(test_all, 2000, seed=0)
    goal = Backdoor(draw_trigger(7, seed), draw_pair(seed)[1])
    threat = ThreatModel(90, clean_label=True)
    model = build("mlp", data.shape, len(data.classes))
    surrogate = train(model, data, RECIPE, seed=10_000 + seed)
    poison = label_consistent([surrogate], data, goal, threat, seed, epsilon=EPSILON)
    poison.check(threat, data)
    seen = poison.apply(data)
    return [
        {"victim": name} | defended(*VICTIMS[name], model, seen, goal, test, seed)
        for name in SECOND
    ]


CONSISTENT = Study("mixing_label_consistent", "12", consistent_trial, range(40))


HEADS = {name: (defense, HEAD) for name, defense in DEFENSES.items()}
HEADS |= {f"plain, {n} epochs": (PLAIN, replace(HEAD, epochs=n)) for n in (5, 10, 16)}


def transfer_trial(seed: int, victims: Mapping[str, tuple[Defense, Recipe]] = HEADS) -> Rows:
    """Bullseye Polytope in transfer as in lesson 04, 5 poisons, against each of these victims."""
    draw = draw_transfer(seed)
    attack = {BULLSEYE: COLLISIONS[BULLSEYE]}
    poison = craft_collisions(attack, [draw.extractor], draw, 5, seed)[BULLSEYE]
    seen, shared = poison.apply(draw.data), (draw.goal, draw.test, seed, "transfer")
    return [
        {"victim": name} | defended(*how, draw.extractor, seen, *shared)
        for name, how in victims.items()
    ]


TRANSFER = Study("mixing_transfer", "12", transfer_trial, range(40))


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


def strength_trial(seed: int) -> Rows:
    """The trial of `transfer_trial`, against weaker and stronger settings."""
    return transfer_trial(seed, {name: (defense, HEAD) for name, defense in STRENGTHS.items()})


STRENGTH = Study("mixing_strength", "12", strength_trial, range(20))
