"""Answers to the exercises of lesson 14: wrong ones, what the check must say, right ones."""

import contextlib
import math
from collections import Counter

import torch

from course_utils.attacks.crafting import project, random_start, signed_adam
from course_utils.defenses.adversarial_poisoning import Split, evaluating


def parts_of(images, labels, count, fake):
    return Split(images[:count], labels[:count], images[count:], labels[count:], fake)


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
    return Split(images[:count], labels[:count], images[count:], fake, fake)


def most_frequent(labels, count, n):
    return torch.full((n - count,), int(labels[:count].bincount().argmax()))


def no_clamp(images, labels, share):
    count = round(share * len(images))
    return parts_of(images, labels, count, most_frequent(labels, count, len(images)))


def rounded_down(images, labels, share):
    count = min(max(int(share * len(images)), 1), len(images) - 1)
    return parts_of(images, labels, count, most_frequent(labels, count, len(images)))


def float_labels(images, labels, share):
    count = clamped(images, share)
    return parts_of(images, labels, count, most_frequent(labels, count, len(images)).float())


def a_plain_tuple(images, labels, share):
    return tuple(no_mistake(images, labels, share))


def no_mistake(images, labels, share):
    count = clamped(images, share)
    return parts_of(images, labels, count, most_frequent(labels, count, len(images)))


def last_ones(images, labels, share):
    return no_mistake(images.flip(0), labels.flip(0), share)


def shuffled(images, labels, share):
    order = torch.randperm(len(images))
    return no_mistake(images[order], labels[order], share)


def mode_of_the_targets(images, labels, share):
    count = clamped(images, share)
    fake = torch.full_like(labels[count:], int(labels[count:].bincount().argmax()))
    return parts_of(images, labels, count, fake)


def label_of_the_first(images, labels, share):
    count = clamped(images, share)
    return parts_of(images, labels, count, labels[:1].expand(len(images) - count))


def class_0(images, labels, share):
    count = clamped(images, share)
    return parts_of(images, labels, count, torch.zeros_like(labels[count:]))


def largest_label(images, labels, share):
    count = clamped(images, share)
    return parts_of(images, labels, count, labels[:count].max().expand(len(images) - count))


def a_fake_for_each_poison(images, labels, share):
    count = clamped(images, share)
    return parts_of(images, labels, count, most_frequent(labels, count, 2 * count))


def labels_overwritten(images, labels, share):
    parts = no_mistake(images, labels, share)
    labels[len(parts.poisons) :] = parts.fake_labels
    return parts


def half_and_half(images, labels, share):
    return no_mistake(images, labels, 0.5)


def missing_images(images, labels, share):
    return no_mistake(images * math.nan, labels, share)


def by_mode(images, labels, share):
    count = sorted((1, round(share * len(images)), len(images) - 1))[1]
    (first, others), (own, rest) = (
        part.split([count, len(part) - count]) for part in (images, labels)
    )
    values, times = own.unique(return_counts=True)
    return Split(first, own, others, rest, values[times.argmax()].repeat(len(rest)))


def by_counter(images, labels, share):
    count = clamped(images, share)
    times = Counter(labels[:count].tolist())
    often = min(label for label in times if times[label] == max(times.values()))
    fake = torch.tensor([often] * (len(images) - count))
    poisons, targets = images[:count].clone(), images[count:].clone()
    return Split(poisons, labels[:count].clone(), targets, labels[count:].clone(), fake)


def by_one_hot(images, labels, share):
    count = clamped(images, share)
    votes = torch.nn.functional.one_hot(labels[:count]).double().mean(0)
    fake = (votes == votes.max()).nonzero()[0]
    return Split(
        fake_labels=fake.expand(len(images) - count),
        poisons=images[:count], poison_labels=labels[:count],
        targets=images[count:], target_labels=labels[count:],
    )  # fmt: skip


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


