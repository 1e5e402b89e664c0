"""Put the workshop copies into my_work/, the learner's own folder: python -m tools.my_work.

What is there is never written again. A copy that the course has changed goes beside the old one.
"""

import hashlib
import json
import sys
from pathlib import Path

from tools.lessons import ROOT, write

FOLDER = "my_work"
GIVEN = ".given.json"  # by lesson, the hash of the copy that was put there last


def own_copy(path: Path) -> str:
    """The text of a workshop copy with its links as they are from my_work/."""
    text = path.read_text(encoding="utf-8")
    complete = text.replace(f"](../{path.name})", f"](../notebooks/{path.name})")
    return complete.replace("](../../", "](../")


def read_given(path: Path) -> dict[str, str]:
    """The hashes of what was put there. Raises ValueError if the file is not as it was written."""
    try:
        given = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        if not isinstance(given, dict):
            raise ValueError("it holds no table")
    except ValueError as error:
        raise ValueError(
            f"{path} cannot be read ({error}). Nothing was written. Delete it: then every lesson "
            "that differs from the course's is put beside yours once more."
        ) from error
    return given


def free_name(path: Path) -> Path:
    """The first of NAME_new.ipynb, NAME_new2.ipynb, ... that is not taken."""
    number = 1
    while (free := path.with_stem(f"{path.stem}_new{number if number > 1 else ''}")).exists():
        number += 1
    return free


def fill(root: Path = ROOT) -> list[str]:
    """Put what is missing or new into my_work/, and say what was put beside a learner's copy.

    Raises ValueError if the record of what was put there is damaged.
    """
    folder, messages = root / FOLDER, []
    given = read_given(folder / GIVEN)
    for path in sorted((root / "notebooks" / "workshop").glob("[0-9][0-9]_*.ipynb")):
        text, mine = own_copy(path), folder / path.name
        now = hashlib.sha256(text.encode()).hexdigest()
        if not mine.exists():
            write(mine, text)
        elif given.get(path.name) != now and mine.read_text(encoding="utf-8") != text:
            new = free_name(mine)
            write(new, text)
            messages.append(f"{path.name} has changed: the new one is {FOLDER}/{new.name}.")
        given[path.name] = now
        write(folder / GIVEN, json.dumps(given, indent=1) + "\n")
    return messages


def main() -> None:
    """Fill the folder, and say what is new."""
    try:
        for message in fill():
            print(message, "Yours is as you left it.")
    except (OSError, ValueError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
