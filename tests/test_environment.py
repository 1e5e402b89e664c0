"""pyproject.toml, requirements.txt and environment.yml agree; make installs once."""

import os
import re
import shutil
import subprocess
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tools.lessons import ROOT

CONDA_NAMES = {"pytorch": "torch"}
CONDA_ONLY = {"python", "pip"}
needs_make = pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")


def declared() -> dict[str, Requirement]:
    """The dependencies in pyproject.toml, those for development included."""
    with open(ROOT / "pyproject.toml", "rb") as file:
        project = tomllib.load(file)["project"]
    lines = project["dependencies"] + project["optional-dependencies"]["dev"]
    return {canonicalize_name(line.name): line for line in map(Requirement, lines)}


def conda_lines() -> list[str]:
    """The dependency lines of environment.yml."""
    text = (ROOT / "environment.yml").read_text(encoding="utf-8").partition("dependencies:\n")[2]
    return [line for line in text.splitlines() if line.strip() and line.strip() != "- pip:"]


def test_environment_yml_has_the_same_packages():
    conda = {}
    for line in conda_lines():
        entry = line.partition("#")[0].strip().removeprefix("- ")
        if not entry.startswith("-e "):
            wanted = Requirement(entry)
            conda[canonicalize_name(CONDA_NAMES.get(wanted.name, wanted.name))] = wanted.specifier
    for name in CONDA_ONLY:
        conda.pop(name)
    assert conda == {name: wanted.specifier for name, wanted in declared().items()}


def test_environment_yml_says_what_uses_each_line():
    assert [line for line in conda_lines() if not re.search(r"  # \w+", line)] == []
    assert any(line.strip().startswith("- -e .") for line in conda_lines())


def test_requirements_pin_exactly_the_direct_dependencies():
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    wanted = declared()
    assert {canonicalize_name(pin.name) for pin in pins} == set(wanted)
    for pin in pins:
        (specifier,) = pin.specifier
        assert specifier.operator == "=="
        assert Version(specifier.version) in wanted[canonicalize_name(pin.name)].specifier


@pytest.mark.parametrize("extra", ["site", "browser"])
def test_the_packages_of_one_command_are_pinned(extra):
    with open(ROOT / "pyproject.toml", "rb") as file:
        lines = tomllib.load(file)["project"]["optional-dependencies"][extra]
    wanted = {line.name: line.specifier for line in map(Requirement, lines)}
    text = (ROOT / f"requirements-{extra}.txt").read_text(encoding="utf-8")
    pins = [Requirement(line) for line in text.splitlines() if not line.startswith("#")]
    assert {pin.name for pin in pins} == set(wanted)
    for pin in pins:
        (specifier,) = pin.specifier
        assert specifier.operator == "==" and Version(specifier.version) in wanted[pin.name]


def make(*arguments: str) -> subprocess.CompletedProcess:
    """Run make without what an outer make would hand down."""
    command = ["make", "--no-print-directory", "TORCH_INDEX=", *arguments]
    clean = {"PATH": os.environ["PATH"]}
    return subprocess.run(command, cwd=ROOT, env=clean, capture_output=True, encoding="utf-8")


@needs_make
def test_make_installs_once(tmp_path):
    before = make("-n", "test", f"VENV={tmp_path}").stdout
    assert before.index("install -r requirements.txt") < before.index("install --no-deps -e .")
    assert before.index("install --no-deps -e .") < before.index(f"> {tmp_path}/.installed")
    (tmp_path / ".installed").touch()
    for target in ("lab", "progress", "test", "lint", "notebooks", "results", "bench"):
        assert "pip" not in make("-n", target, f"VENV={tmp_path}").stdout
    assert "install -r requirements-site.txt" in make("-n", "site", f"VENV={tmp_path}").stdout
    (tmp_path / ".installed-site").touch()
    assert "pip" not in make("-n", "site", f"VENV={tmp_path}").stdout
    for changed in ("requirements.txt", "pyproject.toml"):
        again = make("-n", "-W", changed, "lab", f"VENV={tmp_path}").stdout
        assert "install -r requirements.txt" in again


@needs_make
def test_make_installs_again_where_the_course_was_moved(tmp_path):
    stamp = tmp_path / ".installed"
    stamp.write_text(f"{ROOT}\n", encoding="utf-8")
    assert "pip" not in make("-n", "lab", f"VENV={tmp_path}").stdout
    stamp.write_text("/somewhere/else\n", encoding="utf-8")
    again = make("-n", "lab", f"VENV={tmp_path}").stdout
    assert "was moved: installing again" in again
    assert again.index(f'rm -rf "{tmp_path}"') < again.index("install -r requirements.txt")


@needs_make
@pytest.mark.parametrize("writable", [True, False])
def test_make_mends_what_the_environment_would_break(writable, tmp_path):
    makefile = tmp_path / "Makefile"
    show = "show:\n\t@echo user=$$PIP_USER backend=$$MPLBACKEND home=$$HOME\n"
    makefile.write_text(f"include {ROOT}/Makefile\n{show}", encoding="utf-8")
    command = ["make", "--no-print-directory", "-f", str(makefile), "show"]
    home = str(tmp_path if writable else tmp_path / "nothing")
    env = {"PATH": os.environ["PATH"], "PIP_USER": "1", "MPLBACKEND": "agg", "HOME": home}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, encoding="utf-8")
    expected = home if writable else f"{ROOT}/.venv/home"
    assert done.stdout == f"user=0 backend= home={expected}\n"


def test_workflows_pin_their_actions_by_hash():
    for path in (ROOT / ".github" / "workflows").glob("*.yml"):
        used = re.findall(r"uses: *(.*)", path.read_text(encoding="utf-8"))
        assert used
        assert [
            line for line in used if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\S+", line)
        ] == []


def test_text_files_keep_their_line_ends_on_every_machine():
    """A clone with autocrlf would break make's shell lines and the hashes of stored studies."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is not a git checkout")
    names = [
        "Makefile",
        "course_utils/data.py",
        "data/results/opacus.csv",
        "data/fashion_mnist.npz",
    ]
    command = ["git", "check-attr", "eol", "text", "--", *names]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8").stdout
    for name in names[:-1]:
        assert f"{name}: eol: lf\n" in found
    assert f"{names[-1]}: text: unset\n" in found


@needs_make
def test_make_takes_torch_from_another_index_first(tmp_path):
    command = make("-n", "lab", f"VENV={tmp_path}", "TORCH_INDEX=https://example.org/cpu").stdout
    pins = re.findall(r"^torch.*", (ROOT / "requirements.txt").read_text(encoding="utf-8"), re.M)
    first = " ".join(["install --index-url https://example.org/cpu", *pins])
    assert " ".join(command.split()).index(first) < command.index("install -r requirements.txt")


@needs_make
def test_make_refuses_an_old_python(tmp_path):
    python = tmp_path / "python3.9"
    python.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.9.1\n', encoding="utf-8")
    python.chmod(0o755)
    done = make("lab", f"VENV={tmp_path / 'venv'}", f"PYTHON={python}")
    assert done.returncode and not (tmp_path / "venv").exists()
    assert "needs Python 3.11 or newer" in done.stdout and "is Python 3.9.1" in done.stdout
    assert "make lab PYTHON=python3.12" in done.stdout


@needs_make
def test_make_help_lists_every_target():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[1].split()
    text = make().stdout
    assert [name for name in targets if f"  make {name} " not in text] == []
