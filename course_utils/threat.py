"""What an attacker wants (a goal), may change (`ThreatModel`) and did change (`Poison`)."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Literal

import torch
from torch import Tensor, nn

from course_utils.data import Data
from course_utils.models import predict

# Rounding of float32 pixels may exceed a bound by this much; a grey level is 1/255 = 0.0039.
TOLERANCE = 1e-6


class ThreatModelError(ValueError):
    """A goal, threat model or poison that makes no sense or breaks its own promise."""


@dataclass(frozen=True)
class Indiscriminate:
    """The attacker wants lower accuracy for everyone."""

    def measure(self, model: nn.Module, test: Data) -> dict[str, float | bool]:
        """Clean accuracy on the test data."""
        return {"accuracy": accuracy(model, test)}


@dataclass(frozen=True, eq=False)
class Targeted:
    """The attacker wants one image, of `true_class`, to be classified as `adversarial_class`.

    image: the target (C, H, W), values in [0, 1]. It is not part of the training data.
    """

    image: Tensor
    true_class: int
    adversarial_class: int

    def __post_init__(self) -> None:
        if self.image.ndim != 3:
            raise ThreatModelError(
                f"The target must be one image (C, H, W), got shape {tuple(self.image.shape)}."
            )
        check_pixels("The target", self.image[None])
        check_class("true", self.true_class)
        check_class("adversarial", self.adversarial_class)
        if self.true_class == self.adversarial_class:
            raise ThreatModelError(
                f"The target already has class {self.true_class}: "
                "choose an adversarial class that differs from its true class."
            )

    def measure(self, model: nn.Module, test: Data) -> dict[str, float | bool]:
        """Clean accuracy, and whether the target is classified as the adversarial class.

        Raises ThreatModelError if the test data does not have the goal's classes.
        """
        check_known((self.true_class, self.adversarial_class), test)
        predicted = predict(model, self.image.to(test.x.device)[None]).item()
        return {"accuracy": accuracy(model, test), "success": predicted == self.adversarial_class}


@dataclass(frozen=True)
class Backdoor:
    """The attacker wants every image that carries the trigger to be classified as `target_class`.

    trigger: puts the trigger on images, (N, C, H, W) -> (N, C, H, W), values in [0, 1].
    source_class: the only class the backdoor is meant for (one-to-one), or None for all classes
        but the target class (all-to-one).
    """

    trigger: Callable[[Tensor], Tensor]
    target_class: int
    source_class: int | None = None

    def __post_init__(self) -> None:
        check_class("target", self.target_class)
        if self.source_class is not None:
            check_class("source", self.source_class)
        if self.source_class == self.target_class:
            raise ThreatModelError(
                f"Source and target class are both {self.target_class}: an image of the target "
                "class needs no trigger. Choose two different classes, or source_class=None."
            )

    def measure(self, model: nn.Module, test: Data) -> dict[str, float | bool]:
        """Clean accuracy and attack success rate.

        The attack success rate is taken over test images of the source class (all-to-one: of every
        class but the target class), never over images that truly belong to the target class.
        Raises ThreatModelError if the test data holds no such image or lacks the goal's classes,
        and if the trigger gives other images than it should.
        """
        named = (self.target_class, self.source_class)
        check_known([label for label in named if label is not None], test)
        if self.source_class is None:
            attacked = test.y != self.target_class
        else:
            attacked = test.y == self.source_class
        if not attacked.any():
            raise ThreatModelError(
                "The test data has no image on which the trigger could be tried: the attack "
                "success rate needs images whose true class is not the target class."
            )
        predicted = predict(model, triggered(self.trigger, test.x[attacked]))
        rate = (predicted == self.target_class).float().mean().item()
        return {"accuracy": accuracy(model, test), "asr": rate}

    def by_itself(self, model: nn.Module, test: Data) -> float:
        """The rate without the trigger: how often the same test images get the target class anyway.

        Raises as `measure` does.
        """
        return replace(self, trigger=torch.clone).measure(model, test)["asr"]


Goal = Indiscriminate | Targeted | Backdoor


def triggered(trigger: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """The images (N, C, H, W) with the trigger on them.

    Raises ThreatModelError if they come back in another shape or dtype, or leave [0, 1].
    """
    changed = trigger(images)
    if changed.shape != images.shape:
        raise ThreatModelError(
            f"The trigger turns images of shape {tuple(images.shape)} into "
            f"{tuple(changed.shape)}: it must give one image of the same size for each."
        )
    check_pixels("An image with the trigger", changed)
    return changed


def check_pixels(what: str, images: Tensor) -> None:
    """Raise ThreatModelError unless the images (N, C, H, W) are float32 and lie in [0, 1]."""
    if images.dtype != torch.float32:
        raise ThreatModelError(f"{what} has {images.dtype} pixels, expected torch.float32.")
    inside = (images >= -TOLERANCE) & (images <= 1 + TOLERANCE)
    if not inside.all():
        raise ThreatModelError(
            f"{what} has the pixel value {images[~inside][0].item():g}, expected values in [0, 1]: "
            "divide by 255 if they are 0 to 255, or undo a normalisation."
        )


def check_class(which: str, label: int) -> None:
    """Raise ThreatModelError unless `label` could be the number of a class."""
    if not isinstance(label, Integral) or label < 0:
        raise ThreatModelError(
            f"The {which} class is {label!r}, expected a position in data.classes: 0, 1, 2, ..."
        )


def check_known(labels: Sequence[int], data: Data) -> None:
    """Raise ThreatModelError if the data has no class of one of these numbers."""
    for label in labels:
        if label >= len(data.classes):
            raise ThreatModelError(
                f"The goal names class {label}, but the classes of the data are numbered "
                f"0 to {len(data.classes) - 1}."
            )


def accuracy(model: nn.Module, data: Data) -> float:
    """The share of images that the model classifies correctly.

    Raises ThreatModelError if there is no image.
    """
    if len(data) == 0:
        raise ThreatModelError("The test data is empty: accuracy needs at least one image.")
    return (predict(model, data.x) == data.y).float().mean().item()


def achieved(measured: Mapping[str, float | bool]) -> float:
    """What the attacker achieved, of what a goal measures: success, or attack success rate.

    NaN for an indiscriminate goal: its drop is against a victim of clean data.
    """
    return float(measured.get("asr", measured.get("success", math.nan)))


@dataclass(frozen=True)
class ThreatModel:
    """What the attacker may change.

    budget: the largest number of poison images.
    epsilon: the largest change of any pixel against the base image, in pixel values of [0, 1]
        (8/255 is 0.031); None for no bound.
    clean_label: True if each poison must keep the label of its base image.
    placement: "replace" if poisons take the place of their base images, "append" if they are added
        to the training data.
    """

    budget: int
    epsilon: float | None = None
    clean_label: bool = False
    placement: Literal["replace", "append"] = "replace"

    def __post_init__(self) -> None:
        if not isinstance(self.budget, Integral) or self.budget < 1:
            raise ThreatModelError(
                f"A budget of {self.budget} images makes no sense: allow at least 1 image, "
                "as a whole number."
            )
        if self.epsilon is not None and not 0 < self.epsilon <= 1:
            raise ThreatModelError(
                f"epsilon is {self.epsilon}, expected a value in (0, 1]: pixels lie in [0, 1], "
                "so write 8/255 for eight grey levels, or None for no bound."
            )
        if self.placement not in ("replace", "append"):
            raise ThreatModelError(
                f"Unknown placement {self.placement!r}: use 'replace' or 'append'."
            )

    def shares(self, data: Data, adversarial_class: int) -> str:
        """The budget as a share of the data and of the adversarial class, ready to print."""
        check_class("adversarial", adversarial_class)
        check_known([adversarial_class], data)
        size = int((data.y == adversarial_class).sum())
        if size == 0:
            raise ThreatModelError(f"The data has no image of class {adversarial_class}.")
        return (
            f"{self.budget} images: {self.budget / len(data):.1%} of the data, "
            f"{self.budget / size:.1%} of class {data.classes[adversarial_class]}"
        )


@dataclass(frozen=True, eq=False)
class Poison:
    """The images and labels that an attack brings.

    images: (P, C, H, W), values in [0, 1].
    labels: (P,), the labels that the victim will see.
    base: (P,), for each poison the row of the training image that it was made from; None if the
        images were made from nothing (then they can only be appended).
    placement: whether the poisons replace their base images or are appended.
    """

    images: Tensor
    labels: Tensor
    base: Tensor | None
    placement: Literal["replace", "append"] = "replace"

    def __len__(self) -> int:
        return len(self.images)

    def check(self, threat: ThreatModel, data: Data) -> None:
        """Prove that the poison keeps to the threat model; `data` is the clean training data.

        Raises ThreatModelError that names the first image that breaks a rule, and by how much.
        """
        self._check_form(data)
        if threat.budget > len(data):
            raise ThreatModelError(
                f"The budget of {threat.budget} is larger than the training data ({len(data)} "
                "images): state the budget as a number of images."
            )
        if len(self) > threat.budget:
            raise ThreatModelError(
                f"{len(self)} poisons, but the budget is {threat.budget}: "
                f"drop {len(self) - threat.budget} of them."
            )
        if self.placement != threat.placement:
            raise ThreatModelError(
                f"The poisons {self.placement}, but the threat model says {threat.placement!r}."
            )
        self._check_box()
        if self.base is None:
            if threat.epsilon is not None or threat.clean_label:
                raise ThreatModelError(
                    "Poisons without base images cannot keep a bound or clean labels: "
                    "give the base rows, or use a threat model with neither."
                )
            return
        if threat.clean_label:
            self._check_labels(data)
        if threat.epsilon is not None:
            self._check_bound(threat.epsilon, data)

    def apply(self, data: Data) -> Data:
        """The poisoned training data. Replacing keeps the order; appending adds rows at the end."""
        self._check_form(data)
        if self.placement == "append":
            x, y = torch.cat([data.x, self.images]), torch.cat([data.y, self.labels])
        else:
            x, y = data.x.clone(), data.y.clone()
            x[self.base], y[self.base] = self.images, self.labels
        return Data(x, y, data.classes)

    def mask(self, data: Data) -> Tensor:
        """Which rows of `apply(data)` are poison: a boolean mask."""
        self._check_form(data)
        if self.placement == "append":
            clean = torch.zeros(len(data), dtype=torch.bool, device=data.y.device)
            return torch.cat([clean, torch.ones(len(self), dtype=torch.bool, device=clean.device)])
        mask = torch.zeros(len(data), dtype=torch.bool, device=data.y.device)
        mask[self.base] = True
        return mask

    def noise_control(self, data: Data, generator: torch.Generator) -> "Poison":
        """Random noise of the same size on the same images, with the same labels.

        The pixels of each perturbation are shuffled over the image, so that its values stay and
        its pattern goes. A value that would leave [0, 1] at its new place changes sign, or is cut
        off if that does not help, so the bound still holds.
        Raises ThreatModelError if the poisons have no base images.
        """
        if self.base is None:
            raise ThreatModelError(
                "Poisons without base images have no perturbation to shuffle: "
                "write a control of your own."
            )
        clean = data.x[self.base].flatten(1)
        delta = self.images.flatten(1) - clean
        places = torch.rand(delta.shape, generator=generator, device=delta.device).argsort(1)
        delta = delta.gather(1, places)
        leaves = (clean + delta < 0) | (clean + delta > 1)
        noisy = (clean + torch.where(leaves, -delta, delta)).clamp(0, 1)
        return Poison(noisy.view_as(self.images), self.labels, self.base, self.placement)

    def _check_form(self, data: Data) -> None:
        if len(self) == 0:
            raise ThreatModelError("The poison holds no image: an attack must bring at least one.")
        if self.images.shape[1:] != data.x.shape[1:]:
            raise ThreatModelError(
                f"Poison images have shape {tuple(self.images.shape[1:])}, "
                f"the training images {tuple(data.x.shape[1:])}."
            )
        for name, tensor, dtype in (
            ("images", self.images, torch.float32),
            ("labels", self.labels, torch.int64),
            ("base rows", self.base, torch.int64),
        ):
            if tensor is not None and tensor.dtype != dtype:
                raise ThreatModelError(f"The poison's {name} are {tensor.dtype}, expected {dtype}.")
        if self.labels.shape != (len(self),):
            raise ThreatModelError(
                f"{len(self)} poison images, but labels of shape {tuple(self.labels.shape)}."
            )
        unknown = (self.labels < 0) | (self.labels >= len(data.classes))
        if unknown.any():
            i = first(unknown)
            raise ThreatModelError(
                f"Poison {i} has label {self.labels[i].item()}, "
                f"but the classes are numbered 0 to {len(data.classes) - 1}."
            )
        if self.base is None:
            if self.placement == "replace":
                raise ThreatModelError("Poisons that replace images must say which: give `base`.")
            return
        if self.base.shape != (len(self),):
            raise ThreatModelError(
                f"{len(self)} poison images, but base rows of shape {tuple(self.base.shape)}."
            )
        outside = (self.base < 0) | (self.base >= len(data))
        if outside.any():
            i = first(outside)
            raise ThreatModelError(
                f"Poison {i} has base row {self.base[i].item()}, "
                f"but the training data has rows 0 to {len(data) - 1}."
            )
        if self.placement == "replace" and len(self.base.unique()) < len(self):
            rows, counts = self.base.unique(return_counts=True)
            raise ThreatModelError(
                f"Training image {rows[counts > 1][0].item()} is replaced more than once: "
                "give each poison a base image of its own."
            )

    def _check_box(self) -> None:
        flat = self.images.flatten(1)
        bad = ~((flat >= 0) & (flat <= 1)).all(1)
        if bad.any():
            i = first(bad)
            raise ThreatModelError(
                f"Poison {i} has pixels from {flat[i].min().item():.8g} to "
                f"{flat[i].max().item():.8g}, outside [0, 1]: clamp it."
            )

    def _check_labels(self, data: Data) -> None:
        changed = self.labels != data.y[self.base]
        if changed.any():
            i = first(changed)
            was, now = data.y[self.base[i]].item(), self.labels[i].item()
            raise ThreatModelError(
                f"Poison {i} is labelled {data.classes[now]}, but its base image is "
                f"{data.classes[was]}: a clean-label attack may not change labels."
            )

    def _check_bound(self, epsilon: float, data: Data) -> None:
        size = (self.images - data.x[self.base]).abs().flatten(1).amax(1)
        too_far = size > epsilon + TOLERANCE
        if too_far.any():
            i = first(too_far)
            raise ThreatModelError(
                f"Poison {i} changes a pixel by {size[i].item() * 255:.2f}/255, more than "
                f"epsilon = {epsilon * 255:.2f}/255: project it onto the bound."
            )


def first(mask: Tensor) -> int:
    """The position of the first True."""
    return int(mask.nonzero()[0, 0])
