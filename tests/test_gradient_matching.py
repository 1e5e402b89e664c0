"""The attack of lesson 05: its gradients, choices, bounds and errors, and that it works."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from course_utils.attacks.crafting import candidates
from course_utils.attacks.gradient_matching import (
    alignment_loss,
    augment,
    brew,
    choose_bases,
    gradient_matching,
    gradient_norms,
    joint_gradient,
    length,
    matching_objective,
    squared_error,
    staggered,
    target_gradient,
)
from course_utils.cases import from_scratch
from course_utils.cases.goals import draw_goal
from course_utils.data import balanced, load
from course_utils.models import build, predict
from course_utils.settings import MLP, TINY
from course_utils.threat import Targeted, ThreatModel, ThreatModelError
from course_utils.training import train

RECIPE = MLP.recipe


@pytest.fixture(scope="module")
def surrogates(images):
    """Two trainings, a young and an old copy of each."""
    return staggered(build("mlp", images.shape, 10), images, RECIPE, 0, range(2), epochs=(5, 20))


@pytest.fixture(scope="module")
def goal(surrogates):
    """A target that the surrogates know, and a neighbouring class."""
    return draw_goal(surrogates[1::2], load()[1], seed=0)


def double_problem(name: str, **options):
    """A tiny model in float64, images, labels and a wanted gradient."""
    model = build(name, (1, 6, 6), 3, seed=1, **options).double()
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(3, 1, 6, 6, generator=generator, dtype=torch.double)
    labels = torch.tensor([0, 1, 2])
    wanted = target_gradient(model, images[:1].flip(3), torch.tensor([2]))
    return model, images, labels, wanted


@pytest.mark.parametrize("name", ["logistic_regression", "mlp", "small_cnn"])
@pytest.mark.parametrize("loss", [alignment_loss, squared_error])
def test_the_gradient_of_the_loss_is_a_finite_difference(name, loss):
    model, images, labels, wanted = double_problem(name)
    assert torch.autograd.gradcheck(
        lambda x: loss(model, x, labels, wanted), images.requires_grad_(), eps=1e-6, atol=1e-6
    )


def test_the_alignment_loss_is_zero_for_the_target_itself_and_two_against_it():
    model, images, labels, _ = double_problem("mlp")
    same = target_gradient(model, images, labels)
    opposed = tuple(-3 * part for part in same)
    assert alignment_loss(model, images, labels, same).item() == pytest.approx(0, abs=1e-9)
    assert alignment_loss(model, images, labels, opposed).item() == pytest.approx(2)
    assert squared_error(model, images, labels, same).item() == pytest.approx(0, abs=1e-9)


def test_the_target_gradient_lowers_the_loss_and_is_a_constant():
    model, images, labels, _ = double_problem("mlp")
    gradient = target_gradient(model, images, labels)
    assert not any(part.requires_grad for part in gradient)
    before = nn.functional.cross_entropy(model(images), labels).item()
    with torch.no_grad():
        for parameter, part in zip(model.parameters(), gradient, strict=True):
            parameter -= 0.01 * part
    after = nn.functional.cross_entropy(model(images), labels).item()
    assert after - before == pytest.approx(-0.01 * length(gradient).item() ** 2, rel=0.1)


def test_gradient_norms_are_those_of_single_images():
    model, images, labels, _ = double_problem("small_cnn")
    norms = gradient_norms(model, images, labels)
    loss = nn.functional.cross_entropy(model(images[2:3]), labels[2:3])
    parts = torch.autograd.grad(loss, tuple(model.parameters()))
    assert norms[2].item() == pytest.approx(torch.cat([p.flatten() for p in parts]).norm().item())


def test_choose_bases_keeps_to_its_rows_and_takes_the_largest(images, surrogates):
    rows = candidates(images, 3, 5)
    chosen = choose_bases(surrogates, images, rows, 5)
    norms = [gradient_norms(s, images.x[rows], images.y[rows]) for s in surrogates]
    largest = torch.stack(norms).mean(0).topk(5).indices
    assert set(chosen.tolist()) == set(rows[largest].tolist())


def test_the_joint_gradient_stands_for_every_target():
    model, images, labels, _ = double_problem("mlp")
    targets = [target_gradient(model, x[None], torch.tensor([2])) for x in images]
    poison = images.flip(2)
    single = [alignment_loss(model, poison, labels, wanted) for wanted in targets]
    joint = joint_gradient(targets)
    found = alignment_loss(model, poison, labels, joint)
    assert torch.stack(single).mean().item() == pytest.approx(
        1 - (1 - found.item()) * length(joint).item()
    )


def test_augmentation_shifts_by_parts_of_a_pixel_and_can_be_differentiated():
    generator = torch.Generator().manual_seed(0)
    images = torch.zeros(50, 1, 9, 9, dtype=torch.float32)
    images[:, :, 4, 4] = 1.0
    moved = augment(images.requires_grad_(), generator)
    assert moved.min() >= 0 and moved.max() <= 1
    assert torch.allclose(moved.sum((1, 2, 3)), torch.ones(50), atol=1e-4)  # nothing is lost
    places = moved.flatten(1).argmax(1)
    assert len(places.unique()) > 10 and (moved.amax((1, 2, 3)) < 0.99).any()
    slope = torch.autograd.grad(moved.sum(), images)[0]
    assert (slope.abs().sum((1, 2, 3)) > 0).all()


def test_augmentation_of_no_pixels_only_flips():
    images = torch.rand(20, 1, 8, 8)
    moved = augment(images, torch.Generator().manual_seed(0), pixels=0.0)
    same = (moved - images).abs().amax((1, 2, 3)) < 1e-5
    flipped = (moved - images.flip(3)).abs().amax((1, 2, 3)) < 1e-5
    assert (same ^ flipped).all() and same.any() and flipped.any()


@pytest.mark.parametrize("placement", ["append", "replace"])
@pytest.mark.parametrize("options", [{}, {"augmented": True}, {"loss": squared_error}])
def test_every_poison_passes_its_check(images, surrogates, goal, placement, options):
    threat = ThreatModel(10, 16 / 255, clean_label=True, placement=placement)
    poison = gradient_matching(surrogates, images, goal, threat, 0, steps=5, **options)
    poison.check(threat, images)
    assert len(poison) == 10 and (poison.labels == goal.adversarial_class).all()
    assert not torch.equal(poison.images, images.x[poison.base])


def test_the_same_seed_gives_the_same_poison_and_leaves_the_surrogates_alone(
    images, surrogates, goal
):
    threat = ThreatModel(5, 16 / 255, clean_label=True)
    before = copy.deepcopy(surrogates[0].state_dict())
    first, same, other = (
        gradient_matching(surrogates, images, goal, threat, seed, steps=3) for seed in (0, 0, 1)
    )
    assert torch.equal(first.images, same.images) and not torch.equal(first.images, other.images)
    assert all(
        torch.equal(a, b)
        for a, b in zip(before.values(), surrogates[0].state_dict().values(), strict=True)
    )
    assert all(p.grad is None for p in surrogates[0].parameters())


def test_bases_can_be_of_any_class_and_keep_their_labels(images, surrogates, goal):
    threat = ThreatModel(6, 16 / 255, clean_label=True)
    base = choose_bases(surrogates, images, torch.arange(len(images)), 6)
    poison = gradient_matching(surrogates, images, goal, threat, 0, base=base, steps=3)
    poison.check(threat, images)
    assert torch.equal(poison.labels, images.y[base])


def test_crafting_lowers_the_loss_and_more_restarts_never_raise_it(images, surrogates, goal):
    rows = candidates(images, goal.adversarial_class, 20)[:20]
    base, label = images[rows], torch.tensor([goal.adversarial_class])
    wanted = [target_gradient(s, goal.image[None], label) for s in surrogates]

    def judge(x):
        generator = torch.Generator().manual_seed(0)
        return matching_objective(surrogates, wanted, base.y, generator)(x).item()

    def crafted(restarts):
        generator = torch.Generator().manual_seed(0)
        return brew(surrogates, wanted, base, 0.1, generator, steps=20, restarts=restarts)

    assert judge(crafted(1)) < judge(base.x) - 0.03
    assert judge(crafted(4)) <= judge(crafted(1)) + 1e-6


def test_all_surrogates_at_once_are_taken_in_order_and_draw_nothing(images, surrogates, goal):
    base, label = images[:5], torch.tensor([goal.adversarial_class])
    wanted = [target_gradient(s, goal.image[None], label) for s in surrogates]
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    objective = matching_objective(surrogates, wanted, base.y, generator, per_step=None)
    pairs = zip(surrogates, wanted, strict=True)
    losses = torch.stack([alignment_loss(s, base.x, base.y, w) for s, w in pairs])
    assert torch.equal(objective(base.x), losses.mean())
    assert torch.equal(generator.get_state(), before)


def test_an_attacker_expects_the_victim_it_will_meet():
    """The plain victim's surrogates are the scene's; another recipe's start from their weights."""
    case = from_scratch.matching(1000, TINY)
    scene = from_scratch.draw_scene(1000, setting=TINY)
    assert from_scratch.surrogates(scene, case.plain) is scene.surrogates
    slow = replace(case.plain, recipe=replace(TINY.recipe, lr=1e-6))
    for number in (0, 1):
        (_, old) = from_scratch.surrogates(scene, slow, [number])
        fresh = train(scene.model, scene.data, slow.recipe, seed=1000 * 1001 + number)
        for mine, theirs in zip(old.parameters(), fresh.parameters(), strict=True):
            assert torch.equal(mine, theirs)
    known, faced = [], []
    lowered = from_scratch.attacker(
        scene,
        case.goal,
        from_scratch.best_bases(scene, case.goal),
        32 / 255,
        lambda scene, victim: known.append(victim) or scene.surrogates,
        lambda victim, scene: faced.append(victim) or alignment_loss,
    )
    assert torch.equal(lowered(slow).images, case.oblivious.images)
    assert known == faced == [slow]


