"""Built in lesson 08, hidden triggers.

Generated from notebooks/08_hidden_triggers.ipynb: edit it there, then run make notebooks.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from course_utils.attacks import crafting, gradient_matching
from course_utils.attacks.hidden_trigger import patched_sources, spared
from course_utils.data import Data
from course_utils.models import Classifier
from course_utils.threat import Backdoor, Poison, ThreatModel


def patched_gradient(
    model: Classifier, images: Tensor, labels: Tensor, goal: Backdoor
) -> tuple[Tensor, ...]:
    """The gradient that would teach `model` the backdoor, one tensor for each parameter.

    It is that of the mean loss of the source images among `images` (N, C, H, W), with the trigger
    and with the label of the target class. labels: the true classes (N,).
    Source: Souri and others, Sleeper Agent (arXiv 2106.08970), section 3.
    """
    patched = goal.trigger(images[labels == goal.source_class])
    wanted = torch.full((len(patched),), goal.target_class, device=images.device)
    return gradient_matching.target_gradient(model, patched, wanted)


def match(
    surrogates: Sequence[Classifier], data: Data, goal: Backdoor, base: Data, spare: Tensor | None
) -> Callable[[Tensor], Tensor]:
    """What crafting lowers: the mean alignment loss over the surrogates."""
    wanted = [patched_gradient(model, data.x, data.y, goal) for model in surrogates]
    unused = torch.Generator(base.x.device)  # all surrogates in every step: nothing is drawn
    given = surrogates, wanted, base.y, unused
    objective = gradient_matching.matching_objective(*given, per_step=None)
    return lambda images: objective(spared(images, base.x, spare))


Retrain = Callable[[Data, int], Sequence[Classifier]]  # poisoned data, number -> new surrogates


def craft(
    surrogates: Sequence[Classifier],
    data: Data,
    goal: Backdoor,
    threat: ThreatModel,
    rows: Tensor,
    seed: int,
    *,
    retrain: Retrain | None = None,
    rounds: int = 4,
    spare: Tensor | None = None,
    steps: int = 60,
    lr: float = 0.03,
) -> Poison:
    """Match gradients from noise on; with `retrain`, in rounds, each with surrogates of its own."""
    base, generator = data[rows], torch.Generator(data.x.device).manual_seed(seed)
    start = crafting.random_start(base.x, threat.epsilon, generator)
    poison, rounds = Poison(start, base.y, rows, threat.placement), rounds if retrain else 1
    for number in range(rounds):
        models = retrain(poison.apply(data), number) if number else surrogates
        given = match(models, data, goal, base, spare), poison.images, base.x, threat.epsilon
        images, _ = crafting.signed_adam(*given, steps=steps // rounds, lr=lr)
        poison = replace(poison, images=spared(images, base.x, spare))
    return poison


def sleeper_agent(
    surrogates: Sequence[Classifier],
    data: Data,
    goal: Backdoor,
    threat: ThreatModel,
    seed: int,
    **options,
) -> Poison:
    """Images of the target class whose gradient is the one that patched source images would give.

    It uses the whole budget, on the images with the largest gradient. options: those of `craft`,
    as retrain=..., which trains new surrogates, or spare=..., pixels to leave alone (C, H, W).
    Source: Souri and others, Sleeper Agent (arXiv 2106.08970), algorithm 1.
    """
    patched_sources(surrogates, data, goal, threat)
    rows = crafting.candidates(data, goal.target_class, threat.budget)
    bases = gradient_matching.choose_bases(surrogates, data, rows, threat.budget)
    return craft(surrogates, data, goal, threat, bases, seed, **options)
