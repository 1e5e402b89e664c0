"""What every attack asks before and while it crafts: so that none returns noise without a word."""

import math
from collections.abc import Sequence
from numbers import Integral

from torch import Tensor, nn

from course_utils.data import Data
from course_utils.models import Classifier, predict
from course_utils.threat import ThreatModel, ThreatModelError, check_known


def check_models(surrogates: Sequence[Classifier], data: Data) -> None:
    """Raise ThreatModelError unless an attack can look things up with these surrogates.

    There must be at least one, with the classes of the data, with finite weights, and without
    BatchNorm in training mode.
    """
    if not surrogates:
        raise ThreatModelError("No surrogate: the attack needs at least one trained model.")
    for number, surrogate in enumerate(surrogates):
        classes = surrogate.head.out_features
        if classes != len(data.classes):
            raise ThreatModelError(
                f"Surrogate {number} has {classes} classes, the data {len(data.classes)}: "
                "train it on this data."
            )
        layers = surrogate.modules()
        if any(isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training for m in layers):
            raise ThreatModelError(
                f"Surrogate {number} has BatchNorm in training mode, which mixes the images of a "
                "batch: call surrogate.eval() first."
            )
        for name, values in surrogate.state_dict().items():
            if not values.isfinite().all():
                raise ThreatModelError(
                    f"Surrogate {number} has NaN or infinity in {name}: train it anew."
                )


def check_surrogates(
    surrogates: Sequence[Classifier], data: Data, images: Tensor, wanted: int
) -> None:
    """Raise ThreatModelError where an attack could not work, or would have nothing to do.

    images: those that the victim should classify as the class `wanted`, (N, C, H, W).
    """
    check_known([wanted], data)
    check_models(surrogates, data)
    if all((predict(surrogate, images) == wanted).all() for surrogate in surrogates):
        raise ThreatModelError(
            f"Every surrogate already classifies the target as {data.classes[wanted]}: "
            "nothing is left to attack. Choose a target that they classify correctly."
        )


def check_crafting(steps: int, lr: float) -> None:
    """Raise ThreatModelError unless crafting takes a step, of a finite length above 0."""
    if steps < 1 or not 0 < lr < math.inf:
        raise ThreatModelError(
            f"Crafting with {steps} steps of size {lr} would leave the start as it is: take at "
            "least 1 step, of a size above 0."
        )


def check_relabelling(threat: ThreatModel, candidates: int) -> None:
    """Raise ThreatModelError if labels may not change, or the budget exceeds the candidates."""
    if threat.clean_label:
        raise ThreatModelError("This attack changes labels, but the threat model says clean_label.")
    check_budget(candidates, threat.budget)


def bound_of(threat: ThreatModel) -> float:
    """The threat model's epsilon. Raises ThreatModelError if it has none."""
    if threat.epsilon is None:
        raise ThreatModelError("This attack needs a bound: give an epsilon, as in 16/255.")
    return threat.epsilon


def check_search(epsilon: float, steps: int) -> None:
    """Raise ThreatModelError unless PGD has room and takes a step."""
    if not 0 < epsilon <= 1 or steps < 1:
        raise ThreatModelError(
            f"epsilon is {epsilon} and steps {steps}: expected epsilon in (0, 1], 1 step or more."
        )


def check_patch(side: int) -> None:
    """Raise ThreatModelError unless the side of a patch is a positive whole number."""
    if not isinstance(side, Integral) or side < 1:
        raise ThreatModelError(f"The side of the patch is {side}, expected 1 pixel or more.")


def check_room(side: int, images: Tensor) -> None:
    """Raise ThreatModelError unless a patch fits into images, one pixel from their edges."""
    height, width = images.shape[-2:]
    if side + 2 > min(height, width):
        raise ThreatModelError(
            f"A patch of {side} by {side} pixels, one pixel from the edges, does not fit into "
            f"images of {height} by {width}: use at most {min(height, width) - 2}."
        )


def check_corner(corner: str, known: Sequence[str]) -> None:
    """Raise ThreatModelError unless this is one of the corners, or "random"."""
    if corner not in (*known, "random"):
        raise ThreatModelError(f"Unknown corner {corner!r}: use {', '.join(known)} or random.")


def check_level(name: str, value: float) -> None:
    """Raise ThreatModelError unless a grey level or a strength lies in [0, 1]."""
    if not 0 <= value <= 1:
        raise ThreatModelError(f"The {name} is {value}, expected a value in [0, 1].")


def check_loss(loss: float) -> None:
    """Raise ThreatModelError if the loss that crafting lowers is not a number."""
    if not math.isfinite(loss):
        raise ThreatModelError(
            f"The loss of crafting is {loss}, so its gradient leads nowhere: look for a surrogate "
            "whose gradients or features vanish or overflow, or lower the step size."
        )


def check_budget(candidates: int, budget: int) -> None:
    """Raise ThreatModelError if fewer images than the budget can be poisoned."""
    if candidates < budget:
        raise ThreatModelError(
            f"The budget is {budget}, but only {candidates} images can be poisoned: "
            "lower the budget or give more data."
        )
