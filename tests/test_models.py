"""course_utils.models: the four victims, how they are built, and how they predict."""

import numpy as np
import pytest
import torch
from torch import nn

from course_utils.models import MODELS, Classifier, Residual, build, predict

SHAPES = ((1, 28, 28), (3, 32, 32))


def batch(shape: tuple[int, int, int], n: int = 2) -> torch.Tensor:
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", MODELS)
def test_every_model_gives_a_logit_for_each_class_and_both_image_shapes(name, shape):
    model = build(name, shape, 7)
    with torch.no_grad():
        assert model(batch(shape)).shape == (2, 7)


@pytest.mark.parametrize("shape", [(13, 4, 4), (1, 7, 5), (3, 33, 31)])
@pytest.mark.parametrize("name", MODELS)
def test_every_model_takes_images_of_other_sizes(name, shape):
    assert predict(build(name, shape, 3), batch(shape)).shape == (2,)


@pytest.mark.parametrize("shape", [(1, 3, 28), (1, 28, 3), (1, 1, 1)])
def test_images_that_are_too_small_to_pool_are_refused(shape):
    with pytest.raises(ValueError, match=r"too small for three convolutions .* at least 4 x 4"):
        build("small_cnn", shape, 10)


@pytest.mark.parametrize("name", MODELS)
def test_logits_are_the_linear_head_on_the_features(name):
    model = build(name, SHAPES[0], 3).eval()
    with torch.no_grad():
        features = model.features(batch(SHAPES[0]))
        assert features.shape == (2, model.head.in_features)
        expected = features @ model.head.weight.T + model.head.bias
        torch.testing.assert_close(model(batch(SHAPES[0])), expected)


def test_the_same_seed_builds_the_same_weights_and_another_seed_does_not():
    first, again, other = (build("mlp", SHAPES[0], 10, seed=seed, width=8) for seed in (3, 3, 4))
    assert torch.equal(first.head.weight, again.head.weight)
    assert not torch.equal(first.head.weight, other.head.weight)


def test_a_seed_may_be_a_number_of_numpy():
    first, again = (build("mlp", SHAPES[0], 10, seed=seed, width=8) for seed in (3, np.int64(3)))
    assert torch.equal(first.head.weight, again.head.weight)


def test_building_leaves_the_global_seed_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    build("mlp", SHAPES[0], 10, seed=5)
    assert torch.equal(torch.rand(3), expected)


def test_options_reach_the_model():
    assert build("mlp", SHAPES[0], 10, width=8).head.in_features == 8
    kinds = {
        norm: {type(layer) for layer in build("small_cnn", SHAPES[0], 10, norm=norm).modules()}
        for norm in ("group", "batch")
    }
    assert nn.GroupNorm in kinds["group"] and nn.BatchNorm2d not in kinds["group"]
    assert nn.BatchNorm2d in kinds["batch"] and nn.GroupNorm not in kinds["batch"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("vgg", SHAPES[0], 10), "Unknown model 'vgg': choose one of logistic_regression, mlp"),
        (("mlp", (28, 28), 10), r"must be \(C, H, W\), got \(28, 28\): use data.shape"),
        (("mlp", SHAPES[0], 1), "at least 2 classes, got 1"),
    ],
)
def test_build_rejects_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        build(*arguments)


@pytest.mark.parametrize("name", ["small_cnn", "resnet18", "resnet9"])
def test_build_rejects_an_unknown_normalisation(name):
    with pytest.raises(ValueError, match="'layer': use 'group' or 'batch'"):
        build(name, SHAPES[0], 10, norm="layer")


def test_the_resnet_stem_keeps_the_resolution_of_small_images():
    network = build("resnet18", SHAPES[1], 10).features
    with torch.no_grad():
        stem = network.maxpool(network.relu(network.bn1(network.conv1(batch(SHAPES[1])))))
    assert stem.shape == (2, 64, 32, 32)


def test_a_residual_block_adds_its_input():
    block, x = Residual(nn.Linear(3, 3), nn.ReLU()), torch.rand(2, 3)
    torch.testing.assert_close(block(x), x + block.layers[0](x).relu())


