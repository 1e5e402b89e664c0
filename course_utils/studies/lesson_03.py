"""Built in lesson 03, the slab attack.

Generated from notebooks/03_the_slab_attack.ipynb: edit it there, then run make notebooks.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from course_utils.attacks import label_flipping
from course_utils.attacks.slab import corner_images, slab_attack, train_decoy
from course_utils.cases import label_flips
from course_utils.cases.slab import RECIPES, poisons, slab_case
from course_utils.data import Data
from course_utils.defense import Defense
from course_utils.defenses.sanitizers import SCORES, sanitizer
from course_utils.models import Classifier
from course_utils.settings import MLP, Setting
from course_utils.stored import Study
from course_utils.threat import Poison, ThreatModel
from course_utils.training import train
from course_utils.trials import Case, Victim, compare


def damage(
    seed: int, setting: Setting, fractions: tuple[float, ...], titles: Sequence
) -> list[dict]:
    """One victim for each recipe, on clean data and for each fraction and attack."""
    case, attackers = slab_case(seed, setting), {("clean", 0.0): None}
    for fraction in fractions:
        for name, poison in poisons(case.data, fraction, seed).items():
            attackers[name, fraction] = poison
    rows = []
    for title in titles:
        trained = replace(case, recipe=setting.shortened(RECIPES[title]))
        found = label_flips.by_epoch(trained, attackers, ("condition", "fraction"))
        names = ("condition", "fraction", "accuracy", "best_epoch")
        rows += [{"recipe": title} | {name: row[name] for name in names} for row in found]
    return rows


def damage_trial(seed: int, setting: Setting = MLP) -> list[dict]:
    """All fractions, both recipes."""
    return damage(seed, setting, label_flips.FRACTIONS, RECIPES)


DAMAGE = Study("slab_damage", "03", damage_trial, range(100, 120))


SMALL, LARGE = 0.02, 0.3
COMBINATIONS = {"sphere + slab": ("sphere", "slab"), "all four": ("sphere", "slab", "loss", "k-NN")}


def masks_of(case: Case, seen: Data, reference: Data | None) -> dict[str, Tensor]:
    """What each filter, and each combination of filters, keeps of the data that it sees."""

    def fit(part: Data) -> Classifier:
        return case.train(case.plain, part)

    masks = {name: sanitizer(name, reference=reference).keep(seen, fit) for name in SCORES}
    for name, parts in COMBINATIONS.items():
        masks[name] = torch.stack([masks[part] for part in parts]).all(0)
    return masks


def keeper(name: str, mask: Tensor) -> Defense:
    """A filter that has already decided."""
    return Defense(name, keep=lambda data, fit: mask)


def inspect(case: Case, poison: Poison, reference: Data | None) -> list[dict]:
    """What each filter does to a poisoned set, and what it leaves to the victims behind two."""
    masks = masks_of(case, poison.apply(case.data), reference)
    victims = {"none": case.plain}
    for name in COMBINATIONS:
        victims[name] = Victim(keeper(name, masks[name]), case.recipe)
    found = compare(case, {"poison": poison}, victims)
    left = {row["victim"]: row["accuracy"] for row in found}
    rows, is_poison = [("none", "accuracy", left["none"])], poison.mask(case.data)
    for name, kept in masks.items():
        rows.append((name, "caught", (~kept[is_poison]).float().mean().item()))
        rows.append((name, "lost", (~kept[~is_poison]).float().mean().item()))
        if name in left:
            rows.append((name, "accuracy", left[name]))
    return [dict(zip(("filter", "measure", "value"), row, strict=True)) for row in rows]


def more_attacks(case: Case, fraction: float) -> dict[str, Poison]:
    """Slab attack, random flips, corner images; at the small fraction also slab with a decoy."""
    data, seed = case.data, 10_000 + case.seed  # models of the attacker's, not of the victim
    threat = ThreatModel(label_flipping.budget_for(data, fraction), placement="append")
    surrogate = train(case.model, data, case.recipe, seed=seed)
    attacks = poisons(data, fraction, case.seed)
    attacks["corner images"] = corner_images(data, threat, surrogate)
    if fraction == SMALL:
        decoy = train_decoy(case.model, data, case.recipe, seed)
        attacks["slab + decoy"] = slab_attack(data, case.goal, threat, decoy=decoy)
    for poison in attacks.values():
        poison.check(threat, data)
    return attacks


def detection_trial(seed: int, setting: Setting = MLP) -> list[dict]:
    """Every attack at two fractions, limits fitted on clean and on contaminated data."""
    case, rows = slab_case(seed, setting), []
    for fraction in (SMALL, LARGE):
        for condition, poison in more_attacks(case, fraction).items():
            for name, reference in (("clean", case.data), ("contaminated", None)):
                labels = {"condition": condition, "fraction": fraction, "limits": name}
                rows += [{**labels, **row} for row in inspect(case, poison, reference)]
    return rows


DETECTION = Study("slab_detection", "03", detection_trial, range(100, 120))
