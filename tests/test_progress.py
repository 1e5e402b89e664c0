"""What a learner has done is noted, told rightly, and never lost."""

import importlib
import inspect
import json
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest
from nbformat.v4 import new_code_cell, new_notebook
from sample_lesson import link_environment
from test_colab import make_remote
from test_exercises import EXERCISES, check_of, definitions, each_exercise
from test_exercises import run as run_cell

from course_utils import code_hash, overview, progress, record
from course_utils.checks import CheckFailed, NotWritten
from course_utils.checks.lesson_00 import check_attack_success_rate, check_stamp
from tools import progress as tool
from tools.lessons import ROOT, code_cells, has_tag, lesson_files, read, to_text, write
from tools.run import execute

FIRST = lesson_files()[0]
KEEP = "import course_utils.record\n\ncourse_utils.record.keep_progress()"
COPY = "def copy(images, size=4):\n    return images.clone()"
UNWRITTEN = "def stamp(images, size=4):\n    raise NotImplementedError('Write this function.')"


@pytest.fixture
def mine(tmp_path, monkeypatch) -> Path:
    """The file of a learner whose kernel keeps progress."""
    my_work = tmp_path / "course" / "my_work"
    my_work.parent.mkdir()
    monkeypatch.setattr(record, "MY_WORK", my_work)
    monkeypatch.setattr(record, "_file", my_work / record.FILE)
    monkeypatch.setattr(record, "CONTENT", tmp_path / "content")
    monkeypatch.chdir(my_work.parent)
    record.say_once.cache_clear()
    return record._file


def typed(source: str, name: str):
    """A function that a learner typed into a cell."""
    namespace = {"__name__": "__main__"}
    run_cell(source, namespace)
    return namespace[name]


def solution(name: str):
    """The solution of an exercise of lesson 00, as if typed."""
    cells = [cell.source for cell in code_cells(read(FIRST)) if has_tag(cell, "exercise")]
    source = next(source for source in cells if f"def {name}(" in source)
    namespace = definitions(read(FIRST)) | {"__name__": "__main__"}
    run_cell(source, namespace)
    return namespace[name]


def entry(function: str, message: str = "", lesson: str = "00", at: str = "2026-05-01") -> dict:
    """One line of the learner's file."""
    return {
        "lesson": lesson,
        "function": function,
        "passed": not message,
        "message": message,
        "source": "0" * 16,
        "at": f"{at}T10:00:00+00:00",
    }


def written(path: Path, *entries: dict | str) -> None:
    """Write these lines into the learner's file."""
    path.parent.mkdir(exist_ok=True)
    lines = [line if isinstance(line, str) else json.dumps(line) for line in entries]
    path.write_text("\n".join([*lines, ""]), encoding="utf-8")


def row(path: Path, function: str):
    """The row of an exercise, by its function."""
    frame = overview.table(path)
    return frame[frame.function.eq(function)].iloc[0]


def save(path: Path, *sources: str) -> None:
    """Save a notebook with these cells."""
    write(path, to_text(new_notebook(cells=[new_code_cell(source) for source in sources])))


# What is noted


@each_exercise
def test_every_check_notes_its_failure_and_keeps_its_face(path, function, mine):
    check = check_of(path, function)
    with pytest.raises(CheckFailed) as failure:
        check(lambda *inputs, **options: None)
    (noted,), damaged = overview.read(mine)
    assert (noted["lesson"], noted["function"]) == (path.name[:2], function) and not damaged
    assert not noted["passed"] and noted["message"] == " ".join(str(failure.value).split())
    assert check.__name__ == f"check_{function}" and "CheckFailed" in check.__doc__
    assert len(inspect.signature(check).parameters) == 1


@pytest.mark.parametrize("path", lesson_files(), ids=lambda path: path.stem)
def test_nothing_else_is_noted(path):
    checks = vars(importlib.import_module(f"course_utils.checks.lesson_{path.name[:2]}"))
    noting = {name for name in checks if re.match("check_", name) and is_noting(checks[name])}
    assert noting == {f"check_{function}" for lesson, function in EXERCISES if lesson == path}


