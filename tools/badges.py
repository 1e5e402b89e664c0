"""Fill in the badges and the setup cell of every lesson: python -m tools.badges.

Both come from the course's public address, which is written once, in pyproject.toml.
"""

import re
import sys
import tomllib
from pathlib import Path

from nbformat import NotebookNode

from tools.lessons import ROOT, code_cells, has_tag, lesson_files, read, to_text, write

COLAB = "https://colab.research.google.com"
MARKERS = re.compile(r"<!-- badges -->.*?<!-- /badges -->", re.DOTALL)

SETUP = """\
import importlib.util
import subprocess
import sys
from pathlib import Path

if "google.colab" in sys.modules:  # on Colab: fetch the course, and only what is missing there
    folder = Path("{name}").resolve()
    if not folder.exists():
        print("Fetching the course")
        address = "{address}"
        subprocess.run(["git", "clone", "--quiet", "--depth=1", address, str(folder)], check=True)
    sys.path.insert(0, str(folder))
    missing = [name for name in ("opacus", "opt_einsum") if not importlib.util.find_spec(name)]
    if missing:
        print("Installing", ", ".join(missing))
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
        subprocess.run([*pip, *missing], check=True)
elif not importlib.util.find_spec("course_utils"):
    raise ModuleNotFoundError("This Python does not have the course: start it with `make lab`.")

from course_utils import setup

device = setup(minutes={minutes})"""


def public_address(root: Path = ROOT) -> str:
    """The course's public address, from pyproject.toml."""
    with open(root / "pyproject.toml", "rb") as file:
        return tomllib.load(file)["project"]["urls"]["Repository"].rstrip("/")


def badges(name: str, minutes: int, address: str) -> str:
    """The line of badges for the lesson in the file NAME."""
    blob = f"{COLAB}/github/{address.removeprefix('https://github.com/')}/blob/main/notebooks"
    image = f"{COLAB}/assets/colab-badge.svg"
    return (
        "<!-- badges -->\n"
        f"Lesson [![Open the lesson in Colab]({image})]({blob}/{name}) · "
        f"workshop copy [![Open the workshop copy in Colab]({image})]({blob}/workshop/{name}) · "
        f"{minutes} minutes · no GPU needed\n"
        "<!-- /badges -->"
    )


def fill(nb: NotebookNode, name: str, address: str) -> NotebookNode:
    """Put badges and setup cell into a lesson. Raises ValueError where there is no place."""
    minutes = nb.metadata.get("course", {}).get("minutes")
    if not isinstance(minutes, int):
        raise ValueError('the notebook metadata must say {"course": {"minutes": 25}}')
    if not nb.cells or len(MARKERS.findall(nb.cells[0].source)) != 1:
        raise ValueError("the first cell must hold <!-- badges --> and <!-- /badges --> once")
    cells = [cell for cell in code_cells(nb) if has_tag(cell, "setup")]
    if len(cells) != 1:
        raise ValueError(f"expected one cell tagged setup, found {len(cells)}")
    line = badges(name, minutes, address)
    nb.cells[0].source = MARKERS.sub(lambda _: line, nb.cells[0].source)
    folder = address.rpartition("/")[2]
    cells[0].source = SETUP.format(name=folder, address=address, minutes=minutes)
    return nb


def main() -> None:
    """Fill in every lesson, or none when one of them is wrong."""
    filled, errors = {}, []
    for path in lesson_files():
        try:
            filled[path] = to_text(fill(read(path), path.name, public_address()))
        except ValueError as error:
            errors.append(f"{path.name}: {error}")
    if errors:
        sys.exit("Nothing was written.\n" + "\n".join(errors))
    for path, text in filled.items():
        write(path, text)


if __name__ == "__main__":
    main()
