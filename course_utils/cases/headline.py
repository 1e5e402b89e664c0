"""Built in lesson 16, the grand comparison.

Generated from notebooks/16_the_grand_comparison.ipynb: edit it there, then run make notebooks.
"""

from functools import partial

import torch

from course_utils import threat, trials
from course_utils.attacks import adaptive, gradient_matching
from course_utils.cases import filtering, from_scratch, mixing, poisoning, robust, shaping
from course_utils.cases.controls import learns_less
from course_utils.cases.matrix import (
    AUGMENTATION,
    CUTMIX,
    DEEP_KNN,
    PLAIN_VICTIM,
    POISONING,
    SHAPING,
    SPECTRAL,
)
from course_utils.settings import Setting

CHEAP, CLUSTERING = poisoning.CHEAP, "Activation Clustering"


def defended(setting: Setting) -> dict[str, trials.Victim]:
    """Every defense that acts on training from scratch, at the strengths of its lesson."""
    recipe, shaped, mixed = setting.recipe, shaping.shaped(setting), mixing.mixed(setting)
    found = {"clipping": shaped["clip", "tuned"], SHAPING: shaped["clip + noise", "tuned"]}
    found |= {name: mixed[name] for name in (AUGMENTATION, "Mixup", CUTMIX, "Cutout", "MaxUp")}
    for (name, strength), victim in robust.pgd_trained(recipe, 8, 16, 32).items():
        found[f"{name} {strength}"] = victim
    found[CHEAP] = trials.Victim(poisoning.cheap(96 / 255), recipe)
    found[POISONING] = trials.Victim(poisoning.full(64 / 255), recipe)
    return found


def all_victims(case: trials.Case, setting: Setting) -> dict[str, trials.Victim]:
    """The plain victim, those that learn less, four filters, and every defense in training."""
    filters = filtering.filters(case, setting.scaled(150))
    filtered = {name: filters[name] for name in ("four sanitizers", SPECTRAL, CLUSTERING, DEEP_KNN)}
    undefended = {PLAIN_VICTIM: case.plain} | learns_less(setting)
    return undefended | filtered | defended(setting)


def objective_for(
    name: str, victim: trials.Victim, scene: from_scratch.Scene, goal: threat.Targeted
) -> gradient_matching.Objective:
    """What an attacker lowers who knows this victim: the best that lesson 15 found."""
    generator = torch.Generator(scene.data.x.device).manual_seed(scene.seed)
    if victim.defense.keep:
        base = from_scratch.best_bases(scene, goal)
        return adaptive.hidden_alignment(scene.data.x[base], weight=1.0)
    if victim.defense.gradients:
        return adaptive.clipped_alignment(1.0)
    if name.startswith((robust.PGD, CHEAP)):
        given = (victim.defense, scene.data, generator)
        return adaptive.rewritten_alignment(*given, constant=True)
    return gradient_matching.alignment_loss


UNKNOWN = (PLAIN_VICTIM, CLUSTERING, POISONING)  # no attacker of the course knows more of these


def knowing_poisons(
    victims: dict[str, trials.Victim], scene: from_scratch.Scene, goal: threat.Targeted
) -> dict[str, threat.Poison | None]:
    """For each victim but the UNKNOWN ones, the poison of an attacker who knows it."""
    filters, crafted = [name for name in victims if victims[name].defense.keep], {}
    for name in (name for name in victims if name not in (*UNKNOWN, *filters[1:])):
        victim, lowered = victims[name], objective_for(name, victims[name], scene, goal)
        models = scene.surrogates  # plain ones, where the objective holds the defense
        if lowered is gradient_matching.alignment_loss:
            models = from_scratch.surrogates(scene, victim)
        ways = dict(known=lambda *_, m=models: m, objective=lambda *_, o=lowered: o)
        attack = partial(from_scratch.matching, scene.seed, scene.setting, goal=goal, scene=scene)
        crafted[name] = attack(**ways).craft(victim)
    hidden = crafted[filters[0]]  # one poison hides from all filters
    return crafted | {name: hidden for name in filters if name not in UNKNOWN}
