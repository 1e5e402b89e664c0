"""Plausible wrong answers to the exercises of lesson 14, and what the check must say of them."""

import torch

from course_utils.attacks.crafting import project, random_start
from course_utils.defenses.adversarial_poisoning import evaluating


def parts_of(images, labels, count, fake):
    return images[:count], labels[:count], images[count:], labels[count:], fake


def no_minimum(images, labels, share):
    count = round(share * len(images))
    fake = torch.full_like(labels[count:], int(labels[:count].bincount(minlength=1).argmax()))
    return parts_of(images, labels, count, fake)


def clamped(images, share):
    return min(max(round(share * len(images)), 1), len(images) - 1)


def share_of_targets(images, labels, share):
    count = len(images) - clamped(images, share)
    fake = torch.full_like(labels[count:], int(labels[:count].bincount().argmax()))
    return parts_of(images, labels, count, fake)


def mode_of_the_batch(images, labels, share):
    count = clamped(images, share)
    fake = torch.full_like(labels[count:], int(labels.bincount().argmax()))
    return parts_of(images, labels, count, fake)


def one_number(images, labels, share):
    count = clamped(images, share)
    return parts_of(images, labels, count, labels[:count].bincount().argmax())


def largest_of_several(images, labels, share):
    count = clamped(images, share)
    times = labels[:count].bincount()
    fake = torch.full_like(labels[count:], int((times == times.max()).nonzero()[-1]))
    return parts_of(images, labels, count, fake)


def fake_as_true(images, labels, share):
    count = clamped(images, share)
    fake = torch.full_like(labels[count:], int(labels[:count].bincount().argmax()))
    return images[:count], labels[:count], images[count:], fake, fake


def stepped(objective, base, epsilon, steps, start, step_size=0.4, sign=1, keep=True, signed=True):
    images = start.clone().requires_grad_()
    adam = torch.optim.Adam([images], lr=step_size * epsilon)
    for _ in range(steps):
        gradient = torch.autograd.grad(objective(images), images)[0]
        images.grad = sign * (gradient.sign() if signed else gradient)
        adam.step()
        if keep:
            with torch.no_grad():
                images.copy_(project(images, base, epsilon))
    return images.detach()


def from_the_base(objective, base, epsilon, steps, generator):
    return stepped(objective, base, epsilon, steps, base)


def uphill(objective, base, epsilon, steps, generator):
    return stepped(objective, base, epsilon, steps, random_start(base, epsilon, generator), sign=-1)


def never_projected(objective, base, epsilon, steps, generator):
    start = random_start(base, epsilon, generator)
    return stepped(objective, base, epsilon, steps, start, keep=False)


def no_steps(objective, base, epsilon, steps, generator):
    for _ in range(steps):
        objective(base)
    return random_start(base, epsilon, generator)


def absolute_step(objective, base, epsilon, steps, generator):
    start = random_start(base, epsilon, generator)
    return stepped(objective, base, epsilon, steps, start, step_size=0.1)


def global_start(objective, base, epsilon, steps, generator):
    start = project(base + epsilon * torch.randn(base.shape), base, epsilon)
    return stepped(objective, base, epsilon, steps, start)


def with_a_graph(objective, base, epsilon, steps, generator):
    start = random_start(base, epsilon, generator)
    return stepped(objective, base, epsilon, steps, start).requires_grad_()


def one_step_too_many(objective, base, epsilon, steps, generator):
    start = random_start(base, epsilon, generator)
    return stepped(objective, base, epsilon, steps + 1, start)


def joined(parts, poisons, targets, recombine):
    if not recombine:
        return poisons, parts.poison_labels
    return torch.cat([poisons, targets]), torch.cat([parts.poison_labels, parts.target_labels])


def training_mode(model, images, labels, simulate, split, generator, recombine=True):
    parts = split(images, labels, generator)
    poisons, targets = simulate(model, parts, generator)
    return joined(parts, poisons, targets, recombine)


def train_afterwards(model, images, labels, simulate, split, generator, recombine=True):
    parts = split(images, labels, generator)
    model.eval()
    poisons, targets = simulate(model, parts, generator)
    model.train()
    return joined(parts, poisons, targets, recombine)


def no_finally(model, images, labels, simulate, split, generator, recombine=True):
    modes = [(layer, layer.training) for layer in model.modules()]
    parts = split(images, labels, generator)
    model.eval()
    poisons, targets = simulate(model, parts, generator)
    for layer, training in modes:
        layer.training = training
    return joined(parts, poisons, targets, recombine)


def fake_labels(model, images, labels, simulate, split, generator, recombine=True):
    parts = split(images, labels, generator)
    with evaluating(model):
        poisons, targets = simulate(model, parts, generator)
    if not recombine:
        return poisons, parts.poison_labels
    return torch.cat([poisons, targets]), torch.cat([parts.poison_labels, parts.fake_labels])


def clean_poisons(model, images, labels, simulate, split, generator, recombine=True):
    parts = split(images, labels, generator)
    with evaluating(model):
        simulate(model, parts, generator)
    if not recombine:
        return parts.poisons, parts.poison_labels
    return images, labels


def old_targets(model, images, labels, simulate, split, generator, recombine=True):
    parts = split(images, labels, generator)
    with evaluating(model):
        poisons, _ = simulate(model, parts, generator)
    if not recombine:
        return poisons, parts.poison_labels
    return torch.cat([poisons, parts.targets]), labels


def never_recombined(model, images, labels, simulate, split, generator, recombine=True):
    parts = split(images, labels, generator)
    with evaluating(model):
        poisons, _ = simulate(model, parts, generator)
    return poisons, parts.poison_labels


def always_recombined(model, images, labels, simulate, split, generator, recombine=True):
    parts = split(images, labels, generator)
    with evaluating(model):
        poisons, targets = simulate(model, parts, generator)
    return torch.cat([poisons, targets]), labels


WRONG = {
    "split_batch": [
        (no_minimum, "at least one of each"),
        (share_of_targets, "not of the targets"),
        (mode_of_the_batch, "of the poisons only"),
        (one_number, "one label for each"),
        (largest_of_several, "take the smallest"),
        (fake_as_true, "their own true labels"),
    ],
    "craft_in_batch": [
        (from_the_base, "random_start"),
        (uphill, "lower it"),
        (never_projected, "outside"),
        (no_steps, "no step was made"),
        (absolute_step, "0.4 epsilon"),
        (global_start, "not from the global state"),
        (with_a_graph, "without a graph"),
        (one_step_too_many, "one step too many"),
    ],
    "poisoned_batch": [
        (training_mode, "in evaluation mode"),
        (train_afterwards, "its own mode back after the simulation"),
        (no_finally, "also after an error"),
        (fake_labels, "for the simulation only"),
        (clean_poisons, "before the attack"),
        (old_targets, "use those that it returns"),
        (never_recombined, "poisons and targets"),
        (always_recombined, "recombine=False"),
    ],
}
