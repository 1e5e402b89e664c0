"""Answers to the exercises of lesson 10: wrong ones, what the check must say, right ones."""

import math

import numpy as np
import torch


def without_batch_size(clip, noise, batch_size, weights):
    return clip * noise * math.sqrt(weights)


def root_of_batch_size(clip, noise, batch_size, weights):
    return clip * noise * math.sqrt(weights / batch_size)


def no_root(clip, noise, batch_size, weights):
    return clip * noise * weights / batch_size


def one_coordinate(clip, noise, batch_size, weights):
    return clip * noise / batch_size


def without_bound(clip, noise, batch_size, weights):
    return noise * math.sqrt(weights) / batch_size


def without_multiplier(clip, noise, batch_size, weights):
    return clip * math.sqrt(weights) / batch_size


def squared(clip, noise, batch_size, weights):
    return (clip * noise / batch_size) ** 2 * weights


def variance_for_deviation(clip, noise, batch_size, weights):
    return (clip * noise) ** 2 * math.sqrt(weights) / batch_size


def signal_and_noise(clip, noise, batch_size, weights):
    return (clip + clip * noise * math.sqrt(weights)) / batch_size


def sum_of_sizes(clip, noise, batch_size, weights):
    return clip * noise * weights * math.sqrt(2 / math.pi) / batch_size


def divided_by_noise(clip, noise, batch_size, weights):
    return 0.0 / noise + clip * noise * math.sqrt(weights) / batch_size


def drawn_globally(clip, noise, batch_size, weights):
    return (clip * noise * torch.randn(weights)).norm() / batch_size


def every_weight(clip, noise, batch_size, weights):
    return np.full(weights, clip * noise / batch_size)


def not_a_number(clip, noise, batch_size, weights):
    return math.nan


def under_one_root(clip, noise, batch_size, weights):
    return math.sqrt(weights * (clip * noise / batch_size) ** 2)


def a_tensor(clip, noise, batch_size, weights):
    return torch.tensor([clip * noise / batch_size]).expand(weights).norm()


def mean_of_the_length(clip, noise, batch_size, weights):
    half = math.lgamma((weights + 1) / 2) - math.lgamma(weights / 2)
    return clip * noise / batch_size * math.sqrt(2) * math.exp(half)


def fallen(counts, broken):
    return [count for count, hit in zip(counts, broken, strict=True) if hit]


def position(counts, broken):
    return broken.index(True) if any(broken) else math.inf


def never_is_zero(counts, broken):
    return min(fallen(counts, broken), default=0)


def never_is_missing(counts, broken):
    return min(fallen(counts, broken), default=math.nan)


def never_is_none(counts, broken):
    return min(fallen(counts, broken), default=None)


def never_is_the_largest(counts, broken):
    return min(fallen(counts, broken), default=max(counts))


def never_stops(counts, broken):
    return min(fallen(counts, broken))


def first_listed(counts, broken):
    return next(iter(fallen(counts, broken)), math.inf)


def last_listed(counts, broken):
    return next(iter(fallen(counts, broken)[::-1]), math.inf)


def largest(counts, broken):
    return max(fallen(counts, broken), default=math.inf)


def how_many(counts, broken):
    return sum(broken) if any(broken) else math.inf


def outcomes_ignored(counts, broken):
    return min(counts)


def largest_that_failed(counts, broken):
    return max([c for c, hit in zip(counts, broken, strict=True) if not hit], default=math.inf)


def zero_for_nothing(counts, broken):
    return min(fallen(counts, broken), default=0) or math.inf


def zero_passed_over(counts, broken):
    return min([count for count in fallen(counts, broken) if count], default=math.inf)


def zero_replaced(counts, broken):
    best = 0
    for count in fallen(counts, broken):
        if not best or count < best:
            best = count
    return best if best else math.inf


def zero_is_no_attack(counts, broken):
    return min([count for count in fallen(counts, broken) if count > 0], default=math.inf)


def by_product(counts, broken):
    products = [count * hit for count, hit in zip(counts, broken, strict=True)]
    return min([product for product in products if product], default=math.inf)


def a_loop(counts, broken):
    first = math.inf
    for i in range(len(counts)):
        if broken[i] and counts[i] < first:
            first = counts[i]
    return first


def in_numpy(counts, broken):
    return np.where(broken, counts, np.inf).min()


def as_a_tensor(counts, broken):
    found = torch.tensor(counts, dtype=torch.float32)
    return found.masked_fill(~torch.tensor(broken), math.inf).min()


def weighted(losses, parameters, weights):
    return torch.autograd.grad((weights * losses).sum(), parameters)


def weights_of(norms, clip):
    return (clip / norms).clamp(max=1).detach()


def nothing_clipped(losses, norms, parameters, clip):
    return weighted(losses, parameters, torch.ones_like(norms))


def short_ones_stretched(losses, norms, parameters, clip):
    return weighted(losses, parameters, (clip / norms).detach())


