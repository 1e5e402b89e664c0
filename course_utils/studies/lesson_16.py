"""Built in lesson 16, the grand comparison.

Generated from notebooks/16_the_grand_comparison.ipynb: edit it there, then run make notebooks.
"""

import copy
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from course_utils import statistics
from course_utils.attacks.adaptive import hidden_alignment
from course_utils.attacks.feature_collision import bullseye_loss, collision_loss, feature_collision
from course_utils.attacks.gradient_matching import Objective, alignment_loss
from course_utils.attacks.hidden_trigger import hidden_trigger
from course_utils.attacks.label_flipping import worst_flips
from course_utils.attacks.metapoison import metapoison
from course_utils.attacks.sleeper_agent import sleeper_agent
from course_utils.data import Data, balanced, load
from course_utils.defense import PLAIN, Defense
from course_utils.defenses.filters import deep_knn, spectral_signatures
from course_utils.defenses.pgd_training import pgd_training
from course_utils.defenses.sanitizers import sanitizer
from course_utils.models import Classifier, build
from course_utils.stored import Benchmark
from course_utils.studies import (
    lesson_04,
    lesson_05,
    lesson_06,
    lesson_08,
    lesson_10,
    lesson_11,
    lesson_12,
    lesson_14,
    lesson_15,
)
from course_utils.studies.goals import draw_goal
from course_utils.studies.lesson_11 import Case
from course_utils.studies.lesson_13 import granted
from course_utils.threat import Indiscriminate, Poison, Targeted, ThreatModel
from course_utils.training import Recipe, train

How = tuple[Defense, Recipe]  # a defense, and the recipe that its victims train with
RECIPE, HEAD = lesson_05.RECIPE, lesson_04.HEAD
SHAPING, AUGMENTATION, CUTMIX = "gradient shaping", "augmentation", "CutMix"
PGD, POISONING = "PGD training", "poisoning training"
one_step_pgd = pgd_training(16 / 255, steps=1)

FROM_SCRATCH: dict[str, How] = {
    SHAPING: (lesson_10.BOTH, lesson_10.tuned(0.2)),
    AUGMENTATION: lesson_12.VICTIMS[AUGMENTATION],
    CUTMIX: lesson_12.VICTIMS[CUTMIX],
    PGD: (one_step_pgd, RECIPE),
    POISONING: (lesson_14.CHEAP96[lesson_14.CHEAP, "96/255"], RECIPE),
}
HEADS: dict[str, How] = {
    SHAPING: lesson_10.HEADS["clip + noise", "tuned"],
    AUGMENTATION: lesson_12.HEADS[AUGMENTATION],
    CUTMIX: lesson_12.HEADS[CUTMIX],
    PGD: (one_step_pgd, HEAD),
    POISONING: (lesson_14.HEADS["collision", "64/255"], HEAD),
}


PLAIN_VICTIM, LEARNS_LESS = "plain", "plain, learns less"
FILTERS = SANITIZERS, SPECTRAL, DEEP_KNN = "sanitizers", "Spectral Signatures", "Deep k-NN"


def every_defense(case: Case, told: int) -> dict[str, How]:
    """The two undefended victims and the eight defenses, with the settings of their lessons.

    told: how many poisons a class may hold; two filters are set by it, as in lesson 11.
    """
    share = min(1.5 * told * len(case.data.classes) / len(case.data), 0.9)
    filters = {
        SANITIZERS: sanitizer("sphere", "slab", "loss", "k-NN"),
        SPECTRAL: spectral_signatures(share),
        DEEP_KNN: deep_knn(2 * told),
    }
    slow, others = 0.02, FROM_SCRATCH
    if case.scenario == "transfer":
        slow, others = 0.003, HEADS
    less = replace(case.recipe, lr=slow)
    undefended = {PLAIN_VICTIM: (PLAIN, case.recipe), LEARNS_LESS: (PLAIN, less)}
    return undefended | {name: (filters[name], case.recipe) for name in FILTERS} | others


def outcome(victim: Classifier, case: Case) -> dict[str, float]:
    """Clean accuracy; what the attacker achieved; and how often that happens by itself.

    achieved: target success or attack success rate. For an indiscriminate goal it stays open (NaN)
    until the victim of clean data is known.
    """
    found = case.goal.measure(victim, case.test)
    if isinstance(case.goal, Indiscriminate):
        return {**found, "achieved": math.nan, "by itself": math.nan}
    achieved = found["success"] if isinstance(case.goal, Targeted) else found["asr"]
    alone = lesson_12.by_itself(victim, case.goal, case.test)
    return {"accuracy": found["accuracy"], "achieved": float(achieved), "by itself": alone}


