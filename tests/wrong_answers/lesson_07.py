"""Plausible wrong answers to the exercises of lesson 07, and what the check must say of them."""

import torch


def adds_the_pattern(images, mask, pattern):
    return (images + mask * pattern).clamp(0, 1)


def swaps_the_mask(images, mask, pattern):
    return (mask * images + (1 - mask) * pattern).clamp(0, 1)


def leaves_the_box(images, mask, pattern):
    return images + mask * pattern


def ignores_soft_masks(images, mask, pattern):
    return torch.where(mask > 0, pattern, images)


def paints_the_originals(images, mask, pattern):
    images.copy_((1 - mask) * images + mask * pattern)
    return images.clamp(0, 1)


def forgets_an_axis(images, mask, pattern):
    return ((1 - mask) * images + mask * pattern)[:, 0].clamp(0, 1)


def counts_everything(predicted, true, target_class, source_class=None):
    return (predicted == target_class).float().mean().item()


def divides_by_everything(predicted, true, target_class, source_class=None):
    attacked = true != target_class if source_class is None else true == source_class
    return ((predicted == target_class) & attacked).float().mean().item()


def forgets_the_source(predicted, true, target_class, source_class=None):
    return (predicted[true != target_class] == target_class).float().mean().item()


def counts_any_error(predicted, true, target_class, source_class=None):
    attacked = true != target_class if source_class is None else true == source_class
    return (predicted[attacked] != true[attacked]).float().mean().item()


def one_answer_an_image(predicted, true, target_class, source_class=None):
    return predicted[true != target_class] == target_class


def goes_down(images, gradient, base, step, epsilon):
    moved = images - step * gradient.sign()
    return moved.clamp(base - epsilon, base + epsilon).clamp(0, 1)


def uses_the_size(images, gradient, base, step, epsilon):
    moved = images + step * gradient
    return moved.clamp(base - epsilon, base + epsilon).clamp(0, 1)


def forgets_the_box(images, gradient, base, step, epsilon):
    moved = images + step * gradient.sign()
    return moved.clamp(base - epsilon, base + epsilon)


def forgets_the_bound(images, gradient, base, step, epsilon):
    return (images + step * gradient.sign()).clamp(0, 1)


def bound_around_the_last_step(images, gradient, base, step, epsilon):
    moved = images + step * gradient.sign()
    return moved.clamp(images - epsilon, images + epsilon).clamp(0, 1)


def steps_in_place(images, gradient, base, step, epsilon):
    images += step * gradient.sign()
    return images.clamp(base - epsilon, base + epsilon).clamp(0, 1)


WRONG = {
    "apply_trigger": [
        (adds_the_pattern, "not added"),
        (swaps_the_mask, "not where it is 0"),
        (leaves_the_box, "outside [0, 1]"),
        (ignores_soft_masks, "mask 0.2"),
        (paints_the_originals, "were changed"),
        (forgets_an_axis, "Return images of shape"),
    ],
    "attack_success_rate": [
        (counts_everything, "all images"),
        (divides_by_everything, "below the line"),
        (forgets_the_source, "source class"),
        (counts_any_error, "the rate is"),
        (one_answer_an_image, "one number"),
    ],
    "pgd_step": [
        (goes_down, "RAISES"),
        (uses_the_size, "sign of the gradient"),
        (forgets_the_box, "outside [0, 1]"),
        (forgets_the_bound, "further than epsilon"),
        (bound_around_the_last_step, "further than epsilon"),
        (steps_in_place, "were changed"),
    ],
}
