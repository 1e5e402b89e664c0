"""Every exercise: its solution passes the check, its stub fails it, and so do wrong answers."""

import ast
import importlib
import importlib.util
import linecache
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from nbformat import NotebookNode

from course_utils.checks import CheckFailed
from tools.lessons import ROOT, code_cells, has_tag, lesson_files, read
from tools.workshop import exercise_function, workshop_copy

WRONG_ANSWERS = ROOT / "tests" / "wrong_answers"


def exercises() -> list[tuple[Path, str]]:
    """Every exercise as the path of its lesson and the name of its function."""
    return [
        (path, exercise_function(cell.source).name)
        for path in lesson_files()
        for cell in code_cells(read(path))
        if has_tag(cell, "exercise")
    ]


def definitions(nb: NotebookNode) -> dict:
    """What a lesson's exercises may use: its imports, constants, exported cells and exercises.

    The experiments of the lesson are not run.
    """
    namespace = {"__name__": "lesson"}
    for cell in code_cells(nb):
        source = cell.source
        if source.startswith("#| export") or has_tag(cell, "exercise"):
            run(source, namespace)
        else:
            kept = filter(is_definition, ast.parse(source).body)
            exec(compile(ast.Module(list(kept), []), "<lesson>", "exec"), namespace)
    return namespace


def is_definition(node: ast.stmt) -> bool:
    """Whether a statement imports something or sets an UPPERCASE constant without calls."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        return True
    names = [target.id for target in getattr(node, "targets", []) if isinstance(target, ast.Name)]
    calls = any(isinstance(part, ast.Call) for part in ast.walk(node))
    return bool(names) and all(name.isupper() for name in names) and not calls


def run(source: str, namespace: dict) -> None:
    """Run a cell so that inspect and tracebacks find its source, as they do in a notebook."""
    name = f"<cell {hash(source)}>"
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    exec(compile(source, name, "exec"), namespace)


def check_of(path: Path, function: str) -> Callable:
    """The check function of an exercise."""
    module = importlib.import_module(f"course_utils.checks.lesson_{path.name[:2]}")
    return getattr(module, f"check_{function}")


def wrong_answers(path: Path) -> dict[str, list[tuple[Callable, str]]]:
    """The wrong answers of a lesson by exercise, each with what the message must contain."""
    file = WRONG_ANSWERS / f"lesson_{path.name[:2]}.py"
    if not file.exists():
        return {}
    spec = importlib.util.spec_from_file_location(f"wrong_answers_{path.name[:2]}", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.WRONG


def wrong_cases() -> Iterator:
    """One test case a wrong answer."""
    for path, function in EXERCISES:
        for number, (answer, phrase) in enumerate(wrong_answers(path).get(function, [])):
            yield pytest.param(
                path, function, answer, phrase, id=f"{path.name[:2]}-{function}-{number}"
            )


EXERCISES = exercises()
IDS = [f"{path.name[:2]}-{function}" for path, function in EXERCISES]
each_exercise = pytest.mark.parametrize(("path", "function"), EXERCISES, ids=IDS)


@each_exercise
def test_solution_passes_its_check(path, function, capsys):
    check_of(path, function)(definitions(read(path))[function])
    assert capsys.readouterr().out.count("\n") == 1


@each_exercise
def test_stub_fails_its_check(path, function):
    nb = read(path)
    namespace = definitions(nb)
    stubs = (cell.source for cell in code_cells(workshop_copy(nb, path.name)))
    run(next(source for source in stubs if f"def {function}(" in source), namespace)
    with pytest.raises((CheckFailed, NotImplementedError), match="Write this function"):
        check_of(path, function)(namespace[function])


@each_exercise
def test_there_are_wrong_answers(path, function):
    assert len(wrong_answers(path).get(function, [])) >= 2, (
        f"give at least two wrong answers to {function} in tests/wrong_answers/"
        f"lesson_{path.name[:2]}.py"
    )


@pytest.mark.parametrize(("path", "function", "answer", "phrase"), list(wrong_cases()))
def test_wrong_answer_fails_with_a_helpful_message(path, function, answer, phrase):
    with pytest.raises(CheckFailed) as failure:
        check_of(path, function)(answer)
    assert phrase in str(failure.value)


@pytest.mark.parametrize("path", lesson_files(), ids=lambda path: path.stem)
def test_wrong_answers_belong_to_exercises(path):
    names = {function for lesson, function in EXERCISES if lesson == path}
    assert set(wrong_answers(path)) <= names
