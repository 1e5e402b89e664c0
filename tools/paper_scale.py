"""The benchmark at the size of Geiping and others (arXiv 2102.13624): make benchmark SCALE=paper.

Gradient matching on CIFAR-10 with ResNet-18, from scratch, 20 trials: 500 poisons (1% of the data,
10% of the adversarial class) within 16/255, 250 crafting steps, 8 restarts, 40 epochs in batches of
128; shifts by up to 4 pixels and flips in training and in crafting. Each defense meets poisons that
were crafted without knowledge of it, on a plainly trained surrogate, and with it, on a surrogate
that was trained with the defense. Bases and targets are drawn at random, as in their code, so a
surrogate may get a target wrong; the clean victims show how often that alone gives the attacker
their wish.

Gradient shaping needs the gradient of each example, so it runs on a ResNet-18 with GroupNorm,
beside a plain victim of the same kind. All other victims have BatchNorm.

Where it departs from their code: the learning rate rises to 0.1 and falls again in one cycle,
instead of falling to a tenth three times; the channels are not normalised, so crafting moves
pixels by 0.025, their 0.1 over a deviation of about 1/4. There is no noise control. The clipping
and noise of gradient shaping are those of their baseline, which shapes the whole batch.

It is meant for a GPU, and takes one where there is one; there the same seed need not give the very
same rows. CIFAR-10 is read from data/downloads. To download it first:

    python -c 'from course_utils.data import load; load("cifar10", download=True)'
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial

import torch
from torch import Tensor

from course_utils.attacks.crafting import candidates, granted
from course_utils.attacks.gradient_matching import (
    Gradient,
    alignment_loss,
    augment,
    gradient_matching,
)
from course_utils.data import Data, load
from course_utils.defense import PLAIN, Defense
from course_utils.defenses.adversarial_poisoning import adversarial_poisoning, matching_simulation
from course_utils.defenses.gradient_shaping import batch_shaping, gradient_shaping
from course_utils.defenses.pgd_training import pgd_training
from course_utils.models import Classifier, Norm, build
from course_utils.settings import Setting
from course_utils.stored import Benchmark, Trial
from course_utils.threat import Poison, Targeted, ThreatModel
from course_utils.training import Recipe, train
from course_utils.trials import Case, Rows, Victim, columns, compare

RECIPE = Recipe(epochs=40, batch_size=128, lr=0.1)
PIXELS = 4.0
CLIP, NOISE = 1.0, 0.01
ATTACK = "gradient matching"


@cache
def cifar10() -> tuple[Data, Data]:
    """CIFAR-10, as it lies in data/downloads. Raises DataError if it does not."""
    return load("cifar10")


@dataclass(frozen=True)
class Scale:
    """The sizes of the paper; a check of the code may take smaller ones.

    images: gives the training and the test data. inner_steps: those of PGD training and of the
    attack that poisoning training simulates.
    """

    images: Callable[[], tuple[Data, Data]] = cifar10
    budget: int = 500
    epsilon: float = 16 / 255
    recipe: Recipe = RECIPE
    steps: int = 250
    restarts: int = 8
    lr: float = 0.025
    inner_steps: int = 5


def augmented(defense: Defense) -> Defense:
    """The same defense, on batches that are shifted and flipped first."""

    def batch(
        model: Classifier, x: Tensor, y: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        x = augment(x, generator, PIXELS).clamp(0, 1)
        return (x, y) if defense.batch is None else defense.batch(model, x, y, generator)

    return replace(defense, batch=batch)


def defenses(scale: Scale, norm: Norm) -> dict[str, Defense]:
    """Plain training and the defenses of ResNet-18 with this normalisation, by name."""
    if norm == "group":
        shaping = gradient_shaping(CLIP, NOISE, scale.recipe.batch_size)
        found = {"plain": PLAIN, "gradient shaping": shaping}
    else:
        simulated = matching_simulation(scale.epsilon, scale.inner_steps)
        found = {
            "plain": PLAIN,
            "batch shaping": batch_shaping(CLIP, NOISE),
            "PGD training": pgd_training(scale.epsilon, scale.inner_steps),
            "poisoning training": adversarial_poisoning(simulated),
        }
    return {name: replace(augmented(defense), name=name) for name, defense in found.items()}


def draw_target(data: Data, seed: int) -> Targeted:
    """Draw an image, and a class that is not its own."""
    generator = torch.Generator().manual_seed(seed)
    row = torch.randint(len(data), (1,), generator=generator).item()
    shift = torch.randint(1, len(data.classes), (1,), generator=generator).item()
    true_class = data.y[row].item()
    return Targeted(data.x[row], true_class, (true_class + shift) % len(data.classes))


def craft(
    scale: Scale, surrogate: Classifier, data: Data, goal: Targeted, seed: int
) -> Poison | None:
    """Poisons from bases drawn at random; None if the surrogate already grants the goal."""
    if granted([surrogate], goal):
        return None
    rows = candidates(data, goal.adversarial_class, scale.budget)
    generator = torch.Generator().manual_seed(seed)
    base = rows[torch.randperm(len(rows), generator=generator)[: scale.budget].to(rows.device)]
    moves = torch.Generator(data.x.device).manual_seed(seed)

    def loss(model: Classifier, images: Tensor, labels: Tensor, wanted: Gradient) -> Tensor:
        return alignment_loss(model, augment(images, moves, PIXELS), labels, wanted)

    threat = ThreatModel(scale.budget, scale.epsilon, clean_label=True)
    options = {"steps": scale.steps, "restarts": scale.restarts, "lr": scale.lr, "loss": loss}
    poison = gradient_matching([surrogate], data, goal, threat, seed, base=base, **options)
    poison.check(threat, data)
    return poison


def matching_trial(
    seed: int, setting: Setting, scale: Scale, norm: Norm, known: str | None = None
) -> Rows:
    """Victims of one target: clean and attacked ones with every defense, or with the known one.

    known: the defense that the attacker knows and trains the surrogate with; then only attacked
    victims with this defense are trained. The columns beside those of `compare`: the
    normalisation, whether the attacker knew, and the seconds of surrogate and crafting.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    data, test = (part.to(device) for part in scale.images())
    model = build("resnet18", data.shape, len(data.classes), norm=norm)
    goal, took = draw_target(test, seed), []
    victims = {name: Victim(one, scale.recipe) for name, one in defenses(scale, norm).items()}
    plain = victims["plain"]

    def attack(victim: Victim) -> Poison | None:
        begin = time.perf_counter()
        first = 1000 * (seed + 1)
        surrogate = train(model, data, victim.recipe, defense=victim.defense, seed=first)
        poison = craft(scale, surrogate, data, goal, seed)
        took.append(time.perf_counter() - begin)
        return poison

    case = Case(data, goal, test, model, scale.recipe, seed, attack)
    if known:
        rows = compare(case, {"attack": case.craft}, {known: victims[known]})
    else:
        rows = compare(case, {"clean": None, "attack": attack(plain)}, victims)
    found = columns(rows, "accuracy", "success", "seconds", condition="attacker", defense="victim")
    labels = {"norm": norm, "knowledge": "with" if known else "without"}
    return [{**labels, **row, "crafting_seconds": took[0]} for row in found]


def trials(scale: Scale) -> dict[str, Trial]:
    """Without knowledge of the defense, one trial a normalisation; with it, one a defense."""
    found = {}
    for norm, name in (("batch", ATTACK), ("group", f"{ATTACK}, GroupNorm")):
        found[name] = partial(matching_trial, scale=scale, norm=norm)
        for known in list(defenses(scale, norm))[1:]:
            knowing = partial(matching_trial, scale=scale, norm=norm, known=known)
            found[f"{ATTACK}, knowing {known}"] = knowing
    return found


BENCHMARK = Benchmark("paper_scale", trials(Scale()), range(20), scale="paper")
