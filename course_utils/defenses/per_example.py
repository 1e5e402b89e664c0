"""Built in lesson 09, anatomy of a poisoned gradient.

Generated from notebooks/09_anatomy_of_a_gradient.ipynb: edit it there, then run make notebooks.
"""

import math

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.functional import cross_entropy

from course_utils.attacks.gradient_matching import Gradient
from course_utils.guards import check_seen
from course_utils.models import Classifier

ExampleGradients = tuple[Tensor, ...]  # for each trainable parameter, one gradient an example


def check_examples(model: Classifier) -> None:
    """Raise ValueError if the gradient of one example alone is not defined."""
    if any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in model.modules()):
        raise ValueError(
            "The model has BatchNorm, which mixes the images of a batch: the gradient of one "
            "example alone is not defined. Build the model with norm='group'."
        )


def per_example_gradients(model: Classifier, images: Tensor, labels: Tensor) -> ExampleGradients:
    """The gradient of the loss of each image (N, C, H, W) alone, with its label (N,).

    Returns a tensor (N, *shape) for each trainable parameter, in the order of `model.parameters()`.
    N may be 0. The model is left as it is. Raises ValueError if it has BatchNorm.
    """
    check_examples(model)
    weights = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    if len(images) == 0:
        return tuple(p.new_zeros(0, *p.shape) for p in weights.values())

    def loss(weights: dict[str, Tensor], image: Tensor, label: Tensor) -> Tensor:
        return cross_entropy(functional_call(model, weights, (image[None],)), label[None])

    every_example = vmap(grad(loss), in_dims=(None, 0, 0), randomness="different")
    return tuple(every_example(weights, images, labels).values())


def per_example_norms(gradients: ExampleGradients) -> Tensor:
    """The length of each example's gradient (N,), over all parameters together."""
    parts = [part.flatten(1).norm(dim=1) for part in gradients]
    return torch.stack(parts).norm(dim=0)


def linear_layers(model: Classifier) -> list[nn.Linear]:
    """The layers that train. Raises ValueError if one of them is not linear."""
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    covered = {id(p) for layer in layers for p in layer.parameters()}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and id(parameter) not in covered:
            raise ValueError(
                f"{name} is not a weight of a linear layer, so this formula does not hold: use "
                "per_example_norms(per_example_gradients(model, images, labels))."
            )
    return [layer for layer in layers if layer.weight.requires_grad]


Record = list[tuple[nn.Module, Tensor, Tensor]]  # a layer, what went in, what came out


def record(
    model: Classifier, images: Tensor, labels: Tensor, layers: list[nn.Module], graph: bool = False
) -> tuple[Tensor, Record]:
    """The loss of each image (N,), and the record of these layers.

    graph: whether what went in can be differentiated, as lesson 15 does. Raises ValueError unless
    each weight that trains belongs to one of these layers, and is used once.
    """
    seen: Record = []

    def note(layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        seen.append((layer, inputs[0] if graph else inputs[0].detach(), output))
        return output.clone()  # what follows may change it in place, as some ReLUs do

    hooks = [layer.register_forward_hook(note) for layer in layers]
    try:
        with torch.enable_grad():
            losses = cross_entropy(model(images), labels, reduction="none")
    finally:
        for hook in hooks:
            hook.remove()
    check_seen(model, seen)
    return losses, seen


def linear_norms(model: Classifier, images: Tensor, labels: Tensor) -> Tensor:
    """The same lengths (N,) for models of linear layers, without the gradients of the examples.

    The simplest case of `gradient_shaping.ghost_norms`, which lesson 10 builds for more layers.
    Source: Goodfellow, Efficient Per-Example Gradient Computations (arXiv 1510.01799).
    """
    losses, seen = record(model, images, labels, linear_layers(model))
    errors = torch.autograd.grad(losses.sum(), [output for _, _, output in seen])
    squares = []
    for (layer, a, _), e in zip(seen, errors, strict=True):
        bias = 0 if layer.bias is None else 1  # a bias is a weight whose input is always 1
        squares.append((a.square().sum(1) + bias) * e.square().sum(1))
    return torch.stack(squares).sum(0).sqrt()


def check_shaping(bound: float, noise: float = 0.0) -> None:
    """Raise ValueError unless gradients can be clipped to `bound` and given this much noise."""
    if not bound > 0:
        raise ValueError(f"The clipping bound is {bound}, expected a positive length.")
    if not 0 <= noise < math.inf:
        raise ValueError(f"The noise multiplier is {noise}, expected 0 or more.")
    if noise > 0 and bound == math.inf:
        raise ValueError("Noise is measured in units of the bound: with noise, give a finite one.")


def deviation(bound: float, noise: float) -> float:
    """The standard deviation of the noise on a sum of clipped gradients, in each coordinate."""
    check_shaping(bound, noise)
    return bound * noise if noise > 0 else 0.0  # the bound may be infinite where there is no noise


def clip(gradients: ExampleGradients, bound: float) -> ExampleGradients:
    """Each example's gradient, scaled down to the length `bound` where it is longer.

    gradients: a tensor (N, *shape) for each parameter; an example's length is that over all of them
    together. An infinite bound changes nothing. Raises ValueError unless the bound is positive.
    Source: Abadi and others, Deep Learning with Differential Privacy (arXiv 1607.00133).
    """
    check_shaping(bound)
    factor = (bound / per_example_norms(gradients)).clamp(max=1)
    return tuple(part * factor.view(-1, *[1] * (part.ndim - 1)) for part in gradients)


def add_noise(gradient: Gradient, deviation: float, generator: torch.Generator) -> Gradient:
    """The gradient plus Gaussian noise of this standard deviation; 0 draws nothing."""
    if deviation == 0:
        return tuple(gradient)
    device = gradient[0].device
    draws = (torch.randn(p.shape, generator=generator, device=device) for p in gradient)
    return tuple(p + deviation * draw for p, draw in zip(gradient, draws, strict=True))


def clip_and_noise(
    gradients: ExampleGradients,
    bound: float,
    noise: float,
    batch_size: int,
    generator: torch.Generator,
) -> Gradient:
    """The shaped gradient: the sum of the clipped gradients, plus noise, over the batch size.

    noise: the standard deviation of the noise in units of `bound`, the same for each coordinate.
    With no example (N = 0), only the noise is left. Raises ValueError for values without meaning.
    """
    total, size = tuple(part.sum(0) for part in clip(gradients, bound)), deviation(bound, noise)
    return tuple(part / batch_size for part in add_noise(total, size, generator))
