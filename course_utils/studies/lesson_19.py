"""Built in lesson 19, repair.

Generated from notebooks/19_repair.ipynb: edit it there, then run make notebooks.
"""

from collections.abc import Sequence
from functools import partial

import torch

from course_utils import fixed_trials, threat, training
from course_utils.cases import backdoors
from course_utils.cases.incidents import matching_on_target
from course_utils.cases.repairs import (
    CLIMB,
    KEPT_LR,
    TOLERANCE,
    Suspicion,
    look_for_triggers,
    measured,
    repaired,
    suspicion,
    trusted_images,
    with_images,
    with_list,
)
from course_utils.data import Data, balanced
from course_utils.defenses.repair import STEPS, dormant_units, fine_tune, last_hidden, prune
from course_utils.defenses.trigger_reconstruction import (
    SEARCH,
    Reconstruction,
    smallest,
    unlearn_trigger,
)
from course_utils.models import Classifier
from course_utils.settings import CONVNET, MLP, Setting
from course_utils.stored import Study
from course_utils.trials import Case, Rows


def sources_of(case: Case, kept: Data, counts: Sequence[int], setting: Setting) -> dict[str, Data]:
    """Handfuls of trusted images, and the images that were kept."""
    fewest = len(case.data.classes)
    trusted = trusted_images(case, max(setting.scaled(max(counts)), fewest))
    handfuls = {
        str(n): balanced(trusted, max(setting.scaled(n), fewest), case.seed) for n in counts
    }
    return handfuls | {"kept": kept}


def look_and_repair(
    model: Classifier, never: Classifier, sources: dict[str, Data], case: Case, setting: Setting
) -> tuple[Rows, dict[str, Classifier], list[Reconstruction]]:
    """Look for triggers with the images of each source, and repair with them.

    The models and the triggers are those of the last source.
    """
    rows, steps = [], setting.scaled(STEPS)
    for images, clean in sources.items():
        looked, found = look_for_triggers(model, never, clean, case, setting.scaled(SEARCH))
        repairs = with_images(model, clean, smallest(found), case, steps)
        more, models = repaired(case, repairs, images)
        rows += [{"repair": "nothing", "images": images, **looked}, *more]
    return rows, models, found


def rate_rows(model: Classifier, sources: dict[str, Data], case: Case, setting: Setting) -> Rows:
    """Fine-tuning at other rates, and with all the images, the poison among them."""
    tried = {"200": (0.03, 0.1), "kept": (0.03,), "all": (KEPT_LR,)}
    data, rows = sources | {"all": case.oblivious.apply(case.data)}, []
    for images, rates in tried.items():
        for lr in rates:
            given = (model, data[images], lr, case.seed, setting.scaled(STEPS))
            found = repaired(case, {"fine-tuning at a rate": partial(fine_tune, *given)}, images)
            rows += [{**row, "lr": lr} for row in found[0]]
    return rows


def pruned_rows(model: Classifier, trusted: Data, case: Case) -> Rows:
    """Dormant units go, or as many at random; no fine-tuning."""
    units = dormant_units(model, trusted, TOLERANCE)
    generator = torch.Generator().manual_seed(case.seed)
    drawn = torch.randperm(last_hidden(model).out_features, generator=generator)[: len(units)]
    pruned = {
        "pruning alone": partial(prune, model, units),
        "pruning at random": partial(prune, model, drawn),
    }
    return repaired(case, pruned, "200")[0]


