"""Built in lesson 04, feature collision.

Generated from notebooks/04_feature_collision.ipynb: edit it there, then run make notebooks.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from course_utils import guards
from course_utils.attacks.crafting import candidates, project, random_start, signed_adam
from course_utils.data import Data
from course_utils.models import Classifier
from course_utils.threat import Poison, Targeted, ThreatModel, ThreatModelError


@torch.no_grad()
def nearest_bases(
    surrogates: Sequence[Classifier], data: Data, goal: Targeted, budget: int
) -> Tensor:
    """The rows of the `budget` images of the adversarial class nearest to the target in features.

    Distances are a share of the length of the target's features, averaged over the surrogates.
    """
    rows = candidates(data, goal.adversarial_class, budget)
    distance = torch.zeros(len(rows), device=rows.device)
    for surrogate in surrogates:
        target = surrogate.features(goal.image[None])
        gap = surrogate.features(data.x[rows]) - target
        distance += gap.norm(dim=1) / target.norm() / len(surrogates)
    return rows[distance.argsort()[:budget]]


def watermark(
    surrogates: Sequence[Classifier], data: Data, goal: Targeted, threat: ThreatModel, seed: int
) -> Poison:
    """Clean-label poisons in which the target shines through, as far as the bound allows.

    The same surrogates give the same poisons, whatever the seed. Raises ThreatModelError if the
    threat model has no epsilon, and for surrogates or data with which it cannot work.
    """
    guards.check_surrogates(surrogates, data, goal.image[None], goal.adversarial_class)
    if threat.epsilon is None:
        raise ThreatModelError(
            "Without epsilon a watermark is a copy of the target: give a bound, such as 32/255."
        )
    rows = nearest_bases(surrogates, data, goal, threat.budget)
    images = project(goal.image.expand_as(data.x[rows]), data.x[rows], threat.epsilon)
    return Poison(images, data.y[rows], rows, threat.placement)


def collision_loss(features: Tensor, target_features: Tensor) -> Tensor:
    """Squared distance of each poison's features from the target's, on average over the poisons.

    features: of the poisons (P, D). target_features: of the target (1, D), or of several targets
    (T, D), whose mean counts. As a share of the squared length of the target's features, so that
    losses of different surrogates can be added. Source: Shafahi and others (arXiv 1804.00792).
    """
    target = target_features.mean(0)
    return (features - target).square().sum(1).mean() / target.square().sum()


FeatureLoss = Callable[[Tensor, Tensor], Tensor]  # of poisons (P, D) and targets (T, D)


def surrogate_loss(
    surrogates: Sequence[Classifier], goal: Targeted, loss: FeatureLoss
) -> Callable[[Tensor], Tensor]:
    """The mean over the surrogates of a loss in feature space, as a function of images."""
    with torch.no_grad():
        targets = [surrogate.features(goal.image[None]) for surrogate in surrogates]
    pairs = list(zip(surrogates, targets, strict=True))
    return lambda images: sum(loss(s.features(images), t) for s, t in pairs) / len(pairs)


def forward_backward(
    distance_of: Callable[[Tensor], Tensor],
    images: Tensor,
    base: Tensor,
    beta: float,
    step: float,
    before: float,
) -> tuple[Tensor, float, float]:
    """One step of the splitting: new images, the step size, and the objective of the old images.

    before: the objective one step earlier; where it has risen since, the step size is halved.
    """
    images = images.detach().requires_grad_()  # a new start for the gradient at every step
    distance = distance_of(images)
    total = distance.item() + beta / 2 * (images.detach() - base).square().sum().item()
    step = step / 2 if total > before else step
    forward = images.detach() - step * torch.autograd.grad(distance, images)[0]
    return (forward + step * beta * base) / (1 + step * beta), step, total


def poison_frogs(
    surrogates: Sequence[Classifier],
    data: Data,
    goal: Targeted,
    threat: ThreatModel,
    seed: int,
    *,
    beta: float = 0.01,
    steps: int = 200,
) -> Poison:
    """Clean-label poisons by forward-backward splitting, each on its own; any seed gives the same.

    beta: weight of the image penalty. A bound of the threat model holds on top.
    Source: Shafahi and others (arXiv 1804.00792), algorithm 1.
    """
    guards.check_surrogates(surrogates, data, goal.image[None], goal.adversarial_class)
    rows = nearest_bases(surrogates, data, goal, threat.budget)
    images, base, step, before = data.x[rows], data.x[rows], 1.0, float("inf")
    guards.check_crafting(steps, step)
    mean = surrogate_loss(surrogates, goal, collision_loss)
    for _ in range(steps):
        given = (images, base, beta, step, before)
        images, step, before = forward_backward(lambda x: len(rows) * mean(x), *given)
        guards.check_loss(before)
        images = project(images, base, threat.epsilon)
    return Poison(images, data.y[rows], rows, threat.placement)


def feature_collision(
    surrogates: Sequence[Classifier],
    data: Data,
    goal: Targeted,
    threat: ThreatModel,
    seed: int,
    *,
    loss: FeatureLoss,
    steps: int = 100,
    lr: float = 0.03,
) -> Poison:
    """Clean-label poisons whose features collide with the target's, inside the bound.

    loss: of the features of the poisons (P, D) and of the target (1, D); its mean over the
    surrogates is lowered. Without a bound the start is the base images, whatever the seed.
    """
    guards.check_surrogates(surrogates, data, goal.image[None], goal.adversarial_class)
    rows = nearest_bases(surrogates, data, goal, threat.budget)
    base = start = data.x[rows]
    if threat.epsilon is not None:
        start = random_start(base, threat.epsilon, torch.Generator(base.device).manual_seed(seed))
    objective = surrogate_loss(surrogates, goal, loss)
    images, _ = signed_adam(objective, start, base, threat.epsilon, steps=steps, lr=lr)
    return Poison(images, data.y[rows], rows, threat.placement)


def project_to_simplex(values: Tensor) -> Tensor:
    """The point of the simplex that is nearest to `values` (n,): no part below 0, sum 1.

    Source: Duchi and others (2008), figure 1.
    """
    falling = values.sort(descending=True)[0]
    shifts = (falling.cumsum(0) - 1) / torch.arange(1, len(values) + 1, device=values.device)
    kept = (falling > shifts).sum()
    return (values - shifts[kept - 1]).clamp(min=0)


@torch.no_grad()
def polytope_coefficients(features: Tensor, target: Tensor, steps: int = 100) -> Tensor:
    """The weights (P,) of the point of the polytope that is nearest to the target (D,).

    features: the corners of the polytope (P, D). Projected gradient descent from equal weights, on
    the gaps between corners and target.
    Source: Zhu and others (arXiv 1905.05897).
    """
    gaps = features - target
    products = gaps @ gaps.T
    step = 1 / torch.linalg.eigvalsh(products)[-1].clamp(min=1e-12)
    weights = torch.full_like(products[0], 1 / len(features))
    for _ in range(steps):
        weights = project_to_simplex(weights - step * (products @ weights))
    return weights


def convex_polytope_loss(features: Tensor, target_features: Tensor) -> Tensor:
    """Squared distance of the target's features (T, D) from the polytope of the poisons' (P, D).

    As a share of the squared length of the target's features; of several targets the mean counts.
    Source: Zhu and others (arXiv 1905.05897).
    """
    target = target_features.mean(0)
    weights = polytope_coefficients(features.detach(), target)
    return (weights @ features - target).square().sum() / target.square().sum()


def bullseye_loss(features: Tensor, target_features: Tensor) -> Tensor:
    """Squared distance between the mean of the poisons' features and that of the target's.

    features: of the poisons (P, D). target_features: of the target (1, D), or of several targets
    (T, D), whose mean counts. As a share of the squared length of the (mean) target features.
    Source: Aghakhani and others (arXiv 2005.00191).
    """
    target = target_features.mean(0)
    return (features.mean(0) - target).square().sum() / target.square().sum()
