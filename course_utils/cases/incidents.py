"""Built in lesson 18, forensics.

Generated from notebooks/18_forensics.ipynb: edit it there, then run make notebooks.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from course_utils.cases import from_scratch, transfer
from course_utils.data import Data, load
from course_utils.defenses.forensics import (
    Checkpoint,
    Incident,
    auc_within,
    cosine_tracin,
    incident_of,
    kept_after,
    neighbour_scores,
    recall_in_first,
    tracin,
    with_checkpoints,
)
from course_utils.fixed_trials import fixed_target
from course_utils.models import Classifier, predict
from course_utils.settings import MLP, Setting
from course_utils.threat import Backdoor, Targeted
from course_utils.trials import Case, Rows


def draw_incident(model: Classifier, case: Case) -> Incident | None:
    """An incident that this attack has an interest in; None if the model gives none."""
    goal, x, y = case.goal, case.test.x, case.test.y
    if isinstance(goal, Targeted):
        x, y = goal.image[None], torch.tensor([goal.true_class], device=x.device)
        chosen = predict(model, x) == goal.adversarial_class
    elif isinstance(goal, Backdoor):
        meant = y != goal.target_class if goal.source_class is None else y == goal.source_class
        right = predict(model, x) == y
        x = goal.trigger(x)
        chosen = meant & right & (predict(model, x) == goal.target_class)
    else:
        chosen = predict(model, x) != y
    rows = chosen.nonzero()[:, 0]
    if len(rows) == 0:
        return None
    generator = torch.Generator().manual_seed(case.seed)
    row = rows[torch.randint(len(rows), (1,), generator=generator).item()]
    return incident_of(model, x[row], y[row].item())


def transfer_on_target(seed: int, setting: Setting = MLP) -> transfer.Transfer:
    """A draw of transfer learning with the target of a fixed trial."""
    draw = transfer.draw_transfer(seed, setting=setting)
    return draw._replace(goal=fixed_target(seed, load("fashion_mnist")[1]))


def matching_on_target(seed: int, setting: Setting = MLP) -> Case:
    """Gradient matching, 150 poisons at 32/255, against the target of a fixed trial."""
    goal = fixed_target(seed, load("fashion_mnist")[1])
    return from_scratch.matching(seed, setting, goal=goal)


STRENGTH = 10.0


def ridge_view(case: Case, data: Data, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Frozen features with a 1 for the bias, targets of 0 and 1, and the features of an image."""
    with torch.no_grad():
        features, query = case.model.features(data.x), case.model.features(image[None])
    ones = torch.ones(len(data) + 1, 1, device=data.x.device)
    rows = torch.cat([torch.cat([features, query]), ones], 1).double()
    targets = nn.functional.one_hot(data.y, len(data.classes)).double()
    return rows[:-1], targets, rows[-1]


RANDOM, POISONS = "random of the class", "exactly the poisons"
NEIGHBOURS, TRACIN, COSINE = "feature neighbours", "TracIn", "cosine TracIn"


def rankings(
    model: Classifier,
    checkpoints: Sequence[Checkpoint],
    data: Data,
    incident: Incident,
    bad: Tensor,
    seed: int,
) -> dict[str, Tensor]:
    """The three rankings (N,) of the training images, between two controls."""
    generator = torch.Generator().manual_seed(seed)
    return {
        RANDOM: torch.rand(len(data), generator=generator).to(data.x.device),
        NEIGHBOURS: neighbour_scores(model, data, incident),
        TRACIN: tracin(checkpoints, data, incident),
        COSINE: cosine_tracin(checkpoints, data, incident),
        POISONS: bad.to(data.x.dtype),
    }


def state_of(model: Classifier, case: Case, incident: Incident | None) -> dict[str, float]:
    """Accuracy, what the attack achieves, whether the incident is right; NaN where that is open."""
    found = case.goal.measure(model, case.test)
    achieved = float(found.get("asr", found.get("success", math.nan)))
    right = math.nan
    if incident is not None:
        right = float(predict(model, incident.image[None]).item() == incident.true_class)
    return {"accuracy": found["accuracy"], "achieved": achieved, "given back": right}


def signal(
    scores: Tensor, checkpoints: Sequence[Checkpoint], case: Case, incident: Incident
) -> dict[str, float]:
    """Mean scores of the poisons, of the images they were made from, and of others of the class.

    scores: those of cosine TracIn. `spread`: the standard deviation among the others.
    """
    poison, before = case.oblivious, cosine_tracin(checkpoints, case.data, incident)
    data, bad = poison.apply(case.data), poison.mask(case.data)
    others = scores[(data.y == incident.predicted) & ~bad]
    means = {"poisons": scores[bad], "bases": before[poison.base], "others": others}
    found = {name: values.mean().item() for name, values in means.items()}
    return found | {"spread": others.std(correction=0).item()}


BEFORE = "nothing dropped"


def forensic_rows(case: Case) -> Rows:
    """One incident of this case: each ranking judged, its first images dropped, a new training.

    n is the number of poisons that carry the incident's wrong label. Where the attack gives no
    incident, or none of its poisons carries that label, only the poisoned model has a row.
    """
    poison = case.oblivious
    data, bad = poison.apply(case.data), poison.mask(case.data)
    model, checkpoints = with_checkpoints(
        lambda look: case.train(case.plain, data, look), case.recipe, len(data)
    )
    incident = draw_incident(model, case)
    before = {"ranking": BEFORE, "n": 0, **state_of(model, case, incident)}
    if incident is None or not (suspects := bad & (data.y == incident.predicted)).any():
        return [before]
    label, n, rows = incident.predicted, int(suspects.sum()), []
    ranked = rankings(model, checkpoints, data, incident, bad, case.seed)
    for name, scores in ranked.items():
        retrained = case.train(case.plain, data[kept_after(scores, data, label, n)])
        found = {"auc": auc_within(scores, data.y, label, bad)}
        found["recall"] = recall_in_first(scores, data.y, label, bad, n)
        rows.append({"ranking": name, "n": n, **found, **state_of(retrained, case, incident)})
    return [before | signal(ranked[COSINE], checkpoints, case, incident), *rows]