def test_a_goal_that_the_surrogates_grant_is_not_attacked():
    scene = from_scratch.draw_scene(1000, setting=TINY)
    easy = scene.test.x[predict(scene.surrogates[0], scene.test.x) == 3]
    easy = easy[predict(scene.surrogates[1], easy) == 3][0]
    scene = replace(scene, surrogates=scene.surrogates[:2])
    goal = Targeted(easy, 4, 3)
    given = (scene, goal, from_scratch.best_bases(scene, goal), 32 / 255)
    ways = (from_scratch.surrogates, lambda victim, scene: alignment_loss)
    case = from_scratch.matching(1000, TINY, scene=scene)
    assert from_scratch.attacker(*given, *ways)(case.plain) is None


def test_the_attack_beats_its_control():
    """Three targets, 50 poisons in 1,000 images, against noise of the same size."""
    train_all, test_all = load()
    data, model = balanced(train_all, 1000, seed=0), build("mlp", train_all.shape, 10)
    surrogates = staggered(model, data, RECIPE, seed=0, numbers=range(2), epochs=(5, 20))
    threat = ThreatModel(50, 32 / 255, clean_label=True)
    hits = {"attack": 0, "noise": 0}
    for seed in range(3):
        goal = draw_goal(surrogates[1::2], test_all, seed)
        poison = gradient_matching(surrogates, data, goal, threat, seed, steps=50)
        noise = poison.noise_control(data, torch.Generator().manual_seed(seed))
        for name, condition in (("attack", poison), ("noise", noise)):
            condition.check(threat, data)
            victim = train(model, condition.apply(data), RECIPE, seed=100 + seed)
            hits[name] += goal.measure(victim, test_all)["success"]
    assert hits["attack"] >= hits["noise"] + 2
    assert hits["noise"] <= 1


