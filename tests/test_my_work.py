"""A learner's work is never overwritten, erased or judged by the tools."""

import subprocess
import tomllib

import pytest
from sample_lesson import NAME, as_if_executed, lesson, make_course

from tools import lessons, my_work, run, workshop
from tools.lessons import ROOT

OTHER = "06_other.ipynb"
ANSWER = 'def double(x: int) -> int:\n    """Twice x."""\n    return 2 * x'


def course(root, text="A promise."):
    """A course of two lessons with their workshop copies, the first with this promise."""
    for name in (NAME, OTHER):
        nb = lesson()
        nb.cells[0].source = nb.cells[0].source.replace("A promise.", text)
        nb.cells[7].source = nb.cells[7].source.replace("#| export attacks.doubling\n", "")
        as_if_executed(make_course(root, nb, name), root)
    for path, copy in workshop.copies(root).items():
        lessons.write(path, copy)


def solve(path):
    """Write the exercise of a copy and return the text of the file."""
    nb = lessons.read(path)
    nb.cells[7].source = ANSWER
    lessons.write(path, lessons.to_text(nb))
    return path.read_text(encoding="utf-8")


def test_nothing_is_lost_when_the_course_gets_newer(tmp_path):
    course(tmp_path)
    assert my_work.fill(tmp_path) == []
    folder = tmp_path / "my_work"
    mine = {name: solve(folder / name) for name in (NAME, OTHER)}
    for path, text in workshop.copies(tmp_path).items():
        lessons.write(path, text)
    assert my_work.fill(tmp_path) == []
    course(tmp_path, "A new promise.")
    messages = my_work.fill(tmp_path)
    assert len(messages) == 2 and "05_gradient_matching_new.ipynb" in messages[0]
    assert my_work.fill(tmp_path) == []  # it is said and done once
    course(tmp_path, "Another promise.")
    assert "05_gradient_matching_new2.ipynb" in my_work.fill(tmp_path)[0]
    for name, text in mine.items():
        assert (folder / name).read_text(encoding="utf-8") == text
    assert "A new promise." in (folder / "05_gradient_matching_new.ipynb").read_text("utf-8")


def test_a_copy_that_was_deleted_comes_back_and_an_untouched_record_is_not_needed(tmp_path):
    course(tmp_path)
    my_work.fill(tmp_path)
    (tmp_path / "my_work" / NAME).unlink()
    (tmp_path / "my_work" / my_work.GIVEN).unlink()
    assert my_work.fill(tmp_path) == []
    assert (tmp_path / "my_work" / NAME).is_file()


def test_links_hold_from_the_folder(tmp_path):
    course(tmp_path)
    my_work.fill(tmp_path)
    text = (tmp_path / "my_work" / NAME).read_text(encoding="utf-8")
    assert f"](../notebooks/{NAME})" in text and "](../data/README.md)" in text
    assert "](../../" not in text


@pytest.mark.parametrize("text", ["{", "[1]", '"a"'])
def test_a_damaged_record_is_named_and_nothing_written(tmp_path, text):
    course(tmp_path)
    my_work.fill(tmp_path)
    mine = solve(tmp_path / "my_work" / NAME)
    (tmp_path / "my_work" / my_work.GIVEN).write_text(text, encoding="utf-8")
    course(tmp_path, "A new promise.")
    with pytest.raises(ValueError, match=r"\.given\.json cannot be read .* Delete it"):
        my_work.fill(tmp_path)
    assert (tmp_path / "my_work" / NAME).read_text(encoding="utf-8") == mine
    assert len(list((tmp_path / "my_work").glob("*.ipynb"))) == 2


@pytest.mark.parametrize("tool", [workshop, run])
def test_a_filled_workshop_copy_is_refused_and_not_erased(tmp_path, monkeypatch, tool):
    course(tmp_path)
    workshop.refuse_filled(tmp_path)  # fresh copies are no work
    path = tmp_path / "notebooks" / "workshop" / NAME
    mine = solve(path)
    refuse = workshop.refuse_filled
    monkeypatch.setattr(workshop, "refuse_filled", lambda: refuse(tmp_path))
    monkeypatch.setattr("sys.argv", ["tool"])
    monkeypatch.setattr(run, "run_lesson", lambda *given: pytest.fail("it ran a lesson"))
    with pytest.raises(SystemExit, match=f"holds work of yours: {NAME}. Nothing was written"):
        tool.main()
    assert path.read_text(encoding="utf-8") == mine


def test_an_executed_workshop_copy_counts_as_work(tmp_path):
    course(tmp_path)
    path = tmp_path / "notebooks" / "workshop" / OTHER
    nb = lessons.read(path)
    lessons.code_cells(nb)[1].execution_count = 3
    lessons.write(path, lessons.to_text(nb))
    assert workshop.filled(tmp_path) == [path]


def test_git_and_the_tests_leave_the_folder_alone():
    if not (ROOT / ".git").exists():
        pytest.skip("this is not a git checkout")
    found = subprocess.run(["git", "check-ignore", "-q", "my_work/05_x.ipynb"], cwd=ROOT)
    assert found.returncode == 0
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    assert settings["pytest"]["ini_options"]["testpaths"] == ["tests", "notebooks"]
    assert "my_work" in settings["ruff"]["extend-exclude"]
