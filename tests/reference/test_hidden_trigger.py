"""Hidden triggers, lesson 08: pairs and losses by hand, the choice of images by their seed."""

import pytest
import torch

from course_utils.attacks.crafting import signed_adam
from course_utils.attacks.hidden_trigger import (
    collide,
    covered,
    faint_trigger,
    hidden_trigger,
    hidden_trigger_loss,
    pair_greedily,
    patched_sources,
    spared,
)
from course_utils.models import predict
from course_utils.threat import Backdoor, ThreatModel
from tests.reference.small import drawn, models, noise_data

DATA = noise_data(45)


def white_corner(images):
    images = images.clone()
    images[..., -2:, -2:] = 1.0
    return images


def rarest(surrogates) -> int:
    """A class that the surrogates do not give to all images."""
    return torch.cat([predict(m, DATA.x) for m in surrogates]).bincount(minlength=3).argmin().item()


SURROGATES = models(DATA, 3, 5)
TARGET = rarest(SURROGATES)
GOAL = Backdoor(white_corner, TARGET, (TARGET + 1) % 3)
THREAT = ThreatModel(4, 0.05, clean_label=True, placement="append")


def test_pairs_by_hand():
    poisons = torch.tensor([[0.0], [1.0], [5.0]])
    sources = torch.tensor([[5.5], [0.9], [9.0], [-2.0]])
    # 1.0 and 0.9 first, then 5.0 and 5.5; 0.0 takes -2.0.
    assert pair_greedily(poisons, sources).tolist() == [3, 1, 0]
    assert hidden_trigger_loss(poisons, sources).item() == pytest.approx((4 + 0.01 + 0.25) / 3)
    two = torch.tensor([[0.0, 0.0], [4.0, 1.0]])
    assert hidden_trigger_loss(two, two.flip(0) + 1).item() == pytest.approx(2)


def test_as_many_sources_as_poisons_are_enough():
    assert hidden_trigger_loss(torch.zeros(2, 1), torch.ones(2, 1)).item() == 1
    with pytest.raises(ValueError, match="3 poisons but only 2 patched"):
        hidden_trigger_loss(torch.zeros(3, 1), torch.ones(2, 1))


def test_the_loss_can_be_differentiated_for_the_poisons():
    features = torch.tensor([[1.0], [3.0]], requires_grad=True)
    sources = torch.tensor([[0.0], [5.0]])
    (slope,) = torch.autograd.grad(hidden_trigger_loss(features, sources), features)
    assert slope.flatten().tolist() == [1.0, -2.0]


def test_patched_sources_are_the_images_of_the_source_class():
    expected = white_corner(DATA.x[DATA.y == GOAL.source_class])
    assert torch.equal(patched_sources(SURROGATES, DATA, GOAL, THREAT), expected)


def test_spared_pixels_come_from_the_base():
    images, base = torch.ones(2, 1, 2, 2), torch.zeros(2, 1, 2, 2)
    mask = torch.tensor([[[True, False], [False, False]]])
    assert spared(images, base, mask)[0].flatten().tolist() == [0, 1, 1, 1]
    assert spared(images, base, None) is images


def test_what_is_lowered_is_the_mean_over_the_surrogates_for_drawn_sources():
    patched, base = white_corner(DATA.x[:7]), DATA.x[10:13]
    images, mask = base + 0.01, torch.zeros(DATA.shape, dtype=torch.bool)
    mask[0, :3] = True
    for seed, spare in ((5, None), (6, mask)):
        lowered, generator = collide(SURROGATES, patched, base, spare, seed), drawn(seed)
        for _ in range(2):  # each call draws anew
            rows = torch.randint(7, (3,), generator=generator)
            seen = images if spare is None else torch.where(spare, base, images)
            losses = [
                hidden_trigger_loss(m.features(seen), m.features(patched[rows])) for m in SURROGATES
            ]
            assert lowered(images).item() == pytest.approx((sum(losses) / 2).item())


def test_hidden_trigger_takes_random_images_of_the_target_class_and_lowers_its_loss():
    mask = torch.zeros(DATA.shape, dtype=torch.bool)
    mask[0, -2:, -2:] = True
    own = (DATA.y == TARGET).nonzero()[:, 0]
    for seed, spare, steps, lr in ((3, None, 5, 0.01), (4, mask, 9, 0.02)):
        options = {"spare": spare, "steps": steps, "lr": lr}
        poison = hidden_trigger(SURROGATES, DATA, GOAL, THREAT, seed, **options)
        rows = own[torch.randperm(len(own), generator=drawn(seed))[:4]]
        assert torch.equal(poison.base, rows) and poison.placement == "append"
        assert (poison.labels == TARGET).all()
        base, patched = DATA.x[rows], white_corner(DATA.x[DATA.y == GOAL.source_class])
        lowered = collide(SURROGATES, patched, base, spare, seed)
        expected, _ = signed_adam(lowered, base, base, 0.05, steps=steps, lr=lr)
        expected = expected if spare is None else torch.where(spare, base, expected)
        assert torch.equal(poison.images, expected)
        poison.check(THREAT, DATA)


def test_a_faint_trigger_by_hand():
    images = torch.tensor([[[[0.2, 0.9, 0.5, 0.97]]]])
    found = faint_trigger(images, lambda x: torch.tensor([[[[1.0, 0.0, 0.55, 1.0]]]]), 0.1)
    torch.testing.assert_close(found, torch.tensor([[[[0.3, 0.8, 0.55, 1.0]]]]))


def test_covered_pixels_are_those_that_the_trigger_decides():
    expected = torch.zeros(2, 5, 5, dtype=torch.bool)
    expected[:, -2:, -2:] = True
    assert torch.equal(covered(white_corner, torch.rand(3, 2, 5, 5)), expected)

    def one_of_two_corners(images):
        images = images.clone()
        images[::2, :, 0, 0], images[1::2, :, -1, -1] = 0.3, 0.7
        return images

    both = covered(one_of_two_corners, torch.rand(3, 1, 5, 5))
    assert both.nonzero()[:, 1:].tolist() == [[0, 0], [4, 4]]
