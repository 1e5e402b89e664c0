"""What attacks and defenses refuse: so that none returns noise, or does nothing, without a word."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from numbers import Integral

import torch
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


def check_room(side: int, images: Tensor) -> None:
    """Raise ValueError unless a patch fits into images, one pixel from their edges."""
    height, width = images.shape[-2:]
    if side + 2 > min(height, width):
        raise ValueError(
            f"A patch of {side} by {side} pixels, one pixel from the edges, does not fit into "
            f"images of {height} by {width}: use at most {min(height, width) - 2}."
        )


def check_corner(corner: str, known: Sequence[str]) -> None:
    """Raise ValueError unless this is one of the corners, or "random"."""
    if corner not in (*known, "random"):
        raise ValueError(f"Unknown corner {corner!r}: use {', '.join(known)} or random.")


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


def check_epsilon(epsilon: float) -> None:
    """Raise ThreatModelError unless images in [0, 1] can be changed by this much."""
    if not 0 < epsilon <= 1:
        raise ThreatModelError(
            f"epsilon is {epsilon}, expected a value in (0, 1]: write 16/255 for 16 grey levels, "
            "and train without a defense for no change."
        )


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


def check_share(share: float) -> None:
    """Raise ThreatModelError unless a batch can be cut into poisons and targets."""
    if not 0 < share < 1:
        raise ThreatModelError(
            f"The share of poisons is {share}, expected a value in (0, 1), such as 0.5: both "
            "poisons and targets are needed."
        )


def check_simulation(epsilon: float, steps: int) -> None:
    """Raise ThreatModelError unless there is something to simulate."""
    check_epsilon(epsilon)
    if steps < 1:
        raise ThreatModelError(
            f"A simulated attack of {steps} steps: expected 1 step or more. To simulate no attack, "
            "train without this defense."
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


def check_seen(model: nn.Module, seen: Sequence[tuple[nn.Module, Tensor, Tensor]]) -> None:
    """Raise ValueError unless each weight that trains was used by one layer, and once.

    seen: each layer that ran, with what went in and what came out. Formulas for the gradients of
    single examples hold for such layers alone.
    """
    counts = Counter(id(p) for layer, _, _ in seen for p in layer.parameters(recurse=False))
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and counts[id(parameter)] != 1:
            raise ValueError(
                f"{name} was used by {counts[id(parameter)]} layers in one pass, expected 1, so "
                "its gradients cannot be told apart: call each layer once, share no weights, and "
                "use no weight outside of its layer; or use "
                "clip_and_noise(per_example_gradients(...), ...)."
            )
    for layer, _, output in seen:
        if not all(p.requires_grad for p in layer.parameters(recurse=False)):
            raise ValueError(f"Only a part of {layer} trains: let all of it train, or nothing.")
        if isinstance(layer, nn.Linear) and output.ndim != 2:
            raise ValueError(
                f"{layer} gave {tuple(output.shape)}, expected one vector an image: this formula "
                "is not for words or patches. Use clip_and_noise(per_example_gradients(...), ...)."
            )


def check_length(found: float, whole: float) -> None:
    """Raise ValueError if a gradient is longer or shorter than the layers that were seen say."""
    if not math.isclose(found, whole, rel_tol=1e-2, abs_tol=1e-6):
        raise ValueError(
            f"An image's gradient is {whole:.4g} long, the layers that were seen account for "
            f"{found:.4g}: forward() uses a weight outside of its layer, as in "
            "F.linear(x, self.a.weight), so its gradient cannot be bounded. Call the layer."
        )


def check_whole(what: str, number: int) -> None:
    """Raise ValueError unless it is a whole number from 1 on."""
    if not isinstance(number, Integral) or number < 1:
        raise ValueError(f"{what} is {number}, expected a whole number, 1 or more.")


def check_removal(share: float) -> None:
    """Raise ValueError unless a filter can remove this share of a class, and leave something."""
    if not 0 <= share < 1:
        raise ValueError(
            f"The share to remove is {share}, expected a value in [0, 1): write 0.15 for 15%."
        )


def check_alpha(alpha: float) -> None:
    """Raise ValueError unless the parameter of the Beta distribution is a positive number."""
    if not 0 < alpha < math.inf:
        raise ValueError(
            f"alpha is {alpha}, expected a positive number: 1 draws every share equally often."
        )


def check_derangement(count: int) -> None:
    """Raise ValueError if every order leaves a number at its own place."""
    if count < 2:
        raise ValueError(f"A derangement needs at least two numbers, got {count}.")


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


def check_before(image: Tensor | None) -> None:
    """Raise ValueError without a picture that the model got right."""
    if image is None:
        raise ValueError(
            "The incident has no picture before: a contrast needs one of the same thing that the "
            "model gets right. Use cosine_tracin without it."
        )


def check_some_images(data: Data, what: str = "clean image") -> None:
    """Raise ValueError if there is no image."""
    if len(data) == 0:
        raise ValueError(
            f"There is no {what}: a repair needs some to work with. Give at least one of each "
            "class, or train again from scratch."
        )


def check_fraction(what: str, share: float) -> None:
    """Raise ValueError unless this is a number in [0, 1]."""
    if not 0 <= share <= 1:
        raise ValueError(f"{what} is {share}, expected a value in [0, 1].")


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
    check_some_images(clean)
    check_fraction("The tolerance", tolerance)


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
    check_some_images(found, "found image")
    if not 0 < weight < math.inf:
        raise ValueError(f"The weight of the climb is {weight}, expected a positive number.")
