"""Checks of lesson 19, repair."""

import copy
import math
import statistics
from collections.abc import Callable

import torch
from torch import Tensor, nn

from course_utils.checks import attempt, passed, require
from course_utils.checks.answers import as_number, as_tensor
from course_utils.checks.mistakes import alike, diagnosis
from course_utils.models import Classifier, build
from course_utils.record import recorded

SHAPE = (1, 6, 5)


@recorded
def check_prune(function: Callable) -> None:
    """Compares the features with those of the model that came in. Raises CheckFailed."""
    images = torch.rand(40, *SHAPE, generator=torch.Generator().manual_seed(1))
    for name, options in (("mlp", {"width": 9}), ("lenet", {})):
        model = build(name, SHAPE, 3, seed=4, **options).eval()
        with torch.no_grad():
            for layer in (model.features[-2], model.head):
                layer.bias.copy_(torch.linspace(0.3, 0.9, len(layer.bias)))
        for units in ([2], [0, 5, 3], [], list(range(model.head.in_features))):
            compare_pruned(function, model, units, images)
    passed(function)


def compare_pruned(function: Callable, model: Classifier, units: list[int], images: Tensor) -> None:
    """Fail unless just these units are silent, in a copy, and stay so."""
    answer = attempt(function, model, torch.tensor(units, dtype=torch.long))
    case = f"for the units {units if len(units) < 9 else 'of the whole layer'}"
    require(
        isinstance(answer, Classifier),
        f"Return a model, the copy without the units; {case} you gave a {type(answer).__name__}.",
    )
    shapes = [[p.shape for p in one.parameters()] for one in (model, answer)]
    require(
        shapes[0] == shapes[1],
        f"The answer is no copy of the model that came in: its layers have other shapes; {case}.",
    )
    shared = {p.data_ptr() for p in model.parameters()} & {
        p.data_ptr() for p in answer.parameters()
    }
    require(not shared, f"The answer shares weights with the model that came in: copy it; {case}.")
    with torch.no_grad():
        before, after = model.features(images), answer.features(images)
    gone = torch.zeros(before.shape[1], dtype=torch.bool)
    gone[units] = True
    hint = cause(model, answer, before, after, gone)
    loud = after[:, gone].abs().amax(0) if units else torch.zeros(0)
    quiet = not (loud != 0).any()
    require(
        quiet,
        f"A unit that was to go gives {loud.max().item() if len(loud) else 0:.4f} on some image, "
        f"expected exactly 0; {case}.{hint}",
    )
    apart = (after - before)[:, ~gone].abs().amax().item() if not gone.all() else 0.0
    require(
        apart < 1e-6, f"A unit that was to stay changed by {apart:.4f} on some image; {case}.{hint}"
    )
    same = torch.equal(model.head.weight, answer.head.weight)
    same &= torch.equal(model.head.bias, answer.head.bias)
    require(same, f"The head was changed; {case}. Change the layer of the units alone.")
    awake = trained(answer, images).features(images)[:, gone]
    require(
        not awake.any(),
        f"After some training a unit that was to go gives {awake.abs().max() if units else 0:.4f}; "
        f"{case}. Set its weights and its bias to 0: then its slope is 0.",
    )


def cause(
    model: Classifier, answer: Classifier, before: Tensor, after: Tensor, gone: Tensor
) -> str:
    """Which of the usual mistakes it is, if any."""
    bias = model.features[-2].bias.detach()
    rest = answer.features[-2].weight[~gone]
    in_head = not torch.equal(model.head.weight, answer.head.weight)
    mistakes = [
        (
            in_head and torch.equal(before, after),
            "Silence a unit in its own layer: a column of the head wakes up when training goes on.",
        ),
        (torch.equal(before, after), "Nothing has changed."),
        (
            not torch.equal(first_weight(model), first_weight(answer)),
            "The layer is the last hidden one: `last_hidden` gives it.",
        ),
        (
            not gone.all() and not after[:, ~gone].any(),
            "The given units are those that go, not those that stay.",
        ),
        (
            not gone.all() and bool((rest == 0).any()),
            "A unit is a row of the weight; a column belongs to what comes in.",
        ),
        (
            gone.any() and alike(after[:, gone], bias[gone].clamp(min=0).expand(len(after), -1)),
            "Its bias still speaks: set it to 0 too.",
        ),
    ]
    return next((f" {text}" for found, text in mistakes if found), "")


