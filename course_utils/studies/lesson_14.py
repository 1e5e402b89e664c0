"""Built in lesson 14, adversarial poisoning.

Generated from notebooks/14_adversarial_poisoning.ipynb: edit it there, then run make notebooks.
"""

import math
from dataclasses import replace
from functools import partial

import torch
from torch import nn

from course_utils import fixed_trials, trials
from course_utils.attacks import crafting, gradient_matching
from course_utils.cases import backdoors, from_scratch, robust, transfer
from course_utils.cases.poisoning import CHEAP, cheap, cheaply, collision_training, full, heads
from course_utils.defense import Defense
from course_utils.defenses.adversarial_poisoning import (
    Made,
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
from course_utils.models import Classifier
from course_utils.settings import CONVNET, Setting
from course_utils.stored import Study


def noise_simulation(epsilon: float) -> Simulation:
    """No attack at all: the poisons get the random start of the inner loop, and no step."""
    return lambda model, split, generator: (
        crafting.random_start(split.poisons, epsilon, generator),
        split.targets,
    )


def noise_instead(epsilon: float) -> Defense:
    """The control of the cheap variant: the same split, the same bound, noise for the attack."""
    return adversarial_poisoning(noise_simulation(epsilon))


LESS = "plain, learns less"


def less_learnt(setting: Setting) -> robust.Ladder:
    """Plain victims with lower learning rates, and with shorter schedules of their own."""
    usual, plain = setting.recipe, robust.undefended(setting.recipe)["plain", "none"]
    recipes = {f"lr {lr}": replace(usual, lr=lr) for lr in (0.01, 0.015, 0.02, 0.03)}
    for epochs in (5, 7, 10, 14):
        recipes[f"{epochs} epochs"] = replace(usual, epochs=setting.scaled(epochs))
    return {(LESS, name): replace(plain, recipe=recipe) for name, recipe in recipes.items()}


def swept(setting: Setting) -> robust.Ladder:
    """Other strengths, other defenses, and plain victims that learn less."""
    ladder = partial(robust.ladder, recipe=setting.recipe)
    others = {
        ("batch-level shaping", f"C={clip}"): batch_shaping(clip, 0.01) for clip in (1, 0.3, 0.1)
    }
    others["patches inside", "none"] = adversarial_poisoning(patch_simulation())
    return (
        ladder(CHEAP, cheap, [64, 128])
        | ladder("three quarters poisons", partial(cheap, share=0.75), [96])
        | ladder("noise instead", noise_instead, [96])
        | ladder("sign noise", sign_noise, [128])
        | {key: trials.Victim(defense, setting.recipe) for key, defense in others.items()}
        | less_learnt(setting)
    )


def sweep_trial(seed: int, setting: Setting) -> list[dict]:
    """The same poisons, against each of them."""
    case = from_scratch.matching(seed, setting)
    return robust.laddered(trials.compare(case, {"150 poisons": case.oblivious}, swept(setting)))


SWEEPS = Study("poisoning_training_sweep", "14", sweep_trial, range(40))


def slower_trial(seed: int, setting: Setting) -> list[dict]:
    """The poisons of the sweep, against plain victims that learn still less."""
    case, usual = from_scratch.matching(seed, setting), setting.recipe
    slower = {f"lr {lr}": replace(usual, lr=lr) for lr in (0.006, 0.005, 0.003)}
    victims = {(LESS, name): replace(case.plain, recipe=slower[name]) for name in slower}
    return robust.laddered(trials.compare(case, {"150 poisons": case.oblivious}, victims))


SLOWER = Study("poisoning_training_slower", "14", slower_trial, range(40))


HEAD_ONLY = matching_simulation(96 / 255, 2, last=2)
SQUARED = matching_simulation(96 / 255, 2, last=2, loss=gradient_matching.squared_error)
ABLATED = {
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


def ablation_trial(seed: int, setting: Setting) -> list[dict]:
    """Gradient matching against the cheap variant, with one thing changed at a time."""
    case = from_scratch.matching(seed, setting)
    victims = {key: trials.Victim(defense, setting.recipe) for key, defense in ABLATED.items()}
    return robust.laddered(trials.compare(case, {"150 poisons": case.oblivious}, victims))


ABLATION = Study("poisoning_training_ablation", "14", ablation_trial, range(20))


NOISE = "noise instead"


def noise_trial(seed: int, setting: Setting) -> trials.Rows:
    """Gradient matching on a fixed target: the cheap variant, and noise in place of its attack."""
    scene = from_scratch.draw_scene(seed, setting=setting)
    goal = fixed_trials.fixed_target(seed, scene.test)
    case = from_scratch.matching(seed, setting, goal=goal, scene=scene)
    inside = {NOISE: noise_instead(96 / 255), CHEAP: cheap(96 / 255)}
    victims = {name: trials.Victim(defense, setting.recipe) for name, defense in inside.items()}
    return trials.compare(case, {"oblivious": case.oblivious}, victims)


FIRST = fixed_trials.first_of_pairs()
NOISE_CONVNET = Study("poisoning_noise_convnet", "14", noise_trial, FIRST, CONVNET)


SAME_PLACES = patch_simulation((1 / 7, 1 / 7), corners=True)  # 4 by 4 pixels, as the trigger
PATCHED = {
    ("patches anywhere", "none"): adversarial_poisoning(patch_simulation()),
    ("patches in the corners", "none"): adversarial_poisoning(SAME_PLACES),
}


def backdoor_trial(seed: int, setting: Setting) -> list[dict]:
    """Lesson 13's backdoors, 30 poisons in 3,000 images: BadNets, the clean-label patch, none."""
    victims = {key: trials.Victim(defense, setting.recipe) for key, defense in PATCHED.items()}
    victims |= cheaply(setting)
    small, large = backdoors.badnets_case(seed, setting), backdoors.clean_label_case(seed, setting)
    rows = trials.compare(small, {"none": None, "BadNets": small.oblivious}, victims)
    rows += trials.compare(large, {"clean-label patch": large.oblivious}, victims)
    return robust.laddered(rows)


BACKDOORS = Study("poisoning_training_backdoors", "14", backdoor_trial, range(40))


def transfer_trial(seed: int, setting: Setting) -> list[dict]:
    """Bullseye in transfer: poisoning training of neither, of the head, or of the extractor."""
    draw, rows = transfer.draw_transfer(seed, setting=setting), []
    trained = transfer.train_extractor(draw.others, seed, setting, collision_training(64 / 255))
    for name, extractor in {"plain": draw.extractor, "poisoning-trained": trained}.items():
        case = transfer.bullseye(seed, setting, draw=draw._replace(extractor=extractor))
        found = trials.compare(case, {"none": None, "Bullseye": case.oblivious}, heads(setting))
        rows += [{"extractor": name, **row} for row in robust.laddered(found)]
    return rows


TRANSFER = Study("poisoning_training_transfer", "14", transfer_trial, range(40))


def stronger_trial(seed: int, setting: Setting) -> list[dict]:
    """An attack at 64/255, twice the usual size, and one with twice as many poisons."""
    recipe, rows = setting.recipe, []
    victims = robust.undefended(recipe) | robust.ladder(CHEAP, cheap, [32, 96], recipe)
    victims |= robust.pgd_trained(recipe, 16)
    scene = from_scratch.draw_scene(seed, setting=setting)
    for name, budget, epsilon in (("64/255", 150, 64 / 255), ("300 poisons", 300, 32 / 255)):
        case = from_scratch.matching(seed, setting, budget, epsilon, scene=scene)
        rows += trials.compare(case, {name: case.oblivious}, victims)
    return robust.laddered(rows)


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

    def moved(model: Classifier, split: Split, generator: torch.Generator) -> Made:
        model.train()  # `evaluating` gives every layer its mode back afterwards
        return simulate(model, split, generator)

    return moved


MODES = {
    ("inner attack", "evaluation mode"): adversarial_poisoning(HEAD_ONLY),
    ("inner attack", "training mode"): adversarial_poisoning(in_training_mode(HEAD_ONLY)),
}


def norm_trial(seed: int, setting: Setting) -> list[dict]:
    """Surrogates and victims with BatchNorm: the inner attack in either mode."""
    recipe = setting.recipe
    victims = robust.undefended(recipe)
    victims |= {key: trials.Victim(defense, recipe) for key, defense in MODES.items()}
    bare = from_scratch.draw_scene(seed, trainings=0, setting=setting)
    with torch.random.fork_rng():
        model = batch_norm_mlp(bare.data.shape, len(bare.data.classes))
    numbers, ages = range(from_scratch.TRAININGS), from_scratch.ages(recipe)
    surrogates = gradient_matching.staggered(model, bare.data, recipe, seed, numbers, ages)
    scene = replace(bare, model=model, surrogates=surrogates)
    case = from_scratch.matching(seed, setting, scene=scene)
    return robust.laddered(trials.compare(case, {"150 poisons": case.oblivious}, victims))


NORM = Study("poisoning_training_norm", "14", norm_trial, range(20))
