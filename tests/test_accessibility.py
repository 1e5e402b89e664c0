"""Alternative texts, and colours that stay apart for eyes that see fewer of them."""

import re
from itertools import combinations

import matplotlib.colors
import numpy as np
import pytest
import seaborn as sns
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from course_utils.plots import MARKERS
from tools import figures
from tools.lessons import code_cells, lesson_files, read

# Machado, Oliveira and Fernandes: A Physiologically-based Model for Simulation of Color Vision
# Deficiency, IEEE TVCG 15(6), 2009: the matrices for severity 1.0, on linear RGB.
DEFICIENCIES = {
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
TO_XYZ = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)
APART = 10  # in CIE 1976 units, of which about 2.3 are just noticeable


def nearest(colours: list, deficiency: str) -> float:
    """The smallest distance, in CIE Lab, between two of the colours as such eyes see them."""
    rgb = np.array([matplotlib.colors.to_rgb(colour) for colour in colours])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.array(DEFICIENCIES[deficiency]).T, 0, 1)
    xyz = seen @ TO_XYZ.T / TO_XYZ.sum(axis=1)
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    lightness, a, b = 116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])
    lab = np.stack([lightness, a, b], axis=1)
    return min(float(np.linalg.norm(one - other)) for one, other in combinations(lab, 2))


@pytest.mark.parametrize("deficiency", DEFICIENCIES)
def test_the_colours_of_the_course_stay_apart(deficiency):
    assert nearest(sns.color_palette("colorblind")[: len(MARKERS)], deficiency) > APART


HATCHED = re.compile(r"\.set\((?=[^)]*\bcolor=)[^)]*\bhatch=")  # the lines get the bar's colour


@pytest.mark.parametrize("path", lesson_files(), ids=lambda path: path.stem)
def test_no_hatch_is_drawn_in_the_colour_of_its_bar(path):
    assert not [cell.source for cell in code_cells(read(path)) if HATCHED.search(cell.source)]


def test_a_hidden_hatch_is_found():
    assert HATCHED.search('bars[0].set(color="C1", hatch="//")')
    assert HATCHED.search('bars[0].set(hatch="//", color="C1")')
    assert not HATCHED.search('bars[0].set(facecolor="C1", edgecolor="black", hatch="//")')


def test_each_colour_has_a_marker_of_its_own():
    assert len(set(MARKERS)) == len(MARKERS)


@pytest.mark.parametrize(
    ("colours", "deficiency"),
    [
        (["#c02020", "#6c4820"], "protanopia"),
        (["#d62728", "#7c7c00"], "deuteranopia"),
        (["#00a0a0", "#00a088"], "tritanopia"),
    ],
)
def test_colours_that_fall_together_are_found(colours, deficiency):
    assert nearest(colours, deficiency) < APART


def lesson(text: str, pictures: int = 1):
    """A lesson that draws figures and says this under them."""
    drawn = [new_output("display_data", {"image/png": "aGk="}) for _ in range(pictures)]
    return new_notebook(cells=[new_code_cell(outputs=drawn), new_markdown_cell(text)])


@pytest.mark.parametrize(
    ("text", "alternative"),
    [
        ("The line falls.\n\n## Next", "The line falls."),
        ("A **bold** `name`, $\\beta$ and [a link](x.html).", "A bold name, beta and a link."),
        ("Look.\n\n- **One** rises.\n- Two falls.", "Look. One rises. Two falls."),
        (f"{'Long ' * 16}enough. More.", f"{'Long ' * 16}enough."),
    ],
)
def test_the_alternative_text_is_the_sentence_under_the_figure(text, alternative):
    nb = figures.describe(lesson(text))
    assert " ".join(figures.stored(nb.cells[0].outputs[0]).split()) == alternative.replace(
        " ,", ","
    )


def test_figures_of_one_cell_are_counted():
    nb = figures.describe(lesson("Both fall.", pictures=2))
    texts = [figures.stored(output) for output in nb.cells[0].outputs]
    assert texts == ["Figure 1 of 2. Both fall.", "Figure 2 of 2. Both fall."]
