"""Built in lesson 11, filtering.

Generated from notebooks/11_filtering.ipynb: edit it there, then run make notebooks.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from course_utils.cases import backdoors, from_scratch, label_flips, transfer
from course_utils.cases.filtering import filters
from course_utils.data import Data
from course_utils.defense import Defense
from course_utils.defenses.filters import (
    class_scores,
    cluster_scores,
    deep_knn,
    features_of,
    neighbour_labels,
    spectral_scores,
    spectral_signatures,
    vote_margin,
)
from course_utils.defenses.sanitizers import loss_score
from course_utils.models import Classifier
from course_utils.settings import MLP, Setting
from course_utils.stored import Study
from course_utils.trials import Case, Rows, Victim, compare


def class_ranks(scores: Tensor, labels: Tensor) -> Tensor:
    """For each score (N,), the share of its class that lies below it."""
    ranks = torch.zeros(len(scores), device=scores.device)
    for label in labels.unique():
        rows = (labels == label).nonzero()[:, 0]
        ranks[rows[scores[rows].argsort()]] = torch.linspace(0, 1, len(rows)).to(ranks)
    return ranks


def suspicion(seen: Data, looker: Classifier, told: int) -> dict[str, Tensor]:
    """How suspicious each filter finds each image (N,), looking with this model."""
    features, y = features_of(looker, seen), seen.y.cpu()
    loss = loss_score(seen, lambda part: looker)(seen).cpu()
    votes = neighbour_labels(features, y, 2 * told)
    return {
        "loss": class_ranks(loss, y),
        "Spectral Signatures": class_ranks(spectral_scores(features, y), y),
        "Spectral, uncentred": class_ranks(spectral_scores(features, y, centred=False), y),
        "Activation Clustering": cluster_scores(features, y),
        "Deep k-NN": vote_margin(votes, y),
    }


def bound(case: Case) -> int:
    """The largest number of poisons with the same label: what a defender may be told."""
    return int(case.oblivious.labels.bincount().max())


def at_random(filtered: Victim, seed: int) -> Victim:
    """A victim that drops as many images as this one does, drawn by lot."""

    def keep(data: Data, fit: Callable) -> Tensor:
        kept = filtered.defense.keep(data, fit)
        order = torch.randperm(len(kept), generator=torch.Generator().manual_seed(seed))
        return kept[order.to(kept.device)]

    return replace(filtered, defense=Defense(f"random, as {filtered.defense.name}", keep=keep))


def controls(case: Case) -> dict[str, Victim]:
    """A victim without a filter, and one whose filter is an oracle: it drops just the poison."""
    clean = ~case.oblivious.mask(case.data)
    oracle = Defense("oracle", keep=lambda data, fit: clean)
    return {"none": case.plain, "oracle": Victim(oracle, case.recipe)}


def filter_rows(case: Case, names: Sequence[str] = ()) -> Rows:
    """What each filter removes, and what a victim that trains on the rest then does.

    names: the filters, or () for all; no filter, an oracle and random removal come with them.
    """
    poison, told = case.oblivious, bound(case)
    seen, bad = poison.apply(case.data), poison.mask(case.data)
    scores = suspicion(seen, case.train(case.plain, seen), told)
    victims = controls(case)
    for name, filtered in filters(case, told).items():
        if not names or name in names:
            victims[name] = filtered
    for name in ("Spectral Signatures", "Deep k-NN"):
        victims[f"random, as {name}"] = at_random(victims[name], case.seed)
    rows = []
    for row in compare(case, {"attack": poison}, victims):
        name = row["victim"]
        area = roc_auc_score(bad.cpu(), scores[name].cpu()) if name in scores else np.nan
        rows.append({"filter": name, "auc": area, **removal(row, len(poison))})
    return rows


def removal(row: dict, poisons: int) -> dict:
    """What a row of `compare` says of a filter: none removes nothing."""
    removed = {name: row.get(name, 0) for name in ("poisons removed", "clean removed")}
    measured = {name: row[name] for name in row if name in ("accuracy", "success", "asr")}
    return {"poisons": poisons, **removed, **measured, "seconds": row["seconds"]}


SHORT = ("loss", "Spectral Signatures", "Activation Clustering", "Deep k-NN")


def flips_trial(seed: int, setting: Setting = MLP) -> Rows:
    """Label flips against the four sanitizers and the filters in SHORT."""
    return filter_rows(label_flips.flips(seed, setting), ("four sanitizers", *SHORT))


def collision_trial(seed: int, setting: Setting = MLP) -> Rows:
    """Bullseye Polytope against every filter."""
    return filter_rows(transfer.bullseye(seed, setting))


def matching_trial(seed: int, setting: Setting = MLP) -> Rows:
    """Gradient matching: 150 poisons against every filter, 60 against those in SHORT."""
    scene, found = from_scratch.draw_scene(seed, setting=setting), []
    for budget, names in ((150, ()), (60, SHORT)):
        case = from_scratch.matching(seed, setting, budget, scene=scene)
        found += [{"budget": budget, **row} for row in filter_rows(case, names)]
    return found


def badnets_trial(seed: int, setting: Setting = MLP) -> Rows:
    """BadNets against every filter."""
    return filter_rows(backdoors.badnets_case(seed, setting))


COLLISION = Study("filter_collision", "11", collision_trial, range(40))
MATCHING = Study("filter_matching", "11", matching_trial, range(40))
BADNETS = Study("filter_badnets", "11", badnets_trial, range(40))
FLIPS = Study("filter_flips", "11", flips_trial, range(40))


SETTINGS = {
    "feature collision": {"share": (0.02, 0.05, 0.15, 0.5), "k": (2, 5, 10, 45)},
    "BadNets": {"share": (0.02, 0.05, 0.15, 0.5), "k": (5, 20, 60, 250)},
}


def sweep_trial(seed: int, setting: Setting = MLP) -> Rows:
    """Removed shares and numbers of neighbours that nobody told, against two attacks."""
    rows, cases = (
        [],
        {
            "feature collision": transfer.bullseye(seed, setting),
            "BadNets": backdoors.badnets_case(seed, setting),
        },
    )
    for attack, case in cases.items():
        shares, counts = SETTINGS[attack]["share"], SETTINGS[attack]["k"]
        tried = {("share", share): spectral_signatures(share) for share in shares}
        tried |= {("k", k): deep_knn(setting.scaled(k)) for k in counts}
        victims = {name: Victim(defense, case.recipe) for name, defense in tried.items()}
        for row in compare(case, {"attack": case.oblivious}, victims):
            kind, value = row["victim"]
            found = removal(row, len(case.oblivious))
            hit = float(found.pop("success" if "success" in found else "asr"))
            rows.append({"attack": attack, "setting": kind, "value": value, "success": hit} | found)
    return rows


SWEEP = Study("filter_sweep", "11", sweep_trial, range(20))


DOSES = [(side, rate) for side in (4, 14) for rate in (0.003, 0.01, 0.03, 0.1)]
LOOKS = [(5, "last"), (10, "last"), (20, "last"), (20, "first"), (20, "logits")]


@torch.no_grad()
def at_layer(model: Classifier, images: Tensor, layer: str) -> Tensor:
    """What the MLP makes of images at its "first" or "last" hidden layer, or the "logits"."""
    if layer == "logits":
        return model(images).cpu().double()
    return model.features[: 3 if layer == "first" else 5](images).cpu().double()


def strength(features: Tensor, bad: Tensor) -> float:
    """What the poison adds to the spread of a class, as a share of the largest clean spread.

    The squared distance of the two means times p (1 - p), with p the share of poison, over the
    largest variance of the clean images in any direction.
    """
    clean, share = features[~bad], bad.double().mean()
    gap = features[bad].mean(0) - clean.mean(0)
    largest_spread = torch.linalg.matrix_norm(clean - clean.mean(0), 2).square() / len(clean)
    return (share * (1 - share) * gap.square().sum() / largest_spread).item()


def spectral_looks(case: Case, looks: Sequence[tuple[int, str]] = LOOKS) -> Rows:
    """The AUC of both spectral scores within the target class, while a victim trains.

    looks: after which of 20 epochs, and at which layer.
    """
    seen, rows = case.oblivious.apply(case.data), []
    mine = seen.y == case.goal.target_class
    images, bad = seen.x[mine], case.oblivious.mask(case.data)[mine].cpu()

    def look(victim: Classifier, epoch: int) -> None:
        done = 20 * epoch // case.recipe.epochs
        for layer in (layer for at, layer in looks if at == done):
            features, row = at_layer(victim, images, layer), {"epoch": done, "layer": layer}
            row["strength"] = strength(features, bad)
            for name, centred in (("centred", True), ("uncentred", False)):
                row[name] = roc_auc_score(bad, class_scores(features, centred))
            rows.append(row)

    compare(case, {"attack": case.oblivious}, after_epoch=look)
    return rows


def spectral_trial(seed: int, setting: Setting = MLP) -> Rows:
    """BadNets in 3,000 images: each dose, seen from several layers and epochs."""
    rows = []
    for side, rate in DOSES:
        for row in spectral_looks(backdoors.badnets_case(seed, setting, rate, side)):
            rows.append({"images": 3000, "side": side, "rate": rate, **row})
    return rows


SPECTRAL = Study("spectral_badnets", "11", spectral_trial, range(20))
