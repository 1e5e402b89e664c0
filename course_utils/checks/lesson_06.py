"""Checks of lesson 06, MetaPoison."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from course_utils.checks import attempt, passed, require
from course_utils.models import Classifier, build


def check_unrolled_step(step: Callable) -> None:
    """Compares with an SGD step of torch, and with a finite difference. Raises CheckFailed."""
    for name, lr, n in (("logistic_regression", 0.5, 6), ("mlp", 0.1, 4)):
        model, x, y = problem(name, n, seed=n)
        weights = {key: p.detach().clone().requires_grad_() for key, p in model.named_parameters()}
        images = x.clone().requires_grad_()
        case = f"{name}, {n} images, learning rate {lr}"
        moved = attempt(step, model, dict(weights), images, y, lr)
        require(
            isinstance(moved, dict) and moved.keys() == weights.keys(),
            f"Return a dictionary with the same names as `parameters`; for {case} you did not.",
        )
        unchanged = zip(model.parameters(), weights.values(), strict=True)
        require(
            all(torch.equal(a, b) for a, b in unchanged),
            f"The model or the weights that came in were changed, for {case}: return new tensors.",
        )
        compare_weights(moved, sgd_step(model, x, y, lr), weights, case)
        compare_slopes(step, model, moved, weights, images, y, lr, case)
    passed(step)


def problem(name: str, n: int, seed: int) -> tuple[Classifier, Tensor, Tensor]:
    """A model in double precision, n small images and their labels."""
    generator = torch.Generator().manual_seed(seed)
    options = {"width": 5} if name == "mlp" else {}
    model = build(name, (1, 4, 4), 3, seed=seed, **options).double()
    x = torch.rand(n, 1, 4, 4, generator=generator, dtype=torch.float64)
    return model, x, torch.randint(3, (n,), generator=generator)


def sgd_step(model: Classifier, x: Tensor, y: Tensor, lr: float) -> dict[str, Tensor]:
    """The weights after a step of torch's own optimizer on a copy."""
    twin = copy.deepcopy(model)
    optimizer = torch.optim.SGD(twin.parameters(), lr=lr)
    cross_entropy(twin(x), y).backward()
    optimizer.step()
    return {name: p.detach() for name, p in twin.named_parameters()}


def compare_weights(moved: dict, expected: dict, before: dict, case: str) -> None:
    """Fail with the first parameter that is not where torch's optimizer puts it."""
    for name, right in expected.items():
        found = moved[name].detach()
        if found.shape == right.shape and torch.allclose(found, right, atol=1e-9):
            continue
        hint = ""
        if torch.allclose(found, 2 * before[name] - right, atol=1e-9):
            hint = " The step goes uphill: subtract the gradient."
        elif torch.allclose(found, before[name], atol=1e-12):
            hint = " It did not move."
        require(False, f"{name} is not where an SGD step puts it, for {case}.{hint}")


def compare_slopes(
    step: Callable,
    model: Classifier,
    moved: dict,
    weights: dict,
    images: Tensor,
    y: Tensor,
    lr: float,
    case: str,
) -> None:
    """Fail if the way back to the images or to the weights is cut, or leads to other slopes."""
    generator = torch.Generator().manual_seed(0)
    directions = {
        name: torch.randn(p.shape, generator=generator, dtype=p.dtype) for name, p in moved.items()
    }
    height = sum((moved[name] * directions[name]).sum() for name in moved)
    first = next(iter(weights))
    sources = {"images": images, f"weights {first}": weights[first]}
    for what, source in sources.items():
        slope = None
        if height.requires_grad:
            slope = torch.autograd.grad(height, source, retain_graph=True, allow_unused=True)[0]
        require(
            slope is not None,
            f"The new weights do not depend on the {what} any more, for {case}: something cuts the "
            "graph (create_graph, detach, no_grad?).",
        )
        nudge = torch.randn(source.shape, generator=generator, dtype=source.dtype)

        def at(h: float, what=what, source=source, nudge=nudge) -> float:
            there = (source.detach() + h * nudge).requires_grad_()
            x = there if what == "images" else images.detach()
            start = dict(weights) if what == "images" else {**weights, first: there}
            after = step(model, start, x, y, lr)
            return sum((after[name] * directions[name]).sum() for name in after).item()

        expected, found = (at(1e-5) - at(-1e-5)) / 2e-5, (slope * nudge).sum().item()
        require(
            abs(found - expected) <= 1e-4 * (1 + abs(expected)),
            f"The derivative for the {what} is {found:.6f}, a finite difference says "
            f"{expected:.6f}, for {case}: a part of the graph is cut.",
        )


