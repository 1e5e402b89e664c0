"""Plausible wrong answers to the exercises of lesson 19, and what the check must say of them."""

import copy
import math

import numpy as np
import torch
from torch import nn

from course_utils.defenses.repair import last_hidden, prune, strip_entropy


def silenced(model, change):
    pruned = copy.deepcopy(model)
    with torch.no_grad():
        change(pruned)
    return pruned


def bias_forgotten(model, units):
    return silenced(model, lambda m: last_hidden(m).weight.index_fill_(0, units, 0))


def columns(model, units):
    def change(m):
        last_hidden(m).weight[:, units] = 0
        last_hidden(m).bias[units] = 0

    return silenced(model, change)


def in_the_head(model, units):
    return silenced(model, lambda m: m.head.weight.index_fill_(1, units, 0))


def in_place(model, units):
    with torch.no_grad():
        last_hidden(model).weight[units] = 0
        last_hidden(model).bias[units] = 0
    return model


def shallow(model, units):
    return in_place(copy.copy(model), units)


def in_the_first_layer(model, units):
    def change(m):
        first = next(layer for layer in m.features if hasattr(layer, "weight"))
        few = units[units < len(first.weight)]
        first.weight[few] = 0
        first.bias[few] = 0

    return silenced(model, change)


def all_others(model, units):
    stay = torch.ones(model.head.in_features, dtype=torch.bool)
    stay[units] = False
    return prune(model, stay.nonzero()[:, 0])


def one_of_them(model, units):
    return prune(model, units[:1])


def nearly(model, units):
    def change(m):
        last_hidden(m).weight[units] *= 1e-3
        last_hidden(m).bias[units] *= 1e-3

    return silenced(model, change)


def nothing(model, units):
    return copy.deepcopy(model)


def the_layer(model, units):
    return last_hidden(prune(model, units))


def the_head_too(model, units):
    pruned = prune(model, units)
    with torch.no_grad():
        pruned.head.bias.zero_()
    return pruned


def no_copy_of_nothing(model, units):
    return prune(model, units) if len(units) else model


def index(distances, centre=None, factor=1.4826):
    centre = distances.quantile(0.5) if centre is None else centre
    return (centre - distances) / (factor * (distances - centre).abs().quantile(0.5))


def no_factor(distances):
    return index(distances, factor=1.0)


def factor_above(distances):
    return index(distances, factor=1 / 1.4826)


def lower_median(distances):
    centre = distances.median()
    return (centre - distances) / (1.4826 * (distances - centre).abs().median())


def by_means(distances):
    centre = distances.mean()
    return (centre - distances) / (1.4826 * (distances - centre).abs().mean())


def mean_deviation(distances):
    centre = distances.quantile(0.5)
    return (centre - distances) / (1.4826 * (distances - centre).abs().mean())


def other_sign(distances):
    return -index(distances)


def absolute(distances):
    return index(distances).abs()


def standard(distances):
    return (distances.quantile(0.5) - distances) / distances.std()


def not_divided(distances):
    return distances.quantile(0.5) - distances


def by_the_median(distances):
    return not_divided(distances) / distances.quantile(0.5)


def the_largest(distances):
    return index(distances).max()


def of_mixture(model, image, overlays, share=0.5):
    with torch.no_grad():
        logs = model(share * image + (1 - share) * overlays).log_softmax(1)
    return -(logs.exp() * logs).sum(1)


def negative(model, image, overlays):
    return -strip_entropy(model, image, overlays)


def summed(model, image, overlays):
    return of_mixture(model, image, overlays).sum().item()


def in_bits(model, image, overlays):
    return strip_entropy(model, image, overlays) / math.log(2)


def of_the_mean(model, image, overlays):
    with torch.no_grad():
        p = model((image + overlays) / 2).softmax(1).mean(0)
    return -(p * p.log()).sum().item()


def added(model, image, overlays):
    return strip_entropy(model, 2 * image, 2 * overlays)


def added_and_cut(model, image, overlays):
    return strip_entropy(model, (image + overlays).clamp(0, 1), (image + overlays).clamp(0, 1))


def overlays_alone(model, image, overlays):
    return of_mixture(model, image, overlays, share=0.0).mean().item()


def image_alone(model, image, overlays):
    return of_mixture(model, image, overlays, share=1.0).mean().item()


