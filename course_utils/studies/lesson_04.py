"""Built in lesson 04, feature collision.

Generated from notebooks/04_feature_collision.ipynb: edit it there, then run make notebooks.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch

from course_utils.attacks.feature_collision import (
    bullseye_loss,
    collision_loss,
    convex_polytope_loss,
    feature_collision,
    poison_frogs,
    watermark,
)
from course_utils.data import Data, balanced, load
from course_utils.models import Classifier, build
from course_utils.stored import Study
from course_utils.studies.goals import draw_goal
from course_utils.threat import Poison, Targeted, ThreatModel
from course_utils.training import Recipe, Scenario, train
from course_utils.trials import compare

EXTRACTOR = Recipe(epochs=20, batch_size=50, lr=0.1, weight_decay=0.0)
HEAD = Recipe(epochs=40, batch_size=100, lr=1.0, weight_decay=0.0)


class Transfer(NamedTuple):
    """One draw of everything random in transfer learning.

    extractor: the model whose features are frozen, trained on images that are in no other part.
    data: the 500 images to which the victim fits a new head. test: images to measure with.
    goal: the target and its adversarial class. others: images that nobody has used yet.
    """

    extractor: Classifier
    data: Data
    test: Data
    goal: Targeted
    others: Data


def train_extractor(name: str, images: Data, seed: int) -> Classifier:
    """A model trained on 4,000 of the images: its features can be frozen, its head refitted."""
    part = balanced(images, 4000, seed)
    model = build(name, part.shape, len(part.classes))
    return train(model, part, EXTRACTOR, seed=seed)


def draw_transfer(seed: int, near: bool = True, device: torch.device | str = "cpu") -> Transfer:
    """Draw a trial of transfer learning on Fashion-MNIST; near: neighbouring classes.

    The target is one that the extractor and a head fitted with another seed classify correctly.
    """
    train_all, test_all = (part.to(device) for part in load("fashion_mnist"))
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randperm(len(train_all), generator=generator).to(device)
    data, others = balanced(train_all[rows[:2000]], 500, seed), train_all[rows[7000:]]
    extractor = train_extractor("mlp", train_all[rows[2000:7000]], seed)
    surrogate = train(extractor, data, HEAD, scenario="transfer", seed=10_000 + seed)
    rows = torch.randperm(len(test_all), generator=generator).to(device)
    held_out, test = test_all[rows[:1000]], test_all[rows[1000:]]
    goal = draw_goal([extractor, surrogate], held_out, seed, near)
    return Transfer(extractor, data, test, goal, others)


EPSILON = 32 / 255


@torch.no_grad()
def distances(model: Classifier, poison: Poison, data: Data, goal: Targeted) -> dict[str, float]:
    """Distances from the target in the features of a model, of the mean and of each poison.

    The unit is the distance of the mean of the base images.
    """
    target = model.features(goal.image[None])[0]
    before, after = (model.features(x) for x in (data.x[poison.base], poison.images))
    unit = (before.mean(0) - target).norm()
    found = {"mean": (after.mean(0) - target).norm(), "each": (after - target).norm(dim=1).mean()}
    return {name: (distance / unit).item() for name, distance in found.items()}


BUDGETS = (1, 2, 5, 10, 25)
COLLISIONS = {
    "Poison Frogs, bounded": partial(feature_collision, loss=collision_loss),
    "Convex Polytope": partial(feature_collision, loss=convex_polytope_loss),
    "Bullseye Polytope": partial(feature_collision, loss=bullseye_loss),
}
OTHERS = {
    "watermark": watermark,
    "Poison Frogs, no bound": poison_frogs,
    "Bullseye Polytope, no bound": partial(
        feature_collision, loss=bullseye_loss, steps=400, lr=0.005
    ),
}


def craft(
    attacks: Mapping[str, Callable],
    surrogates: Sequence[Classifier],
    draw: Transfer,
    budget: int,
    seed: int,
) -> dict[str, Poison]:
    """The poison of each attack, checked against its threat model."""
    poisons = {}
    for name, attack in attacks.items():
        threat = ThreatModel(budget, None if "no bound" in name else EPSILON, clean_label=True)
        poisons[name] = attack(surrogates, draw.data, draw.goal, threat, seed)
        poisons[name].check(threat, draw.data)
    return poisons


def measure(
    draw: Transfer, model: Classifier, poisons: Mapping[str, Poison | None], seed: int,
    scenario: Scenario = "transfer", recipe: Recipe = HEAD, **labels: object,
) -> list[dict]:  # fmt: skip
    """One victim for each poison, and the distances of the poisons in the model's features."""
    rows = compare(
        poisons, goal=draw.goal, data=draw.data, test=draw.test, model=model,
        recipe=recipe, seed=seed, scenario=scenario,
    )  # fmt: skip
    for row in rows:
        poison = poisons[row["condition"]]
        near = {"mean": float("nan"), "each": float("nan")}
        if poison is not None:
            near = distances(model, poison, draw.data, draw.goal)
        size = 0 if poison is None else len(poison)
        row |= {"scenario": scenario, "budget": size, **near, **labels}
    return rows


