"""The hash of a study's code. One that changed says 'look': `make verify` does."""

import ast
import functools
import hashlib
import inspect
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STORE = ("course_utils.stored", "course_utils.journal", "course_utils.code_hash")
LEARNER = "course_utils.overview"  # the package passes a name of it on, and no trial calls it


def code_hash(trial: Callable) -> str:
    """A hash of the module of a trial and of all modules of the course that it imports in turn.

    Comments, docstrings and layout do not count, and neither do the modules that only store rows.
    Code that was typed into a notebook has no file, so only its name counts.
    """
    trial = inspect.unwrap(getattr(trial, "func", trial))
    texts, waiting = {}, [trial.__module__]
    while waiting:
        module = waiting.pop()
        path = _file(module)
        if module in texts or module in STORE or path is None:
            continue
        texts[module], imported = _read(path, path.stat().st_mtime_ns)
        waiting += [name for name in imported if name.startswith("course_utils")]
    text = "\n".join(f"{module}\n{texts[module]}" for module in sorted(texts))
    return short_hash(text)


def short_hash(text: str) -> str:
    """The first 16 digits of the SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _file(module: str) -> Path | None:
    """The file of a module: of the course, or of the trial; None if it has none."""
    if not module.startswith("course_utils"):
        found = getattr(sys.modules.get(module), "__file__", None)
        return Path(found) if found else None
    path = ROOT.joinpath(*module.split("."))
    choices = (path.with_suffix(".py"), path / "__init__.py")
    return next((choice for choice in choices if choice.is_file()), None)


@functools.cache
def _read(path: Path, changed: int) -> tuple[str, tuple[str, ...]]:
    """The code of a file as text, and the names of the modules that it may import."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    tree.body = [node for node in tree.body if getattr(node, "module", None) != LEARNER]
    return code_text(tree), tuple(_imports(tree))


def code_text(tree: ast.Module) -> str:
    """The code of a tree as text: without comments, docstrings and layout."""
    return _as_text(_bare(tree))


def _imports(tree: ast.Module) -> Iterator[str]:
    """Every name that an import of the file could mean as a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _bare(tree: ast.Module) -> ast.Module:
    """The tree without docstrings."""
    for node in ast.walk(tree):
        documented = isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef)
        if documented and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return tree


def _as_text(node: object) -> str:
    """A syntax tree as text. Empty fields are left out: newer versions of Python have more."""
    if isinstance(node, list):
        return f"[{', '.join(map(_as_text, node))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = [(name, value) for name, value in ast.iter_fields(node) if value not in (None, [])]
    return f"{type(node).__name__}({', '.join(f'{n}={_as_text(v)}' for n, v in fields)})"
