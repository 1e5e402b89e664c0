"""The game of attack and defense: its referee, its points, and one small round."""

import pandas as pd
import pytest

from tools import war

HONEST = """
from course_utils.attacks.gradient_matching import gradient_matching
from course_utils.defense import PLAIN
from course_utils.trials import Victim

def attack(surrogates, data, goal, threat, seed):
    return gradient_matching(surrogates, data, goal, threat, seed, steps=5)

def defend(recipe):
    return Victim(PLAIN, recipe)
"""
CHEAT = """
from dataclasses import replace
from course_utils.attacks.gradient_matching import gradient_matching

def attack(surrogates, data, goal, threat, seed):
    poison = gradient_matching(surrogates, data, goal, threat, seed, steps=1)
    return replace(poison, labels=(poison.labels + 1) % 10)
"""


def test_a_round_pairs_all_attacks_with_all_defenses_and_stops_a_cheat(tmp_path, capsys):
    (tmp_path / "ada.py").write_text(HONEST, encoding="utf-8")
    (tmp_path / "bob.py").write_text(CHEAT, encoding="utf-8")
    war.main([str(tmp_path), "--trials", "1", "--tiny"])
    said = capsys.readouterr()
    assert "bob is out: ThreatModelError" in said.err and "ada is out" not in said.err
    assert "plain" in said.out and said.out.count("ada") == 4


def test_points_by_hand():
    rows = [
        ("nobody", "plain", 0, 0.8), ("nobody", "wall", 0, 0.7),
        ("ada", "plain", 1, 0.8), ("ada", "wall", 0, 0.7),
        ("bob", "plain", 1, 0.8), ("bob", "wall", 1, 0.7),
    ]  # fmt: skip
    frame = pd.DataFrame(rows, columns=["attacker", "victim", "success", "accuracy"])
    matrix, attacks, defenses = war.ranking(frame)
    assert matrix.loc["ada", "wall"] == 0
    assert attacks.to_dict() == {"ada": 0.5, "bob": 1.0}
    assert defenses.to_dict() == pytest.approx({"plain": 0.0, "wall": 0.5 - 5 * 0.1})


def test_a_folder_without_teams_and_a_taken_name_are_refused(tmp_path):
    with pytest.raises(ValueError, match="No team in"):
        war.read_teams(tmp_path)
    (tmp_path / "plain.py").write_text("", encoding="utf-8")
    with pytest.raises(ValueError, match="rename its file"):
        war.read_teams(tmp_path)