def test_the_small_resnet_halves_its_images_three_times_and_has_two_blocks():
    network, sides = build("resnet9", SHAPES[1], 10), []
    for layer in network.features:
        layer.register_forward_hook(lambda layer, given, found: sides.append(found.shape[1:]))
    with torch.no_grad():
        network(batch(SHAPES[1]))
    assert [tuple(side) for side in sides[:-2]] == [
        *((channels, 32, 32) for channels in (64, 128)),
        *((channels, 16, 16) for channels in (128, 128, 256)),
        *((channels, 8, 8) for channels in (256, 512)),
        *((channels, 4, 4) for channels in (512, 512)),
    ]
    assert sum(isinstance(layer, nn.Conv2d) for layer in network.modules()) == 8
    assert sum(isinstance(layer, Residual) for layer in network.modules()) == 2


@pytest.mark.parametrize(("norm", "mixes"), [("group", False), ("batch", True)])
def test_only_batchnorm_lets_one_image_change_the_logits_of_another(norm, mixes):
    model = build("small_cnn", SHAPES[0], 10, norm=norm).train()
    x = batch(SHAPES[0], 4)
    with torch.no_grad():
        beside_noise = model(x)[0]
        beside_black = model(torch.cat([x[:1], torch.zeros_like(x[1:])]))[0]
    assert torch.allclose(beside_noise, beside_black, atol=1e-5) is not mixes


class Raises(nn.Module):
    def forward(self, x):
        raise RuntimeError("no prediction")


def test_predict_gives_the_class_of_the_largest_logit_for_any_batch_size():
    model = build("small_cnn", SHAPES[0], 10).eval()
    x = batch(SHAPES[0], 5)
    expected = model(x).argmax(1)
    for size in (1, 2, 5, 100):
        assert torch.equal(predict(model, x, batch_size=size), expected)


@pytest.mark.parametrize("training", [True, False])
def test_predict_looks_in_evaluation_mode_and_leaves_the_mode_as_it_was(training):
    model = build("small_cnn", SHAPES[0], 10, norm="batch").train(training)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    predict(model, batch(SHAPES[0], 5))
    assert all(layer.training is training for layer in model.modules())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_predict_leaves_frozen_features_frozen():
    model = build("small_cnn", SHAPES[0], 10).train()
    model.features.eval()
    predict(model, batch(SHAPES[0]))
    assert model.head.training
    assert not any(layer.training for layer in model.features.modules())


def test_predict_restores_the_mode_after_an_error():
    model = Raises().train()
    with pytest.raises(RuntimeError, match="no prediction"):
        predict(model, batch(SHAPES[0]))
    assert model.training


def test_predict_refuses_logits_that_are_no_numbers():
    model, x = build("mlp", SHAPES[0], 10, width=8).train(), batch(SHAPES[0], 5)
    x[3, 0, 2, 2] = float("nan")
    with pytest.raises(ValueError, match=r"logits for image 3 of 5 are not numbers \(NaN\)"):
        predict(model, x, batch_size=2)
    assert model.training
    assert len(predict(model, x[:3])) == 3
    with torch.no_grad():
        model.features[1].bias[0] = float("nan")
    with pytest.raises(ValueError, match="image 0 of 2"):
        predict(model, batch(SHAPES[0]))


def test_predict_takes_infinite_logits():
    model = build("logistic_regression", SHAPES[0], 3)
    with torch.no_grad():
        model.head.bias.copy_(torch.tensor([0, float("inf"), -float("inf")]))
    assert predict(model, batch(SHAPES[0])).tolist() == [1, 1]


def test_predict_of_no_image_is_empty():
    model = build("logistic_regression", SHAPES[0], 10)
    assert predict(model, torch.empty(0, *SHAPES[0])).shape == (0,)


def test_a_classifier_takes_any_feature_extractor():
    model = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), 3, 2)
    assert model(torch.rand(5, 1, 2, 2)).shape == (5, 2)
