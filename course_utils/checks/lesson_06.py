"""Checks of lesson 06, MetaPoison."""

import copy
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from course_utils.checks import attempt, passed, require
from course_utils.checks.answers import as_number, as_tensor, compare, instead
from course_utils.models import Classifier, build
from course_utils.record import recorded


@recorded
def check_unrolled_step(step: Callable) -> None:
    """Compares with an SGD step of torch, and with a finite difference. Raises CheckFailed."""
    rows, slopes = [], []
    for name, lr, n in (("logistic_regression", 0.5, 6), ("mlp", 0.1, 4)):
        model, x, y = problem(name, n, seed=n)
        start, _, _ = problem(name, n, seed=n + 50)
        weights = {key: p.detach().clone().requires_grad_() for key, p in start.named_parameters()}
        images = x.clone().requires_grad_()
        case = f"{name}, {n} images, learning rate {lr}"
        moved = attempt(step, model, weights, images, y, lr)
        require(
            isinstance(moved, dict) and [*moved] == [*weights],
            f"Return a dictionary with the same names as `parameters`, {[*weights]}"
            f"{instead(moved)}; {case}.",
        )
        found = [as_tensor(moved[key], p.shape, case, f"for {key}") for key, p in weights.items()]
        rows.append((case, (start, model, x, y, lr), flat(found), after(start, x, y, lr)))
        slopes.append((case, moved, weights, images, start, y, lr))
    compare(rows, "the new weight, of all in one vector,", step_slips)
    for case, *rest in slopes:
        require_slopes(*rest, case)
    passed(step)


def problem(name: str, n: int, seed: int) -> tuple[Classifier, Tensor, Tensor]:
    """A model in double precision, n small images and their labels."""
    generator = torch.Generator().manual_seed(seed)
    options = {"width": 16} if name == "mlp" else {}
    model = build(name, (1, 4, 4), 3, seed=seed, **options).double()
    x = torch.rand(n, 1, 4, 4, generator=generator, dtype=torch.float64)
    return model, x, torch.randint(3, (n,), generator=generator)


def stepped(model: Classifier, x: Tensor, y: Tensor, lr: float) -> Classifier:
    """A copy of the model after a step of torch's own optimizer."""
    twin = copy.deepcopy(model)
    optimizer = torch.optim.SGD(twin.parameters(), lr=lr)
    cross_entropy(twin(x), y).backward()
    optimizer.step()
    return twin


def after(model: Classifier, x: Tensor, y: Tensor, lr: float) -> np.ndarray:
    """All weights after the step, in one vector."""
    return flat(stepped(model, x, y, lr).parameters())


def flat(parts) -> np.ndarray:
    """All parameters as one vector."""
    return np.concatenate([part.detach().numpy().ravel() for part in parts])


def step_slips(
    start: Classifier, model: Classifier, x: Tensor, y: Tensor, lr: float
) -> dict[str, np.ndarray]:
    """What common mistakes make of the step from the weights of `start`."""
    before, right = flat(start.parameters()), after(start, x, y, lr)
    theirs, step = flat(model.parameters()), right - before
    their_step = after(model, x, y, lr) - theirs
    return {
        "The step goes uphill: subtract the gradient.": before - step,
        "The weights did not move.": before,
        "You moved the weights of the model: start from `parameters`.": theirs + their_step,
        "The gradient is that at `parameters`, not at the model's weights: functional_call.": before
        + their_step,
        "Take the mean cross-entropy of the batch, not the sum.": before + len(y) * step,
        "You forgot the learning rate.": before + step / lr,
        "Multiply with the learning rate, do not divide.": before + step / lr**2,
        "You use a learning rate of 0.1 whatever `lr` is.": before + step / lr * 0.1,
        "That is the change alone: add it to the weights.": step,
        "Those are the gradients: a step takes them off the weights.": -step / lr,
        "One step, not two.": after(stepped(start, x, y, lr), x, y, lr),
        "The whole batch counts, not its first image.": after(start, x[:1], y[:1], lr),
        "A plain SGD step, not the sign of the gradient.": before + lr * np.sign(step),
    }


