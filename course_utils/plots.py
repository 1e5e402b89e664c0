"""The figures that more than one lesson draws."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from torch import Tensor

MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def show_images(
    images: Tensor, titles: Sequence[str] = (), columns: int = 8, size: float = 1.1
) -> None:
    """Draw images (N, C, H, W), values in [0, 1], in rows of `columns`, with a title each.

    Raises ValueError unless there is an image, with one channel (grey) or three (colours).
    """
    if images.ndim != 4 or len(images) == 0 or images.shape[1] not in (1, 3):
        raise ValueError(
            f"The images have shape {tuple(images.shape)}, expected (N, C, H, W) with at least one "
            "image and 1 or 3 channels: for one image write image[None], for one channel "
            "images[:, :1]."
        )
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    height = rows * (size + (0.25 if titles else 0.0))
    _, axes = plt.subplots(rows, columns, figsize=(columns * size, height), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    pictures = images.detach().permute(0, 2, 3, 1).cpu().numpy()
    for axis, picture in zip(axes.flat, pictures, strict=False):
        axis.imshow(picture, vmin=0, vmax=1, cmap="gray")  # colours ignore these
    for axis, title in zip(axes.flat[: len(images)], titles, strict=False):
        axis.set_title(title, fontsize=8, parse_math=False)
    plt.show()


def plot_intervals(
    table: pd.DataFrame,
    measure: str,
    label: str = "condition",
    trials: pd.DataFrame | None = None,
    axis: Axes | None = None,
) -> Axes:
    """Draw a table of `statistics.summary`: one line a group, its estimate and its 95% interval.

    With `trials`, the frame behind the table, each trial is drawn as a grey dot as well.
    """
    if axis is None:
        axis = plt.figure(figsize=(7, 0.8 + 0.5 * len(table))).gca()
    for position, (_, row) in enumerate(table.iterrows()):
        if trials is not None:
            values = trials.loc[trials[label] == row[label], measure].astype(float)
            axis.plot(values, [position + 0.22] * len(values), "|", color="0.6", markersize=7)
        error = [[row[measure] - row["low"]], [row["high"] - row[measure]]]
        marker = MARKERS[position % len(MARKERS)]
        axis.errorbar(
            row[measure], position, xerr=error, fmt=marker, color=f"C{position}", capsize=4
        )
    axis.set_yticks(range(len(table)), table[label])
    axis.set_ylim(len(table) - 0.5, -0.5)
    axis.set_xlabel(measure)
    return axis
