"""Check the form of the lessons: python -m tools.form. The rules are the functions below."""

import ast
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from nbformat import NotebookNode

from tools import export, workshop
from tools.badges import MARKERS, fill, public_address
from tools.figures import alternatives, stored
from tools.lessons import (
    EXERCISE,
    ROOT,
    code_cells,
    has_tag,
    is_folded,
    lesson_files,
    minutes_needed,
    prose,
    read,
    title,
)
from tools.run import WIDGET, source_hash

TAGS = {"setup", "exercise", "check", "must-hold"}
SECTIONS = (
    "What must hold",
    "Exercises",
    "What this does not show",
    "Five questions",
    "Summary",
)
MAX_BYTES = 1_000_000
MAX_LINES = 25
CHECK_WITHIN = 4
MAX_IMPORTS = 8
MAX_WORDS = 4500
MAX_NAMES = 30  # imported from the course
SPARE = 10  # minutes that a lesson may claim beyond what it needs
LONG = 75  # minutes from which on a lesson says what a first reading may skip
FIRST_READING = "**On a first reading**"
STUDIES = re.compile(r"lesson_\d\d")
ABSOLUTE = re.compile(r"(?<![\w:/.])(/(home|Users|root|work|tmp)\b|[A-Z]:\\)")


def problems(path: Path, root: Path = ROOT) -> list[str]:
    """All that is wrong with the form of one lesson."""
    try:
        nb = read(path)
    except ValueError as error:
        return [str(error)]
    size = path.stat().st_size
    found = [f"{size:,} bytes; at most {MAX_BYTES:,}"] if size > MAX_BYTES else []
    for rule in RULES:
        found += rule(nb)
    found += generated(nb, path.name, public_address(root))
    return [f"{path.name}: {problem}" for problem in found]


def executed(nb: NotebookNode) -> Iterator[str]:
    """Executed in order, from a fresh kernel, as the code stands."""
    counts = [cell.execution_count for cell in code_cells(nb)]
    if counts != list(range(1, len(counts) + 1)):
        yield f"not executed in order: counts are {counts}, expected 1 to {len(counts)}"
    if nb.metadata.get("course", {}).get("executed_sha256") != source_hash(nb):
        yield "edited but not executed: run make notebooks LESSON=NN"
    if any("execution" in cell.metadata for cell in nb.cells):
        yield "timestamps in the cells' metadata: run make notebooks LESSON=NN"


def outputs(nb: NotebookNode) -> Iterator[str]:
    """No errors, warnings or widgets in outputs; a sentence under each figure."""
    for number, cell in numbered(nb):
        for output in cell.outputs:
            if output.output_type == "error":
                yield f"cell {number} ends in an error: {output.ename}"
            if output.get("name") == "stderr":
                yield f"cell {number} has text on stderr: {output.text[:60]!r}"
            if WIDGET in output.get("data", {}):
                yield f"cell {number} has a stored widget: run make notebooks LESSON=NN"
        if has_image(cell) and not is_sentence(nb.cells[number : number + 1]):
            yield f"cell {number} draws a figure: say in a markdown cell under it what to see"


def figures(nb: NotebookNode) -> Iterator[str]:
    """Every figure has the sentence under it as its alternative text."""
    for number, figure, text in alternatives(nb):
        if not stored(figure) or stored(figure) != text:
            yield (
                f"cell {number}: the figure's alternative text is not the sentence under it: "
                "run python -m tools.figures"
            )


def headings(nb: NotebookNode) -> Iterator[str]:
    """One heading of the first level, and no level skipped after it."""
    text = re.sub(r"^```.*?^```", "", prose(nb), flags=re.DOTALL | re.MULTILINE)
    before = 0
    for marks, name in re.findall(r"^(#{1,6}) (.+)$", text, re.MULTILINE):
        if len(marks) > before + 1 or (len(marks) == 1 and before):
            yield f"the heading {name!r} is of level {len(marks)}, after one of level {before}"
        before = len(marks)


def has_image(cell: NotebookNode) -> bool:
    """Whether a cell shows a picture."""
    return any(kind.startswith("image/") for out in cell.outputs for kind in out.get("data", {}))


def is_sentence(cells: list[NotebookNode]) -> bool:
    """Whether there is a cell, and it is text that does not begin with a heading."""
    text = cells[0].source.strip() if cells and cells[0].cell_type == "markdown" else ""
    return bool(text) and not text.startswith("#")


