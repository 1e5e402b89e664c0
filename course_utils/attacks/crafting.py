"""Built in lesson 04, feature collision.

Generated from notebooks/04_feature_collision.ipynb: edit it there, then run make notebooks.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from course_utils import guards
from course_utils.data import Data
from course_utils.models import Classifier, predict
from course_utils.threat import Targeted, ThreatModelError


def project(images: Tensor, base: Tensor, epsilon: float | None) -> Tensor:
    """The images moved back, pixel by pixel, to within `epsilon` of `base` and into [0, 1].

    images, base: (N, C, H, W). epsilon: in pixel values of [0, 1]; None keeps to the box only.
    """
    if epsilon is not None:
        images = torch.minimum(torch.maximum(images, base - epsilon), base + epsilon)
    return images.clamp(0, 1)


def granted(models: Sequence[Classifier], goal: Targeted) -> bool:
    """Whether every model already gives the target to the adversarial class: nothing to attack."""
    return all(predict(m, goal.image[None]).item() == goal.adversarial_class for m in models)


def candidates(data: Data, label: int, budget: int) -> Tensor:
    """The rows of the images that may be poisoned: those of one class.

    Raises ThreatModelError if they are fewer than the budget.
    """
    rows = (data.y == label).nonzero()[:, 0]
    if len(rows) < budget:
        raise ThreatModelError(
            f"The budget is {budget}, but the data has {len(rows)} images of class "
            f"{data.classes[label]}: lower the budget or give more data."
        )
    return rows


def random_bases(data: Data, label: int, budget: int, seed: int) -> Tensor:
    """The rows of `budget` images of one class, drawn by lot. Raises as `candidates` does."""
    rows = candidates(data, label, budget)
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    return rows[order.to(rows.device)[:budget]]


Loss = Callable[[Tensor], Tensor]  # of images (N, C, H, W)


def signed_adam(
    objective: Loss, start: Tensor, base: Tensor, epsilon: float | None, *, steps: int, lr: float
) -> tuple[Tensor, list[float]]:
    """Lower `objective(images)` inside the bound; the images (N, C, H, W), and the loss by step.

    Adam on the gradient's sign; lr, in pixel values of [0, 1], falls to a tenth after 3/8, 5/8, 7/8
    of the steps, rounded down: 2 begin at a tenth, 1 at a thousandth. Source: arXiv 2102.13624."""
    guards.check_crafting(steps, lr)
    images, losses = project(start, base, epsilon).requires_grad_(), []
    adam = torch.optim.Adam([images], lr=lr)
    decay = torch.optim.lr_scheduler.MultiStepLR(adam, [steps * k // 8 for k in (3, 5, 7)], 0.1)
    for _ in range(steps):
        loss = objective(images)
        images.grad = torch.autograd.grad(loss, images)[0].sign()
        adam.step()
        decay.step()
        with torch.no_grad():  # Adam holds this very tensor: change it in place, unseen by autograd
            images.copy_(project(images, base, epsilon))
        losses.append(loss.item())
        guards.check_loss(losses[-1])  # the sign of NaN is 0, so the images would stay as they are
    return images.detach(), losses


def random_start(base: Tensor, epsilon: float, generator: torch.Generator) -> Tensor:
    """The base images (N, C, H, W) with Gaussian noise of deviation `epsilon`, cut to the bound."""
    noise = epsilon * torch.randn(base.shape, generator=generator, device=base.device)
    return project(base + noise, base, epsilon)
