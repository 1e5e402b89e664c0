"""Plausible wrong answers to the exercises of lesson 07, and what the check must say of them;
unusual right answers that it must accept.
"""

import torch

from course_utils.attacks.crafting import project


def adds_the_pattern(images, mask, pattern):
    return (images + mask * pattern).clamp(0, 1)


def leaves_the_box(images, mask, pattern):
    return images + mask * pattern


def trigger_without_clamp(images, mask, pattern):
    return (1 - mask) * images + mask * pattern


def swaps_the_mask(images, mask, pattern):
    return (mask * images + (1 - mask) * pattern).clamp(0, 1)


def ignores_soft_masks(images, mask, pattern):
    return torch.where(mask > 0, pattern, images)


def rounds_the_mask(images, mask, pattern):
    return torch.where(mask >= 0.5, pattern, images)


def forgets_the_pattern(images, mask, pattern):
    return (1 - mask) * images


def forgets_the_image(images, mask, pattern):
    return (mask * pattern).expand_as(images)


def covers_everything(images, mask, pattern):
    return pattern.expand_as(images)


def half_and_half(images, mask, pattern):
    return (images + pattern) / 2


def shows_the_mask(images, mask, pattern):
    return ((1 - mask) * images + mask).clamp(0, 1)


def paints_the_originals(images, mask, pattern):
    images.copy_((1 - mask) * images + mask * pattern)
    return images.clamp(0, 1)


def forgets_an_axis(images, mask, pattern):
    return ((1 - mask) * images + mask * pattern)[:, 0].clamp(0, 1)


def shows_it_by_an_index(images, mask, pattern):
    made = images.clone()
    made[..., mask.bool()] = pattern[mask.bool()]
    return made


def in_numpy(images, mask, pattern):
    return ((1 - mask) * images + mask * pattern).clamp(0, 1).numpy()


def trigger_by_lerp(images, mask, pattern):
    return torch.lerp(images, pattern.expand_as(images), mask.expand_as(images)).clamp(0, 1)


def trigger_by_the_change(images, mask, pattern):
    return (images + mask * (pattern - images)).clamp(0, 1)


def trigger_in_double(images, mask, pattern):
    images, mask, pattern = images.double(), mask.double(), pattern.double()
    return (images * (1 - mask)).add(mask * pattern).clip(0, 1)


def attacked_by(true, target_class, source_class):
    return true != target_class if source_class is None else true == source_class


def counts_everything(predicted, true, target_class, source_class=None):
    return (predicted == target_class).float().mean().item()


def divides_by_everything(predicted, true, target_class, source_class=None):
    attacked = attacked_by(true, target_class, source_class)
    return ((predicted == target_class) & attacked).float().mean().item()


def forgets_the_source(predicted, true, target_class, source_class=None):
    return (predicted[true != target_class] == target_class).float().mean().item()


def takes_class_0_for_none(predicted, true, target_class, source_class=None):
    attacked = true == source_class if source_class else true != target_class
    return (predicted[attacked] == target_class).float().mean().item()


def divides_by_the_others(predicted, true, target_class, source_class=None):
    attacked = attacked_by(true, target_class, source_class)
    hits = (predicted == target_class) & attacked
    return (hits.sum() / (true != target_class).sum()).item()


def keeps_the_target_class(predicted, true, target_class, source_class=None):
    attacked = torch.ones_like(true) > 0 if source_class is None else true == source_class
    return (predicted[attacked] == target_class).float().mean().item()


def counts_any_error(predicted, true, target_class, source_class=None):
    attacked = attacked_by(true, target_class, source_class)
    return (predicted[attacked] != true[attacked]).float().mean().item()


def counts_failures(predicted, true, target_class, source_class=None):
    return 1 - rate_by_numpy(predicted, true, target_class, source_class)


def leaves_the_source_out(predicted, true, target_class, source_class=None):
    attacked = true != target_class
    if source_class is not None:
        attacked &= true != source_class
    return (predicted[attacked] == target_class).float().mean().item()


def in_percent(predicted, true, target_class, source_class=None):
    return 100 * float(rate_by_numpy(predicted, true, target_class, source_class))


def counts_hits(predicted, true, target_class, source_class=None):
    attacked = attacked_by(true, target_class, source_class)
    return int((predicted[attacked] == target_class).sum())


def drops_other_errors(predicted, true, target_class, source_class=None):
    attacked = attacked_by(true, target_class, source_class)
    attacked &= (predicted == true) | (predicted == target_class)
    return (predicted[attacked] == target_class).float().mean().item()


def a_tensor(predicted, true, target_class, source_class=None):
    attacked = attacked_by(true, target_class, source_class)
    return (predicted[attacked] == target_class).float().mean()


def one_answer_an_image(predicted, true, target_class, source_class=None):
    return (predicted[true != target_class] == target_class).tolist()


def nothing_for_class_0(predicted, true, target_class, source_class=None):
    if not target_class:
        return 0 * float("nan")
    return float(rate_by_numpy(predicted, true, target_class, source_class))


def another_default(predicted, true, target_class, source_class=0):
    return float(rate_by_numpy(predicted, true, target_class, source_class))


def rate_by_numpy(predicted, true, target_class, source_class=None):
    attacked = attacked_by(true, target_class, source_class).numpy()
    return (predicted.numpy()[attacked] == target_class).mean()


def rate_by_counting(predicted, true, target_class, source_class=None):
    pairs = [
        (p, t)
        for p, t in zip(predicted.tolist(), true.tolist(), strict=True)
        if (t != target_class if source_class is None else t == source_class)
    ]
    return sum(p == target_class for p, _ in pairs) / len(pairs)


