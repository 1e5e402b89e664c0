"""Built in lesson 15, adaptive attacks.

Generated from notebooks/15_adaptive_attacks.ipynb: edit it there, then run make notebooks.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from course_utils import fixed_trials, stored, trials
from course_utils.attacks import feature_collision, gradient_matching
from course_utils.attacks.adaptive import DRAWS, cosine_loss, kept_alive
from course_utils.cases import filtering, from_scratch, poisoning, robust, shaping, transfer
from course_utils.cases.knowing import (
    CUTMIX,
    SHIFTS,
    adapted,
    best_objective,
    best_surrogates,
    craft_all,
    held_out,
    hide,
    judge,
    matching,
)
from course_utils.data import Data
from course_utils.models import Classifier
from course_utils.settings import Setting
from course_utils.threat import Poison


def attacked(case: trials.Case, victim: trials.Victim, poison: Poison | None) -> dict:
    """A defended victim of this poison: its accuracy, success, and the target's probability."""
    goal = case.goal

    @torch.no_grad()
    def certainty(model: Classifier, poison: Poison | None) -> dict[str, float]:
        probabilities = model(goal.image[None]).softmax(1)[0]
        return {"probability": probabilities[goal.adversarial_class].item()}

    rows = trials.compare(case, {"attack": poison}, {"defended": victim}, also=certainty)
    return trials.columns(rows, "fitted", "accuracy", "success", "probability")[0]


def adaptive_trial(seed: int, setting: Setting, names: Sequence[str]) -> trials.Rows:
    """150 poisons at 32/255 against each of these defenses, in the four ways of `craft_all`."""
    scene = from_scratch.draw_scene(seed, setting=setting)
    case, rows = from_scratch.matching(seed, setting, scene=scene), []
    for name in names:
        how = adapted(setting)[name]
        loss = judge(how, scene, case.goal)
        for (surrogates, objective), poison in craft_all(how, scene).items():
            row = {"defense": name, "surrogates": surrogates, "objective": objective}
            rows.append({**row, "loss": loss(poison), **attacked(case, how.victim, poison)})
    return rows


shaping_trial = partial(adaptive_trial, names=(shaping.BOTH,))
batch_trial = partial(adaptive_trial, names=(robust.PGD, SHIFTS))
cutmix_trial = partial(adaptive_trial, names=(CUTMIX,))
ON_SHAPING = stored.Study("adaptive_shaping", "15", shaping_trial, range(40))
ON_BATCHES = stored.Study("adaptive_batch", "15", batch_trial, range(40))
ON_CUTMIX = stored.Study("adaptive_cutmix", "15", cutmix_trial, range(20))


ALIVE = "kept alive"
COUNTS = (5, 10, 25)
FILTERS = ("Deep k-NN", "Spectral Signatures")
BULLSEYE = transfer.BULLSEYE


def filtered(case: trials.Case) -> trials.Rows:
    """A victim without a filter, and with each of two that are told how many poisons there are."""
    told = filtering.filters(case, told=len(case.oblivious))
    victims = {"none": case.plain, **{name: told[name] for name in FILTERS}}
    rows = []
    for row in trials.compare(case, {"attack": case.oblivious}, victims):
        full = {"poisons": len(case.oblivious), "poisons removed": 0, "clean removed": 0} | row
        names = ("poisons", "poisons removed", "clean removed", "accuracy", "success", "seconds")
        rows += trials.columns([full], *names, filter="victim")
    return rows


def colliding(
    draw: transfer.Transfer, seed: int, loss: Callable, budget: int, setting: Setting
) -> trials.Case:
    """The case of Bullseye Polytope, with poisons that lower another loss in features."""

    def craft(victim: trials.Victim) -> Poison | None:
        return transfer.collide(draw.extractor, draw, seed, loss, budget, setting)

    return replace(transfer.bullseye(seed, setting, budget, draw), craft=craft)


def collision_trial(seed: int, setting: Setting) -> trials.Rows:
    """Transfer: 5, 10 and 25 poisons of three kinds, against two filters."""
    draw, rows = transfer.draw_transfer(seed, setting=setting), []
    for budget in COUNTS:
        near = setting.scaled(budget)
        given = (draw.extractor, draw.data, draw.goal, near)
        losses = {
            BULLSEYE: feature_collision.bullseye_loss,
            "bunched": feature_collision.collision_loss,
            ALIVE: kept_alive(*given, weight=1.0, near=near),
        }
        for attack, loss in losses.items():
            case = colliding(draw, seed, loss, budget, setting)
            rows += [{"attack": attack, "budget": budget, **row} for row in filtered(case)]
    return rows


COLLISION = stored.Study("adaptive_filters", "15", collision_trial, range(40))


def hidden_trial(seed: int, setting: Setting) -> trials.Rows:
    """From scratch: 60 poisons by gradient matching, with and without the feature penalty."""
    scene, rows = from_scratch.draw_scene(seed, setting=setting), []
    ways = {"plain": {}, "hidden": {"objective": partial(hide, budget=60)}}
    for attack, way in ways.items():
        case = from_scratch.matching(seed, setting, 60, scene=scene, **way)
        rows += [{"attack": attack, **row} for row in filtered(case)]
    return rows