def require_slopes(
    moved: dict, weights: dict, images: Tensor, start: Classifier, y: Tensor, lr: float, case: str
) -> None:
    """Fail if the way back to the images or to the weights is cut, or leads to other slopes."""
    generator = torch.Generator().manual_seed(0)
    count = sum(p.numel() for p in weights.values())
    direction = torch.randn(count, generator=generator, dtype=torch.double)
    height = torch.cat([part.flatten().double() for part in moved.values()]) @ direction
    first = next(iter(weights))
    for what, source in (("images", images), (f"weights {first}", weights[first])):
        slope = None
        if height.requires_grad:
            (slope,) = torch.autograd.grad(height, source, retain_graph=True, allow_unused=True)
        require(
            slope is not None,
            f"The new weights do not depend on the {what} any more: something cuts the graph "
            f"(create_graph, detach, no_grad, an optimizer); {case}.",
        )
        nudge = torch.randn(source.shape, generator=generator, dtype=torch.double)

        def at(h: float, what=what, nudge=nudge) -> float:
            twin, x = copy.deepcopy(start), images.detach()
            if what == "images":
                x = x + h * nudge
            else:
                twin.get_parameter(first).data += h * nudge
            return float(after(twin, x, y, lr) @ direction.numpy())

        expected, found = (at(1e-5) - at(-1e-5)) / 2e-5, float((slope * nudge).sum())
        require(
            abs(found - expected) <= 1e-4 * (1 + abs(expected)),
            f"The derivative for the {what} is {found:.6f}, a finite difference says "
            f"{expected:.6f}: a part of the graph is cut; {case}.",
        )


@recorded
def check_margin_loss(loss: Callable) -> None:
    """Compares with one image after the other, in plain Python. Raises CheckFailed."""
    rows, slopes = [], []
    for values, label, confidence in (
        ([[2.0, 1.0, 0.0]], 1, 0.2),
        ([[2.0, 1.0, 0.0]], 0, 0.2),
        ([[0.1, 0.0, -1.0]], 0, 0.2),
        ([[1.0, 1.0, 1.0]], 2, 0.0),
        ([[0.5, 3.0, 2.5, -1.0], [4.0, 0.0, 1.0, 1.5], [0.0, 0.0, 5.0, 0.0]], 2, 1.0),
        ([[-3.0, -1.0, -2.5], [-0.5, -4.0, -2.0]], 2, 0.7),
    ):
        logits = torch.tensor(values, requires_grad=True)
        case = f"logits {values}, adversarial class {label}, confidence {confidence}"
        answer = attempt(loss, logits, label, confidence)
        found = as_tensor(answer, (), case, "one number, a tensor")
        gaps = [max(v for k, v in enumerate(row) if k != label) - row[label] for row in values]
        expected = sum(max(0.0, gap + confidence) for gap in gaps) / len(gaps)
        rows.append((case, (np.array(values), label, confidence), found, expected))
        slopes.append((case, answer, logits, label, gaps, confidence))
    compare(rows, "the loss", margin_slips)
    for case, answer, logits, label, gaps, confidence in slopes:
        if any(gap + confidence == 0 for gap in gaps):
            continue  # at the kink of the clamp versions of torch differ in the slope
        slope = torch.zeros_like(logits)
        if answer.requires_grad:
            slope = torch.autograd.grad(answer, logits, allow_unused=True)[0]
        behind = sum(gap + confidence > 0 for gap in gaps) / len(gaps)
        require(
            slope is not None and abs(float(slope[:, label].sum()) + behind) < 1e-5,
            "The loss is right, but it cannot be differentiated for the logits: no detach(), no "
            f"item(), no new tensor around it; {case}.",
        )
    default = float(attempt(loss, torch.tensor([[1.0, 0.0]]), 1))
    require(abs(default - 1.2) < 1e-5, "Without a confidence it should be 0.2.")
    passed(loss)


