"""One `train()` for every victim and every surrogate of the course."""

import copy
import math
import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from numbers import Integral
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from tqdm.auto import trange

from course_utils.data import Data
from course_utils.defense import PLAIN, Defense
from course_utils.models import Classifier

Scenario = Literal["scratch", "finetune", "transfer"]
SCENARIOS = ("scratch", "finetune", "transfer")
LOSS_SCALE = 1024.0


class TrainingError(RuntimeError):
    """Training that cannot start or cannot go on."""


@dataclass(frozen=True)
class Recipe:
    """How a victim is trained.

    optimizer: "sgd" (Nesterov momentum 0.9, learning rate rising and falling once over the whole
        training, the one-cycle schedule) or "adam" (constant learning rate).
    half: compute the steps in half precision, with channels last, as a GPU is fastest. The weights
        stay float32, and so does all that is done with the trained model.
    """

    epochs: int = 20
    batch_size: int = 100
    lr: float = 0.05
    weight_decay: float = 5e-4
    optimizer: Literal["sgd", "adam"] = "sgd"
    half: bool = False

    def __post_init__(self) -> None:
        counts, lr, decay = (self.epochs, self.batch_size), self.lr, self.weight_decay
        whole = all(isinstance(count, Integral) and count >= 1 for count in counts)
        if not (whole and 0 < lr < math.inf and 0 <= decay < math.inf):
            raise ValueError(
                f"{self} cannot train: epochs and batch_size must be at least 1 and whole numbers, "
                "lr positive and weight_decay not negative, both finite."
            )
        if self.optimizer not in ("sgd", "adam"):
            raise ValueError(f"Unknown optimizer {self.optimizer!r}: use 'sgd' or 'adam'.")


def train(
    model: Classifier,
    data: Data,
    recipe: Recipe,
    *,
    scenario: Scenario = "scratch",
    defense: Defense = PLAIN,
    seed: int = 0,
    progress: bool = False,
    after_epoch: Callable[[Classifier, int], None] | None = None,
) -> Classifier:
    """Train a copy of `model` on `data` and return it in evaluation mode; `model` is untouched.

    scenario: what the victim starts from.
        "scratch": every weight is drawn anew from `seed`, by the reset_parameters() of its layer.
        "finetune": training goes on from the given weights and every layer moves.
        "transfer": the features stay as they are, BatchNorm statistics included; the head is drawn
            anew from `seed` and refitted.
    after_epoch: called with the model (in evaluation mode) and the number of epochs done, for
        measurements along the way.

    The same arguments give the same weights on the same machine and thread count. The random
    state of the caller is not touched.

    Raises TrainingError if there is no image or the defense keeps none, the classes do not fit the
    model or the batch size not the defense, a weight cannot be drawn anew or is not used,
    BatchNorm meets a single image, or the weights stop being finite; ValueError for an unknown
    scenario.
    """
    if scenario not in SCENARIOS:
        raise ValueError(f"Unknown scenario {scenario!r}: use one of {', '.join(SCENARIOS)}.")
    if len(data) == 0:
        raise TrainingError("There is no image to train on.")
    if model.head.out_features != len(data.classes):
        raise TrainingError(
            f"The model has {model.head.out_features} classes, the data {len(data.classes)}."
        )
    if defense.batch_size not in (None, recipe.batch_size):
        raise TrainingError(
            f"Defense {defense.name!r} is made for batches of {defense.batch_size} images, but the "
            f"recipe has {recipe.batch_size}: give both the same batch size."
        )
    seed = operator.index(seed)  # torch takes no numbers of NumPy
    if defense.keep is not None:
        data = data[filter_mask(model, data, recipe, scenario, defense, seed)]
    with torch.random.fork_rng(), torch.inference_mode(False), torch.enable_grad():
        torch.manual_seed(seed)
        victim = start(model, scenario).to(data.x.device)
        if recipe.half:
            victim.to(memory_format=torch.channels_last)
        parameters = [p for p in victim.parameters() if p.requires_grad]
        generator = torch.Generator(data.x.device).manual_seed(seed)
        batches = batches_in(len(data), recipe.batch_size)
        optimizer, schedule = make_optimizer(parameters, recipe, batches)
        for epoch in trange(recipe.epochs, desc="epochs", disable=not progress, leave=False):
            for rows in batch_rows(len(data), recipe.batch_size, defense.poisson, generator):
                x, y = data.x[rows], data.y[rows]
                with half_precision(x.device) if recipe.half else nullcontext():
                    set_gradients(victim, parameters, x, y, scenario, defense, generator)
                optimizer.step()
                schedule.step()
            check_finite(parameters, epoch, recipe)
            if after_epoch is not None:
                after_epoch(victim.eval(), epoch + 1)
    return victim.eval()


