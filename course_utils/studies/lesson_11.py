"""Built in lesson 11, filtering.

Generated from notebooks/11_filtering.ipynb: edit it there, then run make notebooks.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from course_utils.attacks.label_flipping import budget_for, random_flips
from course_utils.attacks.patch_backdoors import badnets
from course_utils.data import Data, balanced, load
from course_utils.defense import Defense
from course_utils.defenses.filters import (
    activation_clustering,
    class_scores,
    cluster_scores,
    deep_knn,
    features_of,
    neighbour_labels,
    spectral_scores,
    spectral_signatures,
    vote_margin,
)
from course_utils.defenses.sanitizers import loss_score, sanitizer
from course_utils.models import Classifier, build
from course_utils.stored import Study
from course_utils.studies import lesson_02, lesson_04, lesson_05, lesson_07
from course_utils.studies.goals import draw_goal
from course_utils.threat import Backdoor, Goal, Indiscriminate, Poison, ThreatModel
from course_utils.training import Recipe, Scenario, train


@dataclass(frozen=True, eq=False)
class Case:
    """One attack in its setting: clean data, poison, what the attacker wants, how victims train."""

    data: Data
    poison: Poison
    goal: Goal
    test: Data
    model: Classifier
    recipe: Recipe
    seed: int
    scenario: Scenario = "scratch"

    @property
    def bound(self) -> int:
        """The largest number of poisons with the same label: what a defender may be told."""
        return int(self.poison.labels.bincount().max())

    def fit(self, part: Data) -> Classifier:
        """A model trained on these images in the victim's way."""
        return train(self.model, part, self.recipe, scenario=self.scenario, seed=self.seed)


def flips_case(seed: int) -> Case:
    """10% random label flips in 2,000 images, for the MLP of lesson 02."""
    train_all, test_all = load("fashion_mnist")
    data, test = balanced(train_all, 2000, seed), balanced(test_all, 1000, seed=0)
    goal, threat = Indiscriminate(), ThreatModel(budget_for(data, 0.1))
    poison = random_flips(data, goal, threat, seed)
    poison.check(threat, data)
    model = build("mlp", data.shape, len(data.classes))
    return Case(data, poison, goal, test, model, lesson_02.NETWORK, seed)


def collision_case(seed: int) -> Case:
    """Bullseye Polytope with 5 poisons at 32/255 against a head on frozen features: lesson 04."""
    draw, name = lesson_04.draw_transfer(seed), lesson_04.BULLSEYE
    attack = {name: lesson_04.COLLISIONS[name]}
    poison = lesson_04.craft(attack, [draw.extractor], draw, 5, seed)[name]
    return Case(
        draw.data, poison, draw.goal, draw.test, draw.extractor, lesson_04.HEAD, seed, "transfer"
    )


def matching_cases(seed: int, budgets: Sequence[int] = (150, 60)) -> dict[int, Case]:
    """Gradient matching at 32/255 against the MLP of lesson 05: one case for each budget."""
    scene = lesson_05.draw_scene(seed)
    goal = draw_goal(scene.adults, scene.test, seed)
    base, cases = lesson_05.best_bases(scene, goal), {}
    for budget in budgets:
        poison = lesson_05.craft(scene, goal, base[:budget], "32/255")
        cases[budget] = Case(
            scene.data, poison, goal, scene.test, scene.model, lesson_05.RECIPE, seed
        )
    return cases


def badnets_case(seed: int, rate: float = 0.01, side: int = 4) -> Case:
    """BadNets in 3,000 images, for the MLP of lesson 07."""
    train_all, test_all = load("fashion_mnist")
    data, test = balanced(train_all, 3000, seed), balanced(test_all, 2000, seed=0)
    goal = Backdoor(lesson_07.draw_trigger(side, seed), lesson_07.draw_pair(seed)[1])
    threat = ThreatModel(budget_for(data, rate))
    poison = badnets(data, goal, threat, seed)
    poison.check(threat, data)
    model = build("mlp", data.shape, len(data.classes))
    return Case(data, poison, goal, test, model, lesson_07.RECIPE, seed)


def class_ranks(scores: Tensor, labels: Tensor) -> Tensor:
    """For each score (N,), the share of its class that lies below it."""
    ranks = torch.zeros(len(scores), device=scores.device)
    for label in labels.unique():
        rows = (labels == label).nonzero()[:, 0]
        ranks[rows[scores[rows].argsort()]] = torch.linspace(0, 1, len(rows)).to(ranks)
    return ranks


