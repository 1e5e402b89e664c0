"""Built in lesson 10, gradient shaping.

Generated from notebooks/10_gradient_shaping.ipynb: edit it there, then run make notebooks.
"""

import math
from collections.abc import Sequence
from weakref import WeakSet

import torch
from opacus.accountants import RDPAccountant
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, group_norm, unfold

from course_utils import guards
from course_utils.attacks import gradient_matching
from course_utils.attacks.gradient_matching import Gradient
from course_utils.defense import Defense
from course_utils.defenses import per_example
from course_utils.models import Classifier


def linear_squares(layer: nn.Linear, a: Tensor, b: Tensor) -> Tensor:
    """The squared length of each example's gradient (N,) for a linear layer.

    a: what went into the layer (N, inputs). b: the gradient of the summed loss for what came out
    (N, outputs). Source: Goodfellow (arXiv 1510.01799).
    """
    squares = a.square().sum(1) * b.square().sum(1)
    return squares if layer.bias is None else squares + b.square().sum(1)


def convolution_squares(layer: nn.Conv2d, a: Tensor, b: Tensor) -> Tensor:
    """The squared length of each example's gradient (N,) for a convolution.

    a: what went into the layer (N, C, H, W). b: the gradient of the summed loss for what came out
    (N, C', H', W'). Source: Bu, Mao and Xu (arXiv 2205.10683).
    """
    patches = unfold(a, layer.kernel_size, layer.dilation, layer.padding, layer.stride)
    b = b.flatten(2)
    if patches.shape[2] ** 2 < patches.shape[1] * b.shape[1]:
        products = (patches.mT @ patches) * (b.mT @ b)
        squares = products.sum((1, 2)).clamp(min=0)  # rounding may go below 0
    else:
        squares = (b @ patches.mT).square().sum((1, 2))
    return squares if layer.bias is None else squares + b.sum(2).square().sum(1)


def norm_squares(layer: nn.GroupNorm, a: Tensor, b: Tensor) -> Tensor:
    """The squared length of each example's gradient (N,) for the factors and shifts of GroupNorm.

    a: what went into the layer, (N, C, H, W) or (N, C). b: the gradient of the summed loss for what
    came out.
    """
    a, b = (part.reshape(*part.shape[:2], -1) for part in (a, b))
    scaled = group_norm(a, layer.num_groups, eps=layer.eps)
    factors, shifts = (scaled * b).sum(2), b.sum(2)
    return factors.square().sum(1) + shifts.square().sum(1)


SQUARES = {
    nn.Linear: linear_squares,
    nn.Conv2d: convolution_squares,
    nn.GroupNorm: norm_squares,
}


def training_layers(model: Classifier) -> list[nn.Module]:
    """The layers with weights of their own that train.

    Raises ValueError for BatchNorm and for layers whose lengths are not known here.
    """
    per_example.check_examples(model)
    layers = []
    for layer in model.modules():
        trains = [p.requires_grad for p in layer.parameters(recurse=False)]
        if not any(trains):
            continue
        if type(layer) not in SQUARES or not all(trains):
            raise no_formula(layer)
        if isinstance(layer, nn.Conv2d):
            padded = layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
            if layer.groups > 1 or not padded:
                raise no_formula(layer)
        layers.append(layer)
    return layers


def no_formula(layer: nn.Module) -> ValueError:
    """The error for a layer whose lengths are not known here."""
    return ValueError(
        f"No formula for {layer}: a layer that trains must be linear, a convolution without groups "
        "and with zero padding given in numbers, or GroupNorm, and train as a whole. For other "
        "models use clip_and_noise(per_example_gradients(...), ...)."
    )


def lengths(losses: Tensor, seen: per_example.Record) -> Tensor:
    """The length of each example's gradient (N,), from what `per_example.record` has noted."""
    outputs = [output for _, _, output in seen]
    # The graph is kept: whoever clips needs the losses for a second backward pass.
    slopes = torch.autograd.grad(losses.sum(), outputs, retain_graph=True)
    squares = [
        SQUARES[type(layer)](layer, a, b) for (layer, a, _), b in zip(seen, slopes, strict=True)
    ]
    return torch.stack(squares).sum(0).sqrt()


def ghost_norms(model: Classifier, images: Tensor, labels: Tensor) -> Tensor:
    """The length (N,) of the gradient of each image (N, C, H, W) alone, over all that trains.

    labels: (N,) or soft, as rows of probabilities (N, classes).
    Raises ValueError for BatchNorm and for layers whose lengths are not known here.
    """
    return lengths(*per_example.record(model, images, labels, training_layers(model)))


def clipped_sum(
    losses: Tensor, norms: Tensor, parameters: Sequence[nn.Parameter], clip: float
) -> Gradient:
    """The sum of the clipped gradients of N images, for each parameter, in one backward pass.

    losses: the loss of each image (N,), with its graph. norms: the length of each image's gradient
    (N,), which counts as a constant. clip: the largest length of one image's gradient.
    """
    weights = (clip / norms).clamp(max=1).detach()
    return torch.autograd.grad((weights * losses).sum(), parameters)