def is_noting(function) -> bool:
    """Whether a function was decorated with `recorded`."""
    return getattr(function, "__code__", None) is record.recorded(len).__code__


def test_a_pass_is_noted_with_source_and_date(mine, capsys):
    check_stamp(solution("stamp"))
    ((noted,), _) = overview.read(mine)
    assert noted["passed"] and noted["message"] == "" and len(noted["source"]) == 16
    assert row(mine, "stamp").state == "done" and row(mine, "stamp").date == noted["at"][:10]
    assert capsys.readouterr().out == "stamp: all checks passed.\n"


def test_without_the_setup_cell_of_a_copy_nothing_is_noted(mine, monkeypatch):
    monkeypatch.setattr(record, "_file", None)
    check_stamp(solution("stamp"))
    assert not mine.parent.exists()
    for path in lesson_files():
        assert "keep_progress" not in path.read_text(encoding="utf-8")
        copy = read(path.parent / "workshop" / path.name)
        (setup,) = [cell.source for cell in code_cells(copy) if has_tag(cell, "setup")]
        assert setup.endswith(f"\n\n{KEEP}")


def test_an_empty_exercise_is_no_try(mine):
    with pytest.raises(NotWritten, match="Write this function"):
        check_stamp(typed(UNWRITTEN, "stamp"))
    assert overview.read(mine) == ([], []) and row(mine, "stamp").state == "untouched"


def test_the_courses_own_function_does_not_count(mine, capsys):
    from course_utils.attacks.first_backdoor import stamp

    check_stamp(stamp)
    assert "does not count as yours" in capsys.readouterr().out
    assert overview.read(mine) == ([], [])


def test_a_check_that_breaks_counts_as_a_failed_try(mine):
    def check_stamp(function):
        raise TypeError("strange")

    with pytest.raises(TypeError):
        record.recorded(check_stamp)(len)
    assert overview.read(mine)[0][0]["message"] == "strange"


def test_a_long_message_is_cut(mine):
    def check_stamp(function):
        raise CheckFailed("long " * 1000)

    with pytest.raises(CheckFailed):
        record.recorded(check_stamp)(len)
    assert len(overview.read(mine)[0][0]["message"]) == record.LONGEST + 2


def test_the_hash_sees_code_and_not_layout(mine):
    plain = "def f(x):\n    return x + 1"
    same = 'def f(x):\n    """Adds."""\n    # one more\n    return (x +\n            1)\n'
    hashes = [record.source_hash(typed(text, "f")) for text in (plain, same)]
    assert hashes[0] == hashes[1]
    assert record.source_hash(typed("def f(x):\n    return x + 2", "f")) != hashes[0]
    decorated = f"import functools\n\n\n@functools.cache\n{plain}"
    save(mine.parent / "decorated.ipynb", decorated)
    saved = overview.saved_functions(mine.parent)["f"]
    assert saved == {record.source_hash(typed(decorated, "f"))} != {hashes[0]}
    without_source, other = {}, {}
    exec("def f(x): return x + 1", without_source)
    exec("def f(x): return x - 1", other)
    assert record.source_hash(without_source["f"]) != record.source_hash(other["f"])
    assert record.source_hash(len) and record.source_hash(lambda x: x)


@pytest.mark.parametrize("blocked", ["a file in place of the folder", "a folder of that name"])
def test_where_nothing_can_be_written_the_check_works_and_it_is_said_once(blocked, mine, capsys):
    if blocked == "a folder of that name":
        mine.mkdir(parents=True)
    else:
        mine.parent.touch()
    for _ in range(2):
        check_stamp(solution("stamp"))
    assert capsys.readouterr().out.count("is not noted") == 1


def test_a_line_that_was_cut_off_takes_none_with_it(mine):
    check_stamp(solution("stamp"))
    with open(mine, "ab") as file:
        file.write(b'{"lesson": "00", "fun')
    entries, damaged = overview.read(mine)
    assert len(entries) == 1 and damaged == []
    check_attack_success_rate(solution("attack_success_rate"))
    entries, damaged = overview.read(mine)
    assert [each["function"] for each in entries] == ["stamp", "attack_success_rate"]
    assert damaged == [2]


