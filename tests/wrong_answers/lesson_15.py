"""Plausible wrong answers to the exercises of lesson 15, and what the check must say of them."""

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


def any_attack(successes):
    return successes.any(0).mean()


def mean_attack(successes):
    return successes.mean()


def best_for_the_defender(successes):
    return successes.mean(1).min()


def rate_of_each(successes):
    return successes.mean(1)


WRONG = {
    "clipped_gradient": [
        (sum_of_examples, "That is the sum"),
        (no_clipping, "without clipping"),
        (clips_the_mean, "You clip the mean"),
        (layer_by_layer, "each layer by itself"),
        (scales_up, "must stay as they are"),
        (forgets_the_bias, "they differ"),
        (detached_lengths, "do not detach"),
        (no_graph, "no graph"),
        (transposed, "Return a tuple"),
    ],
    "hold_constant": [
        (seen_as_it_is, "does not reach the poisons"),
        (images_as_they_were, "must be those of `seen`"),
        (only_seen_detached, "not that of a constant change"),
        (all_detached, "does not reach the poisons"),
        (half_way, "not that of a constant change"),
    ],
    "worst_rate": [
        (any_attack, "before they see the victim"),
        (mean_attack, "take the worst"),
        (best_for_the_defender, "bad for the defender"),
        (rate_of_each, "Return one number"),
    ],
}
