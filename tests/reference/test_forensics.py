"""Lesson 18: products and leave-one-out against slow references; what a drop keeps; bad input."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_utils.data import Data
from course_utils.defenses import per_example
from course_utils.defenses.forensics import (
    Checkpoint,
    Incident,
    auc_within,
    contrast,
    cosine_tracin,
    first_of_class,
    gradient_products,
    incident_label,
    incident_of,
    kept_after,
    learning_rates,
    leave_one_out,
    linear_products,
    naive_products,
    neighbour_scores,
    recall_in_first,
    ridge_influence,
    ridge_products,
    tracin,
    with_checkpoints,
)
from course_utils.models import build, predict
from course_utils.training import Recipe, train

SEEDS = st.integers(0, 10**6)
NETWORKS = ("mlp", "lenet")
CLASSES = ("a", "b", "c")


def draw(n: int, seed: int) -> Data:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(n, 1, 8, 8, generator=generator)
    return Data(x, torch.randint(3, (n,), generator=generator), CLASSES)


def checkpoint(network: str, seed: int) -> Checkpoint:
    return Checkpoint(build(network, (1, 8, 8), 3, seed), 0.5)


@pytest.mark.parametrize("network", NETWORKS)
@given(SEEDS)
@settings(max_examples=5, deadline=None)
def test_products_are_those_of_autograd_in_double_precision(network, seed):
    model = build(network, (1, 8, 8), 3, seed).double()
    data = draw(9, seed)
    images, labels = data.x.double(), data.y
    incident = Incident(images[0], int(labels[0]), (int(labels[0]) + 1) % 3)
    parameters = list(model.parameters())

    def gradient(row: int) -> torch.Tensor:
        loss = torch.nn.functional.cross_entropy(model(images[row][None]), labels[row][None])
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)])

    gradients = torch.stack([gradient(row) for row in range(len(images))])
    lengths = gradients.norm(dim=1) * gradients[0].norm()
    for function in (gradient_products, naive_products):
        found = function(model, images, labels, incident)
        assert ((found - gradients @ gradients[0]).abs() <= 1e-8 * lengths).all()


@pytest.mark.parametrize("network", NETWORKS)
def test_a_product_says_how_a_step_on_an_image_changes_the_loss_of_the_incident(network):
    """The claim behind TracIn, at a step so small that the first order is all."""
    model, data = build(network, (1, 8, 8), 3, seed=1).double(), draw(6, 1)
    images = data.x.double()
    incident = Incident(images[0], 1, 0)
    label = torch.tensor([1])

    def loss() -> float:
        return torch.nn.functional.cross_entropy(model(images[:1]), label).item()

    products, before, step = gradient_products(model, images, data.y, incident), loss(), 1e-6
    gradients = per_example.per_example_gradients(model, images, data.y)
    for row in range(len(images)):
        with torch.no_grad():
            for p, g in zip(model.parameters(), gradients, strict=True):
                p -= step * g[row]
        fell = (before - loss()) / step
        with torch.no_grad():
            for p, g in zip(model.parameters(), gradients, strict=True):
                p += step * g[row]
        assert fell == pytest.approx(products[row].item(), abs=1e-4 * products.abs().max().item())


@pytest.mark.parametrize("network", NETWORKS)
def test_the_cosine_form_does_not_see_lengths_and_is_bounded(network):
    data = draw(30, 3)
    kept = [checkpoint(network, seed) for seed in range(2)]
    predicted = predict(kept[0].model, data.x[:1]).item()
    incident = Incident(data.x[0], predicted, (predicted + 1) % 3)
    cosines = cosine_tracin(kept, data, incident)
    assert cosines.abs().max() <= sum(lr for _, lr in kept) + 1e-5
    same = Data(data.x, torch.where(torch.arange(30) == 0, predicted, data.y), CLASSES)
    own = cosine_tracin(kept, same, incident)
    assert own[0] == pytest.approx(1.0, abs=1e-4)
    assert own.argmax() == 0
    weighted = [Checkpoint(model, 2 * lr) for model, lr in kept]
    assert torch.allclose(tracin(weighted, data, incident), 2 * tracin(kept, data, incident))


def test_a_frozen_model_has_the_products_of_its_head_alone():
    data = draw(20, 4)
    head = train(
        build("mlp", (1, 8, 8), 3), data, Recipe(epochs=1, batch_size=10), scenario="transfer"
    )
    incident = Incident(data.x[0], 1, 0)
    found = gradient_products(head, data.x, data.y, incident)
    assert torch.allclose(found, naive_products(head, data.x, data.y, incident), atol=1e-5)


@given(SEEDS, st.floats(0.01, 100))
@settings(max_examples=20, deadline=None)
def test_leave_one_out_is_what_fitting_again_gives(seed, strength):
    generator = torch.Generator().manual_seed(seed)
    sizes = ((8, 5), (8, 3), (5,))
    features, targets, query = (
        torch.randn(s, generator=generator, dtype=torch.float64) for s in sizes
    )
    identity = torch.eye(5, dtype=torch.float64)

    def answer(rows: torch.Tensor) -> torch.Tensor:
        x, t = features[rows], targets[rows]
        return query @ torch.linalg.solve(x.T @ x + strength * identity, x.T @ t)

    everyone = torch.arange(8)
    found = leave_one_out(features, targets, query, strength)
    for row in range(8):
        expected = answer(everyone[everyone != row]) - answer(everyone)
        assert torch.allclose(found[row], expected, rtol=1e-6, atol=1e-9)


def test_the_influence_function_is_leave_one_out_where_leverages_vanish():
    generator = torch.Generator().manual_seed(0)
    features, targets = (torch.randn(50, k, generator=generator).double() for k in (4, 2))
    query = torch.randn(4, generator=generator).double()
    far, near = 1e6, 1e-2
    exact = leave_one_out(features, targets, query, far)
    assert torch.allclose(ridge_influence(features, targets, query, far), exact, rtol=1e-3)
    exact = leave_one_out(features, targets, query, near)
    smaller = ridge_influence(features, targets, query, near).abs() < exact.abs()
    assert smaller.all(), "it forgets that the others make room"


def test_rankings_judge_only_suspects_and_a_drop_keeps_the_rest():
    data, scores = draw(60, 5), torch.rand(60, generator=torch.Generator().manual_seed(5))
    suspects = data.y == 1
    bad = torch.zeros(60, dtype=torch.bool)
    bad[suspects.nonzero()[:4, 0]] = True
    perfect = bad.float() + (~suspects).float() * 9  # other classes score highest of all
    assert auc_within(perfect, data.y, 1, bad) == 1
    assert recall_in_first(perfect, data.y, 1, bad, 4) == 1
    assert set(first_of_class(perfect, data.y, 1, 4).tolist()) == set(bad.nonzero()[:, 0].tolist())
    kept = kept_after(scores, data, 1, 7)
    assert (~kept).sum() == 7
    assert (data.y[~kept] == 1).all()
    assert scores[~kept].min() >= scores[kept & suspects].max()
    assert kept_after(scores, data, 1, 0).all()


def test_an_image_is_its_own_nearest_neighbour():
    data, model = draw(20, 6), build("mlp", (1, 8, 8), 3)
    scores = neighbour_scores(model, data, Incident(data.x[7], 0, 1))
    assert scores.argmax() == 7


def test_checkpoints_follow_the_training_and_its_schedule():
    data, recipe = draw(40, 7), Recipe(epochs=20, batch_size=10, lr=0.1)
    model = build("mlp", (1, 8, 8), 3)
    final, kept = with_checkpoints(
        lambda look: train(model, data, recipe, after_epoch=look), recipe, len(data)
    )
    assert len(kept) == 8
    pairs = zip(final.parameters(), kept[-1].model.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not torch.equal(final.head.weight, kept[0].model.head.weight)
    rates = learning_rates(recipe, len(data))
    assert len(rates) == 20
    assert max(rates) <= recipe.lr + 1e-9
    assert rates[-1] < rates[5]
    assert learning_rates(Recipe(epochs=3, optimizer="adam", lr=0.01), 40) == [0.01] * 3


def test_bad_input_is_named():
    data, model = draw(30, 8), build("mlp", (1, 8, 8), 3)
    predicted = predict(model, data.x[:1]).item()
    incident = incident_of(model, data.x[0], (predicted + 1) % 3)
    with pytest.raises(ValueError, match="which is right"):
        incident_of(model, data.x[0], predicted)
    for rank in (tracin, cosine_tracin):
        with pytest.raises(ValueError, match="No checkpoint"):
            rank([], data, incident)
        other = Checkpoint(build("mlp", (1, 8, 8), 5), 0.1)
        with pytest.raises(ValueError, match="5 classes"):
            rank([other], data, incident)
    size = int((data.y == 1).sum())
    for n in (size, size + 1, -1):
        with pytest.raises(ValueError, match="cannot be dropped"):
            kept_after(torch.zeros(30), data, 1, n)
    with pytest.raises(ValueError, match="naive_products"):
        gradient_products(build("small_cnn", (1, 8, 8), 3), data.x, data.y, incident)
    with pytest.raises(ValueError, match="strength"):
        ridge_influence(torch.ones(3, 2), torch.ones(3, 1), torch.ones(2), 0.0)
    with pytest.raises(ValueError, match="targets of shape"):
        ridge_influence(torch.ones(3, 2), torch.ones(4, 1), torch.ones(2), 1.0)


def test_a_contrast_forgets_what_both_pictures_share():
    data, kept = draw(30, 9), [checkpoint("mlp", seed) for seed in range(2)]
    image = data.x[0]
    same = Incident(image, 1, 0, image)
    assert contrast(kept, data, same).abs().max() < 1e-6
    other = same._replace(before=data.x[1])
    expected = cosine_tracin(kept, data, same) - cosine_tracin(
        kept, data, same._replace(image=data.x[1])
    )
    assert torch.equal(contrast(kept, data, other), expected)
    assert torch.allclose(
        contrast(kept, data, other),
        -contrast(kept, data, Incident(data.x[1], 1, 0, image)),
        atol=1e-6,
    )
    with pytest.raises(ValueError, match="no picture before"):
        contrast(kept, data, Incident(image, 1, 0))


def test_worked_values():
    a, b = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0]])
    one_a, one_b = torch.tensor([[4.0, 5.0]]), torch.tensor([[6.0]])
    assert linear_products(a, b, one_a, one_b, bias=False).tolist() == [14 * 18]
    assert linear_products(a, b, one_a, one_b, bias=True).tolist() == [14 * 18 + 18]
    image, label = incident_label(Incident(torch.zeros(1, 2, 2), 2, 0))
    assert image.shape == (1, 1, 2, 2)
    assert label.tolist() == [2]
    features, targets = torch.tensor([[1.0, 2.0], [0.0, 3.0]]), torch.tensor([[1.0, 0], [0, 1]])
    assert ridge_products(features, targets, torch.tensor([1.0, 1.0]), 1).tolist() == [0, 3]


def test_ridge_products_are_the_first_step_of_training_from_zero():
    """What one step on one image, from weights of zero, makes a linear model answer."""
    generator = torch.Generator().manual_seed(1)
    features, query = torch.randn(6, 4, generator=generator), torch.randn(4, generator=generator)
    targets = torch.nn.functional.one_hot(torch.arange(6) % 3, 3).float()
    found = ridge_products(features, targets, query, 2)
    for row in range(6):
        weights = torch.zeros(4, 3, requires_grad=True)
        loss = (features[row] @ weights - targets[row]).square().sum() / 2
        (slope,) = torch.autograd.grad(loss, weights)
        assert torch.isclose((query @ -slope)[2], found[row], atol=1e-6)
