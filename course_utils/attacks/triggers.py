"""Built in lesson 07, backdoors.

Generated from notebooks/07_backdoors.ipynb: edit it there, then run make notebooks.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from course_utils import guards


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
    Raises ValueError if the patch does not fit.
    """
    side = len(patch)
    guards.check_room(side, images)
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
    guards.check_corner(corner, CORNERS)
    if corner == "random":
        return torch.randint(4, (n,), generator=torch.Generator().manual_seed(seed))
    return torch.full((n,), CORNERS.index(corner))


def solid_patch(
    side: int, value: float = 1.0, corner: str = "bottom right", seed: int = 0
) -> Trigger:
    """A square of one grey level; 1 is white."""
    guards.check_whole("The side of the patch", side)
    guards.check_fraction("The grey level of the patch", value)
    return partial(paste, patch=torch.full((side, side), float(value)), corner=corner, seed=seed)


def bernoulli_patch(side: int, seed: int, corner: str = "bottom right") -> Trigger:
    """A square whose pixels are black or white, one coin flip each."""
    guards.check_whole("The side of the patch", side)
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
    guards.check_fraction("The strength of the pattern", strength)
    return partial(blend, strength=strength, seed=seed)