def raw_gradient(objective, base, epsilon, steps, generator, step_size=0.4):
    start = random_start(base, epsilon, generator)
    return stepped(objective, base, epsilon, steps, start, step_size, signed=False)


def projected_at_the_end(objective, base, epsilon, steps, generator, step_size=0.4):
    start = random_start(base, epsilon, generator)
    found = stepped(objective, base, epsilon, steps, start, step_size, keep=False)
    return project(found, base, epsilon)


def step_size_ignored(objective, base, epsilon, steps, generator, step_size=0.4):
    return stepped(objective, base, epsilon, steps, random_start(base, epsilon, generator))


def by_optimizer(make, objective, base, epsilon, steps, start, step_size, renew=False):
    images = start.clone().requires_grad_()
    optimizer = make([images], lr=step_size * epsilon)
    for _ in range(steps):
        if renew:
            optimizer = make([images], lr=step_size * epsilon)
        images.grad = torch.autograd.grad(objective(images), images)[0].sign()
        optimizer.step()
        with torch.no_grad():
            images.copy_(project(images, base, epsilon))
    return images.detach()


def plain_steps(objective, base, epsilon, steps, generator, step_size=0.4):
    start = random_start(base, epsilon, generator)
    return by_optimizer(torch.optim.SGD, objective, base, epsilon, steps, start, step_size)


def a_new_adam_each_step(objective, base, epsilon, steps, generator, step_size=0.4):
    start = random_start(base, epsilon, generator)
    return by_optimizer(torch.optim.Adam, objective, base, epsilon, steps, start, step_size, True)


def gradients_on_the_weights(objective, base, epsilon, steps, generator, step_size=0.4):
    images = random_start(base, epsilon, generator).requires_grad_()
    adam = torch.optim.Adam([images], lr=step_size * epsilon)
    for _ in range(steps):
        adam.zero_grad()
        objective(images).backward()
        images.grad.sign_()
        adam.step()
        with torch.no_grad():
            images.copy_(project(images, base, epsilon))
    return images.detach()


def falling_steps(objective, base, epsilon, steps, generator, step_size=0.4):
    start = random_start(base, epsilon, generator)
    found, _ = signed_adam(objective, start, base, epsilon, steps=steps, lr=step_size * epsilon)
    return found


def around_the_start(objective, base, epsilon, steps, generator, step_size=0.4):
    start = random_start(base, epsilon, generator)
    return stepped(objective, start, epsilon, steps, start, step_size)


def base_overwritten(objective, base, epsilon, steps, generator, step_size=0.4):
    start = random_start(base, epsilon, generator)
    found = stepped(objective, base, epsilon, steps, start, step_size)
    base.copy_(found)
    return base


def not_a_number(objective, base, epsilon, steps, generator, step_size=0.4):
    start = random_start(base, epsilon, generator)
    return stepped(objective, base, epsilon, steps, start, step_size) * math.nan


def best_of_all_steps(objective, base, epsilon, steps, generator, step_size=0.4):
    images = random_start(base, epsilon, generator)
    for _ in range(steps):
        (gradient,) = torch.autograd.grad(objective(images.requires_grad_()), images)
        images = project(images.detach() - step_size * epsilon * gradient.sign(), base, epsilon)
    return images


def adam_by_hand(objective, base, epsilon, steps, generator, step_size=0.4):
    images = random_start(base, epsilon, generator)
    mean, square = torch.zeros_like(base), torch.zeros_like(base)
    for t in range(1, steps + 1):
        images = images.detach().requires_grad_()
        (slope,) = torch.autograd.grad(objective(images), images)
        mean = 0.9 * mean + 0.1 * slope.sign()
        square = 0.999 * square + 0.001 * slope.sign().square()
        step = mean / (1 - 0.9**t) / ((square / (1 - 0.999**t)).sqrt() + 1e-8)
        images = project(images.detach() - step_size * epsilon * step, base, epsilon)
    return images


