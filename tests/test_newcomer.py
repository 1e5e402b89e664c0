"""What a reader meets for the first time: names, imports, experiments without a prediction."""

import ast
import re

import pytest
from nbformat import NotebookNode

from tools.lessons import has_tag, lesson_files, prose, read
from tools.workshop import PREDICT, workshop_copy

LESSONS = lesson_files()
NEAR = 12  # cells from an import to the first use
WITHOUT_OUTPUT = 3  # code cells in a row, in the lessons with the longest preparations
EXPERIMENT = re.compile(r"^[^#\n]*\b(load_study|run_trials|compare)\(", re.MULTILINE)
every_lesson = pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)


def imported(nb: NotebookNode) -> list[tuple[int, str, str]]:
    """The cell, the name and the module of each import after the setup cell."""
    found = []
    for place, cell in enumerate(nb.cells):
        if cell.cell_type != "code" or has_tag(cell, "setup"):
            continue
        for node in ast.parse(cell.source).body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                module = getattr(node, "module", None) or ""
                found += [(place, (a.asname or a.name).split(".")[0], module) for a in node.names]
    return found


def is_named(name: str, text: str) -> bool:
    """Whether a text speaks of a name, as `per_example` or as "per example"."""
    words = re.escape(name).replace("_", "[_ ]")
    return re.search(rf"(?<!\w){words}s?(?!\w)", text, re.IGNORECASE) is not None


BASICS = "\n".join(prose(read(path)) for path in LESSONS[:2])  # lessons 00 and 01: for everybody


@every_lesson
def test_every_name_of_the_course_is_spoken_of(path):
    nb = read(path)
    text = f"{BASICS}\n{prose(nb)}"
    names = {name for _, name, module in imported(nb) if module.startswith("course_utils")}
    assert sorted(name for name in names if not is_named(name, text)) == []


@every_lesson
def test_names_are_imported_where_they_are_first_used(path):
    nb = read(path)
    far = []
    for place, name, _ in imported(nb):
        use = re.compile(rf"(?<![\w.]){name}\b")
        for later, cell in enumerate(nb.cells[place:]):
            lines = cell.source.splitlines() if cell.cell_type == "code" else []
            code = "\n".join(line for line in lines if not line.startswith(("from ", "import ")))
            if use.search(code):
                far += [(name, later)] if later > NEAR else []
                break
    assert far == []


@every_lesson
def test_a_reader_predicts_before_each_experiment(path):
    heading, asked, without = "", False, []
    for cell in read(path).cells:
        if cell.cell_type == "markdown":
            if found := re.findall(r"^## (.+)$", cell.source, re.MULTILINE):
                heading, asked = found[-1], False
            asked = asked or PREDICT in cell.source.rpartition("\n## ")[2]
        elif EXPERIMENT.search(cell.source) and "def " not in cell.source and not asked:
            without.append(heading)
    assert [one for one in without if one not in ("What must hold", "Exercises")] == []


@every_lesson
def test_a_workshop_copy_folds_what_a_prediction_would_show(path):
    nb = read(path)
    asked = prose(nb).count(PREDICT)
    folded = prose(workshop_copy(nb, path.name)).count("<summary>What we saw")
    assert asked >= 2 and 0 < folded <= asked


@pytest.mark.parametrize("path", [p for p in LESSONS if p.name[:2] in ("14", "16")], ids=str)
def test_something_is_to_be_seen_before_long(path):
    quiet, longest = 0, 0
    for cell in read(path).cells:
        if cell.cell_type == "code" and not has_tag(cell, "setup"):
            quiet = 0 if cell.outputs else quiet + 1
            longest = max(longest, quiet)
    assert longest <= WITHOUT_OUTPUT


@every_lesson
def test_the_first_idea_comes_within_a_screen(path):
    cells = read(path).cells[2:]
    first = next(place for place, cell in enumerate(cells) if cell.cell_type == "markdown")
    assert sum(cell.source.count("\n") + 1 for cell in cells[:first]) <= 8
