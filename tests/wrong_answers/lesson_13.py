"""Answers to the exercises of lesson 13: wrong ones, what the check must say, right ones."""

import math

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from course_utils.attacks.crafting import project, random_start
from course_utils.attacks.pgd import pgd, pgd_step


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


def steps_ignored(model, images, labels, epsilon, steps, generator):
    return cross_entropy(model(pgd(model, images, labels, epsilon, 5, generator)), labels)


def generator_ignored(model, images, labels, epsilon, steps, generator):
    generator = torch.Generator().manual_seed(0)
    return cross_entropy(model(pgd(model, images, labels, epsilon, steps, generator)), labels)


def epsilon_ignored(model, images, labels, epsilon, steps, generator):
    return cross_entropy(model(pgd(model, images, labels, 8 / 255, steps, generator)), labels)


def walk(model, images, labels, epsilon, steps, start, into_the_box=True):
    moved = start
    for _ in range(steps):
        moved = moved.detach().requires_grad_()
        loss = cross_entropy(model(moved), labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, moved)
        step = 2.5 * epsilon / steps * gradient.sign()
        if into_the_box:
            moved = project(moved.detach() + step, images, epsilon)
        else:
            moved = (moved.detach() + step).clamp(images - epsilon, images + epsilon)
    return moved


def no_random_start(model, images, labels, epsilon, steps, generator):
    moved = walk(model, images, labels, epsilon, steps, images.clone())
    return cross_entropy(model(moved), labels)


def outside_the_box(model, images, labels, epsilon, steps, generator):
    start = images + epsilon * (2 * torch.rand(images.shape, generator=generator) - 1)
    moved = walk(model, images, labels, epsilon, steps, start, into_the_box=False)
    return cross_entropy(model(moved), labels)


def evaluation_mode_left_on(model, images, labels, epsilon, steps, generator):
    model.eval()
    moved = pgd(model, images, labels, epsilon, steps, generator)
    return cross_entropy(model(moved), labels)


def training_mode_left_on(model, images, labels, epsilon, steps, generator):
    model.eval()
    moved = pgd(model, images, labels, epsilon, steps, generator)
    model.train()
    return cross_entropy(model(moved), labels)


def gradients_asked_of_the_batch(model, images, labels, epsilon, steps, generator):
    images.requires_grad_()
    moved = pgd(model, images.detach(), labels, epsilon, steps, generator)
    return cross_entropy(model(moved), labels)


def under_no_grad(model, images, labels, epsilon, steps, generator):
    with torch.no_grad():
        moved = pgd(model, images, labels, epsilon, steps, generator)
        return cross_entropy(model(moved), labels)


def a_number(model, images, labels, epsilon, steps, generator):
    moved = pgd(model, images, labels, epsilon, steps, generator)
    return cross_entropy(model(moved), labels).item()


def loss_of_each_image(model, images, labels, epsilon, steps, generator):
    moved = pgd(model, images, labels, epsilon, steps, generator)
    return cross_entropy(model(moved), labels, reduction="none")


def wrong_class(model, images, labels, epsilon, steps, generator):
    moved = pgd(model, images, labels, epsilon, steps, generator)
    return cross_entropy(model(moved), 1 - labels)


def half_clean(model, images, labels, epsilon, steps, generator):
    moved = pgd(model, images, labels, epsilon, steps, generator)
    return (cross_entropy(model(moved), labels) + cross_entropy(model(images), labels)) / 2


def not_a_number(model, images, labels, epsilon, steps, generator):
    moved = pgd(model, images, labels, epsilon, steps, generator)
    return cross_entropy(model(moved), labels) * math.nan


def without_labels(model, images, labels, epsilon, steps, generator):
    moved = pgd(model, images, labels, epsilon, steps, generator)
    logits = model(moved)
    return cross_entropy(logits, logits.argmax(1))


def a_constant(model, images, labels, epsilon, steps, generator):
    return torch.tensor(0.7, requires_grad=True)


def by_hand(model, images, labels, epsilon, steps, generator):
    start = random_start(images, epsilon, generator)
    moved = walk(model, images, labels, epsilon, steps, start)
    return -model(moved).log_softmax(1)[torch.arange(len(labels)), labels].mean()


def by_steps_of_lesson_07(model, images, labels, epsilon, steps, generator):
    noise = 2 * torch.rand(images.shape, generator=generator) - 1
    moved = project(images + epsilon * noise, images, epsilon)
    for _ in range(steps):
        moved.requires_grad_()
        (slope,) = torch.autograd.grad(cross_entropy(model(moved), labels), moved)
        moved = pgd_step(moved.detach(), slope, images, epsilon, epsilon)
    return cross_entropy(model(moved), labels, reduction="sum") / len(labels)