def mean_over_classes(model, image, overlays):
    return of_mixture(model, image, overlays).mean().item() / model.head.out_features


def the_smallest(model, image, overlays):
    return of_mixture(model, image, overlays).min().item()


def one_each(model, image, overlays):
    return of_mixture(model, image, overlays)


def with_a_graph(model, image, overlays):
    image.requires_grad_()
    return strip_entropy(model, image, overlays)


def by_a_mask(model, units):
    pruned = copy.deepcopy(model)
    layer = last_hidden(pruned)
    kept = torch.ones(layer.out_features)
    kept[units] = 0
    layer.weight = nn.Parameter(layer.weight.detach() * kept[:, None])
    layer.bias = nn.Parameter(layer.bias.detach() * kept)
    return pruned


def one_after_the_other(model, units):
    pruned = copy.deepcopy(model)
    for unit in units.tolist():
        nn.init.zeros_(last_hidden(pruned).weight[unit])
        nn.init.zeros_(last_hidden(pruned).bias[unit : unit + 1])
    return pruned


def by_state(model, units):
    pruned, state = copy.deepcopy(model), copy.deepcopy(model.state_dict())
    for name in state:
        if name.startswith(f"features.{len(model.features) - 2}."):
            state[name][units] = 0
    pruned.load_state_dict(state)
    return pruned


def in_numpy(distances):
    values = distances.double().numpy()
    centre = np.median(values)
    return torch.from_numpy((centre - values) / (1.4826 * np.median(np.abs(values - centre))))


def by_sorting(distances):
    def middle(values):
        ordered, half = sorted(values), len(values) // 2
        return ordered[half] if len(values) % 2 else (ordered[half - 1] + ordered[half]) / 2

    values = distances.tolist()
    spread = 1.4826 * middle([abs(value - middle(values)) for value in values])
    return torch.tensor([(middle(values) - value) / spread for value in values])


def by_z_scores(distances):
    return index(distances).double()


def in_a_loop(model, image, overlays):
    found = []
    with torch.no_grad():
        for overlay in overlays:
            p = model(((image + overlay) / 2)[None]).softmax(1)
            found.append(torch.special.entr(p).sum())
    return torch.stack(found).mean()


def by_categorical(model, image, overlays):
    with torch.no_grad():
        logits = model(torch.lerp(overlays, image.expand_as(overlays), 0.5))
    return torch.distributions.Categorical(logits=logits).entropy().mean()


def as_array(model, image, overlays):
    return of_mixture(model, image, overlays).numpy().mean()


RIGHT = {
    "prune": [by_a_mask, one_after_the_other, by_state],
    "anomaly_indices": [in_numpy, by_sorting, by_z_scores],
    "strip_entropy": [in_a_loop, by_categorical, as_array],
}
WRONG = {
    "prune": [
        (bias_forgotten, "bias still speaks"),
        (columns, "row of the weight"),
        (in_the_head, "wakes up when training"),
        (in_place, "What came in was changed"),
        (shallow, "What came in was changed"),
        (in_the_first_layer, "last hidden one"),
        (all_others, "those that go, not those that stay"),
        (one_of_them, "expected exactly 0"),
        (nearly, "expected exactly 0"),
        (nothing, "Nothing has changed"),
        (the_layer, "Return a model"),
        (the_head_too, "The head was changed"),
        (no_copy_of_nothing, "shares weights"),
    ],
    "anomaly_indices": [
        (no_factor, "1.4826 is missing"),
        (factor_above, "below the line"),
        (lower_median, "lower of two"),
        (by_means, "index"),
        (mean_deviation, "not their mean"),
        (other_sign, "a small distance has a large index"),
        (absolute, "Keep the sign"),
        (standard, "standard deviation"),
        (not_divided, "Divide by the MAD"),
        (by_the_median, "not by the median"),
        (the_largest, "the indices"),
    ],
    "strip_entropy": [
        (negative, "not negative"),
        (summed, "not the sum"),
        (in_bits, "base 2"),
        (of_the_mean, "First the entropy"),
        (added, "too bright"),
        (added_and_cut, "cut off at 1"),
        (overlays_alone, "Mix the overlays"),
        (image_alone, "always the same"),
        (mean_over_classes, "add them up"),
        (the_smallest, "smallest entropy"),
        (one_each, "Return one number"),
        (with_a_graph, "requires_grad"),
    ],
}
