"""Built in lesson 10, gradient shaping.

Generated from notebooks/10_gradient_shaping.ipynb: edit it there, then run make notebooks.
"""

import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

import torch
from opacus import PrivacyEngine
from opacus.optimizers import DPOptimizer
from torch import nn
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader, TensorDataset

from course_utils.attacks.label_flipping import budget_for
from course_utils.attacks.patch_backdoors import badnets
from course_utils.data import Data, balanced, load
from course_utils.defense import PLAIN, Defense
from course_utils.defenses.gradient_shaping import batch_shaping, gradient_shaping
from course_utils.models import Classifier, build, predict
from course_utils.stored import Study
from course_utils.studies.goals import draw_goal
from course_utils.studies.lesson_03 import RECIPES, draw, poisons
from course_utils.studies.lesson_04 import COLLISIONS, EPSILON, HEAD, Transfer, draw_transfer
from course_utils.studies.lesson_05 import RECIPE, Scene, best_bases, craft, draw_scene
from course_utils.studies.lesson_07 import draw_pair, draw_trigger
from course_utils.threat import (
    Backdoor,
    Goal,
    Indiscriminate,
    Poison,
    Targeted,
    ThreatModel,
    accuracy,
)
from course_utils.training import Recipe, make_optimizer, start, train


def opacus_victim(
    name: str, data: Data, recipe: Recipe, clip: float, noise: float, seed: int
) -> tuple[Classifier, float]:
    """A model trained by Opacus, with the optimizer of a recipe, and its epsilon."""
    model = start(build(name, data.shape, len(data.classes), seed), "finetune")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Secure RNG turned off")
        engine = PrivacyEngine(accountant="rdp")
    loader = DataLoader(TensorDataset(data.x, data.y), batch_size=recipe.batch_size)
    parameters = list(model.parameters())
    sgd, schedule = make_optimizer(parameters, recipe, len(loader))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        wrapped, optimizer, loss, loader = engine.make_private(
            module=model.train(), optimizer=sgd, data_loader=loader,
            criterion=nn.CrossEntropyLoss(), noise_multiplier=noise, max_grad_norm=clip,
            grad_sample_mode="ghost",
        )  # fmt: skip
        for _ in range(recipe.epochs):
            opacus_epoch(wrapped, optimizer, schedule, loss, loader)
    return wrapped.to_standard_module().eval(), engine.get_epsilon(1e-5)


def opacus_epoch(
    model: nn.Module, optimizer: DPOptimizer, schedule: LRScheduler, loss: Callable,
    loader: DataLoader,
) -> None:  # fmt: skip
    """One epoch of Poisson batches."""
    for x, y in loader:
        optimizer.zero_grad()
        x.requires_grad_()  # Opacus listens to the gradients of inputs; without any, PyTorch warns
        loss(model(x), y).backward()  # two backward passes: lengths, then the weighted loss
        optimizer.step()  # adds the noise, divides, steps; the accountant counts
        schedule.step()


def opacus_trial(seed: int) -> list[dict]:
    """Opacus and our own way from the same first weights: MLP and CNN with GroupNorm."""
    train_all, test = load("fashion_mnist")
    rows = []
    for name, size, epochs in (("mlp", 3000, 10), ("small_cnn", 1000, 6)):
        data, recipe = balanced(train_all, size, seed), Recipe(epochs=epochs, lr=0.2)
        model = build(name, data.shape, len(data.classes), seed)
        shaping = gradient_shaping(1.0, 0.5)
        ours = train(model, data, recipe, scenario="finetune", defense=shaping, seed=seed)
        theirs, epsilon = opacus_victim(name, data, recipe, 1.0, 0.5, seed)
        for by, victim in (("ours", ours), ("Opacus", theirs)):
            row = {"model": name, "trained by": by, "accuracy": accuracy(victim, test)}
            rows.append({**row, "epsilon": epsilon})
    return rows


OPACUS = Study("opacus", "10", opacus_trial, range(20))


SLOW, SLOWER = replace(RECIPE, lr=0.008), replace(RECIPE, lr=0.004)
CLIP, BOTH = gradient_shaping(1.0, 0.0), gradient_shaping(1.0, 0.5)


def tuned(lr: float) -> Recipe:
    """The recipe of lesson 05 with another learning rate, without weight decay."""
    return replace(RECIPE, lr=lr, weight_decay=0.0)


