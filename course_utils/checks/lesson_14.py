"""Checks of lesson 14, adversarial poisoning."""

from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor, nn

from course_utils.attacks.crafting import random_start
from course_utils.checks import attempt, passed, require
from course_utils.checks.answers import as_tensor, instead, side_by_side
from course_utils.checks.mistakes import about, alike, diagnosis
from course_utils.defenses.adversarial_poisoning import Split
from course_utils.record import recorded

SPLITS = (
    ([3, 1, 1, 2], 0.5),
    ([0, 4, 4, 1, 4, 0, 0, 2], 0.75),
    ([5, 2, 2, 5, 0, 1], 0.67),
    ([6, 1, 2, 1, 2, 1, 1], 0.8),
    ([7, 8], 0.1),
    ([5, 3, 3, 4], 0.1),
    ([7, 8, 8, 8], 0.99),
)
BOTH = "There must be at least one of each, whatever the share."


@recorded
def check_split_batch(split: Callable) -> None:
    """Compares with counting one label after another. Raises CheckFailed."""
    fakes, cases = [], []
    for numbers, share in SPLITS:
        labels = torch.tensor(numbers)
        images = torch.arange(len(numbers)).float().view(-1, 1, 1, 1) / 10
        case = f"for labels {numbers} and share {share}"
        with about(BOTH if share in (0.1, 0.99) else ""):
            found = attempt(split, images, labels, share)
        named = getattr(found, "_fields", None) == Split._fields
        named = named and all(isinstance(part, Tensor) for part in found)
        require(named, f"Return a Split of five tensors{instead(found)}; {case}.")
        parts = Split(*found)
        count = min(max(round(share * len(numbers)), 1), len(numbers) - 1)
        compare_sizes(parts, count, len(numbers), share, case)
        compare_parts(parts, images, labels, count, case)
        rows = len(numbers) - count
        fakes.append(
            as_tensor(parts.fake_labels, (rows,), case, "one label for each target, fake_labels")
        )
        whole = not parts.fake_labels.is_floating_point()
        require(whole, f"Labels are whole numbers, yours are {parts.fake_labels.dtype}; {case}.")
        cases.append((numbers, count))
    for case, fake in zip(cases, fakes, strict=True):
        numbers, count = case
        often = Counter(numbers[:count]).most_common()
        expected = min(label for label, times in often if times == often[0][1])
        if (fake != expected).any():
            require(
                False,
                f"The poisons' labels are {numbers[:count]}: the fake label of every target is "
                f"{expected}, you gave {fake.long().tolist()}.{diagnosis(fakes, FAKES, cases)}",
            )
    passed(split)


def compare_sizes(parts: Split, count: int, n: int, share: float, case: str) -> None:
    """Fail unless there are as many poisons and targets as the share says, at least one each."""
    got = len(parts.poisons), len(parts.targets)
    if got == (count, n - count):
        return
    hint = ""
    if 0 in got:
        hint = f" {BOTH}"
    elif got == (n - count, count):
        hint = " The share is that of the poisons, not of the targets."
    elif got[0] == int(share * n):
        hint = " Round to the nearest whole number: int() cuts off."
    elif got[0] == n // 2:
        hint = " That is half of the batch, whatever `share` says."
    require(
        False,
        f"Of {n} images there should be {count} poisons and {n - count} targets {case}; you "
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
            f"F{case[1:]}, {name} should be {rounded(whole[rows])}, you gave {rounded(found)}: "
            "the poisons come first, the targets keep their own true labels.",
        )


def rounded(values: Tensor) -> list[float]:
    """The values for a message."""
    return [round(value, 3) for value in values.flatten().tolist()]


def fake_by(choose: Callable[[list[int], int], int]) -> Callable:
    """The fake labels if `choose(labels, count)` says which."""
    return lambda labels, count: [choose(labels, count)] * (len(labels) - count)


def often(labels: list[int], last: bool = False) -> int:
    """The most frequent label; of several, the smallest, or the largest."""
    times = Counter(labels)
    best = [label for label in times if times[label] == max(times.values())]
    return max(best) if last else min(best)


