"""Attacks on networks that a reader brings: attention, frozen features; and many images at once."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, scaled_dot_product_attention

from course_utils.attacks.gradient_matching import (
    alignment_loss,
    gradient_matching,
    target_gradient,
)
from course_utils.attacks.metapoison import Unrolling, metapoison, unrolled_step, weights_of
from course_utils.data import Data
from course_utils.defenses.sanitizers import SCORES
from course_utils.defenses.small_loss import image_losses
from course_utils.models import Classifier, build, predict
from course_utils.threat import Targeted, ThreatModel
from course_utils.training import Recipe, train

THREAT = ThreatModel(5, epsilon=32 / 255, clean_label=True)


class Attention(nn.Module):
    """The rows of an image look at each other."""

    def __init__(self) -> None:
        super().__init__()
        self.ask = nn.Linear(28, 8)

    def forward(self, x: Tensor) -> Tensor:
        rows = self.ask(x)
        return scaled_dot_product_attention(rows, rows, rows).flatten(1)


@pytest.fixture
def attentive(images) -> Classifier:
    torch.manual_seed(0)
    return Classifier(Attention(), 8 * 28, 10)


def test_the_alignment_loss_goes_through_attention(images, attentive):
    x = images.x[:4].clone().requires_grad_()
    wanted = target_gradient(attentive, images.x[9:10], torch.tensor([1]))
    alignment_loss(attentive, x, images.y[:4], wanted).backward()
    assert x.grad.isfinite().all() and x.grad.abs().max() > 0


def test_an_unrolled_step_goes_through_attention(images, attentive):
    x = images.x[:4].clone().requires_grad_()
    moved = unrolled_step(attentive, weights_of(attentive), x, images.y[:4], 0.1)
    sum(part.square().sum() for part in moved.values()).backward()
    assert x.grad.isfinite().all() and x.grad.abs().max() > 0


@pytest.fixture(scope="module")
def frozen(images) -> Classifier:
    """A surrogate of which only the head was trained."""
    recipe = Recipe(epochs=3, batch_size=50, lr=0.1)
    extractor = train(build("mlp", images.shape, 10, width=32), images, recipe)
    return train(extractor, images, recipe, scenario="transfer", seed=1)


@pytest.mark.parametrize("attack", [gradient_matching, metapoison])
def test_surrogates_with_frozen_features_can_be_matched(images, frozen, attack):
    seen_as = predict(frozen, images.x[:1]).item()
    goal = Targeted(images.x[0], seen_as, (seen_as + 1) % 10)
    options = {"how": Unrolling(steps=1)} if attack is metapoison else {}
    poison = attack([frozen], images, goal, THREAT, 0, steps=3, **options)
    poison.check(THREAT, images)
    assert set(weights_of(frozen)) == {"head.weight", "head.bias"}


def test_blocks_of_images_give_the_scores_of_all_at_once(images):
    many = Data(images.x.repeat(18, 1, 1, 1), images.y.repeat(18), images.classes)  # 5,400
    model = build("logistic_regression", images.shape, 10)
    sizes = []
    model.register_forward_hook(lambda module, inputs, logits: sizes.append(len(logits)))
    losses = image_losses(model, many)
    assert sizes == [5000, 400]
    assert torch.allclose(losses, cross_entropy(model(many.x), many.y, reduction="none"))
    sizes.clear()
    assert torch.allclose(SCORES["loss"](images, lambda data: model)(many), losses)
    assert sizes == [5000, 400]


def test_the_neighbour_score_of_blocks_is_a_slow_loop(images):
    seen, asked = images[:200], images[170:230]
    score = SCORES["k-NN"](seen, None)(asked)
    for i in range(len(asked)):
        same = seen.x[seen.y == asked.y[i]].double()
        far = (same - asked.x[i].double()).flatten(1).norm(dim=1).sort()[0]
        far = far[1:] if far[0] < 1e-4 else far
        assert score[i].item() == pytest.approx(far[4].item(), abs=1e-4)