def face(
    case: Case, poison: Poison | None, defenses: Mapping[str, How], knowledge: str
) -> list[dict]:
    """One victim with each defense, all from the same seed; `seconds` are processor seconds."""
    seen, rows = case.data if poison is None else poison.apply(case.data), []
    for name, (defense, recipe) in defenses.items():
        options = dict(scenario=case.scenario, defense=defense, seed=case.seed)
        begin = time.process_time()
        victim = train(case.model, seen, recipe, **options)
        seconds = time.process_time() - begin
        row = {"knowledge": knowledge, "defense": name, **outcome(victim, case)}
        rows.append({**row, "seconds": seconds})
    return rows


NOBODY, WITHOUT, WITH = "no attack", "without", "with"
Knowing = Mapping[str, Poison | None]  # by defense; None: nothing to do, the goal is granted


def matrix_row(case: Case, knowing: Knowing) -> list[dict]:
    """One trial of one row: a clean victim, all defenses, and those whose attacker knows them."""
    defenses = every_defense(case, told=case.bound)
    rows = face(case, None, {PLAIN_VICTIM: defenses[PLAIN_VICTIM]}, NOBODY)
    rows += face(case, case.poison, defenses, WITHOUT)
    for name, poison in knowing.items():
        rows += face(case, poison, {name: defenses[name]}, WITH)
    return rows


def surrogates_with(
    how: How, model: Classifier, data: Data, seed: int, count: int, ages: Sequence[float] = (1,)
) -> list[Classifier]:
    """Surrogates that train with a defense: of each training a copy at each of these ages.

    ages: shares of the training, in (0, 1]. The seeds are those of `staggered` in lesson 05.
    """
    (defense, recipe), copies = how, []
    epochs = [round(age * recipe.epochs) for age in ages]

    def keep(surrogate: Classifier, epoch: int) -> None:
        if epoch in epochs:
            copies.append(copy.deepcopy(surrogate))

    for number in range(count):
        first = 1000 * (seed + 1) + number
        train(model, data, recipe, seed=first, defense=defense, after_epoch=keep)
    return copies


def flips_trial(seed: int) -> list[dict]:
    """Worst flips of 300 of 3,000 labels, from one surrogate; achieved: the relative drop."""
    train_all, test = load("fashion_mnist")
    data, goal = balanced(train_all, 3000, seed), Indiscriminate()
    model, threat = build("mlp", data.shape, len(data.classes)), ThreatModel(300)

    def attack(how: How) -> Poison:
        flips = worst_flips(surrogates_with(how, model, data, seed, count=1), data, goal, threat)
        flips.check(threat, data)
        return flips

    case = Case(data, attack((PLAIN, RECIPE)), goal, test, model, RECIPE, seed)
    defenses = every_defense(case, told=30)  # a tenth of each class, where flips may well differ
    rows = face(case, None, defenses, NOBODY) + face(case, case.poison, defenses, WITHOUT)
    for name, how in FROM_SCRATCH.items():
        rows += face(case, attack(how), {name: how}, WITH)
    clean = {row["defense"]: row["accuracy"] for row in rows if row["knowledge"] == NOBODY}
    drop = statistics.relative_accuracy_drop
    drops = [drop(clean[row["defense"]], row["accuracy"]) for row in rows]
    return [{**row, "achieved": lost} for row, lost in zip(rows, drops, strict=True)]


def bullseye_trial(seed: int) -> list[dict]:
    """5 poisons at 32/255 for a head on frozen features, which the attacker has.

    Knowing the filters, the attacker bunches the poisons: see lesson 15.
    """
    draw = lesson_04.draw_transfer(seed)
    threat = ThreatModel(5, 32 / 255, clean_label=True)

    def attack(loss: Callable[[Tensor, Tensor], Tensor]) -> Poison:
        poison = feature_collision([draw.extractor], draw.data, draw.goal, threat, seed, loss=loss)
        poison.check(threat, draw.data)
        return poison

    shared = (draw.goal, draw.test, draw.extractor, HEAD, seed, "transfer")
    bunched = attack(collision_loss)
    case = Case(draw.data, attack(bullseye_loss), *shared)
    return matrix_row(case, {SPECTRAL: bunched, DEEP_KNN: bunched})