def modes_put_back(model, images, labels, epsilon, steps, generator):
    modes = [(layer, layer.training) for layer in model.modules()]
    model.eval()
    moved = pgd(model, images, labels, epsilon, steps, generator)
    for layer, training in modes:
        layer.training = training
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


def moved_by(images, epsilon, signs):
    return (images + epsilon * signs).clamp(0, 1)


def draw(shape, generator):
    return 2 * torch.randint(2, shape, generator=generator) - 1


def shared_by_channels(images, epsilon, generator):
    return moved_by(images, epsilon, draw((len(images), 1, *images.shape[2:]), generator))


def shared_by_rows(images, epsilon, generator):
    return moved_by(images, epsilon, draw((*images.shape[:2], 1, images.shape[3]), generator))


def shared_by_columns(images, epsilon, generator):
    return moved_by(images, epsilon, draw((*images.shape[:3], 1), generator))


def seeded_again(images, epsilon, generator):
    generator.manual_seed(0)
    return moved_by(images, epsilon, draw(images.shape, generator))


def seed_of_the_generator(images, epsilon, generator):
    again = torch.Generator().manual_seed(generator.initial_seed())
    return moved_by(images, epsilon, draw(images.shape, again))


def turned_at_the_edge(images, epsilon, generator):
    signs = draw(images.shape, generator)
    moved = images + epsilon * signs
    return torch.where((moved < 0) | (moved > 1), images - epsilon * signs, moved).clamp(0, 1)


def half_of_it_copied(images, epsilon, generator):
    signs = draw(images.shape, generator)
    half = len(images) // 2
    signs[len(images) - half :] = signs[:half]
    return moved_by(images, epsilon, signs)


def half_of_it_mirrored(images, epsilon, generator):
    signs = draw(images.shape, generator)
    half = len(images) // 2
    signs[len(images) - half :] = -signs[:half]
    return moved_by(images, epsilon, signs)


def mostly_up(images, epsilon, generator):
    signs = (torch.rand(images.shape, generator=generator) < 0.75) * 2 - 1
    return moved_by(images, epsilon, signs)


def in_place(images, epsilon, generator):
    return images.add_(epsilon * draw(images.shape, generator)).clamp_(0, 1)


def another_epsilon(images, epsilon, generator):
    return moved_by(images, 8 / 255, draw(images.shape, generator))


def three_values(images, epsilon, generator):
    return moved_by(images, epsilon, torch.randint(-1, 2, images.shape, generator=generator))


def seeds_globally(images, epsilon, generator):
    torch.manual_seed(generator.initial_seed())
    return moved_by(images, epsilon, 2 * torch.randint(2, images.shape) - 1)


def the_signs_alone(images, epsilon, generator):
    return epsilon * draw(images.shape, generator)


def undefined(images, epsilon, generator):
    signs = draw(images.shape, generator).float()
    return moved_by(images, epsilon, (signs - 1) / (signs - 1) * signs)


def signs_of_normal_numbers(images, epsilon, generator):
    return moved_by(images, epsilon, torch.randn(images.shape, generator=generator).sign())


def by_a_coin(images, epsilon, generator):
    up = torch.empty(images.shape).bernoulli_(0.5, generator=generator).bool()
    return torch.where(up, (images + epsilon).clamp(max=1), (images - epsilon).clamp(min=0))


def pixel_by_pixel(images, epsilon, generator):
    coins = torch.rand(images.numel(), generator=generator).tolist()
    moved = [
        min(1.0, value + epsilon) if coin < 0.5 else max(0.0, value - epsilon)
        for value, coin in zip(images.double().flatten().tolist(), coins, strict=True)
    ]
    return torch.tensor(moved, dtype=torch.float64).view(images.shape)


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


def along_the_other_axis(accuracy, success):
    as_good = (accuracy[:, None] >= accuracy) & (success[:, None] <= success)
    better = (accuracy[:, None] > accuracy) | (success[:, None] < success)
    return ~(as_good & better).any(1)


def the_dominated(accuracy, success):
    as_good = (accuracy[:, None] >= accuracy) & (success[:, None] <= success)
    better = (accuracy[:, None] > accuracy) | (success[:, None] < success)
    return (as_good & better).any(0)


def table(accuracy, success):
    as_good = (accuracy[:, None] >= accuracy) & (success[:, None] <= success)
    return ~(as_good & (accuracy[:, None] > accuracy))


def positions(accuracy, success):
    as_good = (accuracy[:, None] >= accuracy) & (success[:, None] <= success)
    better = (accuracy[:, None] > accuracy) | (success[:, None] < success)
    return np.flatnonzero(~(as_good & better).any(0))


def accuracy_ignored(accuracy, success):
    return success == success.min()


