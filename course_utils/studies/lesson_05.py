"""Built in lesson 05, gradient matching.

Generated from notebooks/05_gradient_matching.ipynb: edit it there, then run make notebooks.
"""

import copy
from dataclasses import dataclass
from functools import cache

from torch import Tensor

from course_utils.attacks.crafting import candidates
from course_utils.attacks.gradient_matching import choose_bases, gradient_matching, staggered
from course_utils.data import Data, balanced, load
from course_utils.models import Classifier, build
from course_utils.stored import Study
from course_utils.studies.goals import draw_goal
from course_utils.threat import Poison, Targeted, ThreatModel
from course_utils.training import Recipe, train
from course_utils.trials import compare, with_controls

RECIPE = Recipe(epochs=20, batch_size=100, lr=0.05)
TRAININGS = 2
AGES = (10, 20)  # the epochs after which a copy of each surrogate is kept
EPSILONS = {"8/255": 8 / 255, "16/255": 16 / 255, "32/255": 32 / 255}


@dataclass(frozen=True, eq=False)
class Scene:
    """What a trial begins with: data, test images, a model, surrogates of all ages, and a seed."""

    data: Data
    test: Data
    model: Classifier
    surrogates: list[Classifier]
    seed: int

    @property
    def adults(self) -> list[Classifier]:
        """The surrogates that are fully trained."""
        return self.surrogates[len(AGES) - 1 :: len(AGES)]


def draw_scene(seed: int, trainings: int = TRAININGS) -> Scene:
    """Draw 3,000 training images and train surrogates on them."""
    train_all, test = load("fashion_mnist")
    data = balanced(train_all, 3000, seed)
    model = build("mlp", data.shape, len(data.classes))
    surrogates = staggered(model, data, RECIPE, seed, trainings, AGES)
    return Scene(data, test, model, surrogates, seed)


def best_bases(scene: Scene, goal: Targeted, budget: int = 150) -> Tensor:
    """The images of the adversarial class with the largest gradients, the largest first."""
    rows = candidates(scene.data, goal.adversarial_class, budget)
    return choose_bases(scene.adults, scene.data, rows, budget)


def craft(scene: Scene, goal: Targeted, base: Tensor, epsilon: str, **options) -> Poison:
    """Gradient matching on these base rows, checked against its threat model."""
    threat = ThreatModel(len(base), EPSILONS[epsilon], clean_label=True)
    options = {"surrogates": scene.surrogates, **options}
    poison = gradient_matching(
        data=scene.data, goal=goal, threat=threat, seed=scene.seed, base=base, **options
    )
    poison.check(threat, scene.data)
    return poison


def victims(
    scene: Scene,
    goal: Targeted,
    poisons: dict[str, Poison | None],
    model: Classifier | None = None,
    **labels,
) -> list[dict]:
    """Train and measure one victim for each condition, from a seed that no surrogate had."""
    rows = compare(
        poisons,
        goal=goal,
        data=scene.data,
        test=scene.test,
        model=scene.model if model is None else model,
        recipe=RECIPE,
        seed=scene.seed,
    )
    return [{**labels, **row} for row in rows]


DOSES = [("32/255", 150), ("32/255", 60), ("32/255", 30), ("16/255", 150), ("8/255", 150)]


def dose_rows(scene: Scene, goal: Targeted, base: Tensor) -> list[dict]:
    """A clean victim, one for each dose, and one with noise of the largest dose."""
    rows = victims(scene, goal, {"clean": None}, victim="MLP 256", epsilon="none", budget=0)
    for dose in DOSES:
        epsilon, budget = dose
        poison = craft(scene, goal, base[:budget], epsilon)
        poisons = {"attack": poison}
        if dose == DOSES[0]:
            poisons["noise"] = with_controls(poison, scene.data, scene.seed)["noise"]
            largest = poison
        rows += victims(scene, goal, poisons, victim="MLP 256", epsilon=epsilon, budget=budget)
    narrow = build("mlp", scene.data.shape, len(scene.data.classes), width=128)
    labels = dict(victim="MLP 128", epsilon=DOSES[0][0], budget=DOSES[0][1])
    return rows + victims(scene, goal, {"attack": largest}, narrow, **labels)


def dose_trial(seed: int) -> list[dict]:
    """Two goals: a neighbouring class at every dose, and a far one at the largest."""
    scene = draw_scene(seed)
    near = draw_goal(scene.adults, scene.test, seed)
    rows = [{"pair": "near", **row} for row in dose_rows(scene, near, best_bases(scene, near))]
    far = draw_goal(scene.adults, scene.test, seed, near=False)
    epsilon, budget = DOSES[0]
    poison = craft(scene, far, best_bases(scene, far, budget), epsilon)
    labels = {"pair": "far", "victim": "MLP 256", "epsilon": epsilon, "budget": budget}
    return rows + victims(scene, far, {"attack": poison}, **labels)


DOSE_STUDY = Study("gradient_matching", "05", dose_trial, range(20))


FINETUNE = Recipe(epochs=20, batch_size=50, lr=0.05)


@cache
def public_cnn() -> tuple[Classifier, Data]:
    """A trained CNN that attacker and victim both have, and 4,000 images that it has not seen."""
    pool = balanced(load("fashion_mnist")[0], 10_000, seed=0)
    recipe = Recipe(epochs=6, batch_size=50, lr=0.1)
    model = build("small_cnn", pool.shape, len(pool.classes))
    return train(model, pool[:6000], recipe, seed=5), pool[6000:]


def tuned(model: Classifier, data: Data, seed: int) -> list[Classifier]:
    """The model itself, and copies of it after 10 and 20 epochs of fine-tuning."""
    copies = [model]

    def keep(surrogate: Classifier, epoch: int) -> None:
        if epoch in AGES:
            copies.append(copy.deepcopy(surrogate))

    train(model, data, FINETUNE, scenario="finetune", seed=1000 * (seed + 1), after_epoch=keep)
    return copies


def finetune_trial(seed: int) -> list[dict]:
    """Fine-tuning the CNN on 500 images, 50 of them poisons, or noise of the same size."""
    public, rest = public_cnn()
    data, test = balanced(rest, 500, seed), load("fashion_mnist")[1]
    surrogates = tuned(public, data, seed)
    goal = draw_goal(surrogates, test, seed)
    threat = ThreatModel(50, EPSILONS["32/255"], clean_label=True)
    poison = gradient_matching(surrogates, data, goal, threat, seed)
    poison.check(threat, data)
    noise = with_controls(poison, data, seed)["noise"]
    return compare(
        {"noise": noise, "attack": poison},
        goal=goal,
        data=data,
        test=test,
        model=public,
        recipe=FINETUNE,
        seed=seed,
        scenario="finetune",
    )


FINETUNE_STUDY = Study("gradient_matching_cnn", "05", finetune_trial, range(20))
