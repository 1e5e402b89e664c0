"""Checks of lesson 13, adversarial training."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from course_utils.checks import attempt, passed, require
from course_utils.checks.answers import as_array, as_tensor, instead, side_by_side
from course_utils.checks.mistakes import diagnosis
from course_utils.record import recorded


class Linear(nn.Module):
    """A linear model of two classes that notes what it is shown. Of its two layers one is frozen:
    in evaluation mode, while the model is in training mode.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.head, self.frozen = nn.Linear(9, 2), nn.Dropout(0.5)
        draw = torch.Generator().manual_seed(seed)
        for p in self.parameters():
            p.data = 0.3 * torch.randn(p.shape, generator=draw)
        self.frozen.eval()
        self.seen: list[Tensor] = []
        self.in_training = True

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, 2) of images (N, 1, 3, 3)."""
        self.seen.append(images.detach().clone())
        self.in_training = self.training
        return self.head(images.flatten(1))


@recorded
def check_adversarial_loss(loss_function: Callable) -> None:
    """Compares with two-class linear models, whose worst images are known. Raises CheckFailed."""
    for n, epsilon, seed in ((6, 0.1, 1), (1, 0.05, 0), (9, 0.02, 2)):
        generator = torch.Generator().manual_seed(seed)
        model = Linear(seed)
        images = (1.6 * torch.rand(n, 1, 3, 3, generator=generator) - 0.3).clamp(0, 1)
        labels = torch.randint(2, (n,), generator=generator)
        case = f"{n} images and epsilon {epsilon}"
        found = attempt(loss_function, model, images, labels, epsilon, 5, generator)
        single = isinstance(found, Tensor) and found.numel() == 1
        require(single, f"Return one number as a tensor{instead(found)}; for {case}.")
        require(bool(model.seen), f"The model was never asked; for {case}.")
        compare_images(model.seen, images, epsilon, case)
        compare_loss(found.item(), model, images, labels, epsilon, case)
        check_weights(found, model, images, labels, epsilon, case)
    require(model.in_training, "The loss must be computed in the mode in which the model came.")
    check_arguments(loss_function)
    passed(loss_function)


def compare_images(seen: list[Tensor], images: Tensor, epsilon: float, case: str) -> None:
    """Fail unless the model was shown images inside the box and the bound, and not only clean."""
    for shown in seen:
        low, high = shown.min().item(), shown.max().item()
        far = (shown - images).abs().max().item()
        require(
            low >= 0 and high <= 1,
            f"The model was shown pixels from {low:.3f} to {high:.3f} ({case}): outside [0, 1].",
        )
        require(
            far <= epsilon + 1e-6,
            f"The model was shown pixels that changed by {far:.3f}, but epsilon is {epsilon}.",
        )
    far = max((shown - images).abs().max().item() for shown in seen)
    require(
        not 0 < far < 0.7 * epsilon,
        f"No pixel changed by more than {far:.3f}, but epsilon is {epsilon}.",
    )


def margins(model: Linear, images: Tensor, labels: Tensor, epsilon: float) -> Tensor:
    """How far each image's true logit leads after the worst change of every pixel (N,).

    A linear model falls fastest where each pixel moves against its weight, to the edge of the bound
    or of the box. A negative epsilon gives the best change.
    """
    weight, bias = (p[1] - p[0] for p in (model.head.weight, model.head.bias))
    side = 2.0 * labels - 1
    moved = images.flatten(1) - epsilon * side[:, None] * weight.sign()
    return side * (moved.clamp(0, 1) @ weight + bias)


def compare_loss(
    found: float, model: Linear, images: Tensor, labels: Tensor, epsilon: float, case: str
) -> None:
    """Fail unless it is the mean loss of the worst images; name the usual mistakes."""
    ahead = [margins(model, images, labels, e).detach() for e in (epsilon, 0, -epsilon)]
    worst, clean, best = (softplus(-margin) for margin in ahead)
    expected = worst.mean().item()
    if abs(found - expected) < 1e-5:
        return
    mistakes: dict[str, Callable] = {
        "That is the loss of the images as they came: train on the changed ones.": clean.mean,
        "Your images are the easiest within the bound: the inner step must RAISE the loss.": (
            best.mean
        ),
        "Take the mean over the batch, not the sum.": worst.sum,
        "That is the loss for the other class: use the true labels.": softplus(ahead[0]).mean,
        "That is the loss for the predicted class: use the true labels.": (
            softplus(-ahead[0].abs()).mean
        ),
        "Half of that are the clean images: take the loss on the changed ones only.": (
            lambda: (worst.mean() + clean.mean()) / 2
        ),
    }
    hint = diagnosis([found], mistakes, [()])
    if not hint and found < expected:
        hint = " There are worse images within the bound."
    wanted, yours = side_by_side(expected, found)
    require(False, f"The loss of the worst {case} is {wanted}, you gave {yours}.{hint}")


def check_weights(
    found: Tensor, model: Linear, images: Tensor, labels: Tensor, epsilon: float, case: str
) -> None:
    """Fail unless the loss can be lowered by moving the weights, and in the right direction."""
    require(
        found.requires_grad,
        "The loss cannot be differentiated for the weights: compute it outside of "
        "torch.no_grad(), and do not detach it.",
    )
    (slope,) = torch.autograd.grad(found, model.head.weight)
    exact = softplus(-margins(model, images, labels, epsilon)).mean()
    (expected,) = torch.autograd.grad(exact, model.head.weight)
    gap = (slope - expected).abs().max().item()
    require(gap < 1e-4, f"For {case} the gradient for the weights is off by {gap:.2e}.")


def check_arguments(loss_function: Callable) -> None:
    """Fail unless there is a random start from the generator, and as many steps as asked for."""
    images, labels = torch.full((4, 1, 3, 3), 0.5), torch.tensor([0, 1, 1, 0])
    shown = {}
    for steps, seed in ((2, 5), (2, 6), (6, 5)):
        model, generator = Linear(3), torch.Generator().manual_seed(seed)
        attempt(loss_function, model, images, labels, 0.1, steps, generator)
        shown[steps, seed] = model.seen
    moved = [part for part in shown[2, 5] if not torch.equal(part, images)]
    steps_of_2, steps_of_6 = len(shown[2, 5]), len(shown[6, 5])
    require(
        steps_of_6 - steps_of_2 == 4,
        f"With `steps` = 2 the model is asked {steps_of_2} times, with `steps` = 6 {steps_of_6} "
        "times: each step asks it once more.",
    )
    sizes = (moved[0] - images).abs()
    require(
        not torch.allclose(sizes, sizes.mean(), atol=1e-6),
        "PGD begins at a random start, not at the images as they came.",
    )
    require(
        not torch.equal(moved[0], next(p for p in shown[2, 6] if not torch.equal(p, images))),
        "Another `generator` must give another random start: pass on the one that came in.",
    )


@recorded
def check_random_signs(add: Callable) -> None:
    """Looks at every pixel, and at how the signs are spread. Raises CheckFailed."""
    for shape, epsilon, seed in (((4, 1, 3, 3), 0.1, 0), ((2, 3, 8, 8), 0.4, 1)):
        base = torch.rand(shape, generator=torch.Generator().manual_seed(seed)).round(decimals=1)
        first, again, other = (signed(add, base, epsilon, seed=s) for s in (5, 5, 6))
        alone = (first.abs() - epsilon).abs().max() < 1e-6
        require(not alone, "That is the noise: add the signs to the images.")
        for got, value, place in pixels(first, base):
            compare_pixel(value, got, epsilon, place)
        require(
            torch.equal(first, again) and not torch.equal(first, other),
            "The same generator must give the same signs, and another seed others: draw from "
            "`generator`, not from the global random state.",
        )
    check_spread(add)
    passed(add)


def signed(
    add: Callable,
    images: Tensor,
    epsilon: float,
    seed: int = 0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Ask for the images with sign noise."""
    generator = generator or torch.Generator().manual_seed(seed)
    case = f"for images of shape {tuple(images.shape)} and epsilon {epsilon}"
    return as_tensor(attempt(add, images, epsilon, generator), images.shape, case, "images")