CELLS = {
    ("plain", "equal"): (PLAIN, RECIPE),
    ("plain", "slow"): (PLAIN, SLOW),
    ("plain", "slower"): (PLAIN, SLOWER),
    ("clip", "equal"): (CLIP, RECIPE),
    ("plain", "tuned"): (PLAIN, tuned(0.1)),
    ("clip", "tuned"): (CLIP, tuned(1.6)),
    ("clip + noise", "tuned"): (BOTH, tuned(0.2)),
}


def measure(cells: dict, model: Classifier, data: Data, goal: Goal, test: Data, seed: int) -> list:
    """Train and measure a victim for each cell: (name, learning rate) to (defense, recipe)."""
    rows = []
    for (name, rate), (defense, recipe) in cells.items():
        victim = train(model, data, recipe, defense=defense, seed=seed)
        row = {"victim": name, "rate": rate, "lr": recipe.lr}
        rows.append({**row, **goal.measure(victim, test)})
    return rows


@lru_cache(maxsize=1)
def matched(seed: int) -> tuple[Scene, Targeted, Poison]:
    """A trial of lesson 05: 150 poisons at 32/255 for a neighbouring class."""
    scene = draw_scene(seed)
    goal = draw_goal(scene.adults, scene.test, seed)
    return scene, goal, craft(scene, goal, best_bases(scene, goal), "32/255")


def matching_trial(seed: int) -> list[dict]:
    """Gradient matching on every cell."""
    scene, goal, poison = matched(seed)
    return measure(CELLS, scene.model, poison.apply(scene.data), goal, scene.test, seed)


MATCHING = Study("shaping_matching", "10", matching_trial, range(40))


MORE = {
    ("clip, C=4", "equal"): (gradient_shaping(4.0, 0.0), RECIPE),
    ("clip, C=0.1", "equal"): (gradient_shaping(0.1, 0.0), RECIPE),
    ("clip, C=4", "tuned"): (gradient_shaping(4.0, 0.0), tuned(0.4)),
    ("clip, C=0.1", "tuned"): (gradient_shaping(0.1, 0.0), tuned(25.6)),
    ("clip + noise", "equal"): (BOTH, RECIPE),
    ("noise", "equal"): (gradient_shaping(100.0, 0.005), RECIPE),
    ("batch", "equal"): (batch_shaping(1.0, 0.01), RECIPE),
}


def variants_trial(seed: int) -> list[dict]:
    """Other bounds, noise alone, both, the batch shortcut; and a clipped victim of clean data."""
    scene, goal, poison = matched(seed)
    rows = measure(MORE, scene.model, poison.apply(scene.data), goal, scene.test, seed)
    clean = {("clip, clean data", "equal"): (CLIP, RECIPE)}
    return rows + measure(clean, scene.model, scene.data, goal, scene.test, seed)


VARIANTS = Study("shaping_variants", "10", variants_trial, range(20))


def backdoor_trial(seed: int) -> list[dict]:
    """BadNets of lesson 07: 3,000 images, 1% poison, a patch of 4 by 4 pixels."""
    train_all, test_all = load("fashion_mnist")
    data, test = balanced(train_all, 3000, seed), balanced(test_all, 2000, seed=0)
    goal = Backdoor(draw_trigger(4, seed), draw_pair(seed)[1])
    threat = ThreatModel(budget_for(data, 0.01))
    poison = badnets(data, goal, threat, seed)
    poison.check(threat, data)
    model = build("mlp", data.shape, len(data.classes))
    return measure(CELLS, model, poison.apply(data), goal, test, seed)


BACKDOOR = Study("shaping_backdoor", "10", backdoor_trial, range(20))


LOOSE, TIGHT = 4.0, 0.1


def linear_cells(name: str, recipe: Recipe) -> dict:
    """The victims of one optimizer; with SGD also tight clipping at a tuned learning rate."""
    loose, tight = (gradient_shaping(clip, 0.0, recipe.batch_size) for clip in (LOOSE, TIGHT))
    cells = {"plain": PLAIN, "loose": loose, "tight": tight}
    found = {(title, name): (defense, recipe) for title, defense in cells.items()}
    if recipe.optimizer == "sgd":
        found["tight", "SGD, tuned"] = (tight, replace(recipe, lr=1.6, weight_decay=0.0))
    return found


def linear_data(seed: int) -> tuple[dict[str, Data], Data]:
    """Dress against Coat as in lesson 03: clean, with 30% flips, with 30% slab poison; and test."""
    data, test = draw(seed)
    attacks = poisons(data, 0.3, seed)
    return {"clean": data} | {name: poison.apply(data) for name, poison in attacks.items()}, test


