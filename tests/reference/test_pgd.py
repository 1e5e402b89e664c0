"""PGD, lesson 07: one step by hand, then the whole loop written out in float64."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from course_utils.attacks.pgd import pgd, pgd_step
from course_utils.models import build
from tests.reference.small import drawn


def test_one_step_by_hand():
    base = torch.tensor([0.5, 0.5, 0.5, 0.95, 0.02, 0.5])
    images = torch.tensor([0.5, 0.58, 0.42, 0.98, 0.0, 0.5])
    gradient = torch.tensor([3.0, 0.01, -9.0, 1.0, -0.2, 0.0])
    found = pgd_step(images, gradient, base, 0.05, 0.1)
    torch.testing.assert_close(found, torch.tensor([0.55, 0.6, 0.4, 1.0, 0.0, 0.5]))


@pytest.mark.parametrize(("epsilon", "steps"), [(0.1, 1), (0.1, 4), (0.02, 3), (1.0, 2)])
def test_the_loop_written_out(epsilon, steps):
    model = build("mlp", (1, 4, 4), 3, seed=4, width=6).double()
    base = torch.rand(5, 1, 4, 4, generator=drawn(2), dtype=torch.float64)
    labels = torch.tensor([0, 2, 1, 1, 0])
    start = 2 * torch.rand(base.shape, generator=drawn(7)) - 1
    x = (base + epsilon * start).clamp(0, 1)
    for _ in range(steps):
        signs = []
        for image, label in zip(x, labels, strict=True):
            image = image.clone().requires_grad_()
            loss = cross_entropy(model(image[None]), label[None])
            signs.append(torch.autograd.grad(loss, image)[0].sign())
        x = x + 2.5 * epsilon / steps * torch.stack(signs)
        x = base + (x - base).clamp(-epsilon, epsilon)
        x = x.clamp(0, 1)
    found = pgd(model, base, labels, epsilon, steps, drawn(7))
    torch.testing.assert_close(found, x)
    assert not found.requires_grad
    assert (found - base).abs().max().item() == pytest.approx(epsilon, abs=1e-6) or epsilon == 1


def test_a_start_reaches_both_sides_of_the_bound():
    """A model whose loss does not depend on the images leaves the random start as it is."""

    def model(images):
        return images.flatten(1)[:, :2] * 0

    base = torch.full((1, 1, 100, 100), 0.5)
    change = pgd(model, base, torch.tensor([0]), 0.1, 1, drawn(3)) - base
    quarters = torch.histc(change, 4, -0.1, 0.1) / change.numel()
    assert (quarters - 0.25).abs().max() < 0.02
    other = pgd(model, base, torch.tensor([0]), 0.1, 1, drawn(4)) - base
    assert not torch.equal(change, other)
