"""Adaptive attacks: objectives with a defense inside, and the check that they go down."""

import pytest
import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap
from torch.nn.functional import cross_entropy

from course_utils.attacks.adaptive import (
    as_trained,
    clipped_alignment,
    clipped_gradient,
    cosine_loss,
    hidden_alignment,
    hold_constant,
    kept_alive,
    layer_parts,
    loss_under,
    outvoted_loss,
    rewritten_alignment,
)
from course_utils.attacks.feature_collision import bullseye_loss, feature_collision
from course_utils.attacks.gradient_matching import (
    alignment_loss,
    loss_gradient,
    target_gradient,
)
from course_utils.cases import knowing
from course_utils.defense import PLAIN, Defense
from course_utils.defenses.filters import deep_knn, neighbour_labels, vote_margin
from course_utils.defenses.gradient_shaping import gradient_shaping
from course_utils.defenses.pgd_training import pgd_training
from course_utils.models import build
from course_utils.settings import MLP, TINY
from course_utils.threat import Targeted, ThreatModel
from course_utils.training import Recipe, train
from course_utils.trials import Victim


def generator(seed: int = 0) -> torch.Generator:
    """A generator of its own for each call."""
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def attacked(images):
    """A trained model, ten images of one class, and the gradient that an attacker wants."""
    model = train(build("mlp", images.shape, 10), images, Recipe(epochs=5, batch_size=50, lr=0.05))
    mine = images[(images.y == 3).nonzero()[:10, 0]]
    wanted = target_gradient(model, images.x[images.y == 5][:1], torch.tensor([3]))
    return model, mine.x, mine.y, wanted


def flat(gradient) -> Tensor:
    """All parameters in one row."""
    return torch.cat([part.flatten() for part in gradient])


def one_by_one(model, images, labels) -> Tensor:
    """The gradient of each example's own loss (N, parameters), from torch.func."""
    parameters = dict(model.named_parameters())

    def loss(values, image, label):
        return cross_entropy(functional_call(model, values, image[None]), label[None])

    parts = vmap(grad(loss), in_dims=(None, 0, 0))(parameters, images, labels)
    return torch.cat([part.flatten(1) for part in parts.values()], dim=1)


# Clipped gradients


@pytest.mark.parametrize("share", [0.5, 1.0, 100.0])
def test_the_clipped_gradient_is_that_of_autograd_example_by_example(attacked, share):
    model, images, labels, _ = attacked
    examples = one_by_one(model, images, labels).detach()
    lengths = examples.norm(dim=1)
    clip = share * lengths.median().item()
    expected = (examples * (clip / lengths).clamp(max=1)[:, None]).mean(0)
    found = flat(clipped_gradient(layer_parts(model, images, labels), clip))
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_without_clipping_it_is_the_gradient_of_the_loss(attacked):
    model, images, labels, wanted = attacked
    found = clipped_gradient(layer_parts(model, images, labels), 1e6)
    assert torch.allclose(
        flat(found), flat(loss_gradient(model, images, labels, graph=False)), atol=1e-5
    )
    loose = clipped_alignment(1e6)(model, images, labels, wanted)
    assert loose.item() == pytest.approx(
        alignment_loss(model, images, labels, wanted).item(), abs=1e-4
    )


@pytest.mark.parametrize("network", ["mlp", "lenet", "small_cnn"])
def test_the_ghost_alignment_and_its_slope_are_those_of_each_example_alone(images, network):
    model, x, labels = build(network, images.shape, 10).eval(), images.x[:12], images.y[:12]
    wanted = target_gradient(model, images.x[20:21], torch.tensor([3]))
    lengths = one_by_one(model, x, labels).norm(dim=1)
    clip = 1.01 * lengths.median().item()  # half of them are clipped, none is at the bound

    def slow(seen: Tensor) -> Tensor:
        examples = one_by_one(model, seen, labels)
        factors = (clip / examples.norm(dim=1)).clamp(max=1)
        return 1 - torch.cosine_similarity((examples * factors[:, None]).mean(0), flat(wanted), 0)

    seen = x.clone().requires_grad_()
    found = knowing.ghost_alignment(clip)(model, seen, labels, wanted)
    assert found.item() == pytest.approx(slow(seen).item(), abs=1e-5)
    (slope,), (expected,) = (torch.autograd.grad(f, seen) for f in (found, slow(seen)))
    assert (slope - expected).norm() < 1e-3 * expected.norm()


