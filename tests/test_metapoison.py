"""MetaPoison: its meta-gradient, its poisons, and what it refuses."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, cross_entropy

from course_utils.attacks.crafting import candidates
from course_utils.attacks.gradient_matching import dot, loss_gradient, target_gradient
from course_utils.attacks.metapoison import (
    Unrolling,
    adversarial_cross_entropy,
    margin_loss,
    meta_objective,
    metapoison,
    unrolled_loss,
    weights_of,
    without,
)
from course_utils.data import Data
from course_utils.models import Classifier, build, predict
from course_utils.threat import Targeted, ThreatModel, ThreatModelError
from course_utils.training import Recipe, train

THREAT = ThreatModel(budget=15, epsilon=32 / 255, clean_label=True)
QUICK = Unrolling(steps=2, poisons=10, clean=20)


@pytest.fixture(scope="module")
def surrogates(images) -> list[Classifier]:
    """Two linear models and a small MLP, of different ages."""
    kinds = [
        ("logistic_regression", {}, 4),
        ("logistic_regression", {}, 12),
        ("mlp", {"width": 16}, 15),
    ]
    return [
        train(
            build(name, images.shape, 10, **options),
            images,
            Recipe(epochs=epochs, batch_size=20),
            seed=epochs,
        )
        for name, options, epochs in kinds
    ]


@pytest.fixture(scope="module")
def goal(surrogates, held_out) -> Targeted:
    """A coat that every surrogate knows is to become a pullover."""
    known = held_out.y == 4
    for surrogate in surrogates:
        known &= predict(surrogate, held_out.x) == 4
    return Targeted(held_out.x[known][0], 4, 2)


class Small:
    """A meta-problem in double precision: a tiny MLP, a batch and a target."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.model = build("mlp", (1, 5, 5), 4, seed=3, width=7).double()
        self.x = torch.rand(6, 1, 5, 5, generator=generator, dtype=torch.float64)
        self.y = torch.randint(4, (6,), generator=generator)
        self.target = torch.rand(1, 1, 5, 5, generator=generator, dtype=torch.float64)
        self.lr, self.adversarial_class = 0.3, 2

    def loss(self, x: Tensor, steps: int, **options) -> Tensor:
        outer = self.target, self.adversarial_class, self.lr, steps
        return unrolled_loss(self.model, weights_of(self.model), x, self.y, *outer, **options)

    def meta_gradient(self, steps: int, **options) -> Tensor:
        x = self.x.clone().requires_grad_()
        return torch.autograd.grad(self.loss(x, steps, **options), x)[0]

    def forward(self, w: list[Tensor], x: Tensor) -> Tensor:
        """The MLP written out."""
        hidden = (x.flatten(1) @ w[0].T + w[1]).relu()
        return (hidden @ w[2].T + w[3]).relu() @ w[4].T + w[5]

    def step(self, w: list[Tensor], x: Tensor) -> list[Tensor]:
        """One SGD step written out, as part of the graph."""
        loss = cross_entropy(self.forward(w, x), self.y)
        parts = torch.autograd.grad(loss, w, create_graph=True)
        return [p - self.lr * g for p, g in zip(w, parts, strict=True)]