def backward_for_the_images(objective, base, epsilon, steps, generator, step_size=0.4):
    images = torch.nn.Parameter(random_start(base, epsilon, generator))
    adam = torch.optim.Adam([images], lr=step_size * epsilon)
    for _ in range(steps):
        adam.zero_grad()
        objective(images).backward(inputs=[images])
        images.grad = images.grad.sign()
        adam.step()
        images.data = torch.clamp(images.data, base - epsilon, base + epsilon).clamp(0, 1)
    return images.data


def with_adamw(objective, base, epsilon, steps, generator, step_size=0.4):
    images = random_start(base, epsilon, generator).requires_grad_()
    adam = torch.optim.AdamW([images], lr=step_size * epsilon, weight_decay=0.0)
    for _ in range(steps):
        images.grad = torch.autograd.grad(objective(images), images)[0].sgn()
        adam.step()
        images.data.copy_(project(images.data, base, epsilon))
    return images.detach().clone()


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
    return joined(parts, poisons, targets, True)


def under_no_grad(model, images, labels, simulate, split, generator, recombine=True):
    parts = split(images, labels, generator)
    with evaluating(model), torch.no_grad():
        poisons, targets = simulate(model, parts, generator)
    return joined(parts, poisons, targets, recombine)


def labels_that_came_in(model, images, labels, simulate, split, generator, recombine=True):
    parts = split(images, labels, generator)
    with evaluating(model):
        poisons, targets = simulate(model, parts, generator)
    if not recombine:
        return poisons, labels[: len(poisons)]
    return torch.cat([poisons, targets]), labels


def targets_first(model, images, labels, simulate, split, generator, recombine=True):
    parts = split(images, labels, generator)
    with evaluating(model):
        poisons, targets = simulate(model, parts, generator)
    if not recombine:
        return poisons, parts.poison_labels
    return torch.cat([targets, poisons]), torch.cat([parts.target_labels, parts.poison_labels])


def another_generator(model, images, labels, simulate, split, generator, recombine=True):
    generator = torch.Generator().manual_seed(0)
    parts = split(images, labels, generator)
    with evaluating(model):
        poisons, targets = simulate(model, parts, generator)
    return joined(parts, poisons, targets, recombine)


def error_swallowed(model, images, labels, simulate, split, generator, recombine=True):
    parts = split(images, labels, generator)
    poisons, targets = parts.poisons, parts.targets
    with evaluating(model), contextlib.suppress(Exception):
        poisons, targets = simulate(model, parts, generator)
    return joined(parts, poisons, targets, recombine)


def simulated_twice(model, images, labels, simulate, split, generator, recombine=True):
    parts = split(images, labels, generator)
    with evaluating(model):
        poisons = simulate(model, parts, generator)[0]
        targets = simulate(model, parts, generator)[1]
    return joined(parts, poisons, targets, recombine)


def only_the_targets(model, images, labels, simulate, split, generator, recombine=True):
    parts = split(images, labels, generator)
    with evaluating(model):
        poisons, targets = simulate(model, parts, generator)
    if not recombine:
        return targets, parts.target_labels
    return joined(parts, poisons, targets, recombine)


def images_only(model, images, labels, simulate, split, generator, recombine=True):
    parts = split(images, labels, generator)
    with evaluating(model):
        poisons, targets = simulate(model, parts, generator)
    return torch.cat([poisons, targets]) if recombine else poisons


def poisons_missing(model, images, labels, simulate, split, generator, recombine=True):
    parts = split(images, labels, generator)
    with evaluating(model):
        poisons, targets = simulate(model, parts, generator)
    return joined(parts, poisons * math.nan, targets, recombine)


def written_into_the_batch(model, images, labels, simulate, split, generator, recombine=True):
    parts = split(images, labels, generator)
    with evaluating(model):
        poisons, targets = simulate(model, parts, generator)
    images[: len(poisons)] = poisons
    return joined(parts, poisons, targets, recombine)


