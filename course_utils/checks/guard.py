"""What a call must leave as it was: its inputs and the global state. What an answer must not hold.

A state is a dictionary: the sentence that a reader gets if a part of it changes, and that part.
"""

import random
from collections.abc import Mapping
from dataclasses import is_dataclass
from numbers import Number

import numpy as np
import torch
from torch import Tensor, nn

RANDOM = (
    "The global random state was changed, by a draw or by a seed: draw from the generator that "
    "comes in, or not at all."
)
GRADIENTS = (
    "Gradients are switched off after the call, or on: use `with torch.no_grad():`, which puts the "
    "mode back."
)


def state(value, name: str = "") -> dict[str, object]:
    """Everything of an input that must stay as it is."""
    if isinstance(value, nn.Module):
        mode = f"The mode of `{name}` was left changed: give each layer its own mode back."
        return {mode: [layer.training for layer in value.modules()]} | state(
            value.state_dict(keep_vars=True), name
        )
    if is_dataclass(value) and not isinstance(value, type):
        return state(vars(value), name)
    if isinstance(value, Mapping):
        parts = list(value.items())
    elif isinstance(value, list | tuple):
        parts = list(enumerate(value))
    else:
        return leaf_state(value, name)
    plain = [(key, part if isinstance(part, Number | str | None) else "") for key, part in parts]
    found = {changed_input(name): plain}
    for key, part in parts:
        found |= state(part, f"{name}.{key}" if name else str(key))
    return found


def leaf_state(value, name: str) -> dict[str, object]:
    """The state of a tensor, an array or a generator; nothing else can change."""
    if isinstance(value, torch.Generator):
        return {f"`{name}` was seeded again: draw from it as it comes in.": value.initial_seed()}
    if not isinstance(value, Tensor | np.ndarray):
        return {}
    found = {changed_input(name): contents(value)}
    if isinstance(value, Tensor) and value.is_leaf:
        found[
            f"A gradient was left in `{name}.grad`: torch.autograd.grad leaves none, backward() "
            "does."
        ] = None if value.grad is None else contents(value.grad)
        found[
            f"`{name}.requires_grad` was changed: set it on a copy, "
            f"`{name}.detach().clone().requires_grad_()`."
        ] = value.requires_grad
    return found


def changed_input(name: str) -> str:
    """The sentence for an input that is written into."""
    return f"What came in was changed: `{name}`. Write into a copy, or make something new."


def contents(value: Tensor | np.ndarray) -> tuple:
    """Shape, type and bytes: equal for equal contents, NaN included."""
    array = value.detach().cpu().numpy() if isinstance(value, Tensor) else value
    return array.shape, array.dtype.str, array.tobytes()


def global_state() -> dict[str, object]:
    """The random states of torch, numpy and Python, and whether torch records gradients."""
    numpy_state = np.random.get_state()  # noqa: NPY002, readers may use it
    return {
        RANDOM: (
            torch.get_rng_state().numpy().tobytes(),
            (numpy_state[0], numpy_state[1].tobytes(), *numpy_state[2:]),
            random.getstate(),
        ),
        GRADIENTS: torch.is_grad_enabled(),
    }


def put_back(before: dict[str, object]) -> None:
    """Give the global state back what `global_state` found."""
    torch_state, (kind, key, *rest), python_state = before[RANDOM]
    torch.set_rng_state(torch.frombuffer(bytearray(torch_state), dtype=torch.uint8))
    np.random.set_state((kind, np.frombuffer(key, dtype=np.uint32), *rest))  # noqa: NPY002
    random.setstate(python_state)
    torch.set_grad_enabled(before[GRADIENTS])


def changed(before: dict[str, object], after: dict[str, object]) -> str:
    """The sentence of the first part that is not what it was; empty if all is as before."""
    return next((text for text, part in before.items() if after.get(text, part) != part), "")


def not_finite(answer) -> str:
    """'nan' or 'inf' if there is one in the answer, at any depth; otherwise empty."""
    if isinstance(answer, Mapping):
        answer = list(answer.values())
    if isinstance(answer, list | tuple):
        return next(filter(None, map(not_finite, answer)), "")
    if isinstance(answer, Tensor):
        answer = answer.detach().cpu().double().numpy()
    numbers = np.asarray(answer)
    if numbers.dtype.kind != "f":
        return ""
    wrong = numbers[~np.isfinite(numbers)]
    return str(wrong.flat[0]) if wrong.size else ""


def described(value) -> str:
    """An input in a few words: small ones as numbers, large ones by their shape."""
    if isinstance(value, Tensor | np.ndarray):
        numbers = value.detach().cpu().numpy() if isinstance(value, Tensor) else value
        if numbers.size <= 8:
            numbers = numbers.astype(float).round(3) if numbers.dtype.kind == "f" else numbers
            return str(numbers.tolist())
        return f"<{' x '.join(map(str, value.shape))}>"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict | list | tuple | Number | str | None) and len(str(value)) < 60:
        return str(value)
    return f"<{type(value).__name__}>"
