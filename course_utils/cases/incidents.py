"""Built in lesson 18, forensics.

Generated from notebooks/18_forensics.ipynb: edit it there, then run make notebooks.
"""

import math
from collections.abc import Sequence
from functools import partial

import pandas as pd
import torch
from torch import Tensor, nn

from course_utils import fixed_trials, threat
from course_utils.cases import from_scratch, transfer
from course_utils.data import Data, load
from course_utils.defenses.forensics import (
    Checkpoint,
    Incident,
    auc_within,
    contrast,
    cosine_tracin,
    incident_of,
    kept_after,
    leave_one_out,
    neighbour_scores,
    recall_in_first,
    ridge_influence,
    ridge_products,
    tracin,
    with_checkpoints,
)
from course_utils.models import Classifier, predict
from course_utils.settings import MLP, Setting
from course_utils.trials import Case, Rows


def draw_incident(model: Classifier, case: Case) -> Incident | None:
    """An incident that this attack has an interest in; None if the model gives none."""
    goal, x, y, before = case.goal, case.test.x, case.test.y, None
    if isinstance(goal, threat.Targeted):
        x, y = goal.image[None], torch.tensor([goal.true_class], device=x.device)
        chosen = predict(model, x) == goal.adversarial_class
    elif isinstance(goal, threat.Backdoor):
        meant = y != goal.target_class if goal.source_class is None else y == goal.source_class
        right = predict(model, x) == y
        before, x = x, goal.trigger(x)
        chosen = meant & right & (predict(model, x) == goal.target_class)
    else:
        chosen = predict(model, x) != y
    rows = chosen.nonzero()[:, 0]
    if len(rows) == 0:
        return None
    generator = torch.Generator().manual_seed(case.seed)
    row = rows[torch.randint(len(rows), (1,), generator=generator).item()]
    return incident_of(model, x[row], y[row].item(), None if before is None else before[row])


def transfer_on_target(seed: int, setting: Setting = MLP) -> transfer.Transfer:
    """A draw of transfer learning with the target of a fixed trial."""
    draw = transfer.draw_transfer(seed, setting=setting)
    return draw._replace(goal=fixed_trials.fixed_target(seed, load("fashion_mnist")[1]))


def matching_on_target(seed: int, setting: Setting = MLP) -> Case:
    """Gradient matching, 150 poisons at 32/255, against the target of a fixed trial."""
    scene = from_scratch.draw_scene(seed, setting=setting)
    goal = fixed_trials.fixed_target(seed, scene.test)
    return from_scratch.matching(seed, setting, goal=goal, scene=scene)


STRENGTH = 10.0


