"""Built in lesson 05, gradient matching.

Generated from notebooks/05_gradient_matching.ipynb: edit it there, then run make notebooks.
"""

import copy
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import affine_grid, cross_entropy, grid_sample

from course_utils import guards
from course_utils.attacks import crafting
from course_utils.data import Data
from course_utils.models import Classifier
from course_utils.threat import Poison, Targeted, ThreatModel
from course_utils.training import Recipe, train

Gradient = tuple[Tensor, ...]  # one tensor for each parameter of a model


def loss_gradient(model: Classifier, images: Tensor, labels: Tensor, graph: bool) -> Gradient:
    """The gradient of the mean loss for all parameters; with `graph`, it can be differentiated."""
    weights = tuple(p for p in model.parameters() if p.requires_grad)  # a frozen layer has none
    with sdpa_kernel(SDPBackend.MATH):  # faster kernels of attention have no second derivative
        loss = cross_entropy(model(images), labels)
    return torch.autograd.grad(loss, weights, create_graph=graph)


def target_gradient(model: Classifier, images: Tensor, labels: Tensor) -> Gradient:
    """The gradient that would teach `model` to call the images (N, C, H, W) by these labels (N,).

    It is the gradient of the mean loss for all parameters, a constant in all that follows.
    """
    return loss_gradient(model, images, labels, graph=False)


def dot(first: Gradient, second: Gradient) -> Tensor:
    """The inner product over all parameters."""
    return sum(torch.dot(a.flatten(), b.flatten()) for a, b in zip(first, second, strict=True))


def length(gradient: Gradient) -> Tensor:
    """The Euclidean norm over all parameters."""
    return torch.stack([part.norm() for part in gradient]).norm()


def staggered(
    model: Classifier,
    data: Data,
    recipe: Recipe,
    seed: int,
    numbers: Iterable[int],
    epochs: Sequence[int],
    **options,
) -> list[Classifier]:
    """Train one surrogate for each number; of each, keep a copy after each of these epochs.

    The copies of one training follow one another, the youngest first. options: see `train`.
    """
    copies = []

    def keep(surrogate: Classifier, epoch: int) -> None:
        if epoch in epochs:
            copies.append(copy.deepcopy(surrogate))  # the surrogate itself trains on

    for number in numbers:
        first = 1000 * (seed + 1) + number
        train(model, data, recipe, seed=first, after_epoch=keep, **options)
    return copies


def alignment_loss(model: Classifier, images: Tensor, labels: Tensor, wanted: Gradient) -> Tensor:
    """One minus the cosine between the images' gradient and the wanted one, over all parameters.

    images: (N, C, H, W); the loss can be differentiated for them. labels: (N,), those that the
    victim will see. Source: Geiping and others, Witches' Brew (arXiv 2009.02276).
    """
    found = loss_gradient(model, images, labels, graph=True)
    return 1 - dot(found, wanted) / (length(found) * length(wanted))


Objective = Callable[[Classifier, Tensor, Tensor, Gradient], Tensor]


def squared_error(model: Classifier, images: Tensor, labels: Tensor, wanted: Gradient) -> Tensor:
    """The squared distance between the images' gradient and the wanted one, as a share of it.

    images: (N, C, H, W); the loss can be differentiated for them. labels: (N,).
    """
    found = loss_gradient(model, images, labels, graph=True)
    rest = tuple(a - b for a, b in zip(found, wanted, strict=True))
    return dot(rest, rest) / dot(wanted, wanted)


def gradient_norms(model: Classifier, images: Tensor, labels: Tensor) -> Tensor:
    """The length of the gradient of each image (N, C, H, W) alone, over all parameters: (N,)."""
    pairs = zip(images.split(1), labels.split(1), strict=True)
    return torch.stack([length(target_gradient(model, x, y)) for x, y in pairs])


def choose_bases(surrogates: Sequence[Classifier], data: Data, rows: Tensor, budget: int) -> Tensor:
    """Of `rows`, the `budget` images with the largest gradient, averaged over the surrogates.

    Source: Souri and others, Sleeper Agent (arXiv 2106.08970), released code.
    """
    norms = [gradient_norms(model, data.x[rows], data.y[rows]) for model in surrogates]
    order = torch.stack(norms).mean(0).argsort(descending=True)
    return rows[order[:budget]]


