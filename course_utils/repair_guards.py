"""What repairs refuse: so that none returns the model as it was without a word."""

import math

from torch import Tensor, nn

from course_utils.data import Data
from course_utils.models import Classifier


def check_images(data: Data, what: str = "clean image") -> None:
    """Raise ValueError if there is no image."""
    if len(data) == 0:
        raise ValueError(
            f"There is no {what}: a repair needs some to work with. Give at least one of each "
            "class, or train again from scratch."
        )


def check_share(what: str, share: float) -> None:
    """Raise ValueError unless this is a number in [0, 1]."""
    if not 0 <= share <= 1:
        raise ValueError(f"{what} is {share}, expected a share between 0 and 1.")


def check_hidden(model: Classifier) -> None:
    """Raise ValueError unless the head reads the units of a linear layer with ReLU."""
    layers = list(model.features.children())
    kinds = tuple(type(layer) for layer in layers[-2:])
    if kinds != (nn.Linear, nn.ReLU):
        raise ValueError(
            f"Before the head of this model there are {[kind.__name__ for kind in kinds]}, no "
            "linear layer with ReLU: it has no hidden units that could be pruned. Take a model "
            "that ends so, such as the MLP, or another repair."
        )


def check_pruning(model: Classifier, clean: Data, tolerance: float) -> None:
    """Raise ValueError without hidden units, images, or a tolerance in [0, 1]."""
    check_hidden(model)
    check_images(clean)
    check_share("The tolerance", tolerance)


def images_of_others(clean: Data, label: int) -> Tensor:
    """The images (N, C, H, W) of other classes than this one. Raises ValueError if there is none,
    or no such class.
    """
    if not 0 <= label < len(clean.classes):
        raise ValueError(
            f"There is no class {label}: the classes go from 0 to {len(clean.classes) - 1}."
        )
    images = clean.x[clean.y != label]
    if len(images) == 0:
        raise ValueError(
            f"No image has another class than {clean.classes[label]}: a trigger is looked for on "
            "images of the other classes, so give some."
        )
    return images


def check_reconstructed(distance: float) -> None:
    """Raise ValueError for a trigger that does not work."""
    if math.isinf(distance):
        raise ValueError(
            "No trigger was reconstructed that works on 99% of the images, so there is nothing to "
            "unlearn: take another class or more steps, or another repair."
        )


def check_forgetting(found: Data, weight: float) -> None:
    """Raise ValueError if nothing was found, or the weight is not positive."""
    check_images(found, "found image")
    if not 0 < weight < math.inf:
        raise ValueError(f"The weight of the climb is {weight}, expected a positive number.")
