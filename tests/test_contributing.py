"""CONTRIBUTING and the README name only what exists, and the README names every lesson."""

import ast
import csv
import re

import pytest

from tools.lessons import ROOT, lesson_files, read

README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
START = (ROOT / "notebooks" / "00_start_here.ipynb").read_text(encoding="utf-8")
REFERENCES = (ROOT / "notebooks" / "REFERENCES.md").read_text(encoding="utf-8")
COURSE = ROOT / "course_utils"
STAND_IN = re.compile(r"NAME|NN")


QUOTED = list(dict.fromkeys(" ".join(q.split()) for q in re.findall(r"`([^`]+)`", CONTRIBUTING)))


def defined(path) -> set[str]:
    """The names of what a module defines: functions, classes, fields, constants, arguments."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.arg):
            found.add(node.arg)
    return found


MODULES = {
    ".".join(path.relative_to(COURSE).with_suffix("").parts): path
    for path in sorted(COURSE.rglob("[!_]*.py"))
}
CLAIMS = csv.reader((ROOT / "data" / "claims.csv").read_text(encoding="utf-8").splitlines())
CLAIM_WORDS = {*next(CLAIMS), *(row[1] for row in CLAIMS)}  # the columns, and the kinds of line
NAMES = {"course_utils", *CLAIM_WORDS}.union(*map(defined, MODULES.values()))


@pytest.mark.parametrize("path", [q for q in QUOTED if re.fullmatch(r"[\w./]+", q)])
def test_files_and_names_that_contributing_gives_exist(path):
    if "/" not in path:
        in_a_tag = f'"{path}"' in START
        assert in_a_tag or path in NAMES or set(path.split(".")) <= NAMES
        return
    known = STAND_IN.split(path)[0]
    if known != path:
        known = known.rpartition("/")[0]
    assert (ROOT / known).exists() or (COURSE / known).exists()


@pytest.mark.parametrize("call", [q for q in QUOTED if re.fullmatch(r"[\w.]+\(.*\)", q)])
def test_calls_that_contributing_shows_can_be_made(call):
    if STAND_IN.search(call):
        return
    parts = list(ast.walk(ast.parse(call.replace("...", "0"))))
    names = {part.id for part in parts if isinstance(part, ast.Name)}
    names |= {part.attr for part in parts if isinstance(part, ast.Attribute)}
    assert names <= NAMES


@pytest.mark.parametrize("text", [CONTRIBUTING, README], ids=["CONTRIBUTING", "README"])
def test_commands_exist(text):
    targets = set(re.findall(r"^([a-z]+):", MAKEFILE, re.MULTILINE))
    variables = set(re.findall(r"^([A-Z_]+) \?=", MAKEFILE, re.MULTILINE))
    commands = re.findall(r"`make ([a-z]+)((?:\s[A-Z_]+=\S+?)*)`", text)
    assert len(commands) >= 4
    assert {target for target, _ in commands} <= targets
    given = {name for _, settings in commands for name in re.findall(r"([A-Z_]+)=", settings)}
    assert given <= variables
    tools = set(re.findall(r"-m\s+tools\.(\w+)", text))
    assert tools and all((ROOT / "tools" / f"{name}.py").is_file() for name in tools)


def test_every_command_is_in_the_help_and_verify_in_all_three():
    helped = set(re.findall(r"^([a-z]+):.*## ", MAKEFILE, re.MULTILINE))
    assert helped == set(re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)[1].split())
    assert "verify" in helped and all("`make verify`" in text for text in (README, CONTRIBUTING))


def test_the_sections_and_tags_of_a_lesson_are_those_of_lesson_00():
    for heading in (q for q in QUOTED if q.startswith("## ")):
        assert f'"{heading}' in START
    for export in re.findall(r"#\| export (\w+)\.NAME", " ".join(CONTRIBUTING.split())):
        assert (COURSE / export).is_dir()


def test_the_tree_in_the_readme_names_files_that_exist_and_says_what_each_is():
    tree = README.partition("## How it is built")[2].partition("```\n")[2].partition("```")[0]
    place = []
    for line in tree.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        name, _, comment = line.strip().partition(" ")
        place = [*place[:depth], name.rstrip("/")]
        assert comment.strip(), line
        assert place == ["my_work"] or ROOT.joinpath(*place).exists(), line


@pytest.mark.parametrize("path", lesson_files(), ids=lambda path: path.stem)
def test_the_readme_has_a_row_for_each_lesson(path):
    minutes = read(path).metadata["course"]["minutes"]
    row = rf"^\| {path.name[:2]} \| \[.+\]\(notebooks/{path.name}\) \| {minutes} \| .+ \|$"
    assert re.search(row, README, re.MULTILINE)


@pytest.mark.parametrize(
    "module", [name for name in MODULES if name.startswith(("attacks.", "defenses."))]
)
def test_a_method_from_a_paper_is_in_the_tables_of_the_references(module):
    cited = re.findall(r"arXiv (\d{4}\.\d{5})", MODULES[module].read_text(encoding="utf-8"))
    tables = REFERENCES.partition("\n## Attacks\n")[2].partition("\n## Papers\n")[0]
    assert not cited or any(number in tables for number in cited)


# What imports upwards: attacks on one defense import it, and lesson 20's attack and defense share
# the list of addresses of their case.
UPWARDS = {
    ("attacks.adaptive", "defenses.per_example"),
    ("attacks.last_votes", "defenses.certificates"),
    ("attacks.lapsed_domains", "cases.data_list"),
    ("defenses.hashed_list", "cases.data_list"),
}
FLOORS = {"attacks": 1, "defenses": 2, "cases": 3, "studies": 4, "checks": 4} | dict.fromkeys(
    ("incident", "paper_scale"), 4
)


def test_nothing_imports_upwards_but_attacks_on_one_defense():
    found = set()
    for module, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ImportFrom) or not node.module:
                continue
            for name in (node.module, *(f"{node.module}.{one.name}" for one in node.names)):
                other = name.removeprefix("course_utils.")
                if other in MODULES and floor(other) > floor(module):
                    found.add((module, other))
    assert found == UPWARDS


def floor(module: str) -> int:
    """How far up a module is: what lies below must not know of it."""
    return FLOORS.get(module.partition(".")[0], 0)