@pytest.fixture(scope="module")
def small() -> Small:
    return Small()


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_the_meta_gradient_equals_an_explicit_unroll(small, steps):
    x = small.x.clone().requires_grad_()
    w = [p.detach().clone().requires_grad_() for p in small.model.parameters()]
    for _ in range(steps):
        w = small.step(w, x)
    loss = cross_entropy(small.forward(w, small.target), torch.tensor([2]))
    expected = torch.autograd.grad(loss, x)[0]
    assert expected.norm() > 1e-6
    torch.testing.assert_close(small.meta_gradient(steps), expected, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("loss", [adversarial_cross_entropy, margin_loss])
def test_the_meta_gradient_equals_a_finite_difference(small, steps, loss):
    gradient = small.meta_gradient(steps, loss=loss)
    generator = torch.Generator().manual_seed(1)
    for _ in range(3):
        nudge = torch.randn(small.x.shape, generator=generator, dtype=torch.float64)
        ahead, behind = (small.loss(small.x + h * nudge, steps, loss=loss) for h in (1e-6, -1e-6))
        slope = (ahead - behind).item() / 2e-6
        assert slope == pytest.approx((gradient * nudge).sum().item(), rel=1e-5, abs=1e-9)


def test_first_order_is_the_sum_of_the_direct_effects_of_each_step(small):
    """Each step's gradient depends on the images; the weights before it are held fixed."""
    with torch.enable_grad():
        path = [[p.detach().clone().requires_grad_() for p in small.model.parameters()]]
        for _ in range(3):
            moved = small.step(path[-1], small.x)
            path.append([p.detach().requires_grad_() for p in moved])
        loss = cross_entropy(small.forward(path[-1], small.target), torch.tensor([2]))
        wanted = torch.autograd.grad(loss, path[-1])
        expected = torch.zeros_like(small.x)
        for w in path[:-1]:
            x = small.x.clone().requires_grad_()
            moved = small.step(w, x)
            height = sum((a * b).sum() for a, b in zip(moved, wanted, strict=True))
            expected += torch.autograd.grad(height, x)[0]
    first = small.meta_gradient(3, first_order=True)
    torch.testing.assert_close(first, expected, rtol=1e-9, atol=1e-13)
    second = small.meta_gradient(3)
    assert (first - second).norm() > 0.01 * second.norm()


def test_the_loss_and_one_step_are_the_same_in_first_and_second_order(small):
    for steps in (1, 3):
        values = [small.loss(small.x, steps, first_order=f).item() for f in (True, False)]
        assert values[0] == pytest.approx(values[1], rel=1e-12)
    one = [small.meta_gradient(1, first_order=f) for f in (True, False)]
    torch.testing.assert_close(*one, rtol=1e-10, atol=1e-14)


def test_one_small_step_moves_images_as_the_inner_product_of_gradients_does(small):
    model, x = small.model, small.x.clone().requires_grad_()
    wanted = target_gradient(model, small.target, torch.tensor([2]))
    product = -dot(loss_gradient(model, x, small.y, graph=True), wanted)
    expected = torch.autograd.grad(product, x)[0].flatten()
    small_step = unrolled_loss(model, weights_of(model), x, small.y, small.target, 2, 1e-6, 1)
    found = torch.autograd.grad(small_step, x)[0].flatten()
    assert cosine_similarity(found, expected, dim=0) > 0.99999
    assert (found.norm() / expected.norm()).item() == pytest.approx(1e-6, rel=1e-3)


def test_unrolling_leaves_the_model_alone(small):
    before = [p.detach().clone() for p in small.model.parameters()]
    small.meta_gradient(3)
    assert all(torch.equal(a, b) for a, b in zip(before, small.model.parameters(), strict=True))
    assert all(p.grad is None for p in small.model.parameters())


def test_the_margin_loss_stops_when_the_class_leads_by_the_confidence():
    logits = torch.tensor([[0.0, 3.0, 1.0], [0.0, 1.0, 1.1]])
    assert margin_loss(logits, 1).item() == pytest.approx(0.15)
    assert margin_loss(logits[:1], 1).item() == 0
    assert margin_loss(logits[:1], 1, confidence=3.0).item() == pytest.approx(1.0)


def test_poisons_keep_their_promises(images, surrogates, goal):
    poison = metapoison(surrogates, images, goal, THREAT, seed=0, how=QUICK, steps=5)
    poison.check(THREAT, images)
    assert len(poison) == len(poison.base.unique()) == THREAT.budget
    assert (poison.labels == goal.adversarial_class).all()
    change = (poison.images - images.x[poison.base]).abs().flatten(1).amax(1)
    assert (change > 0.5 * THREAT.epsilon).all(), "every poison is made use of"


def test_poisons_follow_their_seed_and_their_target(images, surrogates, goal, held_out):
    def craft(goal: Targeted, seed: int) -> Tensor:
        return metapoison(surrogates, images, goal, THREAT, seed, how=QUICK, steps=3).images

    other = replace(goal, image=held_out.x[held_out.y == 4][-1])
    assert torch.equal(craft(goal, 0), craft(goal, 0))
    assert not torch.equal(craft(goal, 0), craft(goal, 1))
    assert not torch.equal(craft(goal, 0), craft(other, 0))


def test_the_base_rows_can_be_given(images, surrogates, goal):
    base = candidates(images, 2, 15)[:15]
    poison = metapoison(surrogates, images, goal, THREAT, 0, base=base, how=QUICK, steps=2)
    assert torch.equal(poison.base, base)


@pytest.mark.parametrize("how", [QUICK, replace(QUICK, first_order=True, loss=margin_loss)])
def test_crafting_lowers_the_meta_loss_below_that_of_noise(images, surrogates, goal, how):
    poison = metapoison(surrogates, images, goal, THREAT, seed=0, how=how, steps=40)
    noise = poison.noise_control(images, torch.Generator().manual_seed(0))
    judge = replace(how, loss=adversarial_cross_entropy, first_order=False)
    rest, base = without(images, poison.base), images[poison.base]

    def score(x: Tensor) -> float:
        generator = torch.Generator().manual_seed(7)
        objective = meta_objective(surrogates, rest, base, goal, generator, judge)
        return sum(objective(x).item() for _ in range(30)) / 30

    assert score(poison.images) < 0.8 * score(noise.images)


def test_the_batch_holds_no_poison_base_twice(images):
    rows = torch.tensor([3, 5])
    rest = without(images, rows)
    assert len(rest) == len(images) - 2
    assert not any(torch.equal(x, images.x[3]) for x in rest.x)


def test_bad_input_is_refused(images, surrogates, goal):
    def craft(models=surrogates, data=images, goal=goal, threat=THREAT):
        return metapoison(models, data, goal, threat, seed=0, how=QUICK, steps=1)

    with pytest.raises(ThreatModelError, match="No surrogate"):
        craft(models=[])
    with pytest.raises(ThreatModelError, match="already classifies"):
        easy = images.x[(images.y == 2) & (predict(surrogates[0], images.x) == 2)][0]
        craft(models=surrogates[:1], goal=Targeted(easy, 4, 2))
    with pytest.raises(ThreatModelError, match="lower the budget"):
        craft(threat=ThreatModel(budget=31, epsilon=0.1, clean_label=True))
    with pytest.raises(ThreatModelError, match="0 images of class"):
        craft(data=images[images.y != 2])
    with pytest.raises(ThreatModelError, match="Surrogate 1 has 3 classes"):
        craft(models=[surrogates[0], build("mlp", images.shape, 3)])
    with pytest.raises(ThreatModelError, match="BatchNorm in training mode"):
        craft(models=[build("small_cnn", images.shape, 10, norm="batch").train()])
    with pytest.raises(ThreatModelError, match="needs a bound"):
        craft(threat=ThreatModel(budget=15, clean_label=True))
    for epsilon in (0.0, 1.5):
        with pytest.raises(ThreatModelError, match="epsilon is"):
            ThreatModel(budget=15, epsilon=epsilon)


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"lr": 0.0}, {"poisons": 0}, {"clean": -1}])
def test_an_empty_unroll_is_refused(wrong):
    with pytest.raises(ThreatModelError, match="Nothing to unroll"):
        Unrolling(**wrong)


def test_a_batchnorm_surrogate_in_evaluation_mode_is_fine(images, goal):
    model = build("small_cnn", images.shape, 10, norm="batch").eval()
    before = {name: b.clone() for name, b in model.named_buffers()}
    poison = metapoison([model], images, goal, THREAT, seed=0, how=QUICK, steps=1)
    poison.check(THREAT, images)
    assert all(torch.equal(before[name], b) for name, b in model.named_buffers())


def test_data_without_clean_images_in_the_batch(images: Data, surrogates, goal):
    how = replace(QUICK, clean=0)
    metapoison(surrogates, images, goal, THREAT, 0, how=how, steps=1).check(THREAT, images)
