"""The journal of an unfinished study: one line for each finished trial, safe against being killed.

A line is JSON and carries a checksum of itself. The first one, the header, says what study, seeds
and code the others belong to.
"""

import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path

from course_utils.code_hash import short_hash


class StudyError(RuntimeError):
    """A stored study that is missing, unfinished, damaged or older than the code it came from."""


def append(path: Path, header: dict, entry: dict) -> dict:
    """Write one entry and see it on the disk; the entry as `read` will give it back.

    Numbers of NumPy and PyTorch become plain ones. The first entry brings the header with it.
    """
    line = seal(entry)
    new = not path.is_file() or path.stat().st_size == 0
    with open(path, "ab") as file:
        file.write(seal(header) + line if new else line)
        file.flush()
        os.fsync(file.fileno())
    return unseal(line)


def read(path: Path, header: dict) -> list[dict]:
    """The entries of a journal, oldest first; none if there is no journal.

    A last line that is only half there does not count. Raises StudyError if any other line is
    damaged, or if the journal has another header than this one.
    """
    if not path.is_file():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]
    entries = []
    for number, line in enumerate(lines, start=1):
        try:
            entries.append(unseal(line))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StudyError(
                f"Line {number} of {path} is damaged ({error}): the journal was edited, or the "
                "disk failed. Restore it from a copy, or delete it to run its trials again."
            ) from error
    if entries:
        check_header(path, entries[0], header)
    return entries[1:]


def resume(path: Path, header: dict) -> list[dict]:
    """The entries, as `read` gives them, of a journal that will be written on.

    A half-written last line is cut off, with a warning: what it was to hold is run again.
    """
    entries = read(path, header)
    if path.is_file():
        text = path.read_bytes()
        whole = text.rfind(b"\n") + 1
        if whole < len(text):
            warnings.warn(
                f"The last line of {path} was only half written and is dropped: its trial runs "
                "again.",
                stacklevel=2,
            )
            os.truncate(path, whole)
    return entries


def carry_over(path: Path, header: dict) -> None:
    """Give a journal another header, in one step; its trials stay as they are."""
    entries = resume(path, unseal(path.read_bytes().split(b"\n")[0]))
    write({path: b"".join(map(seal, [header, *entries])).decode()})


def write(files: Mapping[Path, str]) -> None:
    """Give files new contents: all are written beside first, and take their places last.

    None is ever half-written. Where a process ends just between two places, `load_study` says so.
    """
    parts = {path: path.with_suffix(f"{path.suffix}.part") for path in files}
    for path, part in parts.items():
        part.write_text(files[path], encoding="utf-8", newline="\n")
    for path, part in parts.items():
        os.replace(part, path)


def check_header(path: Path, found: dict, header: dict) -> None:
    """Raise StudyError unless the journal belongs to the very study that this header describes."""
    other = [name for name in header if name != "commit" and found.get(name) != header[name]]
    if other:
        raise StudyError(
            f"{path} holds trials of other {' and '.join(other)} than those to run now: the study "
            "was changed after it had been begun. If its rows should be the same, `make verify` "
            f"carries it over; else change {other[0]} back to finish it, or delete it to begin "
            "anew."
        )


def seal(entry: dict) -> bytes:
    """One line: the entry as JSON, with a checksum of its own text."""
    text = json.dumps(entry, default=plain)
    return json.dumps({**json.loads(text), "sha256": short_hash(text)}).encode() + b"\n"


def unseal(line: bytes) -> dict:
    """The entry of a line. Raises ValueError, KeyError or TypeError if the line is damaged."""
    entry = json.loads(line)
    if entry.pop("sha256") != short_hash(json.dumps(entry)):
        raise ValueError("its checksum does not fit")
    return entry


def plain(number: object) -> object:
    """A number of NumPy or PyTorch as one of Python. Raises TypeError for anything else."""
    if not hasattr(number, "item"):
        raise TypeError(f"A row holds {number!r}: expected numbers, texts, True, False or None.")
    return number.item()
