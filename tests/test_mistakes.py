"""How checks name a mistake, answers of another form, and the check of the clipped sum."""

import functools

import numpy as np
import pytest
import torch

from course_utils.checks import CheckFailed, attempt, require
from course_utils.checks.lesson_10 import check_clipped_sum
from course_utils.checks.mistakes import about, alike, diagnosis
from tests.test_exercises import check_of, definitions, each_exercise
from tools.lessons import read


def test_alike_wants_one_shape_and_equal_values():
    assert alike([1.0, 2.0], torch.tensor([1.0, 2.0], dtype=torch.float32))
    assert alike([1e-9, 5.0], [0.0, 5.0])  # rounding next to a large value
    assert not alike([1.0, 2.0], [[1.0, 2.0]])
    assert not alike([1.0, np.nan], [1.0, 2.0])
    assert not alike([1.0, 2.001], [1.0, 2.0])


def test_a_mistake_must_explain_all_cases():
    mistakes = {"Twice.": lambda x: 2 * x, "Squared.": lambda x: x**2}
    assert diagnosis([4, 6], mistakes, [(2,), (3,)]) == " Twice."
    assert diagnosis([4, 9], mistakes, [(2,), (3,)]) == " Squared."
    assert diagnosis([4, 7], mistakes, [(2,), (3,)]) == ""


def test_advice_is_added_to_a_failure_only():
    with about("Mind the zero."):
        require(True, "never said")
    with pytest.raises(CheckFailed, match=r"Wrong\. Mind the zero\."), about("Mind the zero."):
        require(False, "Wrong.")
    with pytest.raises(CheckFailed, match=r"Wrong\.$"), about(""):
        require(False, "Wrong.")


def test_advice_keeps_the_error_of_the_reader():
    with pytest.raises(CheckFailed) as failure, about("Mind the zero."):
        attempt(lambda x: 1 / x, 0)
    assert isinstance(failure.value.__cause__, ZeroDivisionError)


OTHER_FORMS = {
    "text": "0.5",
    "nothing": [],
    "dictionary": {"a": 1},
    "complex": 1 + 2j,
    "constant": torch.tensor(0.25),
    "with a graph": torch.ones(2, requires_grad=True),
    "two tensors": (torch.ones(2), torch.ones(2)),
    "empty tensors": (torch.zeros(0), torch.zeros(0)),
    "five tensors": [torch.ones(1)] * 5,
    "whole numbers": (1, 2, 3, 4),
    "function": len,
}


@each_exercise
def test_answers_of_another_form_get_a_message(path, function):
    solution = definitions(read(path))[function]
    for form, given in OTHER_FORMS.items():
        answer = functools.wraps(solution)(lambda *inputs, given=given, **options: given)
        with pytest.raises(CheckFailed):
            check_of(path, function)(answer)
            pytest.fail(f"{form} passed")


def weighted(losses, parameters, weights):
    return torch.autograd.grad((weights * losses).sum(), parameters)


def test_clipped_sum_accepts_weights_before_or_after_the_gradients():
    def by_weights(losses, norms, parameters, clip):
        return weighted(losses, parameters, (clip / norms).clamp(max=1).detach())

    def one_by_one(losses, norms, parameters, clip):
        total = [torch.zeros_like(p) for p in parameters]
        for loss, norm in zip(losses, norms.tolist(), strict=True):
            gradient = torch.autograd.grad(loss, parameters, retain_graph=True)
            for sum_, part in zip(total, gradient, strict=True):
                sum_ += part * (clip / norm if norm > clip else 1)
        return total

    for answer in (by_weights, one_by_one):
        check_clipped_sum(answer)


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        (lambda norms, clip: torch.ones_like(norms), "Nothing was clipped"),
        (lambda norms, clip: (clip / norms).detach(), "keeps the weight 1"),
        (lambda norms, clip: (clip / norms).clamp(max=1), "count as constants"),
    ],
)
def test_clipped_sum_names_the_mistake(weights, words):
    def answer(losses, norms, parameters, clip):
        return weighted(losses, parameters, weights(norms, clip))

    with pytest.raises(CheckFailed, match=words):
        check_clipped_sum(answer)
