"""Built in lesson 17, certificates.

Generated from notebooks/17_certificates.ipynb: edit it there, then run make notebooks.
"""

import math
from dataclasses import replace

import torch
from torch import Tensor, nn

from course_utils.attacks.last_votes import last_votes
from course_utils.data import Data, balanced, load
from course_utils.defenses import gradient_shaping
from course_utils.defenses.certificates import (
    Ensemble,
    certified_accuracy,
    certified_radius,
    count_votes,
    retrain,
    run_off,
    run_off_radius,
    train_ensemble,
)
from course_utils.models import build, predict
from course_utils.settings import MLP, Setting
from course_utils.stored import Study
from course_utils.training import Recipe, train

K, RECIPE = 100, Recipe(epochs=10, batch_size=25, lr=0.1)


def draw(seed: int, setting: Setting = MLP) -> tuple[Data, Data]:
    """10,000 training and 2,000 test images; fewer in a smaller setting."""
    train_all, test_all = load("fashion_mnist")
    data = balanced(train_all, setting.scaled(10_000), seed)
    return data, balanced(test_all, setting.scaled(2000), seed=0)


def fit(
    data: Data, setting: Setting = MLP, name: str = "logistic_regression", k: int = K
) -> Ensemble:
    """An ensemble of k parts; fewer in a smaller setting."""
    model = build(name, data.shape, len(data.classes))
    return train_ensemble(model, data, setting.scaled(k), RECIPE)


NUMBERS = (0, 1, 2, 5, 10, 20, 30, 50, 100)


def certified_rows(ensemble: Ensemble, test: Data) -> list[dict]:
    """Certified accuracy after the vote and after the run-off, for every number of poisons."""
    logits = ensemble.logits(test.x)
    votes = count_votes(logits)
    rules = {
        "vote": (votes.argmax(1), certified_radius(votes)),
        "run-off": (run_off(logits), run_off_radius(logits)),
    }
    return [
        {"rule": rule, "n": n, "certified": certified_accuracy(*found, test.y, n)}
        for rule, found in rules.items()
        for n in NUMBERS
    ]


def certified_trial(seed: int, setting: Setting = MLP) -> list[dict]:
    """100 parts on one draw of the data, by both rules."""
    data, test = draw(seed, setting)
    return certified_rows(fit(data, setting), test)


CERTIFIED = Study("certified_accuracy", "17", certified_trial, range(10))


TARGETS = 3


def last_votes_trial(seed: int, setting: Setting = MLP) -> list[dict]:
    """Three test images, right or wrong: the certificate, and the poisons of an attacker who knows.

    cost: the number of poisons; 0 where the ensemble errs by itself.
    """
    data, test = draw(seed, setting)
    ensemble, rows = fit(data, setting), []
    chosen = torch.randperm(len(test), generator=torch.Generator().manual_seed(seed))[:TARGETS]
    for image, label in zip(test.x[chosen], test.y[chosen].tolist(), strict=True):
        votes = ensemble(image[None])
        row = {"right": votes.argmax().item() == label, "cost": 0.0}
        if row["right"]:
            poison = last_votes(ensemble, image)
            fell = poison and predict(retrain(ensemble, poison.apply(data)), image[None]) != label
            row["cost"] = float(len(poison)) if fell else math.inf
        rows.append({"target": len(rows), "radius": certified_radius(votes).item(), **row})
    return rows


LAST_VOTES = Study("last_votes", "17", last_votes_trial, range(10))


def share_right(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """The share of the images (N, C, H, W) that the model puts into their classes (N,)."""
    return (predict(model, x) == y).float().mean().item()


PRIVATE = Recipe(epochs=5, batch_size=500, weight_decay=0.0)
NOISES = {1.0: 1.0, 4.0: 0.5, 16.0: 0.1, 64.0: 0.02}  # the learning rate for each noise


def privacy_trial(seed: int, setting: Setting = MLP) -> list[dict]:
    """Logistic regression with gradient shaping, clipped at 1, on the same images."""
    data, test = draw(seed, setting)
    model, rows = build("logistic_regression", data.shape, len(data.classes)), []
    for noise, lr in NOISES.items():
        recipe = replace(setting.shortened(PRIVATE), lr=lr)
        defense = gradient_shaping.gradient_shaping(1.0, noise, recipe.batch_size)
        victim = train(model, data, recipe, defense=defense, seed=seed)
        rows.append({"noise": noise, "accuracy": share_right(victim, test.x, test.y)})
    return rows


PRIVACY = Study("certificate_privacy", "17", privacy_trial, range(10))