def linear_trial(seed: int) -> list[dict]:
    """Logistic regression, SGD and the paper's Adam, loose and tight clipping."""
    seen, test = linear_data(seed)
    model, rows = build("logistic_regression", test.shape, len(test.classes)), []
    for name, recipe in (("SGD", RECIPES["course"]), ("Adam", RECIPES["paper"])):
        cells = linear_cells(name, recipe)
        for condition, data in seen.items():
            found = measure(cells, model, data, Indiscriminate(), test, seed)
            rows += [{"condition": condition, **row} for row in found]
    return rows


LINEAR = Study("shaping_linear", "10", linear_trial, range(20))


SLOW_RECIPES = {
    "SGD, slow": replace(RECIPES["course"], lr=0.005),
    "Adam, slow": replace(RECIPES["paper"], lr=0.001),
}


def slow_linear_trial(seed: int) -> list[dict]:
    """The control on the same data: no defense, a tenth of the learning rate."""
    seen, test = linear_data(seed)
    model, rows = build("logistic_regression", test.shape, len(test.classes)), []
    cells = {("plain", name): (PLAIN, recipe) for name, recipe in SLOW_RECIPES.items()}
    for condition, data in seen.items():
        found = measure(cells, model, data, Indiscriminate(), test, seed)
        rows += [{"condition": condition, **row} for row in found]
    return rows


SLOW_LINEAR = Study("shaping_linear_slow", "10", slow_linear_trial, range(20))


def grid_trial(seed: int) -> list[dict]:
    """The paper's grid on the slab attack, with its Adam: C, and noise of deviation 0 or 1."""
    seen, test = linear_data(seed)
    model, recipe = build("logistic_regression", test.shape, 2), RECIPES["paper"]
    cells = {
        (f"{clip:g}", f"{raw:g}"): (gradient_shaping(clip, raw / clip, recipe.batch_size), recipe)
        for clip in (0.1, 1.0, 2.0, 4.0, 8.0)
        for raw in (0.0, 1.0)
    }
    return measure(cells, model, seen["slab attack"], Indiscriminate(), test, seed)


GRID = Study("shaping_grid", "10", grid_trial, range(20))


COUNTS = (0, 1, 2, 5, 10, 25)
HEADS = {
    ("plain", "equal"): (PLAIN, HEAD),
    ("clip", "equal"): (CLIP, HEAD),
    ("plain", "tuned"): (PLAIN, replace(HEAD, lr=0.003)),
    ("clip", "tuned"): (CLIP, replace(HEAD, lr=0.03)),
    ("clip + noise", "tuned"): (BOTH, replace(HEAD, lr=0.03)),
}


def nearest_first(draw: Transfer, seed: int) -> Poison:
    """25 poisons, each of which collides with the target by itself; the best first."""
    threat = ThreatModel(max(COUNTS), EPSILON, clean_label=True, placement="append")
    attack = COLLISIONS["Poison Frogs, bounded"]
    poison = attack([draw.extractor], draw.data, draw.goal, threat, seed)
    poison.check(threat, draw.data)
    with torch.no_grad():
        aim = draw.extractor.features(draw.goal.image[None])
        order = (draw.extractor.features(poison.images) - aim).norm(dim=1).argsort()
    parts = (poison.images, poison.labels, poison.base)
    return Poison(*(part[order] for part in parts), "append")


def watch(draw: Transfer, data: Data, defense: Defense, recipe: Recipe, seed: int) -> dict:
    """Fit a head: success after the last epoch and after any epoch, and clean accuracy."""
    hits, wanted = [], draw.goal.adversarial_class

    def look(victim: Classifier, epoch: int) -> None:
        hits.append(predict(victim, draw.goal.image[None]).item() == wanted)

    options = {"scenario": "transfer", "defense": defense, "seed": seed, "after_epoch": look}
    victim = train(draw.extractor, data, recipe, **options)
    return {"last": hits[-1], "any": any(hits), "accuracy": accuracy(victim, draw.test)}


def cost_trial(seed: int) -> list[dict]:
    """Transfer as in lesson 04: every cell with the first 0, 1, 2, ... poisons."""
    draw, rows = draw_transfer(seed), []
    poison = nearest_first(draw, seed)
    for (name, rate), (defense, recipe) in HEADS.items():
        for count in COUNTS:
            first = (part[:count] for part in (poison.images, poison.labels, poison.base))
            data = Poison(*first, "append").apply(draw.data) if count else draw.data
            row = {"victim": name, "rate": rate, "count": count}
            rows.append({**row, **watch(draw, data, defense, recipe, seed)})
    return rows


COST = Study("shaping_cost", "10", cost_trial, range(20))
