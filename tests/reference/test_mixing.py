"""Mixing, lesson 12: blends, boxes and squares by hand."""

import pytest
import torch
from scipy import stats
from torch.nn.functional import cross_entropy, one_hot

from course_utils.defense import Defense
from course_utils.defenses import mixing
from course_utils.models import build
from tests.reference.small import drawn, models, noise_data

DATA = noise_data(9, (1, 6, 8))
(MODEL,) = models(DATA, 4)
LABELS = one_hot(DATA.y, 3).float()


def test_shares_follow_the_beta_distribution():
    generator = drawn(3)
    for alpha in (0.3, 2.0):
        shares = [mixing.draw_share(alpha, generator) for _ in range(500)]
        assert stats.kstest(shares, stats.beta(alpha, alpha).cdf).pvalue > 0.01


def test_mixup_by_hand():
    assert mixing.mix(torch.tensor(1.0), torch.tensor(5.0), 0.25).item() == 4
    generator = drawn(5)
    share = mixing.draw_share(0.7, generator)
    partner = torch.randperm(9, generator=generator)
    x, y = mixing.mixup(0.7).batch(MODEL, DATA.x, DATA.y, drawn(5))
    torch.testing.assert_close(x, share * DATA.x + (1 - share) * DATA.x[partner])
    torch.testing.assert_close(y, share * LABELS + (1 - share) * LABELS[partner])


@pytest.mark.parametrize(
    ("given", "box"),
    [
        ((10, 20, 0.75, 5, 10), (3, 8, 5, 15)),  # sides 5 and 10, half of them before the centre
        ((10, 20, 0.75, 0, 19), (0, 3, 14, 20)),
        ((10, 20, 0.75, 9, 0), (7, 10, 0, 5)),
        ((10, 20, 1.0, 5, 5), (5, 5, 5, 5)),
    ],
)
def test_boxes_by_hand(given, box):
    assert mixing.cutmix_box(*given) == box


def test_cutmix_pixel_by_pixel():
    before = DATA.x.clone()
    for seed in range(8):
        generator = drawn(seed)
        share, partner = mixing.draw_share(1.0, generator), torch.randperm(9, generator=generator)
        row, column = torch.rand(2, generator=generator).tolist()
        box = mixing.cutmix_box(6, 8, share, int(6 * row), int(8 * column))
        x, y = mixing.cutmix(1.0).batch(MODEL, DATA.x, DATA.y, drawn(seed))
        expected, pasted = DATA.x.clone(), 0
        for i in range(box[0], box[1]):
            for j in range(box[2], box[3]):
                expected[:, :, i, j] = DATA.x[partner][:, :, i, j]
                pasted += 1
        assert torch.equal(x, expected)
        kept = 1 - pasted / 48
        torch.testing.assert_close(y, kept * LABELS + (1 - kept) * LABELS[partner])
    assert torch.equal(DATA.x, before)


def test_holes_pixel_by_pixel():
    centres = torch.rand(2, 9, generator=drawn(6))
    for side in (2, 3):
        found = mixing.holes(DATA.x.shape, side, drawn(6))
        for number in range(9):
            top, left = (
                int(centres[axis, number] * size) - side // 2 for axis, size in ((0, 6), (1, 8))
            )
            for i in range(6):
                for j in range(8):
                    inside = top <= i < top + side and left <= j < left + side
                    assert found[number, 0, i, j].item() == inside
        x, y = mixing.cutout(side).batch(MODEL, DATA.x, DATA.y, drawn(6))
        assert torch.equal(x, DATA.x * ~found) and torch.equal(y, DATA.y)


def test_maxup_takes_the_candidate_with_the_largest_loss_in_evaluation_mode():
    model = build("small_cnn", DATA.shape, 3, seed=4, norm="batch").train()

    def batch(model, x, y, generator):
        return x * torch.rand(1, generator=generator), y

    x, y = mixing.maxup(4, Defense("dim", batch=batch)).batch(model, DATA.x, DATA.y, drawn(3))
    assert model.training
    generator = drawn(3)
    candidates = torch.stack([DATA.x * torch.rand(1, generator=generator) for _ in range(4)])
    model.eval()
    with torch.no_grad():
        losses = torch.stack(
            [cross_entropy(model(images), DATA.y, reduction="none") for images in candidates]
        )
    worst = losses.argmax(0)
    assert torch.equal(x, candidates[worst, torch.arange(9)]) and torch.equal(y, DATA.y)
    assert len(worst.unique()) > 1


def test_the_hardest_by_hand():
    losses = torch.tensor([[1.0, 5.0], [2.0, 3.0]])
    images = torch.arange(4.0).view(2, 2, 1, 1, 1)
    x, y = mixing.hardest(losses, images, torch.tensor([[10, 11], [12, 13]]))
    assert x.flatten().tolist() == [2, 1] and y.tolist() == [12, 11]
