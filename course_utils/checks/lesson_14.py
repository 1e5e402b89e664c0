"""Checks of lesson 14, adversarial poisoning."""

from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor, nn

from course_utils.attacks.crafting import random_start
from course_utils.checks import attempt, passed, require
from course_utils.defenses.adversarial_poisoning import Split

SPLITS = (
    ([3, 1, 1, 2], 0.5),
    ([0, 4, 4, 1, 4, 0, 0, 2], 0.75),
    ([5, 2, 2, 5, 0, 1], 0.67),
    ([7, 8], 0.1),
    ([7, 8, 8, 8], 0.99),
)


def check_split_batch(split: Callable) -> None:
    """Compares with counting one label after another. Raises CheckFailed."""
    for numbers, share in SPLITS:
        labels = torch.tensor(numbers)
        images = torch.arange(len(numbers)).float().view(-1, 1, 1, 1) / 10
        case = f"labels {numbers} and share {share}"
        found = attempt(split, images, labels, share)
        require(
            isinstance(found, tuple) and len(found) == 5,
            f"Return a Split of five tensors; for {case} you did not.",
        )
        parts = Split(*found)
        count = min(max(round(share * len(numbers)), 1), len(numbers) - 1)
        compare_sizes(parts, count, len(numbers), case)
        compare_parts(parts, images, labels, count, case)
        compare_fake(parts.fake_labels, numbers, count, case)
    passed(split)


def compare_sizes(parts: Split, count: int, n: int, case: str) -> None:
    """Fail unless there are as many poisons and targets as the share says, at least one each."""
    got = len(parts.poisons), len(parts.targets)
    if got == (count, n - count):
        return
    hint = ""
    if 0 in got:
        hint = " There must be at least one of each, whatever the share."
    elif got == (n - count, count):
        hint = " The share is that of the poisons, not of the targets."
    require(
        False,
        f"Of {n} images there should be {count} poisons and {n - count} targets for {case}; you "
        f"gave {got[0]} and {got[1]}.{hint}",
    )


def compare_parts(parts: Split, images: Tensor, labels: Tensor, count: int, case: str) -> None:
    """Fail unless images and labels are cut at the same place, in their order."""
    for name, found, whole, rows in (
        ("poisons", parts.poisons, images, slice(count)),
        ("poison_labels", parts.poison_labels, labels, slice(count)),
        ("targets", parts.targets, images, slice(count, None)),
        ("target_labels", parts.target_labels, labels, slice(count, None)),
    ):
        require(
            torch.equal(found, whole[rows]),
            f"For {case}, {name} should be {whole[rows].flatten().tolist()}, you gave "
            f"{found.flatten().tolist()}: the poisons come first, the targets keep their own "
            "true labels.",
        )


def compare_fake(fake: Tensor, numbers: list[int], count: int, case: str) -> None:
    """Fail unless every target has the most frequent label of the poisons."""
    often = Counter(numbers[:count]).most_common()
    expected = min(label for label, times in often if times == often[0][1])
    require(
        fake.shape == (len(numbers) - count,),
        f"fake_labels needs one label for each of {len(numbers) - count} targets, got shape "
        f"{tuple(fake.shape)} for {case}.",
    )
    wrong = [label for label in fake.tolist() if label != expected]
    if not wrong:
        return
    rest = Counter(numbers[count:]).most_common()
    hint = " Count the labels of the poisons only."
    if wrong[0] == often[0][0] or wrong[0] not in dict(rest):
        hint = " Of several that are equally frequent, take the smallest."
    require(
        False,
        f"The poisons' labels are {numbers[:count]}: the fake label of every target is {expected}, "
        f"you gave {fake.tolist()} for {case}.{hint}",
    )


