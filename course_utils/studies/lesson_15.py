"""Built in lesson 15, adaptive attacks.

Generated from notebooks/15_adaptive_attacks.ipynb: edit it there, then run make notebooks.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from course_utils.attacks.adaptive import (
    clipped_alignment,
    hidden_alignment,
    kept_alive,
    loss_under,
    rewritten_alignment,
)
from course_utils.attacks.feature_collision import bullseye_loss, collision_loss, feature_collision
from course_utils.attacks.gradient_matching import Objective, alignment_loss, target_gradient
from course_utils.data import Data
from course_utils.defense import Defense
from course_utils.defenses.filters import deep_knn, spectral_signatures
from course_utils.defenses.gradient_shaping import gradient_shaping
from course_utils.defenses.pgd_training import pgd_training
from course_utils.models import Classifier
from course_utils.stored import Study
from course_utils.studies import lesson_10, lesson_12, lesson_13
from course_utils.studies.goals import draw_goal
from course_utils.studies.lesson_04 import BULLSEYE, EPSILON, HEAD, Transfer, draw_transfer
from course_utils.studies.lesson_05 import RECIPE, TRAININGS, Scene, best_bases, craft, draw_scene
from course_utils.studies.lesson_11 import Case, removal
from course_utils.studies.lesson_13 import granted
from course_utils.studies.lesson_14 import CHEAP, CHEAP96, defended_surrogates
from course_utils.threat import Poison, Targeted, ThreatModel
from course_utils.training import Recipe, train


def held_out(scene: Scene, defense: Defense, recipe: Recipe = RECIPE) -> Classifier:
    """A fully trained surrogate that no crafting has seen, to check an objective with."""
    return defended_surrogates(scene, defense, recipe, [TRAININGS])[-1]


class Defended(NamedTuple):
    """A defense, how its victims train, and how an attacker writes it into the objective.

    objective: (clean data, generator) -> the adapted objective. average: what the defense does to
    a gradient on average; another defense only where noise of mean zero can be left out.
    """

    defense: Defense
    recipe: Recipe
    objective: Callable[[Data, torch.Generator], Objective]
    average: Defense


def rewriting(defense: Defense, recipe: Recipe, constant: bool) -> Defended:
    """A defense that rewrites the batch."""
    return Defended(
        defense, recipe, partial(rewritten_alignment, defense, constant=constant), defense
    )


def clipping(company: Data, generator: torch.Generator) -> Objective:
    """The adapted objective against gradient shaping: it needs no company and draws nothing."""
    return clipped_alignment(1.0)


SHAPING, SHIFTS, CUTMIX, PGD = "clip + noise", "augmentation", "CutMix", "PGD training"
SHAPED = Defended(
    gradient_shaping(1.0, 0.5), lesson_10.tuned(0.2), clipping, gradient_shaping(1.0, 0.0)
)
DEFENDED = {
    SHAPING: SHAPED,
    PGD: rewriting(pgd_training(16 / 255, 1), RECIPE, constant=True),
    SHIFTS: rewriting(*lesson_12.VICTIMS[SHIFTS], constant=False),
    CUTMIX: rewriting(*lesson_12.VICTIMS[CUTMIX], constant=False),
}


UNAWARE = ("plain", "plain")
WAYS = [(s, o) for s in ("plain", "defended") for o in ("plain", "adapted")]


def craft_all(how: Defended, scene: Scene, goal: Targeted, base: Tensor) -> dict:
    """The poisons for one defense by (surrogates, objective): each plain, or with the defense.

    None where the surrogates already give the target to the adversarial class.
    """
    defended = defended_surrogates(scene, how.defense, how.recipe)
    models, crafted = {"plain": scene.surrogates, "defended": defended}, {}
    for surrogates, objective in WAYS:
        generator = torch.Generator(scene.data.x.device).manual_seed(scene.seed)
        losses = {"plain": alignment_loss, "adapted": how.objective(scene.data, generator)}
        options = dict(surrogates=models[surrogates], loss=losses[objective])
        if granted(models[surrogates], goal):
            crafted[surrogates, objective] = None
        else:
            crafted[surrogates, objective] = craft(scene, goal, base, "32/255", **options)
    return crafted


def judge(how: Defended, scene: Scene, goal: Targeted) -> Callable[[Poison | None], float]:
    """Step 3 for one defense: a function that gives the loss of a poison, NaN for none."""
    model = held_out(scene, how.defense, how.recipe)
    label = torch.tensor([goal.adversarial_class], device=goal.image.device)
    wanted = target_gradient(model, goal.image[None], label)

    def loss(poison: Poison | None) -> float:
        if poison is None:
            return float("nan")
        generator = torch.Generator(goal.image.device).manual_seed(scene.seed)
        parts = (poison.images, poison.labels, wanted, scene.data, generator)
        return loss_under(how.average, model, *parts)

    return loss


def attacked_victim(
    how: Defended, scene: Scene, goal: Targeted, poison: Poison | None
) -> dict[str, float | bool]:
    """A defended victim of this poison: its accuracy, success, and the target's probability.

    fitted: the share of the poisons that it classifies as labelled; NaN without any.
    """
    seen = scene.data if poison is None else poison.apply(scene.data)
    victim = train(scene.model, seen, how.recipe, defense=how.defense, seed=scene.seed)
    with torch.no_grad():
        probabilities = victim(goal.image[None]).softmax(1)[0]
    found = {"fitted": lesson_13.fitted(victim, poison), **goal.measure(victim, scene.test)}
    return {**found, "probability": probabilities[goal.adversarial_class].item()}


def adaptive_trial(seed: int, defended: Mapping[str, Defended]) -> list[dict]:
    """150 poisons at 32/255 against each of these defenses, in the four ways of `craft_all`."""
    scene = draw_scene(seed)
    goal, rows = draw_goal(scene.adults, scene.test, seed), []
    base = best_bases(scene, goal)
    for name, how in defended.items():
        loss = judge(how, scene, goal)
        for (surrogates, objective), poison in craft_all(how, scene, goal, base).items():
            row = {"defense": name, "surrogates": surrogates, "objective": objective}
            row |= {"loss": loss(poison), **attacked_victim(how, scene, goal, poison)}
            rows.append(row)
    return rows


def shaping_trial(seed: int) -> list[dict]:
    """Gradient shaping."""
    return adaptive_trial(seed, {SHAPING: DEFENDED[SHAPING]})


def batch_trial(seed: int) -> list[dict]:
    """PGD training, and shifts and flips."""
    return adaptive_trial(seed, {name: DEFENDED[name] for name in (PGD, SHIFTS)})


def cutmix_trial(seed: int) -> list[dict]:
    """CutMix."""
    return adaptive_trial(seed, {CUTMIX: DEFENDED[CUTMIX]})


ON_SHAPING = Study("adaptive_shaping", "15", shaping_trial, range(40))
ON_BATCHES = Study("adaptive_batch", "15", batch_trial, range(40))
ON_CUTMIX = Study("adaptive_cutmix", "15", cutmix_trial, range(20))


ALIVE = "kept alive"
COUNTS = (5, 10, 25)


def collisions(draw: Transfer, budget: int) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    """Three losses in features: Bullseye, oblivious; and two that mind the vote of neighbours."""
    alive = kept_alive(draw.extractor, draw.data, draw.goal, budget, weight=1.0, near=budget)
    return {BULLSEYE: bullseye_loss, "bunched": collision_loss, ALIVE: alive}


def collide_with(
    draw: Transfer, loss: Callable[[Tensor, Tensor], Tensor], budget: int, seed: int
) -> Case:
    """Poisons at 32/255 that lower a loss in features, and the head that they attack."""
    threat = ThreatModel(budget, EPSILON, clean_label=True)
    poison = feature_collision([draw.extractor], draw.data, draw.goal, threat, seed, loss=loss)
    poison.check(threat, draw.data)
    shared = (draw.goal, draw.test, draw.extractor, HEAD, seed, "transfer")
    return Case(draw.data, poison, *shared)


def filtered_rows(case: Case) -> list[dict]:
    """A victim without a filter, and with each of two that are told how many poisons there are."""
    seen, size = case.poison.apply(case.data), len(case.data) // len(case.data.classes)
    looker = case.fit(seen)
    filters = {
        "none": None,
        "Deep k-NN": deep_knn(2 * case.bound),
        "Spectral Signatures": spectral_signatures(min(1.5 * case.bound / size, 0.9)),
    }
    rows = []
    for name, defense in filters.items():
        if defense is None:
            kept, victim = torch.ones_like(seen.y, dtype=torch.bool), looker
        else:
            kept, victim = defense.keep(seen, lambda part: looker), None
        rows.append({"filter": name, **removal(case, seen, kept, victim)})
    return rows


def collision_trial(seed: int) -> list[dict]:
    """Transfer: 5, 10 and 25 poisons of three kinds, against two filters."""
    draw, rows = draw_transfer(seed), []
    for budget in COUNTS:
        for attack, loss in collisions(draw, budget).items():
            found = filtered_rows(collide_with(draw, loss, budget, seed))
            rows += [{"attack": attack, "budget": budget, **row} for row in found]
    return rows


COLLISION = Study("adaptive_filters", "15", collision_trial, range(40))


def hidden_trial(seed: int) -> list[dict]:
    """From scratch: 60 poisons by gradient matching, with and without the feature penalty."""
    scene = draw_scene(seed)
    goal = draw_goal(scene.adults, scene.test, seed)
    base, rows = best_bases(scene, goal)[:60], []
    losses = {"plain": alignment_loss, "hidden": hidden_alignment(scene.data.x[base], 1.0)}
    for attack, loss in losses.items():
        poison = craft(scene, goal, base, "32/255", loss=loss)
        case = Case(scene.data, poison, goal, scene.test, scene.model, RECIPE, seed)
        rows += [{"attack": attack, **row} for row in filtered_rows(case)]
    return rows


HIDDEN = Study("adaptive_filters_matching", "15", hidden_trial, range(20))


POISONING = "poisoning training"
POISONED = rewriting(CHEAP96[CHEAP, "96/255"], RECIPE, constant=True)


def poisoning_trial(seed: int) -> list[dict]:
    """150 poisons at 32/255 against cheap poisoning training, in the four ways."""
    return adaptive_trial(seed, {POISONING: POISONED})


SIMULATED = Study("adaptive_poisoning", "15", poisoning_trial, range(40))


BUDGETS = (60, 240)


def budget_trial(seed: int) -> list[dict]:
    """Oblivious poisons, 60 and 240 of a class of 300, against three defenses."""
    scene = draw_scene(seed)
    goal, rows = draw_goal(scene.adults, scene.test, seed), []
    stood = {name: DEFENDED[name] for name in (PGD, SHIFTS)} | {POISONING: POISONED}
    ranked = best_bases(scene, goal, max(BUDGETS))
    for budget in BUDGETS:
        poison = craft(scene, goal, ranked[:budget], "32/255")
        for name, how in stood.items():
            found = attacked_victim(how, scene, goal, poison)
            rows.append({"defense": name, "budget": budget, **found})
    return rows


BUDGET = Study("adaptive_budgets", "15", budget_trial, range(20))
