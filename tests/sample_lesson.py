"""A tiny course in a folder of its own, for the tests of the tools."""

import shutil
import sys
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from tools.badges import fill, public_address
from tools.lessons import ROOT, fold, read, to_text
from tools.run import clean, source_hash

NAME = "05_gradient_matching.ipynb"
DOUBLE = '''\
#| export attacks.doubling
def double(x: int) -> int:
    """Twice x.

    Slowly.
    """
    return round(math.ldexp(x, 1))'''
QUESTIONS = "\n".join(
    f"<details><summary>{n}. Why?</summary>\n\nSo.\n\n</details>" for n in range(1, 6)
)
CHECK = """\
def check_double(fn):
    assert fn(2) == 4


check_double(double)"""


def code(source: str, *tags: str) -> NotebookNode:
    """A code cell."""
    return new_code_cell(source, metadata={"tags": list(tags)} if tags else {})


def lesson() -> NotebookNode:
    """A good lesson that nobody has executed."""
    text = new_markdown_cell
    cells = [
        text("# 05 · Gradient matching\n\n<!-- badges -->\n<!-- /badges -->\n\nA promise."),
        code("", "setup"),
        code("import math"),
        code('#| export studies.lesson_05\nHALF = "half"\n\n\ndef study():\n    return double(3)'),
        text("## What must hold"),
        code("assert math.pi > 3", "must-hold"),
        text("## Exercises\n\nSee [the data](../data/README.md)."),
        code(DOUBLE, "exercise"),
        code(CHECK, "check"),
        text(
            f"## What this does not show\n\nMuch.\n\n## Five questions\n\n{QUESTIONS}\n\n## Summary"
        ),
    ]
    return new_notebook(cells=cells, metadata={"course": {"minutes": 5}})


def make_course(root: Path, nb: NotebookNode | None = None, name: str = NAME) -> Path:
    """Write a course with one lesson below ROOT and return the lesson's path."""
    path = root / "notebooks" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "pyproject.toml", root / "pyproject.toml")
    nbformat.write(nb or lesson(), path)
    return path


def as_if_executed(path: Path, root: Path) -> NotebookNode:
    """Fill in badges, counts and hash of a lesson without running it."""
    nb = fill(read(path), path.name, public_address(root))
    cells = [cell for cell in nb.cells if cell.cell_type == "code"]
    for count, cell in enumerate(cells, start=1):
        cell.execution_count = count
    clean(nb)
    fold(nb)
    nb.metadata.course.executed_sha256 = source_hash(nb)
    path.write_text(to_text(nb), encoding="utf-8")
    return nb


def link_environment(course: Path) -> None:
    """Give a copy of the course this Python's environment as its own, by links.

    With another VENV `make` would take the course as moved, and delete that environment.
    """
    own = course / ".venv"
    own.mkdir()
    for part in Path(sys.prefix).iterdir():
        if part.name != ".installed":
            (own / part.name).symlink_to(part)
    (own / ".installed").write_text(f"{course}\n", encoding="utf-8")