def set_gradients(
    victim: Classifier,
    parameters: list[nn.Parameter],
    x: Tensor,
    y: Tensor,
    scenario: Scenario,
    defense: Defense,
    generator: torch.Generator,
) -> None:
    """Put into each parameter's `.grad` the gradient that this step will follow."""
    set_training_mode(victim, scenario)
    try:
        if defense.batch is not None and len(x) > 0:
            with no_float16(x.device):
                x, y = defense.batch(victim, x, y, generator)
            set_training_mode(victim, scenario)  # the defense may have changed it
        if defense.gradients is not None:
            gradients = defense.gradients(victim, x, y, generator)
        elif len(x) > 0:
            gradients = loss_gradient(victim, parameters, x, y)
        else:
            gradients = [torch.zeros_like(p) for p in parameters]
    except (RuntimeError, ValueError) as error:
        if text := advice(error, victim, x, y):
            raise TrainingError(text) from error
        raise
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = in_layout_of(parameter, gradient)


def loss_gradient(
    victim: Classifier, parameters: list[nn.Parameter], x: Tensor, y: Tensor
) -> Sequence[Tensor]:
    """The gradient of the mean loss, by way of one LOSS_SCALE times as large in half precision.

    float16 has no number between 0 and 6e-8.
    """
    loss = cross_entropy(victim(x), y)
    if not torch.is_autocast_enabled(x.device.type):
        return torch.autograd.grad(loss, parameters)
    return [part / LOSS_SCALE for part in torch.autograd.grad(LOSS_SCALE * loss, parameters)]


def half_type(device: torch.device) -> torch.dtype:
    """bfloat16, or float16 on a GPU that is too old for it, such as Colab's T4."""
    old = device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.float16 if old else torch.bfloat16


def half_precision(device: torch.device) -> AbstractContextManager:
    """Convolutions and matrix products inside the block are computed in half precision."""
    # The cache would keep weights that were rounded without a graph for those who need one.
    return torch.autocast(device.type, half_type(device), cache_enabled=False)


def no_float16(device: torch.device) -> AbstractContextManager:
    """Float32 inside the block where half precision is float16.

    The slopes that a simulated attack follows are too small for it: for a ResNet-9 and half a
    batch of 48 images, 97% of them became 0. bfloat16 kept the sign of 97%.
    """
    if half_type(device) == torch.bfloat16:
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def advice(error: Exception, victim: Classifier, x: Tensor, y: Tensor) -> str | None:
    """What to do about an error that a model of one's own may bring; None for all others."""
    if len(x) == 1 and "more than 1 value per channel" in str(error):
        return (
            "A batch of one image: BatchNorm has nothing to compare it with. Choose a batch size "
            "that leaves no single image over, or a model with GroupNorm."
        )
    if "appears to not have been used in the graph" in str(error):
        used = {name: p for name, p in victim.named_parameters() if p.requires_grad}
        loss = cross_entropy(victim(x), y)
        gradients = torch.autograd.grad(loss, list(used.values()), allow_unused=True)
        unused = [name for name, g in zip(used, gradients, strict=True) if g is None]
        if unused:
            return (
                f"The model does not use {', '.join(unused)}, so there is no gradient to follow: "
                "remove the layer, or let forward() use it."
            )
    return None


def in_layout_of(parameter: Tensor, gradient: Tensor) -> Tensor:
    """The gradient, copied if its numbers lie in memory in another order than the parameter's.

    A fused optimizer walks through both memories in step, whatever their strides say.
    """
    if gradient.stride() == parameter.stride() or gradient.shape != parameter.shape:
        return gradient
    return torch.empty_like(parameter).copy_(gradient)


def start(model: Classifier, scenario: Scenario) -> Classifier:
    """The copy that training starts from: weights redrawn or kept, features frozen or free."""
    victim = copy.deepcopy(model)
    victim.requires_grad_(True)
    if scenario == "scratch":
        redraw(victim)
    if scenario == "transfer":
        redraw(victim.head)
        victim.features.requires_grad_(False)
    return victim


