"""The neighbours' flips, lesson 01, against a slow loop."""

import torch

from course_utils.attacks.neighbour_flips import draw_target, flip_neighbours, flip_random
from course_utils.data import balanced
from course_utils.models import build, predict
from course_utils.settings import Setting
from course_utils.threat import Targeted, ThreatModel
from course_utils.training import Recipe, train
from tests.reference.small import drawn, noise_data

DATA = noise_data()
GOAL = Targeted(torch.rand(DATA.shape, generator=drawn(8)), 2, 0)
THREAT = ThreatModel(4)


def test_the_nearest_images_of_the_true_class_get_the_adversarial_label():
    distance = {
        row: (DATA.x[row] - GOAL.image).double().square().sum().sqrt().item()
        for row in range(30)
        if DATA.y[row] == 2
    }
    poison = flip_neighbours(DATA, GOAL, THREAT)
    assert poison.base.tolist() == sorted(distance, key=distance.get)[:4]
    assert (poison.labels == 0).all() and torch.equal(poison.images, DATA.x[poison.base])


def test_the_control_takes_random_images_of_the_true_class():
    drawings = [flip_random(DATA, GOAL, THREAT, seed) for seed in range(20)]
    for poison in drawings:
        assert len(poison.base.unique()) == 4 and (DATA.y[poison.base] == 2).all()
        assert (poison.labels == 0).all() and torch.equal(poison.images, DATA.x[poison.base])
    assert {row for poison in drawings for row in poison.base.tolist()} == set(range(2, 30, 3))
    assert torch.equal(drawings[6].base, flip_random(DATA, GOAL, THREAT, 6).base)


def test_a_target_is_drawn_among_the_images_that_a_surrogate_knows():
    full, test = noise_data(90), noise_data(60, seed=6)
    setting = Setting("small", "mlp", Recipe(4, 10, 0.1), share=0.02)
    wrong, targets = set(), set()
    for seed in range(6):
        data, goal = draw_target(full, test, seed, setting)
        expected = balanced(full, 60, seed)
        assert torch.equal(data.x, expected.x) and torch.equal(data.y, expected.y)
        model = train(build("mlp", data.shape, 3), data, setting.recipe, seed=10_000 + seed)
        known = predict(model, test.x) == test.y
        (row,) = ((test.x == goal.image).flatten(1).all(1)).nonzero()[:, 0].tolist()
        assert known[row] and goal.true_class == test.y[row]
        wrong.add((goal.adversarial_class - goal.true_class) % 3)
        targets.add(row)
    assert wrong == {1, 2} and len(targets) > 3
