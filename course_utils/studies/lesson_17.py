"""Built in lesson 17, certificates.

Generated from notebooks/17_certificates.ipynb: edit it there, then run make notebooks.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from course_utils.attacks import gradient_matching
from course_utils.attacks.label_flipping import random_flips
from course_utils.attacks.last_votes import last_votes
from course_utils.attacks.patch_backdoors import badnets
from course_utils.attacks.triggers import solid_patch
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
from course_utils.threat import Backdoor, Indiscriminate, Poison, Targeted, ThreatModel
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


CERTIFIED = Study("certified_accuracy", "17", certified_trial, range(52))


TARGETS = 6


def last_votes_trial(seed: int, setting: Setting = MLP) -> list[dict]:
    """Six test images, right or wrong: the certificate, and the poisons of an attacker who knows.

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


LAST_VOTES = Study("last_votes", "17", last_votes_trial, range(26))


def share_right(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """The share of the images (N, C, H, W) that the model puts into their classes (N,)."""
    return (predict(model, x) == y).float().mean().item()


BUDGETS = (10, 100, 500)
Attack = tuple[Callable[[int], Poison], Tensor, Tensor]  # craft(n), and on which images it is felt


def flips_and_badnets(data: Data, test: Data, seed: int) -> dict[str, Attack]:
    """Random flips, felt on all test images; BadNets, felt where the trigger is."""
    goal = Backdoor(solid_patch(4), seed % len(data.classes))
    others = test[test.y != goal.target_class]

    def flips(n: int) -> Poison:
        return random_flips(data, Indiscriminate(), ThreatModel(n), seed)

    def backdoor(n: int) -> Poison:
        return badnets(data, goal, ThreatModel(n, placement="append"), seed)

    return {
        "label flips": (flips, test.x, test.y),
        "BadNets": (backdoor, goal.trigger(others.x), others.y),
    }


def matching(victim: Ensemble, data: Data, goal: Targeted, seed: int, most: int) -> Attack:
    """Gradient matching at 32/255 against models of this very ensemble, felt on its target."""
    image, label = goal.image[None], torch.tensor([goal.true_class], device=data.y.device)
    # Models that err on the target already have no gradient to match.
    surrogates = [model for model in victim.models if predict(model, image) == label][:4]
    rows = (data.y == goal.adversarial_class).nonzero()[:, 0]
    base = gradient_matching.choose_bases(surrogates, data, rows, most)

    def craft(n: int) -> Poison:
        threat = ThreatModel(n, 32 / 255, clean_label=True, placement="append")
        attack = gradient_matching.gradient_matching
        poison = attack(surrogates, data, goal, threat, seed, base=base[:n])
        poison.check(threat, data)
        return poison

    return craft, image, label


def draw_target(victims: Sequence[Ensemble], test: Data, seed: int) -> Targeted:
    """A test image that every victim gets right, and the runner-up of the first one's vote."""
    right = torch.stack([predict(victim, test.x) == test.y for victim in victims]).all(0)
    rows = right.nonzero()[:, 0].cpu()
    row = rows[torch.randint(len(rows), (1,), generator=torch.Generator().manual_seed(seed))]
    image, label = test.x[row], test.y[row]
    rival = victims[0](image).scatter(1, label[:, None], -1).argmax(1)
    return Targeted(image[0], label.item(), rival.item())


def attack_rows(
    victims: dict[str, Ensemble], data: Data, test: Data, seed: int, budgets: Sequence[int]
) -> list[dict]:
    """Three attacks on every victim: what is left, what was promised, and accuracy on clean images.

    left: the share of the images on which the attack is felt that are still right.
    """
    goal, rows = draw_target(list(victims.values()), test, seed), []
    for name, victim in victims.items():
        attacks = flips_and_badnets(data, test, seed)
        attacks["gradient matching"] = matching(victim, data, goal, seed, max(budgets))
        for attack, (craft, x, y) in attacks.items():
            promise = predict(victim, x), certified_radius(victim(x)), y
            for n in (0, *budgets):
                now = retrain(victim, craft(n).apply(data)) if n else victim
                row = {"attack": attack, "victim": name, "poisons": n}
                row["left"] = share_right(now, x, y)
                row["certified"] = certified_accuracy(*promise, n)
                rows.append({**row, "accuracy": share_right(now, test.x, test.y)})
    return rows


def attacks_trial(seed: int, setting: Setting = MLP) -> list[dict]:
    """The attacks of the course on 100 parts, and on one model that trained on all the data."""
    data, test = draw(seed, setting)
    victims = {"ensemble": fit(data, setting), "one model": fit(data, setting, k=1)}
    budgets = [setting.scaled(n) for n in BUDGETS]
    return attack_rows(victims, data, test, seed, budgets)


ATTACKS = Study("attacks_on_certified", "17", attacks_trial, range(52))


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


PRIVACY = Study("certificate_privacy", "17", privacy_trial, range(26))
