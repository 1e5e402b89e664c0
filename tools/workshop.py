"""Make the workshop copies, the lessons without the exercise bodies: python -m tools.workshop."""

import ast
import copy
import re
import sys
from itertools import pairwise
from pathlib import Path

from nbformat import NotebookNode

from tools.export import LINE
from tools.lessons import (
    ROOT,
    code_cells,
    differences,
    has_tag,
    lesson_files,
    read,
    to_text,
    without_export,
    write,
)

NOTE = """\
> **This is the workshop copy.** The functions of the exercises are empty: write them, and run the
> check under each. The complete lesson is [{name}](../{name}). On Colab,
> *File > Save a copy in Drive* keeps what you write.

{badges}"""
BADGES = "<!-- badges -->"
KEEP = """

import course_utils.record

course_utils.record.keep_progress()"""
PREDICT = "**Predict.**"
SEEN = """\
<details><summary>What we saw: open it when you have run the cell</summary>

{text}

</details>"""
WRONG = "<summary>What is wrong?</summary>"
STUB = """\
    raise NotImplementedError(
        "Write this function. To go on without it: "
        "{way}"
    )"""


def workshop_copy(lesson: NotebookNode, name: str) -> NotebookNode:
    """The workshop copy of the lesson in the file NAME."""
    nb = copy.deepcopy(lesson)
    nb.metadata.get("course", {}).pop("executed_sha256", None)
    for cell in code_cells(nb):
        cell.outputs, cell.execution_count = [], None
        if has_tag(cell, "exercise"):
            cell.source = stub(cell.source, name)
            cell.metadata.pop("jupyter", None)
        if has_tag(cell, "setup"):
            cell.source += KEEP
    for cell in nb.cells:
        if cell.cell_type == "markdown":
            cell.source = cell.source.replace("](../", "](../../")
    note = NOTE.format(name=name, badges=BADGES)
    nb.cells[0].source = nb.cells[0].source.replace(BADGES, note)
    fold_answers(nb)
    fold_mended(nb)
    return nb


def fold_answers(nb: NotebookNode) -> None:
    """Fold the text under the cells that a *Predict* asks about, up to its next heading."""
    asked = answered = False
    for cell in nb.cells:
        if cell.cell_type == "code":
            answered = asked
            continue
        if answered:
            text, rest = until_heading(cell.source)
            if text:
                cell.source = "\n\n".join(filter(None, [SEEN.format(text=text), rest]))
            asked = answered = False
        asked = asked or PREDICT in cell.source


def fold_mended(nb: NotebookNode) -> None:
    """Fold the cell that mends a mistake, under each *What is wrong?*, and its output."""
    for answer, cell in pairwise(nb.cells):
        if cell.cell_type == "code" and WRONG in answer.source:
            cell.metadata["jupyter"] = {"source_hidden": True, "outputs_hidden": True}
            cell.metadata["cellView"] = "form"  # folds the code on Colab


def until_heading(text: str) -> tuple[str, str]:
    """A text up to its first heading or *Predict*, and what follows from there."""
    start = re.search(rf"^(?:#{{2,3}} |{re.escape(PREDICT)})", text, re.MULTILINE)
    place = start.start() if start else len(text)
    return text[:place].strip(), text[place:].strip()


def stub(source: str, name: str) -> str:
    """An exercise function up to the end of its docstring; called, it says the way out."""
    export = LINE.match(source)
    source = without_export(source).strip("\n")
    function = exercise_function(source)
    way = f"copy it from notebooks/{name}"
    if export:
        way = f"from course_utils.{export[1]} import {function.name}"
    kept = source.splitlines()[: function.body[0].end_lineno]
    return "\n".join([*kept, STUB.format(way=way)])


def exercise_function(source: str) -> ast.FunctionDef:
    """The one function of an exercise cell. Raises ValueError when the cell has another form."""
    try:
        body = ast.parse(without_export(source)).body
    except SyntaxError as error:
        raise ValueError(f"an exercise cell is not plain Python: {error}") from error
    if len(body) != 1 or not isinstance(body[0], ast.FunctionDef):
        raise ValueError("an exercise cell must hold one function and nothing else")
    if not ast.get_docstring(body[0]) or len(body[0].body) < 2:
        raise ValueError(f"{body[0].name} must have a docstring of its own lines, and a body")
    return body[0]


def copies(root: Path = ROOT) -> dict[Path, str]:
    """The text of every workshop copy by its path. Raises ValueError with all that is wrong."""
    texts, errors = {}, []
    for path in lesson_files(root):
        try:
            nb = workshop_copy(read(path), path.name)
        except ValueError as error:
            errors.append(f"{path.name}: {error}")
            continue
        texts[path.parent / "workshop" / path.name] = to_text(nb)
    if errors:
        raise ValueError("No workshop copy was made.\n" + "\n".join(errors))
    return texts


def filled(root: Path = ROOT) -> list[Path]:
    """The workshop copies that somebody has worked in: they hold outputs, or a written exercise."""
    found = []
    for path in sorted((root / "notebooks" / "workshop").glob("*.ipynb")):
        for cell in code_cells(read(path)):
            written = has_tag(cell, "exercise") and "raise NotImplementedError(" not in cell.source
            if written or cell.execution_count or cell.outputs:
                found.append(path)
                break
    return found


def refuse_filled(root: Path = ROOT) -> None:
    """Raise ValueError if a workshop copy holds work, which writing the copies would erase."""
    if found := filled(root):
        names = ", ".join(path.name for path in found)
        raise ValueError(
            f"notebooks/workshop holds work of yours: {names}. Nothing was written. Move it to "
            "my_work/ under another name; then `git checkout -- notebooks/workshop`."
        )


def drift(root: Path = ROOT) -> list[str]:
    """How the committed workshop copies differ from what the lessons give."""
    return differences(copies(root), (root / "notebooks" / "workshop").glob("*.ipynb"))


def main() -> None:
    """Write all workshop copies."""
    try:
        refuse_filled()
        for path, text in copies().items():
            write(path, text)
    except ValueError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
