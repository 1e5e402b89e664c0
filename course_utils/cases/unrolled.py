"""Built in lesson 06, MetaPoison.

Generated from notebooks/06_metapoison.ipynb: edit it there, then run make notebooks.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from course_utils.attacks.gradient_matching import staggered
from course_utils.attacks.metapoison import largest_gradients, metapoison
from course_utils.cases.goals import draw_goal
from course_utils.data import Data, balanced, load
from course_utils.models import Classifier, build
from course_utils.settings import MLP, Setting
from course_utils.threat import Poison, Targeted, ThreatModel
from course_utils.training import Recipe, Scenario
from course_utils.trials import Case, Victim

TRAININGS, AGES = 4, (0.1, 0.25, 0.5, 1)  # of each training, copies at these shares of it
EPSILON = 32 / 255


def moments(recipe: Recipe, shares: Sequence[float] = AGES) -> list[int]:
    """The epochs after which a copy of each surrogate is kept."""
    return sorted({max(1, int(share * recipe.epochs)) for share in shares})


def last_two(surrogates: Sequence[Classifier], kept: Sequence[int]) -> list[Classifier]:
    """Of each training the copy before the last, and the last."""
    return [s for i, s in enumerate(surrogates) if i % len(kept) >= len(kept) - 2]


@dataclass(frozen=True, eq=False)
class Scene:
    """What a trial begins with; all conditions share it.

    surrogates: of all ages, for MetaPoison. older: those that gradient matching uses.
    base: the rows to poison, the largest gradients first. steps: of crafting. seed: of the trial.
    """

    data: Data
    test: Data
    model: Classifier
    surrogates: list[Classifier]
    older: list[Classifier]
    goal: Targeted
    base: Tensor
    threat: ThreatModel
    steps: int
    seed: int
    recipe: Recipe
    scenario: Scenario = "scratch"


def aim(
    adults: Sequence[Classifier], data: Data, test: Data, threat: ThreatModel, seed: int
) -> tuple[Targeted, Tensor]:
    """Draw a target that fully trained surrogates classify correctly, and choose the base rows."""
    goal = draw_goal(adults, test, seed)
    return goal, largest_gradients(adults, data, goal, threat)


def draw_scene(seed: int, device: torch.device | str = "cpu", setting: Setting = MLP) -> Scene:
    """Draw 3,000 training images, train the surrogates, draw a target and 150 base images."""
    train_all, test = (part.to(device) for part in load("fashion_mnist"))
    data = balanced(train_all, setting.scaled(3000), seed)
    model, recipe = build(setting.network, data.shape, len(data.classes)), setting.recipe
    kept = moments(recipe)
    surrogates = staggered(model, data, recipe, seed, range(TRAININGS), kept)
    older = last_two(surrogates, kept)
    threat = ThreatModel(setting.scaled(150), EPSILON, clean_label=True)
    goal, base = aim(older[1::2], data, test, threat, seed)
    given = (data, test, model, surrogates, older, goal, base, threat)
    return Scene(*given, setting.scaled(100), seed, recipe)


def timed(attack: Callable[..., Poison], scene: Scene, **options) -> tuple[Poison, float]:
    """Craft a poison from the base rows of a scene and check it; the poison and its CPU seconds."""
    given = {"surrogates": scene.surrogates, "base": scene.base, "steps": scene.steps, **options}
    begin = time.process_time()
    poison = attack(data=scene.data, goal=scene.goal, threat=scene.threat, seed=scene.seed, **given)
    seconds = time.process_time() - begin
    poison.check(scene.threat, scene.data)
    return poison, seconds


def case_of(scene: Scene) -> Case:
    """MetaPoison in a scene, as a case."""

    def attack(victim: Victim) -> Poison:
        return timed(metapoison, scene)[0]

    given = (scene.data, scene.goal, scene.test, scene.model, scene.recipe, scene.seed)
    return Case(*given, attack, scene.scenario)


def metapoison_case(seed: int, setting: Setting = MLP) -> Case:
    """150 poisons at 32/255 against a victim that trains from scratch; it expects no defense."""
    return case_of(draw_scene(seed, setting=setting))
