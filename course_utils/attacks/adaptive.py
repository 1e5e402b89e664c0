"""Built in lesson 15, adaptive attacks.

Generated from notebooks/15_adaptive_attacks.ipynb: edit it there, then run make notebooks.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from course_utils.attacks import feature_collision, gradient_matching
from course_utils.attacks.gradient_matching import Gradient, Objective
from course_utils.data import Data
from course_utils.defense import Defense
from course_utils.defenses import per_example
from course_utils.models import Classifier
from course_utils.threat import Targeted


def slopes_of(losses: Tensor, seen: per_example.Record) -> tuple[Tensor, ...]:
    """The gradient of each example's own loss for what came out of each layer, with its graph."""
    return torch.autograd.grad(losses.sum(), [output for _, _, output in seen], create_graph=True)


Parts = list[tuple[Tensor, Tensor]]  # of each layer: what goes in, gradient for what comes out


def layer_parts(model: Classifier, images: Tensor, labels: Tensor) -> Parts:
    """Of each linear layer that trains: its inputs (N, in), and the gradient (N, out) of each
    example's own loss for its outputs. Both can be differentiated for the images.

    images: (N, C, H, W), labels: (N,). Raises ValueError if a layer that trains is not linear, or
    shares its weights.
    """
    layers = per_example.linear_layers(model)
    losses, seen = per_example.record(model, images, labels, layers, graph=True)
    pairs = zip(seen, slopes_of(losses, seen), strict=True)
    return [(given, slope) for (_, given, _), slope in pairs]


def clipped_gradient(parts: Parts, clip: float) -> Gradient:
    """The mean of the clipped gradients of N examples: weight and bias of each layer in turn.

    parts: of each layer with bias, what goes in (N, in) and the gradient of each example's own loss
    for what comes out (N, out). clip: the largest length of one example's gradient over all layers.
    The result can be differentiated for whatever the parts can, through the lengths too.
    """
    squares = torch.stack([(a.square().sum(1) + 1) * b.square().sum(1) for a, b in parts])
    weights = (clip / squares.sum(0).sqrt()).clamp(max=1) / squares.shape[1]
    scaled = [(a, weights[:, None] * b) for a, b in parts]
    return tuple(part for a, b in scaled for part in (b.T @ a, b.sum(0)))


def cosine_loss(found: Gradient, wanted: Gradient) -> Tensor:
    """One minus the cosine between two gradients, over all parameters; in [0, 2].

    That of `gradient_matching.alignment_loss`, for gradients that were shaped first.
    """
    lengths = gradient_matching.length(found) * gradient_matching.length(wanted)
    return 1 - gradient_matching.dot(found, wanted) / lengths


def clipped_alignment(clip: float) -> Objective:
    """The alignment loss of the clipped gradients, for gradient matching against shaped victims.

    clip: the victim's bound. Noise has mean zero and is left out. Raises ValueError unless it is
    positive, and in crafting for surrogates with layers that are not linear.
    Source: re-implemented after the `gradient-matching-private` of Geiping and others (2021).
    """
    per_example.check_shaping(clip)

    def loss(model: Classifier, images: Tensor, labels: Tensor, wanted: Gradient) -> Tensor:
        return cosine_loss(clipped_gradient(layer_parts(model, images, labels), clip), wanted)

    return loss


def hold_constant(images: Tensor, seen: Tensor) -> Tensor:
    """The images that the victim sees, differentiable as if their change were a constant.

    images: the poisons (P, C, H, W). seen: what the defense made of them, of the same shape. The
    result has the pixels of `seen`; its gradient for `images` is as if the change were a constant.
    """
    return images + (seen - images).detach()


def check_rows(defense: Defense, seen: Tensor, images: Tensor) -> None:
    """Raise ValueError unless a defense gave back one image for each, so that rows can be found."""
    if seen.shape != images.shape:
        raise ValueError(
            f"{defense.name!r} made {tuple(seen.shape)} of a batch {tuple(images.shape)}, so it is "
            "unknown which rows are the poisons: use a defense that keeps every image in its place."
        )


def check_acts(defense: Defense) -> None:
    """Raise ValueError for a defense that filters the data: it changes no gradient."""
    if defense.keep is not None:
        raise ValueError(
            f"{defense.name!r} removes images before training and changes no gradient: count the "
            "poisons that it keeps."
        )


def as_trained(
    defense: Defense,
    model: Classifier,
    poisons: tuple[Tensor, Tensor],
    company: Data,
    generator: torch.Generator,
    constant: bool = True,
) -> tuple[Tensor, Tensor]:
    """What a victim trains on in place of the poisons, images (P, C, H, W) and labels (P,).

    The poisons stand among as many random images of `company`, and the defense rewrites the batch.
    constant: hold its change of each poison constant; False differentiates through the defense.
    """
    images, labels = poisons
    if defense.batch is None:
        return images, labels
    count, options = len(images), {"generator": generator, "device": images.device}
    others = company[torch.randint(len(company), (count,), **options)]
    order = torch.randperm(2 * count, **options)
    x = torch.cat([images.detach() if constant else images, others.x])[order]
    seen, taught = defense.batch(model, x, torch.cat([labels, others.y])[order], generator)
    check_rows(defense, seen, x)
    mine = order.argsort()[:count]  # where the poisons came to stand
    return (hold_constant(images, seen[mine]) if constant else seen[mine]), taught[mine]


