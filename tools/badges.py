"""Fill in the badges and the setup cell of every lesson: python -m tools.badges.

Both come from the course's public address and its version, which are written once, in
pyproject.toml. `python -m tools.badges https://github.com/NAME/COURSE` first writes a new address,
there and wherever else the old one stands, and makes the workshop copies anew.
"""

import argparse
import re
import sys
import tomllib
from pathlib import Path

from nbformat import NotebookNode

from tools import workshop
from tools.lessons import ROOT, code_cells, has_tag, lesson_files, read, to_text, write

COLAB = "https://colab.research.google.com"
GITHUB = "https://github.com/"
NAMES_IT = ("pyproject.toml", "README.md", "CITATION.cff")
MARKERS = re.compile(r"<!-- badges -->.*?<!-- /badges -->", re.DOTALL)

SETUP = """\
import importlib.util
import subprocess
import sys
from pathlib import Path

if "google.colab" in sys.modules:  # on Colab: fetch the course, and only what is missing there
    places = [*(Path.cwd() / "here").parents, Path("{name}").resolve()]
    course = next((place for place in places if (place / "course_utils").is_dir()), places[-1])
    if not course.exists():
        print("Fetching the course")
        address = "{address}"
        part = f"'{{course}}.part'"
        clone = f"git clone --quiet --depth=1 --branch={release} {{address}} {{part}}"
        # Under another name until it is complete: an interruption must not look like the course.
        if subprocess.run(f"rm -rf {{part}} && {{clone}}", shell=True).returncode:
            raise ConnectionError("No course: check git and the network, then run this cell again.")
        Path(f"{{course}}.part").rename(course)
    sys.path.insert(0, str(course))
    importlib.import_module("course_utils.colab").install_missing()
elif not importlib.util.find_spec("course_utils"):
    raise ModuleNotFoundError("This Python does not have the course: start it with `make lab`.")

from course_utils import setup

device = setup(minutes={minutes})"""


def project(root: Path = ROOT) -> dict:
    """What pyproject.toml says of the course."""
    with open(root / "pyproject.toml", "rb") as file:
        return tomllib.load(file)["project"]


def public_address(root: Path = ROOT) -> str:
    """The course's public address."""
    return project(root)["urls"]["Repository"].rstrip("/")


def release(root: Path = ROOT) -> str:
    """The git tag of this version: lessons opened on Colab fetch the course as it was then."""
    return f"v{project(root)['version']}"


def setup_cell(address: str, minutes: int) -> str:
    """The setup cell of a lesson that takes so many minutes."""
    name = address.rpartition("/")[2]
    return SETUP.format(name=name, address=address, release=release(), minutes=minutes)


def badges(name: str, minutes: int, address: str) -> str:
    """The line of badges for the lesson in the file NAME."""
    blob = f"blob/{release()}/notebooks"
    colab = f"{COLAB}/github/{address.removeprefix(GITHUB)}/{blob}"
    image = f"{COLAB}/assets/colab-badge.svg"
    return (
        "<!-- badges -->\n"
        f"<sub>Lesson [![Open the lesson in Colab]({image})]({colab}/{name}) · "
        f"workshop copy [![Open the workshop copy in Colab]({image})]({colab}/workshop/{name}) · "
        f"[glossary]({address}/{blob}/GLOSSARY.md) · {minutes} minutes · no GPU needed</sub>\n"
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
    cells[0].source = setup_cell(address, minutes)
    return nb


def move(address: str, root: Path = ROOT) -> None:
    """Write a new public address wherever the old one stands outside the notebooks.

    Raises ValueError unless it is that of a repository on GitHub, from where Colab opens lessons.
    """
    if not re.fullmatch(re.escape(GITHUB) + r"[\w.-]+/[\w.-]+", address):
        raise ValueError(f"{address!r} is no address such as {GITHUB}NAME/COURSE: Colab needs one.")
    old = public_address(root)
    for name in NAMES_IT:
        text = (root / name).read_text(encoding="utf-8").replace(old, address)
        # where the repository is fetched, the next line goes into its folder
        folders = (f"cd {item.rpartition('/')[2]}\n" for item in (old, address))
        write(root / name, text.replace(*folders))


def main(arguments: list[str] | None = None, root: Path = ROOT) -> None:
    """Fill in every lesson, or none when one of them is wrong."""
    parser = argparse.ArgumentParser(description="Fill in badges and setup cells.")
    parser.add_argument("address", nargs="?", help="a new public address of the course")
    new = parser.parse_args(arguments).address
    filled, errors = {}, []
    try:
        address = new or public_address(root)
        for path in lesson_files(root):
            try:
                filled[path] = to_text(fill(read(path), path.name, address))
            except ValueError as error:
                errors.append(f"{path.name}: {error}")
        if new and not errors:
            move(new, root)
    except ValueError as error:
        errors.append(str(error))
    if errors:
        sys.exit("Nothing was written.\n" + "\n".join(errors))
    for path, text in filled.items():
        write(path, text)
    if new:
        for path, text in workshop.copies(root).items():
            write(path, text)


if __name__ == "__main__":
    main()