def better_in_accuracy_only(accuracy, success):
    as_good = (accuracy[:, None] >= accuracy) & (success[:, None] <= success)
    return ~(as_good & (accuracy[:, None] > accuracy)).any(0)


def better_in_either(accuracy, success):
    better = (accuracy[:, None] > accuracy) | (success[:, None] < success)
    return ~better.any(0)


def both_turned(accuracy, success):
    as_good = (accuracy[:, None] <= accuracy) & (success[:, None] >= success)
    better = (accuracy[:, None] < accuracy) | (success[:, None] > success)
    return ~(as_good & better).any(0)


def sorted_in_place(accuracy, success):
    accuracy.sort()
    return accuracy == accuracy.max()


def all_of_them(accuracy, success):
    return np.ones(len(accuracy), dtype=bool)


def in_order_of_accuracy(accuracy, success):
    order = np.lexsort((success, -accuracy))
    kept = np.zeros(len(accuracy), dtype=bool)
    lowest, last = np.inf, None
    for i in order:
        point = accuracy[i], success[i]
        kept[i] = success[i] < lowest or point == last
        if success[i] < lowest:
            lowest, last = success[i], point
    return kept


def one_after_another(accuracy, success):
    points = list(zip(accuracy.tolist(), success.tolist(), strict=True))

    def beats(a, b):
        return a[0] >= b[0] and a[1] <= b[1] and a != b

    return [not any(beats(rival, point) for rival in points) for point in points]


def in_torch(accuracy, success):
    a, s = torch.from_numpy(accuracy), torch.from_numpy(success)
    no_worse = (a[:, None] >= a) & (s[:, None] <= s)
    same = (a[:, None] == a) & (s[:, None] == s)
    return (no_worse & ~same).sum(0) == 0


WRONG = {
    "adversarial_loss": [
        (clean_loss, "as they came"),
        (easiest, "must RAISE"),
        (sum_over_batch, "not the sum"),
        (random_start_only, "worse images"),
        (detached, "outside of torch.no_grad"),
        (leaves_gradients, "A gradient was left"),
        (steps_ignored, "`steps`"),
        (generator_ignored, "`generator`"),
        (epsilon_ignored, "epsilon"),
        (no_random_start, "random start"),
        (outside_the_box, "outside [0, 1]"),
        (evaluation_mode_left_on, "mode"),
        (training_mode_left_on, "mode"),
        (gradients_asked_of_the_batch, "requires_grad"),
        (under_no_grad, "torch.no_grad"),
        (a_number, "as a tensor"),
        (loss_of_each_image, "one number"),
        (wrong_class, "true labels"),
        (half_clean, "on the changed ones only"),
        (not_a_number, "nan"),
        (without_labels, "true labels"),
        (a_constant, "never asked"),
    ],
    "random_signs": [
        (no_box, "outside"),
        (zero_or_one, "no pixel moves by less"),
        (twice_as_far, "further than epsilon"),
        (uniform, "no pixel moves by less"),
        (global_state, "global random state"),
        (seeds_globally, "global random state"),
        (one_sign_an_image, "share their signs"),
        (same_for_every_image, "share their signs"),
        (shared_by_channels, "channels share"),
        (shared_by_rows, "rows share"),
        (shared_by_columns, "columns share"),
        (half_of_it_copied, "images share"),
        (half_of_it_mirrored, "images share"),
        (seeded_again, "seeded again"),
        (seed_of_the_generator, "from where it stands"),
        (turned_at_the_edge, "stays where it is"),
        (mostly_up, "Half of the signs"),
        (in_place, "changed"),
        (another_epsilon, "epsilon"),
        (three_values, "no pixel moves by less"),
        (the_signs_alone, "add the signs to the images"),
        (undefined, "nan"),
    ],
    "undominated": [
        (best_accuracy_only, "success counts too"),
        (accuracy_ignored, "accuracy counts too"),
        (strictly_worse_in_both, "better in one is enough"),
        (ties_kill, "Equal"),
        (success_is_good, "high success is bad"),
        (both_turned, "both comparisons are turned"),
        (along_the_other_axis, "any(0)"),
        (the_dominated, "the other way round"),
        (table, "for each of"),
        (positions, "for each of"),
        (better_in_accuracy_only, "better in one is enough"),
        (better_in_either, "at least as good in both"),
        (sorted_in_place, "changed"),
        (all_of_them, "is dominated"),
    ],
}
RIGHT = {
    "adversarial_loss": [by_hand, by_steps_of_lesson_07, modes_put_back],
    "random_signs": [signs_of_normal_numbers, by_a_coin, pixel_by_pixel],
    "undominated": [in_order_of_accuracy, one_after_another, in_torch],
}
