"""The schematics: drawn by the tool, described in words, and legible."""

import re
from itertools import combinations, pairwise, product
from xml.etree import ElementTree

import matplotlib.colors
import numpy as np
import pytest
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextToPath
from test_accessibility import APART, DEFICIENCIES, nearest

from tools import schematics
from tools.lessons import ROOT, lesson_files, read
from tools.schematics import COLOURS, FONT, Box

EVERY = schematics.descriptions()
LESSONS = lesson_files()
SHORTEST = 80  # characters of an alternative text
SVG = "{http://www.w3.org/2000/svg}"


def shown(path) -> dict[str, str]:
    """The schematics that a page shows, with their alternative texts."""
    pages = [path.read_text(encoding="utf-8")]
    if path.suffix == ".ipynb":
        pages = [cell.source for cell in read(path).cells if cell.cell_type == "markdown"]
    found = re.findall(r"!\[([^]]*)\]\((?:\.\./)?figures/(\w+)\.svg\)", "\n".join(pages))
    assert len({name for _, name in found}) == len(found)
    return {name: alternative for alternative, name in found}


@pytest.mark.parametrize("name", EVERY)
def test_a_schematic_is_what_the_tool_draws(name):
    stored = (schematics.FIGURES / f"{name}.svg").read_text(encoding="utf-8")
    assert stored == schematics.draw(EVERY[name])


def test_every_schematic_is_described():
    assert {path.stem for path in schematics.FIGURES.glob("*.svg")} == set(EVERY)


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_every_lesson_shows_its_schematic_and_says_what_it_shows(path):
    pictures = shown(path)
    expected = {path.stem} | ({"00_map"} if path.stem.startswith("00") else set())
    assert pictures == {name: EVERY[name]["alt"] for name in expected}
    assert min(map(len, pictures.values())) >= SHORTEST


def test_the_readme_shows_the_map():
    assert shown(ROOT / "README.md") == {"00_map": EVERY["00_map"]["alt"]}


def test_the_instructor_sees_every_board_sketch():
    boards = {name for name in EVERY if name.startswith("board_")}
    pictures = shown(ROOT / "INSTRUCTOR.md")
    assert pictures == {name: EVERY[name]["alt"] for name in boards}
    assert min(map(len, pictures.values())) >= SHORTEST


def test_the_map_holds_every_lesson():
    numbers = {name[1:] for name in EVERY["00_map"]["boxes"]}
    assert {path.name[:2] for path in LESSONS} <= numbers
    assert [n for n in numbers if f"{n} " not in EVERY["00_map"]["alt"]] == []
    texts = [cell[3] for cell in EVERY["00_map"]["boxes"].values()]
    assert sorted(text[:2] for text in texts) == sorted(numbers)


def length(words: str, bold: bool = False) -> float:
    """How long a line of text is in the widest of the fonts that the pictures name."""
    font = FontProperties(family="DejaVu Sans", size=FONT, weight="bold" if bold else "normal")
    return TextToPath().get_text_width_height_descent(words, font, False)[0]


def texts(svg: str) -> list[Box]:
    """The lines of text in a picture, each with the space that it takes."""
    found = []
    for element in ElementTree.fromstring(svg).iter(f"{SVG}text"):
        wide = length(element.text, bold=element.get("font-weight") == "bold")
        x, y = float(element.get("x")), float(element.get("y"))
        left = x if element.get("text-anchor") == "start" else x - wide / 2
        found.append(Box(left, y - 0.8 * FONT, wide, FONT, "", [element.text]))
    return found


def meet(a: Box, b: Box) -> bool:
    """Whether two boxes have more than a border in common."""
    across = min(a.right, b.right) - max(a.left, b.left)
    return across > 0.1 and min(a.bottom, b.bottom) - max(a.top, b.top) > 0.1


def grown(box: Box, by: float) -> Box:
    """A box that reaches further on each side."""
    size = box.width + 2 * by, box.height + 2 * by
    return Box(box.left - by, box.top - by, *size, box.kind, box.lines)


def holds(outer: Box, inner: Box, margin: float) -> bool:
    """Whether one box lies in another, with a margin."""
    across = outer.left + margin <= inner.left and inner.right <= outer.right - margin
    return across and outer.top <= inner.top and inner.bottom <= outer.bottom


def faults(description: dict) -> list[str]:
    """What cannot be read in a schematic."""
    boxes, lanes = schematics.place(description)
    svg = schematics.draw(description)
    card = Box(0, 0, *map(float, ElementTree.fromstring(svg).get("viewBox").split()[2:]), "", [])
    words = texts(svg)
    found = [f"{box.lines} leaves the picture" for box in words if not holds(card, box, 3)]
    for name, box in boxes.items():
        if not any(holds(lane, box, 0) for lane in lanes):
            found.append(f"{name} lies in no lane")
        room = {"data": 6, "model": 6, "note": 0}.get(box.kind, 4)
        found += [f"{line!r} is too long" for line in box.lines if length(line) > box.width - room]
    in_boxes = {line for box in boxes.values() for line in box.lines}
    labels = [box for box in words if box.lines[0] not in in_boxes]
    pairs = [
        *combinations(boxes.values(), 2),
        *combinations(words, 2),
        *product(labels, boxes.values()),
    ]
    found += [f"{a.lines} and {b.lines} overlap" for a, b in pairs if meet(a, b)]
    # An arrow ends on a border, so half of its width lies inside.
    solid = [*words, *(grown(box, -1) for box in boxes.values())]
    for start, end, style in schematics.full(description["arrows"]):
        path = schematics.route(boxes[start], boxes[end], style.get("route", ""))
        pieces = [
            Box(min(x, x2), min(y, y2), abs(x - x2), abs(y - y2), "", [])
            for (x, y), (x2, y2) in pairwise(path)
        ]
        if pieces[-1].width + pieces[-1].height < 9:
            found.append(f"the arrow {start}, {end} has no room for its head")
        crossed = [box for piece in pieces for box in solid if meet(grown(piece, 0.5), box)]
        found += [f"the arrow {start}, {end} runs through {box.lines}" for box in crossed]
    return found