HIDDEN = stored.Study("adaptive_filters_matching", "15", hidden_trial, range(20))


poisoning_trial = partial(adaptive_trial, names=(poisoning.POISONING,))
SIMULATED = stored.Study("adaptive_poisoning", "15", poisoning_trial, range(40))


def budget_trial(seed: int, setting: Setting) -> trials.Rows:
    """Oblivious poisons, 60 and 240 of a class of 300, against three defenses."""
    scene, rows = from_scratch.draw_scene(seed, setting=setting), []
    for budget in (60, 240):
        case = from_scratch.matching(seed, setting, budget, scene=scene)
        for name in (robust.PGD, SHIFTS, poisoning.POISONING):
            found = attacked(case, adapted(setting)[name].victim, case.oblivious)
            rows.append({"defense": name, "budget": budget, **found})
    return rows


BUDGET = stored.Study("adaptive_budgets", "15", budget_trial, range(20))


def stronger(setting: Setting) -> dict[str, dict]:
    """What the knowing attacker may do more of, as options of `from_scratch.craft`."""
    return {
        "as reported": {},
        "three times the steps": {"steps": setting.scaled(300)},
        "64/255": {"epsilon": 64 / 255},
        "no bound": {"epsilon": 1.0},
    }


def faced(seed: int, setting: Setting, efforts: dict[str, dict]) -> trials.Rows:
    """A fixed target: what knowing attackers win who make these efforts."""
    scene = from_scratch.draw_scene(seed, setting=setting)
    goal = fixed_trials.fixed_target(seed, scene.test)
    case, base = matching(seed, setting, goal, scene), from_scratch.best_bases(scene, goal)
    victims, sanitizers = {"plain": case.plain}, filtering.filters(case, setting.scaled(150))
    rewriters = SHIFTS, robust.PGD, poisoning.POISONING
    victims |= {name: adapted(setting)[name].victim for name in rewriters}
    victims["four sanitizers"], rows = sanitizers["four sanitizers"], []
    for name, victim in victims.items():
        known = {"surrogates": best_surrogates(scene, victim)}
        for effort, how in efforts.items():
            known["loss"] = best_objective(victim, scene, goal)  # anew: some draw random numbers
            made = from_scratch.craft(scene, goal, base, **known, **how)
            rows += trials.compare(case, {effort: made}, {name: victim})
    return rows


def masking_trial(seed: int, setting: Setting) -> trials.Rows:
    """The knowing attacker as reported, with more steps, a second bound, and none."""
    return faced(seed, setting, stronger(setting))


def restarts_trial(seed: int, setting: Setting) -> trials.Rows:
    """The knowing attacker who crafts four times, and takes the poison of the lowest loss."""
    return faced(seed, setting, {"four restarts": {"restarts": 4}})


FIRST = fixed_trials.first_of_pairs()
MASKING = stored.Study("adaptive_masking", "15", masking_trial, FIRST)
RESTARTS = stored.Study("adaptive_restarts", "15", restarts_trial, FIRST)


def in_batches(
    victim: trials.Victim, model: Classifier, poison: Poison, data: Data, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """What a victim trains on in place of the poisons, in an epoch of batches that it draws."""
    poisoned, mine = poison.apply(data), poison.mask(data)
    order = torch.randperm(len(data), generator=generator, device=generator.device)
    seen, taught = [], []
    for rows in order.split(victim.recipe.batch_size):
        x, y = victim.defense.batch(model, poisoned.x[rows], poisoned.y[rows], generator)
        seen.append(x[mine[rows]])
        taught.append(y[mine[rows]])
    return torch.cat(seen), torch.cat(taught)


def batches_trial(seed: int, setting: Setting) -> trials.Rows:
    """The loss of step 3 for knowing poisons: all in one batch, and in batches of the victim."""
    scene, rows = from_scratch.draw_scene(seed, setting=setting), []
    goal = fixed_trials.fixed_target(seed, scene.test)
    case = matching(seed, setting, goal, scene)
    for name in (SHIFTS, CUTMIX, robust.PGD, poisoning.POISONING):
        how = adapted(setting)[name]
        poison, model = case.craft(how.victim), held_out(scene, how.victim)
        if poison is None:
            continue
        label = torch.tensor([goal.adversarial_class], device=goal.image.device)
        wanted = gradient_matching.target_gradient(model, goal.image[None], label)
        found = {"one batch": judge(how, scene, goal)(poison)}
        generator, gradients = torch.Generator(goal.image.device).manual_seed(seed), []
        for _ in range(DRAWS):
            given = in_batches(how.victim, model, poison, scene.data, generator)
            gradients.append(gradient_matching.loss_gradient(model, *given, graph=False))
        mean = tuple(torch.stack(parts).mean(0) for parts in zip(*gradients, strict=True))
        found["its batches"] = cosine_loss(mean, wanted).item()
        rows += [{"defense": name, "where": where, "loss": loss} for where, loss in found.items()]
    return rows


BATCHES = stored.Study("adaptive_batches", "15", batches_trial, FIRST)