def write_many(path: Path, function: str) -> None:
    """Note many tries, as one kernel."""
    for number in range(300):
        record.append(path, json.dumps(entry(function, f"{number} " * 50)).encode() + b"\n")


def test_two_kernels_mix_no_lines(mine):
    context = multiprocessing.get_context("fork")
    kernels = [context.Process(target=write_many, args=(mine, name)) for name in ("one", "two")]
    for kernel in kernels:
        kernel.start()
    for kernel in kernels:
        kernel.join()
    entries, damaged = overview.read(mine)
    assert damaged == []
    for name in ("one", "two"):
        found = [int(e["message"].split()[0]) for e in entries if e["function"] == name]
        assert found == list(range(300))


# Where it is noted


def as_kernel(monkeypatch) -> None:
    """As if this Python were the kernel of a notebook."""
    kernel = types.SimpleNamespace(get_ipython=lambda: "a kernel")
    monkeypatch.setitem(sys.modules, "IPython", kernel)


def test_a_kernel_in_the_learners_folder_notes_from_the_first(mine, monkeypatch):
    week = mine.parent / "week_1"
    week.mkdir(parents=True)
    for folder, expected in ((week, True), (mine.parent, True), (ROOT / "notebooks", False)):
        monkeypatch.chdir(folder)
        monkeypatch.setitem(sys.modules, "IPython", None)
        assert not record.starts_in_my_work()  # a script, or pytest
        as_kernel(monkeypatch)
        assert record.starts_in_my_work() == expected


def test_a_folder_that_was_moved_keeps_its_own_file(mine, monkeypatch, tmp_path, capsys):
    check_stamp(solution("stamp"))
    moved = mine.parent.rename(tmp_path / "elsewhere")
    monkeypatch.chdir(moved)
    as_kernel(monkeypatch)
    assert record.starts_in_my_work()
    assert record.progress_file() == moved / record.FILE
    record.keep_progress()
    assert str(moved / record.FILE) in capsys.readouterr().out
    check_attack_success_rate(solution("attack_success_rate"))
    assert len(overview.read(moved / record.FILE)[0]) == 2 and not mine.exists()


def test_a_kernel_started_elsewhere_notes_in_the_folder(mine, monkeypatch, capsys):
    monkeypatch.setattr(record, "_file", None)
    (mine.parent.parent / "notebooks" / "workshop").mkdir(parents=True)
    monkeypatch.chdir(mine.parent.parent / "notebooks" / "workshop")
    record.keep_progress()
    assert capsys.readouterr().out == (
        f"Your progress is kept in {Path('my_work', record.FILE)}: "
        "course_utils.progress() shows it.\n"
    )
    monkeypatch.chdir("/")
    check_stamp(solution("stamp"))
    assert row(mine, "stamp").state == "done"


def test_two_people_who_share_a_course_share_no_file(mine, monkeypatch, tmp_path):
    for person in ("ada", "blaise"):
        (tmp_path / person).mkdir()
        monkeypatch.chdir(tmp_path / person)
        record.keep_progress()
        check_stamp(solution("stamp"))
        assert len(overview.read(tmp_path / person / record.FILE)[0]) == 1
    assert not mine.exists()


def test_a_kernel_whose_folder_is_gone_does_not_stop(mine, monkeypatch, tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    as_kernel(monkeypatch)
    assert not record.starts_in_my_work()
    record.keep_progress()
    check_stamp(solution("stamp"))
    os.chdir(tmp_path)
    assert row(mine, "stamp").state == "done"


@pytest.fixture
def on_colab(mine, monkeypatch, capsys) -> Path:
    """A session on Colab that has noted one exercise; the folder where Drive is mounted."""
    monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("colab"))
    record.keep_progress()
    check_stamp(solution("stamp"))
    return record.CONTENT / "drive" / "MyDrive"


def test_on_colab_the_setup_says_how_work_is_kept(on_colab, mine, capsys):
    said = capsys.readouterr().out
    assert "ends with this session" in said and "mount Google Drive" in said
    assert "File > Save a copy in Drive" in said
    assert mine.is_file()


