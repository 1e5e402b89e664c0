"""Built in lesson 08, hidden triggers.

Generated from notebooks/08_hidden_triggers.ipynb: edit it there, then run make notebooks.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from course_utils.attacks import crafting
from course_utils.data import Data
from course_utils.guards import check_surrogates
from course_utils.models import Classifier
from course_utils.threat import Backdoor, Poison, ThreatModel, ThreatModelError, triggered


def pair_greedily(features: Tensor, source_features: Tensor) -> Tensor:
    """For each poison, the number of its source image (P,): the nearest two first, one to one.

    features: of the poisons (P, d). source_features: of the patched images (Q, d), Q at least P.
    Source: Saha, Subramanya and Pirsiavash (arXiv 1910.00033), algorithm 1.
    """
    distance = torch.cdist(features, source_features)
    pairs = torch.empty(len(features), dtype=torch.int64, device=features.device)
    for _ in range(len(features)):
        poison, source = divmod(int(distance.argmin()), distance.shape[1])
        pairs[poison] = source
        distance[poison, :] = torch.inf
        distance[:, source] = torch.inf
    return pairs


def hidden_trigger_loss(features: Tensor, source_features: Tensor) -> Tensor:
    """The mean squared distance between poisons (P, d) and their partners among (Q, d), Q >= P."""
    if len(source_features) < len(features):
        raise ValueError(
            f"{len(features)} poisons but only {len(source_features)} patched source images: "
            "draw at least as many, so that each poison gets a partner."
        )
    with torch.no_grad():
        pairs = pair_greedily(features, source_features)
    return (features - source_features[pairs]).square().sum(1).mean()


def patched_sources(
    surrogates: Sequence[Classifier], data: Data, goal: Backdoor, threat: ThreatModel
) -> Tensor:
    """The training images of the source class (N, C, H, W), with the trigger.

    Raises ThreatModelError where the attack could not work, or would have nothing to do.
    """
    if threat.epsilon is None:
        raise ThreatModelError("A hidden trigger needs a bound: give an epsilon, as in 16/255.")
    if goal.source_class is None:
        raise ThreatModelError("This backdoor is one-to-one: give the goal a source_class.")
    sources = data.x[data.y == goal.source_class]
    if len(sources) == 0:
        name = data.classes[goal.source_class]
        raise ThreatModelError(f"The data has no image of the source class {name}: add some.")
    patched = triggered(goal.trigger, sources)
    check_surrogates(surrogates, data, patched, goal.target_class)
    return patched


def spared(images: Tensor, base: Tensor, spare: Tensor | None) -> Tensor:
    """The images (N, C, H, W), but with the pixels of the mask `spare` (C, H, W) from `base`."""
    return images if spare is None else torch.where(spare, base, images)


def collide(
    surrogates: Sequence[Classifier], patched: Tensor, base: Tensor, spare: Tensor | None, seed: int
) -> Callable[[Tensor], Tensor]:
    """What crafting lowers: the mean of the hidden trigger loss over the surrogates."""
    generator = torch.Generator(base.device).manual_seed(seed)
    with torch.no_grad():
        known = [model.features(patched) for model in surrogates]

    def objective(images: Tensor) -> Tensor:
        seen, size = spared(images, base, spare), (len(images),)
        drawn = torch.randint(len(patched), size, generator=generator, device=base.device)
        pairs = zip(surrogates, known, strict=True)
        losses = [hidden_trigger_loss(m.features(seen), found[drawn]) for m, found in pairs]
        return torch.stack(losses).mean()

    return objective


def hidden_trigger(
    surrogates: Sequence[Classifier],
    data: Data,
    goal: Backdoor,
    threat: ThreatModel,
    seed: int,
    *,
    spare: Tensor | None = None,
    steps: int = 200,
    lr: float = 0.01,
) -> Poison:
    """Images of the target class whose features lie where patched source images lie.

    It uses the whole budget, on random images. spare: pixels to leave alone, a mask (C, H, W).
    Source: Saha, Subramanya and Pirsiavash (arXiv 1910.00033), algorithm 1.
    """
    patched = patched_sources(surrogates, data, goal, threat)
    rows = crafting.random_bases(data, goal.target_class, threat.budget, seed)
    base = data.x[rows]
    lowered = collide(surrogates, patched, base, spare, seed)
    images, _ = crafting.signed_adam(lowered, base, base, threat.epsilon, steps=steps, lr=lr)
    return Poison(spared(images, base, spare), data.y[rows], rows, threat.placement)


def faint_trigger(images: Tensor, trigger: Callable[[Tensor], Tensor], epsilon: float) -> Tensor:
    """The images (N, C, H, W) moved towards their patched copies, no pixel by more than epsilon."""
    return images + (trigger(images) - images).clamp(-epsilon, epsilon)


def covered(trigger: Callable[[Tensor], Tensor], like: Tensor) -> Tensor:
    """The pixels that an opaque trigger can cover: a mask (C, H, W) for images like these."""
    black = torch.zeros(64, *like.shape[1:], device=like.device)
    return (trigger(black) == trigger(1 - black)).any(0)