def descend(loss, images: Tensor, steps: int = 15, lr: float = 0.01) -> Tensor:
    """A few signed steps down a loss of images."""
    for _ in range(steps):
        images = images.detach().requires_grad_()
        (slope,) = torch.autograd.grad(loss(images), images)
        images = (images - lr * slope.sign()).clamp(0, 1)
    return images.detach()


@pytest.mark.parametrize("name", ["clipped", "PGD", "hidden"])
def test_an_adapted_objective_goes_down(attacked, images, name):
    model, start, labels, wanted = attacked
    pgd = pgd_training(8 / 255, 1)
    objective = {
        "clipped": clipped_alignment(1.0),
        "PGD": rewritten_alignment(pgd, images, generator(), constant=True),
        "hidden": hidden_alignment(start, 0.1),
    }[name]

    def loss(x: Tensor) -> Tensor:
        return objective(model, x, labels, wanted)

    assert loss(descend(loss, start)).item() < loss(start).item() - 0.05


@pytest.mark.parametrize("clip", [0, -1.0, float("nan")])
def test_a_senseless_clip_is_refused(clip):
    with pytest.raises(ValueError):
        clipped_alignment(clip)


def test_layers_that_are_not_linear_are_refused(images):
    model = build("small_cnn", images.shape, 10)
    with pytest.raises(ValueError):
        layer_parts(model, images.x[:2], images.y[:2])


