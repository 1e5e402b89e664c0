"""Built in lesson 14, adversarial poisoning.

Generated from notebooks/14_adversarial_poisoning.ipynb: edit it there, then run make notebooks.
"""

import copy
import math
from collections.abc import Iterable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from course_utils.attacks.crafting import random_start
from course_utils.attacks.gradient_matching import gradient_matching, squared_error, staggered
from course_utils.attacks.patch_backdoors import badnets, clean_label_patch
from course_utils.data import balanced, load
from course_utils.defense import PLAIN, Defense
from course_utils.defenses.adversarial_poisoning import (
    Simulation,
    Split,
    adversarial_poisoning,
    collision_simulation,
    cut,
    hidden_trigger_simulation,
    matching_simulation,
    one_target,
    patch_simulation,
    shuffle,
)
from course_utils.defenses.gradient_shaping import batch_shaping
from course_utils.defenses.noise_training import sign_noise
from course_utils.models import Classifier, build
from course_utils.stored import Study
from course_utils.studies.goals import draw_goal
from course_utils.studies.lesson_04 import EXTRACTOR, HEAD, Transfer, draw_transfer
from course_utils.studies.lesson_05 import AGES, RECIPE, TRAININGS, Scene, best_bases, craft
from course_utils.studies.lesson_07 import draw_pair, draw_trigger
from course_utils.studies.lesson_10 import matched
from course_utils.studies.lesson_13 import (
    MIDDLE,
    UNDEFENDED,
    Ladder,
    collide,
    granted,
    ladder,
    victims,
)
from course_utils.threat import Backdoor, ThreatModel
from course_utils.training import Recipe, train

POISONING, CHEAP = "poisoning training", "cheap poisoning training"


def full(epsilon: float, steps: int = 5) -> Defense:
    """The paper's setting: half of the batch, five steps, the gradient of all parameters."""
    return adversarial_poisoning(matching_simulation(epsilon, steps))


def cheap(epsilon: float, share: float = 0.5) -> Defense:
    """Two steps, and only the gradient of the head (its weights and its biases) is matched."""
    return adversarial_poisoning(matching_simulation(epsilon, 2, last=2), split=cut(share))


FULL64 = ladder(POISONING, full, [64])
CHEAP96 = ladder(CHEAP, cheap, [96])


def matching_trial(seed: int) -> list[dict]:
    """Gradient matching from scratch, 150 poisons at 32/255: full and cheap poisoning training."""
    scene, goal, poison = matched(seed)
    shared = dict(goal=goal, test=scene.test, model=scene.model, recipe=RECIPE, seed=seed)
    rows = victims("none", scene.data, None, CHEAP96, **shared)
    return rows + victims("150 poisons", scene.data, poison, FULL64 | CHEAP96, **shared)


MATCHING = Study("poisoning_training", "14", matching_trial, range(40))


