"""Attack war, defense war: python -m tools.war FOLDER [--trials 6].

FOLDER holds one Python file a team, NAME.py, with one or both of

    def attack(surrogates, data, goal, threat, seed): ...   # a Poison
    def defend(recipe): ...                                 # a Victim

Every attack meets every defense and the plain victim, on the same trials: gradient matching's, with
150 clean-label poisons at 32/255 among 3,000 images. The referee is Poison.check. About a second
for each victim, on one core. The teams' code is run: play with people whom you know.
"""

import argparse
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pandas as pd

from course_utils.cases import from_scratch
from course_utils.cases.goals import draw_goal
from course_utils.defenses.reporting import PRICE
from course_utils.settings import MLP, Setting
from course_utils.threat import Poison, ThreatModel
from course_utils.trials import Case, Rows, compare, run_trials

PLAIN, CLEAN = "plain", "nobody"


def read_teams(folder: Path) -> dict[str, ModuleType]:
    """The files of all teams, by team. Raises ValueError if there is none."""
    teams = {}
    for path in sorted(Path(folder).glob("*.py")):
        spec = importlib.util.spec_from_file_location(f"team_{path.stem}", path)
        teams[path.stem] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(teams[path.stem])
    if not teams:
        raise ValueError(f"No team in {folder}: expected one Python file for each.")
    if taken := {PLAIN, CLEAN} & set(teams):
        raise ValueError(f"No team can be called {taken.pop()!r}: rename its file.")
    return teams


def referee(team: str, attack: Callable, scene: from_scratch.Scene, given: tuple) -> Poison | None:
    """The poison of a team, or None, with a word, if it breaks a rule or the code fails."""
    _, threat, seed = given
    try:
        poison = attack(scene.surrogates, scene.data, *given)
        poison.check(threat, scene.data)
    except Exception as error:
        print(f"trial {seed}: {team} is out: {type(error).__name__}: {error}", file=sys.stderr)
        return None
    return poison


def trial(seed: int, teams: dict[str, ModuleType], setting: Setting = MLP) -> Rows:
    """Every attack against every defense, on one target."""
    scene = from_scratch.draw_scene(seed, setting=setting)
    goal = draw_goal(scene.adults, scene.test, seed)
    threat = ThreatModel(setting.scaled(150), from_scratch.EPSILON, clean_label=True)
    attackers = {
        name: referee(name, team.attack, scene, (goal, threat, seed))
        for name, team in teams.items()
        if hasattr(team, "attack")
    }
    given = (scene.data, goal, scene.test, scene.model, setting.recipe, seed)
    case = Case(*given, craft=lambda victim: None)
    victims = {PLAIN: case.plain} | {
        name: team.defend(setting.recipe) for name, team in teams.items() if hasattr(team, "defend")
    }
    rows = compare(case, {CLEAN: None} | attackers, victims)
    names = ("attacker", "victim", "success", "accuracy")
    return [{name: row[name] for name in names} for row in rows]


def ranking(frame: pd.DataFrame) -> tuple[pd.DataFrame, pd.Series, pd.Series]:
    """The matrix of success, the points of each attack, and those of each defense.

    An attack has the mean of its row, a defense one minus the mean of its column, minus PRICE times
    the clean accuracy that it loses against the plain victim.
    """
    matrix = frame.pivot_table("success", "attacker", "victim", aggfunc="mean", sort=False)
    clean = frame[frame["attacker"] == CLEAN].groupby("victim")["accuracy"].mean()
    attacks = matrix.drop(index=CLEAN)
    lost = (clean[PLAIN] - clean).clip(lower=0)
    defenses = (1 - attacks.mean() - PRICE * lost)[matrix.columns]
    return matrix, attacks.mean(axis=1), defenses


def main(arguments: list[str] | None = None) -> None:
    """Play, and print the matrix and the points."""
    parser = argparse.ArgumentParser(description="Attack war, defense war.")
    parser.add_argument("folder", type=Path, help="one Python file a team")
    parser.add_argument("--trials", type=int, default=6)
    parser.add_argument("--first", type=int, default=5000, help="the first seed: keep it secret")
    parser.add_argument("--tiny", action="store_true", help="a tenth of the size, to try it out")
    given = parser.parse_args(arguments)
    teams, setting = read_teams(given.folder), MLP.tiny if given.tiny else MLP
    seeds = range(given.first, given.first + given.trials)
    frame = run_trials(lambda seed: trial(seed, teams, setting), seeds)
    matrix, attacks, defenses = ranking(frame)
    print(matrix.round(2).to_string(), "\n")
    print("attacks", attacks.round(2).to_string(), "", sep="\n")
    print("defenses", defenses.round(2).to_string(), sep="\n")


if __name__ == "__main__":
    main()
