"""tools.paper_scale: the whole configuration, scaled down, from images to rows."""

import sys
from functools import partial

import pytest
import torch

import tools.benchmark
from course_utils.code_hash import code_hash
from course_utils.data import CIFAR_CLASSES, Data
from course_utils.defense import PLAIN, Defense
from course_utils.models import build, predict
from course_utils.stored import Benchmark, load_study, run_study
from course_utils.training import Recipe
from tools.paper_scale import (
    BENCHMARK,
    Scale,
    augmented,
    craft,
    draw_target,
    matching_trial,
    trials,
)


def random_images(n: int = 20) -> Data:
    """Noise in the shape of CIFAR-10, equally many images of each class."""
    generator = torch.Generator().manual_seed(n)
    x = torch.rand(n, 3, 32, 32, generator=generator)
    return Data(x, torch.arange(n) % 10, CIFAR_CLASSES)


def small_data() -> tuple[Data, Data]:
    return random_images(20), random_images(10)


SMALL = Scale(
    images=small_data,
    budget=2,
    recipe=Recipe(epochs=1, batch_size=10, lr=0.01),
    steps=2,
    restarts=2,
    inner_steps=1,
)


def test_the_whole_configuration_runs_from_images_to_rows(tmp_path):
    small = Benchmark("paper_scale", trials(SMALL), [0], scale="paper")
    run_study(small, folder=tmp_path)
    rows = load_study(small, tmp_path)
    found = set(rows[["norm", "knowledge", "condition", "defense"]].itertuples(index=False))
    without = {
        (norm, "without", condition, defense)
        for norm, defense in [
            ("batch", "plain"),
            ("batch", "batch shaping"),
            ("batch", "PGD training"),
            ("batch", "poisoning training"),
            ("group", "plain"),
            ("group", "gradient shaping"),
        ]
        for condition in ("clean", "attack")
    }
    knowing = {
        (norm, "with", "attack", defense)
        for norm, _, condition, defense in without
        if defense != "plain" and condition == "clean"
    }
    assert found == without | knowing
    assert len(rows) == len(found) and rows.notna().all().all()
    assert rows.success.dtype == bool
    assert rows.accuracy.between(0, 1).all()
    assert (rows[["seconds", "crafting_seconds"]] > 0).all().all()


def test_the_sizes_are_those_of_the_paper():
    scale = BENCHMARK.trials["gradient matching"].keywords["scale"]
    assert scale.budget == 0.01 * 50_000
    assert scale.epsilon * 255 == pytest.approx(16)
    assert (scale.recipe.epochs, scale.recipe.batch_size) == (40, 128)
    assert (scale.steps, scale.restarts, scale.inner_steps) == (250, 8, 5)
    assert len(BENCHMARK.seeds) == 20


def test_the_tool_itself_counts_for_its_freshness():
    assert BENCHMARK.code == code_hash(matching_trial) != code_hash(predict)


def test_a_target_never_has_its_adversarial_class():
    test = random_images(30)
    goals = [draw_target(test, seed) for seed in range(200)]
    assert len({(goal.true_class, goal.adversarial_class) for goal in goals}) > 60
    for goal in goals:
        row = (test.x == goal.image).flatten(1).all(1)
        assert test.y[row].tolist() == [goal.true_class]


def test_nothing_is_crafted_where_the_surrogate_grants_the_goal():
    data, test = small_data()
    surrogate = build("resnet18", data.shape, 10).eval()
    answer = predict(surrogate, test.x)
    for seed in range(50):
        goal = draw_target(test, seed)
        (row,) = (test.x == goal.image).flatten(1).all(1).nonzero()[:, 0].tolist()
        granted = answer[row].item() == goal.adversarial_class
        if granted:
            assert craft(SMALL, surrogate, data, goal, seed) is None
            return
    pytest.fail("no goal of 50 was granted: the untrained model should answer one class only")


def test_images_are_moved_before_the_defense_sees_them():
    seen = {}

    def batch(model, x, y, generator):
        seen["x"] = x
        return x, y

    x, y = torch.ones(4, 3, 32, 32), torch.arange(4)
    arguments = None, x, y, torch.Generator().manual_seed(0)
    moved, labels = augmented(PLAIN).batch(*arguments)
    assert labels is y and not torch.equal(moved, x)
    assert (moved >= 0).all() and (moved <= 1).all()
    dark = (moved[:, 0] == 0).float().mean(0)
    assert dark[4:-4, 4:-4].max() == 0  # no shift by more than 4 pixels
    defended = augmented(Defense("note", batch=batch))
    defended.batch(None, x, y, torch.Generator().manual_seed(0))
    assert defended.name == "note" and torch.equal(seen["x"], moved)


def test_missing_data_ends_with_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr("course_utils.data.DOWNLOADS", tmp_path)
    monkeypatch.setattr(tools.benchmark, "run_study", partial(run_study, folder=tmp_path))
    monkeypatch.setattr(sys, "argv", ["benchmark", "--scale", "paper"])
    with pytest.raises(SystemExit, match=r"CIFAR10 could not be loaded .* download=True"):
        tools.benchmark.main()
