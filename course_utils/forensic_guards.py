"""What the rankings of lesson 18 ask before they look for the images behind a prediction."""

from collections.abc import Sequence

from torch import Tensor

from course_utils.data import Data


def check_checkpoints(checkpoints: Sequence, data: Data) -> None:
    """Raise ValueError unless there is a checkpoint, and each has the classes of the data."""
    if not checkpoints:
        raise ValueError(
            "No checkpoint: TracIn sums over models along the training. Train anew with "
            "with_checkpoints, or give the final model as the only one."
        )
    for number, (model, _) in enumerate(checkpoints):
        if model.head.out_features != len(data.classes):
            raise ValueError(
                f"Checkpoint {number} has {model.head.out_features} classes, the data "
                f"{len(data.classes)}: take checkpoints of the model that was trained on this data."
            )


def check_misclassified(predicted: int, true_class: int) -> None:
    """Raise ValueError if a prediction is right: nothing has happened that could be explained."""
    if predicted == true_class:
        raise ValueError(
            f"The model puts the image into class {predicted}, which is right: an incident needs "
            "an image that the model gets wrong."
        )


def check_drop(n: int, size: int, name: str) -> None:
    """Raise ValueError unless n images can be dropped from a class of this size."""
    if not 0 <= n < size:
        raise ValueError(
            f"{n} images cannot be dropped from class {name}, which has {size}: expected 0 to "
            f"{size - 1}, so that the class keeps an image."
        )


def check_ridge(features: Tensor, targets: Tensor, strength: float) -> None:
    """Raise ValueError unless ridge regression has as many targets as rows, and a unique answer."""
    if features.ndim != 2 or targets.ndim != 2 or len(features) != len(targets):
        raise ValueError(
            f"Features of shape {tuple(features.shape)} and targets of shape "
            f"{tuple(targets.shape)}: expected (N, features) and (N, classes)."
        )
    if not strength > 0:
        raise ValueError(f"The strength is {strength}, expected a number above 0.")
