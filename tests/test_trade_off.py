"""The picture of the README shows the stored studies, and its text says what it shows."""

import pandas as pd
import pytest
from PIL import Image

from course_utils import statistics
from tools import trade_off
from tools.lessons import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return trade_off.collect()


def outcomes(frame: pd.DataFrame, label: str) -> pd.Series:
    """The successes of one point, in the order of the trials."""
    return frame[frame["strength"] == label].sort_values("trial")["success"]


def minus(frame: pd.DataFrame, label: str, control: str) -> statistics.Interval:
    """The paired difference in success to a victim that nobody defends."""
    return statistics.paired_difference(outcomes(frame, label), outcomes(frame, control))


def test_the_picture_is_not_stale(frame):
    with Image.open(trade_off.PICTURE) as picture:
        stored = picture.info.get(trade_off.KEY)
    assert stored == trade_off.numbers(frame), "run python -m tools.trade_off"


def test_the_picture_is_small_and_described():
    assert trade_off.PICTURE.stat().st_size < 150_000
    alternative = README.partition("![")[2].partition("](figures/trade_off.png)")[0]
    assert len(alternative) > 100


def test_each_point_has_the_same_forty_trials(frame):
    points = frame.groupby("strength")["trial"].agg(sorted)
    assert set(points.index) == {k for family in trade_off.FAMILIES.values() for k in family}
    assert all(trials == list(range(40)) for trials in points)


def test_poisoning_training_does_more_than_less_training(frame):
    assert minus(frame, "poisoning training", "9 epochs").high < -0.2
    assert minus(frame, "more poisons", "6 epochs").high < 0
    accuracy = frame.groupby("strength")["accuracy"].mean()
    assert accuracy["poisoning training"] > accuracy["9 epochs"] - 0.001
    assert accuracy["plain training"] - accuracy["poisoning training"] < 0.01


def test_two_more_defenses_do_more_than_less_training(frame):
    assert minus(frame, "augmentation", "9 epochs").high < 0
    assert minus(frame, "PGD 8/255", "plain training").high < 0
    accuracy = frame.groupby("strength")["accuracy"].mean()
    assert accuracy["augmentation"] > accuracy["9 epochs"]
    assert accuracy["PGD 8/255"] > accuracy["plain training"] - 0.002


@pytest.mark.parametrize(
    ("label", "control"), [("PGD 16/255", "low learning rate"), ("PGD 32/255", "lower")]
)
def test_strong_training_is_not_clearly_below_the_line(frame, label, control):
    interval = minus(frame, label, control)
    assert interval.low < 0 < interval.high


@pytest.mark.parametrize(
    "label", ["plain training", "poisoning training", "augmentation", "PGD 8/255"]
)
def test_the_text_has_the_numbers_of_the_picture(frame, label):
    assert f"{outcomes(frame, label).sum():.0f} of 40" in README


def test_a_changed_study_makes_it_stale(frame):
    changed = frame.copy()
    changed.loc[0, "success"] = not changed.loc[0, "success"]
    assert trade_off.numbers(changed) != trade_off.numbers(frame)
