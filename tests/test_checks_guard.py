"""What all checks of exercises share: the guard, and answers turned into numbers or messages."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from course_utils.checks import CheckFailed, attempt
from course_utils.checks.answers import (
    as_array,
    as_gradient,
    as_number,
    as_rows,
    as_tensor,
    compare,
    side_by_side,
)
from course_utils.checks.guard import not_finite


def message(call, *inputs, **options) -> str:
    """What a failing call says."""
    with pytest.raises(CheckFailed) as failure:
        call(*inputs, **options)
    return str(failure.value)


def test_an_untouched_call_gives_its_answer():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).eval()
    x = torch.ones(3, 2)
    assert torch.equal(attempt(lambda model, x: x + 1, model, x), x + 1)


@pytest.mark.parametrize(
    "change",
    [
        lambda model, x, **_: model.weight.data.zero_(),
        lambda model, x, **_: x.mul_(2),
        lambda model, x, **_: x.unsqueeze_(0),
        lambda counts, **_: counts.sort(),
        lambda counts, **_: counts.append(1),
        lambda table, **_: table.update(a=2),
        lambda array, **_: array.sort(),
    ],
)
def test_changed_inputs_are_seen(change):
    inputs = {
        "model": nn.Linear(2, 1),
        "x": torch.tensor([1.0, torch.nan]),
        "counts": [3, 1],
        "table": {"a": 1},
        "array": np.array([2.0, 1.0]),
    }

    def answer(model, x, counts, table, array):
        change(model=model, x=x, counts=counts, table=table, array=array)
        return 1.0

    assert "What came in was changed" in message(attempt, answer, **inputs)


def test_statistics_of_a_model_count_as_changes():
    def answer(model, x):
        return model(x)

    said = message(attempt, answer, nn.BatchNorm1d(2), torch.rand(4, 2))
    assert "model.running_mean" in said


@pytest.mark.parametrize(
    "draw",
    [lambda: torch.rand(1), lambda: np.random.rand(1), random.random, torch.seed],  # noqa: NPY002
)
def test_the_global_random_state_is_put_back(draw):
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002
    random.seed(3)
    expected = torch.rand(1), np.random.rand(1), random.random()  # noqa: NPY002
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002
    random.seed(3)

    assert "global random state" in message(attempt, lambda: (draw(), 1.0)[1])
    assert (torch.rand(1), np.random.rand(1), random.random()) == expected  # noqa: NPY002


def test_gradients_are_switched_on_again():
    said = message(attempt, lambda: (torch.set_grad_enabled(False), 1.0)[1])
    assert "torch.no_grad()" in said
    assert torch.is_grad_enabled()


def test_a_generator_that_is_seeded_again_is_seen():
    generator = torch.Generator().manual_seed(1)
    said = message(attempt, lambda generator: int(generator.manual_seed(2) is None), generator)
    assert "seeded again" in said


@pytest.mark.parametrize(
    ("answer", "what"),
    [
        (float("nan"), "nan"),
        (np.array([1.0, np.inf]), "inf"),
        ([1, (2, torch.tensor(-torch.inf))], "-inf"),
        ({"a": torch.tensor([0.0, torch.nan], requires_grad=True)}, "nan"),
        (torch.tensor([1, 2]), ""),
        ("text", ""),
        (None, ""),
    ],
)
def test_not_finite_looks_at_any_depth(answer, what):
    assert not_finite(answer) == what


def test_infinity_and_none_pass_where_they_are_right():
    assert attempt(lambda: np.inf, finite=False) == np.inf
    assert attempt(lambda: None, none=True) is None


def test_an_error_is_explained():
    x = torch.ones(2, requires_grad=True)
    said = message(attempt, lambda x: x.add_(1), x)
    assert "RuntimeError" in said
    assert "Write into a copy" in said
    assert "must take the arguments" in message(attempt, lambda a, b: 1, 1)


@pytest.mark.parametrize("answer", [2, 2.0, np.float32(2), np.array(2), torch.tensor(2.0)])
def test_numbers_of_any_kind(answer):
    assert as_number(answer, "here") == 2


@pytest.mark.parametrize("answer", [True, "2", [2], torch.ones(1), (2,)])
def test_what_is_not_a_number(answer):
    assert "Return one number" in message(as_number, answer, "here")


def test_tensors_arrays_and_gradients():
    found = as_tensor(torch.ones(2, requires_grad=True), (2,), "here")
    assert found.dtype == torch.double
    assert not found.requires_grad
    assert "not a list of 2" in message(as_tensor, [1, 2], (2,), "here")
    assert as_array([1, 2], (2,), "here").tolist() == [1, 2]
    assert "of shape (2,)" in message(as_array, [[1], [2, 3]], (2,), "here")
    assert len(as_gradient([torch.ones(2), torch.ones(1)], [(2,), (1,)], "here")) == 2
    assert "one tensor for each parameter" in message(as_gradient, torch.ones(2), [(2,)], "here")


@pytest.mark.parametrize(
    ("answer", "what"),
    [
        ([0, 1], "not a list"),
        (torch.tensor([True, False]), "mask"),
        (torch.tensor([0.0, 1.0]), "whole numbers"),
        (torch.tensor([0]), "Return 2 row numbers"),
        (torch.tensor([0, 3]), "from 0 to 2"),
        (torch.tensor([-1, 0]), "from 0 to 2"),
    ],
)
def test_what_is_not_a_row_number(answer, what):
    assert what in message(as_rows, answer, 2, 3, "here")
    assert as_rows(torch.tensor([2, 0]), 2, 3, "here") == [2, 0]


@pytest.mark.parametrize(
    ("expected", "found"), [(0.037, 0.0370001), ([1.0, 0.6], [1.0, 0.6000000238])]
)
def test_two_numbers_are_shown_with_the_decimals_that_tell_them_apart(expected, found):
    first, second = side_by_side(expected, found)
    assert first != second


def test_advice_must_explain_all_cases():
    def slips(x):
        return {"You doubled.": 2 * x, "You squared.": x**2}

    # Twice two is two squared: the second case tells which mistake it was.
    rows = [("x = 2", (2.0,), 4.0, 2.0), ("x = 3", (3.0,), 9.0, 3.0)]
    assert message(compare, rows, "the answer", slips) == (
        "For x = 2: the answer is 2.000, you gave 4.000. You squared."
    )
    rows[1] = ("x = 3", (3.0,), 7.0, 3.0)
    assert "You " not in message(compare, rows, "the answer", slips).removeprefix("For x = 2: ")
    compare([("x = 2", (2.0,), 2.0, 2.0)], "the answer", slips)