@pytest.mark.parametrize("epsilon", [0.0, -0.1, 1.5])
def test_an_epsilon_outside_its_range_is_refused(epsilon):
    with pytest.raises(ThreatModelError, match=r"expected a value in \(0, 1\]"):
        ThreatModel(5, epsilon)


def test_no_bound_is_refused(images, surrogates, goal):
    with pytest.raises(ThreatModelError, match="needs a bound"):
        gradient_matching(surrogates, images, goal, ThreatModel(5), 0)


def test_a_target_that_is_already_adversarial_is_refused(images, surrogates, goal):
    done = Targeted(goal.image, goal.adversarial_class, goal.true_class)
    with pytest.raises(ThreatModelError, match="already classifies"):
        gradient_matching(surrogates[1::2], images, done, ThreatModel(5, 0.1), 0)


def test_a_class_without_images_is_refused(images, surrogates, goal):
    without = images[images.y != goal.adversarial_class]
    with pytest.raises(ThreatModelError, match="0 images of class"):
        gradient_matching(surrogates, without, goal, ThreatModel(5, 0.1), 0)


def test_surrogates_that_do_not_fit_are_refused(images, surrogates, goal):
    threat = ThreatModel(5, 0.1)
    with pytest.raises(ThreatModelError, match="No surrogate"):
        gradient_matching([], images, goal, threat, 0)
    with pytest.raises(ThreatModelError, match="Surrogate 1 has 3 classes"):
        wrong = build("mlp", images.shape, 3)
        gradient_matching([surrogates[0], wrong], images, goal, threat, 0)
    with pytest.raises(ThreatModelError, match="BatchNorm in training mode"):
        mixing = build("small_cnn", images.shape, 10, norm="batch").train()
        gradient_matching([mixing], images, goal, threat, 0)
