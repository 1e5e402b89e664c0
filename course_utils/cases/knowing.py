"""Built in lesson 15, adaptive attacks.

Generated from notebooks/15_adaptive_attacks.ipynb: edit it there, then run make notebooks.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from course_utils import trials
from course_utils.attacks import feature_collision, gradient_matching
from course_utils.attacks.adaptive import (
    clipped_alignment,
    cosine_loss,
    hidden_alignment,
    loss_under,
    rewritten_alignment,
    slopes_of,
)
from course_utils.attacks.gradient_matching import Gradient, Objective
from course_utils.cases import from_scratch, mixing, poisoning, robust, shaping, transfer
from course_utils.data import Data
from course_utils.defense import Defense
from course_utils.defenses import gradient_shaping, per_example
from course_utils.models import Classifier
from course_utils.settings import MLP, Setting
from course_utils.threat import Poison, Targeted


def held_out(scene: from_scratch.Scene, victim: trials.Victim) -> Classifier:
    """A fully trained surrogate that no crafting has seen, to check an objective with."""
    return from_scratch.surrogates(scene, victim, [from_scratch.TRAININGS])[-1]


class Defended(NamedTuple):
    """A defended victim, and how an attacker writes its defense into the objective.

    objective: (clean data, generator) -> the adapted objective. average: what the defense does to
    a gradient on average; another defense only where noise of mean zero can be left out.
    """

    victim: trials.Victim
    objective: Callable[[Data, torch.Generator], Objective]
    average: Defense


def rewriting(victim: trials.Victim, constant: bool) -> Defended:
    """A victim whose defense rewrites the batch."""
    defense = victim.defense
    return Defended(victim, partial(rewritten_alignment, defense, constant=constant), defense)


SHIFTS, CUTMIX = mixing.AUGMENTATION, mixing.CUTMIX


def clipping(company: Data, generator: torch.Generator) -> Objective:
    """The adapted objective against gradient shaping: it needs no company and draws nothing."""
    return clipped_alignment(1.0)


def adapted(setting: Setting) -> dict[str, Defended]:
    """The defended victims of lessons 10 to 14, with the objective of an attacker who knows."""
    mixed, recipe = mixing.mixed(setting), setting.recipe
    clip = gradient_shaping.gradient_shaping(1.0, 0.0, recipe.batch_size)
    return {
        shaping.BOTH: Defended(shaping.shaped(setting)[shaping.BOTH, "tuned"], clipping, clip),
        robust.PGD: rewriting(robust.pgd_trained(recipe, 16)[robust.PGD, "16/255"], constant=True),
        SHIFTS: rewriting(mixed[SHIFTS], constant=False),
        CUTMIX: rewriting(mixed[CUTMIX], constant=False),
        poisoning.POISONING: rewriting(
            trials.Victim(poisoning.cheap(96 / 255), recipe), constant=True
        ),
    }


WAYS = [(s, o) for s in ("plain", "defended") for o in ("plain", "adapted")]


def craft_all(how: Defended, scene: from_scratch.Scene) -> dict[tuple[str, str], Poison | None]:
    """The poisons for one defense by (surrogates, objective): each plain, or with the defense.

    None where the surrogates already give the target to the adversarial class.
    """
    defended = from_scratch.surrogates(scene, how.victim)
    models, crafted = {"plain": scene.surrogates, "defended": defended}, {}

    def knows(victim: trials.Victim, scene: from_scratch.Scene) -> Objective:
        generator = torch.Generator(scene.data.x.device).manual_seed(scene.seed)
        return how.objective(scene.data, generator)

    for surrogates, objective in WAYS:
        known = {"known": lambda scene, victim, chosen=models[surrogates]: chosen}
        loss = {"objective": knows} if objective == "adapted" else {}
        attack = from_scratch.matching(scene.seed, scene.setting, scene=scene, **known, **loss)
        crafted[surrogates, objective] = attack.craft(how.victim)
    return crafted


def judge(
    how: Defended, scene: from_scratch.Scene, goal: Targeted
) -> Callable[[Poison | None], float]:
    """Step 3 for one defense: a function that gives the loss of a poison, NaN for none."""
    model = held_out(scene, how.victim)
    label = torch.tensor([goal.adversarial_class], device=goal.image.device)
    wanted = gradient_matching.target_gradient(model, goal.image[None], label)

    def loss(poison: Poison | None) -> float:
        if poison is None:
            return float("nan")
        generator = torch.Generator(goal.image.device).manual_seed(scene.seed)
        poisons = (poison.images, poison.labels)
        return loss_under(how.average, model, poisons, wanted, scene.data, generator)

    return loss


def hide(victim: trials.Victim, scene: from_scratch.Scene, budget: int) -> Objective:
    """The objective that keeps the features of so many poisons where they were."""
    goal = from_scratch.matching(scene.seed, scene.setting, scene=scene).goal
    base = from_scratch.best_bases(scene, goal, budget)
    return hidden_alignment(scene.data.x[base], weight=1.0)


def ghost_alignment(clip: float) -> Objective:
    """`clipped_alignment` for networks with convolutions, by the ghost norms of lesson 10.

    A backward pass with a factor for each example's loss gives the mean of the clipped gradients,
    and can be differentiated through the factors too.
    """

    def loss(model: Classifier, images: Tensor, labels: Tensor, wanted: Gradient) -> Tensor:
        layers = gradient_shaping.training_layers(model)
        losses, seen = per_example.record(model, images, labels, layers, graph=True)
        squares = [
            gradient_shaping.SQUARES[type(layer)](layer, given, slope)
            for (layer, given, _), slope in zip(seen, slopes_of(losses, seen), strict=True)
        ]
        lengths = torch.stack(squares).sum(0).clamp(min=1e-12).sqrt()  # no slope at 0
        factors = (clip / lengths).clamp(max=1) / len(images)
        weights = [p for p in model.parameters() if p.requires_grad]
        found = torch.autograd.grad(losses, weights, factors, create_graph=True)
        return cosine_loss(found, wanted)

    return loss


def has_convolutions(model: Classifier) -> bool:
    """Whether some layer is a convolution."""
    return any(isinstance(layer, torch.nn.Conv2d) for layer in model.modules())


def in_objective(defense: Defense) -> bool:
    """Whether this lesson's best attacker writes the defense into the objective."""
    named = defense.name in (robust.PGD, poisoning.POISONING)
    return named or defense.keep is not None or defense.gradients is not None