def test_on_colab_progress_moves_to_drive_once_it_is_mounted(on_colab, mine, capsys):
    on_colab.mkdir(parents=True)
    progress()  # before the setup cell is run again, as after it
    assert "1 of" in capsys.readouterr().out
    record.keep_progress()
    kept = on_colab / "data_poisoning" / record.FILE
    said = capsys.readouterr().out
    assert str(kept) in said and "File > Save a copy" in said and "ends with" not in said
    check_attack_success_rate(solution("attack_success_rate"))
    record.keep_progress()
    assert [e["function"] for e in overview.read(kept)[0]] == ["stamp", "attack_success_rate"]
    assert not mine.exists() and record.progress_file() == kept


def test_on_colab_nothing_is_lost_if_drive_cannot_be_written(on_colab, mine):
    on_colab.mkdir(parents=True)
    (on_colab / "data_poisoning").touch()
    record.keep_progress()
    assert len(overview.read(mine)[0]) == 1


# What is told


def test_progress_lists_the_exercises_of_the_workshop_copies():
    listed = overview.exercises()
    assert [(lesson[:2], name) for lesson, _, name in listed] == [
        (path.name[:2], function) for path, function in EXERCISES
    ]
    texts = {path.name[:2]: path.read_text(encoding="utf-8") for path in lesson_files()}
    for lesson, title, _ in listed:
        assert f"### {title} (" in texts[lesson[:2]]
        assert f"# Lesson {lesson[:2]}: {lesson[3:]}\\n" in texts[lesson[:2]]
    assert len({(lesson, title) for lesson, title, _ in listed}) == len(listed)


@pytest.mark.parametrize(
    ("messages", "state", "note"),
    [
        ([], "untouched", ""),
        (["too small"], "failed last time", "too small"),
        (["too small", "too large"], "failed last time", "too large"),
        (["too small", ""], "done", ""),
        (["", "too small"], "done", "A later try failed: too small"),
        (["", "too small", ""], "done", ""),
    ],
)
def test_the_state_of_an_exercise(messages, state, note, mine):
    written(mine, *(entry("stamp", message) for message in messages))
    found = row(mine, "stamp")
    assert (found.state, found.note) == (state, note)
    assert found.date == ("2026-05-01" if messages else "")
    assert row(mine, "attack_success_rate").state == "untouched"


def test_a_clock_that_was_set_back_changes_nothing(mine):
    early, late = entry("stamp", "wrong", at="2030-01-01"), entry("stamp", at="2020-01-01")
    written(mine, early, late)
    assert (row(mine, "stamp").state, row(mine, "stamp").note) == ("done", "")


def test_functions_of_one_name_in_two_lessons_are_two(mine):
    written(mine, entry("attack_success_rate", lesson="07"))
    frame = overview.table(mine)
    states = frame[frame.function.eq("attack_success_rate")].set_index("lesson").state
    assert states.to_dict() == {"00 start here": "untouched", "07 backdoors": "done"}


def test_an_exercise_that_is_gone_is_shown(mine):
    written(mine, entry("old_one"), entry("older", "wrong", lesson="99"))
    for function, state in (("old_one", "done"), ("older", "failed last time")):
        found = row(mine, function)
        assert (found.state, found.exercise) == (state, "no longer in the course")
    assert f"0 of {len(EXERCISES)} exercises done" in overview.notices(mine)[-2]


def test_a_function_that_changed_since_it_passed_is_told(mine):
    save(mine.parent / "any_name.ipynb", "%matplotlib inline", COPY)
    fn = typed(COPY, "copy")
    written(mine, entry("copy") | {"source": record.source_hash(fn)})
    assert row(mine, "copy").note == ""
    tries = overview.read(mine)[0]
    for text, told in ((COPY + "  # unchanged", ""), (COPY + " + 1", "No saved notebook")):
        save(mine.parent / "any_name.ipynb", text)
        saved = overview.saved_functions(mine.parent)["copy"]
        assert told in overview.outcome(tries, saved)[2]
        assert bool(told) == bool(overview.outcome(tries, saved)[2])
    save(mine.parent / ".ipynb_checkpoints" / "any_name-checkpoint.ipynb", COPY)
    assert overview.outcome(tries, overview.saved_functions(mine.parent)["copy"])[2]
    save(mine.parent / "week_1" / "another_copy.ipynb", COPY)
    assert overview.outcome(tries, overview.saved_functions(mine.parent)["copy"])[2] == ""
    (mine.parent / "broken.ipynb").write_text("{", encoding="utf-8")
    assert overview.saved_functions(mine.parent)["copy"]


