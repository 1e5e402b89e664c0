"""How long an adapted objective takes: measured and reported, never asserted."""

import pytest
import torch

from course_utils.attacks.adaptive import clipped_alignment, rewritten_alignment
from course_utils.attacks.gradient_matching import alignment_loss, target_gradient
from course_utils.data import balanced, load
from course_utils.defenses.pgd_training import pgd_training
from course_utils.models import build
from course_utils.runtime import one_thread

OBJECTIVES = ("plain", "clipped", "PGD held constant")


@pytest.mark.benchmark(group="one step of crafting, MLP, 150 poisons")
@pytest.mark.parametrize("name", OBJECTIVES)
def test_crafting_step(benchmark, name):
    """The ratios to the plain alignment are what knowing the defense costs the attacker."""
    data = balanced(load()[0], 3000, seed=0)
    model = build("mlp", data.shape, 10).eval()
    wanted = target_gradient(model, data.x[:1], 1 - data.y[:1].clamp(max=1))
    images, labels = data.x[-150:].clone().requires_grad_(), data.y[-150:]
    pgd = pgd_training(16 / 255, 1)
    loss = {
        "plain": alignment_loss,
        "clipped": clipped_alignment(1.0),
        "PGD held constant": rewritten_alignment(
            pgd, data, torch.Generator().manual_seed(0), constant=True
        ),
    }[name]

    def step() -> None:
        torch.autograd.grad(loss(model, images, labels, wanted), images)

    with one_thread():
        benchmark.pedantic(step, rounds=10, warmup_rounds=2)
