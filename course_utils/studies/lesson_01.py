"""Built in lesson 01, measuring poisoning.

Generated from notebooks/01_measuring_poisoning.ipynb: edit it there, then run make notebooks.
"""

import torch

from course_utils.attacks.first_backdoor import plant_backdoor, stamp
from course_utils.attacks.neighbour_flips import RECIPE, draw_target, flip_neighbours, flip_random
from course_utils.data import balanced, load
from course_utils.defense import PLAIN
from course_utils.defenses.small_loss import small_loss
from course_utils.models import build
from course_utils.stored import Study
from course_utils.threat import Backdoor, ThreatModel
from course_utils.trials import compare, with_controls


def flip_study_trial(seed: int) -> list[dict]:
    """Clean data, random flips, neighbour flips, and neighbour flips against the defense."""
    train_all, test_all = load("fashion_mnist")
    data, goal = draw_target(train_all, test_all, seed)
    test = balanced(test_all, 1000, seed=0)
    threat = ThreatModel(budget=10)
    attack = {"neighbour flips": flip_neighbours(data, goal, threat)}
    controls = {"clean": None, "random flips": flip_random(data, goal, threat, seed)}
    model = build("mlp", data.shape, len(data.classes))
    shared = dict(goal=goal, data=data, test=test, model=model, recipe=RECIPE, seed=seed)
    return [
        *compare(controls, **shared),
        *compare(attack, defenses=[PLAIN, small_loss(0.03)], **shared),
    ]


FLIPS = Study("neighbour_flips", "01", flip_study_trial, range(100))


def backdoor_trial(seed: int) -> list[dict]:
    """The backdoor of lesson 00 beside its controls."""
    train_all, test_all = load("fashion_mnist")
    data = balanced(train_all, 3000, seed)
    target_class = int(torch.randint(10, (1,), generator=torch.Generator().manual_seed(seed)))
    goal = Backdoor(trigger=stamp, target_class=target_class)
    threat = ThreatModel(budget=30)
    poison = plant_backdoor(data, goal, threat, seed)
    poison.check(threat, data)
    return compare(
        with_controls(poison, data, seed),
        goal=goal,
        data=data,
        test=balanced(test_all, 1000, seed=0),
        model=build("mlp", data.shape, len(data.classes)),
        recipe=RECIPE,
        seed=seed,
    )


BACKDOOR = Study("first_backdoor", "01", backdoor_trial, range(60))
