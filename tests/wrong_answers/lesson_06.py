"""Plausible wrong answers to the exercises of lesson 06, and what the check must say of them."""

import torch
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from course_utils.attacks.gradient_matching import dot, target_gradient


def gradients_of(model, parameters, images, labels, graph=True):
    loss = cross_entropy(functional_call(model, parameters, (images,)), labels)
    return torch.autograd.grad(loss, tuple(parameters.values()), create_graph=graph)


def cuts_the_graph(model, parameters, images, labels, lr):
    parts = gradients_of(model, parameters, images, labels, graph=False)
    return {name: p - lr * g for (name, p), g in zip(parameters.items(), parts, strict=True)}


def goes_uphill(model, parameters, images, labels, lr):
    parts = gradients_of(model, parameters, images, labels)
    return {name: p + lr * g for (name, p), g in zip(parameters.items(), parts, strict=True)}


def forgets_the_old_weights_in_the_graph(model, parameters, images, labels, lr):
    parts = gradients_of(model, parameters, images, labels)
    pairs = zip(parameters.items(), parts, strict=True)
    return {name: p.detach() - lr * g for (name, p), g in pairs}


def sums_over_the_batch(model, parameters, images, labels, lr):
    loss = cross_entropy(functional_call(model, parameters, (images,)), labels, reduction="sum")
    parts = torch.autograd.grad(loss, tuple(parameters.values()), create_graph=True)
    return {name: p - lr * g for (name, p), g in zip(parameters.items(), parts, strict=True)}


def moves_the_model_itself(model, parameters, images, labels, lr):
    parts = gradients_of(model, parameters, images, labels)
    with torch.no_grad():
        for p, g in zip(model.parameters(), parts, strict=True):
            p -= lr * g
    return dict(model.named_parameters())


def returns_a_list(model, parameters, images, labels, lr):
    parts = gradients_of(model, parameters, images, labels)
    return [p - lr * g for p, g in zip(parameters.values(), parts, strict=True)]


def never_stops(logits, adversarial_class, confidence=0.2):
    others = logits.clone()
    others[:, adversarial_class] = -torch.inf
    return (others.amax(1) - logits[:, adversarial_class] + confidence).mean()


def forgets_the_confidence(logits, adversarial_class, confidence=0.2):
    others = logits.clone()
    others[:, adversarial_class] = -torch.inf
    return (others.amax(1) - logits[:, adversarial_class]).clamp(min=0).mean()


def takes_the_largest_of_all(logits, adversarial_class, confidence=0.2):
    return (logits.amax(1) - logits[:, adversarial_class] + confidence).clamp(min=0).mean()


def works_in_place(logits, adversarial_class, confidence=0.2):
    mine = logits[:, adversarial_class].clone()
    logits[:, adversarial_class] = -torch.inf
    return (logits.amax(1) - mine + confidence).clamp(min=0).mean()


def one_for_each_image(logits, adversarial_class, confidence=0.2):
    others = logits.clone()
    others[:, adversarial_class] = -torch.inf
    return (others.amax(1) - logits[:, adversarial_class] + confidence).clamp(min=0)


def averages_first(logits, adversarial_class, confidence=0.2):
    return never_stops(logits, adversarial_class, confidence).clamp(min=0)


def parts_of(model, images, labels, target, adversarial_class):
    label = torch.tensor([adversarial_class])
    before = cross_entropy(model(target), label).item()
    wanted = target_gradient(model, target, label)
    return before, dot(wanted, target_gradient(model, images, labels)).item()


def wrong_sign(model, images, labels, target, adversarial_class, lr):
    before, product = parts_of(model, images, labels, target, adversarial_class)
    return before + lr * product


def only_the_change(model, images, labels, target, adversarial_class, lr):
    return -lr * parts_of(model, images, labels, target, adversarial_class)[1]


def takes_a_true_step(model, images, labels, target, adversarial_class, lr):
    weights = {name: p.detach().requires_grad_() for name, p in model.named_parameters()}
    moved = goes_uphill(model, weights, images, labels, -lr)
    logits = functional_call(model, moved, (target,))
    return cross_entropy(logits, torch.tensor([adversarial_class])).item()


def forgets_the_rate(model, images, labels, target, adversarial_class, lr):
    before, product = parts_of(model, images, labels, target, adversarial_class)
    return before - product


WRONG = {
    "unrolled_step": [
        (cuts_the_graph, "do not depend on the images"),
        (goes_uphill, "subtract the gradient"),
        (forgets_the_old_weights_in_the_graph, "a part of the graph is cut"),
        (sums_over_the_batch, "is not where an SGD step puts it"),
        (moves_the_model_itself, "were changed"),
        (returns_a_list, "same names"),
    ],
    "margin_loss": [
        (never_stops, "never below zero"),
        (forgets_the_confidence, "by the confidence"),
        (takes_the_largest_of_all, "the loss is"),
        (works_in_place, "were changed"),
        (one_for_each_image, "one number"),
        (averages_first, "then average"),
    ],
    "predicted_loss": [
        (wrong_sign, "mind the sign"),
        (only_the_change, "add the loss before"),
        (takes_a_true_step, "a straight line"),
        (forgets_the_rate, "the prediction is"),
    ],
}
