"""Built in lesson 06, MetaPoison.

Generated from notebooks/06_metapoison.ipynb: edit it there, then run make notebooks.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy

from course_utils import guards
from course_utils.attacks import crafting, gradient_matching
from course_utils.data import Data
from course_utils.models import Classifier
from course_utils.threat import Poison, Targeted, ThreatModel, ThreatModelError

Parameters = dict[str, Tensor]  # the weights of a model, by name


def weights_of(model: Classifier) -> Parameters:
    """A copy of the model's weights that can be differentiated."""
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    return {name: p.detach().clone().requires_grad_() for name, p in trained.items()}


def unrolled_step(
    model: Classifier, parameters: Parameters, images: Tensor, labels: Tensor, lr: float
) -> Parameters:
    """The weights after one SGD step on the mean cross-entropy of a batch, as new tensors.

    parameters: the weights before the step. images: (N, C, H, W). labels: (N,). lr: of the step.
    The result can be differentiated for the parameters and for the images.
    """
    with sdpa_kernel(SDPBackend.MATH):  # faster kernels of attention have no second derivative
        loss = cross_entropy(functional_call(model, parameters, (images,)), labels)
    gradients = torch.autograd.grad(loss, tuple(parameters.values()), create_graph=True)
    pairs = zip(parameters.items(), gradients, strict=True)
    return {name: p - lr * gradient for (name, p), gradient in pairs}


def margin_loss(logits: Tensor, adversarial_class: int, confidence: float = 0.2) -> Tensor:
    """How far the adversarial class is from leading by `confidence`, averaged over images.

    logits: (N, classes). For each image: its largest other logit, minus the adversarial logit, plus
    `confidence`, but never less than zero. Source: Carlini and Wagner (arXiv 1608.04644).
    """
    others = logits.clone()
    others[:, adversarial_class] = -torch.inf
    behind = others.amax(1) - logits[:, adversarial_class]
    return (behind + confidence).clamp(min=0).mean()


AdversarialLoss = Callable[[Tensor, int], Tensor]  # of logits (N, classes) and a class


def adversarial_cross_entropy(logits: Tensor, adversarial_class: int) -> Tensor:
    """The mean cross-entropy of logits (N, classes) under the adversarial class."""
    labels = torch.full((len(logits),), adversarial_class, device=logits.device)
    return cross_entropy(logits, labels)


def first_order_step(
    model: Classifier, parameters: Parameters, images: Tensor, labels: Tensor, lr: float
) -> Parameters:
    """The same step, differentiated as if the weights before it did not depend on the images."""
    fixed = {name: p.detach().requires_grad_() for name, p in parameters.items()}
    moved = unrolled_step(model, fixed, images, labels, lr)
    return {name: p + (moved[name] - fixed[name]) for name, p in parameters.items()}


def unrolled_loss(
    model: Classifier,
    parameters: Parameters,
    images: Tensor,
    labels: Tensor,
    target: Tensor,
    adversarial_class: int,
    lr: float,
    steps: int,
    *,
    loss: AdversarialLoss = adversarial_cross_entropy,
    first_order: bool = False,
) -> Tensor:
    """The adversarial loss of the target after `steps` SGD steps on a batch: the meta-loss.

    images: (N, C, H, W), the batch of every step. labels: (N,). target: (T, C, H, W).
    first_order: leave out what goes through the weights before each step (`first_order_step`).
    Source: Huang and others (arXiv 2004.00225), algorithm 1.
    """
    step = first_order_step if first_order else unrolled_step
    for _ in range(steps):
        parameters = step(model, parameters, images, labels, lr)
    return loss(functional_call(model, parameters, (target,)), adversarial_class)


def largest_gradients(
    surrogates: Sequence[Classifier], data: Data, goal: Targeted, threat: ThreatModel
) -> Tensor:
    """The rows of the adversarial class that teach the surrogates most: the whole budget."""
    rows = crafting.candidates(data, goal.adversarial_class, threat.budget)
    return gradient_matching.choose_bases(surrogates, data, rows, threat.budget)


@dataclass(frozen=True)
class Unrolling:
    """How a crafting step looks ahead: `steps` SGD steps of learning rate `lr`.

    poisons, clean: how many images of each kind the batch holds, at most.
    loss, first_order: those of `unrolled_loss`.
    """

    steps: int = 5
    lr: float = 0.1
    poisons: int = 50
    clean: int = 100
    loss: AdversarialLoss = adversarial_cross_entropy
    first_order: bool = False

    def __post_init__(self) -> None:
        if self.steps < 1 or self.lr <= 0 or self.poisons < 1 or self.clean < 0:
            raise ThreatModelError(
                f"Nothing to unroll with {self}: take at least one step, a positive learning "
                "rate and at least one poison in the batch."
            )


FIVE_STEPS = Unrolling()


def without(data: Data, rows: Tensor) -> Data:
    """The data without these rows."""
    kept = torch.ones(len(data), dtype=torch.bool, device=data.y.device)
    kept[rows] = False
    return data[kept]


def draw(data: Data, most: int, generator: torch.Generator) -> Tensor:
    """At most `most` of the rows of the data, in random order."""
    return torch.randperm(len(data), generator=generator, device=generator.device)[:most]


def meta_objective(
    surrogates: Sequence[Classifier],
    clean: Data,
    poisons: Data,
    goal: Targeted,
    generator: torch.Generator,
    how: Unrolling,
) -> Callable[[Tensor], Tensor]:
    """What crafting lowers: the meta-loss of a surrogate and a batch, drawn at each call."""
    weights = [weights_of(model) for model in surrogates]
    outer = goal.image[None], goal.adversarial_class, how.lr, how.steps

    def objective(images: Tensor) -> Tensor:
        i = torch.randint(len(weights), (1,), generator=generator, device=generator.device).item()
        some, rest = draw(poisons, how.poisons, generator), draw(clean, how.clean, generator)
        batch = torch.cat([images[some], clean.x[rest]])
        labels = torch.cat([poisons.y[some], clean.y[rest]])
        options = {"loss": how.loss, "first_order": how.first_order}
        return unrolled_loss(surrogates[i], weights[i], batch, labels, *outer, **options)

    return objective


def metapoison(
    surrogates: Sequence[Classifier],
    data: Data,
    goal: Targeted,
    threat: ThreatModel,
    seed: int,
    *,
    base: Tensor | None = None,
    how: Unrolling = FIVE_STEPS,
    steps: int = 100,
) -> Poison:
    """Correctly labelled images on which a few training steps teach the adversarial class.

    base: the rows to poison. steps: of crafting. Source: Huang and others (arXiv 2004.00225).
    """
    guards.check_surrogates(surrogates, data, goal.image[None], goal.adversarial_class)
    if base is None:
        base = largest_gradients(surrogates, data, goal, threat)
    generator = torch.Generator(data.x.device).manual_seed(seed)
    poisons, epsilon = data[base], guards.bound_of(threat)
    objective = meta_objective(surrogates, without(data, base), poisons, goal, generator, how)
    start = crafting.random_start(poisons.x, epsilon, generator)
    images, _ = crafting.signed_adam(objective, start, poisons.x, epsilon, steps=steps, lr=0.05)
    return Poison(images, poisons.y, base, threat.placement)