def code(nb: NotebookNode) -> Iterator[str]:
    """Short cells of plain Python, without magics, shell or paths of one machine."""
    for number, cell in numbered(nb):
        lines = cell.source.count("\n") + 1
        if not cell.source.strip():
            yield f"cell {number} is empty"
        if lines > MAX_LINES:
            yield f"cell {number} has {lines} lines; at most {MAX_LINES}"
        try:
            ast.parse(cell.source)
        except SyntaxError:
            yield f"cell {number} is not plain Python (a magic or a shell line?)"
        if "get_ipython" in cell.source:
            yield f"cell {number} uses get_ipython: plain Python only"
    for number, cell in enumerate(nb.cells, start=1):
        for text in [cell.source, *output_texts(cell)]:
            if match := ABSOLUTE.search(text):
                yield f"cell {number} names a path of one machine, {match[0]!r}: use a relative one"


def output_texts(cell: NotebookNode) -> Iterator[str]:
    """The text of a cell's outputs."""
    for output in cell.get("outputs", []):
        yield output.get("text", "")
        for kind, data in output.get("data", {}).items():
            if kind.startswith("text/"):
                yield data


def sections(nb: NotebookNode) -> Iterator[str]:
    """A title, the sections that every lesson has, and only known tags."""
    text = prose(nb)
    headings = re.findall(r"^## (.+?)\s*$", text, re.MULTILINE)
    for section in SECTIONS:
        if headings.count(section) != 1:
            yield f"expected one heading '## {section}', found {headings.count(section)}"
    try:
        title(nb)
    except ValueError as error:
        yield str(error)
    held = [cell for cell in code_cells(nb) if has_tag(cell, "must-hold")]
    if not any(re.search(r"^\s*assert ", cell.source, re.MULTILINE) for cell in held):
        yield "no code cell tagged must-hold asserts anything"
    for number, cell in enumerate(nb.cells, start=1):
        if unknown := sorted(set(cell.metadata.get("tags", [])) - TAGS):
            yield f"cell {number} has unknown tags {unknown}; known are {sorted(TAGS)}"


def exercises(nb: NotebookNode) -> Iterator[str]:
    """An exercise is one function, and its check follows."""
    for number, cell in numbered(nb):
        if not has_tag(cell, "exercise"):
            continue
        try:
            name = workshop.exercise_function(cell.source).name
        except ValueError as error:
            yield f"cell {number}: {error}"
            continue
        near = nb.cells[number : number + CHECK_WITHIN]
        call = re.compile(rf"\bcheck_{name}\({name}\)")
        if not any(has_tag(after, "check") and call.search(after.source) for after in near):
            yield (
                f"cell {number}: a cell tagged check that calls check_{name}({name}) must be "
                f"among the {CHECK_WITHIN} cells after it"
            )


def opening(nb: NotebookNode) -> Iterator[str]:
    """The setup cell comes second, and no screen of imports before the first idea."""
    if len(nb.cells) < 2 or not has_tag(nb.cells[1], "setup"):
        yield "the setup cell is not the second cell: the first holds all that comes before it"
    for number, cell in numbered(nb):
        lines = cell.source.count("\n") + 1
        if lines > MAX_IMPORTS and imports_only(cell):
            yield (
                f"cell {number} has {lines} lines of imports; at most {MAX_IMPORTS}: import names "
                "where they are first used"
            )


def imports_only(cell: NotebookNode) -> bool:
    """Whether a code cell holds nothing but imports."""
    tree = parsed(cell)
    imports = ast.Import | ast.ImportFrom
    return tree is not None and all(isinstance(node, imports) for node in tree.body)


def parsed(cell: NotebookNode) -> ast.Module | None:
    """The syntax tree of a code cell; None if it is not Python."""
    try:
        return ast.parse(cell.source)
    except SyntaxError:
        return None


def tasks(nb: NotebookNode) -> Iterator[str]:
    """An exercise says how long, how hard and how important it is, and what to do."""
    text = prose(nb)
    for heading in re.findall(r"^### Exercise .*$", text, re.MULTILINE):
        if not EXERCISE.fullmatch(heading):
            yield (
                f"{heading!r} must end like '(10 minutes, easy, essential)': easy, medium or hard; "
                "essential, useful or optional"
            )
        task = text.partition(f"{heading}\n")[2].partition("<details>")[0].strip()
        if not task.endswith((".", "?", ":", "`", "$")):
            yield f"{heading!r} must say its task before the hint"
    for head in re.findall(r"\*\*Go further[^*]*\*\*", text):
        if not re.search(r"\(\d+ minutes, (easy|medium|hard)\)", head):
            yield f"{head!r} must say its minutes and how hard it is, like '(10 minutes, easy)'"
    for number, cell in numbered(nb):
        folded = cell.metadata.get("jupyter", {}).get("source_hidden", False)
        if folded != is_folded(cell):
            yield f"cell {number}: the setup cell and solutions are folded, and nothing else"