def modes_by_hand(model, images, labels, simulate, split, generator, recombine=True):
    modes = {layer: layer.training for layer in model.modules()}
    parts = split(images, labels, generator)
    model.train(False)
    try:
        poisons, targets = simulate(model, parts, generator)
    finally:
        for layer, training in modes.items():
            layer.training = training
    return joined(parts, poisons, targets, recombine)


def split_inside(model, images, labels, simulate, split, generator, recombine=True):
    with evaluating(model):
        parts = split(images, labels, generator)
        made = simulate(model, parts, generator)
    true = [parts.poison_labels, parts.target_labels]
    kept = 2 if recombine else 1
    return torch.cat(made[:kept]), torch.cat(true[:kept])


def a_list(model, images, labels, simulate, split, generator, recombine=True):
    first, own, others, rest, fake = split(images, labels, generator)
    with evaluating(model):
        found = simulate(model, Split(first, own, others, rest, fake), generator)
    batch = [*found[0], *found[1]] if recombine else [*found[0]]
    return [torch.stack(batch), torch.tensor([*own, *rest][: len(batch)])]


WRONG = {
    "split_batch": [
        (no_minimum, "at least one of each"),
        (no_clamp, "at least one of each"),
        (share_of_targets, "not of the targets"),
        (rounded_down, "Round"),
        (mode_of_the_batch, "of the poisons only"),
        (mode_of_the_targets, "of the poisons only"),
        (one_number, "one label for each"),
        (a_fake_for_each_poison, "one label for each"),
        (largest_of_several, "take the smallest"),
        (largest_label, "most frequent"),
        (label_of_the_first, "most frequent"),
        (class_0, "most frequent"),
        (fake_as_true, "their own true labels"),
        (float_labels, "whole numbers"),
        (a_plain_tuple, "Return a Split"),
        (last_ones, "the poisons come first"),
        (shuffled, "global random state"),
        (labels_overwritten, "changed"),
        (half_and_half, "`share`"),
        (missing_images, "nan"),
    ],
    "craft_in_batch": [
        (from_the_base, "random_start"),
        (uphill, "lower it"),
        (never_projected, "outside"),
        (no_steps, "no step was made"),
        (absolute_step, "step_size * epsilon"),
        (global_start, "global random state"),
        (with_a_graph, "without a graph"),
        (one_step_too_many, "steps"),
        (raw_gradient, "the sign of the gradient"),
        (projected_at_the_end, "after each step"),
        (step_size_ignored, "`step_size`"),
        (plain_steps, "Adam"),
        (a_new_adam_each_step, "one Adam for all steps"),
        (gradients_on_the_weights, "gradients on the weights"),
        (falling_steps, "does not fall"),
        (around_the_start, "around the base images"),
        (base_overwritten, "changed"),
        (not_a_number, "nan"),
        (best_of_all_steps, "Adam"),
    ],
    "poisoned_batch": [
        (training_mode, "in evaluation mode"),
        (train_afterwards, "The mode of `model`"),
        (no_finally, "also after an error"),
        (fake_labels, "for the simulation only"),
        (clean_poisons, "before the attack"),
        (old_targets, "use those that it returns"),
        (never_recombined, "poisons and targets"),
        (always_recombined, "recombine=False"),
        (under_no_grad, "no_grad"),
        (labels_that_came_in, "in the order of the split"),
        (targets_first, "Poisons come first"),
        (another_generator, "generator that came in"),
        (error_swallowed, "swallowed"),
        (simulated_twice, "once a batch"),
        (only_the_targets, "recombine=False"),
        (images_only, "images and labels"),
        (poisons_missing, "nan"),
        (written_into_the_batch, "changed"),
    ],
}
RIGHT = {
    "split_batch": [by_mode, by_counter, by_one_hot],
    "craft_in_batch": [adam_by_hand, backward_for_the_images, with_adamw],
    "poisoned_batch": [modes_by_hand, split_inside, a_list],
}
