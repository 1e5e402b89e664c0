"""Built in lesson 13, adversarial training.

Generated from notebooks/13_adversarial_training.ipynb: edit it there, then run make notebooks.
"""

import copy
import time
from collections.abc import Callable, Sequence
from functools import partial

from course_utils.attacks.patch_backdoors import badnets, clean_label_patch
from course_utils.data import Data, balanced, load
from course_utils.defense import PLAIN, Defense
from course_utils.defenses.noise_training import sign_noise
from course_utils.defenses.pgd_training import pgd_training
from course_utils.models import Classifier, build, predict
from course_utils.stored import Study
from course_utils.studies.goals import draw_goal
from course_utils.studies.lesson_04 import (
    BULLSEYE,
    COLLISIONS,
    EXTRACTOR,
    HEAD,
    Transfer,
    draw_transfer,
)
from course_utils.studies.lesson_04 import craft as craft_collisions
from course_utils.studies.lesson_05 import (
    AGES,
    RECIPE,
    TRAININGS,
    Scene,
    best_bases,
    craft,
    draw_scene,
)
from course_utils.studies.lesson_07 import draw_pair, draw_trigger
from course_utils.threat import Backdoor, Goal, Poison, Targeted, ThreatModel
from course_utils.training import Recipe, Scenario, train

Ladder = dict[tuple[str, str], Defense]  # (name, strength) -> defense


def ladder(name: str, make: Callable[[float], Defense], greys: Sequence[int]) -> Ladder:
    """One defense at several strengths, given in grey levels of 255."""
    return {(name, f"{grey}/255"): make(grey / 255) for grey in greys}


PGD = "PGD training"
one_step = partial(pgd_training, steps=1)
UNDEFENDED: Ladder = {("plain", "none"): PLAIN}
MIDDLE = ladder(PGD, one_step, [16])


def fitted(victim: Classifier, poison: Poison | None) -> float:
    """The share of the poisons that a victim classifies as they are labelled; NaN without any."""
    if poison is None:
        return float("nan")
    return (predict(victim, poison.images) == poison.labels).float().mean().item()


def victims(
    attack: str, data: Data, poison: Poison | None, defenses: Ladder, *,
    goal: Goal, test: Data, model: Classifier, recipe: Recipe, seed: int,
    scenario: Scenario = "scratch",
) -> list[dict]:  # fmt: skip
    """One victim for each defense, from the same first weights; `seconds` are processor seconds."""
    seen, rows = data if poison is None else poison.apply(data), []
    for (name, strength), defense in defenses.items():
        begin = time.process_time()
        victim = train(model, seen, recipe, scenario=scenario, defense=defense, seed=seed)
        seconds = time.process_time() - begin
        row = {"attack": attack, "defense": name, "strength": strength}
        row |= goal.measure(victim, test) | {"fitted": fitted(victim, poison)}
        rows.append(row | {"seconds": seconds})
    return rows


STOPS = range(3, 11)


def early_stops(scene: Scene, goal: Targeted, poison: Poison, attack: str) -> list[dict]:
    """A plain victim, looked at after each of the epochs in STOPS: as if it had stopped there."""
    rows, begin = [], time.process_time()

    def look(victim: Classifier, epoch: int) -> None:
        if epoch in STOPS:
            row = {"attack": attack, "defense": "early stopping", "strength": f"epoch {epoch}"}
            row |= goal.measure(victim, scene.test) | {"fitted": fitted(victim, poison)}
            rows.append(row | {"seconds": time.process_time() - begin})

    seen = poison.apply(scene.data)
    train(scene.model, seen, RECIPE, seed=scene.seed, after_epoch=look)
    return rows


PLAN = {
    150: UNDEFENDED | ladder(PGD, one_step, [8, 16, 32]) | ladder("sign noise", sign_noise, [64]),
    60: UNDEFENDED | ladder(PGD, one_step, [8, 16]),
}


def matching_trial(seed: int) -> list[dict]:
    """Gradient matching at 32/255 from scratch, two budgets, and a defended victim without it."""
    scene = draw_scene(seed)
    goal = draw_goal(scene.adults, scene.test, seed)
    base = best_bases(scene, goal)
    shared = dict(goal=goal, test=scene.test, model=scene.model, recipe=RECIPE, seed=seed)
    rows = victims("none", scene.data, None, MIDDLE, **shared)
    for budget, defenses in PLAN.items():
        poison = craft(scene, goal, base[:budget], "32/255")
        attack = f"{budget} poisons"
        rows += victims(attack, scene.data, poison, defenses, **shared)
        if budget == 150:
            rows += early_stops(scene, goal, poison, attack)
    return rows