def check_craft_in_batch(craft: Callable) -> None:
    """Compares with linear objectives, whose signed steps are known. Raises CheckFailed."""
    for n, epsilon, steps, seed in ((1, 0.1, 1, 0), (5, 0.2, 2, 1), (3, 0.05, 5, 2)):
        start = torch.Generator().manual_seed(seed)
        base = torch.rand(n, 1, 3, 3, generator=start).round(decimals=1)
        slopes = torch.randn(base.shape, generator=start)
        case, before = f"{n} images, epsilon {epsilon} and {steps} steps", base.clone()
        asked = []

        def objective(images: Tensor, slopes: Tensor = slopes, asked: list = asked) -> Tensor:
            asked.append(images)
            return (slopes * images).sum()

        found, again, other = (
            attempt(craft, objective, base, epsilon, steps, torch.Generator().manual_seed(s))
            for s in (7, 7, 8)
        )
        require(torch.equal(base, before), f"The images that came in were changed ({case}).")
        require(
            isinstance(found, Tensor) and found.shape == base.shape,
            f"Return images of shape {tuple(base.shape)}; for {case} you did not.",
        )
        require(not found.requires_grad, "Return the images without a graph: `.detach()` them.")
        require(
            torch.equal(found, again),
            "The same generator must give the same images: draw from it, not from the "
            "global state.",
        )
        compare_steps(found, base, slopes, epsilon, steps, case)
        require(
            steps > 2 or not torch.equal(found, other),
            f"Another generator must give another start; for {case} it gave the same images.",
        )
        require(
            len(asked) == 3 * steps,
            f"{steps} steps ask for the objective {steps} times, you asked {len(asked) / 3:g} "
            f"times ({case}).",
        )
    passed(craft)


def compare_steps(
    found: Tensor, base: Tensor, slopes: Tensor, epsilon: float, steps: int, case: str
) -> None:
    """Fail unless every pixel went 0.4 epsilon against its slope in each step, inside the bound."""
    require(
        found.min() >= 0 and found.max() <= 1,
        f"Pixels from {found.min():.3f} to {found.max():.3f} ({case}): outside [0, 1].",
    )
    size = (found - base).abs().max().item()
    require(
        size <= epsilon + 1e-6,
        f"A pixel changed by {size:.3f}, but epsilon is {epsilon} ({case}): project after each "
        "step, onto the bound around the base images.",
    )
    start = random_start(base, epsilon, torch.Generator().manual_seed(7))
    low, high = (base - epsilon).clamp(min=0), (base + epsilon).clamp(max=1)

    def walked(images: Tensor, count: int, sign: int = 1) -> Tensor:
        for _ in range(count):
            images = (images - sign * 0.4 * epsilon * slopes.sign()).clamp(low, high)
        return images

    expected = walked(start, steps)
    if torch.allclose(found, expected, atol=1e-5):
        return
    hint = " Each step moves every pixel by 0.4 epsilon, against the sign of its gradient."
    if torch.allclose(found, walked(start, steps, -1), atol=1e-5):
        hint = " You raise the objective: lower it."
    elif torch.allclose(found, start, atol=1e-5):
        hint = " That is the random start: no step was made."
    elif torch.allclose(found, walked(base, steps), atol=1e-5):
        hint = " You start from the base images: begin at `random_start`."
    elif torch.allclose(found, walked(start, steps + 1), atol=1e-5):
        hint = " That is one step too many."
    place = int((found - expected).abs().argmax())
    require(
        False,
        f"Pixel {place} should end at {expected.flatten()[place]:.4f}, yours is at "
        f"{found.flatten()[place]:.4f} ({case}).{hint}",
    )