def augment(images: Tensor, generator: torch.Generator, pixels: float = 2.0) -> Tensor:
    """Flip each image (N, C, H, W) or not, and shift it by up to `pixels`, also between pixels.

    What moves in from outside is black. The result can be differentiated for the images.
    """
    n, _, height, width = images.shape
    random = torch.rand(3, n, generator=generator, device=images.device)
    transform = torch.zeros(n, 2, 3, device=images.device)
    transform[:, 0, 0] = torch.where(random[0] < 0.5, -1.0, 1.0)
    transform[:, 1, 1] = 1.0
    transform[:, 0, 2] = (2 * random[1] - 1) * 2 * pixels / width
    transform[:, 1, 2] = (2 * random[2] - 1) * 2 * pixels / height
    places = affine_grid(transform, list(images.shape), align_corners=False)
    return grid_sample(images, places, align_corners=False)


def matching_objective(
    surrogates: Sequence[Classifier],
    wanted: Sequence[Gradient],
    labels: Tensor,
    generator: torch.Generator,
    *,
    per_step: int | None = 1,
    loss: Objective = alignment_loss,
    augmented: bool = False,
) -> Callable[[Tensor], Tensor]:
    """What crafting lowers: the mean loss over surrogates (all if per_step is None)."""

    def objective(images: Tensor) -> Tensor:
        seen = augment(images, generator) if augmented else images
        chosen = range(len(surrogates))
        if per_step is not None:
            drawn = torch.randperm(len(surrogates), generator=generator, device=generator.device)
            chosen = drawn[:per_step].tolist()
        losses = [loss(surrogates[i], seen, labels, wanted[i]) for i in chosen]
        return torch.stack(losses).mean()

    return objective


def brew(
    surrogates: Sequence[Classifier],
    wanted: Sequence[Gradient],
    base: Data,
    epsilon: float,
    generator: torch.Generator,
    *,
    steps: int = 100,
    lr: float = 0.1,
    restarts: int = 1,
    **options,
) -> Tensor:
    """Craft images within `epsilon` of the base images whose gradients match the wanted ones.

    restarts: the lowest loss over all surrogates wins. options: see `matching_objective`."""
    objective = matching_objective(surrogates, wanted, base.y, generator, **options)
    judge = matching_objective(
        surrogates, wanted, base.y, generator, **options | {"per_step": None}
    )
    found = []
    for _ in range(restarts):
        start = crafting.random_start(base.x, epsilon, generator)
        found.append(crafting.signed_adam(objective, start, base.x, epsilon, steps=steps, lr=lr)[0])
    return found[0] if restarts == 1 else min(found, key=lambda images: judge(images).item())


def gradient_matching(
    surrogates: Sequence[Classifier],
    data: Data,
    goal: Targeted,
    threat: ThreatModel,
    seed: int,
    *,
    base: Tensor | None = None,
    **options,
) -> Poison:
    """Witches' Brew. base: the rows to poison, or None for those that `choose_bases` takes.

    options: those of `brew`. Source: Geiping and others (arXiv 2009.02276), algorithm 1."""
    guards.check_surrogates(surrogates, data, goal.image[None], goal.adversarial_class)
    if base is None:
        rows = crafting.candidates(data, goal.adversarial_class, threat.budget)
        base = choose_bases(surrogates, data, rows, threat.budget)
    label = torch.tensor([goal.adversarial_class], device=data.y.device)
    wanted = [target_gradient(model, goal.image[None], label) for model in surrogates]
    generator = torch.Generator(data.x.device).manual_seed(seed)
    images = brew(surrogates, wanted, data[base], guards.bound_of(threat), generator, **options)
    return Poison(images, data.y[base], base, threat.placement)


def joint_gradient(gradients: Sequence[Gradient]) -> Gradient:
    """One wanted gradient for several targets: the mean of their gradients, each of length 1.

    The mean of the alignment losses of the targets is lowest where the alignment loss of this one
    gradient is lowest.
    """
    units = [[part / length(gradient) for part in gradient] for gradient in gradients]
    return tuple(torch.stack(parts).mean(0) for parts in zip(*units, strict=True))