def suspicion(case: Case, seen: Data, looker: Classifier) -> dict[str, Tensor]:
    """How suspicious each filter finds each image (N,), looking with this model."""
    features, y = features_of(looker, seen), seen.y
    loss = loss_score(seen, lambda part: looker)(seen)
    votes = neighbour_labels(features, y, 2 * case.bound)
    return {
        "loss": class_ranks(loss, y),
        "Spectral Signatures": class_ranks(spectral_scores(features, y), y),
        "Spectral, uncentred": class_ranks(spectral_scores(features, y, centred=False), y),
        "Activation Clustering": cluster_scores(features, y),
        "Deep k-NN": vote_margin(votes, y),
    }


def told_filters(case: Case) -> dict[str, Defense]:
    """Each filter as a defender sets it who is told how many poisons a class may hold."""
    share = min(1.5 * case.bound * len(case.data.classes) / len(case.data), 0.9)
    return {
        "loss": sanitizer("loss"),
        "four sanitizers": sanitizer("sphere", "slab", "loss", "k-NN"),
        "Spectral Signatures": spectral_signatures(share),
        "Spectral, uncentred": spectral_signatures(share, centred=False),
        "Activation Clustering": activation_clustering(),
        "every smaller cluster": activation_clustering(size=0.5, silhouette=-1),
        "Deep k-NN": deep_knn(2 * case.bound),
    }


def at_random(kept: Tensor, seed: int) -> Tensor:
    """A mask that keeps as many images as this one, drawn by lot."""
    order = torch.randperm(len(kept), generator=torch.Generator().manual_seed(seed))
    return kept[order.to(kept.device)]


def filter_rows(case: Case, names: Sequence[str] = ()) -> list[dict]:
    """What each filter removes, and what a victim that trains on the rest then does.

    names: the filters, or () for all; no filter, an oracle and random removal come with them.
    """
    seen, bad = case.poison.apply(case.data), case.poison.mask(case.data)
    looker, looking = timed(case.fit, seen)
    scores = suspicion(case, seen, looker)
    masks, seconds = {"none": torch.ones_like(bad), "oracle": ~bad}, {}
    for name, defense in told_filters(case).items():
        if not names or name in names:
            masks[name], filtering = timed(defense.keep, seen, lambda part: looker)
            seconds[name] = looking + filtering
    for name in ("Spectral Signatures", "Deep k-NN"):
        masks[f"random, as {name}"] = at_random(masks[name], case.seed)
    rows = []
    for name, kept in masks.items():
        area = roc_auc_score(bad.cpu(), scores[name].cpu()) if name in scores else np.nan
        found = removal(case, seen, kept, looker if name == "none" else None)
        found["seconds"] += looking if name == "none" else seconds.get(name, 0)
        rows.append({"filter": name, "auc": area, **found})
    return rows


def timed(function: Callable, *inputs) -> tuple:
    """What the function returns, and the seconds of computing that it took."""
    begin = time.process_time()
    return function(*inputs), time.process_time() - begin


def removal(case: Case, seen: Data, kept: Tensor, victim: Classifier | None = None) -> dict:
    """How many poisons and clean images go, and what the victim does that trains on the rest."""
    bad, seconds = case.poison.mask(case.data), 0.0
    if victim is None:
        victim, seconds = timed(case.fit, seen[kept])
    return {
        "poisons": int(bad.sum()),
        "poisons removed": int((bad & ~kept).sum()),
        "clean removed": int((~bad & ~kept).sum()),
        **case.goal.measure(victim, case.test),
        "seconds": seconds,
    }


SHORT = ("loss", "Spectral Signatures", "Activation Clustering", "Deep k-NN")


def flips_trial(seed: int) -> list[dict]:
    """Label flips against the four sanitizers and the filters in SHORT."""
    return filter_rows(flips_case(seed), ("four sanitizers", *SHORT))


def collision_trial(seed: int) -> list[dict]:
    """Bullseye Polytope against every filter."""
    return filter_rows(collision_case(seed))


