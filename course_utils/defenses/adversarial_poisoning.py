"""Built in lesson 14, adversarial poisoning.

Generated from notebooks/14_adversarial_poisoning.ipynb: edit it there, then run make notebooks.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from course_utils import guards
from course_utils.attacks import crafting, gradient_matching
from course_utils.attacks.feature_collision import bullseye_loss
from course_utils.attacks.hidden_trigger import hidden_trigger_loss
from course_utils.attacks.metapoison import unrolled_loss
from course_utils.defense import Defense
from course_utils.models import Classifier, evaluating


class Split(NamedTuple):
    """A batch cut into simulated poisons and simulated targets.

    poisons: (P, C, H, W), their true labels poison_labels: (P,). targets: (T, C, H, W), their true
    labels target_labels: (T,). fake_labels: the class that each target is pulled to, (T,).
    """

    poisons: Tensor
    poison_labels: Tensor
    targets: Tensor
    target_labels: Tensor
    fake_labels: Tensor


def split_batch(images: Tensor, labels: Tensor, share: float) -> Split:
    """Cut a batch in two: the first `share` of it are poisons, the rest targets, at least one each.

    images: (N, C, H, W), N at least 2; labels: (N,). All targets get one fake label: the most
    frequent label of the poisons; of several, the smallest.
    """
    count = min(max(round(share * len(images)), 1), len(images) - 1)
    fake = labels[:count].bincount().argmax().expand(len(images) - count)
    return Split(images[:count], labels[:count], images[count:], labels[count:], fake)


SplitRule = Callable[[Tensor, Tensor, torch.Generator], Split]  # of images and labels of a batch


def cut(share: float) -> SplitRule:
    """The rule that makes `share` of each batch poisons: 0.5 for the paper's half and half.

    Batches are shuffled, so the first images are random ones. Raises ThreatModelError for a share
    outside (0, 1).
    """
    guards.check_share(share)
    return lambda images, labels, generator: split_batch(images, labels, share)


half = cut(0.5)


def one_target(images: Tensor, labels: Tensor, generator: torch.Generator) -> Split:
    """All images of a batch are poisons but the last, which is the target."""
    return split_batch(images, labels, 1 - 1 / len(images))


def shuffle(images: Tensor, labels: Tensor, generator: torch.Generator) -> Split:
    """The whole batch are poisons, and the whole batch, in random order, are targets.

    The fake label of each target is the label of the poison that stands at its place.
    """
    order = torch.randperm(len(images), generator=generator, device=images.device)
    return Split(images, labels, images[order], labels[order], labels)


def craft_in_batch(
    objective: Callable[[Tensor], Tensor],
    base: Tensor,
    epsilon: float,
    steps: int,
    generator: torch.Generator,
    step_size: float = 0.4,
) -> Tensor:
    """Lower `objective(images)` within `epsilon` of the base images (P, C, H, W), in a few steps.

    Random start, Adam on the sign of the gradient, and a projection after each step. step_size:
    Adam's learning rate as a share of epsilon. The images come back without a graph.
    Source: Geiping and others (arXiv 2102.13624), released code.
    """
    images = crafting.random_start(base, epsilon, generator).requires_grad_()
    adam = torch.optim.Adam([images], lr=step_size * epsilon)
    for _ in range(steps):
        gradient = torch.autograd.grad(objective(images), images)[0]
        images.grad = gradient.nan_to_num(0.0).sign()  # where there is nothing to match, 0 / 0
        adam.step()
        with torch.no_grad():
            images.copy_(crafting.project(images, base, epsilon))
    return images.detach()  # the outer step treats them as constants


Made = tuple[Tensor, Tensor]  # the poisons (P, C, H, W) and the targets (T, C, H, W) to train on
Simulation = Callable[[Classifier, Split, torch.Generator], Made]  # model, split, generator


def collision_simulation(epsilon: float, steps: int = 5) -> Simulation:
    """Simulate Bullseye Polytope: the poisons' mean features should be those of the targets."""
    guards.check_simulation(epsilon, steps)

    def simulate(model: Classifier, split: Split, generator: torch.Generator) -> Made:
        with torch.no_grad():
            wanted = model.features(split.targets)

        def apart(images: Tensor) -> Tensor:
            return bullseye_loss(model.features(images), wanted)

        return craft_in_batch(apart, split.poisons, epsilon, steps, generator), split.targets

    return simulate


