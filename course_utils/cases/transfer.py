"""Built in lesson 04, feature collision.

Generated from notebooks/04_feature_collision.ipynb: edit it there, then run make notebooks.
"""

from typing import NamedTuple

import torch

from course_utils.attacks.crafting import granted
from course_utils.attacks.feature_collision import (
    FeatureLoss,
    bullseye_loss,
    collision_loss,
    convex_polytope_loss,
    feature_collision,
)
from course_utils.cases.goals import draw_goal
from course_utils.data import Data, balanced, load
from course_utils.defense import PLAIN, Defense
from course_utils.models import Classifier, build
from course_utils.settings import MLP, Setting
from course_utils.threat import Poison, Targeted, ThreatModel
from course_utils.training import Recipe, train
from course_utils.trials import Case, Victim

EXTRACTOR = Recipe(epochs=20, batch_size=50, lr=0.1, weight_decay=0.0)
HEAD = Recipe(epochs=40, batch_size=100, lr=1.0, weight_decay=0.0)
FINETUNE = Recipe(epochs=20, batch_size=50, lr=0.05, weight_decay=0.0)


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


def train_extractor(
    images: Data, seed: int, setting: Setting = MLP, defense: Defense = PLAIN
) -> Classifier:
    """A model trained on 4,000 of the images: its features can be frozen, its head refitted."""
    part = balanced(images, setting.scaled(4000), seed)
    model = build(setting.network, part.shape, len(part.classes))
    return train(model, part, EXTRACTOR, seed=seed, defense=defense)


def draw_transfer(
    seed: int, near: bool = True, device: torch.device | str = "cpu", setting: Setting = MLP
) -> Transfer:
    """Draw a trial of transfer learning on Fashion-MNIST; near: neighbouring classes.

    The target is one that the extractor and a head fitted with another seed classify correctly.
    """
    train_all, test_all = (part.to(device) for part in load("fashion_mnist"))
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randperm(len(train_all), generator=generator).to(device)
    data = balanced(train_all[rows[:2000]], max(setting.scaled(500), 100), seed)
    extractor = train_extractor(train_all[rows[2000:7000]], seed, setting)
    surrogate = train(extractor, data, HEAD, scenario="transfer", seed=10_000 + seed)
    others, rows = train_all[rows[7000:]], torch.randperm(len(test_all), generator=generator)
    held_out, test = test_all[rows[:1000].to(device)], test_all[rows[1000:].to(device)]
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


BULLSEYE = "Bullseye Polytope"
COLLISIONS: dict[str, FeatureLoss] = {
    "Poison Frogs, bounded": collision_loss,
    "Convex Polytope": convex_polytope_loss,
    BULLSEYE: bullseye_loss,
}


def collide(
    extractor: Classifier,
    draw: Transfer,
    seed: int,
    loss: FeatureLoss = bullseye_loss,
    budget: int = 5,
    setting: Setting = MLP,
) -> Poison | None:
    """Poisons at 32/255 that lower a loss in features; None if nothing is left to attack."""
    if granted([extractor], draw.goal):
        return None
    threat = ThreatModel(setting.scaled(budget), EPSILON, clean_label=True)
    options = dict(loss=loss, steps=setting.scaled(100))
    poison = feature_collision([extractor], draw.data, draw.goal, threat, seed, **options)
    poison.check(threat, draw.data)
    return poison


def bullseye(
    seed: int, setting: Setting = MLP, budget: int = 5, draw: Transfer | None = None
) -> Case:
    """Bullseye Polytope against a head on frozen features, which the attacker has."""
    draw = draw_transfer(seed, setting=setting) if draw is None else draw

    def craft(victim: Victim) -> Poison | None:
        return collide(draw.extractor, draw, seed, budget=budget, setting=setting)

    recipe = setting.shortened(HEAD)
    given = (draw.data, draw.goal, draw.test, draw.extractor, recipe, seed, craft)
    return Case(*given, scenario="transfer")
