"""Built in lesson 05, gradient matching.

Generated from notebooks/05_gradient_matching.ipynb: edit it there, then run make notebooks.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import Tensor

from course_utils.attacks import crafting
from course_utils.attacks.gradient_matching import (
    Objective,
    alignment_loss,
    choose_bases,
    gradient_matching,
    staggered,
)
from course_utils.cases.goals import draw_goal
from course_utils.data import Data, balanced, load
from course_utils.defense import PLAIN
from course_utils.models import Classifier, build
from course_utils.settings import MLP, Setting
from course_utils.threat import Poison, Targeted, ThreatModel
from course_utils.training import Recipe
from course_utils.trials import Case, Victim

RECIPE = MLP.recipe
TRAININGS = 2
EPSILON = 32 / 255


def ages(recipe: Recipe) -> tuple[int, int]:
    """The epochs after which a copy of each surrogate is kept: half of the training, and all."""
    return recipe.epochs // 2, recipe.epochs


@dataclass(frozen=True, eq=False)
class Scene:
    """What a trial begins with: data, test images, a model, surrogates of two ages, and a seed."""

    data: Data
    test: Data
    model: Classifier
    surrogates: list[Classifier]
    seed: int
    setting: Setting = MLP

    @property
    def adults(self) -> list[Classifier]:
        """The surrogates that are fully trained."""
        return self.surrogates[1::2]


def draw_scene(seed: int, trainings: int = TRAININGS, setting: Setting = MLP) -> Scene:
    """Draw 3,000 training images and train surrogates on them."""
    train_all, test = load("fashion_mnist")
    data, recipe = balanced(train_all, setting.scaled(3000), seed), setting.recipe
    model = build(setting.network, data.shape, len(data.classes))
    surrogates = staggered(model, data, recipe, seed, range(trainings), ages(recipe))
    return Scene(data, test, model, surrogates, seed, setting)


def best_bases(scene: Scene, goal: Targeted, budget: int = 150) -> Tensor:
    """The images of the adversarial class with the largest gradients, the largest first."""
    budget = scene.setting.scaled(budget)
    rows = crafting.candidates(scene.data, goal.adversarial_class, budget)
    return choose_bases(scene.adults, scene.data, rows, budget)


def craft(
    scene: Scene, goal: Targeted, base: Tensor, epsilon: float = EPSILON, **options
) -> Poison:
    """Gradient matching on these base rows, checked against its threat model."""
    threat = ThreatModel(len(base), epsilon, clean_label=True)
    given = {"surrogates": scene.surrogates, "steps": scene.setting.scaled(100), **options}
    poison = gradient_matching(
        data=scene.data, goal=goal, threat=threat, seed=scene.seed, base=base, **given
    )
    poison.check(threat, scene.data)
    return poison


def surrogates(
    scene: Scene, victim: Victim, numbers: Iterable[int] = range(TRAININGS)
) -> list[Classifier]:
    """Surrogates that train as this victim does; of each a copy at half time and at the end.

    numbers: which trainings; the first start from the weights of the scene's own surrogates. A
    filter among the defenses would act on clean data.
    """
    if victim == Victim(PLAIN, scene.setting.recipe) and numbers == range(TRAININGS):
        return scene.surrogates
    recipe, defense = victim.recipe, victim.defense
    given = (scene.model, scene.data, recipe, scene.seed, numbers, ages(recipe))
    return staggered(*given, defense=defense)


Known = Callable[[Scene, Victim], list[Classifier]]
Lowered = Callable[[Victim, Scene], Objective]


def attacker(
    scene: Scene, goal: Targeted, base: Tensor, epsilon: float, known: Known, lowered: Lowered
) -> Callable[[Victim], Poison | None]:
    """An attacker who crafts with the surrogates and the objective that suit the victim expected.

    They do nothing where these surrogates already grant the goal.
    """

    def craft_against(victim: Victim) -> Poison | None:
        models, loss = known(scene, victim), lowered(victim, scene)
        if crafting.granted(models, goal):
            return None
        return craft(scene, goal, base, epsilon, surrogates=models, loss=loss)

    return craft_against


def matching(
    seed: int,
    setting: Setting = MLP,
    budget: int = 150,
    epsilon: float = EPSILON,
    *,
    goal: Targeted | None = None,
    scene: Scene | None = None,
    known: Known = surrogates,
    objective: Lowered = lambda victim, scene: alignment_loss,
) -> Case:
    """Gradient matching against a victim that trains from scratch.

    goal: None draws one. scene: to share it among cases. known: the surrogates of an attacker who
    expects this victim. objective: what this attacker lowers on them.
    """
    scene = scene or draw_scene(seed, setting=setting)
    goal = goal or draw_goal(scene.adults, scene.test, seed)
    base = best_bases(scene, goal, budget)
    craft_against = attacker(scene, goal, base, epsilon, known, objective)
    given = (scene.data, goal, scene.test, scene.model, setting.recipe, seed)
    return Case(*given, craft_against)