def redraw(module: nn.Module) -> None:
    """Draw all weights of a module anew, each layer in its own default way.

    Raises TrainingError that names the weights which no layer draws.
    """
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(torch.nan)
    reset(module, set())
    left = [name for name, p in module.named_parameters() if p.isnan().any()]
    if left:
        raise TrainingError(
            f"Nothing draws {', '.join(left)} anew, so every seed would start from the weights "
            "that came in. Give the layer that holds them a method reset_parameters() that sets "
            "them, or go on from these weights with scenario='finetune'."
        )


def reset(module: nn.Module, seen: set[nn.Module]) -> None:
    """Reset the layers inside a module, then the module itself, which may set some of theirs."""
    if module in seen:
        return
    seen.add(module)
    for layer in module.children():
        reset(layer, seen)
    # Attention and transformers have it under a name of their own.
    draw = getattr(module, "reset_parameters", getattr(module, "_reset_parameters", None))
    if draw is not None:
        draw()


def set_training_mode(victim: Classifier, scenario: Scenario) -> None:
    """Training mode; frozen features stay in evaluation mode so that BatchNorm does not move."""
    victim.train()
    if scenario == "transfer":
        victim.features.eval()


def batches_in(n: int, batch_size: int) -> int:
    """Batches an epoch; the last one of a shuffled pass may be smaller."""
    return -(-n // batch_size)


def batch_rows(
    n: int, batch_size: int, poisson: bool, generator: torch.Generator
) -> Iterator[Tensor]:
    """The rows of each batch of one epoch: a shuffled pass, or as many Poisson samples."""
    device = generator.device
    if not poisson:
        yield from torch.randperm(n, generator=generator, device=device).split(batch_size)
        return
    for _ in range(batches_in(n, batch_size)):
        chosen = torch.rand(n, generator=generator, device=device) < batch_size / n
        yield chosen.nonzero()[:, 0]


def make_optimizer(
    parameters: list[nn.Parameter], recipe: Recipe, batches: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """The optimizer of a recipe and its learning rate schedule, to be stepped at every batch."""
    lr, decay = recipe.lr, recipe.weight_decay
    if recipe.optimizer == "adam":
        adam = torch.optim.Adam(parameters, lr=lr, weight_decay=decay)
        return adam, torch.optim.lr_scheduler.ConstantLR(adam, factor=1.0)
    sgd = torch.optim.SGD(
        parameters, lr=lr, momentum=0.9, nesterov=True, weight_decay=decay, fused=True
    )
    cycle = torch.optim.lr_scheduler.OneCycleLR(
        sgd, max_lr=lr, total_steps=recipe.epochs * batches + 1, cycle_momentum=False
    )
    return sgd, cycle


def filter_mask(
    model: Classifier,
    data: Data,
    recipe: Recipe,
    scenario: Scenario,
    defense: Defense,
    seed: int,
) -> Tensor:
    """Which rows of the data the defense keeps: a boolean mask.

    Raises TrainingError if it is no such mask, or keeps no image.
    """

    def fit(part: Data) -> Classifier:
        return train(model, part, recipe, scenario=scenario, seed=seed)

    with torch.random.fork_rng():
        torch.manual_seed(operator.index(seed))
        mask = defense.keep(data, fit)
    if mask.dtype != torch.bool or mask.shape != (len(data),):
        raise TrainingError(
            f"Defense {defense.name!r} must return a boolean mask of shape ({len(data)},), "
            f"got {mask.dtype} of shape {tuple(mask.shape)}."
        )
    if not mask.any():
        raise TrainingError(f"Defense {defense.name!r} keeps no image: loosen its limit.")
    return mask.to(data.y.device)  # some filters compute on the CPU


def check_finite(parameters: list[nn.Parameter], epoch: int, recipe: Recipe) -> None:
    """Stop as soon as a weight is no longer a number."""
    if not all(torch.isfinite(p).all() for p in parameters):
        raise TrainingError(
            f"Training diverged in epoch {epoch + 1} of {recipe.epochs}: the weights are no longer "
            f"finite. Lower the learning rate (now {recipe.lr}) or look for extreme images."
        )