def defended_surrogates(
    scene: Scene, defense: Defense, recipe: Recipe = RECIPE,
    numbers: Iterable[int] = range(TRAININGS),
) -> list[Classifier]:  # fmt: skip
    """Surrogates of a scene that are trained with a defense: copies at half time and at the end.

    numbers: which trainings; 0 and 1 start from the weights of the scene's own surrogates. A filter
    among the defenses would act on clean data.
    """
    copies, ages = [], (recipe.epochs // 2, recipe.epochs)

    def keep(surrogate: Classifier, epoch: int) -> None:
        if epoch in ages:
            copies.append(copy.deepcopy(surrogate))

    for number in numbers:
        seed = 1000 * (scene.seed + 1) + number
        train(scene.model, scene.data, recipe, seed=seed, defense=defense, after_epoch=keep)
    return copies


def knowing_trial(seed: int) -> list[dict]:
    """150 poisons from surrogates with cheap poisoning training, against the same training."""
    scene, goal, _ = matched(seed)
    base, poison = best_bases(scene, goal), None
    known = defended_surrogates(scene, CHEAP96[CHEAP, "96/255"])
    if not granted(known, goal):
        poison = craft(scene, goal, base, "32/255", surrogates=known)
    shared = dict(goal=goal, test=scene.test, model=scene.model, recipe=RECIPE, seed=seed)
    return victims("150 poisons, knowing", scene.data, poison, CHEAP96, **shared)


KNOWING = Study("poisoning_training_knowing", "14", knowing_trial, range(40))


def noise_simulation(epsilon: float) -> Simulation:
    """No attack at all: the poisons get the random start of the inner loop, and no step."""
    return lambda model, split, generator: (
        random_start(split.poisons, epsilon, generator),
        split.targets,
    )


def noise_instead(epsilon: float) -> Defense:
    """The control of the cheap variant: the same split, the same bound, noise for the attack."""
    return adversarial_poisoning(noise_simulation(epsilon))


SWEEP = ladder(CHEAP, cheap, [64, 128])
SWEEP |= ladder("three quarters poisons", partial(cheap, share=0.75), [96])
SWEEP |= ladder("noise instead", noise_instead, [96])
SWEEP |= ladder("sign noise", sign_noise, [128])
SWEEP |= {("batch-level shaping", f"C={c}"): batch_shaping(c, 0.01) for c in (1, 0.3, 0.1)}
SWEEP |= {("patches inside", "none"): adversarial_poisoning(patch_simulation())}


SLOWER = {f"lr {lr}": replace(RECIPE, lr=lr) for lr in (0.01, 0.015, 0.02, 0.03)}
SHORTER = {f"{n} epochs": replace(RECIPE, epochs=n) for n in (5, 7, 10, 14)}


def sweep_trial(seed: int) -> list[dict]:
    """The same poisons: other strengths, other defenses, and plain victims that learn less."""
    scene, goal, poison = matched(seed)
    shared = dict(goal=goal, test=scene.test, model=scene.model, seed=seed)
    rows = victims("150 poisons", scene.data, poison, SWEEP, recipe=RECIPE, **shared)
    for strength, recipe in (SLOWER | SHORTER).items():
        less = {("plain, learns less", strength): PLAIN}
        rows += victims("150 poisons", scene.data, poison, less, recipe=recipe, **shared)
    return rows


SWEEPS = Study("poisoning_training_sweep", "14", sweep_trial, range(40))


HEAD_ONLY = matching_simulation(96 / 255, 2, last=2)
SQUARED = matching_simulation(96 / 255, 2, last=2, loss=squared_error)
ABLATED: Ladder = {
    ("split", "quarter"): adversarial_poisoning(HEAD_ONLY, split=cut(0.25)),
    ("split", "one target"): adversarial_poisoning(HEAD_ONLY, split=one_target),
    ("split", "shuffle"): adversarial_poisoning(HEAD_ONLY, split=shuffle),
    ("recombine", "no"): adversarial_poisoning(HEAD_ONLY, recombine=False),
    ("steps", "1"): adversarial_poisoning(matching_simulation(96 / 255, 1, last=2)),
    ("steps", "5"): adversarial_poisoning(matching_simulation(96 / 255, 5, last=2)),
    ("epsilon", "32/255"): cheap(32 / 255),
    ("gradient", "of all parameters"): full(96 / 255, steps=2),
    ("objective", "squared error"): adversarial_poisoning(SQUARED),
    ("objective", "collision"): adversarial_poisoning(collision_simulation(96 / 255, 2)),
    ("objective", "hidden triggers"): adversarial_poisoning(hidden_trigger_simulation(96 / 255, 2)),
}


def ablation_trial(seed: int) -> list[dict]:
    """Gradient matching against the cheap variant, with one thing changed at a time."""
    scene, goal, poison = matched(seed)
    shared = dict(goal=goal, test=scene.test, model=scene.model, recipe=RECIPE, seed=seed)
    return victims("150 poisons", scene.data, poison, ABLATED, **shared)


ABLATION = Study("poisoning_training_ablation", "14", ablation_trial, range(20))


SAME_PLACES = patch_simulation((1 / 7, 1 / 7), corners=True)  # 4 by 4 pixels, as the trigger
PATCHED: Ladder = {
    ("patches anywhere", "none"): adversarial_poisoning(patch_simulation()),
    ("patches in the corners", "none"): adversarial_poisoning(SAME_PLACES),
}
PATCHED |= CHEAP96


def backdoor_trial(seed: int) -> list[dict]:
    """Lesson 13's backdoors, 30 poisons in 3,000 images: BadNets, the clean-label patch, none."""
    train_all, test_all = load("fashion_mnist")
    data, test = balanced(train_all, 3000, seed), balanced(test_all, 2000, seed=0)
    target = draw_pair(seed)[1]
    small, large = (Backdoor(draw_trigger(side, seed), target) for side in (4, 7))
    model = build("mlp", data.shape, len(data.classes))
    shared = dict(test=test, model=model, recipe=RECIPE, seed=seed)
    clean_label = ThreatModel(30, clean_label=True)
    dirty = badnets(data, small, ThreatModel(30), seed)
    patched = clean_label_patch(data, large, clean_label, seed)
    dirty.check(ThreatModel(30), data)
    patched.check(clean_label, data)
    rows = victims("none", data, None, PATCHED, goal=small, **shared)
    rows += victims("BadNets", data, dirty, PATCHED, goal=small, **shared)
    return rows + victims("clean-label patch", data, patched, PATCHED, goal=large, **shared)


BACKDOORS = Study("poisoning_training_backdoors", "14", backdoor_trial, range(40))


def collision_training(epsilon: float) -> Defense:
    """The loop around Bullseye Polytope: half of the batch, five steps."""
    return adversarial_poisoning(collision_simulation(epsilon))


HEADS = UNDEFENDED | ladder("collision", collision_training, [64])


def defended_extractor(draw: Transfer, defense: Defense, seed: int) -> Classifier:
    """A model trained with a defense on 4,000 images that are in no other part of the draw."""
    part = balanced(draw.others, 4000, seed)
    model = build("mlp", part.shape, len(part.classes))
    return train(model, part, EXTRACTOR, seed=seed, defense=defense)


def transfer_trial(seed: int) -> list[dict]:
    """Bullseye in transfer: poisoning training of neither, of the head, or of the extractor."""
    draw, rows = draw_transfer(seed), []
    trained = defended_extractor(draw, HEADS["collision", "64/255"], seed)
    for name, extractor in {"plain": draw.extractor, "poisoning-trained": trained}.items():
        poison = collide(extractor, draw, seed)
        shared = dict(goal=draw.goal, test=draw.test, model=extractor, recipe=HEAD, seed=seed)
        for attack, made in (("none", None), ("Bullseye", poison)):
            found = victims(attack, draw.data, made, HEADS, scenario="transfer", **shared)
            rows += [{"extractor": name, **row} for row in found]
    return rows


TRANSFER = Study("poisoning_training_transfer", "14", transfer_trial, range(40))


STRONGER = UNDEFENDED | ladder(CHEAP, cheap, [32, 96]) | MIDDLE


def stronger_trial(seed: int) -> list[dict]:
    """An attack at 64/255, twice the usual size, and one with twice as many poisons."""
    scene, goal, _ = matched(seed)
    shared = dict(goal=goal, test=scene.test, model=scene.model, recipe=RECIPE, seed=seed)
    rows = []
    for attack, budget, epsilon in (("64/255", 150, 64 / 255), ("300 poisons", 300, 32 / 255)):
        threat = ThreatModel(budget, epsilon, clean_label=True)
        base = best_bases(scene, goal, budget)
        poison = gradient_matching(scene.surrogates, scene.data, goal, threat, seed, base=base)
        poison.check(threat, scene.data)
        rows += victims(attack, scene.data, poison, STRONGER, **shared)
    return rows


STRONGER_STUDY = Study("poisoning_training_stronger", "14", stronger_trial, range(20))


def batch_norm_mlp(shape: tuple[int, ...], n_classes: int, width: int = 256) -> Classifier:
    """The MLP of the course with BatchNorm before each ReLU."""
    size, layers = math.prod(shape), [nn.Flatten()]
    for _ in range(2):
        layers += [nn.Linear(size, width), nn.BatchNorm1d(width), nn.ReLU()]
        size = width
    return Classifier(nn.Sequential(*layers), width, n_classes)


def in_training_mode(simulate: Simulation) -> Simulation:
    """The same simulation, but with the model in training mode while it runs."""

    def moved(model: Classifier, split: Split, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        model.train()  # `evaluating` gives every layer its mode back afterwards
        return simulate(model, split, generator)

    return moved


MODES: Ladder = UNDEFENDED | {
    ("inner attack", "evaluation mode"): adversarial_poisoning(HEAD_ONLY),
    ("inner attack", "training mode"): adversarial_poisoning(in_training_mode(HEAD_ONLY)),
}


def norm_trial(seed: int) -> list[dict]:
    """Surrogates and victims with BatchNorm: the inner attack in either mode."""
    train_all, test = load("fashion_mnist")
    data = balanced(train_all, 3000, seed)
    with torch.random.fork_rng():
        model = batch_norm_mlp(data.shape, len(data.classes))
    surrogates = staggered(model, data, RECIPE, seed, TRAININGS, AGES)
    scene = Scene(data, test, model, surrogates, seed)
    goal = draw_goal(scene.adults, test, seed)
    poison = craft(scene, goal, best_bases(scene, goal), "32/255")
    shared = dict(goal=goal, test=test, model=model, recipe=RECIPE, seed=seed)
    return victims("150 poisons", data, poison, MODES, **shared)


NORM = Study("poisoning_training_norm", "14", norm_trial, range(20))
