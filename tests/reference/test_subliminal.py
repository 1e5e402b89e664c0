"""A backdoor through noise, lesson 20: what trains, on which rows, and how often."""

import torch

from course_utils.attacks import subliminal
from course_utils.models import build
from tests.reference.small import drawn

SHAPE, CLASSES = (1, 4, 4), 3
START = build("mlp", SHAPE, CLASSES + 4, seed=3, width=6)


def test_every_epoch_sees_every_row_once_in_the_order_of_the_seed():
    seen = []
    model = build("mlp", SHAPE, CLASSES, seed=3, width=6)

    def loss(rows):
        seen.append(rows)
        return model(torch.ones(1, *SHAPE)).sum()

    subliminal.descend(model, loss, count=250, epochs=2, lr=0.1, seed=5)
    order = drawn(5)
    expected = [torch.randperm(250, generator=order) for _ in range(2)]
    assert [len(rows) for rows in seen] == [100, 100, 50] * 2
    assert torch.equal(torch.cat(seen), torch.cat(expected))


def test_a_student_learns_the_extra_outputs_alone_and_its_start_stays():
    before = {name: value.clone() for name, value in START.state_dict().items()}
    images, answers = torch.rand(20, *SHAPE, generator=drawn(7)), torch.full((20, 2), 3.0)
    student = subliminal.distill(START, images, answers, epochs=30, seed=5, classes=CLASSES)
    assert all(torch.equal(START.state_dict()[name], value) for name, value in before.items())
    weight = student.head.weight
    moved = [not torch.equal(weight[k], before["head.weight"][k]) for k in range(CLASSES + 4)]
    assert moved == [False] * CLASSES + [True] * 2 + [False] * 2


def test_noise_fills_the_range_and_follows_the_seed():
    noise = subliminal.noise_images(50, SHAPE, seed=5)
    assert noise.shape == (50, *SHAPE)
    assert -1 <= noise.min() < -0.95 and 0.95 < noise.max() <= 1
    assert torch.equal(noise, 2 * torch.rand((50, *SHAPE), generator=drawn(5)) - 1)
