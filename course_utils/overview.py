"""What a learner has done so far: `make progress`, or course_utils.progress() in a notebook.

It reads what the checks have noted (course_utils.record), the workshop copies for the list of
exercises, and the notebooks saved beside the notes. It executes nothing and writes nothing.
"""

import ast
import json
import re
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from course_utils import record
from course_utils.code_hash import code_text, short_hash

if TYPE_CHECKING:  # every lesson imports this module, and few ever need the Styler
    from pandas.io.formats.style import Styler

WORKSHOP = Path(__file__).resolve().parents[1] / "notebooks" / "workshop"
HEADING = re.compile(r"^#+ (.+?)(?: \([^()]*\))?$", re.MULTILINE)
NOTED = {"lesson": str, "function": str, "passed": bool, "message": str, "source": str, "at": str}
COLUMNS = ["lesson", "exercise", "function", "state", "date", "note"]


def progress() -> "Styler":
    """Say how far you are and what comes next; returns a table of all exercises to look at."""
    noting = record.noting_file()
    path = noting or record.progress_file()
    print(*notices(path), sep="\n")
    if not noting:
        print("Checks here note nothing: this is no copy of yours, or its setup cell was not run.")
    shown = table(path).set_index(["lesson", "exercise"]).style
    left = [{"selector": "th, td", "props": "text-align: left; vertical-align: top"}]
    return shown.format(escape="html").format_index(escape="html").set_table_styles(left)


def table(path: Path, workshop: Path = WORKSHOP) -> pd.DataFrame:
    """One row an exercise: lesson, exercise, function, state, date and note.

    path: the learner's file. Its entries count in their order, whatever a clock said. An exercise
    that passed once is done, also if it failed later; the note then says so.
    """
    tries = defaultdict(list)
    for entry in read(path)[0]:
        tries[entry["lesson"], entry["function"]].append(entry)
    functions, rows = saved_functions(path.parent), []
    for lesson, title, function in exercises(workshop):
        found = tries.pop((lesson[:2], function), [])
        rows.append([lesson, title, function, *outcome(found, functions[function])])
    for (lesson, function), found in tries.items():
        gone = [f"{lesson} (older)", "no longer in the course", function]
        rows.append([*gone, *outcome(found, set())])
    return pd.DataFrame(rows, columns=COLUMNS)


def outcome(tries: list[dict], saved: set[str]) -> tuple[str, str, str]:
    """State, date and note of an exercise. saved: the hashes of its functions in the notebooks."""
    if not tries:
        return "untouched", "", ""
    passes, last = [entry for entry in tries if entry["passed"]], tries[-1]
    if not passes:
        return "failed last time", last["at"][:10], last["message"]
    note = "" if last["passed"] else f"A later try failed: {last['message']}"
    if last["passed"] and saved and not saved & {entry["source"] for entry in passes}:
        note = "No saved notebook holds what passed: save yours, or run its check again."
    return "done", passes[-1]["at"][:10], note


def notices(path: Path, workshop: Path = WORKSHOP) -> list[str]:
    """What is wrong with the learner's file, how much is done, and what to do next."""
    entries, damaged = read(path)
    frame, file = table(path, workshop), record.named(path)
    there = frame[frame.exercise.ne("no longer in the course")].reset_index(drop=True)
    found = []
    if not path.exists():
        found.append(
            f"Nothing is noted in {file} yet: the checks in your copies do that. If you have moved "
            "your folder, ask in a notebook there: course_utils.progress()."
        )
    if damaged:
        found.append(
            f"Damaged in {file}: {len(damaged)} of its lines, the first is line {damaged[0]}. They "
            "stay there and do not count; all others do. If an exercise of yours is missing, run "
            "its check again."
        )
    found.append(f"{there.state.eq('done').sum()} of {len(there)} exercises done ({file}).")
    tried = [f"{entry['lesson']} {entry['function']}" for entry in entries]
    keys = list(there.lesson.str[:2] + " " + there.function)
    start = next((keys.index(key) for key in reversed(tried) if key in keys), 0)
    ahead = pd.concat([there[start:], there[:start]])
    ahead = ahead[ahead.state.ne("done")]
    if ahead.empty:
        return [*found, "Next: the open tasks, Go further, at the end of each lesson."]
    first = ahead.iloc[0]
    return [*found, f"Next: lesson {first.lesson}, {first.exercise} ({first.function})."]


def exercises(workshop: Path = WORKSHOP) -> list[tuple[str, str, str]]:
    """Every exercise of the workshop copies: its lesson, such as "00 start here", title, function.

    Raises ValueError if a copy cannot be read.
    """
    found = []
    for path in sorted(workshop.glob("[0-9][0-9]_*.ipynb")):
        title, names = "", []
        for kind, source, tags in cells(path):
            if kind == "markdown":
                names += HEADING.findall(source)
                title = names[-1] if names else title
            elif "exercise" in tags:
                name = re.search(r"^def (\w+)", source, re.MULTILINE)[1]
                lesson = f"{path.name[:2]} {names[0].partition(': ')[2]}"
                found.append((lesson, title, name))
    return found


def saved_functions(folder: Path) -> dict[str, set[str]]:
    """The hashes of the functions in the notebooks of a folder and of folders in it, by name."""
    found = defaultdict(set)
    for path in [*folder.glob("*.ipynb"), *folder.glob("[!.]*/*.ipynb")]:
        try:
            sources = [source for kind, source, _ in cells(path) if kind == "code"]
        except ValueError:
            continue  # a notebook that cannot be read says nothing
        for source in sources:
            try:
                tree = ast.parse(source)
            except SyntaxError:
                continue
            for node in tree.body:
                if isinstance(node, ast.FunctionDef):
                    text = code_text(ast.Module([node], []))
                    found[node.name].add(short_hash(text))
    return found


def cells(path: Path) -> list[tuple[str, str, list[str]]]:
    """Kind, source and tags of each cell. Raises ValueError if this is no readable notebook."""
    try:
        return [
            (cell["cell_type"], "".join(cell["source"]), cell["metadata"].get("tags", []))
            for cell in json.loads(path.read_bytes())["cells"]
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not a readable notebook ({error}): restore it.") from error


def read(path: Path) -> tuple[list[dict], list[int]]:
    """The entries of the learner's file, oldest first, and the numbers of its damaged lines.

    No file, no entries. A last line that was cut off is no damage. Raises OSError if the file is
    there and cannot be read.
    """
    entries, damaged = [], []
    try:
        lines = path.read_bytes().split(b"\n") if path.exists() else []
    except OSError as error:
        raise OSError(
            f"{path}, which holds your progress, cannot be read ({error.strerror}): give yourself "
            "the right to read it. Nothing was changed."
        ) from error
    for number, line in enumerate(lines, start=1):
        try:
            entry = json.loads(line)
            if not all(isinstance(entry[key], kind) for key, kind in NOTED.items()):
                raise ValueError("a field has another type")
            entries.append(entry)
        except (ValueError, KeyError, TypeError):
            if line.strip() and number < len(lines):
                damaged.append(number)
    return entries, damaged
