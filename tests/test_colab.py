"""The setup cell of a real lesson, as Colab would run it."""

import importlib.util
import os
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest
from nbformat.v4 import new_code_cell, new_notebook

from tools.badges import public_address
from tools.lessons import ROOT, code_cells, has_tag, lesson_files, read
from tools.run import execute

PROBE = """\
import course_utils
import course_utils.data

train, test = course_utils.data.load()
print("from", course_utils.__file__)
print("images", len(train.y) > 0 and len(test.y) > 0)"""


@pytest.fixture(scope="module")
def setup_cell() -> str:
    """The source of the setup cell of the first lesson."""
    lessons = lesson_files()
    if not lessons:
        pytest.skip("there is no lesson in notebooks/ yet")
    return next(cell.source for cell in code_cells(read(lessons[0])) if has_tag(cell, "setup"))


@pytest.fixture
def environment(tmp_path) -> dict[str, str]:
    """An environment with a stand-in google.colab, and with the public address made local."""
    colab = tmp_path / "path" / "google" / "colab"
    colab.mkdir(parents=True)
    (colab.parent / "__init__.py").touch()
    (colab / "__init__.py").touch()
    return os.environ | {
        "PYTHONPATH": str(tmp_path / "path"),
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{make_remote(tmp_path / 'remote').as_uri()}.insteadOf",
        "GIT_CONFIG_VALUE_0": public_address(),
    }


def make_remote(folder: Path) -> Path:
    """A repository with one commit of the files that git would carry from this checkout."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(listing, cwd=ROOT, capture_output=True, encoding="utf-8")
    if listed.returncode:
        pytest.skip("this is not a git checkout, so there is nothing to clone")
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    who = ["-c", "user.name=Test", "-c", "user.email=test@example.org"]
    for command in (["init", "--quiet"], ["add", "--all"], [*who, "commit", "--quiet", "-m", "x"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    return folder


def test_setup_cell_fetches_the_course(setup_cell, environment, tmp_path):
    sources = ["import google.colab", setup_cell, PROBE, setup_cell]
    nb = new_notebook(cells=[new_code_cell(source) for source in sources])
    empty = tmp_path / "content"
    empty.mkdir()
    execute(nb, empty, env=environment)
    clone = empty / public_address().rpartition("/")[2]
    assert [path.name for path in empty.iterdir()] == [clone.name]
    printed = nb.cells[2].outputs[0].text
    assert f"from {clone / 'course_utils' / '__init__.py'}" in printed
    assert "images True" in printed
    assert "Fetching the course" in nb.cells[1].outputs[0].text
    assert "Fetching" not in nb.cells[3].outputs[0].text
    depth = ["git", "rev-list", "--count", "--all"]
    assert subprocess.run(depth, cwd=clone, capture_output=True, text=True).stdout == "1\n"


def run_setup_cell(source, monkeypatch, installed: set[str], on_colab: bool) -> list[list[str]]:
    """The commands that the setup cell would run where only INSTALLED can be found."""
    commands = []
    helper = types.ModuleType("course_utils")
    helper.setup = lambda minutes: "cpu"
    monkeypatch.setitem(sys.modules, "course_utils", helper)
    if on_colab:
        monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("colab"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: name if name in installed else None
    )
    monkeypatch.setattr(subprocess, "run", lambda command, check: commands.append(command))
    exec(source, {})
    return commands


@pytest.mark.parametrize(
    "missing", [set(), {"opacus"}, {"opt_einsum"}, {"opacus", "opt_einsum"}], ids=sorted
)
def test_setup_cell_installs_only_what_is_missing(
    setup_cell, monkeypatch, tmp_path, capsys, missing
):
    monkeypatch.chdir(tmp_path)
    present = {"opacus", "opt_einsum"} - missing
    clone, *pips = run_setup_cell(setup_cell, monkeypatch, present, on_colab=True)
    assert clone[:2] == ["git", "clone"] and "--depth=1" in clone and public_address() in clone
    assert len(pips) == bool(missing)
    printed = capsys.readouterr().out
    for pip in pips:
        assert pip[:4] == [sys.executable, "-m", "pip", "install"] and "--no-deps" in pip
        assert set(pip[4:]) - missing == {"--quiet", "--no-deps"}
        assert all(name in printed for name in missing)


def test_setup_cell_does_nothing_at_home(setup_cell, monkeypatch):
    assert run_setup_cell(setup_cell, monkeypatch, {"course_utils"}, on_colab=False) == []


def test_setup_cell_at_home_without_the_course(setup_cell, monkeypatch):
    with pytest.raises(ModuleNotFoundError, match="start it with `make lab`"):
        run_setup_cell(setup_cell, monkeypatch, set(), on_colab=False)