def margin_slips(logits: np.ndarray, label: int, confidence: float) -> dict[str, float]:
    """What common mistakes make of the margin loss."""
    mine = logits[:, label]
    others = np.delete(logits, label, axis=1)
    behind = others.max(1) - mine
    masked = logits.copy()
    masked[:, label] = 0
    powers = np.exp(logits - logits.max(1, keepdims=True))
    shares = powers / powers.sum(1, keepdims=True)
    apart = np.delete(shares, label, axis=1).max(1) - shares[:, label]

    def cut(values: np.ndarray) -> float:
        return values.clip(min=0).mean()

    return {
        "Cut each image at zero, then average.": max(0.0, (behind + confidence).mean()),
        "The loss of an image is never below zero.": (behind + confidence).mean(),
        "The adversarial class must lead by the confidence, not just lead.": cut(behind),
        "Mask the adversarial class in the largest logit, and cut after the confidence is added.": (
            cut(behind) + confidence
        ),
        "The confidence is added: the class must lead by that much.": cut(behind - confidence),
        "Add the confidence, then cut at zero, not at minus the confidence.": np.maximum(
            behind, -confidence
        ).mean(),
        "You use a confidence of 0.2 whatever `confidence` is.": cut(behind + 0.2),
        "Mask with minus infinity: a logit of 0 may be the largest.": cut(
            masked.max(1) - mine + confidence
        ),
        "The other way round: how far is the adversarial class BEHIND?": cut(-behind + confidence),
        "Take the mean over the images, not the sum.": (behind + confidence).clip(min=0).sum(),
        "Take the largest other logit, not their mean.": cut(others.mean(1) - mine + confidence),
        "Take the largest other logit, not the smallest.": cut(others.min(1) - mine + confidence),
        "The loss looks at logits: no softmax.": cut(apart + confidence),
        "The loss is not squared.": ((behind + confidence).clip(min=0) ** 2).mean(),
        "You use class 0 whatever `adversarial_class` is.": cut(
            logits[:, 1:].max(1) - logits[:, 0] + confidence
        ),
        "Take the mean over the images, not the largest.": (behind + confidence).clip(min=0).max(),
    }


@recorded
def check_predicted_loss(predict: Callable) -> None:
    """Compares with the slope of the true loss after a very small step. Raises CheckFailed."""
    rows = []
    for name, n, label, lr in (("logistic_regression", 5, 2, 0.3), ("mlp", 7, 0, 0.05)):
        model, x, y = problem(name, n + 1, seed=10 + n)
        given = model, x[:n], y[:n], x[n:], label, lr
        case = f"{name}, {n} images, adversarial class {label}, learning rate {lr}"
        before, slope = line(*given[:5])
        found = as_number(attempt(predict, *given), case)
        rows.append((case, given, found, before + lr * slope))
    compare(rows, "the prediction", prediction_slips)
    passed(predict)


def line(
    model: Classifier, x: Tensor, y: Tensor, target: Tensor, label: int
) -> tuple[float, float]:
    """The adversarial loss before the step, and its slope in the learning rate."""

    def at(rate: float) -> float:
        twin = stepped(model, x, y, rate)
        return cross_entropy(twin(target), torch.tensor([label])).item()

    return at(0.0), (4 * at(1e-5) - at(2e-5) - 3 * at(0.0)) / 2e-5


def prediction_slips(
    model: Classifier, x: Tensor, y: Tensor, target: Tensor, label: int, lr: float
) -> dict[str, float]:
    """What common mistakes make of the prediction."""
    before, slope = line(model, x, y, target, label)
    step, pull = (
        np.linalg.norm(after(model, images, labels, 1.0) - flat(model.parameters()))
        for images, labels in ((x, y), (target, torch.tensor([label])))
    )
    moved = stepped(model, x, y, lr)
    true = int(model(target).argmax())
    other, other_slope = line(model, x, y, target, true)
    return {
        "A step goes against the training gradient: mind the sign.": before - lr * slope,
        "That is the change: add the loss before the step.": lr * slope,
        "You forgot the learning rate.": before + slope,
        "That is the loss before the step: the change is missing.": before,
        "That is the loss after a true step; the expansion is a straight line in lr.": (
            cross_entropy(moved(target), torch.tensor([label])).item()
        ),
        "The training loss is a mean over the batch, not a sum.": before + lr * len(y) * slope,
        "Take the inner product: do not divide by the lengths.": before + lr * slope / step / pull,
        "The learning rate counts once, not squared.": before + lr**2 * slope,
        "An expansion of the first order has no factor one half.": before + lr * slope / 2,
        "Begin at the loss of the target, not at that of the batch.": (
            cross_entropy(model(x), y).item() + lr * slope
        ),
        "The adversarial loss is that of the adversarial class, not of what the model says.": other
        + lr * other_slope,
        "Both gradients count: you squared that of the batch.": before - lr * step**2,
        "Both gradients count: you squared that of the target.": before - lr * pull**2,
    }