def pixels(found: Tensor, base: Tensor) -> Iterator[tuple[float, float, tuple[int, ...]]]:
    """Each pixel as it is, as it was, and where."""
    places = map(tuple, np.argwhere(np.ones(base.shape)).tolist())
    yield from zip(found.flatten().tolist(), base.flatten().tolist(), places, strict=True)


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
    """Fail unless each pixel has a sign of its own, up or down with equal chance."""
    generator = torch.Generator().manual_seed(0)
    grey = torch.full((6, 3, 8, 10), 0.5)
    signs, later = (
        10 * (signed(add, grey, 0.1, generator=generator) - 0.5).numpy() for _ in range(2)
    )
    share = (signs > 0).mean()
    half = f"Half of the signs should be +1; of {signs.size} pixels, {share:.0%} of yours are."
    require(0 < share < 1, half)
    shared = {
        name: shared_signs(np.moveaxis(signs, axis, 0))
        for axis, name in enumerate(("images", "channels", "rows", "columns"))
    }
    most = max(shared, key=shared.get)
    require(
        shared[most] < 0.5,  # of 144 signs or more: six deviations away from chance
        f"Two {most} share their signs, or have opposite ones: draw one sign for each pixel of "
        "each channel of each image, with the shape `images.shape`.",
    )
    require(0.4 < share < 0.6, half)
    require(
        abs((signs * later).mean()) < 0.5,
        "A second batch got the signs of the first: draw from `generator` from where it stands.",
    )
    for value, color, sign in ((0.0, "black", "-1"), (1.0, "white", "+1")):
        edge = torch.full((1, 1, 30, 30), value)
        stay = (signed(add, edge, 0.1) == value).double().mean().item()
        require(
            0.4 < stay < 0.6,
            f"Of 900 {color} pixels {stay:.0%} kept their value, about half should: a {color} "
            f"pixel with the sign {sign} stays where it is.",
        )


