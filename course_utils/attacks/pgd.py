"""Built in lesson 07, backdoors.

Generated from notebooks/07_backdoors.ipynb: edit it there, then run make notebooks.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from course_utils.attacks.crafting import project
from course_utils.threat import ThreatModelError


def pgd_step(images: Tensor, gradient: Tensor, base: Tensor, step: float, epsilon: float) -> Tensor:
    """One step of projected gradient descent on the images (N, C, H, W): raise the loss.

    Every pixel moves by `step` in the direction of the sign of its gradient. The result lies
    within `epsilon` of the base images and in [0, 1].
    """
    return project(images + step * gradient.sign(), base, epsilon)


def pgd(
    model: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    epsilon: float,
    steps: int,
    generator: torch.Generator,
) -> Tensor:
    """Change images (N, C, H, W) by at most `epsilon` a pixel so that the model gets them wrong.

    Starts at a random point inside the bound. Each step moves by 2.5 epsilon / steps, so that
    the images can reach the other end of the bound.
    Source: Madry and others, arXiv 1706.06083.
    """
    if not 0 < epsilon <= 1 or steps < 1:
        raise ThreatModelError(
            f"epsilon is {epsilon}, steps {steps}: expected (0, 1] and 1 or more."
        )
    noise = torch.rand(images.shape, generator=generator, device=images.device)
    moved = project(images + epsilon * (2 * noise - 1), images, epsilon)
    for _ in range(steps):
        moved.requires_grad_()
        loss = cross_entropy(model(moved), labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, moved)
        moved = pgd_step(moved.detach(), gradient, images, 2.5 * epsilon / steps, epsilon)
    return moved