class Watched(nn.Module):
    """A model that holds BatchNorm in training mode and a frozen layer in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.frozen = nn.BatchNorm2d(1), nn.Dropout()
        self.train()
        self.frozen.eval()

    def modes(self) -> list[bool]:
        """The mode of each layer, in order."""
        return [layer.training for layer in self.modules()]


def first_three(images: Tensor, labels: Tensor, generator: torch.Generator) -> Split:
    """A split rule: the first three images are poisons; all targets are to become a 9."""
    fake = torch.full_like(labels[3:], 9)
    return Split(images[:3], labels[:3], images[3:], labels[3:], fake)


def check_poisoned_batch(make: Callable) -> None:
    """Watches what the inner attack gets, and what comes out of it. Raises CheckFailed."""
    images = torch.arange(7).float().view(-1, 1, 1, 1) / 10
    labels = torch.tensor([4, 0, 2, 5, 1, 0, 3])
    model, generator, seen = Watched(), torch.Generator().manual_seed(0), []

    def simulate(model: nn.Module, parts: Split, given: torch.Generator) -> tuple[Tensor, Tensor]:
        require(given is generator, "Pass on the generator that came in: trials depend on it.")
        seen.append((model.training or model.norm.training, parts))
        return 1 - parts.poisons, parts.targets + 0.01

    before = model.modes()
    found, got = attempt(make, model, images, labels, simulate, first_three, generator)
    require(len(seen) == 1, f"The attack is simulated once a batch, yours {len(seen)} times.")
    in_training, parts = seen[0]
    require(
        not in_training,
        "During the simulated attack the model must be in evaluation mode: BatchNorm was not.",
    )
    require(
        torch.equal(parts.fake_labels, torch.full((4,), 9)),
        "Give the simulation what the split rule gave.",
    )
    compare_modes(model.modes(), before, "after the simulation")
    compare_batch(found, got, images, labels)
    check_without_targets(make, model, images, labels, simulate, generator)
    check_errors(make, model, images, labels, generator)
    passed(make)


def compare_modes(after: list[bool], before: list[bool], when: str) -> None:
    """Fail unless every layer is in the mode in which it came."""
    require(
        after == before,
        f"Every layer must get its own mode back {when}: [model, BatchNorm, frozen layer] came "
        f"with training = {before} and left with {after}. Use `with evaluating(model):`.",
    )


def compare_batch(found: Tensor, got: Tensor, images: Tensor, labels: Tensor) -> None:
    """Fail unless poisons and targets of the simulation stand there with their true labels."""
    expected = torch.cat([1 - images[:3], images[3:] + 0.01])
    require(
        found.shape == expected.shape,
        f"The batch of 7 images should come back as {len(expected)} images, you gave {len(found)}: "
        "poisons and targets.",
    )
    if not torch.allclose(found, expected):
        hint = " Poisons come first, then targets."
        if torch.allclose(found[:3], images[:3]):
            hint = " You train on the poisons as they were before the attack."
        elif torch.allclose(found[3:], images[3:]):
            hint = " The simulation may change the targets too: use those that it returns."
        require(False, f"The images of the batch are not those of the simulation.{hint}")
    hint = " The fake label is for the simulation only." if (got == 9).any() else ""
    require(
        got.shape == labels.shape and torch.equal(got, labels),
        f"The batch needs its true labels {labels.tolist()}, you gave {got.tolist()}.{hint}",
    )


def check_without_targets(
    make: Callable, model: nn.Module, images: Tensor, labels: Tensor, simulate: Callable,
    generator: torch.Generator,
) -> None:  # fmt: skip
    """Fail unless recombine=False leaves the poisons alone in the batch."""
    found, got = attempt(
        make, model, images, labels, simulate, first_three, generator, recombine=False
    )
    require(
        len(found) == 3 and torch.allclose(found, 1 - images[:3]) and torch.equal(got, labels[:3]),
        f"With recombine=False only the 3 poisons come back, with their labels; you gave "
        f"{len(found)} images.",
    )


def check_errors(
    make: Callable, model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator
) -> None:
    """Fail unless an error in the simulation gets out, and leaves the modes as they were."""
    before, stopped = model.modes(), False

    def fail(model: nn.Module, parts: Split, generator: torch.Generator) -> None:
        raise KeyError("on purpose")

    try:
        make(model, images, labels, fail, first_three, generator)
    except KeyError:
        stopped = True
    require(stopped, "An error in the simulated attack must not be swallowed.")
    compare_modes(model.modes(), before, "also after an error in the simulation")
