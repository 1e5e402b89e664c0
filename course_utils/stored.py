"""Stored studies: experiments too long to run live, with the code that they came from."""

import ast
import dataclasses
import dis
import hashlib
import inspect
import io
import json
import os
import platform
import textwrap
import time
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from course_utils.runtime import package_versions
from course_utils.trials import Rows, run_trials

RESULTS = Path(__file__).resolve().parents[1] / "data" / "results"


class StudyError(RuntimeError):
    """A stored study that is missing, damaged or older than the code it came from."""


@dataclass(frozen=True)
class Study:
    """An experiment that is too long to run live: its trials are stored in data/results.

    name: the name of the files. lesson: the lesson that shows it, as "05".
    trial: what one trial does. seeds: the trials, fixed beforehand; none was tuned on.
    """

    name: str
    lesson: str
    trial: Callable[[int], Rows]
    seeds: Sequence[int]

    @property
    def remedy(self) -> str:
        return f"Run `make results LESSON={self.lesson}`."


def run_study(study: Study, jobs: int | None = None, folder: Path = RESULTS) -> pd.DataFrame:
    """Run a study and store its frame (NAME.csv) with its manifest (NAME.json)."""
    begin = time.perf_counter()
    frame = run_trials(study.trial, study.seeds, jobs)
    text = frame.to_csv(index=False, float_format="%.6g")
    manifest = {
        "study": study.name,
        "lesson": study.lesson,
        "seeds": list(study.seeds),
        "columns": list(frame.columns),
        "rows": len(frame),
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
        "code": code_hash(study.trial),
        "versions": {"python": platform.python_version(), **package_versions()},
        "machine": machine(),
        "date": time.strftime("%Y-%m-%d"),
        "minutes": round((time.perf_counter() - begin) / 60, 1),
    }
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / f"{study.name}.csv", text)
    _write(folder / f"{study.name}.json", json.dumps(manifest, indent=1) + "\n")
    return frame


def load_study(study: Study, folder: Path = RESULTS) -> pd.DataFrame:
    """The stored frame of a study.

    Raises StudyError if it is missing, damaged, or stale: made by other code or other seeds.
    """
    manifest = load_manifest(study, folder)
    text = (folder / f"{study.name}.csv").read_bytes()
    if hashlib.sha256(text).hexdigest() != manifest["sha256"]:
        raise StudyError(
            f"{study.name}.csv differs from what its manifest promises: it was edited or cut "
            f"short. Restore it with `git checkout -- data/results`, or: {study.remedy}"
        )
    if manifest["seeds"] != list(study.seeds):
        raise StudyError(f"The stored study {study.name} has other seeds. {study.remedy}")
    if manifest["code"] != code_hash(study.trial):
        raise StudyError(
            f"The stored study {study.name} is stale: the code it depends on has changed since. "
            f"{study.remedy}"
        )
    return pd.read_csv(io.BytesIO(text))


def load_manifest(study: Study, folder: Path = RESULTS) -> dict:
    """The manifest of a stored study. Raises StudyError if a file is missing or unreadable."""
    for ending in ("csv", "json"):
        if not (folder / f"{study.name}.{ending}").is_file():
            raise StudyError(f"There is no stored {study.name}.{ending}. {study.remedy}")
    try:
        manifest = json.loads((folder / f"{study.name}.json").read_text())
        return {key: manifest[key] for key in ("seeds", "sha256", "code", "versions", "machine")}
    except (ValueError, KeyError, TypeError) as error:
        raise StudyError(
            f"The manifest {study.name}.json cannot be read ({error}). "
            f"Restore it with `git checkout -- data/results`, or: {study.remedy}"
        ) from error


def machine() -> str:
    """The processor that numbers were measured on, as far as the system tells."""
    cpu_info = Path("/proc/cpuinfo")
    if cpu_info.is_file():
        for line in cpu_info.read_text().splitlines():
            if line.startswith("model name"):
                return f"{line.partition(':')[2].strip()}, {os.cpu_count()} cores"
    return f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"


def code_hash(function: Callable) -> str:
    """A hash of a function and of all the course's code that it reaches.

    Comments, docstrings and layout do not count. Code is the course's if it was defined in
    `course_utils` or in a notebook; the constants that such code uses count with their value.
    """
    found: dict[object, str] = {}
    _reach(function, found)
    text = "\n".join(sorted(found.values()))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _reach(item: Callable | type, found: dict[object, str]) -> None:
    """Add the source of a function or class to `found`, and whatever its code names."""
    item = inspect.unwrap(item)
    if item in found or not _is_ours(item):
        return
    found[item] = f"{item.__qualname__}\n{_source(item)}"
    for function in [item] if isinstance(item, types.FunctionType) else _methods(item):
        for name in _names(function.__code__):
            if name in function.__globals__:
                _reach_value(name, function.__globals__[name], found)


def _reach_value(name: str, value: object, found: dict[object, str]) -> None:
    if isinstance(value, (types.FunctionType, type)):
        _reach(value, found)
    elif isinstance(value, dict):
        for key, entry in value.items():
            _reach_value(f"{name}[{key!r}]", entry, found)
    elif dataclasses.is_dataclass(value):
        _reach(type(value), found)
        for key, entry in vars(value).items():
            _reach_value(f"{name}.{key}", entry, found)
    elif isinstance(value, (bool, int, float, str, tuple, range)):
        found[name] = f"{name} = {value!r}"


def _is_ours(item: Callable | type) -> bool:
    return item.__module__ == "__main__" or item.__module__.split(".")[0] == "course_utils"


def _methods(item: type) -> list[types.FunctionType]:
    members = [getattr(value, "fget", value) for value in vars(item).values()]
    return [inspect.unwrap(value) for value in members if isinstance(value, types.FunctionType)]


def _names(code: types.CodeType) -> set[str]:
    """The global names that a piece of code reads; an attribute may be called alike."""
    names = {step.argval for step in dis.get_instructions(code) if step.opname == "LOAD_GLOBAL"}
    inner = [_names(const) for const in code.co_consts if isinstance(const, types.CodeType)]
    return names.union(*inner)


def _source(item: Callable | type) -> str:
    """The source without comments, docstrings and layout."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(item)))
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and ast.get_docstring(node):
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)


def _write(path: Path, text: str) -> None:
    part = path.with_suffix(path.suffix + ".part")
    part.write_text(text)
    os.replace(part, path)
