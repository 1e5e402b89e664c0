"""Built in lesson 19, repair.

Generated from notebooks/19_repair.ipynb: edit it there, then run make notebooks.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch

from course_utils import guards, threat, training
from course_utils.attacks.triggers import apply_trigger
from course_utils.data import Data, balanced, load
from course_utils.defense import PLAIN
from course_utils.defenses.certificates import fingerprint
from course_utils.defenses.repair import STEPS, fine_prune, fine_tune, forgetting, negated_steps
from course_utils.defenses.trigger_reconstruction import (
    Reconstruction,
    anomaly_indices,
    reconstruct_all,
    smallest,
    trigger_of,
    unlearn_trigger,
)
from course_utils.models import Classifier, predict
from course_utils.runtime import timed
from course_utils.settings import Setting
from course_utils.trials import Case, Rows, Victim


class Suspicion(NamedTuple):
    """What a list of suspects makes of the training data: the images found, and those kept."""

    found: Data
    kept: Data


def suspicion(case: Case, recall: float = 1.0) -> Suspicion:
    """A list that finds this share of the poisons.

    For each poison that it misses it accuses an innocent image with the same label, if there is
    one. Raises ValueError for a recall outside [0, 1].
    """
    guards.check_fraction("The recall", recall)
    seen, bad = case.oblivious.apply(case.data), case.oblivious.mask(case.data)
    generator = torch.Generator().manual_seed(case.seed)
    poisons, alike = (
        rows[torch.randperm(len(rows), generator=generator)]
        for rows in (bad.nonzero()[:, 0], (~bad & torch.isin(seen.y, seen.y[bad])).nonzero()[:, 0])
    )
    missed = poisons[round(recall * len(poisons)) :]
    listed = bad.clone()
    listed[missed], listed[alike[: len(missed)]] = False, True
    return Suspicion(seen[listed], seen[~listed])


def measured(model: Classifier, case: Case) -> dict[str, float]:
    """Clean accuracy, and what the attacker achieves: success or attack success rate."""
    found = case.goal.measure(model, case.test)
    return {"accuracy": found["accuracy"], "achieved": threat.achieved(found)}


def trusted_images(case: Case, n: int) -> Data:
    """n clean images that the case does not train on, equally many of each class.

    Raises DataError, as `balanced` does, for n below the number of classes and for more images of
    a class than are left.
    """
    train_all = load("fashion_mnist")[0]
    known = {fingerprint(image) for image in case.data.x}
    fresh = [row for row, image in enumerate(train_all.x) if fingerprint(image) not in known]
    return balanced(train_all[fresh], n, case.seed)


Repairs = dict[str, Callable[[], Classifier]]


def repaired(case: Case, repairs: Repairs, images: str) -> tuple[Rows, dict[str, Classifier]]:
    """Run each repair: a row of what it leads to, with its processor seconds; and the models.

    images: what the repairs work with, for the rows.
    """
    rows, models = [], {}
    for name, repair in repairs.items():
        models[name], seconds = timed(repair)
        found = measured(models[name], case)
        rows.append({"repair": name, "images": images, **found, "seconds": seconds})
    return rows, models


CLIMB = "ascent and descent"


def with_list(model: Classifier, listed: Suspicion, case: Case, setting: Setting) -> Repairs:
    """Full retraining without the suspects, and the repairs that need their list."""
    seed, steps, (found, kept) = case.seed, setting.scaled(STEPS), listed
    epochs = max(1, round(steps / training.batches_in(len(kept), 100)))
    short, climb = Victim(PLAIN, training.Recipe(epochs, 100, 0.2)), forgetting(found, 0.5)
    return {
        "retraining": lambda: case.train(case.plain, kept),
        "short retraining": lambda: case.train(short, kept),
        "gradient ascent": lambda: negated_steps(model, found, 0.01, setting.scaled(100)),
        CLIMB: lambda: fine_tune(model, kept, 0.02, seed, steps, climb),
    }


KEPT_LR, TRUSTED_LR, TOLERANCE = 0.1, 0.01, 0.04


def with_images(
    model: Classifier, clean: Data, found: Reconstruction, case: Case, steps: int
) -> Repairs:
    """The repairs that need clean images and nothing else. found: the trigger to unlearn."""
    many = len(clean) > len(case.data) / 2
    lr, seed = KEPT_LR if many else TRUSTED_LR, case.seed

    def unlearned() -> Classifier:
        if math.isinf(found.distance):
            return model  # nothing to unlearn
        return unlearn_trigger(model, clean, trigger_of(found), lr, seed, steps)

    return {
        "fine-tuning": lambda: fine_tune(model, clean, lr, seed, steps),
        "fine-pruning": lambda: fine_prune(model, clean, TOLERANCE, lr, seed, steps),
        "unlearning the trigger": unlearned,
    }


def look_for_triggers(
    model: Classifier, never: Classifier, clean: Data, case: Case, steps: int
) -> tuple[dict, list[Reconstruction]]:
    """Reconstruct a trigger for every class: what to say of the smallest one, and all of them.

    never: a model that met no poison. Which class it is (label), whether it is the attacker's
    (hit), how far below the median (index), and on which share of the test images of other classes
    it works, here (works) and on `never` (elsewhere).
    """
    found, seconds = timed(reconstruct_all, model, clean, case.seed, steps)
    first = smallest(found)
    wanted = getattr(case.goal, "target_class", getattr(case.goal, "adversarial_class", None))
    others = apply_trigger(case.test.x[case.test.y != first.label], first.mask, first.pattern)
    rates = [(predict(m, others) == first.label).float().mean().item() for m in (model, never)]
    index = anomaly_indices(torch.tensor([one.distance for one in found])).max().item()
    facts = {"label": first.label, "hit": float(first.label == wanted), "index": index}
    facts |= {"distance": first.distance, "works": rates[0], "elsewhere": rates[1]}
    return {**measured(model, case), "seconds": seconds, **facts}, found
