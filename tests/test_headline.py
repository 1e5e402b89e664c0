"""The picture of the README shows the stored study, and it is small and described."""

import pandas as pd
import pytest
from PIL import Image

from course_utils.studies.lesson_16 import NETWORKS, rows_on
from tools import headline
from tools.lessons import ROOT

# The bound of the attack, on LeNets only (lesson 14).
BOUND = "cheap poisoning training 32/255"
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return headline.collect()


def test_the_picture_is_not_stale(table):
    with Image.open(headline.PICTURE) as picture:
        stored = picture.info.get(headline.KEY)
    assert stored == headline.numbers(table), "run python -m tools.headline"


def test_the_picture_is_small_and_described():
    assert headline.PICTURE.stat().st_size < 150_000
    alternative = README.partition("![")[2].partition("](figures/headline.png)")[0]
    assert len(alternative) > 100


def test_every_defense_of_the_study_is_in_the_picture_under_every_attacker_it_met(table):
    for network in NETWORKS:
        rows = rows_on(network, "gradient matching")
        defended = rows[~rows["victim"].str.startswith("plain") & (rows["attacker"] != "clean")]
        met = set(defended[["victim", "attacker"]].itertuples(index=False, name=None))
        met.discard((BOUND, "oblivious"))
        part = table.loc[table["network"] == network, ["victim", "attacker"]]
        drawn = part.itertuples(index=False, name=None)
        assert set(drawn) == met | {(headline.PLAIN, "oblivious")}


def test_the_numbers_are_those_of_the_rows(table):
    studies = {network: rows_on(network, "gradient matching") for network in NETWORKS}
    for row in table[table["victim"] != headline.PLAIN].to_dict("records"):
        rows = studies[row["network"]]
        its = rows[rows["victim"] == row["victim"]].set_index("attacker")
        assert row["lost"] == its.loc[row["attacker"], "success"].sum()
        assert row["accuracy"] == pytest.approx(its.loc["clean", "accuracy"].mean())
        control = rows[rows["victim"] == row["control"]].set_index("attacker")
        met = "oblivious" if row["control"] == "plain" else row["attacker"]
        assert row["control_lost"] == control.loc[met, "success"].sum()


def test_a_changed_study_makes_it_stale(table):
    changed = table.copy()
    changed.loc[0, "lost"] += 1
    assert headline.numbers(changed) != headline.numbers(table)
