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

EXTRACTORS = {
    "mlp": Recipe(epochs=20, batch_size=100, lr=0.05, weight_decay=2e-3),
    "small_cnn": Recipe(epochs=5, batch_size=50, lr=0.1),
}
HEAD = Recipe(epochs=40, batch_size=50, lr=0.5, weight_decay=0.0)


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
    return train(model, part, EXTRACTORS[name], seed=seed)


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
        feature_collision, loss=bullseye_loss, steps=200, lr=0.05
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
        row |= {"budget": 0 if poison is None else len(poison), **near, **labels}
    return rows


def noise_of(poison: Poison, data: Data, seed: int) -> Poison:
    """Random noise of the same size on the same images."""
    return poison.noise_control(data, torch.Generator(data.x.device).manual_seed(seed))


def collision_trial(seed: int, near: bool = True) -> list[dict]:
    """White box: clean, every attack at its budgets, and noise like Bullseye's."""
    draw = draw_transfer(seed, near)
    rows = measure(draw, draw.extractor, {"clean": None}, seed)
    for budget in BUDGETS:
        if near or budget in (5, 25):
            attacks = COLLISIONS | (OTHERS if near and budget in (1, 5, 25) else {})
            poisons = craft(attacks, [draw.extractor], draw, budget, seed)
            poisons["noise"] = noise_of(poisons["Bullseye Polytope"], draw.data, seed)
            rows += measure(draw, draw.extractor, poisons, seed)
    return rows


def far_trial(seed: int) -> list[dict]:
    """The same with class pairs that are no neighbours, at two budgets."""
    return collision_trial(seed, near=False)


NEAR_STUDY = Study("collision_near", "04", collision_trial, range(60))
FAR_STUDY = Study("collision_far", "04", far_trial, range(40))


def black_box_trial(seed: int) -> list[dict]:
    """25 poisons from one or four surrogates, against victims with other extractors."""
    draw = draw_transfer(seed)
    ours, theirs = draw.others[:6500], draw.others[6500:]
    more = [train_extractor("mlp", ours, seed + 20_000 * k) for k in (1, 2, 3)]
    surrogates = {1: [draw.extractor], 4: [draw.extractor, *more]}
    poisons = {n: craft(COLLISIONS, known, draw, 25, seed) for n, known in surrogates.items()}
    victims = {
        "same features": draw.extractor,
        "other training": train_extractor("mlp", theirs, seed + 100_000),
        "other architecture": train_extractor("small_cnn", theirs, seed + 100_000),
    }
    rows = []
    for name, victim in victims.items():
        rows += measure(draw, victim, {"clean": None}, seed, victim=name, surrogates=0)
        for count in surrogates:
            labels = {"victim": name, "surrogates": count}
            rows += measure(draw, victim, poisons[count], seed, **labels)
    return rows


BLACK_STUDY = Study("collision_black_box", "04", black_box_trial, range(40))


FINETUNE = Recipe(epochs=20, batch_size=50, lr=0.05)


def finetune_trial(seed: int) -> list[dict]:
    """Every layer moves: clean, each collision at two budgets, and noise like Bullseye's."""
    draw = draw_transfer(seed)
    rows = measure(draw, draw.extractor, {"clean": None}, seed, "finetune", FINETUNE)
    for budget in (5, 25):
        poisons = craft(COLLISIONS, [draw.extractor], draw, budget, seed)
        poisons["noise"] = noise_of(poisons["Bullseye Polytope"], draw.data, seed)
        rows += measure(draw, draw.extractor, poisons, seed, "finetune", FINETUNE)
    return rows


FINETUNE_STUDY = Study("collision_finetune", "04", finetune_trial, range(40))
