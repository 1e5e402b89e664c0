"""The core path and the side roads: map, lesson 00, README and the lessons themselves agree."""

import re

import pytest

from tools import schematics
from tools.lessons import ROOT, lesson_files, read

LESSONS = {path.name[:2]: path for path in lesson_files()}
START = "\n\n".join(cell.source for cell in read(LESSONS["00"]).cells)
README = (ROOT / "README.md").read_text(encoding="utf-8")
BOXES = schematics.descriptions()["00_map"]["boxes"]
KINDS = {name[1:]: kind for name, (_, _, kind, _) in sorted(BOXES.items(), key=lambda b: b[1][0])}
CORE = [number for number, kind in KINDS.items() if kind == "core"]
HOURS = ["eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen"]


def table(heading: str) -> list[str]:
    """The lessons of a table in lesson 00, in its order; each row links to the lesson it names."""
    text = START.partition(f"\n### {heading}\n")[2].partition("\n### ")[0].partition("\n## ")[0]
    rows = re.findall(r"^\| (\d\d) \| \[[^]]+\]\((\d\d)_\w+\.ipynb\) \| .+ \|$", text, re.MULTILINE)
    assert [number for number, link in rows if number != link] == []
    return [number for number, _ in rows]


def test_lesson_00_has_the_core_path_of_the_map_and_every_other_lesson_as_a_side_road():
    assert table("The core path") == CORE
    assert sorted(table("The side roads")) == sorted(set(KINDS) - set(CORE))


def test_the_readme_names_the_core_path_in_its_order_and_every_side_road():
    core = re.search(r"\*\*The core path\*\*, in this order: ([\d, ]+)\.", README)[1]
    assert core.split(", ") == CORE
    roads = README.partition("**Side roads**")[2].partition("[Lesson 00]")[0]
    assert set(KINDS) - set(CORE) <= set(re.findall(r"\d\d", roads))


@pytest.mark.parametrize("number", LESSONS)
def test_a_lesson_says_whether_it_is_on_the_core_path(number):
    words = {"core": "Core path", "side": "Side road"}
    assert f"<sub>{words[KINDS[number]]}. " in read(LESSONS[number]).cells[0].source


@pytest.mark.parametrize("text", [START, README], ids=["lesson 00", "README"])
def test_the_hours_of_the_core_path_are_the_sum_of_its_minutes(text):
    minutes = sum(read(LESSONS[number]).metadata.course.minutes for number in CORE)
    said = re.search(r"add up to about (\w+)\s+hours", text)[1]
    assert HOURS.index(said) + 11 == round(minutes / 60)
