"""The fixed trials: spread evenly, the same on every machine, and refused if they were changed."""

from collections import Counter

import pytest

from course_utils import fixed_trials
from course_utils.cases.goals import NEIGHBOURS
from course_utils.data import DataError, load

NEAR_PAIRS = 5 * 4 + 3 * 2  # ordered pairs of upper garments, and of shoes


@pytest.fixture(scope="module")
def test_images():
    return load("fashion_mnist")[1]


@pytest.mark.parametrize(("part", "each"), [("reporting", 2), ("tuning", 1), ("reporting", 1)])
def test_every_pair_of_neighbours_comes_equally_often(part, each, test_images):
    trials = fixed_trials.fixed_trials(part, each)
    pairs = Counter((trial.true_class, trial.adversarial_class) for trial in trials)
    assert len(pairs) == NEAR_PAIRS
    assert set(pairs.values()) == {each}
    group = {name: number for number, names in enumerate(NEIGHBOURS) for name in names}
    names = test_images.classes
    assert all(a != b and group[names[a]] == group[names[b]] for a, b in pairs)


def test_no_target_and_no_seed_comes_twice():
    trials = fixed_trials.fixed_trials("reporting") + fixed_trials.fixed_trials("tuning", 1)
    assert len({trial.image for trial in trials}) == len({trial.seed for trial in trials}) == 78


def test_the_first_of_each_pair_come_first():
    first, turns = fixed_trials.first_of_pairs(), fixed_trials.in_turn()
    assert first == fixed_trials.seeds("reporting", pairs=1) == turns[:NEAR_PAIRS]
    assert sorted(turns) == sorted(fixed_trials.seeds("reporting"))
    assert turns != fixed_trials.seeds("reporting")


def test_a_target_is_the_image_of_its_row(test_images):
    for trial in fixed_trials.fixed_trials("reporting"):
        goal = fixed_trials.fixed_target(trial.seed, test_images)
        assert (goal.true_class, goal.adversarial_class) == (
            test_images.y[trial.image].item(),
            trial.adversarial_class,
        )
        assert (goal.image == test_images.x[trial.image]).all()


def test_a_changed_or_missing_file_is_refused(tmp_path, monkeypatch):
    text = fixed_trials.FILE.read_text().replace("reporting", "tuning", 1)
    changed = tmp_path / "fixed_trials.csv"
    changed.write_text(text)
    monkeypatch.setattr(fixed_trials, "FILE", changed)
    with pytest.raises(DataError, match="was changed"):
        fixed_trials.seeds("reporting")
    changed.unlink()
    with pytest.raises(DataError, match="cannot be read"):
        fixed_trials.seeds("reporting")


@pytest.mark.parametrize(("part", "pairs"), [("tuning", 2), ("reporting", 3), ("reporting", 0)])
def test_trials_that_there_are_not_are_refused(part, pairs):
    with pytest.raises(ValueError, match="choose 'reporting', with one or two"):
        fixed_trials.fixed_trials(part, pairs)


def test_an_unknown_part_or_seed_is_refused(test_images):
    with pytest.raises(ValueError, match="choose 'reporting'"):
        fixed_trials.fixed_trials("all", 1)
    with pytest.raises(ValueError, match="No fixed trial has the seed 3"):
        fixed_trials.fixed_target(3, test_images)


def test_other_test_images_are_refused(test_images):
    seed = fixed_trials.seeds("reporting")[0]
    with pytest.raises(DataError, match="belong to the test images"):
        fixed_trials.fixed_target(seed, test_images[:10])
    with pytest.raises(DataError, match="belong to the test images"):
        fixed_trials.fixed_target(seed, test_images[range(len(test_images) - 1, -1, -1)])