def ridge_view(case: Case, data: Data, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Frozen features with a 1 for the bias, targets of 0 and 1, and the features of an image."""
    with torch.no_grad():
        features, query = case.model.features(data.x), case.model.features(image[None])
    ones = torch.ones(len(data) + 1, 1, device=data.x.device)
    rows = torch.cat([torch.cat([features, query]), ones], 1).double()
    targets = nn.functional.one_hot(data.y, len(data.classes)).double()
    return rows[:-1], targets, rows[-1]


LEFT_OUT = "leave one out"


def ridge_scores(case: Case, data: Data, image: Tensor, label: int) -> dict[str, Tensor]:
    """How much each image (N,) holds up this class for an image: the truth, and three estimates."""
    features, targets, query = given = ridge_view(case, data, image)
    return {
        LEFT_OUT: -leave_one_out(*given, STRENGTH)[:, label],
        "influence function": -ridge_influence(*given, STRENGTH)[:, label],
        "gradient products": ridge_products(features, targets, query, label),
        "feature neighbours": nn.functional.cosine_similarity(features, query[None]),
    }


def fall_without(case: Case, data: Data, image: Tensor, label: int, gone: Tensor) -> float:
    """By how much the answer for this class falls when all images of a mask (N,) go at once."""
    features, targets, query = ridge_view(case, data, image)
    identity = torch.eye(features.shape[1], dtype=features.dtype, device=features.device)

    def answer(x: Tensor, t: Tensor) -> float:
        weights = torch.linalg.solve(x.T @ x + STRENGTH * identity, x.T @ t[:, label])
        return (query @ weights).item()

    return answer(features, targets) - answer(features[~gone], targets[~gone])


def agreement_of(table: dict[str, Tensor], suspects: Tensor) -> dict[str, float]:
    """The rank correlation of each column with exact leave-one-out, among the suspects (N,)."""
    frame = pd.DataFrame({name: scores[suspects].cpu() for name, scores in table.items()})
    return frame.corr("spearman")[LEFT_OUT].to_dict()


RANDOM, POISONS = "random of the class", "exactly the poisons"
NEIGHBOURS, TRACIN, COSINE = "feature neighbours", "TracIn", "cosine TracIn"
CONTRAST = "contrast"


def rankings(
    model: Classifier,
    checkpoints: Sequence[Checkpoint],
    data: Data,
    incident: Incident,
    bad: Tensor,
    seed: int,
) -> dict[str, Tensor]:
    """The rankings (N,) of the training images, and two controls."""
    generator = torch.Generator().manual_seed(seed)
    found = {
        RANDOM: torch.rand(len(data), generator=generator).to(data.x.device),
        NEIGHBOURS: neighbour_scores(model, data, incident),
        TRACIN: tracin(checkpoints, data, incident),
        COSINE: cosine_tracin(checkpoints, data, incident),
        POISONS: bad.to(data.x.dtype),
    }
    pair = incident.before is not None
    return found | ({CONTRAST: contrast(checkpoints, data, incident)} if pair else {})


def state_of(model: Classifier, case: Case, incident: Incident | None) -> dict[str, float]:
    """Accuracy, what the attack achieves, whether the incident is right; NaN where that is open."""
    found = case.goal.measure(model, case.test)
    right = math.nan
    if incident is not None:
        right = float(predict(model, incident.image[None]).item() == incident.true_class)
    achieved = threat.achieved(found)
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
INNOCENTS, GUILTY = "TracIn, its innocents", "TracIn, its poisons"
LUCK = "as many random poisons"


def parts(kept: Tensor, data: Data, bad: Tensor, label: int, seed: int) -> dict[str, Tensor]:
    """What a drop (kept: who stays, (N,)) does in two parts, and a control of the second: masks.

    INNOCENTS: of those that went only the ones go that are no poisons; GUILTY: only the poisons;
    LUCK: as many poisons, drawn at random.
    """
    few = int((~kept & bad).sum())
    order = torch.rand(len(data), generator=torch.Generator().manual_seed(seed)).to(data.x.device)
    luck = kept_after(order.masked_fill(~bad, -1), data, label, few)
    return {INNOCENTS: kept | bad, GUILTY: kept | ~bad, LUCK: luck}


def found_by(scores: Tensor, data: Data, bad: Tensor, label: int, n: int) -> dict[str, float]:
    """How well a ranking finds the poisons of this label."""
    auc = auc_within(scores, data.y, label, bad)
    return {"auc": auc, "recall": recall_in_first(scores, data.y, label, bad, n)}


def watched(case: Case, data: Data) -> tuple[Classifier, list[Checkpoint]]:
    """The plain victim of a case, trained on this data, with its checkpoints."""
    fit = partial(case.train, case.plain, data)
    return with_checkpoints(fit, case.recipe, len(data))


def forensic_rows(case: Case) -> Rows:
    """One incident of this case: rankings judged, their first n images dropped, a new training.

    The first n: as many as poisons have the incident's wrong label. Where the attack gives no
    incident, or none of its poisons has that label, only the poisoned model has a row.
    """
    data, bad = case.oblivious.apply(case.data), case.oblivious.mask(case.data)
    model, checkpoints = watched(case, data)
    incident = draw_incident(model, case)
    before = {"ranking": BEFORE, "n": 0, **state_of(model, case, incident)}
    if incident is None or not (suspects := bad & (data.y == incident.predicted)).any():
        return [before]
    label, n = incident.predicted, int(suspects.sum())
    before |= {"true class": data.classes[incident.true_class], "given": data.classes[label]}
    ranked = rankings(model, checkpoints, data, incident, bad, case.seed)
    rows = [before | signal(ranked[COSINE], checkpoints, case, incident)]
    masks = {name: kept_after(scores, data, label, n) for name, scores in ranked.items()}
    if isinstance(case.goal, threat.Targeted):
        masks |= parts(masks[TRACIN], data, bad, label, case.seed)
    for name, kept in masks.items():
        row = {"ranking": name, "n": int((~kept).sum())}
        row |= found_by(ranked[name], data, bad, label, n) if name in ranked else {}
        rows.append(row | state_of(case.train(case.plain, data[kept]), case, incident))
    return rows


def ridge_rows(case: Case) -> Rows:
    """Ridge regression in the place of the head: each estimate beside exact leave-one-out.

    `agreement`: the rank correlation with leave-one-out among the images of the class. `one
    poison`: the largest fall of the answer without one poison; `together`: without all.
    """
    data, bad = case.oblivious.apply(case.data), case.oblivious.mask(case.data)
    image, label = case.goal.image, case.goal.adversarial_class
    table = ridge_scores(case, data, image, label)
    agreement = agreement_of(table, data.y == label)
    falls = {
        "one poison": table[LEFT_OUT][bad].max().item(),
        "together": fall_without(case, data, image, label, bad),
    }
    rows = []
    for name, scores in table.items():
        found = {"auc": auc_within(scores, data.y, label, bad), "agreement": agreement[name]}
        rows.append({"ranking": f"ridge: {name}", **found, **falls})
    return rows
