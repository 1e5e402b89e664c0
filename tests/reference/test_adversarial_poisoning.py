"""Poisoning training, lesson 14: what each simulation crafts, pastes and leaves."""

import pytest
import torch

from course_utils.attacks import crafting, gradient_matching
from course_utils.attacks.hidden_trigger import hidden_trigger_loss
from course_utils.attacks.metapoison import unrolled_loss as unrolled
from course_utils.attacks.metapoison import weights_of
from course_utils.defenses import adversarial_poisoning as taught
from tests.reference.small import drawn, models, noise_data

DATA = noise_data()
(MODEL,) = models(DATA, 4)
SPLIT = taught.split_batch(DATA.x[:9], DATA.y[:9], 0.6)
EPSILON = 0.1


def crafted(monkeypatch, simulate, split=SPLIT):
    """What a simulation gives to craft_in_batch, and what it returns."""
    given = []

    def note(objective, base, epsilon, steps, generator, *more):
        given.append((objective, base, epsilon, steps))
        return base * 0.5

    monkeypatch.setattr(taught, "craft_in_batch", note)
    poisons, targets = simulate(MODEL, split, drawn(3))
    ((objective, base, epsilon, steps),) = given
    assert torch.equal(base, split.poisons) and torch.equal(poisons, base * 0.5)
    assert (epsilon, steps) == (EPSILON, 3)
    return objective, targets


def test_a_split_by_hand():
    x, labels = torch.arange(6.0).view(6, 1, 1, 1), torch.tensor([2, 1, 1, 2, 0, 0])
    split = taught.split_batch(x, labels, 0.6)  # 3.6: four poisons, labels 2, 1, 1, 2
    assert split.poisons.flatten().tolist() == [0, 1, 2, 3] and split.fake_labels.tolist() == [1, 1]
    assert split.targets.flatten().tolist() == [4, 5] and split.target_labels.tolist() == [0, 0]
    assert len(taught.split_batch(x, labels, 0.99).targets) == 1
    assert len(taught.one_target(x, labels, drawn(1)).targets) == 1
    mixed = taught.shuffle(x, labels, drawn(1))
    assert torch.equal(mixed.fake_labels, labels)
    order = mixed.targets.flatten().long()
    assert torch.equal(mixed.target_labels, labels[order])


def test_the_inner_loop_written_out():
    base, aim = SPLIT.poisons, torch.rand(SPLIT.poisons.shape, generator=drawn(1))

    def objective(images):
        return (images - aim).square().sum()

    for step_size in (0.2, 0.4):
        images = crafting.random_start(base, 0.1, drawn(5)).requires_grad_()
        adam = torch.optim.Adam([images], lr=step_size * 0.1)
        for _ in range(4):
            images.grad = (2 * (images.detach() - aim)).sign()
            adam.step()
            images.data = base + (images.data - base).clamp(-0.1, 0.1)
            images.data.clamp_(0, 1)
        found = taught.craft_in_batch(objective, base, 0.1, 4, drawn(5), step_size)
        torch.testing.assert_close(found, images.detach())
    default = taught.craft_in_batch(objective, base, 0.1, 4, drawn(5))
    assert torch.equal(default, found) and not default.requires_grad


@pytest.mark.parametrize("last", [None, 2, 4])
def test_matching_lowers_the_loss_of_the_last_parameters(monkeypatch, last):
    simulate = taught.matching_simulation(EPSILON, 3, last=last)
    objective, targets = crafted(monkeypatch, simulate)
    assert torch.equal(targets, SPLIT.targets)
    wanted = gradient_matching.target_gradient(MODEL, SPLIT.targets, SPLIT.fake_labels)
    found = gradient_matching.target_gradient(MODEL, SPLIT.poisons, SPLIT.poison_labels)
    kept = slice(None) if last is None else slice(-last, None)
    lengths = gradient_matching.length(found[kept]) * gradient_matching.length(wanted[kept])
    expected = 1 - gradient_matching.dot(found[kept], wanted[kept]) / lengths
    images = SPLIT.poisons.clone().requires_grad_()
    assert objective(images).item() == pytest.approx(expected.item(), abs=1e-5)


def test_matching_takes_another_loss(monkeypatch):
    loss = gradient_matching.squared_error
    objective, _ = crafted(monkeypatch, taught.matching_simulation(EPSILON, 3, loss=loss))
    wanted = gradient_matching.target_gradient(MODEL, SPLIT.targets, SPLIT.fake_labels)
    expected = loss(MODEL, SPLIT.poisons, SPLIT.poison_labels, wanted)
    assert objective(SPLIT.poisons).item() == pytest.approx(expected.item())


