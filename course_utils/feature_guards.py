"""What the filters of lesson 11 ask of features and classes before they look for poison."""

from torch import Tensor

from course_utils.data import Data


def check_features(features: Tensor, labels: Tensor) -> None:
    """Raise ValueError unless features (N, features) are finite and there are as many labels."""
    if features.ndim != 2 or labels.shape != features.shape[:1]:
        raise ValueError(
            f"Features of shape {tuple(features.shape)} with labels of shape "
            f"{tuple(labels.shape)}: expected (N, features) and (N,)."
        )
    if not features.isfinite().all():
        raise ValueError("A feature is not finite: look at the training of the model.")


def check_spread(features: Tensor, name: str) -> None:
    """Raise ValueError unless the features (n, features) of some images differ."""
    low, high = features.aminmax(dim=0)
    if (high - low).max() <= 1e-9 * features.abs().max():
        raise ValueError(
            f"The {len(features)} images of {name} have constant features, so that nothing can "
            "stand out: give the class more images, or look with a model that has learnt something."
        )


def check_counts(data: Data, least: int, purpose: str) -> None:
    """Raise ValueError if a class that occurs has fewer images than `least`."""
    labels, counts = data.y.unique(return_counts=True)
    for label, count in zip(labels.tolist(), counts.tolist(), strict=True):
        if count < least:
            raise ValueError(
                f"Class {data.classes[label]} has {count} images, too few for {purpose}: give it "
                f"at least {least}, or ask for less."
            )
