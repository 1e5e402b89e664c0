"""Built in lesson 06, MetaPoison.

Generated from notebooks/06_metapoison.ipynb: edit it there, then run make notebooks.
"""

from dataclasses import replace

from course_utils import fixed_trials, settings
from course_utils.attacks import gradient_matching
from course_utils.attacks.metapoison import (
    FIVE_STEPS,
    Unrolling,
    largest_gradients,
    margin_loss,
    metapoison,
)
from course_utils.cases.goals import draw_goal
from course_utils.cases.unrolled import (
    Scene,
    craft_on,
    draw_scene,
    epochs_of,
    metapoison_case,
    threat_model,
)
from course_utils.data import balanced, load
from course_utils.models import build
from course_utils.stored import Study
from course_utils.threat import Poison
from course_utils.training import Recipe, train
from course_utils.trials import Case, Rows, compare


def rows_of(case: Case, crafted: dict[str, tuple[Poison, float]], controls: bool) -> Rows:
    """A victim for each poison, with the CPU seconds of crafting; with clean data and noise."""
    made = {name: poison for name, (poison, _) in crafted.items()}
    if controls:
        noisy = replace(case, craft=lambda victim: made["MetaPoison"]).noise
        made = {"clean": None, "noise": noisy, **made}
    rows = []
    for row in compare(case, made):
        seconds = crafted.get(row["attacker"], (None, 0.0))[1]
        labels = {"condition": row["attacker"], "defense": row["victim"]}
        measured = {name: row[name] for name in ("accuracy", "success", "seconds")}
        rows.append({**labels, **measured, "crafting": seconds})
    return rows


def both(scene: Scene, setting: settings.Setting, how: Unrolling = FIVE_STEPS) -> Rows:
    """Clean data, noise, and both attacks on the same base rows, with the same threat model."""
    attack = gradient_matching.gradient_matching
    crafted = {
        "gradient matching": craft_on(attack, scene, setting, surrogates=scene.older),
        "MetaPoison": craft_on(metapoison, scene, setting, how=how),
    }
    return rows_of(metapoison_case(scene, setting), crafted, controls=True)


def main_trial(seed: int, setting: settings.Setting = settings.MLP) -> Rows:
    """Clean data, noise, gradient matching and MetaPoison on a fixed target, from scratch."""
    goal = fixed_trials.fixed_target(seed, load("fashion_mnist")[1])
    return both(draw_scene(seed, setting, goal=goal), setting)


def drawn_trial(seed: int, setting: settings.Setting = settings.MLP) -> Rows:
    """The same on a drawn target, which the surrogates classify correctly."""
    return both(draw_scene(seed, setting), setting)


MAIN_STUDY = Study("metapoison", "06", main_trial, fixed_trials.seeds("reporting"))
FIRST = fixed_trials.first_of_pairs()
MAIN_STUDY_CONVNET = Study("metapoison_convnet", "06", main_trial, FIRST, settings.CONVNET)
DRAWN_STUDY = Study("metapoison_drawn", "06", drawn_trial, range(40))


VARIANTS = {
    "1 step": Unrolling(steps=1),
    "2 steps": Unrolling(steps=2),
    "5 steps, first order": Unrolling(first_order=True),
    "5 steps, margin loss": Unrolling(loss=margin_loss),
    "5 steps, no clean images": Unrolling(clean=0),
}


def variants_trial(seed: int, setting: settings.Setting = settings.MLP) -> Rows:
    """MetaPoison with other settings, on the first of the drawn targets."""
    scene = draw_scene(seed, setting)
    crafted = {
        name: craft_on(metapoison, scene, setting, how=how) for name, how in VARIANTS.items()
    }
    return rows_of(metapoison_case(scene, setting), crafted, controls=False)


VARIANTS_STUDY = Study("metapoison_variants", "06", variants_trial, range(20))


TUNING = Recipe(epochs=10, batch_size=100, lr=0.02)
TUNING_STEPS, TUNING_AGES = Unrolling(lr=0.05), (0.2, 0.5, 1.0)


def draw_tuning_scene(seed: int, setting: settings.Setting) -> Scene:
    """A model trained on 3,000 images that is fine-tuned on 1,000 others; 50 base images."""
    train_all, test = load("fashion_mnist")
    drawn, size = balanced(train_all, setting.scaled(4000), seed), setting.scaled(3000)
    old, data, tuning = drawn[:size], drawn[size:], setting.shortened(TUNING)
    first = build(setting.network, data.shape, len(data.classes))
    model = train(first, old, setting.recipe, seed=seed)
    ages = epochs_of(tuning, TUNING_AGES)
    given = (model, data, tuning, seed, range(2), ages)
    surrogates = gradient_matching.staggered(*given, scenario="finetune")
    older = [one for number, one in enumerate(surrogates) if number % len(ages)]
    adults, threat = surrogates[len(ages) - 1 :: len(ages)], threat_model(setting, 50)
    goal = draw_goal(adults, test, seed)
    base = largest_gradients(adults, data, goal, threat)
    models = (model, surrogates, older)
    return Scene(data, test, *models, goal, base, threat, tuning, seed, "finetune")


def tuning_trial(seed: int, setting: settings.Setting = settings.MLP) -> Rows:
    """Clean data, noise, gradient matching and MetaPoison against a victim that is fine-tuned."""
    return both(draw_tuning_scene(seed, setting), setting, TUNING_STEPS)


TUNING_STUDY = Study("metapoison_finetuning", "06", tuning_trial, range(20))
