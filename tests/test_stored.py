"""course_utils.stored: studies on disk, and how a stale or damaged one is found out."""

import json
import os
import subprocess
import sys
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from course_utils import code_hash as hashing
from course_utils import stored
from course_utils.code_hash import code_hash
from course_utils.journal import StudyError
from course_utils.settings import MLP, Setting
from course_utils.stored import (
    Benchmark,
    Study,
    load_manifest,
    load_study,
    load_unfinished,
    machine,
    run_study,
)
from course_utils.training import Recipe
from course_utils.trials import compare


def coin_trial(seed: int, setting: Setting) -> list[dict]:
    """Two conditions, with a text, a yes/no and a number of many digits each."""
    return [
        {"condition": name, "success": seed % 2 == 0, "accuracy": seed / 3 + shift}
        for name, shift in (("clean", 0.5), ("attack", 0.25))
    ]


def failing_trial(seed: int, setting: Setting) -> list[dict]:
    raise RuntimeError("the attack failed")


STUDY = Study("coins", lesson="07", trial=coin_trial, seeds=range(3))


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder with the stored study."""
    run_study(STUDY, folder=tmp_path)
    return tmp_path


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a folder by name; a lock is no content."""
    files = (path for path in folder.iterdir() if path.suffix != ".lock")
    return {path.name: path.read_bytes() for path in files}


# Round trip


def test_a_stored_study_comes_back_to_six_digits(tmp_path):
    frame = run_study(STUDY, folder=tmp_path)
    stored = load_study(STUDY, tmp_path)
    pd.testing.assert_frame_equal(stored, frame, rtol=1e-5)
    assert stored.success.dtype == bool
    assert stored.accuracy[3] == 0.583333


def test_two_files_are_stored_and_no_other(folder):
    assert set(contents(folder)) == {"coins.csv", "coins.json"}


def test_the_folder_is_made(tmp_path):
    run_study(STUDY, folder=tmp_path / "data" / "results")
    assert len(load_study(STUDY, tmp_path / "data" / "results")) == 6


def test_the_manifest_says_where_the_numbers_come_from(folder):
    manifest = json.loads((folder / "coins.json").read_text())
    assert manifest["study"] == "coins"
    assert manifest["lesson"] == "07"
    assert manifest["seeds"] == [0, 1, 2]
    assert manifest["columns"] == ["trial", "condition", "success", "accuracy"]
    assert manifest["rows"] == 6
    assert manifest["texts"] == ["condition"]
    assert manifest["setting"] == "MLP"
    assert manifest["machine"] == machine()
    assert set(manifest["versions"]) == {"python", "torch", "torchvision", "numpy"}
    assert load_manifest(STUDY, folder)["code"] == manifest["code"] == code_hash(coin_trial)


# Missing, damaged, of other seeds


@pytest.mark.parametrize("name", ["coins.csv", "coins.json"])
def test_a_missing_file_is_named_with_its_remedy(name, folder):
    (folder / name).unlink()
    with pytest.raises(StudyError, match=f"no stored {name}. Run `make results LESSON=07`"):
        load_study(STUDY, folder)


def test_line_ends_of_another_system_are_no_damage(folder):
    path = folder / "coins.csv"
    expected = load_study(STUDY, folder)
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    pd.testing.assert_frame_equal(load_study(STUDY, folder), expected)


