"""Built in lesson 02, label flipping.

Generated from notebooks/02_label_flipping.ipynb: edit it there, then run make notebooks.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from course_utils import guards
from course_utils.data import Data
from course_utils.models import Classifier
from course_utils.threat import Indiscriminate, Poison, ThreatModel, ThreatModelError


def budget_for(data: Data, fraction: float) -> int:
    """The number of poisons that is this fraction of the clean data, at least one."""
    if not 0 < fraction < 1:
        raise ThreatModelError(
            f"The fraction is {fraction}, expected a value in (0, 1): write 0.1 for 10%."
        )
    return max(1, round(fraction * len(data)))


def check_flips(data: Data, threat: ThreatModel, candidates: int) -> None:
    """Raise ThreatModelError where labels cannot be flipped as the threat model says."""
    if len(data.y.unique()) < 2:
        raise ThreatModelError("The images are of fewer than two classes: no label can be flipped.")
    guards.check_relabelling(threat, candidates)


def random_flips(data: Data, goal: Indiscriminate, threat: ThreatModel, seed: int) -> Poison:
    """Give random images a wrong label, each wrong label equally likely.

    It uses the whole budget and takes no image twice.
    """
    check_flips(data, threat, len(data))
    # A seed of its own: a victim with the same seed shuffles its first epoch by the first
    # permutation drawn from it, and would meet all flips in its first batches.
    generator = torch.Generator().manual_seed(50_000 + seed)
    rows = torch.randperm(len(data), generator=generator)[: threat.budget].to(data.y.device)
    step = torch.randint(1, len(data.classes), (threat.budget,), generator=generator)
    labels = (data.y[rows] + step.to(rows.device)) % len(data.classes)
    return Poison(data.x[rows], labels, rows, threat.placement)


def targeted_flips(
    data: Data, goal: Indiscriminate, threat: ThreatModel, seed: int, source: int, into: int
) -> Poison:
    """Label random images of the class `source` as the class `into`.

    It uses the whole budget; the budget cannot be larger than the class.
    """
    n_classes = len(data.classes)
    if source == into or not (0 <= source < n_classes and 0 <= into < n_classes):
        raise ThreatModelError(
            f"Cannot flip class {source} into class {into}: "
            f"choose two different classes from 0 to {n_classes - 1}."
        )
    candidates = (data.y == source).nonzero()[:, 0]
    check_flips(data, threat, len(candidates))
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(candidates), generator=generator).to(candidates.device)
    rows = candidates[order[: threat.budget]]
    return Poison(data.x[rows], torch.full_like(rows, into), rows, threat.placement)


def choose_flips(loss: Tensor, labels: Tensor, budget: int) -> tuple[Tensor, Tensor]:
    """The flips with the largest loss: `budget` different rows, and their new labels.

    loss: (N, classes), the loss that each image would have under each label.
    labels: (N,), the true labels. A true label is never chosen.
    """
    masked = loss.clone()
    masked[torch.arange(len(labels)), labels] = -torch.inf
    largest, new = masked.max(1)
    rows = largest.argsort(descending=True)[:budget]
    return rows, new[rows]


@torch.no_grad()
def label_losses(surrogates: Sequence[Classifier], data: Data) -> Tensor:
    """The loss (N, classes) of each image under each label, averaged over the surrogates."""
    guards.check_models(surrogates, data)
    losses = []
    for model in surrogates:
        logits = torch.cat([model(part) for part in data.x.split(1000)])
        if not logits.isfinite().all():
            raise ThreatModelError("A surrogate gives logits that are not finite: train it anew.")
        losses.append(-log_softmax(logits, 1))
    return torch.stack(losses).mean(0)


def worst_flips(
    surrogates: Sequence[Classifier], data: Data, goal: Indiscriminate, threat: ThreatModel
) -> Poison:
    """Flip the labels whose flip has the largest loss under the surrogates.

    It uses the whole budget and takes no image twice. The same surrogates give the same flips.
    """
    check_flips(data, threat, len(data))
    rows, labels = choose_flips(label_losses(surrogates, data), data.y, threat.budget)
    return Poison(data.x[rows], labels, rows, threat.placement)
