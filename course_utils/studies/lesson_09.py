"""Built in lesson 09, anatomy of a poisoned gradient.

Generated from notebooks/09_anatomy_of_a_gradient.ipynb: edit it there, then run make notebooks.
"""

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd
import torch

from course_utils import trials
from course_utils.attacks.label_consistent import label_consistent
from course_utils.cases import (
    backdoors,
    from_scratch,
    hidden_triggers,
    label_flips,
    slab,
    transfer,
    unrolled,
)
from course_utils.data import Data, load
from course_utils.defenses.gradient_anatomy import Plan, anatomy, specimen
from course_utils.models import Classifier
from course_utils.settings import MLP, Setting
from course_utils.stored import Study
from course_utils.threat import Poison, ThreatModel

EPOCHS = (1, 2, 5, 10, 20, 30, 40)  # the epochs that are looked at, as far as a training goes
WARM_EPOCHS = 10
SHAPED_EPOCHS = 2
SHAPED = {"linear": dict(bound=4.0, noise=0.025), "MLP": dict(bound=1.0, noise=0.1)}


def observe(
    case: trials.Case, poison: Poison, epochs: Sequence[int] = EPOCHS, **shaping: float
) -> pd.DataFrame:
    """Train a victim, look at its gradients; one row an epoch and noise, the mean over batches."""
    what, record = specimen(poison, case.data, case.test), []
    plan = Plan(epochs, every=1 if len(poison) < 100 else 2, **shaping)
    looking = anatomy(what, record, case.recipe.batch_size, plan, case.seed)
    case.train(trials.Victim(looking, case.recipe), what.seen)
    return pd.DataFrame(record).groupby(["epoch", "noise"], as_index=False, sort=False).mean()


def lasting(case: trials.Case, epochs: int) -> trials.Case:
    """The case with so many epochs in every setting: epochs are what is looked at."""
    return replace(case, recipe=replace(case.recipe, epochs=epochs))


def warm(case: trials.Case, clean: Classifier, epochs: int, setting: Setting = MLP) -> trials.Case:
    """A clean model trains on: as before, or as lesson 04 fine-tunes after transfer."""
    recipe = setting.shortened(transfer.FINETUNE) if case.scenario == "transfer" else case.recipe
    return lasting(replace(case, model=clean, recipe=recipe, scenario="finetune"), epochs)


def labelled(attack: str, frames: dict[str, pd.DataFrame]) -> trials.Rows:
    """The rows of several frames with the names of the attack and of the start."""
    return [
        {"attack": attack, "start": start, **row}
        for start, frame in frames.items()
        for row in frame.to_dict("records")
    ]


def fit(case: trials.Case) -> Classifier:
    """The clean model from which a warm start begins."""
    return case.train(case.plain, case.data)


Looked = dict[str, tuple[trials.Case, Poison]]  # by attack: how its victim trains, and its poison


def starts(
    attack: str,
    case: trials.Case,
    poison: Poison,
    clean: Classifier,
    setting: Setting,
    shaped: bool = True,
) -> trials.Rows:
    """One attack from all starts: as in its lesson, warm, and warm with shaping."""
    frames = {case.scenario: observe(case, poison)}
    frames["warm"] = observe(warm(case, clean, WARM_EPOCHS, setting), poison)
    if shaped:
        short = warm(case, clean, SHAPED_EPOCHS, setting)
        frames["warm, shaped"] = observe(short, poison, **SHAPED["MLP"])
    return labelled(attack, frames)


def linear_cases(seed: int, setting: Setting) -> Looked:
    """Lessons 02 and 03: 40% of poison is appended to 3,600 images of two classes."""
    case = slab.slab_case(seed, setting)
    case = replace(case, recipe=setting.shortened(label_flips.PAPER))
    case, made = lasting(case, label_flips.PAPER.epochs), slab.poisons(case.data, 0.4, seed)
    names = {"label flips, linear": "random flips", "slab attack": "slab attack"}
    return {attack: (case, made[name]) for attack, name in names.items()}


def flipped(seed: int, setting: Setting) -> tuple[trials.Case, Poison]:
    """Lesson 02 on ten classes: 200 of 2,000 labels are wrong."""
    case = replace(label_flips.flips(seed, setting), test=load("fashion_mnist")[1])
    return lasting(case, label_flips.NETWORK.epochs), case.oblivious


def collision_cases(seed: int, setting: Setting) -> Looked:
    """Lesson 04: five poisons among 500 images, a new head on frozen features."""
    draw = transfer.draw_transfer(seed, setting=setting)
    case = lasting(transfer.bullseye(seed, setting, draw=draw), transfer.HEAD.epochs)
    made = {}
    for name in ("Poison Frogs, bounded", transfer.BULLSEYE):
        loss = transfer.COLLISIONS[name]
        made[name] = case, transfer.collide(draw.extractor, draw, seed, loss, setting=setting)
    return made


