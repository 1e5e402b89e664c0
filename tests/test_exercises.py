"""Every exercise: its solution and unusual right answers pass the check; its stub and wrong answers
fail it, each with a message that names its cause.
"""

import ast
import copy
import functools
import importlib
import importlib.util
import inspect
import linecache
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from nbformat import NotebookNode
from torch import Tensor, nn

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


def answers(path: Path, kind: str) -> dict[str, list]:
    """The answers of a lesson by exercise. kind: RIGHT, functions that must pass the check; or
    WRONG, pairs of a function that must fail it and what the message must contain.
    """
    file = WRONG_ANSWERS / f"lesson_{path.name[:2]}.py"
    if not file.is_file():
        return {}
    spec = importlib.util.spec_from_file_location(f"wrong_answers_{path.name[:2]}", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, kind, {})


def cases(kind: str) -> Iterator:
    """One test case an answer."""
    for path, function in EXERCISES:
        for answer in answers(path, kind).get(function, []):
            made = answer if kind == "RIGHT" else answer[0]
            name = f"{path.name[:2]}-{function}-{made.__name__}"
            yield pytest.param(path, function, answer, id=name)


def parts(value, kind: type) -> Iterator:
    """Everything of a kind among the inputs of an exercise."""
    if isinstance(value, kind):
        yield value
    if isinstance(value, list | tuple):
        for part in value:
            yield from parts(part, kind)


def draws_globally(inputs: tuple, answer):
    torch.rand(1)
    return answer


def seeds_globally(inputs: tuple, answer):
    np.random.seed(0)  # noqa: NPY002
    return answer


def switches_gradients_off(inputs: tuple, answer):
    torch.set_grad_enabled(False)
    return answer


def writes_into_an_input(inputs: tuple, answer):
    for values in parts(inputs, Tensor | np.ndarray):
        array = values.detach().numpy() if isinstance(values, Tensor) else values
        first = (0,) * array.ndim
        array[first] = not array[first] if array.dtype == bool else array[first] + 1
        return answer
    for counts in parts(inputs, dict | list):
        counts.clear()
        return answer
    return UNTOUCHED


def leaves_the_mode(inputs: tuple, answer):
    for model in parts(inputs, nn.Module):
        model.train(not model.training)
        return answer
    return UNTOUCHED


def leaves_a_gradient(inputs: tuple, answer):
    for model in parts(inputs, nn.Module):
        for weight in model.parameters():
            weight.grad = torch.ones_like(weight)
        return answer
    return UNTOUCHED


def asks_for_gradients(inputs: tuple, answer):
    for values in parts(inputs, Tensor):
        if values.is_floating_point() and values.is_leaf and not values.requires_grad:
            values.requires_grad_()
            return answer
    return UNTOUCHED


def has_no_return(inputs: tuple, answer):
    return UNTOUCHED if answer is None else None


def gives_nan(inputs: tuple, answer):
    if answer is None:
        return None
    if isinstance(answer, str):
        return UNTOUCHED  # no text is NaN
    if isinstance(answer, tuple | list):
        spoilt = [gives_nan(inputs, part) for part in answer]
        return answer._make(spoilt) if hasattr(answer, "_make") else type(answer)(spoilt)
    if isinstance(answer, dict):
        return {name: gives_nan(inputs, part) for name, part in answer.items()}
    if isinstance(answer, nn.Module):
        spoilt = copy.deepcopy(answer)
        for weight in spoilt.parameters():
            nn.init.constant_(weight, torch.nan)
        return spoilt
    return answer * torch.nan if isinstance(answer, Tensor) else np.multiply(answer, np.nan)


UNTOUCHED = object()
# What a call may leave behind whatever the exercise asks, and what the message must say of it.
DAMAGE = {
    draws_globally: "global random state",
    seeds_globally: "global random state",
    switches_gradients_off: "torch.no_grad()",
    writes_into_an_input: "What came in was changed",
    leaves_the_mode: "The mode of",
    leaves_a_gradient: "A gradient was left",
    asks_for_gradients: "requires_grad` was changed",
    has_no_return: "None",
    gives_nan: "nan",
}


