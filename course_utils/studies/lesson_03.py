"""Built in lesson 03, the slab attack.

Generated from notebooks/03_the_slab_attack.ipynb: edit it there, then run make notebooks.
"""

import torch

from course_utils.attacks.label_flipping import budget_for, random_flips
from course_utils.attacks.slab import corner_images, slab_attack, train_decoy
from course_utils.data import Data, balanced, load, only
from course_utils.defenses.sanitizers import SCORES, sanitizer
from course_utils.models import Classifier, build
from course_utils.stored import Study
from course_utils.threat import Indiscriminate, Poison, ThreatModel, accuracy
from course_utils.training import Recipe, train

PAIR = ("Dress", "Coat")
FRACTIONS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4)
RECIPES = {
    "course": Recipe(),
    "paper": Recipe(epochs=40, batch_size=300, lr=0.01, weight_decay=0.0, optimizer="adam"),
}


def draw(seed: int) -> tuple[Data, Data]:
    """The training images of one trial, and the test images."""
    train_all, test = (only(part, PAIR) for part in load("fashion_mnist"))
    return balanced(train_all, 3600, seed), test


def poisons(data: Data, fraction: float, seed: int) -> dict[str, Poison]:
    """The slab attack and its control, equally many poisons each."""
    goal, threat = Indiscriminate(), ThreatModel(budget_for(data, fraction), placement="append")
    slab, flips = slab_attack(data, goal, threat), random_flips(data, goal, threat, seed)
    for poison in (slab, flips):
        poison.check(threat, data)
    return {"slab attack": slab, "random flips": flips}


def measure(data: Data, test: Data, recipe: Recipe, seed: int) -> dict:
    """Train a victim: its accuracy after the last epoch, and at the best epoch."""
    model, history = build("logistic_regression", data.shape, len(data.classes)), []

    def look(victim: Classifier, epoch: int) -> None:
        history.append(accuracy(victim, test))

    train(model, data, recipe, seed=seed, after_epoch=look)
    return {"accuracy": history[-1], "best_epoch": max(history)}


def damage(seed: int, fractions: tuple[float, ...], recipes: dict[str, Recipe]) -> list[dict]:
    """One victim for each recipe, on clean data and for each fraction and attack."""
    data, test = draw(seed)
    seen = {("clean", 0.0): data}
    for fraction in fractions:
        for name, poison in poisons(data, fraction, seed).items():
            seen[name, fraction] = poison.apply(data)
    return [
        {"recipe": title, "condition": name, "fraction": fraction}
        | measure(part, test, recipe, seed)
        for title, recipe in recipes.items()
        for (name, fraction), part in seen.items()
    ]


def damage_trial(seed: int) -> list[dict]:
    """All fractions, both recipes."""
    return damage(seed, FRACTIONS, RECIPES)


DAMAGE = Study("slab_damage", "03", damage_trial, range(100, 120))


SMALL, LARGE = 0.02, 0.3
COMBINATIONS = {"sphere + slab": ("sphere", "slab"), "all four": ("sphere", "slab", "loss", "k-NN")}


def inspect(
    data: Data, test: Data, poison: Poison, reference: Data | None, seed: int
) -> list[tuple[str, str, float]]:
    """What each filter does to a poisoned set: rows of (filter, measure, value)."""
    recipe, seen, is_poison = RECIPES["course"], poison.apply(data), poison.mask(data)
    model = build("logistic_regression", data.shape, len(data.classes))

    def fit(part: Data) -> Classifier:
        return train(model, part, recipe, seed=seed)

    masks = {name: sanitizer(name, reference=reference).keep(seen, fit) for name in SCORES}
    for name, parts in COMBINATIONS.items():
        masks[name] = torch.stack([masks[part] for part in parts]).all(0)
    rows = [("none", "accuracy", accuracy(fit(seen), test))]
    for name, kept in masks.items():
        rows.append((name, "caught", (~kept[is_poison]).float().mean().item()))
        rows.append((name, "lost", (~kept[~is_poison]).float().mean().item()))
        if name in COMBINATIONS:
            rows.append((name, "accuracy", accuracy(fit(seen[kept]), test)))
    return rows


def more_attacks(data: Data, fraction: float, seed: int) -> dict[str, Poison]:
    """Slab attack, random flips, corner images; at the small fraction also slab with a decoy."""
    model, recipe = build("logistic_regression", data.shape, len(data.classes)), RECIPES["course"]
    threat = ThreatModel(budget_for(data, fraction), placement="append")
    surrogate = train(model, data, recipe, seed=10_000 + seed)
    attacks = poisons(data, fraction, seed)
    attacks["corner images"] = corner_images(data, threat, surrogate)
    if fraction == SMALL:
        decoy = train_decoy(model, data, recipe, 10_000 + seed)
        attacks["slab + decoy"] = slab_attack(data, Indiscriminate(), threat, decoy=decoy)
    for poison in attacks.values():
        poison.check(threat, data)
    return attacks


def detection_trial(seed: int) -> list[dict]:
    """Every attack at two fractions, limits fitted on clean and on contaminated data."""
    (data, test), rows = draw(seed), []
    for fraction in (SMALL, LARGE):
        for condition, poison in more_attacks(data, fraction, seed).items():
            for name, reference in (("clean", data), ("contaminated", None)):
                labels = {"condition": condition, "fraction": fraction, "limits": name}
                for which, measure, value in inspect(data, test, poison, reference, seed):
                    rows.append({**labels, "filter": which, "measure": measure, "value": value})
    return rows


DETECTION = Study("slab_detection", "03", detection_trial, range(100, 120))