def test_a_file_that_is_not_there_yet_is_told(mine):
    assert overview.notices(mine)[0].startswith(f"Nothing is noted in {record.named(mine)} yet")
    written(mine)
    assert overview.notices(mine)[0].startswith("0 of")


def next_one(mine: Path, *entries: dict) -> str:
    """What is said to come next after these tries."""
    written(mine, *entries)
    return overview.notices(mine)[-1]


def test_what_comes_next(mine):
    assert "lesson 00 start here, Exercise 1: the trigger (stamp)" in next_one(mine)
    assert "(stamp)" in next_one(mine, entry("stamp", "wrong"))
    assert "(attack_success_rate)" in next_one(mine, entry("stamp"))
    assert "(wilson_interval)" in next_one(mine, entry("attack_cost", lesson="01"))
    assert "(wilson_interval)" in next_one(
        mine, entry("attack_cost", lesson="01"), entry("gone", "wrong")
    )
    last, all_others = EXERCISES[-1], [(path, name) for path, name in EXERCISES[:-1]]
    done = [entry(name, lesson=path.name[:2]) for path, name in EXERCISES]
    assert "Go further" in next_one(mine, *done)
    assert f"({all_others[0][1]})" in next_one(mine, entry(last[1], lesson=last[0].name[:2]))


@pytest.mark.parametrize(
    "line", ["{", "[1]", '"a"', '{"lesson": 0}', "\udcff", json.dumps(entry("stamp") | {"at": 1})]
)
def test_a_damaged_line_is_named_and_the_others_count(line, mine):
    mine.parent.mkdir()
    lines = json.dumps(entry("stamp")), line, json.dumps(entry("attack_success_rate"))
    text = "\n".join([*lines, ""]).encode(errors="surrogateescape")
    mine.write_bytes(text)
    told, done, _ = overview.notices(mine)
    assert told.startswith(f"Damaged in {Path('my_work', record.FILE)}: 1 of its lines")
    assert "the first is line 2" in told
    assert "run its check again" in told and "2 of" in done
    assert mine.read_bytes() == text


def test_a_file_that_cannot_be_read_is_an_error_that_helps(mine, monkeypatch):
    mine.mkdir(parents=True)
    with pytest.raises(OSError, match=r"cannot be read .* Nothing was changed"):
        progress()
    monkeypatch.setattr("sys.argv", ["progress"])
    with pytest.raises(SystemExit, match="which holds your progress"):
        tool.main()


def test_a_workshop_copy_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "05_x.ipynb").write_text("<<<<<<< HEAD", encoding="utf-8")
    with pytest.raises(ValueError, match=r"05_x\.ipynb is not a readable notebook"):
        overview.exercises(tmp_path)


def test_the_notebook_shows_every_exercise_and_whole_messages(mine, capsys):
    written(mine, entry("stamp", "The shape is <3 x 1>, not " + "very " * 60 + "long"))
    html = progress().to_html()
    assert html.count("untouched") == len(EXERCISES) - 1
    assert "&lt;3 x 1&gt;" in html and "very long" in html
    assert f"0 of {len(EXERCISES)} exercises done" in capsys.readouterr().out


def test_a_notebook_that_notes_nothing_is_told_so(mine, monkeypatch, capsys):
    progress()
    assert "note nothing" not in capsys.readouterr().out
    monkeypatch.setattr(record, "_file", None)
    progress()
    assert "note nothing" in capsys.readouterr().out


def test_make_progress_prints_the_same(mine, capsys):
    written(mine, entry("stamp"), entry("attack_success_rate", "The share is wrong."))
    tool.main()
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "00 start here"
    assert said[1] == "  done              2026-05-01  Exercise 1: the trigger (stamp)"
    assert said[2].startswith("  failed last time  2026-05-01  Exercise 2")
    assert said[3].strip() == "The share is wrong."
    assert said[4] == "01 measuring poisoning: 4 exercises, untouched"
    assert said[-2:] == overview.notices(mine)


