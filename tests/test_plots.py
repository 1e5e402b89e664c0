"""course_utils.plots: the figures that more than one lesson draws."""

import warnings

import matplotlib.pyplot as plt
import pandas as pd
import pytest
import torch

from course_utils.plots import plot_intervals, show_images
from course_utils.statistics import summary


@pytest.fixture(autouse=True)
def no_warning_and_no_window():
    backend = plt.get_backend()
    plt.switch_backend("agg")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", ".*non-interactive.*")
        yield
    plt.close("all")
    plt.switch_backend(backend)


def pixels(axis) -> tuple[int, ...]:
    """The shape of the image that an axis shows."""
    return axis.get_images()[0].get_array().shape


@pytest.mark.parametrize(("channels", "shape"), [(1, (5, 4)), (3, (5, 4, 3))])
def test_images_are_drawn_in_rows_with_their_titles(channels, shape):
    images = torch.rand(5, channels, 5, 4).requires_grad_()
    titles = ["$5", "a_b$^", 7, "x"]
    show_images(images, titles, columns=3)
    axes = plt.gcf().axes
    assert len(axes) == 6
    assert [pixels(axis) for axis in axes[:5]] == [shape] * 5
    assert [axis.get_title() for axis in axes] == [*map(str, titles), "", ""]
    plt.gcf().canvas.draw()  # what a dollar could break


@pytest.mark.parametrize(
    "shape", [(2, 2, 4, 4), (2, 4, 4, 4), (2, 13, 4, 4), (1, 4, 4), (0, 1, 4, 4)]
)
def test_what_cannot_be_drawn_is_refused(shape):
    with pytest.raises(ValueError, match=r"1 or 3 channels: for one image write image\[None\]"):
        show_images(torch.zeros(shape))


def test_intervals_are_drawn_where_the_table_has_them():
    trials = pd.DataFrame(
        [
            {"trial": trial, "condition": condition, "success": trial < wins}
            for trial in range(20)
            for condition, wins in (("clean", 0), ("attack", 15))
        ]
    )
    table = summary(trials, "success")
    axis = plot_intervals(table, "success", trials=trials)
    plt.gcf().canvas.draw()
    assert [text.get_text() for text in axis.get_yticklabels()] == ["clean", "attack"]
    for position, bars in enumerate(axis.containers):
        (low, height), (high, _) = bars.lines[2][0].get_segments()[0]
        row = table.iloc[position]
        assert (low, high, height) == pytest.approx((row["low"], row["high"], position))
