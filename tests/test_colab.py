"""The setup cell as Colab would run it, and what it installs there."""

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest
from nbformat.v4 import new_code_cell, new_notebook
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from course_utils import colab
from tools.badges import project, public_address, release, setup_cell
from tools.lessons import ROOT
from tools.run import execute

PROBE = """\
import course_utils
import course_utils.data

train, test = course_utils.data.load()
print("from", course_utils.__file__)
print("images", len(train.y) > 0 and len(test.y) > 0)"""


SETUP_CELL = setup_cell(public_address(), 25)
FOLDER = public_address().rpartition("/")[2]


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
    commands = (
        ["init", "--quiet"],
        ["add", "--all"],
        [*who, "commit", "--quiet", "-m", "as released"],
        ["tag", release()],
        [*who, "commit", "--quiet", "--allow-empty", "-m", "after the release"],
    )
    for command in commands:
        subprocess.run(["git", *command], cwd=folder, check=True)
    return folder


def clones(folder: Path) -> list[str]:
    """What lies in a folder, by name."""
    return sorted(path.name for path in folder.iterdir())


def test_setup_cell_fetches_the_course_once(environment, tmp_path):
    inside = f"import os; os.chdir('{FOLDER}/notebooks')"
    cells = ["import google.colab", SETUP_CELL, PROBE, SETUP_CELL, inside, SETUP_CELL]
    nb = new_notebook(cells=[new_code_cell(source) for source in cells])
    empty = tmp_path / "my drive"
    (empty / f"{FOLDER}.part" / "half").mkdir(parents=True)  # what an interruption has left
    execute(nb, empty, env=environment)
    clone = empty / FOLDER
    assert clones(empty) == [FOLDER]
    assert FOLDER not in clones(clone / "notebooks")
    printed = nb.cells[2].outputs[0].text
    assert f"from {clone / 'course_utils' / '__init__.py'}" in printed
    assert "images True" in printed
    assert "Fetching the course" in nb.cells[1].outputs[0].text
    for again in (nb.cells[3], nb.cells[5]):
        assert "Fetching" not in again.outputs[0].text
    log = ["git", "log", "--format=%s"]
    found = subprocess.run(log, cwd=clone, capture_output=True, text=True).stdout
    assert found == "as released\n"


def on_colab(monkeypatch, folder: Path) -> None:
    """As if this Python were Colab's, in this folder."""
    monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("colab"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(folder)


@pytest.mark.parametrize("code", [127, 128])  # no git, no network
def test_setup_cell_explains_a_failed_fetch(code, monkeypatch, tmp_path):
    on_colab(monkeypatch, tmp_path)
    done = types.SimpleNamespace(returncode=code)
    monkeypatch.setattr(subprocess, "run", lambda command, shell: done)
    with pytest.raises(
        ConnectionError, match="check git and the network, then run this cell again"
    ):
        exec(SETUP_CELL, {})
    assert clones(tmp_path) == []


@pytest.fixture
def at_home(monkeypatch):
    """The arguments with which the setup cell calls setup(); it finds the course or not."""
    called = []
    helper = types.ModuleType("course_utils")
    helper.setup = lambda minutes: called.append(minutes)
    monkeypatch.setitem(sys.modules, "course_utils", helper)
    monkeypatch.setattr(subprocess, "run", None)
    return called


def test_setup_cell_only_sets_up_at_home(at_home, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == "course_utils")
    exec(SETUP_CELL, {})
    assert at_home == [25]


def test_setup_cell_at_home_without_the_course(at_home, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="start it with `make lab`"):
        exec(SETUP_CELL, {})
    assert at_home == []


# What it installs


def installed_by(monkeypatch, present: dict[str, str], works: bool = True) -> list[str]:
    """What install_missing() asks pip for where only these versions are present."""
    commands = []

    def version(name: str) -> str:
        if name not in present:
            raise importlib.metadata.PackageNotFoundError(name)
        return present[name]

    def run(command: list[str], check: bool) -> None:
        commands.append(command)
        if not works:
            raise subprocess.CalledProcessError(1, command)

    monkeypatch.setattr(importlib.metadata, "version", version)
    monkeypatch.setattr(subprocess, "run", run)
    colab.install_missing()
    for command in commands:
        assert command[:4] == [sys.executable, "-m", "pip", "install"] and "--no-deps" in command
    return [name for command in commands for name in command[4:] if not name.startswith("-")]


@pytest.mark.parametrize(
    ("present", "wanted"),
    [
        ({"opacus": "1.6.0", "opt_einsum": "3.4.0"}, []),
        ({"opacus": "1.10.2", "opt_einsum": "3.3.0"}, []),
        ({"opacus": "1.4.1", "opt_einsum": "3.3.0"}, ["opacus"]),
        ({"opacus": "1.5.4"}, ["opt_einsum"]),
        ({}, ["opacus", "opt_einsum"]),
    ],
)
def test_only_what_is_missing_or_too_old_is_installed(present, wanted, monkeypatch, capsys):
    asked = installed_by(monkeypatch, present)
    assert asked == [f"{name}=={colab.WANTED[name][1]}" for name in wanted]
    assert all(name in capsys.readouterr().out for name in asked[:1])


def test_without_a_package_index_the_lesson_goes_on(monkeypatch, capsys):
    assert len(installed_by(monkeypatch, {}, works=False)) == 2
    assert "gradient shaping, as in lesson 10, needs it" in capsys.readouterr().out


def test_the_versions_are_those_of_the_project():
    bounds = {line.name: line.specifier for line in map(Requirement, project()["dependencies"])}
    assert bounds["opacus"] == SpecifierSet(f">={colab.WANTED['opacus'][0]}")
    pins = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert f"opacus=={colab.WANTED['opacus'][1]}" in pins
    theirs = map(Requirement, importlib.metadata.requires("opacus"))
    (bound,) = (line.specifier for line in theirs if line.name.replace("-", "_") == "opt_einsum")
    assert all(version in bound for version in colab.WANTED["opt_einsum"])