MATCHING = Study("pgd_training", "13", matching_trial, range(40))


PATCHED = UNDEFENDED | ladder(PGD, one_step, [16, 32])


def backdoor_trial(seed: int) -> list[dict]:
    """3,000 images, 30 poisons: BadNets with 4 pixels, the clean-label patch with 7, no poison."""
    train_all, test_all = load("fashion_mnist")
    data, test = balanced(train_all, 3000, seed), balanced(test_all, 2000, seed=0)
    target = draw_pair(seed)[1]
    small, large = (Backdoor(draw_trigger(side, seed), target) for side in (4, 7))
    model = build("mlp", data.shape, len(data.classes))
    shared = dict(test=test, model=model, recipe=RECIPE, seed=seed)
    dirty = badnets(data, small, ThreatModel(30), seed)
    dirty.check(ThreatModel(30), data)
    patched = clean_label_patch(data, large, ThreatModel(30, clean_label=True), seed)
    patched.check(ThreatModel(30, clean_label=True), data)
    rows = victims("none", data, None, PATCHED, goal=small, **shared)
    rows += victims("BadNets", data, dirty, PATCHED, goal=small, **shared)
    return rows + victims("clean-label patch", data, patched, PATCHED, goal=large, **shared)


BACKDOORS = Study("pgd_training_backdoors", "13", backdoor_trial, range(40))


def robust_extractor(draw: Transfer, seed: int) -> Classifier:
    """A model PGD-trained at 16/255 on 4,000 images that are in no other part of the draw."""
    part = balanced(draw.others, 4000, seed)
    model = build("mlp", part.shape, len(part.classes))
    return train(model, part, EXTRACTOR, seed=seed, defense=pgd_training(16 / 255, steps=1))


def collide(extractor: Classifier, draw: Transfer, seed: int) -> Poison | None:
    """5 Bullseye poisons for this extractor; None if it already gives the attacker their wish."""
    if predict(extractor, draw.goal.image[None]).item() == draw.goal.adversarial_class:
        return None
    attack = {BULLSEYE: COLLISIONS[BULLSEYE]}
    return craft_collisions(attack, [extractor], draw, 5, seed)[BULLSEYE]


def transfer_trial(seed: int) -> list[dict]:
    """Bullseye in transfer: PGD training of neither, of the head, or of the extractor alone."""
    draw, rows = draw_transfer(seed), []
    heads = UNDEFENDED | MIDDLE
    extractors = {"plain": draw.extractor, "PGD-trained": robust_extractor(draw, seed)}
    for name, extractor in extractors.items():
        poison = collide(extractor, draw, seed)
        shared = dict(goal=draw.goal, test=draw.test, model=extractor, recipe=HEAD, seed=seed)
        for attack, made in (("none", None), ("Bullseye", poison)):
            found = victims(attack, draw.data, made, heads, scenario="transfer", **shared)
            rows += [{"extractor": name, **row} for row in found]
    return rows


TRANSFER = Study("pgd_training_transfer", "13", transfer_trial, range(40))


def robust_surrogates(scene: Scene) -> list[Classifier]:
    """Surrogates of the same seeds and ages as the scene's, but PGD-trained at 16/255."""
    copies = []

    def keep(surrogate: Classifier, epoch: int) -> None:
        if epoch in AGES:
            copies.append(copy.deepcopy(surrogate))

    for number in range(TRAININGS):
        seed, defense = 1000 * (scene.seed + 1) + number, MIDDLE[PGD, "16/255"]
        train(scene.model, scene.data, RECIPE, seed=seed, defense=defense, after_epoch=keep)
    return copies


def granted(models: Sequence[Classifier], goal: Targeted) -> bool:
    """Whether every model already gives the target to the adversarial class: nothing to attack."""
    return all(predict(m, goal.image[None]).item() == goal.adversarial_class for m in models)


def knowing_trial(seed: int) -> list[dict]:
    """150 poisons crafted on PGD-trained surrogates, and a PGD-trained victim."""
    scene = draw_scene(seed)
    goal = draw_goal(scene.adults, scene.test, seed)
    base, known, poison = best_bases(scene, goal), robust_surrogates(scene), None
    if not granted(known, goal):
        poison = craft(scene, goal, base, "32/255", surrogates=known)
    shared = dict(goal=goal, test=scene.test, model=scene.model, recipe=RECIPE, seed=seed)
    return victims("150 poisons, knowing", scene.data, poison, MIDDLE, **shared)


KNOWING = Study("pgd_training_knowing", "13", knowing_trial, range(40))