def the_mean(losses, norms, parameters, clip):
    return weighted(losses, parameters, weights_of(norms, clip) / len(losses))


def the_sum_is_clipped(losses, norms, parameters, clip):
    total = weighted(losses, parameters, 1)
    size = torch.cat([part.flatten() for part in total]).norm()
    return tuple(part * (clip / size).clamp(max=1) for part in total)


def upside_down(losses, norms, parameters, clip):
    return weighted(losses, parameters, (norms / clip).clamp(max=1).detach())


def clip_ignored(losses, norms, parameters, clip):
    return weighted(losses, parameters, weights_of(norms, 1.0))


def long_ones_left_out(losses, norms, parameters, clip):
    return weighted(losses, parameters, norms <= clip)


def lengths_squared(losses, norms, parameters, clip):
    return weighted(losses, parameters, weights_of(norms**2, clip))


def one_weight_for_all(losses, norms, parameters, clip):
    return weighted(losses, parameters, weights_of(norms, clip).mean())


def sign_turned(losses, norms, parameters, clip):
    return weighted(losses, parameters, -weights_of(norms, clip))


def lengths_followed(losses, norms, parameters, clip):
    return weighted(losses, parameters, (clip / norms).clamp(max=1))


def zero_over_zero(losses, norms, parameters, clip):
    return weighted(losses, parameters, (norms.clamp(max=clip) / norms).detach())


def left_in_grad(losses, norms, parameters, clip):
    (weights_of(norms, clip) * losses).sum().backward()
    return [p.grad for p in parameters]


def first_parameter_only(losses, norms, parameters, clip):
    return weighted(losses, parameters[:1], weights_of(norms, clip))


def losses_cut_off(losses, norms, parameters, clip):
    return weighted(losses.detach(), parameters, weights_of(norms, clip))


def by_inner_product(losses, norms, parameters, clip):
    return list(torch.autograd.grad(losses @ weights_of(norms, clip), parameters))


def by_vector_product(losses, norms, parameters, clip):
    factors = torch.where(norms > clip, clip / norms, torch.ones_like(norms)).detach()
    return torch.autograd.grad(losses, parameters, grad_outputs=factors)


def example_by_example(losses, norms, parameters, clip):
    total = [torch.zeros_like(p, dtype=torch.float32) for p in parameters]
    for loss, norm in zip(losses, norms.tolist(), strict=True):
        gradient = torch.autograd.grad(loss, parameters, retain_graph=True)
        factor = clip / norm if norm > clip else 1
        total = [a + factor * b.float() for a, b in zip(total, gradient, strict=True)]
    return total


WRONG = {
    "clipped_sum": [
        (nothing_clipped, "Nothing was clipped"),
        (short_ones_stretched, "keeps the weight 1"),
        (the_mean, "return the sum"),
        (the_sum_is_clipped, "clip each example"),
        (upside_down, "upside down"),
        (clip_ignored, "ignores `clip`"),
        (long_ones_left_out, "not dropped"),
        (lengths_squared, "do not square"),
        (one_weight_for_all, "by its own weight"),
        (sign_turned, "sign is turned"),
        (lengths_followed, "count as constants"),
        (zero_over_zero, "0 / 0"),
        (left_in_grad, "A gradient was left"),
        (first_parameter_only, "one tensor for each parameter"),
        (losses_cut_off, "does not require grad"),
    ],
    "noise_length": [
        (without_batch_size, "noise with it"),
        (root_of_batch_size, "once a batch"),
        (no_root, "square root"),
        (one_coordinate, "as many as weights"),
        (without_bound, "units of the bound"),
        (without_multiplier, "multiplier"),
        (squared, "squared length"),
        (variance_for_deviation, "variance"),
        (signal_and_noise, "noise alone"),
        (sum_of_sizes, "square root"),
        (divided_by_noise, "noise=0"),
        (drawn_globally, "global random state"),
        (every_weight, "one number"),
        (not_a_number, "nan"),
    ],
    "first_success": [
        (position, "the number of poisons there"),
        (never_is_zero, "no first success"),
        (never_is_missing, "no first success"),
        (never_is_none, "no first success"),
        (never_is_the_largest, "no first success"),
        (never_stops, "no first success"),
        (first_listed, "need not be in order"),
        (last_listed, "need not be in order"),
        (largest, "not the largest"),
        (how_many, "counted the successes"),
        (outcomes_ignored, "whether the target fell"),
        (largest_that_failed, "did not fall"),
        (zero_for_nothing, "0 poisons"),
        (zero_passed_over, "0 poisons"),
        (zero_replaced, "0 poisons"),
        (zero_is_no_attack, "0 poisons"),
        (by_product, "0 poisons"),
    ],
}
RIGHT = {
    "clipped_sum": [by_inner_product, by_vector_product, example_by_example],
    "noise_length": [under_one_root, a_tensor, mean_of_the_length],
    "first_success": [a_loop, in_numpy, as_a_tensor],
}
