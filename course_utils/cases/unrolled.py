"""Built in lesson 06, MetaPoison.

Generated from notebooks/06_metapoison.ipynb: edit it there, then run make notebooks.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from course_utils import settings
from course_utils.attacks import gradient_matching
from course_utils.attacks.metapoison import FIVE_STEPS, Unrolling, largest_gradients, metapoison
from course_utils.cases.goals import draw_goal
from course_utils.data import Data, balanced, load
from course_utils.models import Classifier, build
from course_utils.runtime import timed
from course_utils.threat import Poison, Targeted, ThreatModel
from course_utils.training import Recipe, Scenario
from course_utils.trials import Case, Victim

TRAININGS, AGES = 4, (0.1, 0.25, 0.5, 1.0)  # of each training a copy at these shares of it


def epochs_of(recipe: Recipe, ages: Sequence[float] = AGES) -> list[int]:
    """The epochs after which a surrogate has these ages, in order."""
    return sorted({max(1, round(age * recipe.epochs)) for age in ages})


@dataclass(frozen=True, eq=False)
class Scene:
    """What a trial begins with; all attacks share it.

    surrogates: of all ages, for MetaPoison. older: those that gradient matching uses.
    base: the rows to poison, the largest gradients first. recipe, scenario, seed: of the victim.
    """

    data: Data
    test: Data
    model: Classifier
    surrogates: list[Classifier]
    older: list[Classifier]
    goal: Targeted
    base: Tensor
    threat: ThreatModel
    recipe: Recipe
    seed: int
    scenario: Scenario = "scratch"


def threat_model(setting: settings.Setting, budget: int = 150) -> ThreatModel:
    """The budget at this size, changes by up to 32/255, labels as they were."""
    return ThreatModel(setting.scaled(budget), 32 / 255, clean_label=True)


def draw_scene(
    seed: int,
    setting: settings.Setting = settings.MLP,
    device: torch.device | str = "cpu",
    goal: Targeted | None = None,
) -> Scene:
    """Draw 3,000 training images, train the surrogates, choose 150 base images.

    goal: None draws a target that fully trained surrogates classify correctly.
    """
    train_all, test = (part.to(device) for part in load("fashion_mnist"))
    data, recipe = balanced(train_all, setting.scaled(3000), seed), setting.recipe
    model, ages = build(setting.network, data.shape, len(data.classes)), epochs_of(recipe)
    given = (model, data, recipe, seed, range(TRAININGS), ages)
    surrogates = gradient_matching.staggered(*given)
    grown = [age >= recipe.epochs // 2 for age in ages] * TRAININGS
    older = [one for one, is_grown in zip(surrogates, grown, strict=True) if is_grown]
    adults, threat = surrogates[len(ages) - 1 :: len(ages)], threat_model(setting)
    goal = goal or draw_goal(adults, test, seed)
    base = largest_gradients(adults, data, goal, threat)
    return Scene(data, test, model, surrogates, older, goal, base, threat, recipe, seed)


def craft_on(
    attack: Callable[..., Poison], scene: Scene, setting: settings.Setting, **options
) -> tuple[Poison, float]:
    """Craft a poison from the base rows of a scene and check it; the poison and its CPU seconds."""
    given = {"surrogates": scene.surrogates, "base": scene.base, **options}
    shared = {"data": scene.data, "goal": scene.goal, "threat": scene.threat, "seed": scene.seed}
    poison, seconds = timed(attack, **shared, **given, steps=setting.scaled(100))
    poison.check(scene.threat, scene.data)
    return poison, seconds


def metapoison_case(scene: Scene, setting: settings.Setting, how: Unrolling = FIVE_STEPS) -> Case:
    """MetaPoison on this scene; the attacker expects the plain victim, whichever it meets."""

    def craft(victim: Victim) -> Poison:
        return craft_on(metapoison, scene, setting, how=how)[0]

    given = (scene.data, scene.goal, scene.test, scene.model, scene.recipe, scene.seed, craft)
    return Case(*given, scene.scenario)
