"""Sleeper Agent, lesson 08: its gradient, its rounds, its seed."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from course_utils.attacks import crafting
from course_utils.attacks.gradient_matching import alignment_loss, choose_bases
from course_utils.attacks.sleeper_agent import craft, match, patched_gradient, sleeper_agent
from course_utils.threat import Backdoor, Poison, ThreatModel
from tests.reference.small import drawn, flat, models, noise_data
from tests.reference.test_hidden_trigger import rarest, white_corner

DATA = noise_data(45)
SURROGATES = models(DATA, 3, 5)
TARGET = rarest(SURROGATES)
SOURCE = (TARGET + 1) % 3
GOAL = Backdoor(white_corner, TARGET, SOURCE)
THREAT = ThreatModel(4, 0.05, clean_label=True, placement="append")
MASK = torch.zeros(DATA.shape, dtype=torch.bool)
MASK[0, :2] = True


def test_the_wanted_gradient_is_that_of_patched_source_images_with_the_target_label():
    model = SURROGATES[0]
    patched = white_corner(DATA.x[DATA.y == SOURCE])
    labels = torch.full((len(patched),), TARGET)
    expected = torch.autograd.grad(cross_entropy(model(patched), labels), list(model.parameters()))
    torch.testing.assert_close(flat(patched_gradient(model, DATA.x, DATA.y, GOAL)), flat(expected))


@pytest.mark.parametrize("spare", [None, MASK])
def test_what_is_lowered_is_the_mean_alignment_loss(spare):
    base = DATA[:4]
    images = base.x * 0.7
    lowered = match(SURROGATES, DATA, GOAL, base, spare)
    seen = images if spare is None else torch.where(spare, base.x, images)
    each = [
        alignment_loss(m, seen, base.y, patched_gradient(m, DATA.x, DATA.y, GOAL)).item()
        for m in SURROGATES
    ]
    assert each[0] != pytest.approx(each[1])
    for _ in range(3):
        assert lowered(images).item() == pytest.approx(sum(each) / 2)


@pytest.mark.parametrize("spare", [None, MASK])
def test_crafting_goes_in_rounds_with_surrogates_of_their_own(spare):
    rows, others = torch.tensor([2, 8, 11, 20]), models(DATA, 11, 12)
    asked = []

    def retrain(data, number):
        asked.append((data, number))
        return [others[number - 1]]

    options = {"rounds": 3, "spare": spare, "steps": 13, "lr": 0.02}
    poison = craft(SURROGATES, DATA, GOAL, THREAT, rows, 6, retrain=retrain, **options)
    base = DATA[rows]
    images = crafting.random_start(base.x, 0.05, drawn(6))
    for number, used in enumerate((SURROGATES, others[:1], others[1:])):
        if number:
            data, called = asked[number - 1]
            assert called == number
            seen = Poison(images, base.y, rows, "append").apply(DATA)
            assert torch.equal(data.x, seen.x) and torch.equal(data.y, seen.y)
        lowered = match(used, DATA, GOAL, base, spare)
        images, _ = crafting.signed_adam(lowered, images, base.x, 0.05, steps=4, lr=0.02)
        images = images if spare is None else torch.where(spare, base.x, images)
    assert torch.equal(poison.images, images) and len(asked) == 2
    assert torch.equal(poison.base, rows) and poison.placement == "append"
    assert torch.equal(poison.labels, base.y)


def test_without_retraining_there_is_one_round_of_all_steps():
    rows = torch.tensor([2, 8, 11, 20])
    poison = craft(SURROGATES, DATA, GOAL, THREAT, rows, 6, rounds=3, steps=9, lr=0.02)
    start = crafting.random_start(DATA.x[rows], 0.05, drawn(6))
    lowered = match(SURROGATES, DATA, GOAL, DATA[rows], None)
    images, _ = crafting.signed_adam(lowered, start, DATA.x[rows], 0.05, steps=9, lr=0.02)
    assert torch.equal(poison.images, images)


def test_sleeper_agent_takes_the_images_with_the_largest_gradient():
    own = (DATA.y == TARGET).nonzero()[:, 0]
    rows = choose_bases(SURROGATES, DATA, own, 4)
    for seed in (3, 4):
        poison = sleeper_agent(SURROGATES, DATA, GOAL, THREAT, seed, steps=5, lr=0.01)
        assert torch.equal(poison.base, rows) and (poison.labels == TARGET).all()
        expected = craft(SURROGATES, DATA, GOAL, THREAT, rows, seed, steps=5, lr=0.01)
        assert torch.equal(poison.images, expected.images)
        poison.check(THREAT, DATA)