@pytest.mark.parametrize("share", [0.3, 0.6, 0.8])
def test_hidden_triggers_pull_to_patched_targets_and_return_them(monkeypatch, share):
    split = taught.split_batch(DATA.x[:9], DATA.y[:9], share)
    objective, targets = crafted(monkeypatch, taught.hidden_trigger_simulation(EPSILON, 3), split)
    sizes, pixels = taught.draw_patches(1, split.targets, (0.2, 0.4), generator := drawn(3))
    one = torch.zeros_like(split.target_labels)
    patched = taught.put_patches(split.targets, sizes[one], pixels[one], generator)
    assert torch.equal(targets, patched) and not torch.equal(targets, split.targets)
    wanted = MODEL.features(patched).detach().repeat(9, 1)
    enough = wanted[: -(-len(split.poisons) // len(patched)) * len(patched)]
    expected = hidden_trigger_loss(MODEL.features(split.poisons), enough)
    assert objective(split.poisons).item() == pytest.approx(expected.item())


def test_a_collision_pulls_to_the_mean_of_the_targets(monkeypatch):
    objective, targets = crafted(monkeypatch, taught.collision_simulation(EPSILON, 3))
    mine, theirs = (MODEL.features(x).mean(0) for x in (SPLIT.poisons, SPLIT.targets))
    expected = (mine - theirs).square().sum() / theirs.square().sum()
    assert objective(SPLIT.poisons).item() == pytest.approx(expected.item())
    assert torch.equal(targets, SPLIT.targets)


@pytest.mark.parametrize("steps", [1, 3])
def test_metapoison_looks_ahead(monkeypatch, steps):
    simulate = taught.metapoison_simulation(EPSILON, 3, unrolled=steps)
    objective, _ = crafted(monkeypatch, simulate)

    def loss(logits, _):
        return torch.nn.functional.cross_entropy(logits, SPLIT.fake_labels)

    given = (SPLIT.poisons, SPLIT.poison_labels, SPLIT.targets, 0, 0.1, steps)
    expected = unrolled(MODEL, weights_of(MODEL), *given, loss=loss)
    assert objective(SPLIT.poisons).item() == pytest.approx(expected.item())


def test_places_and_patches_by_hand():
    within, inside = taught.place(torch.tensor([1, 3]), torch.tensor([2, 1]), 5)
    assert inside.tolist() == [
        [False, True, True, False, False],
        [False, False, False, True, False],
    ]
    assert within[0].tolist() == [0, 0, 1, 2, 3]
    images, sizes = torch.full((300, 1, 7, 8), 0.5), torch.tensor([[2, 3]] * 300)
    pixels = torch.arange(56.0).view(1, 7, 8).expand(300, -1, -1) / 56
    for corners in (False, True):
        changed = taught.put_patches(images, sizes, pixels, drawn(4), corners)
        starts = set()
        for one in changed[:, 0]:
            rows, columns = (one != 0.5).nonzero().T.tolist()
            top, left = min(rows), min(columns)
            assert torch.equal(one[top : top + 2, left : left + 3], pixels[0, :2, :3])
            assert (one != 0.5).sum() == 6
            starts.add((top, left))
        corner = {(top, left) for top in (1, 4) for left in (1, 4)}
        assert starts == (corner if corners else {(t, c) for t in range(6) for c in range(6)})


def test_patches_have_random_sides_and_shares_of_white():
    sizes, pixels = taught.draw_patches(800, torch.zeros(1, 1, 20, 30), (0.2, 0.5), drawn(4))
    assert sizes[:, 0].unique().tolist() == list(range(4, 11))
    assert sizes[:, 1].unique().tolist() == list(range(6, 16))
    white = pixels.mean((1, 2))
    assert white.min() < 0.05 and white.max() > 0.95
    tiny, _ = taught.draw_patches(9, torch.zeros(1, 1, 4, 4), (0.01, 0.02), drawn(4))
    assert (tiny == 1).all()


@pytest.mark.parametrize("corners", [False, True])
def test_a_simulated_backdoor_gives_targets_the_patch_of_another_class(corners):
    sides = (0.3, 0.5)
    simulate = taught.patch_simulation(sides, corners=corners)
    poisons, targets = simulate(MODEL, SPLIT, drawn(6))
    generator = drawn(6)
    sizes, pixels = taught.draw_patches(3, SPLIT.poisons, sides, generator)
    other = taught.derangement(3, generator)[SPLIT.target_labels]
    own = SPLIT.poison_labels
    assert (other != SPLIT.target_labels).all()
    for found, x, which in ((poisons, SPLIT.poisons, own), (targets, SPLIT.targets, other)):
        given = (x, sizes[which], pixels[which], generator, corners)
        assert torch.equal(found, taught.put_patches(*given))


@pytest.mark.parametrize("recombine", [True, False])
def test_a_batch_has_true_labels_and_its_own_split(recombine):
    def simulate(model, split, generator):
        assert not model.training
        return split.poisons * 0.5, split.targets * 0.25

    defense = taught.adversarial_poisoning(simulate, split=taught.shuffle, recombine=recombine)
    model = models(DATA, 4)[0].train()
    x, y = defense.batch(model, DATA.x[:6], DATA.y[:6], drawn(2))
    split = taught.shuffle(DATA.x[:6], DATA.y[:6], drawn(2))
    images = [split.poisons * 0.5, split.targets * 0.25]
    labels = [split.poison_labels, split.target_labels]
    many = 2 if recombine else 1
    assert torch.equal(x, torch.cat(images[:many])) and torch.equal(y, torch.cat(labels[:many]))
    assert model.training