def shaped_gradient(
    model: Classifier,
    images: Tensor,
    labels: Tensor,
    clip: float,
    noise: float,
    batch_size: int,
    generator: torch.Generator,
) -> Gradient:
    """The sum of the clipped gradients of the images, plus noise, over the batch size.

    images: (N, C, H, W), N may be 0. labels: (N,) or soft (N, classes). clip: the bound. noise: the
    multiplier. Source: Abadi and others (arXiv 1607.00133), algorithm 1.
    """
    deviation = per_example.deviation(clip, noise)
    parameters = [p for p in model.parameters() if p.requires_grad]
    total = [torch.zeros_like(p) for p in parameters]
    if len(images) > 0:
        losses, seen = per_example.record(model, images, labels, training_layers(model))
        total = clipped_sum(losses, lengths(losses, seen), parameters, clip)
    noisy = per_example.add_noise(tuple(total), deviation, generator)
    return tuple(part / batch_size for part in noisy)


def prove_lengths(model: Classifier, image: Tensor, label: Tensor) -> None:
    """Raise ValueError unless the layers account for the whole gradient of one image (1, C, H, W).

    A weight that forward() also uses outside of its layer would escape the bound.
    """
    with torch.random.fork_rng():  # Dropout must not draw from the stream of the training
        losses, seen = per_example.record(model, image, label, training_layers(model))
    found = lengths(losses, seen)
    parameters = [p for p in model.parameters() if p.requires_grad]
    whole = gradient_matching.length(torch.autograd.grad(losses.sum(), parameters))
    guards.check_length(found.item(), whole.item())


def gradient_shaping(clip: float, noise: float, batch_size: int = 100) -> Defense:
    """Clip every example's gradient, add noise: DP-SGD, with Poisson sampling.

    clip: the largest length of one example's gradient. noise: the multiplier, 0 for clipping only.
    batch_size: that of the recipe; `train` refuses another. Labels may be soft, but epsilon does
    not hold for rows that mix images. Raises ValueError for values without meaning, and in training
    for models whose lengths are not known here, as with BatchNorm: build them with norm="group".
    Source: Hong and others (arXiv 2002.11497); Abadi and others (arXiv 1607.00133).
    """
    per_example.check_shaping(clip, noise)
    guards.check_whole("The batch size", batch_size)
    proven: WeakSet[Classifier] = WeakSet()

    def gradients(model: Classifier, x: Tensor, y: Tensor, generator: torch.Generator) -> Gradient:
        if len(x) > 0 and model not in proven:
            prove_lengths(model, x[:1], y[:1])
            proven.add(model)
        return shaped_gradient(model, x, y, clip, noise, batch_size, generator)

    name = f"gradient shaping, C={clip:g}, sigma={noise:g}"
    return Defense(name, gradients=gradients, poisson=True, batch_size=batch_size)


def batch_shaping(clip: float, noise: float) -> Defense:
    """Clip and noise the mean gradient of the batch, not of each example. It has no epsilon.

    clip: the largest length of the batch's gradient; the noise has the standard deviation
    clip * noise in every coordinate. Raises ValueError for values without meaning.
    Source: the 'private-gaussian' baseline of Geiping and others (arXiv 2102.13624).
    """
    deviation = per_example.deviation(clip, noise)

    def gradients(model: Classifier, x: Tensor, y: Tensor, generator: torch.Generator) -> Gradient:
        parameters = [p for p in model.parameters() if p.requires_grad]
        mean = torch.autograd.grad(cross_entropy(model(x), y), parameters)
        factor = (clip / gradient_matching.length(mean)).clamp(max=1)
        return per_example.add_noise(tuple(factor * part for part in mean), deviation, generator)

    return Defense(f"batch shaping, C={clip:g}, sigma={noise:g}", gradients=gradients)


# From very near 1 to 4,096; above 11 whole numbers only: there sums of fractions lose digits.
NEAR_ONE = [1 + 10 ** (k / 10) for k in range(-70, 11)]
WHOLE = [*range(12, 64), *(round(64 * 2 ** (k / 4)) for k in range(25))]


def privacy_epsilon(noise: float, sample_rate: float, steps: int, delta: float = 1e-5) -> float:
    """The epsilon of training with gradient shaping, when one image is added or removed.

    noise: the multiplier. sample_rate: batch size over number of images. delta: in (0, 1).
    Infinite without noise. Raises ValueError for values without meaning.
    """
    per_example.check_shaping(1.0, noise)
    if not 0 < delta < 1:
        raise ValueError(f"delta is {delta}, expected a probability in (0, 1), such as 1e-5.")
    if not 0 < sample_rate <= 1 or steps < 1:
        raise ValueError(
            f"{steps} steps at a sample rate of {sample_rate}: expected at least one step and a "
            "rate in (0, 1], the batch size over the number of images."
        )
    if noise == 0:
        return math.inf
    accountant = RDPAccountant()
    for _ in range(steps):
        accountant.step(noise_multiplier=noise, sample_rate=sample_rate)
    return accountant.get_epsilon(delta, alphas=NEAR_ONE + WHOLE)
