"""Checks of lesson 18, forensics."""

from collections.abc import Callable

import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from course_utils.checks import attempt, passed, require
from course_utils.checks.answers import as_number, as_tensor
from course_utils.checks.mistakes import alike, diagnosis
from course_utils.record import recorded


@recorded
def check_auc_within(function: Callable) -> None:
    """Compares with scikit-learn's area under the ROC curve of one class. Raises CheckFailed."""
    generator, cases, found = torch.Generator().manual_seed(0), [], []
    for n, levels in ((12, 3), (60, 1000), (200, 7)):
        scores = torch.randint(levels, (n,), generator=generator).float() - levels / 2
        labels = (torch.arange(n) % 3)[torch.randperm(n, generator=generator)]
        bad = torch.rand(n, generator=generator) < 0.4
        for label in range(3):
            rows = (labels == label).nonzero()[:2, 0]
            bad[rows] = torch.tensor([True, False])  # both kinds in every class
            cases.append((scores, labels, label, bad.clone()))
    for case in cases:
        at = f"for {len(case[0])} images and label {case[2]}"
        found.append(as_number(attempt(function, *case), at))
    expected = [area(*case) for case in cases]
    if not alike(expected, found):
        hint = diagnosis(found, AUC_MISTAKES, cases)
        i = next(i for i, pair in enumerate(zip(expected, found, strict=True)) if not alike(*pair))
        require(
            False,
            f"For {len(cases[i][0])} images and label {cases[i][2]} the AUC is {expected[i]:.4f}, "
            f"you gave {found[i]:.4f}.{hint}",
        )
    passed(function)


def area(scores: Tensor, labels: Tensor, label: int, bad: Tensor) -> float:
    """The area under the ROC curve of scikit-learn among the images of a label."""
    inside = labels == label
    return float(roc_auc_score(bad[inside].numpy(), scores[inside].numpy()))


def share_above(scores: Tensor, labels: Tensor, label: int, bad: Tensor, tie: float) -> float:
    """The share of pairs in which the poison is above, with equal scores counted as `tie`."""
    inside = labels == label
    difference = scores[inside & bad][:, None] - scores[inside & ~bad][None]
    return float(((difference > 0) + tie * (difference == 0)).mean())


AUC_MISTAKES = {
    "Only suspects count: leave out images with other labels.": lambda s, y, c, b: float(
        roc_auc_score(b.numpy(), s.numpy())
    ),
    "Only suspects count: the clean images too must have the label.": lambda s, y, c, b: float(
        roc_auc_score(
            b[(y == c) | ~b].numpy(),
            s[(y == c) | ~b].numpy(),
        )
    ),
    "Only suspects count: the poisons too must have the label.": lambda s, y, c, b: float(
        roc_auc_score(
            b[(y == c) | b].numpy(),
            s[(y == c) | b].numpy(),
        )
    ),
    "Equal scores count a half, not nothing.": lambda s, y, c, b: share_above(s, y, c, b, 0.0),
    "Equal scores count a half, not one.": lambda s, y, c, b: share_above(s, y, c, b, 1.0),
    "Turned around: a poison above a clean image counts 1.": lambda s, y, c, b: (
        1 - area(s, y, c, b)
    ),
    "The mean of the signs goes from -1 to 1: map it to 0 to 1.": lambda s, y, c, b: (
        2 * area(s, y, c, b) - 1
    ),
}


@recorded
def check_linear_products(function: Callable) -> None:
    """Compares with the gradients that autograd gives, one example at a time. CheckFailed."""
    generator, cases, found, expected = torch.Generator().manual_seed(0), [], [], []
    for n, inputs, outputs, bias in ((5, 3, 4, True), (6, 7, 2, False), (4, 6, 6, True)):
        sizes = ((n, inputs), (n, outputs), (1, inputs), (1, outputs))
        tensors = [torch.randn(size, generator=generator) for size in sizes]
        cases.append((*tensors, bias))
        answer = attempt(function, *tensors, bias)
        at = f"for {n} examples, {inputs} inputs and {outputs} outputs"
        found.append(as_tensor(answer, (n,), at).numpy())
        expected.append(products_by_autograd(*tensors, bias).double().numpy())
    if any(not alike(e, f) for e, f in zip(expected, found, strict=True)):
        hint = diagnosis(found, PRODUCT_MISTAKES, cases)
        i = next(i for i in range(3) if not alike(expected[i], found[i]))
        require(
            False,
            f"With {tuple(cases[i][0].shape)} inputs and bias={cases[i][4]} the products are "
            f"{expected[i].round(3).tolist()}, you gave {found[i].round(3).tolist()}.{hint}",
        )
    passed(function)


def products_by_autograd(a: Tensor, b: Tensor, one_a: Tensor, one_b: Tensor, bias: bool) -> Tensor:
    """The products of gradients of a loss whose slope at the output is b, example by example."""
    layer = nn.Linear(a.shape[1], b.shape[1], bias=bias)

    def gradient(x: Tensor, slope: Tensor) -> Tensor:
        with torch.enable_grad():
            parts = torch.autograd.grad((layer(x) * slope).sum(), list(layer.parameters()))
        return torch.cat([part.flatten() for part in parts])

    with torch.random.fork_rng(devices=[]):
        one = gradient(one_a[0], one_b[0])
        return torch.stack([gradient(x, slope) @ one for x, slope in zip(a, b, strict=True)])


