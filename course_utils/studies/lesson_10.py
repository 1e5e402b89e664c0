"""Built in lesson 10, gradient shaping.

Generated from notebooks/10_gradient_shaping.ipynb: edit it there, then run make notebooks.
"""

import copy
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import torch
from opacus import PrivacyEngine
from opacus.optimizers import DPOptimizer
from torch import nn
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader, TensorDataset

from course_utils import fixed_trials, threat, training
from course_utils.cases import backdoors, from_scratch, slab, transfer
from course_utils.cases.shaping import BOTH, heads, shaped, tuned
from course_utils.data import balanced, load
from course_utils.defense import PLAIN
from course_utils.defenses.gradient_shaping import batch_shaping, gradient_shaping
from course_utils.models import Classifier, build
from course_utils.settings import MLP, Setting
from course_utils.stored import Study
from course_utils.trials import Case, Rows, Victim, compare


def opacus_victim(case: Case, clip: float, noise: float) -> tuple[Classifier, float]:
    """The model of a case, trained on by Opacus where its data are, and its epsilon."""
    recipe, model = case.recipe, copy.deepcopy(case.model).to(case.data.x.device)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Secure RNG turned off")
        engine = PrivacyEngine(accountant="rdp")
    loader = DataLoader(TensorDataset(case.data.x, case.data.y), batch_size=recipe.batch_size)
    sgd, schedule = training.make_optimizer(list(model.parameters()), recipe, len(loader))
    given = {"module": model.train(), "optimizer": sgd, "data_loader": loader}
    given |= {"criterion": nn.CrossEntropyLoss(), "grad_sample_mode": "ghost"}
    with torch.random.fork_rng():
        torch.manual_seed(case.seed)
        private = engine.make_private(**given, noise_multiplier=noise, max_grad_norm=clip)
        for _ in range(recipe.epochs):
            opacus_epoch(*private, schedule)
    return private[0].to_standard_module().eval(), engine.get_epsilon(1e-5)


def opacus_epoch(
    model: nn.Module,
    optimizer: DPOptimizer,
    loss: Callable,
    loader: DataLoader,
    schedule: LRScheduler,
) -> None:
    """One epoch of Poisson batches."""
    for x, y in loader:
        optimizer.zero_grad()
        x.requires_grad_()  # Opacus listens to the gradients of inputs; without any, PyTorch warns
        loss(model(x), y).backward()  # two backward passes: lengths, then the weighted loss
        optimizer.step()  # adds the noise, divides, steps; the accountant counts
        schedule.step()


def opacus_case(name: str, size: int, epochs: int, seed: int, setting: Setting) -> Case:
    """Clean data and a model that trains on from its first weights; nobody attacks."""
    train_all, test = load("fashion_mnist")
    data = balanced(train_all, setting.scaled(size), seed)
    model = build(name, data.shape, len(data.classes), seed)
    recipe = setting.shortened(training.Recipe(epochs=epochs, lr=0.2))
    given = data, threat.Indiscriminate(), test, model, recipe, seed
    return Case(*given, craft=lambda victim: None, scenario="finetune")


def opacus_trial(seed: int, setting: Setting = MLP) -> Rows:
    """Opacus and our own way from the same first weights: MLP and CNN with GroupNorm."""
    rows = []
    for name, size, epochs in (("mlp", 3000, 10), ("small_cnn", 1000, 6)):
        case = opacus_case(name, size, epochs, seed, setting)
        shaping = gradient_shaping(1.0, 0.5, case.recipe.batch_size)
        (ours,) = compare(case, {"clean": None}, {"ours": Victim(shaping, case.recipe)})
        theirs, epsilon = opacus_victim(case, 1.0, 0.5)
        for by, found in (("ours", ours), ("Opacus", case.goal.measure(theirs, case.test))):
            row = {"model": name, "trained by": by, "accuracy": found["accuracy"]}
            rows.append({**row, "epsilon": epsilon})
    return rows


OPACUS = Study("opacus", "10", opacus_trial, range(20))


Victims = Mapping[tuple[str, str], Victim]  # by defense and learning rate


def met(case: Case, poison: threat.Poison | None, victims: Victims) -> Rows:
    """Every victim on the same poison: its learning rate, and what the goal measures."""
    rows = []
    for row in compare(case, {"attack": poison}, victims):
        name, rate = row["victim"]
        labels = {"victim": name, "rate": rate, "lr": victims[name, rate].recipe.lr}
        measured = {key: row[key] for key in ("accuracy", "success", "asr") if key in row}
        rows.append(labels | measured)
    return rows


def matching_trial(seed: int, setting: Setting = MLP) -> Rows:
    """Gradient matching on every victim."""
    case = from_scratch.matching(seed, setting)
    return met(case, case.oblivious, shaped(setting))


