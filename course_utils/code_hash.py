"""The hash of a trial's code: it tells when a stored study is older than what it came from."""

import ast
import dataclasses
import dis
import functools
import hashlib
import inspect
import textwrap
import types
from collections.abc import Callable, Iterator


def code_hash(function: Callable) -> str:
    """A hash of a function and of all the course's code that it reaches.

    Comments, docstrings and layout do not count. Code is the course's if it was defined in
    `course_utils`, in `tools` or in a notebook; the constants that such code names count with
    their value, if they are numbers, texts, containers or dataclasses of these (tensors and arrays
    do not count).
    """
    text = "\n".join(sorted(set(_reach("trial", function, set()))))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _reach(name: str, value: object, seen: set) -> Iterator[str]:
    """What a name stands for, as text, and all that this reaches in turn."""
    if callable(value):
        value = inspect.unwrap(value)
    if isinstance(value, (types.FunctionType, type)):
        yield from _reach_code(value, seen)
    elif isinstance(value, functools.partial):
        yield from _reach(name, (value.func, value.args, value.keywords), seen)
    elif isinstance(value, dict):
        for key, entry in value.items():
            yield from _reach(f"{name}[{key!r}]", entry, seen)
    elif isinstance(value, (tuple, list)):
        for position, entry in enumerate(value):
            yield from _reach(f"{name}[{position}]", entry, seen)
    elif dataclasses.is_dataclass(value):
        yield from _reach_code(type(value), seen)
        for field in dataclasses.fields(value):
            yield from _reach(f"{name}.{field.name}", getattr(value, field.name), seen)
    elif isinstance(value, (set, frozenset)):
        yield f"{name} = {sorted(map(repr, value))}"
    elif isinstance(value, (bool, int, float, str, range)):
        yield f"{name} = {value!r}"


def _reach_code(item: types.FunctionType | type, seen: set) -> Iterator[str]:
    """The source of a function or class of the course, and all that it uses."""
    if item in seen or not _is_ours(item.__module__):
        return
    seen.add(item)
    yield f"{item.__qualname__}\n{_source(item)}"
    for base in getattr(item, "__bases__", ()):
        yield from _reach_code(base, seen)
    members = vars(item) if isinstance(item, type) else {"": item}
    for name, member in members.items():
        function = _function(member)
        if _is_written(function):
            yield from _reach_uses(function, seen)
        elif not name.startswith("__") and not callable(member):
            yield from _reach(f"{item.__qualname__}.{name}", member, seen)


def _reach_uses(function: types.FunctionType, seen: set) -> Iterator[str]:
    """The globals, defaults and enclosing values that the code of a function uses."""
    for name, value in _globals(function):
        yield from _reach(name, value, seen)
    defaults = (function.__defaults__, function.__kwdefaults__)
    yield from _reach(f"{function.__qualname__} defaults", defaults, seen)
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        yield from _reach(f"{function.__qualname__}.{name}", cell.cell_contents, seen)


def _globals(function: types.FunctionType) -> Iterator[tuple[str, object]]:
    """The globals that a function reads; of a module of the course, what it names there."""
    read, attributes = _names(function.__code__)
    for name in read & function.__globals__.keys():
        value = function.__globals__[name]
        if not isinstance(value, types.ModuleType):
            yield name, value
        elif _is_ours(value.__name__):
            for attribute in attributes & vars(value).keys():
                yield attribute, vars(value)[attribute]


def _names(code: types.CodeType) -> tuple[set[str], set[str]]:
    """The globals that a piece of code reads, and the attributes it asks for."""
    read = {step.argval for step in dis.get_instructions(code) if step.opname == "LOAD_GLOBAL"}
    attributes = set(code.co_names)
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            inner_read, inner_attributes = _names(inner)
            read, attributes = read | inner_read, attributes | inner_attributes
    return read, attributes


def _function(member: object) -> object:
    """The function behind a method, property, static method or class method."""
    return inspect.unwrap(getattr(member, "fget", getattr(member, "__func__", member)))


def _is_written(item: object) -> bool:
    """Whether it is a function of the course, not one that a dataclass made for itself."""
    return (
        isinstance(item, types.FunctionType)
        and _is_ours(item.__module__)
        and item.__code__.co_filename != "<string>"
    )


def _is_ours(module: str) -> bool:
    return module.split(".")[0] in ("course_utils", "tools", "__main__")


def _source(item: types.FunctionType | type) -> str:
    """The syntax tree without docstrings, as text that is the same for every version of Python."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(item)))
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and ast.get_docstring(node):
            node.body = node.body[1:] or [ast.Pass()]
    return _as_text(tree)


def _as_text(node: object) -> str:
    """A syntax tree as text. Empty fields are left out: newer versions of Python have more."""
    if isinstance(node, list):
        return f"[{', '.join(map(_as_text, node))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = [(name, value) for name, value in ast.iter_fields(node) if value not in (None, [])]
    return f"{type(node).__name__}({', '.join(f'{n}={_as_text(v)}' for n, v in fields)})"