def matching_trial(seed: int) -> list[dict]:
    """Gradient matching: 150 poisons against every filter, 60 against those in SHORT."""
    cases = matching_cases(seed)
    found = {150: filter_rows(cases[150]), 60: filter_rows(cases[60], SHORT)}
    return [{"budget": budget, **row} for budget, rows in found.items() for row in rows]


def badnets_trial(seed: int) -> list[dict]:
    """BadNets against every filter."""
    return filter_rows(badnets_case(seed))


COLLISION = Study("filter_collision", "11", collision_trial, range(40))
MATCHING = Study("filter_matching", "11", matching_trial, range(40))
BADNETS = Study("filter_badnets", "11", badnets_trial, range(40))
FLIPS = Study("filter_flips", "11", flips_trial, range(40))


SETTINGS = {
    "feature collision": {"share": (0.02, 0.05, 0.15, 0.5), "k": (2, 5, 10, 45)},
    "BadNets": {"share": (0.02, 0.05, 0.15, 0.5), "k": (5, 20, 60, 250)},
}


def sweep_trial(seed: int) -> list[dict]:
    """Removed shares and numbers of neighbours that nobody told, against two attacks."""
    rows, make = [], {"share": spectral_signatures, "k": deep_knn}
    cases = {"feature collision": collision_case(seed), "BadNets": badnets_case(seed)}
    for attack, case in cases.items():
        seen = case.poison.apply(case.data)
        looker = case.fit(seen)
        settings = [(k, value) for k, values in SETTINGS[attack].items() for value in values]
        for kind, value in settings:
            kept = make[kind](value).keep(seen, lambda part, looker=looker: looker)
            found = removal(case, seen, kept)
            succeeded = found.pop("success" if attack == "feature collision" else "asr")
            row = {"attack": attack, "setting": kind, "value": value, "success": float(succeeded)}
            rows.append(row | found)
    return rows


SWEEP = Study("filter_sweep", "11", sweep_trial, range(20))


DOSES = [(side, rate) for side in (4, 14) for rate in (0.003, 0.01, 0.03, 0.1)]
LOOKS = [(5, "last"), (10, "last"), (20, "last"), (20, "first"), (20, "logits")]


@torch.no_grad()
def at_layer(model: Classifier, images: Tensor, layer: str) -> Tensor:
    """What the MLP makes of images at its "first" or "last" hidden layer, or the "logits"."""
    if layer == "logits":
        return model(images).double()
    return model.features[: 3 if layer == "first" else 5](images).double()


def strength(features: Tensor, bad: Tensor) -> float:
    """What the poison adds to the spread of a class, as a share of the largest clean spread.

    The squared distance of the two means times p (1 - p), with p the share of poison, over the
    largest variance of the clean images in any direction.
    """
    clean, share = features[~bad], bad.double().mean()
    gap = features[bad].mean(0) - clean.mean(0)
    largest_spread = torch.linalg.matrix_norm(clean - clean.mean(0), 2).square() / len(clean)
    return (share * (1 - share) * gap.square().sum() / largest_spread).item()


def spectral_looks(case: Case, looks: Sequence[tuple[int, str]] = LOOKS) -> list[dict]:
    """The AUC of both spectral scores within the target class, while a victim trains."""
    seen, rows = case.poison.apply(case.data), []
    mine = seen.y == case.goal.target_class
    images, bad = seen.x[mine], case.poison.mask(case.data)[mine]

    def look(victim: Classifier, epoch: int) -> None:
        for layer in (layer for at, layer in looks if at == epoch):
            features = at_layer(victim, images, layer)
            areas = [
                roc_auc_score(bad.cpu(), class_scores(features, centred).cpu())
                for centred in (True, False)
            ]
            row = {"epoch": epoch, "layer": layer, "strength": strength(features, bad)}
            rows.append(row | dict(zip(("centred", "uncentred"), areas, strict=True)))

    train(case.model, seen, case.recipe, seed=case.seed, after_epoch=look)
    return rows


def spectral_trial(seed: int) -> list[dict]:
    """BadNets in 3,000 images: each dose, seen from several layers and epochs."""
    rows = []
    for side, rate in DOSES:
        for row in spectral_looks(badnets_case(seed, rate, side)):
            rows.append({"images": 3000, "side": side, "rate": rate, **row})
    return rows


SPECTRAL = Study("spectral_badnets", "11", spectral_trial, range(20))