FAKES: dict[str, Callable] = {
    "Count the labels of the poisons only, not of the whole batch.": fake_by(
        lambda labels, count: often(labels)
    ),
    "Count the labels of the poisons only, not of the targets.": fake_by(
        lambda labels, count: often(labels[count:])
    ),
    "Of several that are equally frequent, take the smallest, not the largest.": fake_by(
        lambda labels, count: often(labels[:count], last=True)
    ),
    "Of several that are equally frequent, take the smallest, not the first.": fake_by(
        lambda labels, count: Counter(labels[:count]).most_common(1)[0][0]
    ),
    "Take the most frequent label, not that of the first poison.": fake_by(
        lambda labels, count: labels[0]
    ),
    "Take the most frequent label, not the largest.": fake_by(
        lambda labels, count: max(labels[:count])
    ),
    "Take the most frequent label, not the smallest.": fake_by(
        lambda labels, count: min(labels[:count])
    ),
    "Take the most frequent label, not always class 0.": fake_by(lambda labels, count: 0),
    "Return the most frequent label, not how often it is there.": fake_by(
        lambda labels, count: max(Counter(labels[:count]).values())
    ),
}


@recorded
def check_craft_in_batch(craft: Callable) -> None:
    """Compares with Adam written out, on parabolas whose slopes change their sign. Raises
    CheckFailed.
    """
    for n, epsilon, steps, size, seed in (
        (5, 0.2, 3, None, 1),
        (1, 0.1, 1, None, 0),
        (3, 0.05, 8, None, 2),
        (4, 0.1, 4, 0.15, 3),
    ):
        draw = torch.Generator().manual_seed(seed)
        base = torch.rand(n, 1, 3, 3, generator=draw).round(decimals=1)
        centre = base + 2.4 * epsilon * (torch.rand(base.shape, generator=draw) - 0.5)
        weight, asked = nn.Parameter(0.1 + torch.rand(base.shape, generator=draw)), []

        def objective(images: Tensor, centre=centre, weight=weight, asked=asked) -> Tensor:
            asked.append(images)
            return (weight * (images - centre).square()).sum()

        options = {} if size is None else {"step_size": size}
        case = f"for {n} images, epsilon {epsilon} and {steps} steps"
        answers = [
            attempt(craft, objective, base, epsilon, steps, seeded(s), **options) for s in (7, 7, 8)
        ]
        found, again, other = (as_tensor(a, base.shape, case, "images") for a in answers)
        require(
            not answers[0].requires_grad, "Return the images without a graph: `.detach()` them."
        )
        require(
            weight.grad is None,
            "There are gradients on the weights: ask torch.autograd.grad for those of the images.",
        )
        require(torch.equal(found, again), "The same generator must give the same images.")
        slopes = Parabola(weight.detach().double(), centre.double())
        compare_steps(found, base.double(), slopes, epsilon, steps, size or 0.4, case)
        require(
            not torch.equal(found, other),
            f"Another generator must give another start; {case} it gave the same images.",
        )
        require(
            len(asked) == 3 * steps,
            f"{steps} steps ask for the objective {steps} times, you asked {len(asked) / 3:g} "
            f"times; {case}.",
        )
    passed(craft)


def seeded(seed: int) -> torch.Generator:
    """A generator with this seed."""
    return torch.Generator().manual_seed(seed)


class Parabola:
    """The objective weight * (images - centre)^2, summed: its slope at some images."""

    def __init__(self, weight: Tensor, centre: Tensor) -> None:
        self.weight, self.centre = weight, centre

    def __call__(self, images: Tensor) -> Tensor:
        return 2 * self.weight * (images - self.centre)


