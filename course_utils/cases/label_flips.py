"""Built in lesson 02, label flipping.

Generated from notebooks/02_label_flipping.ipynb: edit it there, then run make notebooks.
"""

from collections.abc import Mapping

from course_utils.attacks.label_flipping import budget_for, random_flips, worst_flips
from course_utils.data import Data, balanced, load, only
from course_utils.models import Classifier, build
from course_utils.settings import MLP, Setting
from course_utils.threat import Indiscriminate, Poison, ThreatModel, accuracy
from course_utils.training import Recipe, train
from course_utils.trials import Case, Rows, Victim, compare

PAIR = ("Dress", "Coat")
FRACTIONS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4)
LINEAR = Recipe(epochs=10, batch_size=100, lr=0.05, weight_decay=0.0)


def flip_case(
    data: Data, test: Data, model: Classifier, recipe: Recipe, seed: int, fraction: float = 0.1
) -> Case:
    """An attacker who flips a fraction of the labels at random, whatever the victim."""
    goal, threat = Indiscriminate(), ThreatModel(budget_for(data, fraction))

    def craft(victim: Victim) -> Poison:
        poison = random_flips(data, goal, threat, seed)
        poison.check(threat, data)
        return poison

    return Case(data, goal, test, model, recipe, seed, craft)


def linear_case(seed: int, setting: Setting = MLP, recipe: Recipe = LINEAR) -> Case:
    """10% random flips of dresses and coats, for logistic regression."""
    data, test = (only(part, PAIR) for part in load("fashion_mnist"))
    data = data[: setting.scaled(len(data))]
    model = build("logistic_regression", data.shape, len(data.classes))
    return flip_case(data, test, model, setting.shortened(recipe), seed)


def by_epoch(case: Case, attackers: Mapping[tuple, Poison | None], names: tuple[str, ...]) -> Rows:
    """A plain victim for each poison, measured after the last epoch and at the best one.

    attackers: as for `compare`, by tuples; `names` are the columns that their parts become.
    The best epoch is chosen with the test labels, which no defender has.
    """
    history = []

    def look(victim: Classifier, epoch: int) -> None:
        history.append(accuracy(victim, case.test))

    def best(victim: Classifier, poison: Poison | None) -> dict:
        return {"best_epoch": max(history[-case.recipe.epochs :])}

    found = compare(case, attackers, also=best, after_epoch=look)
    measured = ("accuracy", "best_epoch", "fitted")
    return [
        dict(zip(names, row["attacker"], strict=True)) | {name: row[name] for name in measured}
        for row in found
    ]


PAPER = Recipe(epochs=40, batch_size=300, lr=0.01, weight_decay=0.0, optimizer="adam")


NETWORK = Recipe(epochs=30, batch_size=100, lr=0.1, weight_decay=0.0)


def flips(seed: int, setting: Setting = MLP, fraction: float = 0.1) -> Case:
    """Random flips in 2,000 images of ten classes, for a network with weak weight decay."""
    train_all, test = load("fashion_mnist")
    data, test = balanced(train_all, setting.scaled(2000), seed), balanced(test, 1000, seed=0)
    model = build(setting.network, data.shape, len(data.classes))
    return flip_case(data, test, model, setting.shortened(NETWORK), seed, fraction)


def worst_case(seed: int, setting: Setting = MLP) -> Case:
    """Worst flips of 300 of 3,000 labels, from one surrogate that trains as the victim does."""
    train_all, test = load("fashion_mnist")
    data, goal = balanced(train_all, setting.scaled(3000), seed), Indiscriminate()
    model = build(setting.network, data.shape, len(data.classes))
    threat = ThreatModel(setting.scaled(300))

    def craft(victim: Victim) -> Poison:
        first = 1000 * (seed + 1)  # no victim starts from these weights
        surrogate = train(model, data, victim.recipe, defense=victim.defense, seed=first)
        flips = worst_flips([surrogate], data, goal, threat)
        flips.check(threat, data)
        return flips

    return Case(data, goal, test, model, setting.recipe, seed, craft)
