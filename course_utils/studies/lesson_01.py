"""Built in lesson 01, measuring poisoning.

Generated from notebooks/01_measuring_poisoning.ipynb: edit it there, then run make notebooks.
"""

import torch

from course_utils import fixed_trials, trials
from course_utils.attacks.first_backdoor import plant_backdoor, stamp
from course_utils.attacks.neighbour_flips import draw_target, flip_neighbours, flip_random
from course_utils.data import balanced, load
from course_utils.defenses.small_loss import small_loss
from course_utils.models import build, predict
from course_utils.settings import MLP, Setting
from course_utils.stored import Study
from course_utils.threat import Backdoor, Poison, Targeted, ThreatModel
from course_utils.training import train


def flips_case(seed: int, setting: Setting = MLP, goal: Targeted | None = None) -> trials.Case:
    """Neighbour flips of ten labels among 3,000; the goal is drawn unless one is given."""
    train_all, test_all = load("fashion_mnist")
    if goal is None:
        goal = draw_target(train_all, test_all, seed, setting)[1]
    data, test = balanced(train_all, setting.scaled(3000), seed), balanced(test_all, 1000, 0)
    model, threat = build(setting.network, data.shape, 10), ThreatModel(setting.scaled(10))

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
    names = dict(condition="attacker", defense="victim")
    return trials.columns(rows, "accuracy", "asr", "seconds", **names)


BACKDOOR = Study("first_backdoor", "01", backdoor_trial, range(60))


def another_goal(case: trials.Case) -> Targeted:
    """A target of the same two classes, one of those that a single surrogate gets right."""
    _, test_all = load("fashion_mnist")
    surrogate = train(case.model, case.data, case.recipe, seed=10_000 + case.seed)
    first, second = case.goal.true_class, case.goal.adversarial_class
    known = (test_all.y == first) & (predict(surrogate, test_all.x) == first)
    rows = known.nonzero()[:, 0]
    generator = torch.Generator().manual_seed(case.seed)
    row = rows[torch.randint(len(rows), (1,), generator=generator)].item()
    return Targeted(test_all.x[row], first, second)


def fixed_trial(seed: int, setting: Setting = MLP) -> trials.Rows:
    """Neighbour flips on a fixed target, and on another target of the same two classes."""
    case = flips_case(seed, setting, fixed_trials.fixed_target(seed, load("fashion_mnist")[1]))
    other = flips_case(seed, setting, another_goal(case))
    rows = trials.compare(case, {"fixed target": case.oblivious})
    rows += trials.compare(other, {"another target": other.oblivious})
    return trials.columns(rows, "accuracy", "success", "seconds", condition="attacker")


FIXED = Study("neighbour_flips_fixed", "01", fixed_trial, fixed_trials.seeds("reporting"))
