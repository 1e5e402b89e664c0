"""INSTRUCTOR.md: its plans add up, and what it says of the lessons is in the lessons."""

import ast
import builtins
import dis
import re
from collections.abc import Iterator
from types import CodeType

import pytest
from nbformat import NotebookNode

from tests.test_exercises import check_of, definitions
from tools.export import LINE
from tools.figures import stored
from tools.lessons import ROOT, anchor, code_cells, has_tag, lesson_files, read
from tools.workshop import exercise_function

TEXT = (ROOT / "INSTRUCTOR.md").read_text(encoding="utf-8")
LESSONS = {path.name[:2]: path for path in lesson_files()}
PLANS = re.findall(
    r"^### ([^\n,]+), (\d+) minutes\n(.*?)(?=^##|\Z)", TEXT, re.MULTILINE | re.DOTALL
)
FIGURES = re.findall(r"^### Figures of \[(\d\d)\].*?\n(.*?)(?=^##)", TEXT, re.MULTILINE | re.DOTALL)
CELLS = re.findall(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
LESSON = re.compile(r"\[(\d\d)\]\((notebooks/[\w.]+)\)")
NAME = re.compile(r"(?<!\*)\*([^*\n]+)\*(?!\*)")
NUMBER = re.compile(r"`([-\d.,%/\[\] ]*\d[\d.,%/\[\] ]*)`")
ORDER = ("first", "second", "third", "fourth")


def rows(table: str) -> list[list[str]]:
    """The cells of each row of a markdown table, without its head."""
    lines = [line for line in table.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def blocks() -> Iterator[str]:
    """Each table row, heading or paragraph of the page in one line, code left out."""
    for block in re.sub(r"```.*?```", "", TEXT, flags=re.DOTALL).split("\n\n"):
        if block.startswith("|"):
            yield from block.splitlines()
        else:
            yield " ".join(block.split())


def sections(nb: NotebookNode) -> list[tuple[str, int, int, int]]:
    """Each heading as (name, level, its cell, the first cell after it and what is under it)."""
    found = [
        (re.sub(r"^(Exercise .*) \(.*\)$", r"\1", name.strip()), len(marks), number)
        for number, cell in enumerate(nb.cells)
        if cell.cell_type == "markdown"
        for marks, name in re.findall(r"^(#{1,6}) (.+)$", cell.source, re.MULTILINE)
    ]
    ends = [
        next((n for _, other, n in found[place + 1 :] if other <= level), len(nb.cells))
        for place, (_, level, _) in enumerate(found)
    ]
    return [(*heading, end) for heading, end in zip(found, ends, strict=True)]


def names(number: str) -> set[str]:
    """The names of a lesson's sections."""
    return {name for name, *_ in sections(read(LESSONS[number]))}


def shown(number: str) -> str:
    """All that a lesson prints and says."""
    texts = []
    for cell in read(LESSONS[number]).cells:
        texts += [cell.source] if cell.cell_type == "markdown" else []
        for output in cell.get("outputs", []):
            texts += [output.get("text", ""), output.get("data", {}).get("text/plain", "")]
    return "\n".join(texts)


def holds(number: str, value: str) -> bool:
    """Whether a lesson shows a value, not as a part of a longer number."""
    return bool(re.search(rf"(?<![\d.]){re.escape(value.strip())}(?!\d)", shown(number)))


def kept_cells(number: str, plan: str) -> list[int]:
    """The cells of a lesson that a plan runs: up to the first section, and its sections."""
    nb = read(LESSONS[number])
    found = sections(nb)
    named = set()
    for *_, where in rows(plan):
        parts = LESSON.split(where)
        for lesson, text in zip(parts[1::3], parts[3::3], strict=True):
            named |= set(NAME.findall(text)) if lesson == number else set()
    first = next(begin for _, level, begin, _ in found if level == 2)
    ranges = [range(begin, end) for name, _, begin, end in found if name in named]
    head = range(max(first, next(n for n, c in enumerate(nb.cells) if has_tag(c, "setup")) + 1))
    return sorted(set(head).union(*ranges))


def imports_of(nb: NotebookNode) -> list[str]:
    """The import lines of a lesson."""
    nodes = [node for cell in code_cells(nb) for node in ast.parse(cell.source).body]
    return [ast.unparse(node) for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]


def global_names(source: str) -> tuple[set[str], set[str], set[str]]:
    """What a cell sets, what it reads as it runs, and what its functions read when called."""
    sets, reads, later = set(), set(), set()

    def walk(code: CodeType, inside: bool) -> None:
        for step in dis.get_instructions(code):
            if step.opname == "STORE_NAME" and not inside:
                sets.add(step.argval)
            elif step.opname == "LOAD_GLOBAL" or (step.opname == "LOAD_NAME" and not inside):
                (later if inside else reads).add(step.argval)
        for part in code.co_consts:
            if isinstance(part, CodeType):
                walk(part, True)

    walk(compile(source, "<cell>", "exec"), False)
    return sets, reads, later


def test_there_are_plans_and_figures():
    assert len(PLANS) == 5 and len(FIGURES) >= 8


@pytest.mark.parametrize(("name", "minutes", "table"), PLANS, ids=[plan[0] for plan in PLANS])
def test_the_minutes_of_a_plan_add_up(name, minutes, table):
    hours, rest = map(int, rows(table)[0][0].split(":"))
    passed = begin = 60 * hours + rest
    for clock, length, *_ in rows(table):
        assert clock == f"{passed // 60}:{passed % 60:02d}"
        passed += int(length)
    assert passed - begin == int(minutes)


@pytest.mark.parametrize(("name", "minutes", "table"), PLANS, ids=[plan[0] for plan in PLANS])
def test_a_plan_has_breaks_and_slack(name, minutes, table):
    free = [int(row[1]) for row in rows(table) if re.match("Break|Lunch|Slack", row[2])]
    assert len(free) >= 2 and sum(free) >= int(minutes) // 10
    assert "Slack" in rows(table)[-1][2]
    assert len(re.findall(r"\*\*Stop \d\.\*\*", table)) >= 3


PLANNED = [
    pytest.param(number, table, id=f"{name}-{number}")
    for name, _, table in PLANS
    for number in dict.fromkeys(number for number, _ in LESSON.findall(table))
]


@pytest.mark.parametrize(("number", "table"), PLANNED)
def test_what_a_plan_leaves_out_is_not_needed(number, table):
    """The import lines of the whole lesson are run first, by a cell that the page gives."""
    nb = read(LESSONS[number])
    known = {*dir(builtins), "__annotations__", *global_names("\n".join(imports_of(nb)))[0]}
    kept = [nb.cells[n] for n in kept_cells(number, table) if nb.cells[n].cell_type == "code"]
    cells = [(cell.source, *global_names(cell.source)) for cell in kept]
    everything = known.union(*(sets for _, sets, _, _ in cells))
    missing = set()
    for source, sets, reads, later in cells:
        known |= sets
        missing |= reads - known
        if not source.startswith("#| export studies."):  # a trial of a study may never be called
            missing |= later - everything
    assert missing == set()


def test_a_plan_has_as_many_functions_as_the_table_says():
    written = {name: set(re.findall(r"[Ww]rite `(\w+)`", table)) for name, _, table in PLANS}
    counts = [int(count) for count in re.findall(r"(\d+) functions \|$", TEXT, re.MULTILINE)]
    assert counts == [len(written["One day"]), len(written["Day one"] | written["Day two"])]


def test_links_lead_somewhere():
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", TEXT)]
    assert [x for x in links if x and "://" not in x and not (ROOT / x).exists()] == []
    assert [link for number, link in LESSON.findall(TEXT) if ROOT / link != LESSONS[number]] == []


def test_links_within_the_page_lead_to_a_heading():
    headings = re.findall(
        r"^#+ (.+)$", re.sub(r"```.*?```", "", TEXT, flags=re.DOTALL), re.MULTILINE
    )
    anchors = {anchor(name) for name in headings}
    assert set(re.findall(r"\]\(#([\w-]+)\)", TEXT)) <= anchors


def test_every_section_that_is_named_exists():
    everywhere = set().union(*map(names, LESSONS))
    missing = []
    of_figures = None
    for block in blocks():
        if block.startswith("#"):
            of_figures = LESSON.search(block)[1] if "Figures of" in block else None
        parts = LESSON.split(block)  # text, number, link, text, number, link, text ...
        for number, text in zip(["", *parts[1::3]], parts[::3], strict=True):
            number = number or of_figures
            known = names(number) if number else everywhere
            missing += [(number, name) for name in NAME.findall(text) if name not in known]
    assert missing == []


@pytest.mark.parametrize(("name", "minutes", "table"), PLANS, ids=[plan[0] for plan in PLANS])
def test_a_plan_names_functions_of_its_lessons(name, minutes, table):
    for _, _, what, where in rows(table):
        code = "\n".join(
            cell.source for number, _ in LESSON.findall(where) for cell in lesson_code(number)
        )
        assert [f for f in re.findall(r"`(\w+)`", what) if f"def {f}(" not in code] == []


def lesson_code(number: str) -> list[NotebookNode]:
    """The code cells of a lesson."""
    return code_cells(read(LESSONS[number]))


@pytest.mark.parametrize(("number", "table"), FIGURES, ids=[number for number, _ in FIGURES])
def test_figures_are_where_they_are_said_to_be(number, table):
    nb = read(LESSONS[number])
    places = {name: (begin, end) for name, _, begin, end in sections(nb)}
    for figure, *_ in rows(table):
        begin, end = places[NAME.search(figure)[1]]
        outputs = [out for cell in nb.cells[begin:end] for out in cell.get("outputs", [])]
        count = sum(bool(stored(output)) for output in outputs)
        which = re.search(r", (\w+) figure$", figure)
        assert which or count == 1, f"{figure}: say which of the {count}"
        assert not which or ORDER.index(which[1]) < count, figure


@pytest.mark.parametrize(("number", "table"), FIGURES, ids=[number for number, _ in FIGURES])
def test_numbers_at_figures_are_those_of_the_lesson(number, table):
    assert [value for value in NUMBER.findall(table) if not holds(number, value)] == []


def test_other_numbers_are_those_of_the_lesson_beside_them():
    rest = re.sub(r"^### Figures of.*?(?=^##)", "", TEXT, flags=re.MULTILINE | re.DOTALL)
    lines = [line for line in rest.splitlines() if NUMBER.search(line) and "style`" not in line]
    wrong = [
        value
        for line in lines
        for value in NUMBER.findall(line)
        if not any(holds(number, value) for number, _ in LESSON.findall(line))
    ]
    assert wrong == []


def exercise_rows(number: str) -> list[str]:
    """What the table of catch-up cells should say of each exercise of a lesson."""
    path = LESSONS[number]
    nb = read(path)
    # The cases of lesson 21 are an exercise without a function.
    headings = [
        name
        for name, _, begin, end in sections(nb)
        if re.match(r"Exercise \d", name)
        and any(has_tag(cell, "exercise") for cell in nb.cells[begin:end])
    ]
    found = []
    for heading, (name, module) in zip(headings, exercises_of(nb).items(), strict=True):
        way = (
            f"`from course_utils.{module} import {name}`"
            if module
            else f"`{name}`, by the cell below"
        )
        found.append(f"| [{number}](notebooks/{path.name}): *{heading}* | {way} |")
    return found


def exercises_of(nb: NotebookNode) -> dict[str, str | None]:
    """The functions of the exercises of a lesson, and the module that holds each."""
    cells = [cell.source for cell in code_cells(nb) if has_tag(cell, "exercise")]
    exports = [LINE.match(source) for source in cells]
    names = [exercise_function(source).name for source in cells]
    return {name: export and export[1] for name, export in zip(names, exports, strict=True)}


def test_every_exercise_has_a_row_that_says_where_its_function_is():
    table = TEXT.partition("## Catch-up cells")[2].partition("\n### ")[0]
    given = [line for line in table.splitlines() if line.startswith("| [")]
    assert given == [row for number in LESSONS for row in exercise_rows(number)]


@pytest.mark.parametrize("line", re.findall(r"`(from course_utils\.\S+ import \w+)`", TEXT))
def test_a_catch_up_line_imports_a_function(line):
    namespace = {}
    exec(line, namespace)
    assert callable(namespace[line.split()[-1]])


def in_its_lesson() -> list[tuple[str, str]]:
    """The exercises that no module holds: the lesson's number and the function's name."""
    return [
        (number, name)
        for number, path in LESSONS.items()
        for name, module in exercises_of(read(path)).items()
        if not module
    ]


@pytest.mark.parametrize(("number", "name"), in_its_lesson())
def test_the_cell_below_takes_a_function_from_its_lesson(number, name):
    cell = next(cell for cell in CELLS if "FILE, NAME" in cell)
    line = f'FILE, NAME = "{LESSONS[number].name}", "{name}"'
    cell = re.sub(r"^FILE, NAME = .+$", line, cell, flags=re.MULTILINE)
    namespace = {k: v for k, v in definitions(read(LESSONS[number])).items() if k != name}
    exec(cell, namespace)
    check_of(LESSONS[number], name)(namespace[name])


@pytest.mark.parametrize(
    "number", sorted({n for *_, table in PLANS for n, _ in LESSON.findall(table)})
)
def test_the_cell_of_imports_imports_all_of_a_lesson(number):
    cell = next(cell for cell in CELLS if "ast.Import" in cell)
    cell = re.sub(r"^FILE = .+$", f'FILE = "{LESSONS[number].name}"', cell, flags=re.MULTILINE)
    namespace = {}
    exec(cell, namespace)
    imported = global_names("\n".join(imports_of(read(LESSONS[number]))))[0]
    assert imported <= set(namespace)


def test_the_day_has_a_bridge_for_each_lesson_that_it_leaves_out():
    (table,) = [table for name, _, table in PLANS if name == "One day"]
    bridges = TEXT.partition("### Bridges\n")[2].partition("\n## ")[0]
    planned = {number for number, _ in LESSON.findall(table)}
    crossed = [LESSON.search(row[0])[1] for row in rows(bridges)]
    assert sorted([*planned, *crossed]) == sorted(set(LESSONS) - {"21"})  # 21 is the graded work
    clocks = [row[0] for row in rows(table) if "Bridge" in row[2] or "core path" in row[2]]
    assert list(dict.fromkeys(row[1] for row in rows(bridges))) == clocks
    assert max(len(row[2].split()) for row in rows(bridges)) <= 110  # about a minute


def test_what_is_at_the_board_is_drawn():
    for *_, table in PLANS:
        for *_, what, _ in rows(table):
            assert "board" not in what or re.search(
                r"at the \[board\]\(figures/board_\w+\.svg\)", what
            )


def test_every_discussion_has_a_model_answer():
    answers = re.findall(
        r"<details><summary>([^<]+)</summary>\n\n(.+?)\n\n</details>", TEXT, re.DOTALL
    )
    asked = [re.search(r"\*\*Discuss\.\*\* (.*\?)", row[2]) for *_, t in PLANS for row in rows(t)]
    questions = {found[1] for found in asked if found}
    assert len(questions) >= 4 and questions <= {question for question, _ in answers}
    for name, _, table in PLANS:
        assert "**Discuss.**" in table, f"{name} closes without a discussion"
    assert min(len(answer.split()) for _, answer in answers) > 50
