"""Plausible wrong answers to the exercises of lesson 13, and what the check must say of them."""

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from course_utils.attacks.crafting import project
from course_utils.attacks.pgd import pgd


def clean_loss(model, images, labels, epsilon, steps, generator):
    pgd(model, images, labels, epsilon, steps, generator)
    return cross_entropy(model(images), labels)


def easiest(model, images, labels, epsilon, steps, generator):
    moved = pgd(model, images, 1 - labels, epsilon, steps, generator)
    return cross_entropy(model(moved), labels)


def sum_over_batch(model, images, labels, epsilon, steps, generator):
    moved = pgd(model, images, labels, epsilon, steps, generator)
    return cross_entropy(model(moved), labels, reduction="sum")


def random_start_only(model, images, labels, epsilon, steps, generator):
    noise = torch.rand(images.shape, generator=generator)
    return cross_entropy(
        model(project(images + epsilon * (2 * noise - 1), images, epsilon)), labels
    )


def detached(model, images, labels, epsilon, steps, generator):
    moved = pgd(model, images, labels, epsilon, steps, generator)
    with torch.no_grad():
        return cross_entropy(model(moved), labels)


def leaves_gradients(model, images, labels, epsilon, steps, generator):
    moved = pgd(model, images, labels, epsilon, steps, generator)
    cross_entropy(model(moved), labels).backward()
    return cross_entropy(model(moved), labels)


def no_box(images, epsilon, generator):
    return images + epsilon * (2 * torch.randint(2, images.shape, generator=generator) - 1)


def zero_or_one(images, epsilon, generator):
    return (images + epsilon * torch.randint(2, images.shape, generator=generator)).clamp(0, 1)


def twice_as_far(images, epsilon, generator):
    signs = 2 * torch.randint(2, images.shape, generator=generator) - 1
    return (images + 2 * epsilon * signs).clamp(0, 1)


def uniform(images, epsilon, generator):
    noise = 2 * torch.rand(images.shape, generator=generator) - 1
    return (images + epsilon * noise).clamp(0, 1)


def global_state(images, epsilon, generator):
    return (images + epsilon * (2 * torch.randint(2, images.shape) - 1)).clamp(0, 1)


def one_sign_an_image(images, epsilon, generator):
    signs = 2 * torch.randint(2, (len(images), 1, 1, 1), generator=generator) - 1
    return (images + epsilon * signs).clamp(0, 1)


def same_for_every_image(images, epsilon, generator):
    signs = 2 * torch.randint(2, images.shape[1:], generator=generator) - 1
    return (images + epsilon * signs).clamp(0, 1)


def best_accuracy_only(accuracy, success):
    return accuracy == accuracy.max()


def strictly_worse_in_both(accuracy, success):
    worse = (accuracy[:, None] > accuracy) & (success[:, None] < success)
    return ~worse.any(0)


def ties_kill(accuracy, success):
    as_good = (accuracy[:, None] >= accuracy) & (success[:, None] <= success)
    np.fill_diagonal(as_good, False)
    return ~as_good.any(0)


def success_is_good(accuracy, success):
    as_good = (accuracy[:, None] >= accuracy) & (success[:, None] >= success)
    better = (accuracy[:, None] > accuracy) | (success[:, None] > success)
    return ~(as_good & better).any(0)


WRONG = {
    "adversarial_loss": [
        (clean_loss, "as they came"),
        (easiest, "must RAISE"),
        (sum_over_batch, "not the sum"),
        (random_start_only, "worse images"),
        (detached, "outside of torch.no_grad"),
        (leaves_gradients, "left gradients"),
    ],
    "random_signs": [
        (no_box, "outside"),
        (zero_or_one, "no pixel moves by less"),
        (twice_as_far, "further than epsilon"),
        (uniform, "no pixel moves by less"),
        (global_state, "not from the global"),
        (one_sign_an_image, "Within one image"),
        (same_for_every_image, "Within one pixel"),
    ],
    "undominated": [
        (best_accuracy_only, "is undominated"),
        (strictly_worse_in_both, "is dominated"),
        (ties_kill, "is undominated"),
        (success_is_good, "high success is bad"),
    ],
}
