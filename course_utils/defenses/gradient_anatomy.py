"""Built in lesson 09, anatomy of a poisoned gradient.

Generated from notebooks/09_anatomy_of_a_gradient.ipynb: edit it there, then run make notebooks.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from course_utils import training
from course_utils.attacks import gradient_matching
from course_utils.attacks.gradient_matching import Gradient
from course_utils.data import Data
from course_utils.defense import Defense
from course_utils.defenses.per_example import (
    ExampleGradients,
    add_noise,
    check_shaping,
    deviation,
    linear_norms,
)
from course_utils.models import Classifier
from course_utils.threat import Poison


def part_gradient(
    model: Classifier, images: Tensor, labels: Tensor, bound: float = math.inf
) -> Gradient:
    """The gradient of the mean loss over a part of a batch, for every parameter that trains.

    images: (N, C, H, W). labels: (N,). bound: clip each example's gradient to this length first;
    that needs a model of linear layers.
    """
    check_shaping(bound)
    parameters = [p for p in model.parameters() if p.requires_grad]
    if bound == math.inf:
        return torch.autograd.grad(cross_entropy(model(images), labels), parameters)
    shrink = (bound / linear_norms(model, images, labels)).clamp(max=1)  # constants: no graph
    losses = cross_entropy(model(images), labels, reduction="none")
    return torch.autograd.grad((shrink * losses).mean(), parameters)


LAYERS = {"last": slice(-2, -1), "all": slice(None)}  # the last layer's weights; all parameters


def cosine(first: Gradient, second: Gradient) -> float:
    """The cosine of the angle between two gradients, over all their parameters."""
    product = gradient_matching.dot(first, second)
    return (product / (gradient_matching.length(first) * gradient_matching.length(second))).item()


def compare_parts(gradients: dict[str, Gradient]) -> dict[str, float]:
    """The length of each part's gradient, and its cosine with that of the part named "clean"."""
    row = {}
    for layers, which in LAYERS.items():
        for name, gradient in gradients.items():
            row[f"{layers} {name}"] = gradient_matching.length(gradient[which]).item()
            if name != "clean":
                row[f"{layers} cos {name}"] = cosine(gradients["clean"][which], gradient[which])
    return row


def group_cosine(gradients: ExampleGradients, first: Tensor, second: Tensor) -> float:
    """The cosine between the mean gradients of two groups, over all parameters together.

    gradients: a tensor (N, *shape) for each parameter. first, second: which examples belong to the
    group, boolean masks (N,).
    """
    means = [tuple(part[group].mean(0) for part in gradients) for group in (first, second)]
    return cosine(*means)


def fingerprints(images: Tensor, labels: Tensor) -> list[bytes]:
    """Something to know each image (N, C, H, W) with its label (N,) by."""
    pairs = zip(images.cpu().numpy(), labels.tolist(), strict=True)
    return [image.tobytes() + str(label).encode() for image, label in pairs]


@dataclass(frozen=True, eq=False)
class Specimen:
    """A poisoned training set to look at.

    seen: what the victim trains on. is_poison: which of its rows are poison (N,). partners: for
    each control, the class from which the partner of a poison is drawn (N,). fresh: images that the
    victim never sees. where: the row of each fingerprint.
    """

    seen: Data
    is_poison: Tensor
    partners: dict[str, Tensor]
    fresh: Data
    where: dict[bytes, int]


def specimen(poison: Poison, data: Data, fresh: Data) -> Specimen:
    """What the victim sees, with the controls "label" and, where labels were changed, "class".

    Raises ValueError if a poison equals a clean training image, label included.
    """
    seen, is_poison = poison.apply(data), poison.mask(data)
    keys = fingerprints(seen.x, seen.y)
    clean = {key for key, bad in zip(keys, is_poison.tolist(), strict=True) if not bad}
    if any(key in clean for key in fingerprints(poison.images, poison.labels)):
        raise ValueError(
            "A poison has the image and the label of a clean training image, so the two cannot be "
            "told apart in a batch: leave it out."
        )
    partners = {"label": seen.y}
    if poison.base is not None and not torch.equal(poison.labels, data.y[poison.base]):
        place = is_poison.nonzero()[:, 0] if poison.placement == "append" else poison.base
        partners["class"] = seen.y.clone()
        partners["class"][place] = data.y[poison.base]
    return Specimen(seen, is_poison, partners, fresh, {key: row for row, key in enumerate(keys)})