def test_a_frame_that_is_no_text_is_found_out(folder):
    (folder / "coins.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(StudyError, match=r"coins.csv differs"):
        load_study(STUDY, folder)


def test_an_edited_frame_is_found_out(folder):
    path = folder / "coins.csv"
    path.write_text(path.read_text().replace("False", "True", 1))
    with pytest.raises(StudyError, match=r"coins.csv differs .* `git checkout .* LESSON=07"):
        load_study(STUDY, folder)


@pytest.mark.parametrize("length", [0, 1, 60, -1])
def test_a_truncated_frame_is_found_out(length, folder):
    path = folder / "coins.csv"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(StudyError, match="edited or cut short"):
        load_study(STUDY, folder)


@pytest.mark.parametrize("damage", [b"", b"{", b"\xff\xfe", b"[]", b"null", b'{"seeds": [0]}'])
def test_an_unreadable_manifest_is_found_out(damage, folder):
    (folder / "coins.json").write_bytes(damage)
    with pytest.raises(StudyError, match=r"manifest coins.json cannot be read .* LESSON=07"):
        load_study(STUDY, folder)


@pytest.mark.parametrize("seeds", [range(4), range(2), [2, 1, 0], [0, 1, 5]])
def test_other_seeds_are_found_out(seeds, folder):
    with pytest.raises(StudyError, match=r"other seeds or another name. Run `make results"):
        load_study(Study("coins", "07", coin_trial, seeds), folder)


def test_other_code_is_found_out(folder):
    with pytest.raises(StudyError, match=r"has changed. .*`make verify`; if not, run `make"):
        load_study(Study("coins", "07", compare, range(3)), folder)


def test_code_typed_into_a_notebook_is_not_compared(folder, monkeypatch):
    monkeypatch.setattr(compare, "__module__", "__main__")
    assert len(load_study(Study("coins", "07", compare, range(3)), folder)) == 6


# Nothing half-written


def test_a_failing_trial_stores_nothing(tmp_path):
    with pytest.raises(RuntimeError, match="the attack failed"):
        run_study(Study("coins", "07", failing_trial, range(3)), folder=tmp_path)
    assert contents(tmp_path) == {}


def test_a_failing_trial_leaves_the_old_files_alone(folder):
    before = contents(folder)
    with pytest.raises(RuntimeError, match="the attack failed"):
        run_study(Study("coins", "07", failing_trial, range(3)), folder=folder)
    assert contents(folder) == before
    load_study(STUDY, folder)


def cut_off_between_the_files(study: Study, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a study that is interrupted when the frame is stored and the manifest is not yet."""
    replaced = os.replace

    def cut_off(source, target):
        if str(target).endswith(".json"):
            raise KeyboardInterrupt
        replaced(source, target)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(os, "replace", cut_off)
        run_study(study, folder=folder)


def test_a_run_that_is_cut_off_between_the_files_is_found_out(folder, monkeypatch):
    def other_numbers(seed, setting):
        return [{"condition": "clean", "success": True, "accuracy": 1.0}]

    cut_off_between_the_files(Study("coins", "07", other_numbers, range(3)), folder, monkeypatch)
    with pytest.raises(StudyError, match=r"coins.csv differs"):
        load_study(STUDY, folder)


def test_a_run_that_is_cut_off_between_the_files_needs_no_trial_again(tmp_path, monkeypatch):
    cut_off_between_the_files(STUDY, tmp_path, monkeypatch)
    ran = Trials()
    frame = run_study(Study("coins", "07", ran, range(3)), folder=tmp_path)
    assert ran.seeds == []
    pd.testing.assert_frame_equal(load_study(STUDY, tmp_path), frame, rtol=1e-5)
    assert set(contents(tmp_path)) == {"coins.csv", "coins.json"}


# The journal of an unfinished run


class Trials:
    """The coins again, but it notes which trials ran and fails at one of them."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.fails_at, self.seeds = fails_at, []

    def __call__(self, seed: int, setting: Setting) -> list[dict]:
        if seed == self.fails_at:
            raise RuntimeError("out of memory")
        self.seeds.append(seed)
        return coin_trial(seed, setting)


def interrupted(folder: Path, fails_at: int = 2) -> Path:
    """The journal of a run over four seeds that ended at one of them."""
    with pytest.raises(RuntimeError, match="out of memory"):
        run_study(Study("coins", "07", Trials(fails_at), range(4)), folder=folder)
    return folder / "coins.journal"


def test_a_run_goes_on_where_it_ended(tmp_path):
    interrupted(tmp_path / "two runs")
    ran = Trials()
    resumed = run_study(Study("coins", "07", ran, range(4)), folder=tmp_path / "two runs")
    assert ran.seeds == [2, 3]
    whole = run_study(Study("coins", "07", coin_trial, range(4)), folder=tmp_path / "one run")
    pd.testing.assert_frame_equal(resumed, whole, check_exact=True)
    one, two = (contents(tmp_path / name) for name in ("one run", "two runs"))
    assert two["coins.csv"] == one["coins.csv"]
    assert set(two) == {"coins.csv", "coins.json"}


def test_an_unfinished_study_says_so_and_can_be_looked_at(tmp_path):
    study = Study("coins", "07", Trials(), range(4))
    interrupted(tmp_path)
    message = r"not finished: 2 of 4 trials are done. Run `make results LESSON=07` to go on"
    with pytest.raises(StudyError, match=message):
        load_study(study, tmp_path)
    rows = load_unfinished(study, tmp_path)
    assert rows.trial.tolist() == [0, 0, 1, 1]
    run_study(study, folder=tmp_path)
    with pytest.raises(StudyError, match="No unfinished coins"):
        load_unfinished(study, tmp_path)


def test_a_stored_study_can_be_read_while_it_runs_again(folder):
    before = load_study(STUDY, folder)
    interrupted(folder)
    pd.testing.assert_frame_equal(load_study(STUDY, folder), before)


@pytest.mark.parametrize("left", [1, 20, -1])
def test_a_half_written_last_line_is_dropped_and_its_trial_runs_again(left, tmp_path):
    path = interrupted(tmp_path)
    *whole, last = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(whole) + last[:left])
    ran = Trials()
    with pytest.warns(UserWarning, match=r"last line of .*coins.journal was only half written"):
        run_study(Study("coins", "07", ran, range(4)), folder=tmp_path)
    assert ran.seeds == [1, 2, 3]
    assert load_study(Study("coins", "07", ran, range(4)), tmp_path).trial.nunique() == 4


def test_a_half_written_first_line_leaves_nothing_to_resume(tmp_path):
    path = interrupted(tmp_path)
    path.write_bytes(path.read_bytes()[:30])
    ran = Trials(fails_at=3)
    with (
        pytest.warns(UserWarning, match="only half written"),
        pytest.raises(RuntimeError, match="out of memory"),
    ):
        run_study(Study("coins", "07", ran, range(4)), folder=tmp_path)
    assert ran.seeds == [0, 1, 2]
    assert len(load_unfinished(Study("coins", "07", ran, range(4)), tmp_path)) == 6


@pytest.mark.parametrize("line", [0, 1, 2])
@pytest.mark.parametrize(
    "damage",
    [
        lambda line: line[:-10],
        lambda line: line.replace(b"0", b"1", 1),
        lambda line: b"",
        lambda line: b"\xff\xfe",
        lambda line: b"null",
        lambda line: b'{"unit": [0]}',
    ],
)
def test_a_damaged_line_is_refused_and_nothing_is_lost(line, damage, tmp_path):
    path = interrupted(tmp_path)
    lines = path.read_bytes().splitlines()
    lines[line] = damage(lines[line])
    path.write_bytes(b"\n".join(lines) + b"\n")
    before, ran = contents(tmp_path), Trials()
    with pytest.raises(StudyError, match=rf"Line {line + 1} of .*coins.journal .*delete it"):
        run_study(Study("coins", "07", ran, range(4)), folder=tmp_path)
    assert ran.seeds == [] and contents(tmp_path) == before


@pytest.mark.parametrize(
    ("trial", "seeds", "message"),
    [
        (coin_trial, range(5), r"trials of other seeds than .* delete it"),
        (compare, range(4), r"trials of other code than .* change code back"),
    ],
    ids=["seeds", "code"],
)
def test_a_journal_of_another_study_is_refused(trial, seeds, message, tmp_path):
    interrupted(tmp_path)
    before = contents(tmp_path)
    with pytest.raises(StudyError, match=message):
        run_study(Study("coins", "07", trial, seeds), folder=tmp_path)
    assert contents(tmp_path) == before


def test_a_journal_of_other_versions_is_refused(tmp_path, monkeypatch):
    interrupted(tmp_path)
    monkeypatch.setattr("course_utils.stored.package_versions", lambda: {"torch": "1.0"})
    with pytest.raises(StudyError, match="trials of other versions"):
        run_study(Study("coins", "07", coin_trial, range(4)), folder=tmp_path)


def test_a_run_for_any_machine_goes_on_with_other_code_and_versions(tmp_path, monkeypatch):
    def of(trial, setting=MLP):
        return Benchmark("coins", {"coins": trial}, range(3), setting=setting, anywhere=True)

    monkeypatch.setattr(stored, "code_hash", lambda trial: "as it was")
    with pytest.raises(RuntimeError, match="out of memory"):
        run_study(of(Trials(fails_at=2)), folder=tmp_path)
    path = tmp_path / "coins.journal"
    begun = path.read_bytes()
    monkeypatch.setattr(stored, "code_hash", lambda trial: "as it is")
    monkeypatch.setattr(stored, "package_versions", lambda: {"torch": "1.0"})
    with pytest.raises(StudyError, match="trials of other setting than those to run now"):
        run_study(of(coin_trial, replace(MLP, recipe=Recipe(epochs=3))), folder=tmp_path)
    assert path.read_bytes() == begun
    frame = run_study(of(coin_trial), folder=tmp_path)
    assert frame.trial.tolist() == [0, 0, 1, 1, 2, 2]
    manifest = load_manifest(of(coin_trial), tmp_path)
    first, second = (versions["torch"] for versions in manifest["versions"])
    assert first != second == "1.0"
    assert manifest["code"] == ["as it was", "as it is"]
    monkeypatch.setattr(stored, "code_hash", lambda trial: "as it will be")
    pd.testing.assert_frame_equal(load_study(of(coin_trial), tmp_path), frame, rtol=1e-5)


def test_numbers_of_numpy_and_torch_are_stored_as_numbers(tmp_path):
    def trial(seed, setting):
        loss = torch.tensor(1.5)
        return [{"rate": np.float32(0.25), "n": np.int64(3), "ok": np.bool_(True), "loss": loss}]

    run_study(Study("numbers", "07", trial, [0]), folder=tmp_path)
    assert (tmp_path / "numbers.csv").read_text() == "trial,rate,n,ok,loss\n0,0.25,3,True,1.5\n"


def test_a_row_that_is_no_row_of_numbers_and_texts_is_refused(tmp_path):
    study = Study("odd", "07", lambda seed, setting: [{"model": object()}], [0])
    with pytest.raises(TypeError, match="expected numbers, texts"):
        run_study(study, folder=tmp_path)
    assert contents(tmp_path) == {}


# What comes back is what was made


def kinds_trial(seed: int, setting: Setting) -> list[dict]:
    """Texts that look like something else, a yes/no, an open value, a whole number."""
    return [
        {"name": "None", "code": "010", "note": "NA", "yes": True, "rate": None, "count": 3},
        {"name": "nan", "code": "7", "note": None, "yes": False, "rate": 0.5, "count": 4},
    ]


def test_texts_and_kinds_of_number_come_back_as_they_were(tmp_path):
    made = run_study(Study("kinds", "07", kinds_trial, range(2)), folder=tmp_path)
    back = load_study(Study("kinds", "07", kinds_trial, range(2)), tmp_path)
    pd.testing.assert_frame_equal(back, made, check_dtype=False)
    assert back.code.tolist() == ["010", "7"] * 2
    assert back.name[0] == "None" and back.note[0] == "NA" and pd.isna(back.note[1])
    assert (back.yes.dtype, back["count"].dtype) == (bool, np.int64)


@pytest.mark.parametrize("values", [("a", 1), ("a", "")])
def test_a_column_that_would_not_come_back_is_refused(values, tmp_path):
    def trial(seed, setting):
        return [{"value": value} for value in values]

    with pytest.raises(TypeError, match="'value' mixes texts with other values, or holds an empty"):
        run_study(Study("mixed", "07", trial, [0]), folder=tmp_path)
    assert set(contents(tmp_path)) == {"mixed.journal"}


def test_seeds_of_numpy_are_stored_and_found_again(tmp_path):
    study = Study("coins", "07", coin_trial, np.arange(3))
    run_study(study, folder=tmp_path)
    assert json.loads((tmp_path / "coins.json").read_text())["seeds"] == [0, 1, 2]
    assert len(load_study(study, tmp_path)) == 6


def test_a_row_may_not_have_a_trial_of_its_own(tmp_path):
    study = Study("own", "07", lambda seed, setting: [{"trial": 99}], [0])
    with pytest.raises(ValueError, match="column 'trial' of its own"):
        run_study(study, folder=tmp_path)


@pytest.mark.parametrize("name", ["", "../x/y", "a/b", "C:\\x", ".hidden"])
def test_a_name_that_would_leave_the_folder_is_refused(name):
    with pytest.raises(ValueError, match="cannot name the files of a study"):
        Study(name, "07", coin_trial, range(3))


def test_a_manifest_of_another_study_is_refused(folder):
    for ending in ("csv", "json"):
        (folder / f"coins.{ending}").rename(folder / f"other.{ending}")
    with pytest.raises(StudyError, match="other seeds or another name"):
        load_study(Study("other", "07", coin_trial, range(3)), folder)


def test_a_second_run_at_the_same_time_is_refused(folder):
    with (
        stored.FileLock(folder / "coins.lock"),
        pytest.raises(StudyError, match="Another run of coins is at work"),
    ):
        run_study(STUDY, folder=folder)


@pytest.mark.parametrize("change", [{"code": "0" * 16}, {"rows": 5}, {"commit": "abc"}])
def test_a_manifest_edited_by_hand_is_refused(change, folder):
    """A hash that somebody typed in is no verification."""
    path = folder / "coins.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change, indent=1) + "\n")
    with pytest.raises(StudyError, match="edited by hand"):
        load_study(STUDY, folder)


# The hash of the code


@pytest.fixture
def hash_of(tmp_path, monkeypatch):
    """A function: the hash of a study whose modules have these texts."""

    def hash_with(**changes: str) -> str:
        texts = {
            "studies/sample.py": "from course_utils.cases import draw\nLIMIT = 3\n",
            "cases/draw.py": "import numpy as np\nfrom course_utils.data import load\n",
            "data.py": 'def load():\n    """Load."""\n    return 1  # one\n',
            "stored.py": "STORE = 1\n",
            "idle.py": "IDLE = 1\n",
        }
        texts["studies/sample.py"] += "from course_utils.stored import STORE\n"
        for name, text in (texts | changes).items():
            path = tmp_path / "course_utils" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        hashing._read.cache_clear()
        return code_hash(types.SimpleNamespace(__module__="course_utils.studies.sample"))

    monkeypatch.setattr(hashing, "ROOT", tmp_path)
    return hash_with


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("studies/sample.py", "from course_utils.cases import draw\nLIMIT = 4\n"),
        ("cases/draw.py", "import numpy as np\nfrom course_utils.data import load\nA = 1\n"),
        ("data.py", "def load():\n    return 2\n"),
        ("data.py", "def load():\n    return None\n"),
    ],
)
def test_a_change_of_code_that_the_trial_may_reach_changes_the_hash(name, text, hash_of):
    assert hash_of(**{name: text}) != hash_of()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("data.py", 'def load():\n    """Load all."""\n    return (\n        1\n    )\n'),
        ("stored.py", "STORE = 2\n"),
        ("idle.py", "IDLE = 2\n"),
    ],
)
def test_words_layout_and_code_out_of_reach_do_not_change_the_hash(name, text, hash_of):
    assert hash_of(**{name: text}) == hash_of()


def test_the_hash_is_the_same_in_another_process():
    code = (
        "from course_utils.code_hash import code_hash\n"
        "from course_utils.trials import compare\n"
        "print(code_hash(compare))\n"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in ("1", "2")
    ]
    here = code_hash(compare)
    assert [process.communicate()[0].strip() for process in processes] == [here, here]