def poisoned_batch(
    model: Classifier,
    images: Tensor,
    labels: Tensor,
    simulate: Simulation,
    split: SplitRule,
    generator: torch.Generator,
    recombine: bool = True,
) -> tuple[Tensor, Tensor]:
    """The images and labels of the batch that the victim trains on: poisons first, then targets.

    images: (N, C, H, W), labels: (N,). Splits the batch and lets `simulate(model, split,
    generator)` poison it, in evaluation mode; every layer gets its mode back. All labels are true.
    recombine: False leaves the targets out.
    """
    parts = split(images, labels, generator)
    with evaluating(model):
        poisons, targets = simulate(model, parts, generator)
    if not recombine:
        return poisons, parts.poison_labels
    return torch.cat([poisons, targets]), torch.cat([parts.poison_labels, parts.target_labels])


def adversarial_poisoning(
    simulate: Simulation, *, split: SplitRule = half, recombine: bool = True
) -> Defense:
    """Train on batches in which a simulated attack has poisoned some images against the others.

    Batches of a single class, in which there is nothing to attack, stay as they are. Raises
    TypeError if `simulate` is no function; in training ThreatModelError for bad images from it.
    Source: Geiping and others (arXiv 2102.13624), section 3 and released code.
    """
    careful = guards.checked(simulate)  # the same, but what comes back is checked

    def batch(
        model: Classifier, x: Tensor, y: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        guards.check_hard_labels(y)
        if len(y.unique()) < 2:
            return x, y
        return poisoned_batch(model, x, y, careful, split, generator, recombine)

    return Defense("poisoning training", batch=batch)


class Late:
    """A model seen through its last `count` trainable parameters only; None for all of them."""

    def __init__(self, model: Classifier, count: int | None) -> None:
        self.model, self.count = model, count

    def __call__(self, images: Tensor) -> Tensor:
        return self.model(images)

    def parameters(self) -> list[nn.Parameter]:
        trainable = [p for p in self.model.parameters() if p.requires_grad]
        return trainable if self.count is None else trainable[-self.count :]


def matching_simulation(
    epsilon: float,
    steps: int = 5,
    *,
    last: int | None = None,
    loss: gradient_matching.Objective = gradient_matching.alignment_loss,
) -> Simulation:
    """Simulate gradient matching: the poisons should pull the targets to the fake label.

    last: match the gradient of so many of the last parameters only; None for all that train.
    """
    guards.check_simulation(epsilon, steps)

    def simulate(model: Classifier, split: Split, generator: torch.Generator) -> Made:
        seen = Late(model, last)
        wanted = gradient_matching.target_gradient(seen, split.targets, split.fake_labels)

        def misaligned(images: Tensor) -> Tensor:
            return loss(seen, images, split.poison_labels, wanted)

        return craft_in_batch(misaligned, split.poisons, epsilon, steps, generator), split.targets

    return simulate


def place(low: Tensor, size: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """For each of N images, where each of `length` pixels lies in a patch along one axis.

    low: the first pixel of each patch (N,). size: its side (N,). Returns the place within the
    patch and whether the pixel belongs to it, both (N, length).
    """
    within = torch.arange(length, device=low.device) - low[:, None]
    return within.clamp(min=0), (within >= 0) & (within < size[:, None])


def put_patches(
    images: Tensor, sizes: Tensor, pixels: Tensor, generator: torch.Generator, corners: bool = False
) -> Tensor:
    """Put a patch of its own on each image (N, C, H, W), at a random place.

    sizes: height and width of each patch (N, 2). pixels: black and white pixels (N, H, W); a patch
    shows their first rows and columns. corners: in a random corner, one pixel from the edges if
    there is room.
    """
    room = torch.tensor(images.shape[-2:], device=images.device) - sizes
    random = torch.rand(room.shape, generator=generator, device=images.device)
    first = (random * (room + 1)).long()
    if corners:
        first = torch.where(random < 0.5, 1, room - 1).clamp(min=0).minimum(room)
    tall, wide = (place(first[:, k], sizes[:, k], images.shape[k + 2]) for k in (0, 1))
    rows = torch.arange(len(images), device=images.device)[:, None, None]
    pattern = pixels[rows, tall[0][:, :, None], wide[0][:, None, :]]
    mask = tall[1][:, :, None] & wide[1][:, None, :]
    return torch.where(mask[:, None], pattern[:, None], images)


def draw_patches(
    count: int, like: Tensor, sides: tuple[float, float], generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """The sizes (count, 2) and pixels (count, H, W) of random patches for images like these.

    sides: the smallest and largest side, as shares of the image's. Pixels are black or white, in
    each patch with another random share of white.
    """
    low, high = sides
    random = partial(torch.rand, generator=generator, device=like.device)
    length = torch.tensor(like.shape[-2:], device=like.device)
    sizes = ((low + (high - low) * random(count, 2)) * length).round().long().clamp(min=1)
    white = random(count, 1, 1)
    return sizes, (random(count, *like.shape[-2:]) < white).to(like.dtype)


def derangement(count: int, generator: torch.Generator) -> Tensor:
    """A random order of 0 to count - 1 in which no number stands at its own place.

    Raises ValueError for fewer than two numbers, for which there is none.
    """
    guards.check_derangement(count)
    places = torch.arange(count, device=generator.device)
    while True:
        order = torch.randperm(count, generator=generator, device=generator.device)
        if not (order == places).any():
            return order


def patch_simulation(
    sides: tuple[float, float] = (0.1, 0.4), *, corners: bool = False
) -> Simulation:
    """Simulate a backdoor: poisons carry the patch of their class, targets that of another class.

    Each batch draws a random patch for each class and a derangement of the classes. sides: the
    smallest and largest side, as shares of the image's. corners: patches in the corners only.
    """
    guards.check_sides(sides)

    def simulate(model: Classifier, split: Split, generator: torch.Generator) -> Made:
        classes = model.head.out_features
        sizes, pixels = draw_patches(classes, split.poisons, sides, generator)
        own, other = split.poison_labels, derangement(classes, generator)[split.target_labels]
        poisons = put_patches(split.poisons, sizes[own], pixels[own], generator, corners)
        targets = put_patches(split.targets, sizes[other], pixels[other], generator, corners)
        return poisons, targets

    return simulate


def hidden_trigger_simulation(epsilon: float, steps: int = 5) -> Simulation:
    """Simulate hidden triggers: the targets get one random patch, and the poisons their features.

    The patch is drawn anew for each batch: 0.2 to 0.4 of the image's side.
    """
    guards.check_simulation(epsilon, steps)

    def simulate(model: Classifier, split: Split, generator: torch.Generator) -> Made:
        sizes, pixels = draw_patches(1, split.targets, (0.2, 0.4), generator)
        same = torch.zeros_like(split.target_labels)
        patched = put_patches(split.targets, sizes[same], pixels[same], generator)
        with torch.no_grad():
            wanted = model.features(patched)
        enough = wanted.repeat(-(-len(split.poisons) // len(wanted)), 1)  # a partner for each

        def apart(images: Tensor) -> Tensor:
            return hidden_trigger_loss(model.features(images), enough)

        return craft_in_batch(apart, split.poisons, epsilon, steps, generator), patched

    return simulate


def metapoison_simulation(epsilon: float, steps: int = 5, *, unrolled: int = 2) -> Simulation:
    """Simulate MetaPoison: after a few steps on the poisons, the targets have the fake label.

    unrolled: how many training steps, of learning rate 0.1, the inner attack looks ahead.
    """
    guards.check_simulation(epsilon, steps)

    def simulate(model: Classifier, split: Split, generator: torch.Generator) -> Made:
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        weights = {name: p.detach().clone().requires_grad_() for name, p in named}

        def missed(logits: Tensor, _: int) -> Tensor:
            return cross_entropy(logits, split.fake_labels)

        def reached(images: Tensor) -> Tensor:
            given = (model, weights, images, split.poison_labels, split.targets)
            return unrolled_loss(*given, 0, 0.1, unrolled, loss=missed)

        return craft_in_batch(reached, split.poisons, epsilon, steps, generator), split.targets

    return simulate
