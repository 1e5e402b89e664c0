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
from course_utils.data import Data, balanced, load, only
from course_utils.models import Classifier, build, predict
from course_utils.stored import Study
from course_utils.threat import Indiscriminate, Poison, ThreatModel, accuracy
from course_utils.training import Recipe, train

PAIR = ("Dress", "Coat")
FRACTIONS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4)
LINEAR = Recipe(epochs=10, batch_size=100, lr=0.05, weight_decay=0.0)
LINEAR_DECAYS = (0.0, 0.1)


def measure(
    model: Classifier, data: Data, test: Data, recipe: Recipe, seed: int, poison: Poison | None
) -> dict:
    """Train one victim and measure it: last epoch, best epoch, share of the poisons fitted."""
    history = []
    seen = data if poison is None else poison.apply(data)
    victim = train(
        model,
        seen,
        recipe,
        seed=seed,
        after_epoch=lambda victim, _: history.append(accuracy(victim, test)),
    )
    fitted = float("nan")
    if poison is not None:
        fitted = (predict(victim, poison.images) == poison.labels).float().mean().item()
    return {"accuracy": history[-1], "best_epoch": max(history), "fitted": fitted}


def flip_victims(
    model: Classifier, data: Data, test: Data, recipe: Recipe, seed: int, doses: Sequence[tuple]
) -> list[dict]:
    """A clean victim, and one for each dose (placement, fraction) and attack."""
    goal, rows = Indiscriminate(), []
    surrogate = train(model, data, recipe, seed=10_000 + seed)
    source, into = (data.classes.index(name) for name in PAIR)

    def add(name: str, poison: Poison | None, placement: str = "none", fraction: float = 0.0):
        labels = {"condition": name, "placement": placement, "fraction": fraction}
        measured = measure(model, data, test, recipe, seed, poison)
        rows.append({"decay": recipe.weight_decay, **labels, **measured})

    add("clean", None)
    for placement, fraction in doses:
        threat = ThreatModel(budget_for(data, fraction), placement=placement)
        add("random", random_flips(data, goal, threat, seed), placement, fraction)
        add("worst", worst_flips([surrogate], data, goal, threat), placement, fraction)
        if threat.budget <= (data.y == source).sum():
            flips = targeted_flips(data, goal, threat, seed, source, into)
            add("targeted", flips, placement, fraction)
    return rows


def linear_trial(seed: int) -> list[dict]:
    """Logistic regression, Dress against Coat: every attack, fraction, placement and decay."""
    data, test = (only(part, PAIR) for part in load("fashion_mnist"))
    model = build("logistic_regression", data.shape, len(data.classes))
    doses = [(placement, f) for placement in ("append", "replace") for f in FRACTIONS]
    rows = []
    for decay in LINEAR_DECAYS:
        recipe = replace(LINEAR, weight_decay=decay)
        rows += flip_victims(model, data, test, recipe, seed, doses)
    return rows


LINEAR_STUDY = Study("label_flips_linear", "02", linear_trial, range(40))


PAPER = Recipe(epochs=40, batch_size=300, lr=0.01, weight_decay=0.0, optimizer="adam")


def paper_trial(seed: int) -> list[dict]:
    """Random flips, appended, with the paper's optimiser, epochs and batch size."""
    data, test = (only(part, PAIR) for part in load("fashion_mnist"))
    model = build("logistic_regression", data.shape, len(data.classes))
    clean = measure(model, data, test, PAPER, seed, None)
    rows = [{"condition": "clean", "fraction": 0.0, **clean}]
    for fraction in FRACTIONS:
        threat = ThreatModel(budget_for(data, fraction), placement="append")
        poison = random_flips(data, Indiscriminate(), threat, seed)
        measured = measure(model, data, test, PAPER, seed, poison)
        rows.append({"condition": "random", "fraction": fraction, **measured})
    return rows


PAPER_STUDY = Study("label_flips_paper", "02", paper_trial, range(40))


NETWORK = Recipe(epochs=30, batch_size=100, lr=0.1, weight_decay=0.0)
NETWORK_DECAYS = (0.0, 0.01)
NETWORK_FRACTIONS = (0.01, 0.05, 0.1, 0.2, 0.4)


def mlp_trial(seed: int) -> list[dict]:
    """The MLP on ten classes: replacing at five fractions, appending at 40%, both decays."""
    train_all, test_all = load("fashion_mnist")
    data, test = balanced(train_all, 2000, seed), balanced(test_all, 1000, seed=0)
    model = build("mlp", data.shape, len(data.classes))
    doses = [*(("replace", f) for f in NETWORK_FRACTIONS), ("append", 0.4)]
    rows = []
    for decay in NETWORK_DECAYS:
        recipe = replace(NETWORK, weight_decay=decay)
        rows += flip_victims(model, data, test, recipe, seed, doses)
    return rows


MLP_STUDY = Study("label_flips_mlp", "02", mlp_trial, range(20))


CONVOLUTIONS = Recipe(epochs=8, batch_size=50, lr=0.1, weight_decay=0.0)


def cnn_trial(seed: int) -> list[dict]:
    """The small CNN on ten classes, two fractions, replacing, weak decay."""
    train_all, test_all = load("fashion_mnist")
    data, test = balanced(train_all, 2000, seed), balanced(test_all, 1000, seed=0)
    model = build("small_cnn", data.shape, len(data.classes))
    doses = [("replace", 0.1), ("replace", 0.4)]
    return flip_victims(model, data, test, CONVOLUTIONS, seed, doses)


CNN_STUDY = Study("label_flips_cnn", "02", cnn_trial, range(20))