def test_no_hook_and_no_gradient_is_left_behind(attacked):
    model, images, labels, wanted = attacked
    model.zero_grad()
    clipped_alignment(1.0)(model, images, labels, wanted)
    assert all(not layer._forward_hooks for layer in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


# Defenses that rewrite the batch


def test_the_held_change_keeps_the_pixels_and_passes_the_gradient():
    images = torch.rand(3, 1, 4, 4).requires_grad_()
    seen = (images * 2 - 0.3).detach()
    held = hold_constant(images, seen)
    (slope,) = torch.autograd.grad(held.sum(), images)
    assert torch.allclose(held, seen) and torch.equal(slope, torch.ones_like(slope))


def darker(model, x, y, generator):
    """Halve each image, wherever it stands."""
    return x / 2, y


def test_the_poisons_are_found_again_in_their_batch(attacked, images):
    model, x, labels, _ = attacked
    x = x.clone().requires_grad_()
    defense = Defense("darker", batch=darker)
    for constant, expected in ((True, 1.0), (False, 0.5)):
        seen, taught = as_trained(defense, model, (x, labels), images, generator(), constant)
        (slope,) = torch.autograd.grad(seen.sum(), x)
        assert torch.allclose(seen, x / 2) and torch.equal(taught, labels)
        assert torch.allclose(slope, torch.full_like(slope, expected))


def test_a_defense_that_rewrites_nothing_has_no_rewritten_alignment(images):
    with pytest.raises(ValueError, match="nothing to put in between"):
        rewritten_alignment(PLAIN, images, generator(), constant=True)


def test_a_defense_that_drops_images_of_the_batch_is_refused(attacked, images):
    model, x, labels, _ = attacked
    half = Defense("half", batch=lambda model, x, y, generator: (x[::2], y[::2]))
    with pytest.raises(ValueError, match="keeps every image in its place"):
        as_trained(half, model, (x, labels), images, generator())


# Step 3


def test_the_loss_under_a_defense_is_that_of_the_gradient_it_makes(attacked, images):
    model, x, labels, wanted = attacked
    parts = (model, (x, labels), wanted, images)
    plain = loss_under(PLAIN, *parts, generator())
    assert plain == pytest.approx(alignment_loss(model, x, labels, wanted).item(), abs=1e-4)
    shaped = loss_under(gradient_shaping(0.1, 0.0), *parts, generator())
    clipped = cosine_loss(clipped_gradient(layer_parts(model, x, labels), 0.1), wanted).item()
    assert shaped == pytest.approx(clipped, abs=1e-3)
    moved = loss_under(pgd_training(32 / 255, 1), *parts, generator())
    assert moved != pytest.approx(plain, abs=1e-3)


def test_a_filter_changes_no_gradient_and_is_refused(attacked, images):
    model, x, labels, wanted = attacked
    with pytest.raises(ValueError, match="count the poisons that it keeps"):
        loss_under(deep_knn(5), model, (x, labels), wanted, images, generator())


# Filters


def test_a_poison_among_its_own_is_not_outvoted_and_one_among_others_is():
    own = 0.01 * torch.randn(6, 2, generator=generator())
    others = own + 5
    assert outvoted_loss(torch.zeros(2, 2), own, others, near=3).item() == 0
    assert outvoted_loss(torch.full((2, 2), 5.0), own, others, near=3).item() > 0.1


@pytest.mark.parametrize("near", [0, 8])
def test_more_neighbours_than_there_are_images_are_refused(near):
    with pytest.raises(ValueError, match="expected 1 to"):
        outvoted_loss(torch.zeros(2, 2), torch.zeros(6, 2), torch.ones(6, 2), near)


def test_a_negative_weight_is_refused(images):
    with pytest.raises(ValueError, match="expected 0 or more"):
        hidden_alignment(images.x[:2], -1.0)


def test_kept_alive_is_outvoted_less_than_the_oblivious_attack(attacked, images):
    extractor = attacked[0]
    target = images.x[images.y == 5][0]
    goal = Targeted(target, 5, 3)
    budget, margins = 10, {}
    threat = ThreatModel(budget, 32 / 255, clean_label=True)
    losses = {
        "Bullseye": bullseye_loss,
        "kept alive": kept_alive(extractor, images, goal, budget, weight=10.0, near=budget),
    }
    for name, loss in losses.items():
        poison = feature_collision([extractor], images, goal, threat, 0, loss=loss)
        seen = poison.apply(images)
        with torch.no_grad():
            features = extractor.features(seen.x)
        votes = neighbour_labels(features, seen.y, 2 * budget)
        margins[name] = vote_margin(votes, seen.y)[poison.base].mean().item()
    assert margins["kept alive"] < margins["Bullseye"]


# The attacker who knows, as a case


def test_every_adapted_victim_has_an_objective_that_differs_from_the_plain_one(attacked, images):
    model, x, labels, wanted = attacked
    plain = alignment_loss(model, x, labels, wanted).item()
    for name, how in knowing.adapted(TINY).items():
        loss = how.objective(images, generator())(model, x, labels, wanted).item()
        assert loss != pytest.approx(plain, abs=1e-4), name


def test_the_best_attacker_crafts_anew_for_each_victim():
    case, crafted = knowing.matching(1000, TINY), {}
    for name, how in knowing.adapted(TINY).items():
        crafted[name] = case.craft(how.victim)
    crafted["plain"] = case.oblivious
    for name, poison in crafted.items():
        assert torch.equal(poison.base, crafted["plain"].base)
        others = [other.images for key, other in crafted.items() if key != name]
        assert not any(torch.equal(poison.images, images) for images in others)


def test_bullseye_bunches_its_poisons_only_against_a_filter():
    case = knowing.bullseye(1000, MLP)
    filtered = Victim(deep_knn(10), case.recipe)
    spread = {}
    for name, victim in (("plain", case.plain), ("filtered", filtered)):
        features = case.model.features(case.craft(victim).images).detach()
        spread[name] = torch.pdist(features).mean().item()
    assert spread["filtered"] < spread["plain"]