def walked(
    start: Tensor,
    bounds: tuple[Tensor, Tensor],
    slopes: Callable,
    steps: int,
    rate: float,
    *,
    usual: str = "",
) -> Tensor:
    """Where Adam ends on the sign of the slopes, written out; with one of the usual mistakes."""
    images, mean, square = start, torch.zeros_like(start), torch.zeros_like(start)
    for t in range(1, steps + 1):
        slope = slopes(images) if usual == "raw" else slopes(images).sign()
        mean, square = 0.9 * mean + 0.1 * slope, 0.999 * square + 0.001 * slope.square()
        step = mean / (1 - 0.9**t) / ((square / (1 - 0.999**t)).sqrt() + 1e-8)
        if usual == "plain":
            step = slope
        falls = sum(t > steps * k // 8 for k in (3, 5, 7)) if usual == "falling" else 0
        images = images - (-1 if usual == "uphill" else 1) * rate * 0.1**falls * step
        if usual != "late":
            images = images.clamp(*bounds)
    return images.clamp(*bounds)


def compare_steps(
    found: Tensor,
    base: Tensor,
    slopes: Callable,
    epsilon: float,
    steps: int,
    size: float,
    case: str,
) -> None:
    """Fail unless it is where Adam ends, inside the bound; name the usual mistakes."""
    require(
        found.min() >= 0 and found.max() <= 1,
        f"Pixels from {found.min():.3f} to {found.max():.3f}, {case}: outside [0, 1].",
    )
    far = (found - base).abs().max().item()
    require(
        far <= epsilon + 1e-6,
        f"A pixel changed by {far:.3f}, but epsilon is {epsilon}: project after each step, onto "
        f"the bound around the base images; {case}.",
    )
    start = random_start(base.float(), epsilon, seeded(7)).double()
    box = (base - epsilon).clamp(min=0), (base + epsilon).clamp(max=1)
    around = torch.maximum(start - epsilon, box[0]), torch.minimum(start + epsilon, box[1])
    rate = size * epsilon
    expected = walked(start, box, slopes, steps, rate)
    if torch.allclose(found, expected, atol=1e-5):
        return

    def ends(usual: str = "", start=start, steps=steps, rate=rate, box=box) -> Callable:
        return lambda: walked(start, box, slopes, steps, rate, usual=usual)

    mistakes: dict[str, Callable] = {
        "That is the random start: no step was made.": ends(steps=0),
        "You raise the objective: lower it.": ends("uphill"),
        "You start from the base images: begin at `random_start`.": ends(start=base),
        "That is one step too many: make as many as `steps` says.": ends(steps=steps + 1),
        "That is one step too few: make as many as `steps` says.": ends(steps=steps - 1),
        "Adam gets the sign of the gradient, not the gradient.": ends("raw"),
        "Project after each step, not only at the end.": ends("late"),
        "Your steps are all of one size, as without Adam or with a new one each time: make one "
        "Adam for all steps.": ends("plain"),
        "The step does not fall: there is no schedule here.": ends("falling"),
        "Your function ignores `step_size`.": ends(rate=0.4 * epsilon),
        "The bound is around the base images, not around the start.": ends(box=around),
    }
    hint = diagnosis([found], mistakes, [()])
    hint = hint or " Adam's learning rate is step_size * epsilon, its gradient the sign."
    place = int((found - expected).abs().argmax())
    wanted, yours = side_by_side(expected.flatten()[place], found.flatten()[place])
    require(False, f"Pixel {place} should end at {wanted}, yours is at {yours}, {case}.{hint}")


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


ORDER = [2, 0, 5, 6, 1, 3, 4]  # the rows of the batch after the split: poisons 2, 0 and 5


def reordered(images: Tensor, labels: Tensor, generator: torch.Generator) -> Split:
    """A split rule that takes the rows in another order; all targets are to become a 9."""
    images, labels = images[ORDER], labels[ORDER]
    return Split(images[:3], labels[:3], images[3:], labels[3:], torch.full_like(labels[3:], 9))


@recorded
def check_poisoned_batch(make: Callable) -> None:
    """Watches what the inner attack gets, and what comes out of it. Raises CheckFailed."""
    images = torch.arange(7).float().view(-1, 1, 1, 1) / 10
    labels = torch.tensor([4, 0, 2, 5, 1, 0, 3])
    model, generator, seen = Watched(), seeded(0), []

    def simulate(model: nn.Module, parts: Split, given: torch.Generator) -> tuple[Tensor, Tensor]:
        seen.append((any(model.modes()), parts, given, torch.is_grad_enabled()))
        return 1 - parts.poisons, parts.targets + 0.01

    for recombine in (True, False):
        options = {} if recombine else {"recombine": False}
        answer = attempt(make, model, images, labels, simulate, reordered, generator, **options)
        pair = isinstance(answer, tuple | list) and len(answer) == 2
        require(pair, f"Return two tensors, images and labels{instead(answer)}.")
        if recombine:
            require(len(seen) == 1, f"The attack is simulated once a batch, not {len(seen)} times.")
            check_simulation(*seen[0], generator)
            compare_batch(*answer, images, labels)
    alone = "with recombine=False only the 3 poisons come back, with their labels"
    found = as_tensor(answer[0], (3, 1, 1, 1), alone, "images")
    got = as_tensor(answer[1], (3,), alone, "labels")
    same = alike(found, 1 - images[ORDER[:3]]) and alike(got, labels[ORDER[:3]])
    require(same, f"W{alone[1:]}; you gave others.")
    check_errors(make, model, images, labels, generator)
    passed(make)


def check_simulation(
    in_training: bool,
    parts: Split,
    given: torch.Generator,
    gradients: bool,
    generator: torch.Generator,
) -> None:
    """Fail unless the simulation got the split and the generator, in the modes that it needs."""
    require(given is generator, "Pass on the generator that came in: trials depend on it.")
    require(
        not in_training,
        "During the simulated attack the model must be in evaluation mode: BatchNorm was not.",
    )
    require(
        gradients, "The simulated attack needs gradients: do not call it under torch.no_grad()."
    )
    got = getattr(parts, "fake_labels", torch.zeros(0)).tolist()
    require(got == [9] * 4, "Give the simulation the whole Split that the split rule gave.")


def compare_batch(found: Tensor, got: Tensor, images: Tensor, labels: Tensor) -> None:
    """Fail unless poisons and targets of the simulation stand there with their true labels."""
    poisons, targets = images[ORDER[:3]], images[ORDER[3:]]
    expected = torch.cat([1 - poisons, targets + 0.01])
    shape = tuple(expected.shape)
    found = as_tensor(found, shape, "poisons and targets of a batch of 7 images", "images")
    if not alike(found, expected):
        hint = " Poisons come first, then targets."
        if alike(found[:3], poisons) or alike(found, images):
            hint = " You train on the poisons as they were before the attack."
        elif alike(found[3:], targets):
            hint = " The simulation may change the targets too: use those that it returns."
        require(False, f"The images of the batch are not those of the simulation.{hint}")
    true = labels[ORDER]
    got = as_tensor(got, (7,), "for a batch of 7 images", "labels")
    hint = " The fake label is for the simulation only." if (got == 9).any() else ""
    if alike(got, labels):
        hint = " A split rule may reorder the batch: take the labels in the order of the split."
    require(
        alike(got, true),
        f"The batch needs its true labels {true.tolist()}, you gave {got.long().tolist()}.{hint}",
    )


def check_errors(
    make: Callable, model: Watched, images: Tensor, labels: Tensor, generator: torch.Generator
) -> None:
    """Fail unless an error in the simulation gets out, and leaves the modes as they were."""
    before, stopped = model.modes(), False

    def fail(model: nn.Module, parts: Split, generator: torch.Generator) -> None:
        raise KeyError("on purpose")

    try:
        make(model, images, labels, fail, reordered, generator)
    except KeyError:
        stopped = True
    require(stopped, "An error in the simulated attack must not be swallowed.")
    after = model.modes()
    require(
        after == before,
        f"Every layer must get its own mode back, also after an error in the simulation: [model, "
        f"BatchNorm, frozen layer] came with training = {before} and left with {after}. Use "
        "`with evaluating(model):`.",
    )
