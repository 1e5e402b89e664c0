"""The models written out."""

import torch

from course_utils.models import build
from tests.reference.small import noise_data


def test_the_mlp_has_two_hidden_layers_with_relu():
    data = noise_data(9)
    model = build("mlp", data.shape, 3, seed=4, width=7)
    (first, a), (second, b) = ((model.features[k].weight, model.features[k].bias) for k in (1, 3))
    hidden = (data.x.flatten(1) @ first.T + a).clamp(min=0)
    expected = (hidden @ second.T + b).clamp(min=0)
    torch.testing.assert_close(model.features(data.x), expected)


def test_the_small_cnn_is_three_normalised_convolutions():
    x = torch.rand(2, 1, 9, 10)
    model = build("small_cnn", (1, 9, 10), 3, seed=4)
    layers = [layer for layer in model.features if len(list(layer.parameters()))]
    out = x
    for number in range(3):
        conv, norm = layers[2 * number], layers[2 * number + 1]
        out = torch.nn.functional.conv2d(out, conv.weight, conv.bias, padding=1)
        out = torch.nn.functional.group_norm(out, 8, norm.weight, norm.bias).clamp(min=0)
        out = torch.nn.functional.max_pool2d(out, 2) if number < 2 else out.mean((2, 3))
    torch.testing.assert_close(model.features(x), out)