def matched_rows(data: Data, free: Tensor, wanted: Tensor, generator: torch.Generator) -> Tensor:
    """For each wanted class (P,) the row of a random image with that label; none comes twice.

    free: which rows may be drawn (N,). Raises ValueError if there are too few of a class.
    """
    chosen = torch.empty_like(wanted)
    for label in wanted.unique():
        pool, places = (free & (data.y == label)).nonzero()[:, 0], wanted == label
        needed = int(places.sum())
        if len(pool) < needed:
            raise ValueError(
                f"{needed} images of class {data.classes[label]} are needed as a control, but only "
                f"{len(pool)} are free: use smaller batches or more data."
            )
        order = torch.randperm(len(pool), generator=generator, device=pool.device)
        chosen[places] = pool[order[:needed]]
    return chosen


def cut(what: Specimen, rows: Tensor, generator: torch.Generator) -> dict[str, Data]:
    """The clean part and the poison part of a batch, and as many images for each control.

    rows: of the batch (B,). "label", "class": clean training images that are not in the batch.
    "new": images that the victim never sees, with the labels of the poisons.
    """
    bad = what.is_poison[rows]
    parts = {"clean": what.seen[rows[~bad]], "poison": what.seen[rows[bad]]}
    free = ~what.is_poison
    free[rows] = False
    for name, classes in what.partners.items():
        parts[name] = what.seen[matched_rows(what.seen, free, classes[rows[bad]], generator)]
    everyone = torch.ones_like(what.fresh.y, dtype=torch.bool)
    parts["new"] = what.fresh[matched_rows(what.fresh, everyone, parts["poison"].y, generator)]
    return parts


@dataclass(frozen=True)
class Plan:
    """When to look, and how training is shaped: every `every`-th batch of these epochs.

    bound, noise: shape the gradient that training follows, and the parts that are measured.
    """

    epochs: Sequence[int] = ()
    every: int = 2
    bound: float = math.inf
    noise: float = 0.0


def with_noise(
    gradients: dict[str, Gradient],
    sizes: dict[str, int],
    deviation: float,
    generator: torch.Generator,
    shared: bool,
) -> dict[str, Gradient]:
    """Each part's gradient as if its sum had this noise; shared: all parts get the same draw."""
    state, noisy = generator.get_state(), {}
    for name, gradient in gradients.items():
        if shared:
            generator.set_state(state)
        noisy[name] = add_noise(gradient, deviation / sizes[name], generator)
    return noisy


def look(
    model: Classifier, what: Specimen, rows: Tensor, generator: torch.Generator, plan: Plan = Plan()
) -> list[dict]:
    """Measure one batch: one row without noise and, with noise, one for each way to draw it.

    A row has the number of poisons, what `compare_parts` gives, and for each control the share of
    poisons whose own gradient is longer than that of their partner. No row if a part is empty.
    """
    parts = cut(what, rows, generator)
    if len(parts["clean"]) == 0 or len(parts["poison"]) == 0:
        return []
    found = {name: part_gradient(model, p.x, p.y, plan.bound) for name, p in parts.items()}
    row = {"noise": "none", "poisons": len(parts["poison"]), **compare_parts(found)}
    own, *others = (linear_norms(model, p.x, p.y) for k, p in parts.items() if k != "clean")
    for name, norms in zip(list(parts)[2:], others, strict=True):
        row[f"longer {name}"] = (own > norms).float().mean().item()
    size, rows = deviation(plan.bound, plan.noise), [row]
    for kind in ("independent", "shared") if size else ():
        given = {name: len(part) for name, part in parts.items()}, size, generator
        noisy = with_noise(found, *given, shared=kind == "shared")
        rows.append({**row, "noise": kind, **compare_parts(noisy)})
    return rows


def anatomy(
    what: Specimen, record: list[dict], batch_size: int, plan: Plan, seed: int = 0
) -> Defense:
    """A defense that only looks, as planned, into `record`; with a bound it also shapes.

    Source: Hong and others (arXiv 2002.11497), sections 3 and 4; the controls are ours.
    """
    size = deviation(plan.bound, plan.noise)
    own = torch.Generator(what.seen.x.device).manual_seed(seed)
    steps, batches = itertools.count(), training.batches_in(len(what.seen), batch_size)

    def gradients(model: Classifier, x: Tensor, y: Tensor, generator: torch.Generator) -> Gradient:
        epoch, batch = divmod(next(steps), batches)
        if epoch + 1 in plan.epochs and batch % plan.every == 0:
            rows = torch.tensor([what.where[key] for key in fingerprints(x, y)], device=y.device)
            found = look(model, what, rows, own, plan)
            record.extend({"epoch": epoch + 1, **row} for row in found)
        gradient = part_gradient(model, x, y, plan.bound)
        return add_noise(gradient, size / len(x), generator)

    return Defense("anatomy", gradients=gradients, batch_size=batch_size)