FINETUNE = Recipe(epochs=20, batch_size=50, lr=0.05, weight_decay=0.0)
BULLSEYE = "Bullseye Polytope"
PLAN = {
    1: [BULLSEYE, "Poison Frogs, no bound"],
    2: [BULLSEYE],
    5: [*COLLISIONS, *OTHERS],
    10: [BULLSEYE],
    25: [*COLLISIONS],
}


def with_noise(poisons: Mapping[str, Poison], data: Data, seed: int) -> dict[str, Poison]:
    """The poisons, and random noise like Bullseye's: as large, on the same images."""
    generator = torch.Generator(data.x.device).manual_seed(seed)
    return {**poisons, "noise": poisons[BULLSEYE].noise_control(data, generator)}


def near_trial(seed: int) -> list[dict]:
    """White box, neighbouring classes: transfer as in PLAN, fine-tuning with 25 poisons."""
    draw = draw_transfer(seed)
    model, attacks = draw.extractor, COLLISIONS | OTHERS
    rows = measure(draw, model, {"clean": None}, seed)
    for budget, names in PLAN.items():
        poisons = craft({name: attacks[name] for name in names}, [model], draw, budget, seed)
        if budget in (5, 25):
            poisons = with_noise(poisons, draw.data, seed)
        rows += measure(draw, model, poisons, seed)
    tuned = {"clean": None, BULLSEYE: poisons[BULLSEYE], "noise": poisons["noise"]}
    return rows + measure(draw, model, tuned, seed, "finetune", FINETUNE)


def far_trial(seed: int) -> list[dict]:
    """White box, classes that are no neighbours: Bullseye Polytope and its noise."""
    draw = draw_transfer(seed, near=False)
    rows = measure(draw, draw.extractor, {"clean": None}, seed)
    for budget in (5, 25):
        attack = {BULLSEYE: COLLISIONS[BULLSEYE]}
        poisons = craft(attack, [draw.extractor], draw, budget, seed)
        rows += measure(draw, draw.extractor, with_noise(poisons, draw.data, seed), seed)
    return rows


NEAR_STUDY = Study("collision_near", "04", near_trial, range(50))
FAR_STUDY = Study("collision_far", "04", far_trial, range(20))


def black_box_trial(seed: int) -> list[dict]:
    """25 poisons from one or two surrogates, against a victim with another extractor."""
    draw = draw_transfer(seed)
    ours, theirs = draw.others[:6500], draw.others[6500:]
    second = train_extractor("mlp", ours, seed + 20_000)
    victim = train_extractor("mlp", theirs, seed + 100_000)
    rows = measure(draw, victim, {"clean": None}, seed, surrogates=0)
    for surrogates in ([draw.extractor], [draw.extractor, second]):
        poisons = craft(COLLISIONS, surrogates, draw, 25, seed)
        rows += measure(draw, victim, poisons, seed, surrogates=len(surrogates))
    return rows


BLACK_STUDY = Study("collision_black_box", "04", black_box_trial, range(40))
