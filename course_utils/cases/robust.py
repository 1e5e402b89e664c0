"""Built in lesson 13, adversarial training.

Generated from notebooks/13_adversarial_training.ipynb: edit it there, then run make notebooks.
"""

from collections.abc import Callable, Sequence
from functools import partial

from course_utils.defense import PLAIN, Defense
from course_utils.defenses.pgd_training import pgd_training
from course_utils.training import Recipe
from course_utils.trials import Rows, Victim

Ladder = dict[tuple[str, str], Victim]  # (name, strength) -> a defense with its recipe


def ladder(
    name: str, make: Callable[[float], Defense], greys: Sequence[int], recipe: Recipe
) -> Ladder:
    """Victims with one defense at several strengths, given in grey levels of 255."""
    return {(name, f"{grey}/255"): Victim(make(grey / 255), recipe) for grey in greys}


PGD = "PGD training"


def undefended(recipe: Recipe) -> Ladder:
    """The plain victim of a recipe."""
    return {("plain", "none"): Victim(PLAIN, recipe)}


def pgd_trained(recipe: Recipe, *greys: int) -> Ladder:
    """Victims with PGD training, one step, at these strengths."""
    return ladder(PGD, partial(pgd_training, steps=1), greys, recipe)


def laddered(rows: Rows) -> Rows:
    """The rows of `compare`; name and strength of each victim have columns of their own."""
    found = []
    for row in rows:
        name, strength = row["victim"]
        labels = {"attack": row["attacker"], "defense": name, "strength": strength}
        rest = {key: row[key] for key in row if key not in ("attacker", "victim")}
        found.append(labels | rest)
    return found