MATCHING = Study("shaping_matching", "10", matching_trial, range(40))


def more(setting: Setting) -> Victims:
    """Other bounds, each part alone, both at the equal rate, and the batch shortcut."""
    recipe = setting.recipe
    shaping = partial(gradient_shaping, batch_size=recipe.batch_size)
    return {
        ("clip, C=4", "equal"): Victim(shaping(4.0, 0.0), recipe),
        ("clip, C=0.1", "equal"): Victim(shaping(0.1, 0.0), recipe),
        ("clip, C=4", "tuned"): Victim(shaping(4.0, 0.0), tuned(0.4, setting)),
        ("clip, C=0.1", "tuned"): Victim(shaping(0.1, 0.0), tuned(25.6, setting)),
        (BOTH, "equal"): Victim(shaping(1.0, 0.5), recipe),
        ("noise", "equal"): Victim(shaping(100.0, 0.005), recipe),
        ("batch", "equal"): Victim(batch_shaping(1.0, 0.01), recipe),
    }


def variants_trial(seed: int, setting: Setting = MLP) -> Rows:
    """More victims, and a clipped victim of clean data."""
    case = from_scratch.matching(seed, setting)
    clean = {("clip, clean data", "equal"): shaped(setting)["clip", "equal"]}
    return met(case, case.oblivious, more(setting)) + met(case, None, clean)


VARIANTS = Study("shaping_variants", "10", variants_trial, range(20))


def backdoor_trial(seed: int, setting: Setting = MLP) -> Rows:
    """BadNets of lesson 07: 3,000 images, 1% poison, a patch of 4 by 4 pixels."""
    case = backdoors.badnets_case(seed, setting)
    return met(case, case.oblivious, shaped(setting))


BACKDOOR = Study("shaping_backdoor", "10", backdoor_trial, range(20))


LOOSE, TIGHT = 4.0, 0.1


def linear_victims(name: str, recipe: training.Recipe) -> Victims:
    """The victims of one optimizer; with SGD also tight clipping at a tuned learning rate."""
    loose, tight = (gradient_shaping(clip, 0.0, recipe.batch_size) for clip in (LOOSE, TIGHT))
    defenses = {"plain": PLAIN, "loose": loose, "tight": tight}
    found = {(title, name): Victim(defense, recipe) for title, defense in defenses.items()}
    if recipe.optimizer == "sgd":
        found["tight", "SGD, tuned"] = Victim(tight, replace(recipe, lr=1.6, weight_decay=0.0))
    return found


def on_all(case: Case, poisons: Mapping[str, threat.Poison], victims: Victims) -> Rows:
    """These victims on clean data and on each poison."""
    seen = {"clean": None} | poisons
    return [{"condition": name, **row} for name, p in seen.items() for row in met(case, p, victims)]


def linear_trial(seed: int, setting: Setting = MLP) -> Rows:
    """Logistic regression, SGD and the paper's Adam, loose and tight clipping."""
    case = slab.slab_case(seed, setting)
    poisons, rows = slab.poisons(case.data, 0.3, seed), []
    for name, recipe in (("SGD", slab.RECIPES["course"]), ("Adam", slab.RECIPES["paper"])):
        rows += on_all(case, poisons, linear_victims(name, setting.shortened(recipe)))
    return rows


LINEAR = Study("shaping_linear", "10", linear_trial, range(20))


SLOW_RECIPES = {
    "SGD, slow": replace(slab.RECIPES["course"], lr=0.005),
    "Adam, slow": replace(slab.RECIPES["paper"], lr=0.001),
}


def slow_linear_trial(seed: int, setting: Setting = MLP) -> Rows:
    """The control on the same data: no defense, a tenth of the learning rate."""
    case = slab.slab_case(seed, setting)
    victims = {
        ("plain", name): Victim(PLAIN, setting.shortened(recipe))
        for name, recipe in SLOW_RECIPES.items()
    }
    return on_all(case, slab.poisons(case.data, 0.3, seed), victims)


SLOW_LINEAR = Study("shaping_linear_slow", "10", slow_linear_trial, range(20))


def slower_linear_trial(seed: int, setting: Setting = MLP) -> Rows:
    """Plain victims that learn still less with SGD: controls for tight clipping."""
    case, victims = slab.slab_case(seed, setting), {}
    for lr in (0.0005, 0.0002):
        recipe = setting.shortened(replace(slab.RECIPES["course"], lr=lr))
        victims["plain", f"SGD, {lr}"] = Victim(PLAIN, recipe)
    return on_all(case, slab.poisons(case.data, 0.3, seed), victims)


SLOWER_LINEAR = Study("shaping_linear_slower", "10", slower_linear_trial, range(20))


