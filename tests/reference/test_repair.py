"""Repairs by slow loops, hand-worked values and numerical gradients."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from course_utils.defenses.repair import (
    activations,
    dormant_units,
    fine_tune,
    forgetting,
    known_loss,
    last_hidden,
    negated_steps,
    prune,
    strip_entropy,
)
from course_utils.models import Classifier
from course_utils.threat import accuracy
from course_utils.training import Recipe, train
from tests.reference.small import drawn, flat, models, noise_data

DATA = noise_data(40)
MODEL = models(DATA, 5)[0]


def by_loop(model, data) -> float:
    losses = []
    for image, label in zip(data.x, data.y, strict=True):
        logits = model(image[None])[0]
        if logits.argmax() == label:
            losses.append(-logits.log_softmax(0)[label].item())
    return sum(losses) / len(losses) if losses else 0.0


def test_the_known_loss_is_that_of_the_images_with_their_label():
    assert known_loss(MODEL, DATA).item() == pytest.approx(by_loop(MODEL, DATA), rel=1e-5)
    wrong = DATA[MODEL(DATA.x).argmax(1) != DATA.y]
    assert 0 < len(wrong) < len(DATA) and known_loss(MODEL, wrong) == 0


def test_a_forgetting_gradient_is_the_numerical_one():
    model, found, weight = copy.deepcopy(MODEL).double(), DATA[:12], 0.7
    x, y = DATA.x[20:].double(), DATA.y[20:]
    found = type("Found", (), {"x": found.x.double(), "y": found.y, "__len__": lambda _: 12})()
    given = forgetting(found, weight).gradients(model, x, y, None)

    def loss() -> float:
        up = torch.tensor(by_loop(model, found), dtype=torch.double)
        return (cross_entropy(model(x), y) - weight * up).item()

    for parameter, gradient in zip(model.parameters(), given, strict=True):
        place = gradient.abs().argmax().item()
        entries = parameter.data.view(-1)
        old, step = entries[place].item(), 1e-6
        entries[place] = old + step
        above = loss()
        entries[place] = old - step
        below = loss()
        entries[place] = old
        assert (above - below) / (2 * step) == pytest.approx(
            gradient.view(-1)[place].item(), rel=1e-3
        )


def test_a_negated_step_goes_uphill_by_the_gradient():
    found = DATA[MODEL(DATA.x).argmax(1) == DATA.y]
    gradients = torch.autograd.grad(
        cross_entropy(MODEL(found.x), found.y), list(MODEL.parameters())
    )
    stepped = negated_steps(MODEL, found, 0.02, 1)
    for before, after, gradient in zip(
        MODEL.parameters(), stepped.parameters(), gradients, strict=True
    ):
        assert torch.allclose(after, before + 0.02 * gradient, atol=1e-7)


@pytest.mark.parametrize(("n", "batch_size", "epochs"), [(40, 40, 12), (250, 100, 4), (1, 1, 12)])
def test_fine_tuning_is_training_on_for_so_many_steps(n, batch_size, epochs):
    data = noise_data(n)
    recipe = Recipe(epochs, batch_size, 0.05)
    expected = train(MODEL, data, recipe, scenario="finetune", seed=6)
    found = fine_tune(MODEL, data, 0.05, 6, steps=12)
    assert torch.equal(flat(found.parameters()), flat(expected.parameters()))


def test_fine_tuning_passes_a_defense_on():
    tuned = [
        fine_tune(MODEL, DATA, 0.05, 6, 5, *given) for given in ((), (forgetting(DATA[:9], 0.5),))
    ]
    assert not torch.equal(*(model.head.weight for model in tuned))


def hand_made() -> Classifier:
    """Four units that give 1, 2, 3 and 4 times the first pixel; only the last one is read."""
    features = nn.Sequential(nn.Flatten(), nn.Linear(30, 4), nn.ReLU())
    model = Classifier(features, 4, 3)
    with torch.no_grad():
        features[1].weight.zero_()
        features[1].weight[:, 0] = torch.tensor([3.0, 1.0, 4.0, 2.0])
        features[1].bias.zero_()
        model.head.weight.zero_()
        model.head.bias.zero_()
        model.head.weight[1, 2] = 1
    return model.eval()


def test_activations_and_dormant_units_by_hand():
    model, data = hand_made(), noise_data(30)
    pixel = data.x[:, 0, 0, 0].mean()
    assert torch.allclose(activations(model, data.x), pixel * torch.tensor([3.0, 1, 4, 2]))
    assert dormant_units(model, data[data.y == 1], 0.5).tolist() == [1, 3, 0]
    assert last_hidden(model) is model.features[1]


def test_pruning_stops_before_the_tolerance_is_passed():
    data = noise_data(30)
    model, units = hand_made(), []
    with torch.no_grad():
        model.head.weight.copy_(torch.randn(3, 4, generator=drawn(1)))
    for tolerance in (0.0, 0.1, 0.3, 1.0):
        units.append(dormant_units(model, data, tolerance))
        least = accuracy(model, data) - tolerance
        assert accuracy(prune(model, units[-1]), data) >= least
        more = activations(model, data.x).argsort()[: len(units[-1]) + 1]
        assert len(more) == 4 or accuracy(prune(model, more), data) < least
    assert len(units[-1]) == 3


def test_strip_by_hand():
    model, image = hand_made(), torch.zeros(1, 6, 5)
    overlays = torch.zeros(2, 1, 6, 5)
    overlays[1, 0, 0, 0] = 1
    p = torch.tensor([0.0, 2.0, 0.0]).softmax(0)
    expected = (torch.tensor(3.0).log() - (p * p.log()).sum()) / 2
    assert strip_entropy(model, image, overlays) == pytest.approx(expected.item(), rel=1e-5)
