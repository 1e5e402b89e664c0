"""The tools for authors, on a tiny course; and nbval as conftest.py sets it up."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_markdown_cell, new_output
from sample_lesson import NAME, as_if_executed, code, lesson, make_course

import course_utils.studies
from course_utils.data import DataError
from tools import badges, benchmark, export, lessons, results, run, workshop

pytest_plugins = ["pytester"]


def test_export_gives_modules_that_ruff_accepts(tmp_path):
    make_course(tmp_path)
    texts = {path.name: text for path, text in export.modules(tmp_path).items()}
    assert set(texts) == {"doubling.py", "lesson_05.py"}
    doubling = texts["doubling.py"]
    assert ast.get_docstring(ast.parse(doubling)).splitlines() == [
        "Built in lesson 05, Gradient matching.",
        "",
        f"Generated from notebooks/{NAME}: edit it there, then run make notebooks.",
    ]
    assert "#|" not in doubling
    assert doubling.index("import math") < doubling.index("def double")
    for path, text in export.modules(tmp_path).items():
        lessons.write(path, text)
    for command in (["check"], ["format", "--check"]):
        subprocess.run([sys.executable, "-m", "ruff", *command, str(tmp_path)], check=True)


def test_export_brings_the_imports_that_a_module_uses(tmp_path):
    nb = lesson()
    nb.cells[2:2] = [code("import os.path\nfrom math import e, pi as circle\nimport numpy as np")]
    body = "def area(r, e, double=None):\n    return circle * r**e + np.pi, os.path"
    nb.cells.append(code("#| export defenses.other\nimport numpy as np\n\nZERO = np.zeros(1)"))
    nb.cells.append(code(f"#| export attacks.area\n{body}"))
    nb.cells.append(code("#| export studies.lesson_05\ndef more():\n    return area(double(1), 2)"))
    make_course(tmp_path, nb)
    texts = {path.name: text.split("\n\n", 2)[2] for path, text in export.modules(tmp_path).items()}
    assert texts["area.py"].startswith(
        "import os.path\nfrom math import pi as circle\n\nimport numpy as np\n\n\ndef area"
    )
    assert texts["lesson_05.py"].startswith(
        "from course_utils.attacks.area import area\n"
        "from course_utils.attacks.doubling import double\n\nHALF"
    )
    assert texts["doubling.py"].startswith("import math\n\n\ndef")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("#| export models.cnn\nx = 1", "must be the first line and read like"),
        ("#| export attacks.Big\nx = 1", "must be the first line and read like"),
        ("x = 1\n#| export attacks.late", "must be the first line and read like"),
        ("#| export attacks.broken\ndef f(:", "code cell 7 is not plain Python: invalid syntax"),
        ("!ls", "code cell 7 is not plain Python: invalid syntax"),
    ],
)
def test_export_refuses_bad_cells(tmp_path, source, message):
    nb = lesson()
    nb.cells.append(code(source))
    make_course(tmp_path, nb)
    with pytest.raises(ValueError, match=message) as error:
        export.modules(tmp_path)
    assert NAME in str(error.value)


def test_export_names_both_lessons_that_feed_one_module(tmp_path):
    make_course(tmp_path)
    make_course(tmp_path, name="06_other.ipynb")
    with pytest.raises(ValueError, match=rf"{NAME} and by 06_other.ipynb"):
        export.modules(tmp_path)


@pytest.mark.parametrize("tool", [export, workshop])
def test_drift_is_found(tmp_path, tool):
    make_course(tmp_path)
    texts = tool.modules(tmp_path) if tool is export else tool.copies(tmp_path)
    assert all("is missing" in problem for problem in tool.drift(tmp_path))
    assert len(tool.drift(tmp_path)) == len(texts)
    for path, text in texts.items():
        lessons.write(path, text)
    assert tool.drift(tmp_path) == []
    first = next(iter(texts))
    first.write_text(texts[first] + "\n", encoding="utf-8")
    assert "differs" in tool.drift(tmp_path)[0]
    first.rename(first.with_stem("another"))
    missing, extra = tool.drift(tmp_path)
    assert "is missing" in missing and "comes from no notebook" in extra


def test_workshop_copy_clears_exercises_and_outputs(tmp_path):
    path = make_course(tmp_path)
    nb = as_if_executed(path, tmp_path)
    nb.cells[5].outputs = [new_output("stream", name="stdout", text="kept in the lesson only")]
    made = workshop.workshop_copy(nb, NAME)
    nbformat.validate(made)
    assert all(
        not cell.outputs and cell.execution_count is None for cell in lessons.code_cells(made)
    )
    assert nb.cells[5].outputs
    stub = made.cells[7].source
    assert stub.startswith("def double(x: int) -> int:") and "Slowly." in stub
    assert "return" not in stub and max(map(len, stub.splitlines())) <= 100
    namespace = {}
    exec(stub, namespace)
    with pytest.raises(
        NotImplementedError, match=r"from course_utils\.attacks\.doubling import double"
    ):
        namespace["double"](1)
    before, _, badge_line = made.cells[0].source.partition("<!-- badges -->")
    assert "**This is the workshop copy.**" in before and "<!-- /badges -->" in badge_line
    assert "](../../data/README.md)" in made.cells[6].source
    assert "executed_sha256" not in made.metadata.course


def test_workshop_copy_folds_the_cell_that_mends_a_mistake(tmp_path):
    nb = lessons.read(make_course(tmp_path))
    answer = f"<details>{workshop.WRONG}\n\nThe images were counted twice.\n</details>"
    cells = [code("print(2 * 3)"), new_markdown_cell(answer), code("print(3)"), code("print(4)")]
    nb.cells[2:2] = cells
    made = workshop.workshop_copy(nb, NAME)
    folded = {"source_hidden": True, "outputs_hidden": True}
    assert [cell for cell in made.cells if cell.metadata.get("jupyter") == folded] == [
        made.cells[4]
    ]
    assert "jupyter" not in nb.cells[4].metadata


def test_every_mistake_of_lesson_01_is_mended_in_a_folded_cell():
    path = lessons.lesson_files(lesson="01")[0]
    nb = workshop.workshop_copy(lessons.read(path), path.name)
    mended = [cell for cell in lessons.code_cells(nb) if "mended" in cell.source]
    assert len(mended) == 8 and all(cell.metadata.jupyter.outputs_hidden for cell in mended)


def test_stub_of_a_function_that_is_not_exported():
    stub = workshop.stub('@cache\ndef f(\n    x,\n):\n    """Doc."""\n    return x', NAME)
    assert stub.startswith('@cache\ndef f(\n    x,\n):\n    """Doc."""\n    raise Not')
    assert f"copy it from notebooks/{NAME}" in stub


def test_badges_and_setup_cell(tmp_path):
    path = make_course(tmp_path)
    nb = badges.fill(lessons.read(path), NAME, "https://github.com/someone/course")
    top = nb.cells[0].source
    here = f"blob/{badges.release()}/notebooks"
    assert f"github/someone/course/{here}/{NAME}" in top
    assert f"github/someone/course/{here}/workshop/{NAME}" in top
    assert f"[glossary](https://github.com/someone/course/{here}/GLOSSARY.md)" in top
    assert "· 5 minutes ·" in top and top.endswith("A promise.")
    setup = nb.cells[1].source
    assert 'address = "https://github.com/someone/course"' in setup
    assert setup.endswith("device = setup(minutes=5)") and len(setup.splitlines()) <= 25
    again = badges.fill(lessons.read(path), NAME, "https://github.com/someone/course")
    assert [cell.source for cell in again.cells] == [cell.source for cell in nb.cells]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda nb: nb.metadata.pop("course"), "minutes"),
        (lambda nb: nb.cells.pop(0), "<!-- badges -->"),
        (lambda nb: nb.cells.pop(1), "one cell tagged setup, found 0"),
    ],
)
def test_badges_say_what_is_missing(spoil, message):
    nb = lesson()
    spoil(nb)
    with pytest.raises(ValueError, match=message):
        badges.fill(nb, NAME, "https://github.com/someone/course")


def make_named_course(root: Path) -> Path:
    """A course with the files that name its public address."""
    path = make_course(root)
    for name in badges.NAMES_IT:
        shutil.copy(lessons.ROOT / name, root / name)
    return path


def test_a_new_address_is_written_everywhere(tmp_path):
    path = make_named_course(tmp_path)
    old = badges.public_address()
    badges.main(["https://github.com/someone/course"], tmp_path)
    texts = {p: p.read_text("utf-8") for p in tmp_path.rglob("*") if p.suffix in (".md", ".toml")}
    texts |= {p: p.read_text("utf-8") for p in tmp_path.rglob("*.ipynb")}
    texts[tmp_path / "CITATION.cff"] = (tmp_path / "CITATION.cff").read_text("utf-8")
    assert len(texts) >= 5
    for place, text in texts.items():
        assert old.removeprefix("https://github.com/") not in text, place
        assert "github.com/someone/course" in text, place
    readme = texts[tmp_path / "README.md"]
    assert "git clone https://github.com/someone/course\ncd course\n" in readme
    copy = texts[path.parent / "workshop" / path.name]
    assert "/github/someone/course/blob/" in copy and 'Path(\\"course\\")' in copy
    assert badges.public_address(tmp_path) == "https://github.com/someone/course"


@pytest.mark.parametrize(
    "address", ["someone/course", "https://gitlab.com/a/b", "https://github.com/a", "http://x y"]
)
def test_an_address_that_colab_cannot_open_is_refused(address, tmp_path):
    make_named_course(tmp_path)
    with pytest.raises(ValueError, match="Colab needs one"):
        badges.move(address, tmp_path)
    assert badges.public_address(tmp_path) == badges.public_address()


def test_setup_cell_is_styled(tmp_path):
    source = badges.setup_cell(badges.public_address(), 25) + "\n"
    path = make_course(tmp_path)
    assert lessons.ruff(["format"], source, path.with_suffix(".py")) == source
    assert lessons.ruff(["check", "--ignore=E402"], source, path.with_suffix(".py")) == ""


def test_running_a_lesson_stores_outputs(tmp_path):
    nb = lesson()
    nb.cells.insert(4, code("import sys\nprint(  sys.executable )"))
    nb.cells.insert(5, code("import tqdm\nfor _ in tqdm.tqdm([1, 2]):\n    pass"))
    nb.cells.insert(6, code("import tqdm.auto\nfor _ in tqdm.auto.tqdm([1, 2]):\n    pass"))
    path = make_course(tmp_path, nb)
    run.run_lesson(path, badges.public_address())
    done = lessons.read(path)
    counts = [cell.execution_count for cell in lessons.code_cells(done)]
    assert counts == list(range(1, len(counts) + 1))
    assert done.cells[4].source == "import sys\n\nprint(sys.executable)"
    assert done.cells[4].outputs[0].text.strip() == sys.executable
    assert done.cells[5].outputs == [] and done.cells[6].outputs == []
    assert set(done.metadata) == {"course", "kernelspec", "language_info"}
    assert done.metadata.course.executed_sha256 == run.source_hash(done)


def test_a_lesson_that_fails_is_left_as_it_was(tmp_path):
    nb = lesson()
    nb.cells.insert(1, code("1 / 0"))
    path = make_course(tmp_path, nb)
    before = path.read_text(encoding="utf-8")
    with pytest.raises(run.CellExecutionError, match="ZeroDivisionError"):
        run.run_lesson(path, badges.public_address())
    assert path.read_text(encoding="utf-8") == before


@pytest.mark.parametrize(
    ("text", "bar"),
    [
        ("\r 50%|##   | 1/2 [00:00<00:00]\r100%|####| 2/2 [00:00<00:00]\n", True),
        ("3it [00:00, 12.1it/s]\n\x1b[A", True),
        ("UserWarning: half of it\n", False),
        ("100%|####| 2/2 [00:00<00:00]\nUserWarning: half of it\n", False),
    ],
)
def test_only_progress_bars_are_dropped_from_stderr(text, bar):
    assert run.is_progress_bar(new_output("stream", name="stderr", text=text)) is bar
    assert not run.is_progress_bar(new_output("stream", name="stdout", text=text))


def test_studies_are_found(tmp_path, monkeypatch):
    for number in ("77", "78"):
        source = "from course_utils.stored import Study\n"
        source += f"STUDY = Study('s{number}', '{number}', print, range(3))\n"
        (tmp_path / f"lesson_{number}.py").write_text(source, encoding="utf-8")
    monkeypatch.setattr(course_utils.studies, "__path__", [str(tmp_path)])
    assert [study.name for study in results.studies()] == ["s77", "s78"]
    assert [study.name for study in results.studies("78")] == ["s78"]
    assert results.studies("79") == []


@pytest.mark.parametrize(("found", "said"), [(None, "commit first"), ("0123abc", "")])
def test_rows_without_a_commit_are_announced_before_they_are_made(found, said, monkeypatch, capsys):
    monkeypatch.setattr(results, "commit", lambda: found)
    results.warn_of_no_commit()
    printed = capsys.readouterr().out
    assert said in printed and bool(printed) == bool(said)


def test_a_damaged_notebook_is_named(tmp_path):
    path = make_course(tmp_path)
    path.write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match=f"{NAME} is not a readable notebook"):
        lessons.read(path)


def test_an_unknown_lesson_is_named(tmp_path):
    make_course(tmp_path)
    assert lessons.lesson_files(tmp_path, "5") == [tmp_path / "notebooks" / NAME]
    with pytest.raises(SystemExit, match=r"No lesson '77'.*There is: 05"):
        lessons.lesson_files(tmp_path, "77")


def test_nbval_stops_at_the_first_failing_cell(pytester):
    pytester.makeconftest((lessons.ROOT / "conftest.py").read_text(encoding="utf-8"))
    nb = nbformat.v4.new_notebook(cells=[code(s) for s in ("x = 1", "1 / 0", "x", "x")])
    for name in ("bad.ipynb", "workshop/never.ipynb"):
        path = pytester.path / "notebooks" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(nb, path)
    nb.cells.pop(1)
    nbformat.write(nb, pytester.path / "notebooks" / "good.ipynb")
    options = ["--nbval-lax", "--nbval-current-env", "-rs", "-p", "no:cacheprovider"]
    result = pytester.runpytest_subprocess(*options, "-n1", "--dist=loadscope", "notebooks")
    result.assert_outcomes(passed=4, failed=1, skipped=2)
    result.stdout.fnmatch_lines(
        ["*seconds per lesson*", "*[0-9].[0-9]  notebooks/bad.ipynb", "*  notebooks/good.ipynb"]
    )
    result.stdout.fnmatch_lines(["*SKIPPED*Cell 1 of this notebook failed*"])


@pytest.mark.parametrize("tool", [results, benchmark])
@pytest.mark.parametrize("jobs", ["0", "two", "1.5"])
def test_a_number_of_jobs_that_makes_no_sense_is_refused(tool, jobs, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["tool", "--jobs", jobs])
    with pytest.raises(SystemExit):
        tool.main()
    assert f"JOBS is {jobs}: give a whole number" in capsys.readouterr().err


def test_damaged_data_stop_the_results_with_one_line(monkeypatch):
    def broken(study, jobs):
        raise DataError("The file is damaged.")

    monkeypatch.setattr(results, "run_study", broken)
    monkeypatch.setattr(sys, "argv", ["results", "--lesson", "01"])
    with pytest.raises(SystemExit, match=r"^The file is damaged\.$"):
        results.main()
