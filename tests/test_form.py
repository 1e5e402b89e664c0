"""The form of the lessons, and the rules for it on a tiny lesson that breaks each."""

import re

import nbformat
import pytest
from nbformat.v4 import new_markdown_cell, new_output
from sample_lesson import as_if_executed, code, make_course

from tools import export, form, lessons, workshop
from tools.figures import describe
from tools.run import WIDGET

FIGURE = new_output("display_data", {"image/png": "aGk=", "text/plain": "<Figure>"})
LESSONS = lessons.lesson_files()


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_lesson_has_the_form(path):
    assert form.problems(path) == []


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_no_lesson_unstacks_unsorted(path):
    """pandas 2.2.3 puts numbers under wrong labels there: use pivot, or reindex afterwards."""
    source = "".join(cell.source for cell in lessons.code_cells(lessons.read(path)))
    assert not re.search(r"unstack\([^)]*sort=False", source)


def test_exported_modules_are_up_to_date():
    assert export.drift() == []


def test_workshop_copies_are_up_to_date():
    assert workshop.drift() == []


def spoiled(tmp_path, spoil) -> list[str]:
    """The problems of a good lesson after SPOIL changed it."""
    path = make_course(tmp_path)
    nb = as_if_executed(path, tmp_path)
    spoil(nb)
    nbformat.write(nb, path)
    return form.problems(path, tmp_path)


def test_a_good_lesson_passes(tmp_path):
    def draw(nb):
        nb.cells[5].outputs = [FIGURE, new_output("stream", name="stdout", text="work/home 3 %")]
        nb.cells.insert(6, new_markdown_cell("The line falls. See https://x.org/home/a."))
        describe(nb)

    assert spoiled(tmp_path, draw) == []


def edit(place: int, source: str):
    """Replace the source of one cell."""
    return lambda nb: nb.cells[place].update(source=source)


def output(*outputs):
    """Give the must-hold cell these outputs."""
    return lambda nb: nb.cells[5].update(outputs=list(outputs))


def stream(name: str, text: str):
    """Give the must-hold cell text on a stream."""
    return output(new_output("stream", name=name, text=text))


def figure_above(source: str):
    """Draw a figure with this text under it."""

    def spoil(nb):
        output(FIGURE)(nb)
        nb.cells[6].source = source + "\n\n" + nb.cells[6].source

    return spoil


EXERCISE = 'def double(x):\n    """Doc."""\n    return 2 * x'

BROKEN = {
    "skipped a cell": (
        lambda nb: nb.cells[3].update(execution_count=None),
        "counts are [1, 2, None, 4, 5, 6]",
    ),
    "executed twice": (lambda nb: nb.cells[8].update(execution_count=9), "not executed in order"),
    "edited": (edit(5, "assert 1 < 2"), "edited but not executed: run make notebooks"),
    "timestamps": (
        lambda nb: nb.cells[5].metadata.update(execution={"iopub.execute_input": "2030-01-01"}),
        "timestamps",
    ),
    "error": (
        output(new_output("error", ename="ValueError", evalue="", traceback=[])),
        "cell 6 ends in an error: ValueError",
    ),
    "warning": (stream("stderr", "UserWarning: no"), "cell 6 has text on stderr: 'UserWarning"),
    "widget": (output(new_output("display_data", {WIDGET: {}})), "cell 6 has a stored widget"),
    "big": (stream("stdout", "x" * 1_000_001), "bytes; at most 1,000,000"),
    "bare figure": (output(FIGURE), "cell 6 draws a figure"),
    "figure under heading": (figure_above("## Next"), "cell 6 draws a figure"),
    "figure without a text": (
        figure_above("The line falls."),
        "cell 6: the figure's alternative text is not the sentence under it",
    ),
    "skipped heading": (
        edit(9, "## What this does not show\n\n#### Much\n\n## Summary"),
        "the heading 'Much' is of level 4, after one of level 2",
    ),
    "two titles": (
        edit(9, "## What this does not show\n\n# Much\n\n## Summary"),
        "the heading 'Much' is of level 1, after one of level 2",
    ),
    "empty cell": (edit(5, " "), "cell 6 is empty"),
    "long cell": (edit(5, "\n".join(["1"] * 26)), "cell 6 has 26 lines; at most 25"),
    "too many words": (edit(6, "word " * 4500), "words; at most 4,500"),
    "too many names": (
        edit(5, f"from course_utils.data import {', '.join(f'name_{k}' for k in range(30))}"),
        "31 names of the course; at most 30: name_0, name_1, name_10",
    ),
    "too many names of studies": (
        edit(5, f"print({', '.join(f'lesson_05.NAME_{k}' for k in range(30))})"),
        "31 names of the course; at most 30",
    ),
    "line magic": (edit(5, "%matplotlib inline"), "cell 6 is not plain Python"),
    "cell magic": (edit(5, "%%bash\nls"), "cell 6 is not plain Python"),
    "shell": (edit(5, "files = !ls"), "cell 6 is not plain Python"),
    "hidden magic": (edit(5, 'get_ipython().system("ls")'), "cell 6 uses get_ipython"),
    "path in code": (edit(5, 'open("/home/me/x")'), "cell 6 names a path of one machine, '/home'"),
    "path in text": (edit(4, "Look in `C:\\data`."), "cell 5 names a path of one machine"),
    "path in output": (stream("stdout", "in /tmp/x"), "cell 6 names a path of one machine, '/tmp'"),
    "no summary": (
        edit(9, "## What this does not show"),
        "expected one heading '## Summary', found 0",
    ),
    "no title": (
        edit(0, "<!-- badges -->\n<!-- /badges -->"),
        "the first cell must hold the title",
    ),
    "nothing held": (edit(5, "print(1)"), "no code cell tagged must-hold asserts anything"),
    "unknown tag": (
        lambda nb: nb.cells[5].metadata.tags.append("fun"),
        "cell 6 has unknown tags ['fun']",
    ),
    "two functions": (edit(7, f"{EXERCISE}\n\n\nx = 1"), "must hold one function and nothing else"),
    "no docstring": (edit(7, "def double(x):\n    return x"), "double must have a docstring"),
    "no check": (edit(8, "check_double(triple)"), "calls check_double(double)"),
    "untagged check": (lambda nb: nb.cells[8].metadata.pop("tags"), "calls check_double(double)"),
    "far check": (
        lambda nb: nb.cells.__setitem__(slice(8, 8), [code(str(n)) for n in range(4)]),
        "calls check_double(double)",
    ),
    "old setup cell": (edit(1, "device = 'cpu'"), "badges or setup cell differ"),
    "other minutes": (
        lambda nb: nb.metadata.course.update(minutes=26),
        "badges or setup cell differ",
    ),
    "no minutes": (lambda nb: nb.metadata.course.pop("minutes"), "must say"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_each_rule_catches_its_fault(tmp_path, fault):
    spoil, message = BROKEN[fault]
    found = spoiled(tmp_path, spoil)
    assert any(message in problem for problem in found), found


def test_all_problems_covers_generated_files(tmp_path):
    path = make_course(tmp_path)
    as_if_executed(path, tmp_path)
    found = form.all_problems(tmp_path)
    assert len(found) == 3 and all("is missing" in problem for problem in found)
    path.write_text("{", encoding="utf-8")
    assert all("not a readable notebook" in problem for problem in form.all_problems(tmp_path))
