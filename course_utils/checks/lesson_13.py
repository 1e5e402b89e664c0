"""Checks of lesson 13, adversarial training."""

from collections.abc import Callable
from itertools import product

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

from course_utils.checks import attempt, passed, require
from course_utils.models import Classifier, build


def check_adversarial_loss(loss_function: Callable) -> None:
    """Compares with two-class linear models, whose worst images are known. Raises CheckFailed."""
    for n, epsilon, seed in ((1, 0.05, 0), (6, 0.1, 1), (9, 0.02, 2)):
        generator = torch.Generator().manual_seed(seed)
        model = build("logistic_regression", (1, 3, 3), 2, seed)
        images = 0.3 + 0.4 * torch.rand(n, 1, 3, 3, generator=generator)
        labels = torch.randint(2, (n,), generator=generator)
        case, before = f"{n} images and epsilon {epsilon}", images.clone()
        found = attempt(loss_function, model, images, labels, epsilon, 5, generator)
        require(torch.equal(images, before), f"The images that came in were changed ({case}).")
        require(
            isinstance(found, Tensor) and found.numel() == 1,
            f"Return one number as a tensor; for {case} you did not.",
        )
        compare_loss(found.item(), model, images, labels, epsilon, case)
        check_weights(found, model, images, labels, epsilon, case)
    passed(loss_function)


def signed_margins(model: Classifier, images: Tensor, labels: Tensor, epsilon: float) -> Tensor:
    """How far each image's true logit leads after the worst change of every pixel (N,).

    A linear model falls fastest where each pixel moves against its weight, whatever the image.
    """
    weight, bias = (p[1] - p[0] for p in (model.head.weight, model.head.bias))
    side = 2.0 * labels - 1
    return side * (images.flatten(1) @ weight + bias) - epsilon * weight.abs().sum()


def compare_loss(
    found: float, model: Classifier, images: Tensor, labels: Tensor, epsilon: float, case: str
) -> None:
    """Fail unless it is the mean loss of the worst images; name the usual mistakes."""
    worst, clean, best = (
        softplus(-signed_margins(model, images, labels, e)).detach() for e in (epsilon, 0, -epsilon)
    )
    expected = worst.mean().item()
    if abs(found - expected) < 1e-5:
        return
    hint = ""
    if abs(found - clean.mean().item()) < 1e-5:
        hint = " That is the loss of the images as they came: train on the changed ones."
    elif abs(found - best.mean().item()) < 1e-5:
        hint = " Your images are the easiest within the bound: the inner step must RAISE the loss."
    elif len(worst) > 1 and abs(found - worst.sum().item()) < 1e-5:
        hint = " Take the mean over the batch, not the sum."
    elif found < expected:
        hint = " There are worse images within the bound."
    require(False, f"The loss of the worst {case} is {expected:.4f}, you gave {found:.4f}.{hint}")


def check_weights(
    found: Tensor, model: Classifier, images: Tensor, labels: Tensor, epsilon: float, case: str
) -> None:
    """Fail unless the loss can be lowered by moving the weights, and in the right direction."""
    require(
        found.requires_grad,
        "The loss cannot be differentiated for the weights: compute it outside of "
        "torch.no_grad(), and do not detach it.",
    )
    require(
        all(p.grad is None for p in model.parameters()),
        "Your function has left gradients on the weights: the outer step must start without.",
    )
    (slope,) = torch.autograd.grad(found, model.head.weight)
    exact = softplus(-signed_margins(model, images, labels, epsilon)).mean()
    (expected,) = torch.autograd.grad(exact, model.head.weight)
    gap = (slope - expected).abs().max().item()
    require(gap < 1e-4, f"For {case} the gradient for the weights is off by {gap:.2e}.")


