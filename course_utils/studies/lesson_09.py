"""Built in lesson 09, anatomy of a poisoned gradient.

Generated from notebooks/09_anatomy_of_a_gradient.ipynb: edit it there, then run make notebooks.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import pandas as pd
import torch

from course_utils.attacks.hidden_trigger import hidden_trigger
from course_utils.attacks.label_consistent import label_consistent
from course_utils.attacks.label_flipping import random_flips
from course_utils.attacks.patch_backdoors import badnets, clean_label_patch
from course_utils.attacks.sleeper_agent import sleeper_agent
from course_utils.data import Data, balanced, load
from course_utils.defenses.gradient_anatomy import anatomy, specimen
from course_utils.models import Classifier, build
from course_utils.stored import Study
from course_utils.studies import (
    lesson_02,
    lesson_03,
    lesson_04,
    lesson_05,
    lesson_06,
    lesson_07,
    lesson_08,
)
from course_utils.studies.goals import draw_goal
from course_utils.threat import Backdoor, Indiscriminate, Poison, ThreatModel
from course_utils.training import Recipe, Scenario, train

EPOCHS = (1, 2, 5, 10, 20, 30, 40)  # the epochs that are looked at, as far as a training goes
WARM_EPOCHS = 10
SHAPED_EPOCHS = 2
SHAPED = {"linear": dict(bound=4.0, noise=0.025), "MLP": dict(bound=1.0, noise=0.1)}


class Case(NamedTuple):
    """An attack to look at: its poison, and how the victim of its lesson trains.

    fresh: test images, for the control that needs images nobody has trained on.
    """

    attack: str
    model: Classifier
    data: Data
    fresh: Data
    poison: Poison
    recipe: Recipe
    scenario: Scenario = "scratch"


def observe(
    case: Case, model: Classifier, recipe: Recipe, scenario: Scenario, seed: int,
    epochs: Sequence[int] = EPOCHS, **shaping: float,
) -> pd.DataFrame:  # fmt: skip
    """Train a victim, look at its gradients; one row an epoch and noise, the mean over batches."""
    what, record = specimen(case.poison, case.data, case.fresh), []
    options = {"every": 1 if len(case.poison) < 100 else 2, "seed": seed, **shaping}
    defense = anatomy(what, record, recipe.batch_size, epochs, **options)
    train(model, what.seen, recipe, scenario=scenario, defense=defense, seed=seed)
    return pd.DataFrame(record).groupby(["epoch", "noise"], as_index=False, sort=False).mean()


def warm_recipe(case: Case, epochs: int) -> Recipe:
    """How a clean model trains on: as before, or as lesson 04 fine-tunes after transfer."""
    recipe = lesson_04.FINETUNE if case.scenario == "transfer" else case.recipe
    return replace(recipe, epochs=epochs)


def labelled(case: Case, start: str, frame: pd.DataFrame) -> list[dict]:
    """The rows of a frame with the names of the attack and of the start."""
    labels = {"attack": case.attack, "start": start}
    return [{**labels, **row} for row in frame.to_dict("records")]


def starts(case: Case, clean: Classifier, seed: int, shaped: bool = True) -> list[dict]:
    """One case from all starts: as in its lesson, warm, and warm with shaping."""
    frame = observe(case, case.model, case.recipe, case.scenario, seed)
    rows = labelled(case, case.scenario, frame)
    frame = observe(case, clean, warm_recipe(case, WARM_EPOCHS), "finetune", seed)
    rows += labelled(case, "warm", frame)
    if shaped:
        given = clean, warm_recipe(case, SHAPED_EPOCHS), "finetune", seed
        rows += labelled(case, "warm, shaped", observe(case, *given, **SHAPED["MLP"]))
    return rows


def fit(case: Case, seed: int) -> Classifier:
    """The clean model from which a warm start begins."""
    return train(case.model, case.data, case.recipe, scenario=case.scenario, seed=seed)


def linear_cases(seed: int) -> list[Case]:
    """Lessons 02 and 03: 40% of poison is appended to 3,600 images of two classes."""
    data, test = lesson_03.draw(seed)
    model, made = build("logistic_regression", data.shape, 2), lesson_03.poisons(data, 0.4, seed)
    names = {"label flips, linear": "random flips", "slab attack": "slab attack"}
    return [Case(a, model, data, test, made[b], lesson_02.PAPER) for a, b in names.items()]


def flip_case(seed: int) -> Case:
    """Lesson 02 on the MLP: 200 of 2,000 labels are wrong.

    The flips have a seed of their own. With the victim's, the first two batches would be the
    poisons and nothing else: both are the first permutation drawn from the same seed.
    """
    train_all, test = load("fashion_mnist")
    data = balanced(train_all, 2000, seed)
    poison = random_flips(data, Indiscriminate(), ThreatModel(200), 50_000 + seed)
    model = build("mlp", data.shape, len(data.classes))
    return Case("label flips", model, data, test, poison, lesson_02.NETWORK)


def collision_cases(seed: int) -> list[Case]:
    """Lesson 04: five poisons among 500 images, a new head on frozen features."""
    draw = lesson_04.draw_transfer(seed)
    names = ("Poison Frogs, bounded", "Bullseye Polytope")
    attacks = {name: lesson_04.COLLISIONS[name] for name in names}
    made = lesson_04.craft(attacks, [draw.extractor], draw, 5, seed)
    start, how = (draw.extractor, draw.data, draw.test), (lesson_04.HEAD, "transfer")
    return [Case(name, *start, made[name], *how) for name in names]


def matching_cases(seed: int) -> list[Case]:
    """Lessons 05 and 06: 150 poisons among 3,000 images; the images as they were, and noise."""
    drawn = lesson_06.draw_scene(seed)
    older = drawn.older[: lesson_05.TRAININGS * len(lesson_05.AGES)]
    scene = lesson_05.Scene(drawn.data, drawn.test, drawn.model, older, seed)
    goal = draw_goal(scene.adults, scene.test, seed)
    base = lesson_05.best_bases(scene, goal)
    matched = lesson_05.craft(scene, goal, base, "32/255")
    noise = matched.noise_control(scene.data, torch.Generator().manual_seed(seed))
    made = {
        "untouched bases": Poison(scene.data.x[base], scene.data.y[base], base),
        "noise on the bases": noise,
        "gradient matching": matched,
        "MetaPoison": lesson_06.timed(lesson_06.metapoison, drawn, lesson_06.THREAT)[0],
    }
    start = scene.model, scene.data, scene.test
    return [Case(name, *start, poison, lesson_05.RECIPE) for name, poison in made.items()]


def backdoor_cases(seed: int) -> list[Case]:
    """Lessons 07 and 08, from scratch, 3,000 images: 30, 90, 90 and 150 poisons."""
    train_all, test = load("fashion_mnist")
    data = balanced(train_all, 3000, seed)
    model = build("mlp", data.shape, len(data.classes))
    surrogates = lesson_08.train_surrogates(data, seed, 2)
    target = lesson_07.draw_pair(seed)[1]
    small, large = (Backdoor(lesson_07.draw_trigger(side, seed), target) for side in (4, 7))
    hidden, threat = lesson_08.draw_backdoor(data.classes, seed), ThreatModel(90, None, True)
    bound = {"epsilon": lesson_07.EPSILON}
    crafted = label_consistent(surrogates[:1], data, large, threat, seed, **bound)
    sleeper = ThreatModel(150, 32 / 255, clean_label=True)
    made = {
        "BadNets": badnets(data, small, ThreatModel(30), seed),
        "clean-label patch": clean_label_patch(data, large, threat, seed),
        "label-consistent": crafted,
        "Sleeper Agent": sleeper_agent(surrogates, data, hidden, sleeper, seed),
    }
    recipe = lesson_07.RECIPE
    return [Case(name, model, data, test, poison, recipe) for name, poison in made.items()]


def hidden_case(seed: int) -> Case:
    """Lesson 08: 50 poisons among 1,000 images, a new head on frozen features."""
    draw = lesson_08.draw_transfer(seed)
    goal = lesson_08.draw_backdoor(draw.data.classes, seed)
    threat = ThreatModel(50, 32 / 255, clean_label=True)
    poison = hidden_trigger(draw.surrogates, draw.data, goal, threat, seed)
    start = draw.surrogates[0], draw.data, draw.test
    return Case("Hidden Trigger", *start, poison, lesson_08.HEAD, "transfer")


def backdoor_trial(seed: int) -> list[dict]:
    """All backdoors."""
    cases, hidden = backdoor_cases(seed), hidden_case(seed)
    clean = fit(cases[0], seed)
    rows = [row for case in cases for row in starts(case, clean, seed)]
    return rows + starts(hidden, fit(hidden, seed), seed)


def indiscriminate_trial(seed: int) -> list[dict]:
    """Label flips and the slab attack; the linear ones are shaped from scratch, as in the paper."""
    rows, flips = [], flip_case(seed)
    for case in linear_cases(seed):
        rows += starts(case, fit(case, seed), seed, shaped=False)
        given = case, case.model, case.recipe, case.scenario, seed
        rows += labelled(case, "scratch, shaped", observe(*given, **SHAPED["linear"]))
    return rows + starts(flips, fit(flips, seed), seed)


def targeted_trial(seed: int) -> list[dict]:
    """Feature collision, gradient matching and MetaPoison, with two controls."""
    collisions, matching = collision_cases(seed), matching_cases(seed)
    rows = []
    for cases in (collisions, matching):
        clean = fit(cases[0], seed)
        for case in cases:
            shaped = case.attack not in ("untouched bases", "noise on the bases")
            rows += starts(case, clean, seed, shaped)
    return rows


INDISCRIMINATE = Study("anatomy_indiscriminate", "09", indiscriminate_trial, range(20))
TARGETED = Study("anatomy_targeted", "09", targeted_trial, range(20))
BACKDOORS = Study("anatomy_backdoors", "09", backdoor_trial, range(20))


SIDES, ALPHAS = (1, 4, 7, 10, 14), (0.1, 0.2, 0.4, 0.6, 0.8, 1.0)


def interpolate(
    data: Data, source: int, other: int, budget: int, alpha: float, seed: int
) -> Poison:
    """Images of the class `source`, mixed with a share alpha of images of another; labels stay.

    They are appended. Source: Hong and others (arXiv 2002.11497), section 3.
    """
    generator = torch.Generator().manual_seed(seed)
    pools = [(data.y == label).nonzero()[:, 0] for label in (source, other)]
    base, mixed = (p[torch.randperm(len(p), generator=generator)[:budget]] for p in pools)
    images = (1 - alpha) * data.x[base] + alpha * data.x[mixed]
    return Poison(images.clamp(0, 1), data.y[base], base, "append")


def dose_trial(seed: int) -> list[dict]:
    """Warm starts: 100 interpolated collisions of each strength, BadNets with each patch."""
    train_all, test = load("fashion_mnist")
    data = balanced(train_all, 3000, seed)
    model, recipe = build("mlp", data.shape, len(data.classes)), lesson_07.RECIPE
    clean = train(model, data, recipe, seed=seed)
    source, target = lesson_07.draw_pair(seed)
    made = {("collision", a): interpolate(data, target, source, 100, a, seed) for a in ALPHAS}
    for side in SIDES:
        goal = Backdoor(lesson_07.draw_trigger(side, seed), target)
        made["BadNets", float(side)] = badnets(data, goal, ThreatModel(30), seed)
    rows = []
    for (attack, dose), poison in made.items():
        case = Case(attack, model, data, test, poison, recipe)
        frame = observe(case, clean, warm_recipe(case, 3), "finetune", seed, epochs=(1, 3))
        rows += [{"dose": dose, **row} for row in labelled(case, "warm", frame)]
    return rows


DOSES = Study("anatomy_doses", "09", dose_trial, range(20))
