"""What every attack asks before and while it crafts: so that none returns noise without a word."""

import math
from collections.abc import Sequence

from torch import nn

from course_utils.data import Data
from course_utils.models import Classifier, predict
from course_utils.threat import Targeted, ThreatModelError, check_known


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


def check_surrogates(surrogates: Sequence[Classifier], data: Data, goal: Targeted) -> None:
    """Raise ThreatModelError where an attack could not work, or would have nothing to do."""
    check_known((goal.true_class, goal.adversarial_class), data)
    check_models(surrogates, data)
    wanted = goal.adversarial_class
    if all(predict(s, goal.image[None]).item() == wanted for s in surrogates):
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