def trigger_rows(
    model: Classifier, kept: Data, found: Sequence[Reconstruction], case: Case, setting: Setting
) -> Rows:
    """Unlearning with the trigger of another class, and with the planted one."""
    ordered = sorted(found, key=lambda one: (one.distance, -one.rate))
    steps = setting.scaled(STEPS)
    other = with_images(model, kept, ordered[len(ordered) // 2], case, steps)
    repairs = {"another class's trigger": other["unlearning the trigger"]}
    if isinstance(case.goal, threat.Backdoor):
        given = (model, kept, case.goal.trigger, KEPT_LR, case.seed, steps)
        repairs["the planted trigger"] = partial(unlearn_trigger, *given)
    return repaired(case, repairs, "kept")[0]


def with_missed(case: Case, kept: Data) -> Data:
    """The kept images, and a tenth of the poison that no list found."""
    poison, few = case.oblivious, slice(0, max(1, len(case.oblivious) // 10))
    x, y = torch.cat([kept.x, poison.images[few]]), torch.cat([kept.y, poison.labels[few]])
    return Data(x, y, kept.classes)


def later_rows(models: dict[str, Classifier], case: Case, kept: Data, setting: Setting) -> Rows:
    """Each model trains on for three epochs: on the kept images, or with a tenth of the poison."""
    rows, recipe = [], training.Recipe(3, setting.recipe.batch_size, 0.05)
    for later, data in {"clean data": kept, "a tenth missed": with_missed(case, kept)}.items():
        for name, model in models.items():

            def look(now: Classifier, epoch: int, name: str = name, later: str = later) -> None:
                row = {"repair": name, "images": "kept", **measured(now, case)}
                rows.append({**row, "later": later, "epoch": epoch})

            training.train(
                model, data, recipe, scenario="finetune", seed=case.seed, after_epoch=look
            )
    return rows


def attack_rows(case: Case, setting: Setting, counts: Sequence[int], later: bool) -> Rows:
    """One poisoned victim and all its repairs. counts: how many trusted images there may be.

    later: whether the repaired models train on.
    """
    listed, missing = suspicion(case), suspicion(case, 0.9)
    model = case.train(case.plain, case.oblivious.apply(case.data))
    rows, by_list = repaired(case, with_list(model, listed, case, setting), "kept")
    sources = sources_of(case, listed.kept, counts, setting)
    more, models, found = look_and_repair(model, by_list["retraining"], sources, case, setting)
    rows += more + rate_rows(model, sources, case, setting)
    rows += pruned_rows(model, sources["200"], case)
    rows += trigger_rows(model, listed.kept, found, case, setting)
    by_missing = with_list(model, missing, case, setting)
    again = {name: by_missing[name] for name in ("retraining", CLIMB)}
    given = (model, missing.kept, KEPT_LR, case.seed, setting.scaled(STEPS))
    again["fine-tuning"] = partial(fine_tune, *given)
    rows += repaired(case, again, "kept, 90%")[0]
    rows = [{**row, "later": "now", "epoch": 0} for row in rows]
    if later:
        kinds = (models, "fine-tuning", "unlearning the trigger"), (by_list, "retraining", CLIMB)
        chosen = {name: made[name] for made, *names in kinds for name in names}
        rows += later_rows(chosen, case, listed.kept, setting)
    return rows


def badnets_trial(seed: int, setting: Setting = MLP) -> Rows:
    """BadNets, with 20, 50 and 200 trusted images, and what comes back."""
    return attack_rows(backdoors.badnets_case(seed, setting), setting, (20, 50, 200), later=True)


def clean_label_trial(seed: int, setting: Setting = MLP) -> Rows:
    """The clean-label patch with 90 poisons, 3 in 10 of the class, with 200 trusted images."""
    case = backdoors.clean_label_case(seed, setting, budget=90)
    return attack_rows(case, setting, (200,), later=False)


def matching_trial(seed: int, setting: Setting = MLP) -> Rows:
    """Gradient matching against the target of a fixed trial, and what comes back."""
    case = matching_on_target(seed, setting)
    if case.oblivious is None:
        return []
    return attack_rows(case, setting, (200,), later=True)


def convnet_trial(seed: int, setting: Setting = CONVNET) -> Rows:
    """BadNets on the convolutional network, with 200 trusted images."""
    return attack_rows(backdoors.badnets_case(seed, setting), setting, (200,), later=False)


def innocents(case: Case) -> Suspicion:
    """A list that accuses as many innocent images of the target class as BadNets has poisons."""
    mine = (case.data.y == case.goal.target_class).nonzero()[:, 0]
    order = torch.randperm(len(mine), generator=torch.Generator().manual_seed(case.seed))
    listed = torch.zeros_like(case.data.y, dtype=torch.bool)
    listed[mine[order[: len(case.oblivious)]]] = True
    return Suspicion(case.data[listed], case.data[~listed])


def price_trial(seed: int, setting: Setting = MLP) -> Rows:
    """The same repairs of a victim that nobody poisoned; `achieved` is what it does by itself."""
    case = backdoors.badnets_case(seed, setting)
    model, listed = case.train(case.plain, case.data), innocents(case)
    rows, by_list = repaired(case, with_list(model, listed, case, setting), "kept")
    sources = sources_of(case, listed.kept, (200,), setting)
    return rows + look_and_repair(model, by_list["retraining"], sources, case, setting)[0]


BADNETS = Study("repair_badnets", "19", badnets_trial, range(52))
CLEAN_LABEL = Study("repair_clean_label", "19", clean_label_trial, range(26))
MATCHING = Study("repair_matching", "19", matching_trial, fixed_trials.seeds("reporting"))
CONVOLUTIONAL = Study("repair_convnet", "19", convnet_trial, range(26), CONVNET)
PRICE = Study("repair_price", "19", price_trial, range(26))