def best_objective(victim: trials.Victim, scene: from_scratch.Scene, goal: Targeted) -> Objective:
    """What an attacker lowers who knows this victim: the best of lesson 15."""
    defense = victim.defense
    if defense.keep:
        base = from_scratch.best_bases(scene, goal)
        return hidden_alignment(scene.data.x[base], weight=1.0)
    if defense.gradients:
        convolutional = has_convolutions(scene.model)
        return ghost_alignment(1.0) if convolutional else clipped_alignment(1.0)
    if in_objective(defense):
        generator = torch.Generator(scene.data.x.device).manual_seed(scene.seed)
        return rewritten_alignment(defense, scene.data, generator, constant=True)
    return gradient_matching.alignment_loss


def best_surrogates(scene: from_scratch.Scene, victim: trials.Victim) -> list[Classifier]:
    """Plain ones where the objective holds the defense; for all others such as train like it."""
    if in_objective(victim.defense):
        return scene.surrogates
    return from_scratch.surrogates(scene, victim)


def matching(
    seed: int,
    setting: Setting = MLP,
    goal: Targeted | None = None,
    scene: from_scratch.Scene | None = None,
) -> trials.Case:
    """Gradient matching, 150 poisons at 32/255, by an attacker who knows every victim."""
    scene = scene or from_scratch.draw_scene(seed, setting=setting)
    goal = goal or from_scratch.matching(seed, setting, scene=scene).goal
    ways = {"known": best_surrogates, "objective": partial(best_objective, goal=goal)}
    return from_scratch.matching(seed, setting, goal=goal, scene=scene, **ways)


def bullseye(seed: int, setting: Setting = MLP) -> trials.Case:
    """Bullseye Polytope with 5 poisons, which lie together where the victim has a filter."""
    draw = transfer.draw_transfer(seed, setting=setting)

    def craft(victim: trials.Victim) -> Poison | None:
        loss = feature_collision.bullseye_loss
        if victim.defense.keep:
            loss = feature_collision.collision_loss
        return transfer.collide(draw.extractor, draw, seed, loss, setting=setting)

    return replace(transfer.bullseye(seed, setting, draw=draw), craft=craft)
