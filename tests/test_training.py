"""course_utils.training: one train() for every victim, scenario and defense."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot
from torch.nn.utils import parametrizations

from course_utils import training
from course_utils.data import Data
from course_utils.defense import Defense
from course_utils.models import MODELS, Classifier, build, predict
from course_utils.threat import accuracy
from course_utils.training import (
    Recipe,
    TrainingError,
    batch_rows,
    make_optimizer,
    train,
)

SHORT = Recipe(epochs=2, batch_size=50)
N_CLASSES = 10


def small_mlp(data: Data, seed: int = 0) -> Classifier:
    return build("mlp", data.shape, N_CLASSES, seed=seed, width=16)


def logistic(data: Data, seed: int = 0) -> Classifier:
    return build("logistic_regression", data.shape, N_CLASSES, seed=seed)


def state(model: nn.Module) -> dict[str, Tensor]:
    """A copy of all weights and running statistics."""
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(first: nn.Module | dict, second: nn.Module | dict) -> bool:
    """Whether all weights and running statistics are bit for bit the same."""
    a, b = (item if isinstance(item, dict) else item.state_dict() for item in (first, second))
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def plain_gradients(model, x, y, generator):
    return torch.autograd.grad(cross_entropy(model(x), y), list(model.parameters()))


# Learning, and learning the same again


@pytest.mark.parametrize(
    "recipe", [Recipe(epochs=8, batch_size=25), Recipe(epochs=8, lr=1e-3, optimizer="adam")]
)
def test_a_victim_learns(recipe, images, held_out):
    victim = train(logistic(images), images, recipe)
    assert accuracy(victim, held_out) > 0.55


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32)])
@pytest.mark.parametrize("name", MODELS)
def test_every_model_trains_on_both_image_shapes(name, shape):
    x = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
    data = Data(x, torch.tensor([0, 1]), ("ant", "bee"))
    victim = train(build(name, shape, 2), data, Recipe(epochs=1, batch_size=2))
    assert torch.isfinite(victim(x)).all()


def test_the_same_seed_gives_identical_weights_and_another_seed_does_not(images):
    first, again, other = (train(small_mlp(images), images, SHORT, seed=seed) for seed in (1, 1, 2))
    assert same(first, again)
    assert not same(first, other)


def test_the_seed_shuffles_the_batches_too(images):
    model = small_mlp(images)
    victims = [train(model, images, SHORT, scenario="finetune", seed=seed) for seed in (1, 2)]
    assert not same(*victims)


def test_the_random_state_of_the_caller_is_not_touched(images):
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # noqa: NPY002
    train(small_mlp(images), images, SHORT, seed=5)
    assert random.getstate() == states[0]
    assert np.random.get_state()[1].tolist() == states[1]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), states[2])


def test_the_random_state_of_the_caller_does_not_matter(images):
    victims = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        victims.append(train(small_mlp(images), images, SHORT))
    assert same(*victims)


@pytest.mark.parametrize("scenario", ["scratch", "finetune", "transfer"])
def test_the_given_model_is_untouched(scenario, images):
    model = small_mlp(images).train()
    before = state(model)
    victim = train(model, images, SHORT, scenario=scenario)
    assert same(model, before)
    assert not same(victim, before)
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_victim_comes_back_in_evaluation_mode(images):
    victim = train(build("small_cnn", images.shape, N_CLASSES), images[:50], SHORT)
    assert not any(layer.training for layer in victim.modules())


@pytest.mark.parametrize("channels", [1, 3])
def test_images_in_another_order_in_memory_give_the_same_weights(channels, images):
    planes = images.x.expand(-1, channels, -1, -1)
    pixels = torch.stack([*planes.unbind(1)], dim=-1)  # (N, H, W, C), as image files are read
    model = build("small_cnn", (channels, 28, 28), N_CLASSES, norm="batch")
    victims = [
        train(model, Data(x, images.y, images.classes)[:100], SHORT)
        for x in (planes, pixels.permute(0, 3, 1, 2))
    ]
    assert same(*victims)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_gradients_in_another_order_in_memory_are_followed_as_they_are(optimizer, images):
    def columns(model, x, y, generator):
        gradients = plain_gradients(model, x, y, generator)
        return [g.t().contiguous().t() if g.ndim == 2 else g for g in gradients]

    model, recipe = small_mlp(images), replace(SHORT, optimizer=optimizer)
    shaped = train(model, images, recipe, defense=Defense("columns", gradients=columns))
    assert same(shaped, train(model, images, recipe))


# Scenarios


def test_from_scratch_the_given_weights_do_not_matter(images):
    victims = [train(small_mlp(images, seed), images, SHORT) for seed in (0, 1)]
    assert same(*victims)


def test_from_scratch_running_statistics_start_anew(images):
    models = [build("small_cnn", images.shape, N_CLASSES, norm="batch") for _ in range(2)]
    models[1].train()(images.x[:50])  # moves the running statistics
    victims = [train(model, images[:50], Recipe(epochs=1)) for model in models]
    assert same(*victims)


class Attention(nn.Module):
    """Features from torch's own attention over the rows of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(28, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        rows = x[:, 0]
        return self.attention(rows, rows, rows, need_weights=False)[0].mean(1)


