"""Built in lesson 16, the grand comparison.

Generated from notebooks/16_the_grand_comparison.ipynb: edit it there, then run make notebooks.
"""

from course_utils import settings, trials
from course_utils.cases import controls, filtering, mixing, poisoning, robust, shaping
from course_utils.cases.matrix import (
    AUGMENTATION,
    CUTMIX,
    DEEP_KNN,
    PLAIN_VICTIM,
    SHAPING,
    SPECTRAL,
)

CLUSTERING = "Activation Clustering"


def in_training(setting: settings.Setting) -> dict[str, trials.Victim]:
    """Every defense that acts on training from scratch, at the strengths of its lesson."""
    recipe, shaped, mixed = setting.recipe, shaping.shaped(setting), mixing.mixed(setting)
    found = {"clipping": shaped["clip", "tuned"], SHAPING: shaped[shaping.BOTH, "tuned"]}
    found |= {name: mixed[name] for name in (AUGMENTATION, "Mixup", CUTMIX, "Cutout", "MaxUp")}
    for (name, strength), victim in robust.pgd_trained(recipe, 8, 16, 32).items():
        found[f"{name} {strength}"] = victim
    found[poisoning.CHEAP] = trials.Victim(poisoning.cheap(96 / 255), recipe)
    found[poisoning.POISONING] = trials.Victim(poisoning.full(64 / 255), recipe)
    return found


def all_victims(case: trials.Case, setting: settings.Setting) -> dict[str, trials.Victim]:
    """The plain victim, those that learn less, four filters, and every defense in training."""
    filters = filtering.filters(case, setting.scaled(150))
    filtered = {name: filters[name] for name in ("four sanitizers", SPECTRAL, CLUSTERING, DEEP_KNN)}
    undefended = {PLAIN_VICTIM: case.plain} | controls.learns_less(setting)
    return undefended | filtered | in_training(setting)
