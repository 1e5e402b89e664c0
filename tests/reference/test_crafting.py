"""The tools of crafting, lesson 04: by hand, and Adam written out."""

import pytest
import torch

from course_utils.attacks.crafting import (
    candidates,
    granted,
    project,
    random_bases,
    random_start,
    signed_adam,
)
from course_utils.data import Data
from course_utils.models import build
from course_utils.threat import Targeted, ThreatModelError
from tests.reference.small import CLASSES, drawn


def test_a_projection_by_hand():
    base = torch.tensor([0.4, 0.4, 0.4, 0.9, 0.1])
    images = torch.tensor([0.0, 0.5, 1.0, 2.0, -1.0])
    torch.testing.assert_close(
        project(images, base, 0.25), torch.tensor([0.15, 0.5, 0.65, 1.0, 0.0])
    )
    assert project(images, base, None).tolist() == [0.0, 0.5, 1.0, 1.0, 0.0]
    assert torch.equal(project(images, base, 0.0), base)


def some_labels() -> Data:
    return Data(torch.zeros(6, 1, 1, 1), torch.tensor([2, 0, 2, 1, 2, 0]), CLASSES)


def test_candidates_are_the_rows_of_one_class():
    assert candidates(some_labels(), 2, 3).tolist() == [0, 2, 4]
    assert candidates(some_labels(), 1, 1).tolist() == [3]
    with pytest.raises(ThreatModelError):
        candidates(some_labels(), 2, 4)


def test_random_bases_come_from_their_class_and_each_can_come():
    drawings = [random_bases(some_labels(), 2, 2, seed).tolist() for seed in range(20)]
    assert all(len(set(rows)) == 2 and set(rows) <= {0, 2, 4} for rows in drawings)
    assert {rows[0] for rows in drawings} == {0, 2, 4}
    assert drawings == [random_bases(some_labels(), 2, 2, seed).tolist() for seed in range(20)]


def test_a_goal_is_granted_where_every_model_grants_it():
    def always(label: int):
        model = build("logistic_regression", (1, 2, 2), 3)
        with torch.no_grad():
            model.head.weight.zero_()
            model.head.bias.copy_(torch.eye(3)[label])
        return model

    goal = Targeted(torch.zeros(1, 2, 2), 0, 2)
    assert granted([always(2), always(2)], goal)
    assert not granted([always(2), always(0)], goal)
    assert not granted([always(0), always(0)], goal)


@pytest.mark.parametrize(("epsilon", "steps"), [(0.05, 9), (0.5, 16), (None, 4)])
def test_signed_adam_is_adam_on_signs_written_out(epsilon, steps):
    base = torch.rand(2, 1, 2, 3, generator=drawn(1), dtype=torch.float64)
    start = base + 0.1 * torch.randn(base.shape, generator=drawn(2), dtype=torch.float64)
    aim = torch.rand(base.shape, generator=drawn(4), dtype=torch.float64)
    lr = 0.02

    x, first, second, losses, rate = project(start, base, epsilon), 0.0, 0.0, [], lr
    for step in range(1, steps + 1):
        losses.append((3 * (x - aim).square()).sum().item())
        sign = (6 * (x - aim)).sign()
        first, second = 0.9 * first + 0.1 * sign, 0.999 * second + 0.001 * sign**2
        moved = rate * (first / (1 - 0.9**step)) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
        x = x - moved
        if epsilon is not None:
            x = x.clamp(base - epsilon, base + epsilon)
        x = x.clamp(0, 1)
        rate = lr * 0.1 ** sum(step >= steps * k // 8 for k in (3, 5, 7))
    found, seen = signed_adam(
        lambda images: 3 * (images - aim).square().sum(), start, base, epsilon, steps=steps, lr=lr
    )
    torch.testing.assert_close(found, x)
    assert seen == pytest.approx(losses)
    assert not found.requires_grad


def test_a_random_start_has_gaussian_noise_that_is_cut():
    base = torch.full((1, 1, 200, 200), 0.5)
    change = random_start(base, 0.1, drawn(5)) - base
    assert change.abs().max().item() == pytest.approx(0.1, abs=1e-6)
    cut = (change.abs() > 0.1 - 1e-6).float().mean().item()
    assert cut == pytest.approx(0.3173, abs=0.01)  # beyond one deviation
    assert (change > 0).float().mean().item() == pytest.approx(0.5, abs=0.01)
    assert torch.equal(change, random_start(base, 0.1, drawn(5)) - base)
    assert not torch.equal(change, random_start(base, 0.1, drawn(6)) - base)
    black = random_start(torch.zeros(1, 1, 20, 20), 0.1, drawn(5))
    assert black.min() == 0 and (black == 0).float().mean().item() == pytest.approx(0.5, abs=0.1)