def first_weight(model: Classifier) -> Tensor:
    """The weight of the first layer that has one."""
    return next(layer.weight for layer in model.features if hasattr(layer, "weight"))


def trained(model: Classifier, images: Tensor) -> Classifier:
    """A copy after a few large steps."""
    model = copy.deepcopy(model)
    for _ in range(5):
        loss = nn.functional.cross_entropy(model(images), torch.arange(len(images)) % 3)
        weights = list(model.parameters())
        for weight, gradient in zip(weights, torch.autograd.grad(loss, weights), strict=True):
            weight.data -= 0.5 * gradient
    return model


@recorded
def check_anomaly_indices(function: Callable) -> None:
    """Compares with the medians of Python's statistics. Raises CheckFailed."""
    tables = [
        [75.0, 75.5, 78.0, 94.0, 84.0, 82.0, 16.0, 91.0, 63.0, 83.5],
        [3.0, 9.0, 4.0, 8.0, 5.0],
        [20.0, 11.0, 12.0, 30.0],
        [70.0, 75.0, math.inf, 66.0, 58.0, 20.0],
    ]
    found = []
    for table in tables:
        answer = attempt(function, torch.tensor(table), finite=False)
        answer = as_tensor(answer, (len(table),), f"for the distances {table}", "the indices")
        found.append(answer)
    for table, answer in zip(tables, found, strict=True):
        for distance, given, wanted in zip(table, answer.tolist(), by_hand(table), strict=True):
            near = given == wanted or abs(given - wanted) < 1e-3
            require(
                near,
                f"Among the distances {table} that of {distance:g} has the index {wanted:.3f}, you "
                f"gave {given:.3f}.{diagnosis(found[:3], MISTAKES, [(t,) for t in tables[:3]])}",
            )
    passed(function)


def by_hand(
    table: list[float], middle: Callable = statistics.median, factor: float = 1.4826
) -> list:
    """The indices of a table."""
    centre = middle(table)
    spread = factor * middle([abs(distance - centre) for distance in table])
    return [(centre - distance) / spread for distance in table]


def mean_of_deviations(table: list[float]) -> list:
    """The median as the centre, and the mean of the deviations as their size."""
    centre = statistics.median(table)
    spread = 1.4826 * statistics.mean([abs(distance - centre) for distance in table])
    return [(centre - distance) / spread for distance in table]


def negative(table: list[float]) -> list:
    return [-index for index in by_hand(table)]


MISTAKES = {
    "The factor 1.4826 is missing.": lambda t: by_hand(t, factor=1.0),
    "The factor 1.4826 stands below the line.": lambda t: by_hand(t, factor=1 / 1.4826),
    "torch.median takes the lower of two in the middle: quantile(0.5) takes their mean.": (
        lambda t: by_hand(t, statistics.median_low)
    ),
    "The median, not the mean: one small distance must not move the yardstick.": (
        lambda t: by_hand(t, statistics.mean)
    ),
    "The MAD is the median of the deviations, not their mean.": mean_of_deviations,
    "The sign: a small distance has a large index.": negative,
    "Keep the sign: a class that is far away is not suspicious.": (
        lambda t: [abs(index) for index in by_hand(t)]
    ),
    "That is the standard deviation: one small distance would hide itself.": (
        lambda t: [(statistics.median(t) - d) / statistics.stdev(t) for d in t]
    ),
    "Divide by the MAD.": lambda t: [statistics.median(t) - d for d in t],
    "Divide by the MAD of the deviations, not by the median.": (
        lambda t: [(statistics.median(t) - d) / statistics.median(t) for d in t]
    ),
}


