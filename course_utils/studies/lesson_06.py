"""Built in lesson 06, MetaPoison.

Generated from notebooks/06_metapoison.ipynb: edit it there, then run make notebooks.
"""

import torch

from course_utils.attacks.gradient_matching import gradient_matching, staggered
from course_utils.attacks.metapoison import FIVE_STEPS, Unrolling, margin_loss, metapoison
from course_utils.cases.unrolled import (
    EPSILON,
    Scene,
    aim,
    case_of,
    draw_scene,
    last_two,
    moments,
    timed,
)
from course_utils.data import balanced, load
from course_utils.models import build
from course_utils.settings import MLP, Setting
from course_utils.stored import Study
from course_utils.threat import Poison, ThreatModel
from course_utils.training import Recipe, train
from course_utils.trials import Rows, columns, compare

Crafted = dict[str, tuple[Poison | None, float]]  # by condition: a poison, and its CPU seconds


def both(scene: Scene, how: Unrolling = FIVE_STEPS) -> Crafted:
    """Both attacks on the same base rows; before them clean data and noise of MetaPoison's size."""
    matched = timed(gradient_matching, scene, surrogates=scene.older)
    unrolled = timed(metapoison, scene, how=how)
    generator = torch.Generator(scene.data.x.device).manual_seed(scene.seed)
    noise = unrolled[0].noise_control(scene.data, generator)
    controls = {"clean": (None, 0.0), "noise": (noise, 0.0)}
    return controls | {"gradient matching": matched, "MetaPoison": unrolled}


def victims(scene: Scene, crafted: Crafted) -> Rows:
    """Train and measure one victim for each condition; the CPU seconds of crafting stand beside."""
    rows = compare(case_of(scene), {name: poison for name, (poison, _) in crafted.items()})
    names = ("accuracy", "success", "seconds")
    rows = columns(rows, *names, condition="attacker", defense="victim")
    return [{**row, "crafting": crafted[row["condition"]][1]} for row in rows]


def main_trial(seed: int, setting: Setting = MLP) -> Rows:
    """Clean data, noise, gradient matching and MetaPoison from scratch."""
    scene = draw_scene(seed, setting=setting)
    return victims(scene, both(scene))


MAIN_STUDY = Study("metapoison", "06", main_trial, range(40))


VARIANTS = {
    "1 step": Unrolling(steps=1),
    "2 steps": Unrolling(steps=2),
    "5 steps, first order": Unrolling(first_order=True),
    "5 steps, margin loss": Unrolling(loss=margin_loss),
    "5 steps, no clean images": Unrolling(clean=0),
}


def variants_trial(seed: int, setting: Setting = MLP) -> Rows:
    """MetaPoison with other settings, on the first trials of the main study."""
    scene = draw_scene(seed, setting=setting)
    crafted = {name: timed(metapoison, scene, how=how) for name, how in VARIANTS.items()}
    return victims(scene, crafted)


VARIANTS_STUDY = Study("metapoison_variants", "06", variants_trial, range(20))


TUNING, TUNING_STEPS = Recipe(epochs=10, batch_size=100, lr=0.02), Unrolling(lr=0.05)


def draw_tuning_scene(seed: int, setting: Setting = MLP) -> Scene:
    """A model trained on 3,000 images that is fine-tuned on 1,000 others; 50 base images."""
    train_all, test = load("fashion_mnist")
    drawn = balanced(train_all, setting.scaled(4000), seed)
    old, data = drawn[: setting.scaled(3000)], drawn[setting.scaled(3000) :]
    published = build(setting.network, data.shape, len(data.classes))
    model = train(published, old, setting.recipe, seed=seed)
    recipe = setting.shortened(TUNING)
    kept = moments(recipe, (0.2, 0.5, 1))
    given = (model, data, recipe, seed, range(2), kept)
    surrogates = staggered(*given, scenario="finetune")
    older = last_two(surrogates, kept)
    threat = ThreatModel(setting.scaled(50), EPSILON, clean_label=True)
    goal, base = aim(older[1::2], data, test, threat, seed)
    given = (data, test, model, surrogates, older, goal, base, threat)
    return Scene(*given, setting.scaled(100), seed, recipe, "finetune")


def tuning_trial(seed: int, setting: Setting = MLP) -> Rows:
    """Clean data, noise, gradient matching and MetaPoison against a victim that is fine-tuned."""
    scene = draw_tuning_scene(seed, setting)
    return victims(scene, both(scene, TUNING_STEPS))


TUNING_STUDY = Study("metapoison_finetuning", "06", tuning_trial, range(20))