def grid_trial(seed: int, setting: Setting = MLP) -> Rows:
    """The paper's grid on the slab attack, with its Adam: C, and noise of deviation 0 or 1."""
    case = slab.slab_case(seed, setting, fraction=0.3)
    recipe = setting.shortened(slab.RECIPES["paper"])
    victims = {}
    for clip in (0.1, 1.0, 2.0, 4.0, 8.0):
        for raw in (0.0, 1.0):
            shaping = gradient_shaping(clip, raw / clip, recipe.batch_size)
            victims[f"{clip:g}", f"{raw:g}"] = Victim(shaping, recipe)
    return met(case, case.oblivious, victims)


GRID = Study("shaping_grid", "10", grid_trial, range(20))


COUNTS = (0, 1, 2, 5, 10, 25)


def nearest_first(
    draw: transfer.Transfer, seed: int, setting: Setting
) -> dict[int, threat.Poison | None]:
    """For each count the poisons that collide with the target by themselves, the nearest ones."""
    loss = transfer.COLLISIONS["Poison Frogs, bounded"]
    how = {"loss": loss, "budget": max(COUNTS), "setting": setting}
    poison = transfer.collide(draw.extractor, draw, seed, **how)
    with torch.no_grad():
        aim = draw.extractor.features(draw.goal.image[None])
        order = (draw.extractor.features(poison.images) - aim).norm(dim=1).argsort()
    attackers = {0: None}
    for count in COUNTS[1:]:
        first = order[: setting.scaled(count)]
        parts = (part[first] for part in (poison.images, poison.labels, poison.base))
        attackers[count] = threat.Poison(*parts, "append")
    return attackers


def every_epoch(goal: threat.Targeted) -> dict[str, Callable]:
    """Options of `compare` that add `any`: whether the target falls after any epoch."""
    fell: list[bool] = []

    def look(victim: Classifier, epoch: int) -> None:
        if epoch == 1:
            fell.clear()
        fell.append(victim(goal.image[None]).argmax().item() == goal.adversarial_class)

    def ever(victim: Classifier, poison: threat.Poison | None) -> dict:
        return {"any": any(fell)}

    return {"after_epoch": look, "also": ever}


def cost_trial(seed: int, setting: Setting = MLP) -> Rows:
    """Transfer as in lesson 04: every victim with the nearest 0, 1, 2, ... poisons."""
    draw, rows = transfer.draw_transfer(seed, setting=setting), []
    case = transfer.bullseye(seed, setting, draw=draw)
    attackers = nearest_first(draw, seed, setting)
    for (name, rate), victim in heads(setting).items():
        for row in compare(case, attackers, {"head": victim}, **every_epoch(draw.goal)):
            labels = {"victim": name, "rate": rate, "count": row["attacker"]}
            found = {"last": row["success"], "any": row["any"], "accuracy": row["accuracy"]}
            rows.append(labels | found)
    return rows


COST = Study("shaping_cost", "10", cost_trial, range(20))


def trained_on(setting: Setting) -> dict[str, Victim]:
    """Plain and shaped victims that train on from a trained model, half as long as from scratch."""
    recipe = replace(setting.recipe, epochs=setting.recipe.epochs // 2)
    clip, both = (gradient_shaping(1.0, noise, recipe.batch_size) for noise in (0.0, 0.5))
    return {
        "plain": Victim(PLAIN, recipe),
        "plain, slow": Victim(PLAIN, replace(recipe, lr=0.005)),
        "clip": Victim(clip, recipe),
        "clip, tuned": Victim(clip, replace(recipe, lr=0.8, weight_decay=0.0)),
        BOTH: Victim(both, recipe),
    }


KEPT = ("attacker", "victim", "accuracy", "success", "any", "fitted")


def warm_trial(seed: int, setting: Setting = MLP) -> Rows:
    """A fixed target, from scratch and from a model that was trained on the clean data."""
    scene = from_scratch.draw_scene(seed, setting=setting)
    goal = fixed_trials.fixed_target(seed, scene.test)
    case = from_scratch.matching(seed, setting, goal=goal, scene=scene)
    trained = case.train(case.plain, case.data)
    warm = replace(case, model=trained, scenario="finetune")
    starts = {"scratch": (case, {"plain": case.plain}), "warm": (warm, trained_on(setting))}
    attackers, rows = {"clean": None, "oblivious": case.oblivious}, []
    for start, (its, victims) in starts.items():
        for row in compare(its, attackers, victims, **every_epoch(goal)):
            rows.append({"start": start} | {name: row[name] for name in KEPT})
    return rows


WARM = Study("shaping_warm_start", "10", warm_trial, fixed_trials.seeds("reporting"))