def test_no_study_depends_on_it():
    """Else every change here would make all studies due for `make verify`."""
    path = ROOT / "course_utils" / "__init__.py"
    _, imported = code_hash._read(path, path.stat().st_mtime_ns)
    assert "course_utils.runtime" in imported and code_hash.LEARNER not in imported


# From a clean clone to a newer version


@pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")
def test_nothing_is_lost_from_a_clean_clone_to_a_newer_version(tmp_path):
    remote, clone = make_remote(tmp_path / "remote"), tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", remote, clone], check=True)
    link_environment(clone)
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}

    def call(*command: str, cwd: Path = clone) -> subprocess.CompletedProcess:
        own = env | {"PYTHONPATH": str(cwd)}
        return subprocess.run(command, cwd=cwd, env=own, capture_output=True, encoding="utf-8")

    assert call(sys.executable, "-m", "tools.my_work").returncode == 0
    mine = clone / "my_work" / FIRST.name
    answered = answer(mine)
    needed = [cell for cell in answered.cells if is_needed(cell)]
    run_in_kernel = [new_code_cell("from torch import Tensor"), *needed]
    execute(new_notebook(cells=run_in_kernel), mine.parent, env=env | {"PYTHONPATH": str(clone)})
    before = contents(mine.parent)
    assert record.FILE in before

    judged = "tests/test_form.py", "-k", "start_here or up_to_date"
    tests = call(sys.executable, "-m", "pytest", *judged, "-q", "-p", "no:cacheprovider")
    assert tests.returncode == 0, tests.stdout
    assert call("git", "status", "--porcelain").stdout == ""
    by_mistake = clone / "notebooks" / "workshop" / FIRST.name
    answer(by_mistake)
    work = by_mistake.read_bytes()
    refused = call("make", "notebooks", "LESSON=00")
    assert refused.returncode and f"holds work of yours: {FIRST.name}" in refused.stderr
    assert by_mistake.read_bytes() == work
    subprocess.run(["git", "checkout", "--quiet", "--", "notebooks"], cwd=clone, check=True)
    told = call("make", "progress").stdout
    assert re.search(r"^2 of \d+ exercises done", told, re.MULTILINE)
    assert contents(mine.parent) == before

    newer = remote / "notebooks" / FIRST.name
    write(newer, newer.read_text(encoding="utf-8").replace("five minutes", "six minutes"))
    assert call(sys.executable, "-m", "tools.workshop", cwd=remote).returncode == 0
    who = ["-c", "user.name=Test", "-c", "user.email=test@example.org"]
    commit = ["git", *who, "commit", "--quiet", "--all", "-m", "newer"]
    subprocess.run(commit, cwd=remote, check=True)
    subprocess.run(["git", "pull", "--quiet"], cwd=clone, check=True)
    said = call(sys.executable, "-m", "tools.my_work").stdout
    assert f"{mine.stem}_new.ipynb" in said and "Yours is as you left it" in said
    after = contents(mine.parent)
    assert "six minutes" in after.pop(f"{mine.stem}_new.ipynb").decode()
    assert {name: text for name, text in after.items() if name != ".given.json"} == {
        name: text for name, text in before.items() if name != ".given.json"
    }
    assert call("make", "progress").stdout == told


def answer(path: Path):
    """Write the solutions into a workshop copy of lesson 00, as a learner would; the notebook."""
    nb, solutions = read(path), read(FIRST)
    for cell, solved in zip(nb.cells, solutions.cells, strict=True):
        if has_tag(cell, "exercise"):
            cell.source = solved.source.removeprefix("#| export attacks.first_backdoor\n")
    write(path, to_text(nb))
    return nb


def is_needed(cell) -> bool:
    """Whether the checks of lesson 00 need this cell."""
    imports = "from course_utils.checks." in cell.source
    return imports or any(has_tag(cell, tag) for tag in ("setup", "exercise", "check"))


def contents(folder: Path) -> dict[str, bytes]:
    """What the files of a folder hold, by name."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
