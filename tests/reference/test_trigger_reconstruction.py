"""Triggers by hand: a pixel that opens a linear model is found; the slopes of the loss."""

import statistics

import pytest
import torch
from torch.autograd import gradcheck

from course_utils.data import Data
from course_utils.defenses.repair import fine_tune
from course_utils.defenses.trigger_reconstruction import (
    Reconstruction,
    anomaly_indices,
    looked_at,
    reconstruct,
    reconstruct_all,
    smallest,
    trigger_loss,
    trigger_of,
    unlearn_trigger,
)
from course_utils.models import build
from tests.reference.small import drawn, flat, models, noise_data

DATA = noise_data(40)
MODEL = models(DATA, 5)[0]
MASK = torch.rand(6, 5, generator=drawn(1))
PATTERN = torch.rand(1, 6, 5, generator=drawn(2))


def test_the_loss_by_hand():
    shown = torch.stack([(1 - MASK) * image + MASK * PATTERN for image in DATA.x])
    losses = -MODEL(shown).log_softmax(1)[:, 2]
    expected = sum(losses.tolist()) / len(DATA) + 0.3 * sum(MASK.flatten().tolist())
    found = trigger_loss(MODEL, DATA.x, 2, MASK, PATTERN, 0.3)
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_the_slopes_of_the_loss_are_the_numerical_ones():
    model, images = models(DATA, 5)[0].double(), DATA.x.double()
    given = [part.double().requires_grad_() for part in (MASK * 0.9 + 0.05, PATTERN * 0.9 + 0.05)]
    assert gradcheck(lambda m, p: trigger_loss(model, images, 1, m, p, 0.1), given)


def opened_by_a_pixel():
    """A linear model that is sure of class 0, unless the last pixel is bright: then of class 1."""
    model = build("logistic_regression", DATA.shape, 3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.head.bias[0] = 10
        model.head.weight[1, -1] = 25
    return model.eval()


def dark_corner() -> Data:
    x = DATA.x.clone()
    x[:, 0, -1, -1] *= 0.2
    return Data(x, DATA.y, DATA.classes)


def test_the_pixel_that_opens_a_model_is_found():
    found = reconstruct(opened_by_a_pixel(), dark_corner(), 1, seed=0, steps=200)
    assert found.rate >= 0.99 and found.label == 1
    assert found.mask.argmax() == found.mask.numel() - 1
    assert found.mask[-1, -1] > 0.3 and found.mask.sum() < 3 and found.pattern[0, -1, -1] > 0.5
    assert trigger_of(found)(DATA.x)[:, 0, -1, -1].min() > 0.2


def test_a_class_that_nothing_opens_is_infinitely_far():
    found = reconstruct_all(opened_by_a_pixel(), dark_corner(), seed=0, steps=30)
    assert [one.label for one in found] == [0, 1, 2]
    assert found[2].distance == float("inf") and found[2].rate == 0
    assert smallest(found).distance < float("inf")


def test_the_rate_is_counted_on_other_classes_alone():
    model, data = opened_by_a_pixel(), dark_corner()
    seen = []
    model.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    reconstruct(model, data, 1, seed=0, steps=10)
    assert seen == [32] * 10 + [int((data.y != 1).sum())]


def test_looking_counts_how_often_it_works():
    given = MODEL((1 - MASK) * DATA.x + MASK * PATTERN).argmax(1)
    for label in range(3):
        found = looked_at(MODEL, DATA.x, label, MASK, PATTERN)
        assert found.rate == pytest.approx((given == label).float().mean().item())
        assert torch.equal(found.mask, MASK) and torch.equal(found.pattern, PATTERN)


@pytest.mark.parametrize("n", [3, 4, 10])
def test_anomaly_indices_by_medians(n):
    distances = torch.rand(n, generator=drawn(n)) * 100
    values = distances.tolist()
    centre = statistics.median(values)
    spread = 1.4826 * statistics.median([abs(value - centre) for value in values])
    expected = torch.tensor([(centre - value) / spread for value in values])
    assert torch.allclose(anomaly_indices(distances), expected, rtol=1e-4)


def test_unlearning_trains_on_each_image_with_and_without_the_trigger():
    trigger = trigger_of(Reconstruction(0, MASK, PATTERN, 1.0))
    both = Data(torch.cat([DATA.x, trigger(DATA.x)]), torch.cat([DATA.y, DATA.y]), DATA.classes)
    expected = fine_tune(MODEL, both, 0.05, 4, 10)
    found = unlearn_trigger(MODEL, DATA, trigger, 0.05, 4, 10)
    assert torch.equal(flat(found.parameters()), flat(expected.parameters()))
