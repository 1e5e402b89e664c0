"""What the tools share: finding lessons, reading them, and comparing generated files."""

import math
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import nbformat
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[1]
WORDS, LINES = 200, 25  # of text and of code that a reader takes in in a minute
FOLDED = {"setup": "setup cell", "exercise": "solution"}  # the cells shown folded, by their tag
EXERCISE = re.compile(
    r"^### Exercise \d+: .+ "
    r"\((\d+) minutes, (?:easy|medium|hard), (?:essential|useful|optional)\)$",
    re.MULTILINE,
)


def lesson_files(root: Path = ROOT, lesson: str | None = None) -> list[Path]:
    """The notebooks of all lessons in order, or of one ("05")."""
    found = sorted((root / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    if not lesson:
        return found
    chosen = [path for path in found if path.name.startswith(f"{lesson.zfill(2)}_")]
    if not chosen:
        numbers = ", ".join(path.name[:2] for path in found) or "none"
        sys.exit(f"No lesson {lesson!r} in notebooks/. There is: {numbers}.")
    return chosen


def read(path: Path) -> NotebookNode:
    """Read a notebook, with an error that names the file when it is damaged."""
    try:
        return nbformat.read(path, as_version=4)
    except Exception as error:
        raise ValueError(f"{path.name} is not a readable notebook: {error}") from error


def to_text(nb: NotebookNode) -> str:
    """The text of a notebook file."""
    return nbformat.writes(nb).rstrip("\n") + "\n"


def code_cells(nb: NotebookNode) -> list[NotebookNode]:
    """The code cells in order."""
    return [cell for cell in nb.cells if cell.cell_type == "code"]


def has_tag(cell: NotebookNode, tag: str) -> bool:
    """Whether a cell carries a tag."""
    return tag in cell.metadata.get("tags", [])


def title(nb: NotebookNode) -> str:
    """The first heading of the first cell, without the lesson's number."""
    heading = re.search(r"^# (.+)$", nb.cells[0].source if nb.cells else "", re.MULTILINE)
    if not heading:
        raise ValueError("the first cell must hold the title, a line that begins with '# '")
    return re.sub(r"^(Lesson\s+)?\d+\W+", "", heading[1].strip())


def anchor(heading: str) -> str:
    """What follows the # in a link to this heading of a page."""
    return re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-")


def prose(nb: NotebookNode) -> str:
    """The text of a lesson: its markdown cells."""
    return "\n\n".join(cell.source for cell in nb.cells if cell.cell_type == "markdown")


def minutes_needed(nb: NotebookNode) -> int:
    """Minutes for the text, the code and the exercises of a lesson, without *Go further*.

    Addresses, alternative texts and the setup cell are not read. The cells run in the meantime.
    """
    text = prose(nb)
    words = re.sub(
        r"<!-- badges -->.*?<!-- /badges -->|!\[[^]]*\]|\]\([^)]*\)|<[^>]*>",
        " ",
        text,
        flags=re.DOTALL,
    )
    code = [cell.source for cell in code_cells(nb) if not has_tag(cell, "setup")]
    lines = [line for source in code for line in source.splitlines() if line.strip()]
    exercises = sum(int(minutes) for minutes in EXERCISE.findall(text))
    return math.ceil(len(words.split()) / WORDS + len(lines) / LINES + exercises)


def is_folded(cell: NotebookNode) -> bool:
    """Whether a cell is to be shown folded."""
    return any(has_tag(cell, tag) for tag in FOLDED)


def fold(nb: NotebookNode) -> None:
    """Fold the setup cell and the solutions: in JupyterLab a click on the dots opens one."""
    for cell in code_cells(nb):
        if is_folded(cell):
            cell.metadata["jupyter"] = {"source_hidden": True}


def without_export(source: str) -> str:
    """A cell's source without its export line."""
    return source.partition("\n")[2] if source.startswith("#| export") else source


def ruff(command: list[str], text: str, path: Path) -> str:
    """Pass text through ruff, with the settings that hold for a file at this path."""
    run = [sys.executable, "-m", "ruff", *command, "--quiet", "--stdin-filename", str(path), "-"]
    done = subprocess.run(run, input=text, capture_output=True, encoding="utf-8")
    if done.returncode:
        raise ValueError(f"ruff could not read {path.name}: {done.stderr.strip()}")
    return done.stdout


def write(path: Path, text: str) -> None:
    """Replace a file in one step, and only when its text changes."""
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


def differences(expected: dict[Path, str], found: Iterable[Path]) -> list[str]:
    """How the generated files on disk differ from what the notebooks give."""
    problems = []
    for path, text in expected.items():
        if not path.exists():
            problems.append(f"{path} is missing: run make notebooks")
        elif path.read_text(encoding="utf-8") != text:
            problems.append(f"{path} differs from what its notebook gives: run make notebooks")
    extra = sorted(set(found) - set(expected))
    return problems + [f"{path} comes from no notebook: delete it" for path in extra]