def check_margin_loss(loss: Callable) -> None:
    """Compares with one image after the other, in plain Python. Raises CheckFailed."""
    cases = [
        ([[2.0, 1.0, 0.0]], 1, 0.2),
        ([[2.0, 1.0, 0.0]], 0, 0.2),
        ([[0.1, 0.0, -1.0]], 0, 0.2),
        ([[1.0, 1.0, 1.0]], 2, 0.0),
        ([[0.5, 3.0, 2.5, -1.0], [4.0, 0.0, 1.0, 1.5], [0.0, 0.0, 5.0, 0.0]], 2, 1.0),
    ]
    for rows, label, confidence in cases:
        logits = torch.tensor(rows)
        found = attempt(loss, logits, label, confidence)
        case = f"logits {rows}, adversarial class {label}, confidence {confidence}"
        require(torch.equal(logits, torch.tensor(rows)), f"The logits were changed: {case}.")
        require(
            isinstance(found, Tensor) and found.ndim == 0,
            f"Return one number, as a tensor without axes; for {case} you did not.",
        )
        gaps = [max(v for k, v in enumerate(row) if k != label) - row[label] for row in rows]
        expected = sum(max(0.0, gap + confidence) for gap in gaps) / len(gaps)
        if abs(found.item() - expected) < 1e-5:
            continue
        hint = ""
        raised = [gap + confidence for gap in gaps]
        if abs(found.item() - max(0.0, sum(raised) / len(raised))) < 1e-5:
            hint = " Cut each image at zero, then average."
        elif abs(found.item() - sum(raised) / len(raised)) < 1e-5:
            hint = " The loss of an image is never below zero."
        elif abs(found.item() - sum(max(0.0, gap) for gap in gaps) / len(gaps)) < 1e-5:
            hint = " The adversarial class must lead by the confidence, not just lead."
        require(False, f"For {case} the loss is {expected:.3f}, you gave {found.item():.3f}.{hint}")
    passed(loss)


def check_predicted_loss(predict: Callable) -> None:
    """Compares with the slope of the true loss after a very small step. Raises CheckFailed."""
    for name, n, label, lr in (("logistic_regression", 5, 2, 0.3), ("mlp", 7, 0, 0.05)):
        model, x, y = problem(name, n + 1, seed=10 + n)
        x, target, y = x[:n], x[n:], y[:n]
        wanted = torch.tensor([label])
        case = f"{name}, {n} images, adversarial class {label}, learning rate {lr}"

        def after(rate: float, model=model, x=x, y=y, target=target, wanted=wanted) -> float:
            twin = copy.deepcopy(model)
            weights = sgd_step(model, x, y, rate)
            twin.load_state_dict({**twin.state_dict(), **weights})
            return cross_entropy(twin(target), wanted).item()

        before = after(0.0)
        slope = (4 * after(1e-5) - after(2e-5) - 3 * before) / 2e-5
        expected = before + lr * slope
        found = float(attempt(predict, model, x, y, target, label, lr))
        if abs(found - expected) < 1e-5 * (1 + abs(expected)):
            continue
        hint = ""
        if abs(found - (2 * before - expected)) < 1e-5:
            hint = " A step goes against the training gradient: mind the sign."
        elif abs(found - (expected - before)) < 1e-5:
            hint = " That is the change: add the loss before the step."
        elif abs(found - after(lr)) < 1e-6:
            hint = " That is the loss after a true step; the expansion is a straight line in lr."
        require(False, f"For {case} the prediction is {expected:.5f}, you gave {found:.5f}.{hint}")
    passed(predict)