def questions(nb: NotebookNode) -> Iterator[str]:
    """Five questions with folded answers."""
    text = prose(nb)
    asked = text.partition("\n## Five questions\n")[2].partition("\n## ")[0]
    found = re.findall(r"<summary>(\d)\. [^<]+\?</summary>\s+\S.*?</details>", asked, re.DOTALL)
    if found != list("12345"):
        yield (
            "'## Five questions' must hold <details><summary>1. Question?</summary>, an answer and "
            f"</details>, numbered 1 to 5; found {found}"
        )


def minutes(nb: NotebookNode) -> Iterator[str]:
    """As many minutes as reading and exercises take; a long lesson says what may wait."""
    stated = nb.metadata.get("course", {}).get("minutes")
    needed = minutes_needed(nb)
    if isinstance(stated, int) and not needed <= stated <= needed + SPARE:
        yield f"the metadata say {stated} minutes; text, code and exercises take {needed}"
    if isinstance(stated, int) and stated > LONG:
        first = nb.cells[0].source.partition(FIRST_READING)[2].partition("\n\n")[0]
        text = "\n".join(cell.source for cell in nb.cells[1:] if cell.cell_type == "markdown")
        headings = re.findall(r"^#{2,3} (.+?)\s*$", text, re.MULTILINE)
        named = re.findall(r"(?<!\*)\*([^*]+)\*(?!\*)", first)
        if not named:
            yield f"over {LONG} minutes: the first cell needs '{FIRST_READING}', *sections* to skip"
        yield from (
            f"on a first reading: no section {name!r}" for name in named if name not in headings
        )


def length(nb: NotebookNode) -> Iterator[str]:
    """Not more words than a reader can take, nor more names than they can keep apart."""
    words = len(prose(nb).split())
    if words > MAX_WORDS:
        yield f"{words:,} words; at most {MAX_WORDS:,}: cut what a first reader does not need"
    names = names_of_the_course(nb)
    if len(names) > MAX_NAMES:
        yield f"{len(names)} names of the course; at most {MAX_NAMES}: {', '.join(sorted(names))}"


def names_of_the_course(nb: NotebookNode) -> set[str]:
    """The names that a lesson imports from `course_utils`; of a study each name that it uses."""
    nodes = [node for cell in code_cells(nb) if (tree := parsed(cell)) for node in ast.walk(tree)]
    found = set()
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("course_utils"):
            found |= {name.name for name in node.names}
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            found |= {f"{node.value.id}.{node.attr}"} if STUDIES.match(node.value.id) else set()
    return {name for name in found if not STUDIES.fullmatch(name)}


def generated(nb: NotebookNode, name: str, address: str) -> Iterator[str]:
    """Badges and setup cell as the tool writes them."""
    before = generated_text(nb)
    try:
        fill(nb, name, address)
    except ValueError as error:
        yield str(error)
        return
    if generated_text(nb) != before:
        yield "badges or setup cell differ from the generated ones: run python -m tools.badges"


def generated_text(nb: NotebookNode) -> list[str]:
    """The text of badges and setup cells."""
    cells = [cell.source for cell in code_cells(nb) if has_tag(cell, "setup")]
    return [*(MARKERS.findall(nb.cells[0].source) if nb.cells else []), *cells]


def numbered(nb: NotebookNode) -> Iterator[tuple[int, NotebookNode]]:
    """Code cells with their place among all cells, counted from 1."""
    for number, cell in enumerate(nb.cells, start=1):
        if cell.cell_type == "code":
            yield number, cell


RULES: tuple[Callable[[NotebookNode], Iterator[str]], ...] = (
    executed,
    outputs,
    figures,
    headings,
    code,
    sections,
    exercises,
    opening,
    tasks,
    questions,
    minutes,
    length,
)


def all_problems(root: Path = ROOT) -> list[str]:
    """What is wrong with any lesson, exported module or workshop copy."""
    found = [problem for path in lesson_files(root) for problem in problems(path, root)]
    for drift in (export.drift, workshop.drift):
        try:
            found += drift(root)
        except ValueError as error:
            found.append(str(error))
    return found


if __name__ == "__main__":
    found = all_problems()
    print("\n".join(found) or "Nothing is missing.")
    sys.exit(bool(found))
