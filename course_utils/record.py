"""What the checks of the exercises note: one line of JSON for each try, in progress.jsonl.

A kernel that starts in my_work/ notes from the first. The setup cell of a workshop copy calls
`keep_progress`, which says where, and starts it anywhere else. The complete lessons and the tests
do neither: they run the course's own solutions, and leave no trace.
"""

import ast
import datetime
import functools
import inspect
import json
import os
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

from course_utils.code_hash import code_text, short_hash

FILE = "progress.jsonl"
MY_WORK = Path(__file__).resolve().parents[1] / "my_work"
CONTENT = Path("/content")  # where Colab mounts Google Drive, under a name of the reader's choice
LONGEST = 600  # letters of a message


def keep_progress() -> None:
    """From now on each check of this notebook notes whether the exercise passed; say where.

    On Colab that is in Google Drive where it is mounted, with what was noted before in the same
    session, and else in a folder that ends with the session.
    """
    global _file
    _file, here = progress_file(), MY_WORK / FILE
    mounted = _file.is_relative_to(CONTENT) and _file != here
    if mounted and here.is_file() and append(_file, here.read_bytes()):
        here.unlink()
    if append(_file):
        print(f"Your progress is kept in {named(_file)}: course_utils.progress() shows it.")
    if "google.colab" in sys.modules:
        if not mounted:
            print(
                "That folder ends with this session. To keep your progress, mount Google Drive "
                "(folder icon on the left) and run this cell again."
            )
        print("To keep what you write, work in a copy: File > Save a copy in Drive.")


def progress_file() -> Path:
    """The learner's file: in my_work/ if the kernel runs inside the course, else where it runs.

    On Colab it is in Google Drive if that is mounted, and else in my_work/ of the fetched course.
    """
    if "google.colab" in sys.modules:
        drive = next(CONTENT.glob("*/MyDrive"), None)
        return drive / "data_poisoning" / FILE if drive else MY_WORK / FILE
    try:
        here = Path.cwd()
    except OSError:  # the folder is gone
        return MY_WORK / FILE
    return MY_WORK / FILE if here.is_relative_to(MY_WORK.parent) else here / FILE


def starts_in_my_work() -> bool:
    """Whether this is the kernel of a notebook in the learner's folder, be it moved or not."""
    ipython = sys.modules.get("IPython")
    if not ipython or ipython.get_ipython() is None:
        return False
    try:
        return os.path.isfile(FILE) or Path.cwd().is_relative_to(MY_WORK.resolve())
    except OSError:  # the folder is gone
        return False


def noting_file() -> Path | None:
    """The file that the checks of this kernel write to; None if they note nothing."""
    return _file


def named(path: Path) -> Path:
    """A path as the learner knows it: from the course's folder if it is in there."""
    root = MY_WORK.parent
    return path.relative_to(root) if path.is_relative_to(root) else path


def recorded(check: Callable) -> Callable:
    """Let a check note its outcome. A function that is not written yet is no try."""

    @functools.wraps(check)
    def noting(function: Callable, *others, **options):
        __tracebackhide__ = True  # of an error only the check and the function matter
        try:
            found = check(function, *others, **options)
        except NotImplementedError:
            raise
        except Exception as error:
            note(check, function, " ".join(str(error).split()) or type(error).__name__)
            raise
        note(check, function)
        return found

    return noting


def note(check: Callable, function: Callable, message: str = "") -> None:
    """Write one try to the learner's file: passed unless there is a message."""
    if _file is None:
        return
    if str(getattr(function, "__module__", "")).startswith("course_utils."):
        print("This is the course's own function, so it does not count as yours.")
        return
    entry = {
        "lesson": check.__module__.rpartition("_")[2],
        "function": check.__name__.removeprefix("check_"),
        "passed": not message,
        "message": message if len(message) <= LONGEST else f"{message[:LONGEST]} …",
        "source": source_hash(function),
        "at": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
    }
    append(_file, json.dumps(entry).encode() + b"\n")


def append(path: Path, lines: bytes = b"") -> bool:
    """Add lines to a file in one write, so that two kernels mix none; say once if that fails."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a+b", buffering=0) as file:
            if lines and file.tell():
                file.seek(-1, os.SEEK_END)
                lines = lines if file.read() == b"\n" else b"\n" + lines  # one was cut off
            file.write(lines)
    except OSError as error:
        say_once(f"Your progress is not noted: {path} cannot be written ({error.strerror}).")
        return False
    return True


@functools.cache
def say_once(message: str) -> None:
    """Print a message the first time only."""
    print(message)


def source_hash(function: Callable) -> str:
    """A hash of a function's code without comments, docstring and layout; of its bytecode if it
    has no source."""
    try:
        text = code_text(ast.parse(textwrap.dedent(inspect.getsource(function))))
    except (OSError, TypeError, ValueError, SyntaxError):
        code = getattr(function, "__code__", None)
        text = code.co_code.hex() if code else type(function).__name__
    return short_hash(text)


_file = progress_file() if starts_in_my_work() else None