def shared_signs(parts: np.ndarray) -> float:
    """How much two of these parts agree or disagree at most: near 0 by chance, 1 for copies."""
    rows = parts.reshape(len(parts), -1)
    return np.abs(rows @ rows.T / rows.shape[1] - np.eye(len(rows))).max()


@recorded
def check_undominated(choose: Callable) -> None:
    """Compares with looking at every pair. Raises CheckFailed."""
    rng = np.random.default_rng(0)
    cases = [tuple(rng.integers(0, 5, (2, n)) / 4) for n in (5, 1, 2, 9, 9, 9)]
    cases.append((np.array([0.8, 0.8, 0.7]), np.array([0.5, 0.5, 0.5])))  # two equal points
    found = []
    for accuracy, success in cases:
        n = len(accuracy)
        answer = attempt(choose, accuracy, success)
        kept = as_array(answer, (n,), "for as many defenses", "one True or False for each of them,")
        booleans = np.asarray(answer).dtype.kind == "b"
        require(booleans, f"Return one True or False for each of {n} defenses.")
        found.append(kept)
    for case, kept in zip(cases, found, strict=True):
        compare_kept(kept, *case, diagnosis(found, KEPT, cases))
    passed(choose)


def compare_kept(kept: np.ndarray, accuracy: np.ndarray, success: np.ndarray, hint: str) -> None:
    """Fail with the first defense that is dominated and kept, or not dominated and dropped."""
    points = [f"({a:.2f}, {s:.2f})" for a, s in zip(accuracy, success, strict=True)]
    for i, point in enumerate(points):
        better = rival(accuracy, success, i)
        if kept[i] == (better is None):
            continue
        if better is None:
            reason = "no other is at least as good in both and better in one"
        else:
            reason = f"{points[better]} is at least as good in both and better in one"
        verdict = "undominated" if better is None else "dominated"
        require(
            False,
            f"Of (accuracy, success) = {', '.join(points)}: {point} is {verdict}, since {reason}. "
            f"You say otherwise.{hint}",
        )


def rival(accuracy: np.ndarray, success: np.ndarray, i: int) -> int | None:
    """A point that dominates point i, or None."""
    for j in range(len(accuracy)):
        as_good = accuracy[j] >= accuracy[i] and success[j] <= success[i]
        if as_good and (accuracy[j] > accuracy[i] or success[j] < success[i]):
            return j
    return None


def kept_by(beats: Callable[[tuple, tuple], bool]) -> Callable:
    """Which points no other point beats, in the sense of `beats(other, point)`."""

    def choose(accuracy: np.ndarray, success: np.ndarray) -> list[bool]:
        points = list(zip(accuracy, success, strict=True))
        return [
            not any(beats(other, point) for j, other in enumerate(points) if j != i)
            for i, point in enumerate(points)
        ]

    return choose


KEPT: dict[str, Callable] = {
    "High accuracy is good, high success is bad: the comparisons point in opposite directions.": (
        kept_by(lambda a, b: a[0] >= b[0] and a[1] >= b[1] and a != b)
    ),
    "Either both comparisons are turned (high accuracy is good, high success is bad), or the axis "
    "is: the rival is in the row, so take any(0).": kept_by(
        lambda a, b: a[0] <= b[0] and a[1] >= b[1] and a != b
    ),
    "That is the other way round: True is for those that are not dominated.": lambda a, s: [
        rival(a, s, i) is not None for i in range(len(a))
    ],
    "The success counts too: a defense of lower accuracy may stop more.": lambda a, s: a == a.max(),
    "The accuracy counts too: a defense that stops less may be more accurate.": lambda a, s: (
        s == s.min()
    ),
    "You ask for better in both: at least as good in both and better in one is enough.": kept_by(
        lambda a, b: a[0] > b[0] and a[1] < b[1]
    ),
    "Success may be the one that is better: better in one is enough, in either.": kept_by(
        lambda a, b: a[0] > b[0] and a[1] <= b[1]
    ),
    "Accuracy may be the one that is better: better in one is enough, in either.": kept_by(
        lambda a, b: a[0] >= b[0] and a[1] < b[1]
    ),
    "Equal defenses do not dominate each other.": kept_by(
        lambda a, b: a[0] >= b[0] and a[1] <= b[1]
    ),
    "Better in one is not enough: a rival must be at least as good in both.": kept_by(
        lambda a, b: a[0] > b[0] or a[1] < b[1]
    ),
}
