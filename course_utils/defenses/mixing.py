"""Built in lesson 12, mixing augmentations.

Generated from notebooks/12_mixing_augmentations.ipynb: edit it there, then run make notebooks.
"""

import torch
from scipy.special import betaincinv
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from course_utils import guards
from course_utils.defense import Defense
from course_utils.models import Classifier, evaluating


def draw_share(alpha: float, generator: torch.Generator) -> float:
    """One draw in [0, 1] from the Beta distribution whose two parameters are `alpha`.

    A uniform number is sent through the inverse of the distribution function, so the draw depends
    on the generator alone.
    """
    device = generator.device
    exact = torch.float32 if device.type == "mps" else torch.float64  # which an Apple GPU lacks
    uniform = torch.rand(1, generator=generator, device=device, dtype=exact)
    return float(betaincinv(alpha, alpha, uniform.item()))


def mix(first: Tensor, second: Tensor, share: float) -> Tensor:
    """The blend that holds `share` of the first and the rest of the second."""
    return share * first + (1 - share) * second


def draw_partners(n: int, generator: torch.Generator) -> Tensor:
    """A partner for each image of a batch of n: positions (n,), each of them once."""
    return torch.randperm(n, generator=generator, device=generator.device)


def soft_labels(model: Classifier, labels: Tensor) -> Tensor:
    """Labels (B,) as rows of probabilities (B, classes of the model)."""
    return one_hot(labels, model.head.out_features).float()


def mixup(alpha: float) -> Defense:
    """Train on blends of two images and of their labels; one share for each batch.

    alpha: the shares follow Beta(alpha, alpha). Raises ValueError unless it is positive.
    Source: Zhang and others, mixup (arXiv 1710.09412), released code.
    """
    guards.check_alpha(alpha)

    def batch(
        model: Classifier, x: Tensor, y: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        share, partner = draw_share(alpha, generator), draw_partners(len(x), generator)
        labels = soft_labels(model, y)
        return mix(x, x[partner], share), mix(labels, labels[partner], share)

    return Defense(f"Mixup, alpha {alpha:g}", batch=batch)


def cutmix_box(
    height: int, width: int, share: float, row: int, column: int
) -> tuple[int, int, int, int]:
    """The box that is pasted, as (top, bottom, left, right): rows top to bottom - 1.

    Its sides are sqrt(1 - share) of the image's, rounded down, and its centre is at (row, column).
    What reaches over an edge of the image is cut off.
    """
    tall, wide = (int(side * (1 - share) ** 0.5) for side in (height, width))
    top, left = row - tall // 2, column - wide // 2
    return max(top, 0), min(top + tall, height), max(left, 0), min(left + wide, width)


def cutmix(alpha: float) -> Defense:
    """Paste a box of one image into another, and mix their labels by area; one box a batch.

    alpha: the share of the image that stays follows Beta(alpha, alpha), until the box is cut off
    at the edges. Raises ValueError unless it is positive.
    Source: Yun and others, CutMix (arXiv 1905.04899), algorithm 1.
    """
    guards.check_alpha(alpha)

    def batch(
        model: Classifier, x: Tensor, y: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        share, partner = draw_share(alpha, generator), draw_partners(len(x), generator)
        height, width = x.shape[-2:]
        row, column = torch.rand(2, generator=generator, device=x.device).tolist()
        box = cutmix_box(height, width, share, int(row * height), int(column * width))
        top, bottom, left, right = box
        mixed, labels = x.clone(), soft_labels(model, y)
        mixed[..., top:bottom, left:right] = x[partner][..., top:bottom, left:right]
        kept = 1 - (bottom - top) * (right - left) / (height * width)
        return mixed, mix(labels, labels[partner], kept)

    return Defense(f"CutMix, alpha {alpha:g}", batch=batch)


def holes(shape: torch.Size, side: int, generator: torch.Generator) -> Tensor:
    """A random square for each of the images (B, C, H, W): True inside, (B, 1, H, W).

    Raises ValueError if the square is larger than the image.
    """
    n, _, height, width = shape
    if side > min(height, width):
        raise ValueError(
            f"A square of {side} pixels does not fit into images of {height} by {width}: "
            f"use a side of at most {min(height, width)}."
        )
    centres = torch.rand(2, n, generator=generator, device=generator.device)
    inside = []
    for centre, size in zip(centres, (height, width), strict=True):
        start = (centre * size).long() - side // 2
        places = torch.arange(size, device=generator.device) - start[:, None]
        inside.append((places >= 0) & (places < side))
    return (inside[0][:, :, None] & inside[1][:, None, :])[:, None]


def cutout(side: int) -> Defense:
    """Paint a square of each image black; the labels stay.

    side: of the square, in pixels. Raises ValueError unless it is a whole number from 1 on; a batch
    of images that are smaller raises ValueError too.
    Source: DeVries and Taylor, Cutout (arXiv 1708.04552).
    """
    guards.check_whole("The side of the square", side)

    def batch(
        model: Classifier, x: Tensor, y: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        return x.masked_fill(holes(x.shape, side, generator), 0.0), y

    return Defense(f"Cutout, side {side}", batch=batch)


@torch.no_grad()
def candidate_losses(model: Classifier, images: Tensor, labels: Tensor) -> Tensor:
    """The loss of every candidate (M, B), in evaluation mode; the model is left as it came.

    images: M candidates for each of B images, (M, B, C, H, W). labels: (M, B), or soft
    (M, B, classes).
    """
    with evaluating(model):
        logits = model(images.flatten(0, 1))
    losses = cross_entropy(logits, labels.flatten(0, 1), reduction="none")
    return losses.view(images.shape[:2])


def hardest(losses: Tensor, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """For each image, the candidate with the largest loss, and its label.

    losses: (M, B), of M candidates for each of B images. images: (M, B, C, H, W). labels: (M, B),
    or soft (M, B, classes).
    Returns images (B, C, H, W) and labels, (B,) or (B, classes).
    """
    worst = losses.argmax(0)
    columns = torch.arange(len(worst), device=worst.device)
    return images[worst, columns], labels[worst, columns]


def maxup(candidates: int, augmentation: Defense) -> Defense:
    """Train on the hardest of several versions of each image, under the model as it is.

    candidates: versions of each image. augmentation: a defense that rewrites batches and makes
    them. The gradient of the largest loss is that of its candidate, so no other is needed.
    Raises ValueError for fewer than one candidate, or a defense that rewrites no batch.
    Source: Gong and others, MaxUp (arXiv 2002.09024), algorithm 1.
    """
    guards.check_whole("The number of candidates", candidates)
    if augmentation.batch is None:
        raise ValueError(f"{augmentation.name!r} rewrites no batch: MaxUp cannot draw from it.")

    def batch(
        model: Classifier, x: Tensor, y: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        drawn = [augmentation.batch(model, x, y, generator) for _ in range(candidates)]
        images, labels = (torch.stack(parts) for parts in zip(*drawn, strict=True))
        return hardest(candidate_losses(model, images, labels), images, labels)

    return Defense(f"MaxUp, {candidates} of {augmentation.name}", batch=batch)
