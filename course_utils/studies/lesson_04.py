"""Built in lesson 04, feature collision.

Generated from notebooks/04_feature_collision.ipynb: edit it there, then run make notebooks.
"""

from typing import NamedTuple

import torch

from course_utils.data import Data, balanced, load
from course_utils.models import Classifier, build
from course_utils.studies.goals import draw_goal
from course_utils.threat import Targeted
from course_utils.training import Recipe, train

EXTRACTOR = Recipe(epochs=10, batch_size=100, lr=0.05)
HEAD = Recipe(epochs=60, batch_size=50, lr=0.5, weight_decay=0.0)


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
    """A model trained on 5,000 of the images; its features can be frozen, its head refitted."""
    part = balanced(images, 5000, seed)
    return train(build(name, part.shape, len(part.classes)), part, EXTRACTOR, seed=seed)


def draw_transfer(seed: int, near: bool = True, device: torch.device | str = "cpu") -> Transfer:
    """Draw a trial of transfer learning on Fashion-MNIST; near: neighbouring classes.

    The target is one that the extractor and a head fitted with another seed classify correctly.
    """
    train_all, test_all = (part.to(device) for part in load("fashion_mnist"))
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randperm(len(train_all), generator=generator).to(device)
    data = balanced(train_all[rows[:2000]], 500, seed)
    seen, others = train_all[rows[2000:11000]], train_all[rows[11000:]]
    extractor = train_extractor("mlp", seen, seed)
    surrogate = train(extractor, data, HEAD, scenario="transfer", seed=10_000 + seed)
    rows = torch.randperm(len(test_all), generator=generator).to(device)
    held_out, test = test_all[rows[:1000]], test_all[rows[1000:]]
    goal = draw_goal([extractor, surrogate], held_out, seed, near)
    return Transfer(extractor, data, test, goal, others)