def rewritten_alignment(
    defense: Defense, company: Data, generator: torch.Generator, *, constant: bool
) -> Objective:
    """The alignment loss of what a defense makes of the poisons, for gradient matching.

    company: clean images to stand among. constant: True for an inner attack, such as PGD or
    poisoning training, False for a formula, such as shifts or mixing. Raises ValueError for a
    defense that rewrites no batch. Source: Geiping and others (arXiv 2102.13624), released code.
    """
    if defense.batch is None:
        raise ValueError(f"{defense.name!r} rewrites no batch: there is nothing to put in between.")

    def loss(model: Classifier, images: Tensor, labels: Tensor, wanted: Gradient) -> Tensor:
        seen, taught = as_trained(defense, model, (images, labels), company, generator, constant)
        return gradient_matching.alignment_loss(model, seen, taught, wanted)

    return loss


DRAWS = 5  # of the random numbers of a defense


def loss_under(
    defense: Defense,
    model: Classifier,
    poisons: tuple[Tensor, Tensor],
    wanted: Gradient,
    company: Data,
    generator: torch.Generator,
) -> float:
    """Step 3: the alignment loss of the gradient that a defended victim makes of the poisons.

    model: trained with the defense, and unseen in crafting. poisons: images (P, C, H, W), put among
    images of `company` where the defense rewrites batches, and labels (P,). The gradient is the
    mean over DRAWS of the defense's random numbers. Raises ValueError for a defense that filters.
    """
    check_acts(defense)
    gradients = []
    for _ in range(DRAWS):
        seen, taught = as_trained(defense, model, poisons, company, generator)
        if defense.gradients is None:
            gradients.append(gradient_matching.loss_gradient(model, seen, taught, graph=False))
        else:
            gradients.append(defense.gradients(model, seen, taught, generator))
    mean = tuple(torch.stack(parts).mean(0) for parts in zip(*gradients, strict=True))
    return cosine_loss(mean, wanted).item()


def outvoted_loss(features: Tensor, own: Tensor, others: Tensor, near: int) -> Tensor:
    """How far the poisons are from winning the vote of their neighbours; 0 if they win it.

    features: of the poisons (P, D). own: of clean images with their label (n, D); others: of images
    with other labels (m, D). The distances to the `near` nearest of each kind are compared, where
    the other poisons count as own; squared, as a share of the mean distance to the others.
    """
    to_poisons = torch.cdist(features, features.detach())
    to_poisons = to_poisons + torch.diag(torch.full_like(features[:, 0], float("inf")))
    friends = torch.cat([torch.cdist(features, own), to_poisons], dim=1)
    strangers = torch.cdist(features, others)
    check_near(near, friends, strangers)
    friend, stranger = (d.topk(near, largest=False)[0] for d in (friends, strangers))
    excess = (friend - stranger).clamp(min=0) / stranger.detach().mean()
    return excess.square().mean()


def check_near(near: int, friends: Tensor, strangers: Tensor) -> None:
    """Raise ValueError unless there are `near` other images with the label, and without it."""
    most = min(friends.shape[1] - 1, strangers.shape[1])
    if not 1 <= near <= most:
        raise ValueError(f"near is {near}, expected 1 to {most}, as many as there are neighbours.")


def kept_alive(
    extractor: Classifier, data: Data, goal: Targeted, budget: int, weight: float, near: int
) -> Callable[[Tensor, Tensor], Tensor]:
    """Bullseye's loss plus a weighted `outvoted_loss`, for `feature_collision`."""
    clean = torch.ones_like(data.y, dtype=torch.bool)
    bases = feature_collision.nearest_bases([extractor], data, goal, budget)
    clean[bases] = False  # these become poisons
    mine = data.y == goal.adversarial_class
    with torch.no_grad():
        own, others = (extractor.features(data.x[rows]) for rows in (clean & mine, ~mine))

    def loss(features: Tensor, target: Tensor) -> Tensor:
        penalty = outvoted_loss(features, own, others, near)
        return feature_collision.bullseye_loss(features, target) + weight * penalty

    return loss


def hidden_alignment(clean: Tensor, weight: float) -> Objective:
    """The alignment loss plus a penalty on how far the features move, for gradient matching.

    clean: the base images (P, C, H, W). The penalty is the squared distance of features from those
    of the base images, as a share of their mean squared length, times `weight`.
    Source: `gradient-matching-hidden` of Geiping and others (arXiv 2102.13624), released code.
    """
    if not weight >= 0:
        raise ValueError(f"The weight is {weight}, expected 0 or more.")

    def loss(model: Classifier, images: Tensor, labels: Tensor, wanted: Gradient) -> Tensor:
        with torch.no_grad():
            before = model.features(clean)
        moved = (model.features(images) - before).square().sum() / before.square().sum()
        return gradient_matching.alignment_loss(model, images, labels, wanted) + weight * moved

    return loss
