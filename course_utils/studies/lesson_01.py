"""Built in lesson 01, measuring poisoning.

Generated from notebooks/01_measuring_poisoning.ipynb: edit it there, then run make notebooks.
"""

import torch

from course_utils import trials
from course_utils.attacks.first_backdoor import plant_backdoor, stamp
from course_utils.attacks.neighbour_flips import draw_target, flip_neighbours, flip_random
from course_utils.data import balanced, load
from course_utils.defenses.small_loss import small_loss
from course_utils.models import build
from course_utils.settings import MLP, Setting
from course_utils.stored import Study
from course_utils.threat import Backdoor, Poison, ThreatModel


def flips_case(seed: int, setting: Setting = MLP) -> trials.Case:
    """Neighbour flips of ten labels among 3,000."""
    train_all, test_all = load("fashion_mnist")
    data, goal = draw_target(train_all, test_all, seed, setting)
    model, test = build(setting.network, data.shape, len(data.classes)), balanced(test_all, 1000, 0)
    threat = ThreatModel(budget=setting.scaled(10))

    def craft(victim: trials.Victim) -> Poison:
        return flip_neighbours(data, goal, threat)

    return trials.Case(data, goal, test, model, setting.recipe, seed, craft)


def controls(case: trials.Case) -> dict[str, Poison | None]:
    """Clean data, and as many random flips as the attack has."""
    threat = ThreatModel(len(case.oblivious))
    return {"clean": None, "random flips": flip_random(case.data, case.goal, threat, case.seed)}


def flip_study_trial(seed: int, setting: Setting = MLP) -> trials.Rows:
    """Clean data, random flips, neighbour flips, and neighbour flips against the defense."""
    case, attack = flips_case(seed, setting), "neighbour flips"
    victims = {"plain": case.plain, "drop 3%": trials.Victim(small_loss(0.03), case.recipe)}
    rows = trials.compare(case, controls(case))
    rows += trials.compare(case, {attack: case.oblivious}, victims)
    names = dict(condition="attacker", defense="victim")
    return trials.columns(rows, "accuracy", "success", "seconds", **names)


FLIPS = Study("neighbour_flips", "01", flip_study_trial, range(100))


def backdoor_trial(seed: int, setting: Setting = MLP) -> trials.Rows:
    """The backdoor of lesson 00 beside its controls."""
    train_all, test_all = load("fashion_mnist")
    data, test = balanced(train_all, setting.scaled(3000), seed), balanced(test_all, 1000, seed=0)
    target_class = int(torch.randint(10, (1,), generator=torch.Generator().manual_seed(seed)))
    goal, threat = Backdoor(stamp, target_class), ThreatModel(budget=setting.scaled(30))

    def craft(victim: trials.Victim) -> Poison:
        poison = plant_backdoor(data, goal, threat, seed)
        poison.check(threat, data)
        return poison

    model = build(setting.network, data.shape, len(data.classes))
    case = trials.Case(data, goal, test, model, setting.recipe, seed, craft)
    rows = trials.compare(case, case.with_controls)
    return trials.columns(
        rows, "accuracy", "asr", "seconds", condition="attacker", defense="victim"
    )


BACKDOOR = Study("first_backdoor", "01", backdoor_trial, range(60))