PRODUCT_MISTAKES = {
    "The bias is missing: it adds the product of the slopes.": lambda a, b, c, d, bias: (
        (a @ c.T)[:, 0] * (b @ d.T)[:, 0]
    ),
    "A layer without a bias has no part for it.": lambda a, b, c, d, bias: (
        ((a @ c.T)[:, 0] + 1) * (b @ d.T)[:, 0]
    ),
    "The bias adds the product of the slopes, not 1.": lambda a, b, c, d, bias: (
        (a @ c.T)[:, 0] * (b @ d.T)[:, 0] + bias
    ),
    "The two products are multiplied, not added.": lambda a, b, c, d, bias: (
        (a @ c.T)[:, 0] + (b @ d.T)[:, 0]
    ),
    "This is the product of the inputs alone: the slopes are missing.": lambda a, b, c, d, bias: (
        a @ c.T
    )[:, 0],
    "This is the product of the slopes alone: the inputs are missing.": lambda a, b, c, d, bias: (
        b @ d.T
    )[:, 0],
    "These are squared lengths: multiply with the other example.": lambda a, b, c, d, bias: (
        (a.square().sum(1) + bias) * b.square().sum(1)
    ),
    "This is the cosine: do not divide by the lengths.": lambda a, b, c, d, bias: (
        ((a @ c.T)[:, 0] + bias)
        * (b @ d.T)[:, 0]
        / ((a.square().sum(1) + bias) * b.square().sum(1)).sqrt()
        / ((c.square().sum(1) + bias) * d.square().sum(1)).sqrt()
    ),
}


@recorded
def check_leave_one_out(function: Callable) -> None:
    """Compares with fitting the regression again without each row. Raises CheckFailed."""
    generator, cases, found, expected = torch.Generator().manual_seed(0), [], [], []
    for n, size, n_classes, strength in ((6, 3, 2, 0.5), (12, 4, 3, 2.0), (9, 9, 1, 0.1)):
        sizes = ((n, size), (n, n_classes), (size,))
        tensors = [torch.randn(s, generator=generator, dtype=torch.float64) for s in sizes]
        cases.append((*tensors, strength))
        answer = attempt(function, *tensors, strength)
        at = f"for {n} rows of {size} features and {n_classes} classes"
        found.append(as_tensor(answer, (n, n_classes), at).numpy())
        expected.append(by_fitting_again(*tensors, strength).numpy())
    if any(not alike(e, f) for e, f in zip(expected, found, strict=True)):
        hint = diagnosis(found, RIDGE_MISTAKES, cases)
        i = next(i for i in range(3) if not alike(expected[i], found[i]))
        require(
            False,
            f"With {len(cases[i][0])} rows and strength {cases[i][3]}, leaving out row 0 changes "
            f"the answer by {expected[i][0].round(4).tolist()}, you gave "
            f"{found[i][0].round(4).tolist()}.{hint}",
        )
    passed(function)


def fit_ridge(features: Tensor, targets: Tensor, strength: float) -> Tensor:
    """The weights (features, classes), by least squares on rows that stand for the penalty."""
    penalty = strength**0.5 * torch.eye(features.shape[1], dtype=features.dtype)
    rows = torch.cat([features, penalty])
    wanted = torch.cat([targets, targets.new_zeros(len(penalty), targets.shape[1])])
    return torch.linalg.lstsq(rows, wanted).solution


def by_fitting_again(features: Tensor, targets: Tensor, query: Tensor, strength: float) -> Tensor:
    """The change of the answer when each row is left out, by as many fits."""
    before, changes = query @ fit_ridge(features, targets, strength), []
    for row in range(len(features)):
        others = torch.arange(len(features)) != row
        changes.append(query @ fit_ridge(features[others], targets[others], strength) - before)
    return torch.stack(changes)


def parts(features: Tensor, targets: Tensor, query: Tensor, strength: float) -> tuple:
    """The query's products, the errors and the leverages, by the inverse matrix."""
    inverse = torch.linalg.inv(
        features.T @ features + strength * torch.eye(features.shape[1], dtype=features.dtype)
    )
    errors = targets - features @ inverse @ features.T @ targets
    leverage = (features @ inverse @ features.T).diagonal()
    return features @ inverse @ query, errors, leverage


def wrong_change(combine: Callable) -> Callable:
    """A mistake in how products q, errors e and leverages h are put together."""
    return lambda *case: combine(*parts(*case)).numpy()


RIDGE_MISTAKES = {
    "Divide by one minus the leverage: this is the influence function.": wrong_change(
        lambda q, e, h: -q[:, None] * e
    ),
    "The sign: what is new minus what was.": wrong_change(
        lambda q, e, h: (q / (1 - h))[:, None] * e
    ),
    "Both: the sign, and one minus the leverage is missing.": wrong_change(
        lambda q, e, h: q[:, None] * e
    ),
    "Divide by one MINUS the leverage.": wrong_change(lambda q, e, h: -(q / (1 + h))[:, None] * e),
    "Divide by one minus the leverage, do not multiply.": wrong_change(
        lambda q, e, h: -(q * (1 - h))[:, None] * e
    ),
    "The error, not the leverage, comes with its sign: targets minus predictions.": wrong_change(
        lambda q, e, h: -(q / (1 - h))[:, None] * e.abs()
    ),
    "Lambda is missing from the matrix.": lambda f, t, q, s: wrong_change(
        lambda u, e, h: -(u / (1 - h))[:, None] * e
    )(f, t, q, 0.0),
    "The error is the target minus the prediction, not the target.": lambda f, t, q, s: (
        wrong_change(lambda u, e, h: -(u / (1 - h))[:, None] * t)(f, t, q, s)
    ),
}