def damaged(solution: Callable, damage: Callable) -> Callable:
    """A right answer that does damage once it is done."""

    @functools.wraps(solution)
    def answer(*inputs, **options):
        made = damage(inputs, solution(*inputs, **options))
        if made is UNTOUCHED:
            pytest.skip("nothing among the inputs can be damaged so")
        return made

    return answer


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
def test_there_are_wrong_and_unusual_right_answers(path, function):
    wanted = f"tests/wrong_answers/lesson_{path.name[:2]}.py needs 8 WRONG and 3 RIGHT answers"
    assert len(answers(path, "WRONG").get(function, [])) >= 8, wanted
    assert len(answers(path, "RIGHT").get(function, [])) >= 3, wanted


@pytest.mark.parametrize(("path", "function", "answer"), list(cases("WRONG")))
def test_wrong_answer_fails_with_a_helpful_message(path, function, answer):
    with pytest.raises(CheckFailed) as failure:
        check_of(path, function)(answer[0])
    assert answer[1] in str(failure.value)
    told = re.search(r" is (.+), you gave (.+?)\. ", str(failure.value))
    assert told is None or told[1].split(" is ")[-1] != told[2], "the two numbers look the same"


def quoted(nb: NotebookNode, function: str) -> list[str]:
    """What the fold 'If it goes wrong' of an exercise quotes from the messages of its check."""
    named = f"def {function}("
    place = next(k for k, c in enumerate(nb.cells) if has_tag(c, "exercise") and named in c.source)
    text = "\n".join(c.source for c in nb.cells[:place] if c.cell_type == "markdown")
    fold = text.split("<summary>If it goes wrong</summary>")[-1].split("</details>")[0]
    heads = [line.split("*:")[0] + "*" for line in fold.splitlines() if line.startswith("- *")]
    return [phrase for head in heads for phrase in re.findall(r"\*(.+?)\*", head)]


@each_exercise
def test_folds_quote_messages_that_can_come(path, function):
    said, wrong = [], [answer for answer, _ in answers(path, "WRONG").get(function, [])]
    for answer in (*wrong, lambda *inputs: None):
        with pytest.raises(CheckFailed) as failure:
            check_of(path, function)(answer)
        said.append(str(failure.value).lower())
    phrases = [phrase.lower().rstrip(". …") for phrase in quoted(read(path), function)]
    assert not [phrase for phrase in phrases if not any(phrase in text for text in said)]


@pytest.mark.parametrize(("path", "function", "answer"), list(cases("RIGHT")))
def test_unusual_right_answer_passes(path, function, answer):
    check_of(path, function)(answer)


@each_exercise
@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_damage_is_seen(path, function, damage):
    solution = definitions(read(path))[function]
    with pytest.raises(CheckFailed) as failure:
        check_of(path, function)(damaged(solution, damage))
    assert DAMAGE[damage] in str(failure.value)


# Arguments of which a check cannot tell that those of its first call are used again.
UNTOLD = {
    ("adversarial_loss", "generator"),
    ("craft_in_batch", "step_size"),
    *(("poisoned_batch", name) for name in ("model", "images", "labels", "split", "recombine")),
}


@each_exercise
def test_every_argument_matters(path, function):
    solution = definitions(read(path))[function]
    for place, name in enumerate(inspect.signature(solution).parameters):
        if (function, name) not in UNTOLD:
            with pytest.raises(CheckFailed):
                check_of(path, function)(with_a_stale_argument(solution, place))


def with_a_stale_argument(solution: Callable, place: int) -> Callable:
    """A right answer, but one of its arguments is that of the first call for ever."""
    first = []

    @functools.wraps(solution)
    def answer(*inputs, **options):
        inputs = list(inputs)
        if place < len(inputs):
            first.append(copy.deepcopy(inputs[place]))
            inputs[place] = first[0]
        return solution(*inputs, **options)

    return answer


@pytest.mark.parametrize("path", lesson_files(), ids=lambda path: path.stem)
def test_answers_belong_to_exercises(path):
    names = {function for lesson, function in EXERCISES if lesson == path}
    assert set(answers(path, "WRONG")) | set(answers(path, "RIGHT")) <= names
