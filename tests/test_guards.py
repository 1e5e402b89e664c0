"""course_utils.guards: what every attack asks before and while it crafts."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from course_utils.data import Data
from course_utils.guards import (
    check_budget,
    check_crafting,
    check_derangement,
    check_epsilon,
    check_length,
    check_loss,
    check_models,
    check_simulation,
    check_surrogates,
    check_whole,
)
from course_utils.models import Classifier, build
from course_utils.threat import ThreatModelError

CLASSES = ("ant", "bee", "cow")


@pytest.fixture
def data() -> Data:
    x = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return Data(x, torch.arange(6) % 3, CLASSES)


def sure_of(label: int, norm: str = "group") -> Classifier:
    """A network that gives every image the same label."""
    model = build("small_cnn", (1, 8, 8), 3, norm=norm).eval()
    with torch.no_grad():
        model.head.bias[label] += 100
    return model


def test_surrogates_that_can_be_attacked_pass(data):
    models = [sure_of(0), sure_of(1, "batch"), sure_of(2).train()]
    check_models(models, data)
    check_surrogates(models, data, data.x[:1], 1)


def test_no_surrogate_is_refused(data):
    with pytest.raises(ThreatModelError, match="No surrogate"):
        check_models([], data)


def test_a_surrogate_for_other_classes_is_refused(data):
    two = build("mlp", data.shape, 2)
    with pytest.raises(ThreatModelError, match="Surrogate 1 has 2 classes, the data 3"):
        check_models([sure_of(0), two], data)


def test_batchnorm_in_training_mode_is_refused_and_left_alone(data):
    model = sure_of(0, "batch").train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ThreatModelError, match="Surrogate 0 has BatchNorm in training mode"):
        check_models([model], data)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    model.features.eval()
    check_models([model], data)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["features.1.weight", "features.1.running_var", "head.bias"])
def test_weights_that_are_no_numbers_are_named(name, value, data):
    model = sure_of(0, "batch")
    model.state_dict()[name][0] = value
    with pytest.raises(ThreatModelError, match=f"Surrogate 1 has NaN or infinity in {name}"):
        check_models([sure_of(0), model], data)


class Overflow(nn.Module):
    """Features that are no numbers, from weights that are."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) / 0 * 0


def test_logits_that_are_no_numbers_are_refused(data):
    with pytest.raises(ValueError, match="logits for image 0 of 1 are not numbers"):
        check_surrogates([Classifier(Overflow(), 64, 3)], data, data.x[:1], 1)


def test_a_goal_that_every_surrogate_grants_is_refused(data):
    with pytest.raises(ThreatModelError, match="already classifies the target as bee"):
        check_surrogates([sure_of(1), sure_of(1)], data, data.x[:2], 1)
    check_surrogates([sure_of(1), sure_of(0)], data, data.x[:2], 1)


def test_a_goal_with_a_class_that_the_data_lacks_is_refused(data):
    with pytest.raises(ThreatModelError, match="names class 3"):
        check_surrogates([sure_of(0)], data, data.x[:1], 3)


@pytest.mark.parametrize(
    ("steps", "lr"), [(0, 0.1), (-5, 0.1), (1, 0.0), (1, -0.1), (1, math.nan), (1, math.inf)]
)
def test_crafting_that_would_change_nothing_is_refused(steps, lr):
    check_crafting(1, 1e-6)
    with pytest.raises(ThreatModelError, match=f"^Crafting with {steps} steps of size {lr} would"):
        check_crafting(steps, lr)


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), -float("inf")])
def test_a_loss_that_is_no_number_is_refused(loss):
    check_loss(-3.0)
    with pytest.raises(ThreatModelError, match=f"The loss of crafting is {loss}"):
        check_loss(loss)


def test_a_budget_that_the_candidates_do_not_fill_is_refused():
    check_budget(20, 20)
    with pytest.raises(ThreatModelError, match="The budget is 20, but only 19 images can be"):
        check_budget(19, 20)


@pytest.mark.parametrize("epsilon", [0.0, -0.1, 1.1, math.nan])
def test_an_epsilon_without_meaning_is_refused(epsilon):
    check_epsilon(1.0)
    for check in (check_epsilon, lambda value: check_simulation(value, 5)):
        with pytest.raises(ThreatModelError, match=f"epsilon is {epsilon}, expected a value in"):
            check(epsilon)


def test_a_simulation_takes_a_step():
    check_simulation(0.1, 1)
    with pytest.raises(ThreatModelError, match="of 0 steps: expected 1 step or more"):
        check_simulation(0.1, 0)


@pytest.mark.parametrize("number", [0, -1, 1.5, 2.0, math.nan])
def test_a_count_is_a_whole_number_from_one_on(number):
    check_whole("k", np.int64(1))
    with pytest.raises(ValueError, match=f"k is {number}, expected a whole number, 1 or more"):
        check_whole("k", number)


@pytest.mark.parametrize("count", [1, 0])
def test_one_number_alone_has_no_derangement(count):
    check_derangement(2)
    with pytest.raises(ValueError, match=f"at least two numbers, got {count}"):
        check_derangement(count)


@pytest.mark.parametrize(("found", "whole"), [(1.0, 1.03), (1.0, 0.97), (0.0, 0.5)])
def test_a_length_that_was_not_seen_whole_is_refused(found, whole):
    check_length(1.0, 1.001)
    check_length(0.0, 1e-8)
    with pytest.raises(ValueError, match="outside of its layer"):
        check_length(found, whole)
