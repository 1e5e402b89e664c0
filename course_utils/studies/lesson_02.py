"""Built in lesson 02, label flipping.

Generated from notebooks/02_label_flipping.ipynb: edit it there, then run make notebooks.
"""

from collections.abc import Sequence
from dataclasses import replace

from course_utils.attacks.label_flipping import (
    budget_for,
    random_flips,
    targeted_flips,
    worst_flips,
)
from course_utils.cases.label_flips import FRACTIONS, PAIR, PAPER, by_epoch, flips, linear_case
from course_utils.models import build
from course_utils.settings import MLP, Setting
from course_utils.stored import Study
from course_utils.threat import ThreatModel
from course_utils.training import Recipe, train
from course_utils.trials import Case, Rows

LINEAR_DECAYS = (0.0, 0.1)


def flip_victims(case: Case, doses: Sequence[tuple[str, float]]) -> Rows:
    """A clean victim, and one for each dose (placement, fraction) and attack."""
    data, goal, seed = case.data, case.goal, case.seed
    surrogate = train(case.model, data, case.recipe, seed=10_000 + seed)
    source, into = (data.classes.index(name) for name in PAIR)
    attackers = {("clean", "none", 0.0): None}
    for placement, fraction in doses:
        dose = placement, fraction
        threat = ThreatModel(budget_for(data, fraction), placement=placement)
        attackers["random", *dose] = random_flips(data, goal, threat, seed)
        attackers["worst", *dose] = worst_flips([surrogate], data, goal, threat)
        if threat.budget <= (data.y == source).sum():
            flips = targeted_flips(data, goal, threat, seed, source, into)
            attackers["targeted", *dose] = flips
    found = by_epoch(case, attackers, ("condition", "placement", "fraction"))
    return [{"decay": case.recipe.weight_decay, **row} for row in found]


def with_decay(case: Case, decay: float) -> Case:
    """The same case, with another weight decay in its recipe."""
    return replace(case, recipe=replace(case.recipe, weight_decay=decay))


def linear_trial(seed: int, setting: Setting = MLP) -> Rows:
    """Logistic regression, Dress against Coat: every attack, fraction, placement and decay."""
    case = linear_case(seed, setting)
    doses = [(placement, f) for placement in ("append", "replace") for f in FRACTIONS]
    return [row for d in LINEAR_DECAYS for row in flip_victims(with_decay(case, d), doses)]


LINEAR_STUDY = Study("label_flips_linear", "02", linear_trial, range(40))


def paper_trial(seed: int, setting: Setting = MLP) -> Rows:
    """Random flips, appended, with the paper's optimiser, epochs and batch size."""
    case, attackers = linear_case(seed, setting, PAPER), {("clean", 0.0): None}
    for fraction in FRACTIONS:
        threat = ThreatModel(budget_for(case.data, fraction), placement="append")
        attackers["random", fraction] = random_flips(case.data, case.goal, threat, seed)
    return by_epoch(case, attackers, ("condition", "fraction"))


PAPER_STUDY = Study("label_flips_paper", "02", paper_trial, range(40))


NETWORK_DECAYS = (0.0, 0.01)
NETWORK_FRACTIONS = (0.01, 0.05, 0.1, 0.2, 0.4)


def mlp_trial(seed: int, setting: Setting = MLP) -> Rows:
    """The network on ten classes: replacing at five fractions, appending at 40%, both decays."""
    case = flips(seed, setting)
    doses = [*(("replace", f) for f in NETWORK_FRACTIONS), ("append", 0.4)]
    return [row for d in NETWORK_DECAYS for row in flip_victims(with_decay(case, d), doses)]


MLP_STUDY = Study("label_flips_mlp", "02", mlp_trial, range(20))


CONVOLUTIONS = Recipe(epochs=8, batch_size=50, lr=0.1, weight_decay=0.0)


def cnn_trial(seed: int, setting: Setting = MLP) -> Rows:
    """The small CNN on ten classes, two fractions, replacing, weak decay."""
    case = flips(seed, setting)
    model = build("small_cnn", case.data.shape, len(case.data.classes))
    case = replace(case, model=model, recipe=setting.shortened(CONVOLUTIONS))
    return flip_victims(case, [("replace", 0.1), ("replace", 0.4)])


CNN_STUDY = Study("label_flips_cnn", "02", cnn_trial, range(20))
