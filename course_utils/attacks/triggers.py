"""Built in lesson 07, backdoors.

Generated from notebooks/07_backdoors.ipynb: edit it there, then run make notebooks.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from course_utils.threat import ThreatModelError


def apply_trigger(images: Tensor, mask: Tensor, pattern: Tensor) -> Tensor:
    """Show the pattern where the mask is 1, the image where it is 0, and a mixture in between.

    images: (N, C, H, W). mask and pattern: (H, W), or more axes, so that they fit the images. All
    values lie in [0, 1], those of the result too. The images that came in stay as they are.
    """
    return ((1 - mask) * images + mask * pattern).clamp(0, 1)


CORNERS = ("top left", "top right", "bottom left", "bottom right")
Trigger = Callable[[Tensor], Tensor]  # images (N, C, H, W) -> the same images with the trigger


def paste(images: Tensor, patch: Tensor, corner: str, seed: int) -> Tensor:
    """Paste a patch (side, side) into a corner of images (N, C, H, W), one pixel from the edges.

    corner: one of CORNERS, or "random": the n-th image gets the n-th corner drawn from `seed`.
    Raises ThreatModelError if the patch does not fit.
    """
    side, size = len(patch), min(images.shape[-2:])
    if side + 2 > size:
        raise ThreatModelError(
            f"A patch of {side} by {side} pixels, one pixel from the edges, does not fit into "
            f"images of {images.shape[-2]} by {images.shape[-1]}: use at most {size - 2}."
        )
    drawn = draw_corners(len(images), corner, seed).to(images.device)
    mask, pattern = torch.zeros_like(images[:, :1]), torch.zeros_like(images[:, :1])
    for number, name in enumerate(CORNERS):
        rows = slice(1, side + 1) if name.startswith("top") else slice(-side - 1, -1)
        columns = slice(1, side + 1) if name.endswith("left") else slice(-side - 1, -1)
        mask[drawn == number, :, rows, columns] = 1
        pattern[drawn == number, :, rows, columns] = patch.to(images)
    return apply_trigger(images, mask, pattern)


def draw_corners(n: int, corner: str, seed: int) -> Tensor:
    """The number of the corner of each of n images (N,)."""
    if corner == "random":
        return torch.randint(4, (n,), generator=torch.Generator().manual_seed(seed))
    if corner not in CORNERS:
        raise ThreatModelError(f"Unknown corner {corner!r}: use {', '.join(CORNERS)} or random.")
    return torch.full((n,), CORNERS.index(corner))


def check_side(side: int) -> None:
    """Raise ThreatModelError unless the side of a patch is a positive whole number."""
    if not isinstance(side, int) or side < 1:
        raise ThreatModelError(f"The side of the patch is {side}, expected 1 pixel or more.")


def check_share(name: str, value: float) -> None:
    """Raise ThreatModelError unless the value lies in [0, 1]."""
    if not 0 <= value <= 1:
        raise ThreatModelError(f"The {name} is {value}, expected a value in [0, 1].")


def solid_patch(
    side: int, value: float = 1.0, corner: str = "bottom right", seed: int = 0
) -> Trigger:
    """A square of one grey level; 1 is white."""
    check_side(side)
    check_share("grey level of the patch", value)
    return partial(paste, patch=torch.full((side, side), float(value)), corner=corner, seed=seed)


def bernoulli_patch(side: int, seed: int, corner: str = "bottom right") -> Trigger:
    """A square whose pixels are black or white, one coin flip each."""
    check_side(side)
    generator = torch.Generator().manual_seed(seed)
    patch = torch.randint(2, (side, side), generator=generator).float()
    return partial(paste, patch=patch, corner=corner, seed=seed)


def blend(images: Tensor, strength: float, seed: int) -> Tensor:
    """Mix one random image, the same for all, into images (N, C, H, W)."""
    generator = torch.Generator().manual_seed(seed)
    pattern = torch.rand(images.shape[1:], generator=generator).to(images)
    return apply_trigger(images, torch.full_like(pattern, strength), pattern)


def blended_pattern(strength: float, seed: int) -> Trigger:
    """A random image over the whole of each image; strength 0.1 shows a tenth of it."""
    check_share("strength of the pattern", strength)
    return partial(blend, strength=strength, seed=seed)