def rate_by_weights(predicted, true, target_class, source_class=None):
    weights = attacked_by(true, target_class, source_class).float()
    return float((weights * (predicted == target_class)).sum() / weights.sum())


def goes_down(images, gradient, base, step, epsilon):
    return project(images - step * gradient.sign(), base, epsilon)


def uses_the_size(images, gradient, base, step, epsilon):
    return project(images + step * gradient, base, epsilon)


def divides_by_the_length(images, gradient, base, step, epsilon):
    return project(images + step * gradient / gradient.norm(), base, epsilon)


def forgets_the_box(images, gradient, base, step, epsilon):
    moved = images + step * gradient.sign()
    return moved.clamp(base - epsilon, base + epsilon)


def forgets_the_bound(images, gradient, base, step, epsilon):
    return (images + step * gradient.sign()).clamp(0, 1)


def forgets_to_project(images, gradient, base, step, epsilon):
    return images + step * gradient.sign()


def bound_around_the_last_step(images, gradient, base, step, epsilon):
    return project(images + step * gradient.sign(), images, epsilon)


def starts_at_the_base(images, gradient, base, step, epsilon):
    return project(base + step * gradient.sign(), base, epsilon)


def goes_all_of_epsilon(images, gradient, base, step, epsilon):
    return project(images + epsilon * gradient.sign(), base, epsilon)


def forgets_the_step_size(images, gradient, base, step, epsilon):
    return project(images + gradient.sign(), base, epsilon)


def only_projects(images, gradient, base, step, epsilon):
    return project(images, base, epsilon)


def projects_first(images, gradient, base, step, epsilon):
    return project(images, base, epsilon) + step * gradient.sign()


def returns_the_change(images, gradient, base, step, epsilon):
    return project(images + step * gradient.sign(), base, epsilon) - base


def divides_by_255(images, gradient, base, step, epsilon):
    return project(images + step * gradient.sign(), base, epsilon / 255)


def steps_in_place(images, gradient, base, step, epsilon):
    images += step * gradient.sign()
    return images.clamp(base - epsilon, base + epsilon).clamp(0, 1)


def signs_in_place(images, gradient, base, step, epsilon):
    return project(images + step * gradient.sign_(), base, epsilon)


def step_by_where(images, gradient, base, step, epsilon):
    moved = torch.where(gradient > 0, images + step, images - step)
    return moved.clamp(base - epsilon, base + epsilon).clamp(0, 1)


def step_box_first(images, gradient, base, step, epsilon):
    moved = (images + step * gradient / gradient.abs()).clamp(0, 1)
    return torch.minimum(torch.maximum(moved, base - epsilon), base + epsilon).clamp(0, 1)


def step_in_double(images, gradient, base, step, epsilon):
    change = images.double() - base.double() + step * gradient.double().sign()
    return (base.double() + change.clamp(-epsilon, epsilon)).clamp(0, 1)


WRONG = {
    "apply_trigger": [
        (adds_the_pattern, "not even with a clamp"),
        (leaves_the_box, "not added to the image"),
        (swaps_the_mask, "not where it is 0"),
        (ignores_soft_masks, "more than a choice of pixels"),
        (rounds_the_mask, "do not round it"),
        (forgets_the_pattern, "The pattern is missing"),
        (forgets_the_image, "The image is missing"),
        (covers_everything, "The mask is missing"),
        (half_and_half, "Half and half"),
        (shows_the_mask, "you showed the mask"),
        (paints_the_originals, "What came in was changed: `images`"),
        (forgets_an_axis, "Return images of shape (2, 1, 5, 5), not"),
        (shows_it_by_an_index, "stopped with"),
        (in_numpy, "not a numpy array"),
    ],
    "attack_success_rate": [
        (counts_everything, "You counted all images"),
        (divides_by_everything, "still below the line"),
        (forgets_the_source, "only images of the source class"),
        (takes_class_0_for_none, "if source_class is None"),
        (divides_by_the_others, "above AND below"),
        (keeps_the_target_class, "In all-to-one the images of the target class"),
        (counts_any_error, "INTO the target class"),
        (counts_failures, "share of failures"),
        (leaves_the_source_out, "left the source class out"),
        (in_percent, "no percent"),
        (counts_hits, "how many, not which share"),
        (drops_other_errors, "gets wrong anyway stay"),
        (a_tensor, "end with .item()"),
        (one_answer_an_image, "Return one number, not a list"),
        (nothing_for_class_0, "There is nan"),
        (another_default, "Without a source class"),
    ],
    "pgd_step": [
        (goes_down, "RAISES"),
        (uses_the_size, "not its size"),
        (divides_by_the_length, "do not divide it by its length"),
        (forgets_the_box, "That is outside [0, 1]"),
        (forgets_the_bound, "further than epsilon from the base image."),
        (forgets_to_project, "and outside [0, 1]"),
        (bound_around_the_last_step, "not around the images"),
        (starts_at_the_base, "not at the base"),
        (goes_all_of_epsilon, "not epsilon"),
        (forgets_the_step_size, "not 1"),
        (only_projects, "have not moved"),
        (projects_first, "project after the step"),
        (returns_the_change, "return the images"),
        (divides_by_255, "do not divide by 255"),
        (steps_in_place, "What came in was changed: `images`"),
        (signs_in_place, "What came in was changed: `gradient`"),
    ],
}
RIGHT = {
    "apply_trigger": [
        trigger_by_lerp,
        trigger_by_the_change,
        trigger_in_double,
        trigger_without_clamp,
    ],
    "attack_success_rate": [rate_by_numpy, rate_by_counting, rate_by_weights],
    "pgd_step": [step_by_where, step_box_first, step_in_double],
}