def check_random_signs(add: Callable) -> None:
    """Looks at every pixel, and at how the signs are spread. Raises CheckFailed."""
    for shape, epsilon, seed in (((4, 1, 3, 3), 0.1, 0), ((2, 3, 8, 8), 0.4, 1)):
        base = torch.rand(shape, generator=torch.Generator().manual_seed(seed)).round(decimals=1)
        before, case = base.clone(), f"images of shape {shape} and epsilon {epsilon}"
        first, again, other = (
            attempt(add, base, epsilon, torch.Generator().manual_seed(s)) for s in (5, 5, 6)
        )
        require(torch.equal(base, before), f"The images that came in were changed ({case}).")
        require(
            isinstance(first, Tensor) and first.shape == base.shape,
            f"Return images of shape {shape}; for {case} you did not.",
        )
        require(
            torch.equal(first, again) and not torch.equal(first, other),
            "The same generator must give the same signs, and another seed others: draw from "
            "`generator`, not from the global random state.",
        )
        for place in product(*map(range, shape)):
            compare_pixel(base[place].item(), first[place].item(), epsilon, place)
    check_spread(add)
    passed(add)


def compare_pixel(base: float, got: float, epsilon: float, place: tuple[int, ...]) -> None:
    """Fail unless the pixel has moved by the full bound, up or down, or to the edge of the box."""
    allowed = [min(1, max(0, base + side * epsilon)) for side in (1, -1)]
    if any(abs(got - value) < 1e-6 for value in allowed):
        return
    hint = ""
    if not 0 <= got <= 1:
        hint = " That is outside [0, 1]."
    elif abs(got - base) > epsilon + 1e-6:
        hint = " That is further than epsilon from the image."
    elif abs(got - base) < epsilon:
        hint = " Every sign is +1 or -1: no pixel moves by less than epsilon inside the box."
    require(
        False,
        f"A pixel of {base:.2f} may become {allowed[0]:.2f} or {allowed[1]:.2f}, but you gave "
        f"{got:.3f}, at {place}.{hint}",
    )


def check_spread(add: Callable) -> None:
    """Fail unless both signs are equally likely, in each image and at each pixel anew."""
    grey = torch.full((20, 1, 20, 20), 0.5)
    up = (attempt(add, grey, 0.1, torch.Generator().manual_seed(0)) > 0.5).float()
    share = up.mean().item()
    require(
        0.4 < share < 0.6,
        f"Half of the signs should be +1; of {up.numel()} pixels, {share:.0%} of yours are.",
    )
    for name, spread in (("image", up.mean((1, 2, 3))), ("pixel", up.mean(0))):
        require(
            not ((spread == 0) | (spread == 1)).all(),
            f"Within one {name} all your signs are equal: draw one sign for each pixel of each "
            "image.",
        )


def check_undominated(choose: Callable) -> None:
    """Compares with looking at every pair. Raises CheckFailed."""
    rng = np.random.default_rng(0)
    cases = [rng.integers(0, 5, (2, n)) / 4 for n in (1, 2, 5, 9, 9)]
    cases.append(np.array([[0.8, 0.8, 0.7], [0.5, 0.5, 0.5]]))  # two equal points
    for accuracy, success in cases:
        points = [f"({a:.2f}, {s:.2f})" for a, s in zip(accuracy, success, strict=True)]
        found = np.asarray(attempt(choose, accuracy, success))
        require(
            found.dtype == bool and found.shape == accuracy.shape,
            f"Return one True or False for each of {len(accuracy)} defenses.",
        )
        for i, point in enumerate(points):
            better = rival(accuracy, success, i)
            if found[i] == (better is None):
                continue
            if better is None:
                reason = "no other is at least as good in both and better in one"
            else:
                reason = f"{points[better]} is at least as good in both and better in one"
            verdict = "undominated" if better is None else "dominated"
            require(
                False,
                f"Of (accuracy, success) = {', '.join(points)}: {point} is {verdict}, since "
                f"{reason}. You say otherwise. High accuracy is good, high success is bad.",
            )
    passed(choose)


def rival(accuracy: np.ndarray, success: np.ndarray, i: int) -> int | None:
    """A point that dominates point i, or None."""
    for j in range(len(accuracy)):
        as_good = accuracy[j] >= accuracy[i] and success[j] <= success[i]
        if as_good and (accuracy[j] > accuracy[i] or success[j] < success[i]):
            return j
    return None
