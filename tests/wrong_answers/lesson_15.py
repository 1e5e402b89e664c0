"""Answers to the exercises of lesson 15: wrong ones, what the check must say, right ones."""

import math

import numpy as np
import torch


def weigh(parts, weights):
    scaled = [(a, weights[:, None] * b) for a, b in parts]
    return tuple(part for a, b in scaled for part in (b.T @ a, b.sum(0)))


def squares(parts):
    return sum((a.square().sum(1) + 1) * b.square().sum(1) for a, b in parts)


def sum_of_examples(parts, clip):
    return weigh(parts, (clip / squares(parts).sqrt()).clamp(max=1))


def no_clipping(parts, clip):
    return weigh(parts, torch.ones_like(squares(parts)) / len(parts[0][0]))


def clips_the_mean(parts, clip):
    mean = no_clipping(parts, clip)
    size = torch.cat([part.flatten() for part in mean]).norm()
    return tuple(part * (clip / size).clamp(max=1) for part in mean)


def layer_by_layer(parts, clip):
    n = len(parts[0][0])
    return tuple(p for one in parts for p in (q / n for q in sum_of_examples([one], clip)))


def scales_up(parts, clip):
    return weigh(parts, clip / squares(parts).sqrt() / len(parts[0][0]))


def forgets_the_bias(parts, clip):
    lengths = sum(a.square().sum(1) * b.square().sum(1) for a, b in parts).sqrt()
    return weigh(parts, (clip / lengths).clamp(max=1) / len(lengths))


def detached_lengths(parts, clip):
    lengths = squares(parts).detach().sqrt()
    return weigh(parts, (clip / lengths).clamp(max=1) / len(lengths))


def no_graph(parts, clip):
    with torch.no_grad():
        return weigh(parts, (clip / squares(parts).sqrt()).clamp(max=1) / len(parts[0][0]))


def transposed(parts, clip):
    weights = (clip / squares(parts).sqrt()).clamp(max=1) / len(parts[0][0])
    return tuple(p for a, b in parts for p in (a.T @ (weights[:, None] * b), b.sum(0)))


def divided_by_zero(parts, clip):
    lengths = squares(parts).sqrt()
    return weigh(parts, lengths.clamp(max=clip) / lengths / len(lengths))


def lengths_added(parts, clip):
    lengths = sum(((a.square().sum(1) + 1) * b.square().sum(1)).sqrt() for a, b in parts)
    return weigh(parts, (clip / lengths).clamp(max=1) / len(lengths))


def no_root(parts, clip):
    return weigh(parts, (clip / squares(parts)).clamp(max=1) / len(parts[0][0]))


def inputs_overwritten(parts, clip):
    weights = (clip / squares(parts).sqrt()).clamp(max=1) / len(parts[0][0])
    for _, b in parts:
        b *= weights[:, None]
    return tuple(part for a, b in parts for part in (b.T @ a, b.sum(0)))


def clip_of_one(parts, clip):
    return weigh(parts, (1 / squares(parts).sqrt()).clamp(max=1) / len(parts[0][0]))


def long_ones_dropped(parts, clip):
    return weigh(parts, (squares(parts).sqrt() <= clip).double() / len(parts[0][0]))


def mean_over_the_clipped(parts, clip):
    factor = (clip / squares(parts).sqrt()).clamp(max=1)
    return weigh(parts, factor / factor.sum())


def biases_last(parts, clip):
    found = no_mistake(parts, clip)
    return (*found[::2], *found[1::2])


def weights_only(parts, clip):
    return no_mistake(parts, clip)[::2]


def not_a_number(parts, clip):
    return tuple(part * math.nan for part in no_mistake(parts, clip))


def no_mistake(parts, clip):
    return weigh(parts, (clip / squares(parts).sqrt()).clamp(max=1) / len(parts[0][0]))


def turned(parts, clip):
    return tuple(-part for part in no_mistake(parts, clip))


def a_list(parts, clip):
    return list(no_mistake(parts, clip))


def single_precision(parts, clip):
    return no_mistake([(a.float(), b.float()) for a, b in parts], clip)


def each_gradient_in_full(parts, clip):
    full = [part for a, b in parts for part in (torch.einsum("no,ni->noi", b, a), b)]
    lengths = torch.cat([part.flatten(1) for part in full], 1).norm(dim=1)
    factors = torch.where(lengths > clip, clip / lengths, torch.ones_like(lengths))
    return tuple(torch.tensordot(factors, part, 1) / len(factors) for part in full)


def seen_as_it_is(images, seen):
    return seen


def images_as_they_were(images, seen):
    return images + 0 * seen.detach()


def only_seen_detached(images, seen):
    return images + (seen.detach() - images)


def all_detached(images, seen):
    return seen.detach()


def half_way(images, seen):
    return images / 2 + (seen - images / 2).detach()


def poisons_overwritten(images, seen):
    images.data.copy_(seen)
    return images


