"""Built in lesson 05, gradient matching.

Generated from notebooks/05_gradient_matching.ipynb: edit it there, then run make notebooks.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np

from course_utils import fixed_trials, stored
from course_utils.attacks.gradient_matching import gradient_matching, staggered
from course_utils.cases.from_scratch import EPSILON, TRAININGS, Scene, ages, draw_scene, matching
from course_utils.cases.goals import NEIGHBOURS, draw_goal
from course_utils.cases.networks import Pull, networks, pull
from course_utils.data import Data, balanced, load
from course_utils.models import Classifier, build
from course_utils.settings import CONVNET, MLP, Setting
from course_utils.threat import Poison, Targeted, ThreatModel
from course_utils.training import Recipe, train
from course_utils.trials import Case, Victim, columns, compare

DOSES = [(32, 150), (32, 60), (32, 30), (16, 150), (8, 150)]  # epsilon in grey levels, budget


def dose_rows(case: Case, attackers: dict[str, Poison | None], **labels: object) -> list[dict]:
    """A victim for each attacker, from first weights that no surrogate had."""
    rows = compare(case, attackers)
    wanted = ("accuracy", "success", "seconds")
    rows = columns(rows, *wanted, condition="attacker", defense="victim")
    return [{**labels, **row} for row in rows]


def far_class(goal: Targeted, classes: Sequence[str], seed: int) -> Targeted:
    """The same target with an adversarial class that is no neighbour of its true class."""
    neighbours = next(group for group in NEIGHBOURS if classes[goal.true_class] in group)
    far = [number for number, name in enumerate(classes) if name not in neighbours]
    return replace(goal, adversarial_class=far[seed % len(far)])


def dose_trial(seed: int, setting: Setting = MLP) -> list[dict]:
    """A fixed target at every dose; at the largest also another network, and a far class."""
    scene, rows = draw_scene(seed, setting=setting), []
    goal, near = fixed_trials.fixed_target(seed, scene.test), {"pair": "near", "victim": "same"}
    for grey, budget in DOSES:
        case = matching(seed, setting, budget, grey / 255, goal=goal, scene=scene)
        attackers = {"attack": case.oblivious}
        if not rows:
            rows = dose_rows(case, {"clean": None}, **near, epsilon="none", budget=0)
            attackers["noise"], largest = case.noise, case
        rows += dose_rows(case, attackers, **near, epsilon=f"{grey}/255", budget=budget)
    dose, shape = {"epsilon": "32/255", "budget": 150}, (scene.data.shape, len(scene.data.classes))
    other = replace(largest, model=build(OTHER[setting.network], *shape))
    attack = {"attack": largest.oblivious}
    rows += dose_rows(other, attack, pair="near", victim="other network", **dose)
    goal = far_class(goal, scene.data.classes, seed)
    far = matching(seed, setting, goal=goal, scene=scene)
    attack = {"attack": far.oblivious}
    return rows + dose_rows(far, attack, pair="far", victim="same", **dose)


OTHER = {MLP.network: CONVNET.network, CONVNET.network: MLP.network}
FIXED = fixed_trials.seeds("reporting")
DOSE_STUDY = stored.Study("matching_doses", "05", dose_trial, FIXED)
IN_TURN = fixed_trials.in_turn()
DOSE_STUDY_CONVNET = stored.Study("matching_doses_convnet", "05", dose_trial, IN_TURN, CONVNET)


FINETUNE = Recipe(epochs=20, batch_size=50, lr=0.05)


@cache
def public_cnn(setting: Setting = MLP) -> tuple[Classifier, Data]:
    """A trained CNN that attacker and victim both have, and 4,000 images that it has not seen."""
    pool = balanced(load("fashion_mnist")[0], setting.scaled(10_000), seed=0)
    recipe = setting.shortened(Recipe(epochs=6, batch_size=50, lr=0.1))
    model, seen = build("small_cnn", pool.shape, len(pool.classes)), setting.scaled(6000)
    return train(model, pool[:seen], recipe, seed=5), pool[seen:]


def finetune_trial(seed: int, setting: Setting = MLP) -> list[dict]:
    """Fine-tuning the CNN on 500 images, 50 of them poisons, or noise of the same size."""
    public, rest = public_cnn(setting)
    data, test = balanced(rest, setting.scaled(500), seed), load("fashion_mnist")[1]
    recipe = setting.shortened(FINETUNE)
    given = (public, data, recipe, seed, range(1), ages(recipe))
    known = [public, *staggered(*given, scenario="finetune")]
    goal = draw_goal(known, test, seed)
    threat = ThreatModel(setting.scaled(50), EPSILON, clean_label=True)

    def attack(victim: Victim) -> Poison:
        poison = gradient_matching(known, data, goal, threat, seed, steps=setting.scaled(100))
        poison.check(threat, data)
        return poison

    case = Case(data, goal, test, public, recipe, seed, attack, "finetune")
    return dose_rows(case, {"noise": case.noise, "attack": case.oblivious})


FINETUNE_STUDY = stored.Study("gradient_matching_cnn", "05", finetune_trial, range(20))


def watched(case: Case, attacker: str, poison: Poison | None) -> dict:
    """A victim of this poison: what the goal measures, and how the poisons pull as it trains."""
    pulls = []

    def look(victim: Classifier, epoch: int) -> None:
        pulls.append(pull(victim, case.oblivious, case.goal))

    (row,) = compare(case, {attacker: poison}, after_epoch=look)
    late = np.mean(pulls[len(pulls) // 2 :], axis=0)
    return row | dict(zip(Pull._fields, late.tolist(), strict=True))


def network_trial(seed: int, setting: Setting = MLP) -> list[dict]:
    """A fixed target, and each network attacked with surrogates of its own kind.

    own: the poisons' cosine on the adult surrogates, which they were crafted on. The other looks
    are means over the second half of the victim's training; clean victims look at the poisons too.
    """
    train_all, test = load("fashion_mnist")
    data, recipe = balanced(train_all, setting.scaled(3000), seed), setting.recipe
    goal, rows = fixed_trials.fixed_target(seed, test), []
    for name, model in networks(data.shape, len(data.classes)).items():
        known = staggered(model, data, recipe, seed, range(TRAININGS), ages(recipe))
        scene = Scene(data, test, model, known, seed, setting)
        case = matching(seed, setting, goal=goal, scene=scene)
        own = np.mean([pull(adult, case.oblivious, goal).cosine for adult in scene.adults])
        for attacker, met in case.with_controls.items():
            found = watched(case, attacker, met)
            rows.append({"network": name, "own": float(own)} | found)
    return rows


FIRST = fixed_trials.first_of_pairs()
NETWORKS_STUDY = stored.Study("gradient_matching_networks", "05", network_trial, FIRST)
