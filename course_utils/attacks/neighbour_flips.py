"""Built in lesson 01, measuring poisoning.

Generated from notebooks/01_measuring_poisoning.ipynb: edit it there, then run make notebooks.
"""

import torch

from course_utils import guards
from course_utils.data import Data, balanced
from course_utils.models import build, predict
from course_utils.settings import MLP, Setting
from course_utils.threat import Poison, Targeted, ThreatModel
from course_utils.training import train


def flip_neighbours(data: Data, goal: Targeted, threat: ThreatModel) -> Poison:
    """Relabel the training images of the target's class that are nearest to the target.

    Distances are Euclidean, over pixels. It uses the whole budget of the threat model.
    """
    same = (data.y == goal.true_class).nonzero()[:, 0]
    guards.check_relabelling(threat, len(same))
    distance = (data.x[same] - goal.image).flatten(1).norm(dim=1)
    base = same[distance.argsort()[: threat.budget]]
    labels = torch.full_like(base, goal.adversarial_class)
    return Poison(data.x[base], labels, base, threat.placement)


def draw_target(
    train_all: Data, test_all: Data, seed: int, setting: Setting = MLP
) -> tuple[Data, Targeted]:
    """Draw 3,000 training images, a target that a surrogate gets right, an adversarial class."""
    data = balanced(train_all, setting.scaled(3000), seed)
    model = build(setting.network, data.shape, len(data.classes))
    surrogate = train(model, data, setting.recipe, seed=10_000 + seed)
    known = (predict(surrogate, test_all.x) == test_all.y).nonzero()[:, 0]
    generator = torch.Generator().manual_seed(seed)
    row = known[torch.randint(len(known), (1,), generator=generator)].item()
    true_class = test_all.y[row].item()
    step = torch.randint(1, len(data.classes), (1,), generator=generator).item()
    return data, Targeted(test_all.x[row], true_class, (true_class + step) % len(data.classes))


def flip_random(data: Data, goal: Targeted, threat: ThreatModel, seed: int) -> Poison:
    """The control for `flip_neighbours`: relabel random images of the target's class."""
    same = (data.y == goal.true_class).nonzero()[:, 0]
    guards.check_relabelling(threat, len(same))
    generator = torch.Generator().manual_seed(seed)
    base = same[torch.randperm(len(same), generator=generator)[: threat.budget]]
    labels = torch.full_like(base, goal.adversarial_class)
    return Poison(data.x[base], labels, base, threat.placement)
