"""The checks behind the exercises: one module a lesson.

A check takes the reader's function and compares it with something independent: a property, a slow
loop, a library; never with the course's own solution. It names the input on which they differ.
"""

from collections.abc import Callable


class CheckFailed(AssertionError):
    """The function does not do yet what the exercise asks; the message says on which input."""


def attempt(function: Callable, *inputs, **options):
    """Call the reader's function; an exception in it becomes a message about the exercise."""
    try:
        return function(*inputs, **options)
    except NotImplementedError as error:
        raise CheckFailed(f"{function.__name__} is not written yet. {error}") from None
    except Exception as error:
        raise CheckFailed(
            f"{function.__name__} stopped with {type(error).__name__}: {error}"
        ) from error


def require(condition: bool, message: str) -> None:
    """Fail the exercise with this message unless the condition holds."""
    if not condition:
        raise CheckFailed(message)


def passed(function: Callable) -> None:
    """The one line that a reader wants to see."""
    print(f"{function.__name__}: all checks passed.")
