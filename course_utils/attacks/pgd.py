"""Built in lesson 07, backdoors.

Generated from notebooks/07_backdoors.ipynb: edit it there, then run make notebooks.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from course_utils import guards
from course_utils.attacks import crafting


def pgd_step(images: Tensor, gradient: Tensor, base: Tensor, step: float, epsilon: float) -> Tensor:
    """One step of projected gradient descent on images (N, C, H, W): raise the loss.

    gradient: of the loss, for each pixel. Every pixel moves by `step` in the direction in which the
    loss grows. The result lies within `epsilon` of the base images, and in [0, 1].
    """
    return crafting.project(images + step * gradient.sign(), base, epsilon)


def pgd(
    model: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    epsilon: float,
    steps: int,
    generator: torch.Generator,
) -> Tensor:
    """Images (N, C, H, W), changed by at most `epsilon` a pixel, so that the model gets them wrong.

    labels: the true classes (N,). generator: on the device of the images. Source: arXiv 1706.06083.
    """
    guards.check_epsilon(epsilon)
    guards.check_whole("The number of steps", steps)
    noise = torch.rand(images.shape, generator=generator, device=images.device)
    moved = crafting.project(images + epsilon * (2 * noise - 1), images, epsilon)
    for _ in range(steps):
        moved.requires_grad_()
        loss = cross_entropy(model(moved), labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, moved)
        moved = pgd_step(moved.detach(), gradient, images, 2.5 * epsilon / steps, epsilon)
    return moved
