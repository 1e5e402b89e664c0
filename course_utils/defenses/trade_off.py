"""Built in lesson 13, adversarial training.

Generated from notebooks/13_adversarial_training.ipynb: edit it there, then run make notebooks.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from course_utils import statistics


def undominated(accuracy: np.ndarray, success: np.ndarray) -> np.ndarray:
    """Which defenses are not dominated: True where no other is at least as good in both, and better
    in one.

    accuracy: clean accuracy of each defense (N,), high is good. success: success of the attack
    against it (N,), low is good. Equal defenses do not dominate each other.
    """
    as_good = (accuracy[:, None] >= accuracy) & (success[:, None] <= success)
    better = (accuracy[:, None] > accuracy) | (success[:, None] < success)
    return ~(as_good & better).any(0)


SHAPES = ("*", "o", "s", "^", "D", "v", "P", "X", "<", ">")


def trade_off_table(frame: pd.DataFrame, measure: str = "success") -> pd.DataFrame:
    """One row a defense and strength: accuracy and success, each with its 95% interval.

    frame: one row a trial, defense and strength. measure: the column that says what the attack
    achieved, "success" or "asr".
    """
    by = ["defense", "strength"]
    ends = {"low": "accuracy low", "high": "accuracy high"}
    right = statistics.summary(frame, "accuracy", by=by).rename(columns=ends)
    table = statistics.summary(frame, measure, by=by).merge(right.drop(columns="trials"), on=by)
    table["undominated"] = undominated(table["accuracy"].to_numpy(), table[measure].to_numpy())
    return table


def plot_trade_off(frame: pd.DataFrame, measure: str = "success", axis: Axes | None = None) -> Axes:
    """Success of an attack against clean accuracy: one marker a defense, a line over its strengths.

    The frame is that of `trade_off_table`; each point has 95% intervals both ways and its strength.
    """
    axis = plt.figure(figsize=(7, 4.2)).gca() if axis is None else axis
    groups = trade_off_table(frame, measure).groupby("defense", sort=False)
    for number, (name, part) in enumerate(groups):
        x, y = part["accuracy"], part[measure]
        errors = {
            "xerr": np.array([x - part["accuracy low"], part["accuracy high"] - x]),
            "yerr": np.array([y - part["low"], part["high"] - y]),
        }
        style = dict(marker=SHAPES[number % len(SHAPES)], color=f"C{number}", markersize=8)
        axis.errorbar(x, y, **errors, **style, elinewidth=0.8, capsize=2, label=name)
        for point in part[part["strength"] != "none"].to_dict("records"):
            place = (point["accuracy"], point[measure])
            axis.annotate(point["strength"], place, (5, 5), textcoords="offset points", fontsize=7)
    axis.set(xlabel="clean accuracy", ylabel=f"{measure} of the attack", ylim=(-0.03, 1.03))
    axis.margins(x=0.12)
    axis.legend(fontsize=8)
    return axis
