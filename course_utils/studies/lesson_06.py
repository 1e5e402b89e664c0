"""Built in lesson 06, MetaPoison.

Generated from notebooks/06_metapoison.ipynb: edit it there, then run make notebooks.
"""

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from course_utils.attacks.gradient_matching import gradient_matching, staggered
from course_utils.attacks.metapoison import (
    FIVE_STEPS,
    Unrolling,
    largest_gradients,
    margin_loss,
    metapoison,
)
from course_utils.data import Data, balanced, load
from course_utils.models import Classifier, build
from course_utils.stored import Study
from course_utils.studies.goals import draw_goal
from course_utils.threat import Poison, Targeted, ThreatModel
from course_utils.training import Recipe, Scenario, train
from course_utils.trials import compare, with_controls

SCRATCH = Recipe(epochs=20, batch_size=100, lr=0.05)
TRAININGS, AGES = 4, (2, 5, 10, 20)
THREAT = ThreatModel(budget=150, epsilon=32 / 255, clean_label=True)


@dataclass(frozen=True, eq=False)
class Scene:
    """What a trial begins with; all conditions share it.

    surrogates: of all ages, for MetaPoison. older: those that gradient matching uses.
    base: the rows to poison, the largest gradients first. seed: of the trial.
    """

    data: Data
    test: Data
    model: Classifier
    surrogates: list[Classifier]
    older: list[Classifier]
    goal: Targeted
    base: Tensor
    seed: int
    recipe: Recipe = SCRATCH
    scenario: Scenario = "scratch"


def aim(
    adults: Sequence[Classifier], data: Data, test: Data, threat: ThreatModel, seed: int, near: bool
) -> tuple[Targeted, Tensor]:
    """Draw a target that fully trained surrogates classify correctly, and choose the base rows."""
    goal = draw_goal(adults, test, seed, near)
    return goal, largest_gradients(adults, data, goal, threat)


def draw_scene(seed: int, device: torch.device | str = "cpu") -> Scene:
    """Draw 3,000 training images, train the surrogates, draw a target and 150 base images."""
    train_all, test = (part.to(device) for part in load("fashion_mnist"))
    data = balanced(train_all, 3000, seed)
    model = build("mlp", data.shape, len(data.classes))
    surrogates = staggered(model, data, SCRATCH, seed, TRAININGS, AGES)
    older = [s for s, age in zip(surrogates, AGES * TRAININGS, strict=True) if age >= 10]
    goal, base = aim(older[1::2], data, test, THREAT, seed, near=True)
    return Scene(data, test, model, surrogates, older, goal, base, seed)


Crafted = dict[str, tuple[Poison | None, float]]  # by condition: a poison, and its CPU seconds


def timed(attack: Callable[..., Poison], scene: Scene, threat: ThreatModel, **options) -> tuple:
    """Craft a poison from the first base rows and check it; the poison and its CPU seconds."""
    given = {"surrogates": scene.surrogates, "base": scene.base[: threat.budget], **options}
    begin = time.process_time()
    poison = attack(data=scene.data, goal=scene.goal, threat=threat, seed=scene.seed, **given)
    seconds = time.process_time() - begin
    poison.check(threat, scene.data)
    return poison, seconds


def both(scene: Scene, threat: ThreatModel, how: Unrolling = FIVE_STEPS) -> Crafted:
    """Both attacks on the same base rows, with the same threat model."""
    return {
        "gradient matching": timed(gradient_matching, scene, threat, surrogates=scene.older),
        "MetaPoison": timed(metapoison, scene, threat, how=how),
    }


def controls(scene: Scene, crafted: Crafted) -> Crafted:
    """The conditions that an attack must beat: clean data, and noise of MetaPoison's size."""
    noise = with_controls(crafted["MetaPoison"][0], scene.data, scene.seed)["noise"]
    return {"clean": (None, 0.0), "noise": (noise, 0.0)}


def victims(scene: Scene, crafted: Crafted, **labels) -> list[dict]:
    """Train and measure one victim for each condition; the CPU seconds of crafting stand beside."""
    rows = compare(
        {name: poison for name, (poison, _) in crafted.items()},
        goal=scene.goal,
        data=scene.data,
        test=scene.test,
        model=scene.model,
        recipe=scene.recipe,
        seed=scene.seed,
        scenario=scene.scenario,
    )
    return [{**labels, **row, "crafting": crafted[row["condition"]][1]} for row in rows]


def main_trial(seed: int) -> list[dict]:
    """Clean data, noise, gradient matching and MetaPoison from scratch."""
    scene = draw_scene(seed)
    crafted = both(scene, THREAT)
    return victims(scene, controls(scene, crafted) | crafted)


MAIN_STUDY = Study("metapoison", "06", main_trial, range(40))


VARIANTS = {
    "1 step": Unrolling(steps=1),
    "2 steps": Unrolling(steps=2),
    "5 steps, first order": Unrolling(first_order=True),
    "5 steps, margin loss": Unrolling(loss=margin_loss),
    "5 steps, no clean images": Unrolling(clean=0),
}


def variants_trial(seed: int) -> list[dict]:
    """MetaPoison with other settings, on the first trials of the main study."""
    scene = draw_scene(seed)
    crafted = {name: timed(metapoison, scene, THREAT, how=how) for name, how in VARIANTS.items()}
    return victims(scene, crafted)


VARIANTS_STUDY = Study("metapoison_variants", "06", variants_trial, range(20))


TUNING = Recipe(epochs=10, batch_size=100, lr=0.02)
TUNING_THREAT = ThreatModel(budget=50, epsilon=32 / 255, clean_label=True)
TUNING_STEPS, TUNING_AGES = Unrolling(lr=0.05), (2, 5, 10)


def tuned(model: Classifier, data: Data, seed: int) -> list[Classifier]:
    """Copies of a model that is fine-tuned on the data, after 2, 5 and 10 epochs."""
    copies = []

    def keep(surrogate: Classifier, epoch: int) -> None:
        if epoch in TUNING_AGES:
            copies.append(copy.deepcopy(surrogate))

    train(model, data, TUNING, scenario="finetune", seed=seed, after_epoch=keep)
    return copies


def draw_tuning_scene(seed: int) -> Scene:
    """A model trained on 3,000 images that is fine-tuned on 1,000 others; 50 base images."""
    train_all, test = load("fashion_mnist")
    drawn = balanced(train_all, 4000, seed)
    old, data = drawn[:3000], drawn[3000:]
    model = train(build("mlp", data.shape, len(data.classes)), old, SCRATCH, seed=seed)
    first, second = (tuned(model, data, 1000 * (seed + 1) + number) for number in range(2))
    older, adults = first[1:] + second[1:], [first[-1], second[-1]]
    goal, base = aim(adults, data, test, TUNING_THREAT, seed, near=True)
    return Scene(data, test, model, first + second, older, goal, base, seed, TUNING, "finetune")


def tuning_trial(seed: int) -> list[dict]:
    """Clean data, noise, gradient matching and MetaPoison against a victim that is fine-tuned."""
    scene = draw_tuning_scene(seed)
    crafted = both(scene, TUNING_THREAT, TUNING_STEPS)
    return victims(scene, controls(scene, crafted) | crafted)


TUNING_STUDY = Study("metapoison_finetuning", "06", tuning_trial, range(20))
