"""Triggers, lesson 07, pixel by pixel."""

import pytest
import torch

from course_utils.attacks.triggers import (
    CORNERS,
    apply_trigger,
    bernoulli_patch,
    blend,
    blended_pattern,
    draw_corners,
    paste,
    solid_patch,
)
from tests.reference.small import drawn


def test_the_formula_by_hand():
    images = torch.tensor([0.2, 0.2, 0.2, 0.9])
    mask = torch.tensor([0.0, 1.0, 0.25, 0.5])
    pattern = torch.tensor([0.7, 0.7, 0.6, 1.3])
    found = apply_trigger(images, mask, pattern)
    torch.testing.assert_close(found, torch.tensor([0.2, 0.7, 0.3, 1.0]))
    assert images.tolist() == pytest.approx([0.2, 0.2, 0.2, 0.9])


@pytest.mark.parametrize("corner", CORNERS)
def test_a_patch_lies_one_pixel_from_its_corner(corner):
    patch = torch.tensor([[0.1, 0.2], [0.3, 0.4]])
    images = torch.full((2, 2, 6, 7), 0.9)
    top = 1 if "top" in corner else 6 - 1 - 2
    left = 1 if "left" in corner else 7 - 1 - 2
    expected = images.clone()
    for row in range(2):
        for column in range(2):
            expected[:, :, top + row, left + column] = patch[row, column]
    torch.testing.assert_close(paste(images, patch, corner, 5), expected)
    assert paste(torch.zeros(1, 1, 4, 9), patch, corner, 0).sum().item() == pytest.approx(1.0)


def test_corners_are_drawn_from_the_seed_equally_often():
    drawings = draw_corners(4000, "random", 3)
    assert (drawings.bincount(minlength=4) / 4000 - 0.25).abs().max() < 0.03
    assert torch.equal(drawings, draw_corners(4000, "random", 3))
    assert not torch.equal(drawings, draw_corners(4000, "random", 4))
    assert draw_corners(3, "top right", 3).tolist() == [1, 1, 1]
    images = torch.zeros(9, 1, 5, 5)
    mixed = paste(images, torch.ones(1, 1), "random", 3)
    places = [(1, 1), (1, 3), (3, 1), (3, 3)]
    expected = [places[number] for number in draw_corners(9, "random", 3).tolist()]
    assert [tuple(where[2:]) for where in mixed.nonzero().tolist()] == expected


def test_the_patches_and_their_arguments():
    images = torch.full((3, 1, 9, 9), 0.5)
    grey = solid_patch(3, 0.25, "top left")(images)
    expected = images.clone()
    expected[..., 1:4, 1:4] = 0.25
    assert torch.equal(grey, expected)
    white = solid_patch(2)(images)
    assert (white[..., 6:8, 6:8] == 1).all() and (white == 1).sum() == 3 * 4
    spread = [solid_patch(2, corner="random", seed=seed)(images) for seed in (2, 3)]
    assert not torch.equal(*spread)

    noisy = [bernoulli_patch(5, seed)(images)[0, 0, 3:8, 3:8] for seed in (2, 2, 3)]
    assert torch.equal(noisy[0], noisy[1]) and not torch.equal(noisy[0], noisy[2])
    assert set(noisy[0].flatten().tolist()) == {0.0, 1.0}
    large = bernoulli_patch(60, 4, "top left")(torch.zeros(1, 1, 70, 70))
    assert large[..., 1:61, 1:61].mean().item() == pytest.approx(0.5, abs=0.03)
    corners = [bernoulli_patch(2, 5, "random")(images) for _ in "ab"]
    assert torch.equal(*corners)


def test_a_blended_pattern_by_hand():
    images = torch.rand(3, 2, 4, 4, generator=drawn(1))
    pattern = torch.rand(2, 4, 4, generator=drawn(6))
    for strength in (0.1, 0.4):
        expected = (1 - strength) * images + strength * pattern
        torch.testing.assert_close(blend(images, strength, 6), expected)
        torch.testing.assert_close(blended_pattern(strength, 6)(images), expected)
    assert torch.equal(blended_pattern(0.0, 6)(images), images)