ADAPTED = {
    SHAPING: lesson_15.SHAPED,
    PGD: lesson_15.DEFENDED[lesson_15.PGD],
    POISONING: lesson_15.POISONED,
}


def matching_trial(seed: int) -> list[dict]:
    """150 poisons at 32/255, with the knowing attacker's best way of lesson 15."""
    scene = lesson_05.draw_scene(seed)
    goal = draw_goal(scene.adults, scene.test, seed)
    base = lesson_05.best_bases(scene, goal)

    def attack(models: list[Classifier], loss: Objective = alignment_loss) -> Poison | None:
        if granted(models, goal):
            return None
        return lesson_05.craft(scene, goal, base, "32/255", surrogates=models, loss=loss)

    hidden = hidden_alignment(scene.data.x[base], weight=1.0)
    knowing = dict.fromkeys(FILTERS, attack(scene.surrogates, hidden))
    for name, how in ADAPTED.items():
        generator = torch.Generator().manual_seed(seed)
        knowing[name] = attack(scene.surrogates, how.objective(scene.data, generator))
    for name in (AUGMENTATION, CUTMIX):
        how = FROM_SCRATCH[name]
        knowing[name] = attack(surrogates_with(how, scene.model, scene.data, seed, 2, (0.5, 1)))
    shared = (goal, scene.test, scene.model, RECIPE, seed)
    return matrix_row(Case(scene.data, attack(scene.surrogates), *shared), knowing)


def metapoison_trial(seed: int) -> list[dict]:
    """150 poisons at 32/255 from four surrogates, each at four ages, as in lesson 06.

    Without knowledge alone: with it there would be 16 surrogates to train for each defense.
    """
    scene, threat = lesson_06.draw_scene(seed), lesson_06.THREAT
    poison = metapoison(scene.surrogates, scene.data, scene.goal, threat, seed, base=scene.base)
    poison.check(threat, scene.data)
    shared = (scene.goal, scene.test, scene.model, RECIPE, seed)
    return matrix_row(Case(scene.data, poison, *shared), {})


def badnets_trial(seed: int) -> list[dict]:
    """30 of 3,000 images with a patch of 4 by 4 pixels: nothing is crafted."""
    return matrix_row(lesson_11.badnets_case(seed), {})


def sleeper_trial(seed: int) -> list[dict]:
    """Sleeper Agent: 30 poisons at 32/255 from two surrogates, a patch of 8 by 8 pixels."""
    draw = lesson_08.draw_scratch(seed)
    goal = lesson_08.draw_backdoor(draw.data.classes, seed)
    threat, model = ThreatModel(30, 32 / 255, clean_label=True), build("mlp", draw.data.shape, 10)

    def attack(models: list[Classifier]) -> Poison:
        poison = sleeper_agent(models, draw.data, goal, threat, seed)
        poison.check(threat, draw.data)
        return poison

    knowing = {
        name: attack(surrogates_with(how, model, draw.data, seed, count=2))
        for name, how in FROM_SCRATCH.items()
    }
    case = Case(draw.data, attack(draw.surrogates), goal, draw.test, model, RECIPE, seed)
    return matrix_row(case, knowing)


def hidden_trial(seed: int) -> list[dict]:
    """Hidden triggers: 50 of 1,000 images at 32/255, for a head on features the attacker has.

    The head trains with the recipe of lesson 04, as those of Bullseye Polytope do.
    """
    draw = lesson_08.draw_transfer(seed)
    goal = lesson_08.draw_backdoor(draw.data.classes, seed)
    threat = ThreatModel(50, 32 / 255, clean_label=True)
    poison = hidden_trigger(draw.surrogates, draw.data, goal, threat, seed)
    poison.check(threat, draw.data)
    shared = (goal, draw.test, draw.surrogates[0], HEAD, seed, "transfer")
    return matrix_row(Case(draw.data, poison, *shared), {})


TRIALS = {
    "label flips": flips_trial,
    "Bullseye Polytope": bullseye_trial,
    "gradient matching": matching_trial,
    "MetaPoison": metapoison_trial,
    "BadNets": badnets_trial,
    "Sleeper Agent": sleeper_trial,
    "hidden triggers": hidden_trial,
}
BENCHMARK = Benchmark("grand_comparison", TRIALS, range(100, 140))
