"""Checks of lesson 08, hidden triggers."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from course_utils.checks import attempt, passed, require
from course_utils.models import build
from course_utils.threat import Backdoor


def check_pair_greedily(pair: Callable) -> None:
    """Compares with walking through all pairs, the nearest first. Raises CheckFailed."""
    generator = torch.Generator().manual_seed(0)
    for n_poisons, n_sources, size in ((1, 1, 2), (3, 3, 2), (4, 7, 3), (12, 12, 5), (9, 30, 2)):
        features = torch.randn(n_poisons, size, generator=generator)
        sources = torch.randn(n_sources, size, generator=generator) + 1
        case = f"{n_poisons} poisons and {n_sources} source images with {size} features"
        before = features.clone(), sources.clone()
        found = attempt(pair, features, sources)
        require(
            torch.equal(features, before[0]) and torch.equal(sources, before[1]),
            f"The features that came in were changed, for {case}: fill the distances instead.",
        )
        require(
            isinstance(found, Tensor) and found.shape == (n_poisons,),
            f"Return one number for each poison, of shape ({n_poisons},); for {case} you did not.",
        )
        require(
            not found.is_floating_point() and 0 <= int(found.min()) <= int(found.max()) < n_sources,
            f"The partners must be whole numbers from 0 to {n_sources - 1}, for {case}; "
            f"you gave {found.tolist()}.",
        )
        compare_pairs(found.tolist(), features, sources, case)
    passed(pair)


def compare_pairs(found: list[int], features: Tensor, sources: Tensor, case: str) -> None:
    """Fail if the pairs are not those of the greedy walk, and say where they go wrong."""
    expected = in_order(features, sources)
    hint = ""
    if len(set(found)) < len(found):
        hint = " A source image has two partners: strike out its column when it is taken."
    elif found == one_after_the_other(features, sources):
        hint = (
            " You let the poisons choose in their order: the two that are nearest "
            "of ALL that are left go first."
        )
    for poison, (chosen, right) in enumerate(zip(found, expected, strict=True)):
        require(
            chosen == right,
            f"For {case}, poison {poison} belongs to source image {right}, "
            f"you gave it {chosen}.{hint}",
        )


def distances(features: Tensor, sources: Tensor) -> list[list[float]]:
    """The distance of every poison to every source image, number by number."""
    return [
        [sum((a - b) ** 2 for a, b in zip(x, s, strict=True)) ** 0.5 for s in sources.tolist()]
        for x in features.tolist()
    ]


def in_order(features: Tensor, sources: Tensor) -> list[int]:
    """The greedy pairs, from a sorted list of all pairs."""
    table = distances(features, sources)
    every = sorted((d, i, j) for i, row in enumerate(table) for j, d in enumerate(row))
    partner: dict[int, int] = {}
    for _, i, j in every:
        if i not in partner and j not in partner.values():
            partner[i] = j
    return [partner[i] for i in range(len(features))]


def one_after_the_other(features: Tensor, sources: Tensor) -> list[int]:
    """What comes out if each poison in turn takes the nearest that is left."""
    left, chosen = set(range(len(sources))), []
    for row in distances(features, sources):
        best = min(left, key=row.__getitem__)
        left.remove(best)
        chosen.append(best)
    return chosen


def check_faint_trigger(faint: Callable) -> None:
    """Compares with moving pixel by pixel. Raises CheckFailed."""
    generator = torch.Generator().manual_seed(0)
    for side, epsilon in ((4, 16 / 255), (6, 0.25), (5, 1.0)):
        images = torch.rand(3, 1, side, side, generator=generator)
        trigger = corner_trigger(side, generator)
        before, patched = images.clone(), trigger(images)
        found = attempt(faint, images, trigger, epsilon)
        case = f"images of {side} by {side} pixels, epsilon {epsilon:.3f}"
        require(torch.equal(images, before), f"The images that came in were changed, for {case}.")
        require(
            isinstance(found, Tensor) and found.shape == images.shape,
            f"Return images of shape {tuple(images.shape)}; for {case} you did not.",
        )
        for place in range(images.numel()):
            was, aim, now = (float(x.flatten()[place]) for x in (before, patched, found))
            right = was + max(-epsilon, min(epsilon, aim - was))
            if abs(now - right) < 1e-5:
                continue
            hint = ""
            if abs(now - aim) < 1e-5:
                hint = " That is the trigger in full: no pixel may move by more than epsilon."
            elif abs(now - (was + epsilon * (aim - was))) < 1e-5:
                hint = " That mixes the two: a pixel may go all of epsilon, but not further."
            elif abs(now - was) > epsilon + 1e-5:
                hint = " It moves by more than epsilon."
            elif abs(aim - was) < epsilon and abs(abs(now - was) - epsilon) < 1e-5:
                hint = " The way is shorter than epsilon: stop at the patched copy."
            require(
                False,
                f"A pixel of {was:.3f} that is {aim:.3f} under the trigger must become "
                f"{right:.3f}, you gave {now:.3f}, for {case}.{hint}",
            )
    passed(faint)


def corner_trigger(side: int, generator: torch.Generator) -> Callable[[Tensor], Tensor]:
    """A trigger of 2 by 2 random grey levels in a corner."""
    patch = torch.rand(2, 2, generator=generator)

    def trigger(images: Tensor) -> Tensor:
        images = images.clone()
        images[:, :, side - 2 :, side - 2 :] = patch
        return images

    return trigger


def check_patched_gradient(gradient: Callable) -> None:
    """Compares with the mean of gradients of one image at a time. Raises CheckFailed."""
    generator = torch.Generator().manual_seed(0)
    for source, target, n_classes in ((0, 1, 2), (2, 0, 3), (1, 3, 4)):
        images = torch.rand(20, 1, 6, 6, generator=generator)
        labels = torch.arange(20) % n_classes
        goal = Backdoor(corner_trigger(6, generator), target, source)
        model = build("mlp", (1, 6, 6), n_classes, seed=source, width=8)
        case = f"20 images, source class {source}, target class {target}"
        found = attempt(gradient, model, images.clone(), labels.clone(), goal)
        parameters = tuple(model.parameters())
        require(
            isinstance(found, tuple | list)
            and [tuple(g.shape) for g in found] == [tuple(p.shape) for p in parameters],
            f"Return one tensor for each parameter of the model, of its shape; for {case} you "
            "did not.",
        )
        require(
            not any(part.requires_grad for part in found),
            f"The gradient still hangs on the model, for {case}: it is a constant from here on.",
        )
        compare_gradient(found, model, images, labels, goal, case)
    passed(gradient)


def compare_gradient(
    found: tuple, model: nn.Module, images: Tensor, labels: Tensor, goal: Backdoor, case: str
) -> None:
    """Fail if the gradient is not that of the patched source images, and say what it is."""
    source, every = labels == goal.source_class, torch.ones_like(labels, dtype=torch.bool)
    target = torch.full_like(labels, goal.target_class)
    right = slow_gradient(model, goal.trigger(images[source]), target[source])
    if close(found, right):
        return
    patched = goal.trigger(images)
    slips = (
        (slow_gradient(model, images[source], target[source]), "The trigger is missing."),
        (
            slow_gradient(model, patched[source], labels[source]),
            "The labels must be those that the attacker wants, the target class.",
        ),
        (slow_gradient(model, patched[every], target[every]), "Only the source class counts."),
        ([part * int(source.sum()) for part in right], "Take the mean of the losses, not the sum."),
        ([-part for part in right], "The sign is turned: no minus is needed."),
    )
    hint = next((f" {text}" for slip, text in slips if close(found, slip)), "")
    worst = max(float((a - b).abs().max()) for a, b in zip(found, right, strict=True))
    require(False, f"For {case} the gradient is off by up to {worst:.4f}.{hint}")


def slow_gradient(model: nn.Module, images: Tensor, labels: Tensor) -> list[Tensor]:
    """The mean over images of the gradient of minus the log-probability of the label."""
    parameters = list(model.parameters())
    total = [torch.zeros_like(p) for p in parameters]
    for image, label in zip(images, labels.tolist(), strict=True):
        loss = -torch.log(torch.softmax(model(image[None])[0], 0)[label])
        for part, one in zip(total, torch.autograd.grad(loss, parameters), strict=True):
            part += one / len(images)
    return total


def close(first, second) -> bool:
    """Whether two gradients agree up to rounding."""
    return all(torch.allclose(a, b, atol=1e-5) for a, b in zip(first, second, strict=True))