@pytest.mark.parametrize("name", EVERY)
def test_nothing_is_cut_off_and_nothing_overlaps(name):
    assert faults(EVERY[name]) == []


GOOD = {
    "title": "Two boxes",
    "alt": "One box and another.",
    "lanes": [["attack", "attacker", 1], ["", "victim", 1]],
    "arrows": [["a", "b"], ["b", "c"]],
    "boxes": {
        "a": [0, 0, "data", "one"],
        "b": [0, 2, "attack", "two"],
        "c": [1, 1, "model", "three\nfour"],
    },
}


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"a": [0, 0, "data", "a text that no box of this width can hold"]}, "is too long"),
        ({"d": [0, 2, "step", "twice"]}, "overlap"),
        ({"d": [0, 1, "step", "between"]}, "the arrow a, b runs through ['between']"),
        ({"c": [1, 3, "model", "far"]}, "lies in no lane"),
        ({"d": [0, 1.7, "step", "near"]}, "overlap"),
    ],
)
def test_what_cannot_be_read_is_found(changes, fault):
    assert faults(GOOD) == []
    broken = faults(GOOD | {"boxes": GOOD["boxes"] | changes})
    assert [line for line in broken if fault in line]


def test_an_arrow_runs_back_under_its_row_and_its_label_with_it():
    back = GOOD["arrows"] + [["b", "a", {"route": "back", "label": "again"}]]
    assert faults(GOOD | {"arrows": back}) == []
    boxes, _ = schematics.place(GOOD | {"arrows": back})
    path = schematics.route(boxes["b"], boxes["a"], "back")
    assert min(y for _, y in path[1:3]) > boxes["a"].bottom
    assert boxes["c"].top - boxes["a"].bottom > schematics.BACK


@pytest.mark.parametrize("name", EVERY)
def test_letters_are_nine_pixels_high_where_a_picture_is_400_wide(name):
    root = ElementTree.fromstring(schematics.draw(EVERY[name]))
    assert float(root.get("font-size")) * 400 / float(root.get("viewBox").split()[2]) >= 9
    assert [e for e in root.iter() if e is not root and e.get("font-size")] == []
    assert root.get("role") == "img"
    assert root.find(f"{SVG}desc").text == EVERY[name]["alt"]


def contrast(one: str, other: str) -> float:
    """The contrast of two colours as WCAG 2.2 defines it, from 1 to 21."""
    rgb = np.array([matplotlib.colors.to_rgb(colour) for colour in (one, other)])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    dark, light = sorted(linear @ [0.2126, 0.7152, 0.0722])
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", COLOURS)
def test_text_and_lines_stand_out(theme):
    """WCAG 2.2: 4.5 for text (1.4.3), 3 for lines that mean something (1.4.11)."""
    colours = COLOURS[theme]
    grounds = [fill for role, (fill, _) in colours.items() if role.startswith(("card", "lane"))]
    fills = [*grounds, *(colours[role][0] for role in ("box", "attack", "defense"))]
    assert min(contrast(colours["text"][0], fill) for fill in fills) >= 4.5
    lines = [line for role, (_, line) in colours.items() if role not in ("card", "text")]
    lines = [line for line in lines if line != "none"]
    assert min(contrast(line, ground) for line in lines for ground in grounds) >= 3


@pytest.mark.parametrize("theme", COLOURS)
@pytest.mark.parametrize("deficiency", DEFICIENCIES)
def test_attacker_and_defense_stay_apart_for_every_eye(theme, deficiency):
    assert nearest([COLOURS[theme][role][1] for role in ("attack", "defense")], deficiency) > APART


def test_attacker_and_defense_differ_without_colour():
    kinds = ("step", "attack", "defense")
    boxes = ["".join(schematics.draw_box(Box(0, 0, 50, 20, kind, []))) for kind in kinds]
    assert ["dasharray" in box for box in boxes] == [False, True, False]
    assert [box.count("<rect") for box in boxes] == [1, 1, 2]


def test_both_themes_are_in_a_picture():
    svg = schematics.draw(GOOD)
    light, dark = svg.split("@media (prefers-color-scheme: dark)")
    assert COLOURS["light"]["attack"][0] in light
    assert COLOURS["dark"]["attack"][0] not in light
    assert COLOURS["dark"]["attack"][0] in dark


def test_a_page_gets_the_alternative_text_of_its_own_schematics():
    page = "![](../figures/one.svg)\n![kept](figures/two.svg) ![old](figures/one.svg)"
    page = schematics.with_alternative(page, "one", r"A new \1 text.")
    assert page == (
        "![A new \\1 text.](../figures/one.svg)\n"
        "![kept](figures/two.svg) ![A new \\1 text.](figures/one.svg)"
    )
