"""Built in lesson 16, the grand comparison.

Generated from notebooks/16_the_grand_comparison.ipynb: edit it there, then run make notebooks.
"""

import math
from dataclasses import replace

from course_utils import settings, threat, training, trials
from course_utils.cases import filtering, mixing, poisoning, robust, shaping, transfer
from course_utils.models import Classifier

SHAPING, AUGMENTATION, CUTMIX = "gradient shaping", mixing.AUGMENTATION, mixing.CUTMIX


def defended(
    setting: settings.Setting, scenario: training.Scenario = "scratch"
) -> dict[str, trials.Victim]:
    """The defenses that act on training, each with the recipe of its lesson.

    scenario: "scratch", or "transfer" for a head on frozen features, where poisoning training
    simulates Bullseye Polytope.
    """
    mixed, shaped, recipe = mixing.mixed, shaping.shaped, setting.recipe
    simulated = poisoning.cheap(96 / 255)
    if scenario == "transfer":
        mixed, shaped, recipe = mixing.heads, shaping.heads, setting.shortened(transfer.HEAD)
        simulated = poisoning.collision_training(64 / 255)
    return {
        SHAPING: shaped(setting)[shaping.BOTH, "tuned"],
        AUGMENTATION: mixed(setting)[AUGMENTATION],
        CUTMIX: mixed(setting)[CUTMIX],
        robust.PGD: robust.pgd_trained(recipe, 16)[robust.PGD, "16/255"],
        poisoning.POISONING: trials.Victim(simulated, recipe),
    }


PLAIN_VICTIM, LEARNS_LESS = "plain", "plain, learns less"
FILTERS = SANITIZERS, SPECTRAL, DEEP_KNN = "sanitizers", "Spectral Signatures", "Deep k-NN"


def every_victim(
    case: trials.Case, setting: settings.Setting, told: int
) -> dict[str, trials.Victim]:
    """The two undefended victims and the eight defenses, with the settings of their lessons.

    told: the poisons that a class may hold, at full size; it sets two filters, as in lesson 11.
    """
    slow = 0.003 if case.scenario == "transfer" else 0.02
    less = replace(case.plain, recipe=replace(case.recipe, lr=slow))
    filters = filtering.filters(case, setting.scaled(told))
    filters[SANITIZERS] = filters["four sanitizers"]
    filtered = {name: filters[name] for name in FILTERS}
    plain = {PLAIN_VICTIM: case.plain, LEARNS_LESS: less}
    return plain | filtered | defended(setting, case.scenario)


def alone(model: Classifier, case: trials.Case) -> float:
    """How often a victim errs in the attacker's favour where the attack has no part in it."""
    if isinstance(case.goal, threat.Indiscriminate):
        return math.nan
    return mixing.by_itself(model, case.goal, case.test)


def cells_of(case: trials.Case, attackers: dict, victims: dict[str, trials.Victim]) -> trials.Rows:
    """One victim for each attacker and defense, all from the same seed.

    `seconds` are those of the processor, for the training. attackers: see `compare`.
    """

    def also(model: Classifier, poison: threat.Poison | None) -> dict[str, float]:
        return {"by itself": alone(model, case)}

    rows = []
    for row in trials.compare(case, attackers, victims, also=also):
        found = {"accuracy": row["accuracy"], "achieved": threat.achieved(row)}
        found |= {"by itself": row["by itself"], "seconds": row["seconds"]}
        rows.append({"knowledge": row["attacker"], "defense": row["victim"], **found})
    return rows


NOBODY, WITHOUT, WITH = "no attack", "without", "with"


Victims = dict[str, trials.Victim]


def matrix_row(
    case: trials.Case, victims: Victims, clean: Victims | None = None, known: Victims | None = None
) -> trials.Rows:
    """One trial of one row: victims of clean data, all, and those whose attacker knows them.

    clean: by default the plain one. known: those that an attacker crafts for; by default none.
    """
    clean = {PLAIN_VICTIM: case.plain} if clean is None else clean
    rows = cells_of(case, {NOBODY: None}, clean)
    rows += cells_of(case, {WITHOUT: case.oblivious}, victims)
    return rows + cells_of(case, {WITH: case.craft}, known or {})