class Scaled(nn.Module):
    """Features with a weight of their own, that only `reset_parameters` could draw."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(784))

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) * self.scale


class Drawn(Scaled):
    def reset_parameters(self) -> None:
        nn.init.normal_(self.scale)


@pytest.mark.parametrize(("features", "size"), [(Attention, 28), (Drawn, 784)])
def test_from_scratch_layers_of_other_kinds_are_drawn_from_the_seed(features, size, images):
    model = Classifier(features(), size, N_CLASSES)
    trained = train(model, images, SHORT, scenario="finetune", seed=7)
    first, again, other = (
        train(m, images, SHORT, seed=seed) for m, seed in ((model, 0), (trained, 0), (model, 1))
    )
    assert same(first, again)
    assert not any(
        torch.equal(a, b)
        for a, b in zip(first.features.parameters(), other.features.parameters(), strict=True)
    )


@pytest.mark.parametrize(
    ("features", "left"),
    [
        (Scaled(), "features.scale"),
        (
            nn.Sequential(nn.Flatten(), parametrizations.weight_norm(nn.Linear(784, 784))),
            "features.1.parametrizations.weight.original0, "
            "features.1.parametrizations.weight.original1",
        ),
    ],
)
def test_weights_that_nothing_draws_are_named(features, left, images):
    model = Classifier(features, 784, N_CLASSES)
    with pytest.raises(TrainingError, match=f"^Nothing draws {left} anew.*scenario='finetune'"):
        train(model, images, SHORT)
    assert torch.isfinite(model(images.x)).all()
    assert not same(train(model, images, SHORT, scenario="finetune"), model)


def test_a_head_that_nothing_draws_is_refused_in_transfer(images):
    model = Classifier(nn.Flatten(), 784, N_CLASSES)
    parametrizations.weight_norm(model.head)
    with pytest.raises(TrainingError, match=r"^Nothing draws parametrizations.weight\.original0"):
        train(model, images, SHORT, scenario="transfer")


def test_finetuning_starts_from_the_given_weights(images):
    model = small_mlp(images)
    still = train(model, images, replace(SHORT, lr=1e-12), scenario="finetune")
    for name, value in still.state_dict().items():
        torch.testing.assert_close(value, model.state_dict()[name], atol=1e-8, rtol=0)


@pytest.mark.parametrize("name", ["mlp", "small_cnn"])
def test_finetuning_moves_every_layer(name, images):
    model = build(name, images.shape, N_CLASSES)
    victim = train(model, images[:100], SHORT, scenario="finetune")
    moved = {
        name for name, p in victim.named_parameters() if not torch.equal(p, state(model)[name])
    }
    assert moved == {name for name, _ in model.named_parameters()}


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_transfer_leaves_the_features_bit_for_bit_alone_and_moves_the_head(norm, images):
    model = build("small_cnn", images.shape, N_CLASSES, norm=norm)
    model.train()(images.x[:50])  # moves the running statistics
    victim = train(model, images[:100], SHORT, scenario="transfer")
    assert same(victim.features, model.features)
    assert not torch.equal(victim.head.weight, model.head.weight)


@pytest.mark.parametrize("switch", [lambda model, x: predict(model, x), lambda m, x: m.train()])
def test_a_defense_that_switches_modes_does_not_thaw_the_features(switch, images):
    def batch(model, x, y, generator):
        switch(model, x)
        return x, y

    model = build("small_cnn", images.shape, N_CLASSES, norm="batch")
    defense = Defense("looks", batch=batch)
    victim = train(model, images[:50], SHORT, scenario="transfer", defense=defense)
    assert same(victim.features, model.features)


def test_a_gradient_defense_that_predicts_does_not_thaw_the_features(images):
    def gradients(model, x, y, generator):
        predict(model, x)
        loss = cross_entropy(model(x), y)
        return torch.autograd.grad(loss, list(model.head.parameters()))

    model = build("small_cnn", images.shape, N_CLASSES, norm="batch")
    defense = Defense("looks", gradients=gradients)
    victim = train(model, images[:50], SHORT, scenario="transfer", defense=defense)
    assert same(victim.features, model.features)


def test_transfer_draws_the_head_from_the_seed(images):
    first, second = small_mlp(images), small_mlp(images)
    nn.init.zeros_(second.head.weight)
    assert same(*(train(model, images, SHORT, scenario="transfer") for model in (first, second)))
    heads = [train(first, images, SHORT, scenario="transfer", seed=seed).head for seed in (0, 1)]
    assert not same(*heads)


def test_transfer_refits_the_head(images, held_out):
    trained = train(small_mlp(images), images, Recipe(epochs=10, batch_size=25))
    again = train(trained, images, Recipe(epochs=10, batch_size=25), scenario="transfer")
    assert accuracy(again, held_out) > 0.5


def test_a_transferred_victim_can_be_finetuned(images):
    victim = train(small_mlp(images), images, SHORT, scenario="transfer")
    finetuned = train(victim, images, SHORT, scenario="finetune")
    assert not same(finetuned.features, victim.features)


def test_an_unknown_scenario_is_refused(images):
    with pytest.raises(ValueError, match="'frozen': use one of scratch, finetune, transfer"):
        train(small_mlp(images), images, SHORT, scenario="frozen")


def test_a_model_with_other_classes_than_the_data_is_refused(images):
    model = build("mlp", images.shape, 2, width=4)
    with pytest.raises(TrainingError, match="The model has 2 classes, the data 10"):
        train(model, images, SHORT)


@pytest.mark.parametrize("poisson", [True, False])
def test_no_image_to_train_on_is_refused(poisson, images):
    with pytest.raises(TrainingError, match="no image to train on"):
        train(logistic(images), images[:0], SHORT, defense=Defense("any", poisson=poisson))


# Models of one's own


class Unused(nn.Flatten):
    """Features with a layer that they do not use."""

    def __init__(self) -> None:
        super().__init__()
        self.extra = nn.Linear(3, 3)


@pytest.mark.parametrize("defense", [Defense("plain"), Defense("own", None, None, plain_gradients)])
def test_a_layer_that_the_model_does_not_use_is_named(defense, images):
    model = Classifier(Unused(), 784, N_CLASSES)
    message = r"does not use features\.extra\.weight, features\.extra\.bias, so .* remove the layer"
    with pytest.raises(TrainingError, match=message):
        train(model, images, SHORT, defense=defense)


def test_batchnorm_with_a_single_image_is_explained(images):
    features = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(784))
    model = Classifier(features, 784, N_CLASSES)
    with pytest.raises(TrainingError, match=r"A batch of one image: BatchNorm .* batch size"):
        train(model, images[:51], SHORT)
    train(model, images[:52], SHORT)
    train(model, images[:51], SHORT, scenario="transfer")


def test_errors_of_a_defense_stay_as_they_are(images):
    def fails(model, x, y, generator):
        raise RuntimeError("out of ideas")

    with pytest.raises(RuntimeError, match=r"^out of ideas$"):
        train(logistic(images), images, SHORT, defense=Defense("fails", batch=fails))


def test_a_caller_without_gradients_gets_the_same_victim(images):
    expected = train(small_mlp(images), images, SHORT)
    for mode in (torch.no_grad(), torch.inference_mode()):
        with mode:
            assert same(train(small_mlp(images), images, SHORT), expected)
            own = Data(images.x.clone(), images.y.clone(), images.classes)
            assert same(train(small_mlp(images), own, SHORT), expected)


def test_a_seed_may_be_a_number_of_numpy(images):
    for kind in (np.int64, np.uint8):
        assert same(
            train(small_mlp(images), images, SHORT, seed=kind(3)),
            train(small_mlp(images), images, SHORT, seed=3),
        )
    with pytest.raises(TypeError, match="float"):
        train(small_mlp(images), images, SHORT, seed=3.0)


# Defenses that filter the data


def drop_class_zero(data, fit):
    return data.y != 0


def test_keep_drops_rows(images):
    kept = train(small_mlp(images), images, SHORT, defense=Defense("drop", keep=drop_class_zero))
    assert same(kept, train(small_mlp(images), images[images.y != 0], SHORT))


def test_keep_can_fit_a_model_the_way_the_victim_is_trained(images):
    looked_with = []

    def keep(data, fit):
        looked_with.append(fit(data))
        return torch.ones(len(data), dtype=torch.bool)

    model = small_mlp(images)
    defense = Defense("look", keep=keep)
    victim = train(model, images, SHORT, scenario="transfer", defense=defense, seed=3)
    assert same(looked_with[0], train(model, images, SHORT, scenario="transfer", seed=3))
    assert same(victim, looked_with[0])


def test_a_filter_that_draws_random_numbers_repeats_and_leaves_the_caller_alone(images):
    def keep(data, fit):
        return torch.rand(len(data)) < 0.5

    before = torch.get_rng_state()
    defense = Defense("half", keep=keep)
    first, again = (train(logistic(images), images, SHORT, defense=defense) for _ in range(2))
    assert same(first, again)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.ones(300), r"boolean mask of shape \(300,\), got torch.float32 of shape \(300,\)"),
        (torch.arange(300), "got torch.int64"),
        (torch.ones(299, dtype=torch.bool), r"got torch.bool of shape \(299,\)"),
        (torch.ones(300, 1, dtype=torch.bool), r"got torch.bool of shape \(300, 1\)"),
        (torch.zeros(300, dtype=torch.bool), "Defense 'bad' keeps no image"),
    ],
)
def test_a_wrong_mask_is_refused(mask, message, images):
    defense = Defense("bad", keep=lambda data, fit: mask)
    with pytest.raises(TrainingError, match=message):
        train(logistic(images), images, SHORT, defense=defense)


# Defenses that rewrite the batch


def test_batch_sees_every_image_once_an_epoch_with_its_label(images):
    seen = []

    def record(model, x, y, generator):
        seen.extend((image.sum().item(), label.item()) for image, label in zip(x, y, strict=True))
        return x, y

    victim = train(logistic(images), images, SHORT, defense=Defense("record", batch=record))
    expected = [
        (image.sum().item(), label.item()) for image, label in zip(images.x, images.y, strict=True)
    ]
    for epoch in range(SHORT.epochs):
        assert sorted(seen[300 * epoch : 300 * (epoch + 1)]) == sorted(expected)
    assert seen[:300] != seen[300:]
    assert same(victim, train(logistic(images), images, SHORT))


def test_soft_labels_are_learned_as_probabilities(images):
    def black_and_soft(model, x, y, generator):
        soft = torch.full((len(y), N_CLASSES), 0.01)
        soft[:, 3] = 0.91
        return x * 0, soft

    recipe = Recipe(epochs=10, batch_size=30, lr=0.5)
    victim = train(logistic(images), images, recipe, defense=Defense("soft", batch=black_and_soft))
    assert victim.head.bias.softmax(0)[3].item() == pytest.approx(0.91, abs=0.02)


def test_soft_labels_without_doubt_are_hard_labels(images):
    defense = Defense("soft", batch=lambda model, x, y, g: (x, one_hot(y, N_CLASSES).float()))
    soft = train(logistic(images), images, SHORT, defense=defense)
    hard = train(logistic(images), images, SHORT)
    torch.testing.assert_close(soft.head.weight, hard.head.weight)


def test_rewritten_images_are_learned_from(images):
    defense = Defense("black", batch=lambda model, x, y, generator: (torch.zeros_like(x), y))
    victim = train(logistic(images), images, replace(SHORT, weight_decay=0), defense=defense)
    start = train(logistic(images), images, replace(SHORT, lr=1e-12, weight_decay=0))
    torch.testing.assert_close(victim.head.weight, start.head.weight)


def test_the_generator_of_a_defense_comes_from_the_seed(images):
    def noise(model, x, y, generator):
        return x + torch.rand(x.shape, generator=generator), y

    defense = Defense("noise", batch=noise)
    first, again, other = (
        train(logistic(images), images, SHORT, defense=defense, seed=seed) for seed in (0, 0, 1)
    )
    assert same(first, again)
    assert not same(first, other)


# Defenses that shape the gradient


def test_the_plain_gradient_gives_plain_training(images):
    shaped = train(
        small_mlp(images), images, SHORT, defense=Defense("id", None, None, plain_gradients)
    )
    assert same(shaped, train(small_mlp(images), images, SHORT))


def test_gradients_see_the_rewritten_batch(images):
    sums = []

    def record(model, x, y, generator):
        sums.append(x.sum().item())
        return plain_gradients(model, x, y, generator)

    defense = Defense("both", batch=lambda model, x, y, g: (x * 0, y), gradients=record)
    train(logistic(images), images, SHORT, defense=defense)
    assert sums == [0.0] * 12


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_zero_gradient_leaves_the_weights_alone(optimizer, images):
    model = small_mlp(images)
    defense = Defense("zero", gradients=lambda m, x, y, g: [p * 0 for p in m.parameters()])
    recipe = replace(SHORT, weight_decay=0, optimizer=optimizer)
    assert same(train(model, images, recipe, scenario="finetune", defense=defense), model)


def test_weight_decay_shrinks_all_weights_alike_when_the_gradient_is_zero(images):
    model = small_mlp(images)
    defense = Defense("zero", gradients=lambda m, x, y, g: [p * 0 for p in m.parameters()])
    recipe = replace(SHORT, weight_decay=0.1)
    victim = train(model, images, recipe, scenario="finetune", defense=defense)
    vector = nn.utils.parameters_to_vector
    shrunk = vector(victim.parameters()) / vector(model.parameters())
    assert shrunk.max() < 1
    torch.testing.assert_close(shrunk, shrunk[0].expand_as(shrunk))


def test_a_defense_made_for_another_batch_size_is_refused(images):
    def gradients(model, x, y, generator):
        return [part * (len(x) / 50) for part in plain_gradients(model, x, y, generator)]

    defense = Defense("sums", gradients=gradients, batch_size=50)
    assert same(
        train(small_mlp(images), images, SHORT, defense=defense),
        train(small_mlp(images), images, SHORT),
    )
    with pytest.raises(TrainingError, match=r"'sums' is made for batches of 50 .* recipe has 20"):
        train(small_mlp(images), images, replace(SHORT, batch_size=20), defense=defense)


def test_in_transfer_only_the_head_has_gradients_to_give(images):
    defense = Defense("head", gradients=lambda m, x, y, g: [p * 0 for p in m.head.parameters()])
    victim = train(small_mlp(images), images, SHORT, scenario="transfer", defense=defense)
    assert same(victim.features, small_mlp(images).features)


def test_a_defense_must_give_one_gradient_for_each_parameter(images):
    defense = Defense("short", gradients=lambda m, x, y, g: plain_gradients(m, x, y, g)[:-1])
    with pytest.raises(ValueError, match="shorter"):
        train(small_mlp(images), images, SHORT, defense=defense)


# Poisson sampling


def sizes_seen(data: Data, recipe: Recipe) -> list[int]:
    sizes = []

    def record(model, x, y, generator):
        sizes.append(len(x))
        return [torch.zeros_like(p) for p in model.parameters()]

    train(logistic(data), data, recipe, defense=Defense("dp", gradients=record, poisson=True))
    return sizes


def test_poisson_batches_vary_around_the_batch_size(images):
    sizes = torch.tensor(sizes_seen(images, Recipe(epochs=10, batch_size=10))).float()
    assert len(sizes) == 300
    assert sizes.mean().item() == pytest.approx(10, abs=0.7)
    assert sizes.var().item() == pytest.approx(10 * (1 - 10 / 300), rel=0.3)


def test_poisson_batches_may_be_empty_and_reach_the_gradient_defense(images):
    sizes = sizes_seen(images[:40], Recipe(epochs=1, batch_size=1))
    assert len(sizes) == 40
    assert 0 in sizes


def test_without_a_gradient_defense_empty_batches_are_survived(images):
    sizes = []

    def record(model, x, y, generator):
        sizes.append(len(x))
        return x, y

    defense = Defense("sampled", batch=record, poisson=True)
    victim = train(logistic(images), images[:40], Recipe(epochs=1, batch_size=1), defense=defense)
    assert 0 not in sizes
    assert len(sizes) < 40
    assert torch.isfinite(victim.head.weight).all()


def test_poisson_sampling_learns_and_repeats(images, held_out):
    recipe = Recipe(epochs=8, batch_size=25)
    defense = Defense("sampled", poisson=True)
    first, again = (train(logistic(images), images, recipe, defense=defense) for _ in range(2))
    assert same(first, again)
    assert accuracy(first, held_out) > 0.55


def test_a_shuffled_pass_takes_every_row_once():
    batches = list(batch_rows(23, 5, False, torch.Generator().manual_seed(0)))
    assert [len(batch) for batch in batches] == [5, 5, 5, 5, 3]
    assert sorted(torch.cat(batches).tolist()) == list(range(23))


# Recipes


@pytest.mark.parametrize(
    "bad",
    [
        {"epochs": 0},
        {"batch_size": 0},
        {"lr": 0},
        {"lr": -0.1},
        {"weight_decay": -1e-4},
        {"epochs": 2.5},
        {"epochs": None},
        {"batch_size": 50.0},
        {"lr": float("nan")},
        {"lr": float("inf")},
        {"weight_decay": float("nan")},
    ],
)
def test_a_recipe_that_cannot_train_is_refused(bad):
    with pytest.raises(ValueError, match="must be at least 1 and whole numbers, lr pos"):
        Recipe(**bad)


def test_an_unknown_optimizer_is_refused():
    with pytest.raises(ValueError, match="'adamw': use 'sgd' or 'adam'"):
        Recipe(optimizer="adamw")


def learning_rates(recipe: Recipe, batches: int) -> list[float]:
    optimizer, schedule = make_optimizer([nn.Parameter(torch.zeros(1))], recipe, batches)
    rates = []
    for _ in range(recipe.epochs * batches):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


def test_the_sgd_learning_rate_rises_once_to_its_maximum_and_falls_once():
    rates = learning_rates(Recipe(epochs=5, lr=0.1), batches=8)
    top = rates.index(max(rates))
    assert rates[top] == pytest.approx(0.1, rel=0.01)
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert rates[-1] < 0.01 * rates[top]


def test_the_adam_learning_rate_is_constant():
    assert set(learning_rates(Recipe(epochs=5, lr=0.1, optimizer="adam"), batches=8)) == {0.1}


# Stopping and watching


def test_a_diverging_learning_rate_stops_in_its_epoch(images):
    with pytest.raises(TrainingError, match=r"diverged in epoch 1 of 3: .* \(now 1e\+30\)"):
        train(logistic(images), images, Recipe(epochs=3, lr=1e30))


def test_divergence_names_the_epoch_where_it_happens(images):
    steps = []

    def breaks_at_step_9(model, x, y, generator):
        steps.append(len(x))
        factor = float("nan") if len(steps) == 9 else 1.0
        return [factor * g for g in plain_gradients(model, x, y, generator)]

    with pytest.raises(TrainingError, match="diverged in epoch 2 of 3"):
        recipe = Recipe(epochs=3, batch_size=50)  # six steps an epoch
        train(logistic(images), images, recipe, defense=Defense("nan", gradients=breaks_at_step_9))


def test_after_epoch_sees_each_epoch_in_evaluation_mode(images):
    calls = []

    def watch(model, epoch):
        calls.append((epoch, any(layer.training for layer in model.modules())))

    model = build("small_cnn", images.shape, N_CLASSES, norm="batch")
    train(model, images[:50], Recipe(epochs=3), after_epoch=watch)
    assert calls == [(1, False), (2, False), (3, False)]


@pytest.mark.parametrize("scenario", ["scratch", "transfer"])
def test_watching_does_not_change_the_weights(scenario, images):
    model = build("small_cnn", images.shape, N_CLASSES, norm="batch")

    def watch(victim, epoch):
        accuracy(victim, images)
        torch.rand(3)

    watched, alone = (
        train(model, images[:50], SHORT, scenario=scenario, after_epoch=after)
        for after in (watch, None)
    )
    assert same(watched, alone)


@pytest.mark.parametrize("progress", [True, False])
def test_the_progress_bar_is_shown_when_asked_for(progress, images, capfd):
    train(logistic(images), images, SHORT, progress=progress)
    assert ("epochs" in capfd.readouterr().err) is progress


# Half precision


def test_half_precision_changes_the_steps_a_little_and_no_type(images):
    model = build("small_cnn", images.shape, N_CLASSES, norm="batch")
    whole, half = (train(model, images, replace(SHORT, half=half)) for half in (False, True))
    assert all(value.dtype != torch.bfloat16 for value in half.state_dict().values())
    first, second = (torch.cat([p.flatten() for p in m.parameters()]) for m in (whole, half))
    assert not torch.equal(first, second)
    torch.testing.assert_close(first, second, atol=0.05, rtol=0.05)
    assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_a_defense_computes_in_half_precision_unless_it_is_float16(kind, images, monkeypatch):
    monkeypatch.setattr(training, "half_type", lambda device: kind)
    seen = []

    class Noting(nn.Flatten):
        def forward(self, x):
            seen.append(torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else 0)
            return super().forward(x)

    def batch(model, x, y, generator):
        model(x)
        return x, y

    model = Classifier(Noting(), 784, N_CLASSES)
    train(model, images, Recipe(1, len(images), half=True), defense=Defense("looks", batch=batch))
    assert seen == [kind if kind == torch.bfloat16 else 0, kind]


def test_slopes_too_small_for_float16_are_not_lost(images, monkeypatch):
    """The right class leads by 17: the slope of its logit is 4e-8, less than float16 can hold."""
    monkeypatch.setattr(training, "half_type", lambda device: torch.float16)
    model, labels = logistic(images), torch.zeros(1, dtype=torch.long)
    weights = list(model.parameters())
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.copy_(17.0 * torch.eye(N_CLASSES)[0])
    expected = torch.autograd.grad(cross_entropy(model(images.x[:1]), labels), weights)
    with training.half_precision(images.x.device):
        found = training.loss_gradient(model, weights, images.x[:1], labels)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a[1:], b[1:], rtol=0.02, atol=1e-10)
