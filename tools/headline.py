"""Draw the picture of the README from the stored studies: python -m tools.headline.

Nothing is trained. The numbers behind the picture are stored in it, so that a test can tell when
a study has changed since.
"""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from course_utils import setup, statistics
from course_utils.studies.lesson_16 import NETWORKS, rows_on
from tools.lessons import ROOT
from tools.schematics import LICENCE

PICTURE = ROOT / "figures" / "headline.png"
KEY = "Numbers"  # the field of the file that holds the numbers behind the picture
LESSONS = {
    "four sanitizers": "03",
    "clipping": "10",
    "gradient shaping": "10",
    "Spectral Signatures": "11",
    "Activation Clustering": "11",
    "Deep k-NN": "11",
    "augmentation": "12",
    "Mixup": "12",
    "CutMix": "12",
    "Cutout": "12",
    "MaxUp": "12",
    "PGD training 8/255": "13",
    "PGD training 16/255": "13",
    "PGD training 32/255": "13",
    "cheap poisoning training": "14",
    "poisoning training": "14",
}
ATTACKERS = {
    "oblivious": ("C0", "o", "the attacker does not know the defense"),
    "knowing": ("C3", "s", "the attacker knows it"),
}
PLAIN = "plain training"


def collect() -> pd.DataFrame:
    """One row a network, attacker and defense, as `statistics.against_controls` gives them; then
    plain."""
    parts = []
    for network in NETWORKS:
        rows = rows_on(network, "gradient matching")
        for attacker in ATTACKERS:
            met = statistics.defended(rows, attacker)
            found = statistics.against_controls(rows, met, attacker)
            shown = found.loc[[name for name in LESSONS if name in met]]
            parts.append(shown.assign(attacker=attacker, network=network))
        its = rows[rows["victim"] == "plain"].set_index("attacker")
        plain = {
            "network": network,
            "attacker": "oblivious",
            "accuracy": its.loc["clean", "accuracy"].mean(),
            "lost": int(its.loc["oblivious", "success"].sum()),
        }
        parts.append(pd.DataFrame([plain], index=[PLAIN]))
    return pd.concat(parts).rename_axis("victim").reset_index()


def numbers(table: pd.DataFrame) -> str:
    """The numbers in the picture, as text."""
    kinds = ["network", "victim", "attacker"]
    columns = [*kinds, "accuracy", "lost", "control", "control_lost", "verdict"]
    # The empty cell of plain training, which has no control, makes points of all the others.
    whole = table[columns].astype({"control_lost": "Int64"})
    return whole.to_csv(index=False, lineterminator="\n", float_format="%.3f")


def draw(table: pd.DataFrame) -> Figure:
    """Targets lost by each defense and by its control, on each network; the defense most accurate
    on the first that it met at the top."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 6.6), sharex=True, layout="constrained")
    means = table.groupby(["network", "victim"])["accuracy"].mean()
    first = table.drop_duplicates("victim").set_index("victim")["accuracy"]
    order = [*first.sort_values().index.drop(PLAIN), PLAIN]
    lessons = {name: f" ({lesson})" for name, lesson in LESSONS.items()} | {PLAIN: ""}
    for axis, (network, part) in zip(axes, table.groupby("network", sort=False), strict=True):
        draw_network(axis, part, order)
        shown = [name for name in order if name in means[network]]
        labels = [
            (f"{name}{lessons[name]}  " if axis is axes[0] else "") + f"{means[network, name]:.3f}"
            for name in shown
        ]
        axis.set_yticks([order.index(name) for name in shown], labels)
        axis.set_title(network)
        axis.set(xlabel="targets lost, of 52 (left is better)", xlim=(-1, 53))
        axis.set_ylim(-0.6, len(order) - 0.4)
    axes[0].set_ylabel("defense (lesson) and its accuracy on clean test images")
    title = "Gradient matching, 5% of the data poisoned: 52 attacks against each victim"
    figure.suptitle(title, fontsize=12)
    looks = {text: {"color": color, "marker": marker} for color, marker, text in ATTACKERS.values()}
    bar = {"marker": "|", "markersize": 11, "markeredgewidth": 2}
    looks["about as accurate, but undefended"] = {"color": "0.3", **bar}
    looks["no difference shown"] = {"color": "0.3", "marker": "o", "markerfacecolor": "white"}
    handles = [Line2D([], [], linestyle="none", label=k, **look) for k, look in looks.items()]
    figure.legend(handles=handles, loc="outside lower center", fontsize=9, ncols=4)
    return figure


def draw_network(axis: Axes, part: pd.DataFrame, order: list[str]) -> None:
    """One network: a point for each attacker and defense, and a bar for the control."""
    for number, (attacker, (color, marker, _)) in enumerate(ATTACKERS.items()):
        for row in part[part["attacker"] == attacker].to_dict("records"):
            y = order.index(row["victim"]) + (0.17 - 0.34 * number) * (row["victim"] != PLAIN)
            shown = row["verdict"] in ("lower", "higher") or row["victim"] == PLAIN
            axis.plot([row["lost"], row["control_lost"]], [y, y], color=color, alpha=0.45)
            axis.plot(row["control_lost"], y, "|", color=color, markersize=11, markeredgewidth=2)
            face = color if shown else "white"
            axis.plot(row["lost"], y, marker, color=color, markerfacecolor=face, markersize=7)


def main() -> None:
    """Write the picture."""
    setup()
    table = collect()
    figure = draw(table)
    PICTURE.parent.mkdir(exist_ok=True)
    metadata = {KEY: numbers(table), "Software": None, "Copyright": LICENCE}
    figure.savefig(PICTURE, dpi=100, metadata=metadata)
    print(numbers(table))
    print(f"{PICTURE.relative_to(ROOT)}: {PICTURE.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