def matching_cases(seed: int, setting: Setting) -> Looked:
    """Lessons 05 and 06: 150 poisons among 3,000 images; the images as they were, and noise."""
    drawn = unrolled.draw_scene(seed, setting)
    older = drawn.older[: 2 * from_scratch.TRAININGS]  # a copy at half time, and one at the end
    given = drawn.data, drawn.test, drawn.model, older, seed, setting
    case = from_scratch.matching(seed, setting, scene=from_scratch.Scene(*given))
    base = case.oblivious.base
    made = {
        "untouched bases": Poison(case.data.x[base], case.data.y[base], base),
        "noise on the bases": case.noise,
        "gradient matching": case.oblivious,
        "MetaPoison": unrolled.metapoison_case(drawn, setting).oblivious,
    }
    case = lasting(case, MLP.recipe.epochs)
    return {attack: (case, poison) for attack, poison in made.items()}


def backdoor_cases(seed: int, setting: Setting) -> Looked:
    """Lessons 07 and 08, from scratch, 3,000 images: 30, 90, 90 and 150 poisons."""
    draw = hidden_triggers.draw_scratch(seed, setting=setting)
    small, large = (backdoors.badnets_case, backdoors.clean_label_case)
    patch, threat = large(seed, setting, budget=90), ThreatModel(setting.scaled(90), None, True)
    given = draw.surrogates[:1], draw.data, patch.goal, threat, seed
    options = {"epsilon": backdoors.EPSILON, "steps": setting.scaled(20)}
    hidden = hidden_triggers.draw_backdoor(draw.data.classes, seed)
    bound = ThreatModel(setting.scaled(150), 32 / 255, clean_label=True)
    sleeper = hidden_triggers.sleeper_on(draw, hidden, bound, seed, setting)
    made = {
        "BadNets": small(seed, setting).oblivious,
        "clean-label patch": patch.oblivious,
        "label-consistent": label_consistent(*given, **options),
        "Sleeper Agent": sleeper.oblivious,
    }
    case = lasting(sleeper, MLP.recipe.epochs)
    return {attack: (case, poison) for attack, poison in made.items()}


def backdoor_trial(seed: int, setting: Setting = MLP) -> trials.Rows:
    """All backdoors; Hidden Trigger with a new head on frozen features."""
    hidden = hidden_triggers.hidden_trigger_case(seed, setting)
    looked = backdoor_cases(seed, setting)
    clean, rows = fit(looked["BadNets"][0]), []
    for attack, (case, poison) in looked.items():
        rows += starts(attack, case, poison, clean, setting)
    case = lasting(hidden, hidden_triggers.HEAD.epochs)
    return rows + starts("Hidden Trigger", case, hidden.oblivious, fit(case), setting)


BACKDOORS = Study("anatomy_backdoors", "09", backdoor_trial, range(20))


def indiscriminate_trial(seed: int, setting: Setting = MLP) -> trials.Rows:
    """Label flips and the slab attack; the linear ones are shaped from scratch, as in the paper."""
    rows = []
    for attack, (case, poison) in linear_cases(seed, setting).items():
        rows += starts(attack, case, poison, fit(case), setting, shaped=False)
        rows += labelled(attack, {"scratch, shaped": observe(case, poison, **SHAPED["linear"])})
    case, poison = flipped(seed, setting)
    return rows + starts("label flips", case, poison, fit(case), setting)


INDISCRIMINATE = Study("anatomy_indiscriminate", "09", indiscriminate_trial, range(20))


def targeted_trial(seed: int, setting: Setting = MLP) -> trials.Rows:
    """Feature collision, gradient matching and MetaPoison, with two controls."""
    rows = []
    for looked in (collision_cases(seed, setting), matching_cases(seed, setting)):
        clean = fit(next(iter(looked.values()))[0])
        for attack, (case, poison) in looked.items():
            shaped = attack not in ("untouched bases", "noise on the bases")
            rows += starts(attack, case, poison, clean, setting, shaped)
    return rows


TARGETED = Study("anatomy_targeted", "09", targeted_trial, range(20))


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


def dose_trial(seed: int, setting: Setting = MLP) -> trials.Rows:
    """Warm starts: 100 interpolated collisions of each strength, BadNets with each patch."""
    case = replace(backdoors.badnets_case(seed, setting), test=load("fashion_mnist")[1])
    case = lasting(case, MLP.recipe.epochs)
    start, made = warm(case, fit(case), 3), {}
    source, target = backdoors.draw_pair(seed)
    for alpha in ALPHAS:
        given = case.data, target, source, setting.scaled(100)
        made["collision", alpha] = interpolate(*given, alpha, seed)
    for side in SIDES:
        made["BadNets", float(side)] = backdoors.badnets_case(seed, setting, side=side).oblivious
    rows = []
    for (attack, dose), poison in made.items():
        frame = observe(start, poison, epochs=(1, 3))
        rows += [{"dose": dose, **row} for row in labelled(attack, {"warm": frame})]
    return rows


DOSES = Study("anatomy_doses", "09", dose_trial, range(20))
