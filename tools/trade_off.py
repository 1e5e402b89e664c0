"""Draw the picture of the README from the stored studies: python -m tools.trade_off.

Nothing is trained. The numbers behind the picture are stored in it, so that a test can tell when a
study has changed since.
"""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke

from course_utils import setup
from course_utils.cases import poisoning
from course_utils.defenses.trade_off import plot_trade_off, trade_off_table
from course_utils.stored import Study, load_study
from course_utils.studies import lesson_10, lesson_11, lesson_12, lesson_13, lesson_14
from tools.lessons import ROOT
from tools.schematics import LICENCE

PICTURE = ROOT / "figures" / "trade_off.png"
KEY = "Numbers"  # the field of the file that holds the numbers behind the picture
COMMON = {"attack": "150 poisons", "budget": 150}  # where a study has more than one attack

# Family -> label -> (the study, which of its rows, where the label stands, in points)
SHAPING, FILTERS = lesson_10.MATCHING, lesson_11.MATCHING
MIXING, TRAINING = lesson_12.MATCHING, lesson_13.MATCHING
FAMILIES: dict[str, dict[str, tuple[Study, dict[str, str], tuple[int, int]]]] = {
    "no defense; along the line only less training": {
        "plain training": (SHAPING, {"victim": "plain", "rate": "equal"}, (-62, 10)),
        "9 epochs": (MIXING, {"victim": "plain, 9 epochs"}, (-41, 5)),
        "6 epochs": (MIXING, {"victim": "plain, 6 epochs"}, (-41, 5)),
        "low learning rate": (SHAPING, {"victim": "plain", "rate": "slow"}, (-75, 3)),
        "lower": (SHAPING, {"victim": "plain", "rate": "slower"}, (-32, 4)),
    },
    "gradient shaping (lesson 10)": {
        "clipping": (SHAPING, {"victim": "clip", "rate": "tuned"}, (7, 3)),
        "clipping + noise": (SHAPING, {"victim": "clip + noise", "rate": "tuned"}, (-71, 5)),
    },
    "filtering (lesson 11)": {
        "Spectral Signatures": (FILTERS, {"filter": "Spectral Signatures"}, (-92, 5)),
        "Activation Clustering": (FILTERS, {"filter": "Activation Clustering"}, (-92, 3)),
        "Deep k-NN": (FILTERS, {"filter": "Deep k-NN"}, (-46, 5)),
        "four sanitizers": (FILTERS, {"filter": "four sanitizers"}, (-72, -10)),
    },
    "augmentation, mixing (lesson 12)": {
        name: (MIXING, {"victim": name}, place)
        for name, place in {
            "augmentation": (7, 4),
            "Mixup": (7, 2),
            "CutMix": (7, 3),
            "Cutout": (-40, 1),
            "MaxUp": (7, -9),
        }.items()
    },
    "PGD training (lesson 13)": {
        f"PGD {k}/255": (TRAINING, {"defense": "PGD training", "strength": f"{k}/255"}, (7, -10))
        for k in (8, 16, 32)
    },
    "sign noise (lesson 13)": {
        "signs 64/255": (TRAINING, {"defense": "sign noise", "strength": "64/255"}, (7, 5))
    },
    "poisoning training (lesson 14)": {
        "poisoning training": (
            lesson_14.MATCHING,
            {"defense": poisoning.CHEAP, "strength": "96/255"},
            (7, -10),
        ),
        "more poisons": (
            lesson_14.SWEEPS,
            {"defense": "three quarters poisons", "strength": "96/255"},
            (7, -10),
        ),
    },
}


def collect() -> pd.DataFrame:
    """One row a trial and point: the family as `defense`, the label as `strength`."""
    parts = []
    for family, points in FAMILIES.items():
        for label, (study, wanted, _) in points.items():
            rows = load_study(study)
            for column, value in {**COMMON, **wanted}.items():
                rows = rows[rows[column] == value] if column in rows else rows
            part = rows[["trial", "success", "accuracy"]]
            parts.append(part.assign(defense=family, strength=label))
    return pd.concat(parts, ignore_index=True)


def numbers(frame: pd.DataFrame) -> str:
    """The numbers in the picture, as text."""
    columns = ["defense", "strength", "trials", "success", "low", "high", "accuracy"]
    table = trade_off_table(frame)[columns]
    return table.round(3).to_csv(index=False, lineterminator="\n")


def draw(frame: pd.DataFrame) -> Axes:
    """Success against clean accuracy, with the label of each point where it can be read."""
    axis = plot_trade_off(frame, axis=plt.figure(figsize=(8.6, 5)).gca())
    places = {k: place for points in FAMILIES.values() for k, (*_, place) in points.items()}
    for text in axis.texts:
        text.set_position(places[text.get_text()])
        text.set_fontsize(8)
        text.set_path_effects([withStroke(linewidth=2.5, foreground="white")])
        text.set_zorder(5)
    for number, points in enumerate(axis.containers):
        points.lines[0].set_linestyle("none" if number else ":")
    axis.set(
        xlabel="accuracy on clean test images (right is better)",
        ylabel="share of attacks that succeed (down is better)",
        title="Gradient matching, 5% of the data poisoned: forty attacks against each victim",
    )
    axis.legend(loc="upper left", fontsize=8)
    return axis


def main() -> None:
    """Write the picture."""
    setup()
    frame = collect()
    figure = draw(frame).figure
    PICTURE.parent.mkdir(exist_ok=True)
    metadata = {KEY: numbers(frame), "Software": None, "Copyright": LICENCE}
    figure.savefig(PICTURE, dpi=110, metadata=metadata)
    print(numbers(frame))
    print(f"{PICTURE.relative_to(ROOT)}: {PICTURE.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
