"""The checks behind the exercises: one module a lesson.

A check takes the reader's function and compares it with something independent: a property, a slow
loop, a library; never with the course's own solution. It names the input on which they differ.
`attempt` calls the function and proves what holds for every exercise: nothing that came in, no
global state was changed, and the answer is finite. `answers` turns what came back into numbers.

The reports of lesson 21 are no functions: `reports` says whether one is complete, and `judge` what
it is worth.
"""

import inspect
import warnings
from collections.abc import Callable

from course_utils.checks.guard import changed, described, global_state, not_finite, put_back, state

# What torch and numpy say, and what a reader can do about it.
ADVICE = {
    "in-place operation": "Write into a copy (clone()), or make a new tensor.",
    "does not require grad": "Something has cut the graph: torch.no_grad(), detach(), item(), or a "
    "gradient without create_graph=True.",
    "ambiguous": "A whole array has no truth value: compare place by place, or use any() or all().",
}


class CheckFailed(AssertionError):
    """The function does not do yet what the exercise asks; the message says on which input."""


class NotWritten(CheckFailed, NotImplementedError):
    """The function is the empty one of the workshop copy."""


def attempt(function: Callable, *inputs, finite: bool = True, none: bool = False, **options):
    """Call the reader's function and return its answer; whatever goes wrong becomes a message.

    Fails if the function raises, changes what came in (values, modes, gradients, requires_grad) or
    the global state (random numbers, gradients switched off), or if the answer is None or holds NaN
    or infinity. finite: False where infinity is a right answer. none: True where None is one.
    """
    name = getattr(function, "__name__", "Your function")
    try:
        named = inspect.signature(function).bind(*inputs, **options).arguments
    except (TypeError, ValueError) as error:
        raise CheckFailed(f"{name} must take the arguments of the lesson: {error}.") from None
    call = f"{name}({', '.join(f'{key}={described(value)}' for key, value in named.items())})"
    before, around = state(named), global_state()
    try:
        with warnings.catch_warnings(action="ignore"):
            answer = function(*inputs, **options)
    except NotImplementedError as error:
        raise NotWritten(f"{name} is not written yet. {error}") from None
    except Exception as error:
        advice = next((f" {text}" for words, text in ADVICE.items() if words in str(error)), "")
        said = f"{type(error).__name__}: {error}".rstrip(".")
        raise CheckFailed(f"{name} stopped with {said}.{advice} The call: {call}") from error
    finally:
        after = global_state()
        put_back(around)
    fault = changed(before, state(named)) or changed(around, after)
    require(not fault, f"{fault} The call: {call}")
    require(
        none or answer is not None,
        f"{name} gave back None: end it with `return` and the result. The call: {call}",
    )
    wrong = not_finite(answer) if finite else ""
    require(
        not wrong,
        f"There is {wrong} in the answer: look for 0 / 0, log(0), inf - inf or a mask of infinity "
        f"that covers too much. The call: {call}",
    )
    return answer


def require(condition: bool, message: str) -> None:
    """Fail the exercise with this message unless the condition holds."""
    if not condition:
        raise CheckFailed(message)


def passed(function: Callable) -> None:
    """The one line that a reader wants to see."""
    print(f"{function.__name__}: all checks passed.")
