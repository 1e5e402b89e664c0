"""What poisoning training refuses: settings and simulated attacks that make no sense."""

from collections.abc import Callable

import torch
from torch import Tensor

from course_utils.models import Classifier
from course_utils.threat import ThreatModelError


def check_share(share: float) -> None:
    """Raise ThreatModelError unless a batch can be cut into poisons and targets."""
    if not 0 < share < 1:
        raise ThreatModelError(
            f"The share of poisons is {share}, expected a value in (0, 1), such as 0.5: both "
            "poisons and targets are needed."
        )


def check_simulation(epsilon: float, steps: int) -> None:
    """Raise ThreatModelError unless there is something to simulate."""
    if not 0 < epsilon <= 1 or steps < 1:
        raise ThreatModelError(
            f"epsilon is {epsilon} and steps {steps}: expected epsilon in (0, 1], as in 16/255, "
            "and 1 step or more. To simulate no attack, train without this defense."
        )


def check_sides(sides: tuple[float, float]) -> None:
    """Raise ThreatModelError unless patches of these sides fit into an image."""
    if not 0 < sides[0] <= sides[1] <= 1:
        raise ThreatModelError(
            f"The sides of the patches are {sides}, expected two shares of the image's side in "
            "(0, 1], the smaller one first, such as (0.1, 0.4)."
        )


def check_hard_labels(labels: Tensor) -> None:
    """Raise ThreatModelError for soft labels."""
    if labels.ndim > 1:
        raise ThreatModelError("Poisoning training needs one class an image: mix after it.")


def check_images(kind: str, images: Tensor, base: Tensor) -> None:
    """Raise ThreatModelError unless a simulation gave back images like those that it got."""
    if not isinstance(images, Tensor) or images.shape != base.shape:
        got = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise ThreatModelError(
            f"The simulation must return {kind} of shape {tuple(base.shape)}, got {got}."
        )
    if not ((images >= 0) & (images <= 1)).all():
        low, high = images.min().item(), images.max().item()
        raise ThreatModelError(
            f"The simulation returned {kind} with pixels from {low:.3g} to {high:.3g}: pixels must "
            "be numbers in [0, 1], so look for NaN and end with `project`."
        )


def checked(simulate: Callable) -> Callable:
    """The same simulation, but what it returns is checked.

    simulate: (model, split, generator) -> the poisons and the targets to train on, shaped as those
    of the split. Raises TypeError if it is no function.
    """
    if not callable(simulate):
        raise TypeError(
            f"The inner attack is {simulate!r}, expected a function (model, split, generator) -> "
            "(poisons, targets), such as matching_simulation(16/255)."
        )

    def careful(
        model: Classifier, split: tuple, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        found = simulate(model, split, generator)
        if not isinstance(found, tuple) or len(found) != 2:
            raise ThreatModelError("The simulation must return two tensors: poisons and targets.")
        check_images("poisons", found[0], split.poisons)
        check_images("targets", found[1], split.targets)
        return found

    return careful