def a_fresh_leaf(images, seen):
    return seen.detach().clone().requires_grad_()


def images_detached(images, seen):
    return images.detach() + (seen - images)


def the_change_alone(images, seen):
    return images + (seen - images).detach() - images.detach()


def twice_the_images(images, seen):
    return 2 * images + (seen - 2 * images).detach()


def turned_sign(images, seen):
    return (seen + images).detach() - images


def nothing_returned(images, seen):
    images + (seen - images).detach()


def ratio_held(images, seen):
    return images * (seen / images).detach()


def pixels_missing(images, seen):
    return images + (seen - images).detach() + math.nan


def another_order(images, seen):
    return seen.detach() + images - images.detach()


def from_the_data(images, seen):
    delta = torch.sub(seen.detach(), images.detach())
    return images.add(delta)


class Constant(torch.autograd.Function):
    @staticmethod
    def forward(ctx, images, seen):
        return seen.clone()

    @staticmethod
    def backward(ctx, slope):
        return slope, None


def own_backward(images, seen):
    return Constant.apply(images, seen.detach())


def any_attack(successes):
    return successes.any(0).mean()


def mean_attack(successes):
    return successes.mean()


def best_for_the_defender(successes):
    return successes.mean(1).min()


def rate_of_each(successes):
    return successes.mean(1)


def first_attack(successes):
    return successes[0].mean()


def last_attack(successes):
    return successes[-1].mean()


def mean_over_the_attacks(successes):
    return successes.mean(0).max()


def in_one_trial(successes):
    return float(successes.max())


def how_often(successes):
    return successes.sum(1).max()


def all_attacks(successes):
    return successes.all(0).mean()


def which_attack(successes):
    return successes.mean(1).argmax()


def no_return(successes):
    successes.mean(1).max()


def divided_by_the_attacks(successes):
    return successes.sum(1).max() / len(successes)


def sorted_in_place(successes):
    successes.sort(0)
    return successes[-1].mean()


def rate_missing(successes):
    return math.nan


def single_precision_rate(successes):
    return successes.astype(np.float32).mean(1).max()


def counted_in_lists(successes):
    return max(sum(row) / len(row) for row in successes.tolist())


def with_torch(successes):
    return torch.from_numpy(successes).float().mean(1).amax()


WRONG = {
    "clipped_gradient": [
        (sum_of_examples, "That is the sum"),
        (no_clipping, "without clipping"),
        (clips_the_mean, "You clip the mean"),
        (layer_by_layer, "each layer by itself"),
        (scales_up, "must stay as they are"),
        (forgets_the_bias, "the bias"),
        (detached_lengths, "do not detach"),
        (no_graph, "no graph"),
        (transposed, "for each parameter a tensor of shape"),
        (divided_by_zero, "of length 0"),
        (lengths_added, "squares"),
        (no_root, "the root"),
        (inputs_overwritten, "changed"),
        (clip_of_one, "ignores `clip`"),
        (long_ones_dropped, "not dropped"),
        (turned, "The sign is turned"),
        (mean_over_the_clipped, "Divide by the number of examples"),
        (biases_last, "for each parameter a tensor of shape"),
        (weights_only, "one tensor for each parameter"),
        (not_a_number, "nan"),
    ],
    "hold_constant": [
        (seen_as_it_is, "does not reach the poisons"),
        (images_as_they_were, "must be those of `seen`"),
        (only_seen_detached, "Detach the whole change"),
        (all_detached, "does not reach the poisons"),
        (half_way, "slope 0.5"),
        (poisons_overwritten, "changed"),
        (a_fresh_leaf, "does not reach the poisons"),
        (images_detached, "slope -1"),
        (the_change_alone, "must be those of `seen`"),
        (twice_the_images, "slope 2"),
        (turned_sign, "slope -1"),
        (nothing_returned, "gave back None"),
        (ratio_held, "a sum, not a product"),
        (pixels_missing, "nan"),
    ],
    "worst_rate": [
        (any_attack, "before they see the victim"),
        (mean_attack, "take the worst"),
        (best_for_the_defender, "bad for the defender"),
        (rate_of_each, "Return one number"),
        (first_attack, "only the first attack"),
        (last_attack, "only the last attack"),
        (mean_over_the_attacks, "over its trials"),
        (in_one_trial, "in a single trial"),
        (how_often, "number of successes"),
        (all_attacks, "if all attacks succeed"),
        (which_attack, "which attack"),
        (no_return, "gave back None"),
        (divided_by_the_attacks, "by the number of trials"),
        (sorted_in_place, "changed"),
        (rate_missing, "nan"),
    ],
}
RIGHT = {
    "clipped_gradient": [a_list, single_precision, each_gradient_in_full],
    "hold_constant": [another_order, from_the_data, own_backward],
    "worst_rate": [single_precision_rate, counted_in_lists, with_torch],
}