@recorded
def check_strip_entropy(function: Callable) -> None:
    """Compares with sums of Python floats. Raises CheckFailed."""
    generator, cases, found = torch.Generator().manual_seed(2), [], []
    for seed, count in ((1, 1), (2, 4), (3, 11)):
        model = build("mlp", SHAPE, 3, seed=seed, width=16).eval()
        with torch.no_grad():
            model.head.weight *= 20  # probabilities that are far from equal
        image = torch.rand(SHAPE, generator=generator)
        cases.append((model, image, torch.rand(count, *SHAPE, generator=generator)))
    for case in cases:
        found.append(as_number(attempt(function, *case), f"for {len(case[2])} overlays"))
    for case, answer in zip(cases, found, strict=True):
        wanted = entropies(*case)
        mean = sum(wanted) / len(wanted)
        require(
            abs(answer - mean) < 1e-4 * max(1, abs(mean)),
            f"With {len(case[2])} overlays the entropy is {mean:.4f} nats on average, you gave "
            f"{answer:.4f}.{diagnosis(found, BLENDS, cases)}",
        )
    passed(function)


def probabilities(model: Classifier, images: Tensor) -> list[list[float]]:
    """What the model gives, by exponentials of Python floats."""
    with torch.no_grad():
        rows = model(images).tolist()
    sums = [sum(math.exp(logit) for logit in row) for row in rows]
    return [[math.exp(x) / total for x in row] for row, total in zip(rows, sums, strict=True)]


def entropy(shares: list[float]) -> float:
    """The entropy of some probabilities, in nats."""
    return -sum(p * math.log(p) for p in shares if p > 0)


def entropies(
    model: Classifier, image: Tensor, overlays: Tensor, share: float = 0.5
) -> list[float]:
    """The entropy of each mixture."""
    mixed = [share * image + (1 - share) * overlay for overlay in overlays]
    return [entropy(row) for row in probabilities(model, torch.stack(mixed))]


def average(numbers: list[float]) -> float:
    return sum(numbers) / len(numbers)


def of_the_mean(model: Classifier, image: Tensor, overlays: Tensor) -> float:
    """The entropy of the mean prediction."""
    rows = probabilities(model, (image + overlays) / 2)
    return entropy([average(list(column)) for column in zip(*rows, strict=True)])


def of_the_sums(model: Classifier, image: Tensor, overlays: Tensor) -> float:
    """The mean entropy of images that were added up."""
    return average([entropy(row) for row in probabilities(model, image + overlays)])


def of_the_cut_sums(model: Classifier, image: Tensor, overlays: Tensor) -> float:
    """The same, cut off at 1."""
    added = (image + overlays).clamp(0, 1)
    return average([entropy(row) for row in probabilities(model, added)])


BLENDS = {
    "The sign: an entropy is not negative.": lambda *case: -average(entropies(*case)),
    "Take the mean over the overlays, not the sum.": lambda *case: sum(entropies(*case)),
    "In nats: the natural logarithm, not the one to the base 2.": (
        lambda *case: average(entropies(*case)) / math.log(2)
    ),
    "First the entropy of each mixture, then the mean.": of_the_mean,
    "Half and half: the sum of two images is too bright.": of_the_sums,
    "Half and half, not the sum cut off at 1.": of_the_cut_sums,
    "Mix the overlays with the image.": lambda *case: average(entropies(*case, share=0.0)),
    "Lay the overlays over the image: alone it is always the same.": (
        lambda *case: average(entropies(*case, share=1.0))
    ),
    "The mean over the classes is not the entropy: add them up.": (
        lambda *case: average(entropies(*case)) / 3
    ),
    "The smallest entropy is that of one overlay: take the mean.": lambda *case: min(
        entropies(*case)
    ),
}
