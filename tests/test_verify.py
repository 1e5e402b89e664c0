"""tools.verify: no hash is written beside rows that were not compared."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from course_utils import journal, stored
from course_utils.settings import Setting
from course_utils.stored import Benchmark, Study, load_study, run_study
from tools import verify
from tools.lessons import ROOT
from tools.verify import Record, carry, difference

ROW = {"trial": 0, "condition": "attack", "success": True, "accuracy": 0.81, "seconds": 1.5}


def trial(seed: int, setting: Setting) -> list[dict]:
    return [{"condition": "attack", "accuracy": seed / 3}]


STUDY = Study("coins", "07", trial, range(3))


def made(*rows: dict, code: str = "old") -> dict:
    """What a tree gives for one study."""
    return {"rows": list(rows), "code": code, "seconds": 1.0}


@pytest.fixture
def record(tmp_path) -> Record:
    """A stored study whose code has changed since."""
    run_study(STUDY, folder=tmp_path)
    path = tmp_path / "coins.json"
    known = json.loads(path.read_text()) | {"code": "old", "commit": "c" * 40}
    path.write_text(stored.sealed_manifest(known))
    (found,) = verify.records([STUDY], everything=False, folder=tmp_path)
    return found


def test_the_same_rows_are_the_same_whatever_the_clock_says():
    assert difference(made(ROW), made({**ROW, "seconds": 9.0}), "old") is None
    nothing = {**ROW, "fitted": float("nan")}
    assert difference(made(nothing), made(nothing), "old") is None


@pytest.mark.parametrize(
    ("now", "message"),
    [
        (made({**ROW, "accuracy": 0.81 + 1e-15}), "1 values of 1 columns .*accuracy"),
        (made({**ROW, "success": False}), "the first is success: True, now False"),
        (made({**ROW, "success": 1}), "success"),
        (made(ROW, ROW), "1 rows were made, now 2"),
        (made({**ROW, "more": 1}), "the columns were"),
        (made({name: ROW[name] for name in reversed(ROW)}), "the columns were"),
        ({"error": "ValueError: no", "seconds": 1.0}, "the new code fails: ValueError: no"),
    ],
)
def test_any_other_row_is_a_difference(now, message):
    assert re.search(message, difference(made(ROW), now, "old"))


def test_a_commit_that_did_not_make_the_rows_proves_nothing():
    assert "does not hold the code" in difference(made(ROW, code="x"), made(ROW), "old")


def test_no_rows_prove_nothing():
    assert "no row was compared" in difference(made(), made(), "old")


def test_equal_rows_give_the_new_hash_and_say_how(record):
    assert carry(record, made(ROW), made(ROW, code=STUDY.code), "tiny", "d" * 40) is None
    manifest = json.loads(record.path.read_text())
    assert (manifest["code"], manifest["commit"]) == (STUDY.code, "d" * 40)
    (how,) = manifest["verified"]
    assert (how["old"], how["trials"], how["size"]) == ("c" * 40, 1, "tiny")
    assert len(load_study(STUDY, record.path.parent)) == 3


def test_other_rows_leave_the_manifest_as_it_was(record):
    before = record.path.read_bytes()
    assert carry(record, made(ROW), made({**ROW, "accuracy": 0.5}), "tiny", "d" * 40)
    assert record.path.read_bytes() == before


def test_code_that_was_edited_meanwhile_is_not_stamped(record):
    assert "edited while" in carry(record, made(ROW), made(ROW, code="x"), "tiny", "d" * 40)


def test_an_unfinished_journal_is_carried_over(tmp_path):
    header = {**stored._header(STUDY), "code": "old", "commit": "c" * 40}
    path = tmp_path / "coins.journal"
    rows = [{"trial": 0, "condition": "attack", "accuracy": 9.0}]
    journal.append(path, header, {"unit": [0], "machine": "m", "seconds": 1.0, "rows": rows})
    (record,) = verify.records([STUDY], everything=False, folder=tmp_path)
    assert carry(record, made(ROW), made(ROW, code=STUDY.code), "tiny", "d" * 40) is None
    frame = run_study(STUDY, folder=tmp_path)
    assert frame.accuracy.tolist() == [9.0, 1 / 3, 2 / 3]  # the first one was not run again


def test_in_which_order_a_trial_gives_its_rows_does_not_matter():
    first = {"trial": 0, "attacker": "clean", "victim": "plain", "accuracy": 0.8}
    second = first | {"attacker": "oblivious", "accuracy": 0.7}
    assert difference(made(first, second), made(second, first), "old") is None
    swapped = (first | {"accuracy": 0.7}, second | {"accuracy": 0.8})
    assert "accuracy" in difference(made(first, second), made(*swapped), "old")


def test_an_attack_that_is_gone_takes_its_rows_with_it(tmp_path):
    both = Benchmark("matrix", {"a": STUDY.trial, "b": STUDY.trial}, STUDY.seeds)
    frame = run_study(both, folder=tmp_path)
    one = Benchmark("matrix", {"b": STUDY.trial}, STUDY.seeds)
    (record,) = verify.records([one], everything=True, folder=tmp_path)
    old = made({"attack": "a", **ROW}, {"attack": "b", **ROW}, code=both.code)
    assert carry(record, old, made({"attack": "b", **ROW}, code=one.code), "tiny", "d" * 40) is None
    left = load_study(one, tmp_path)
    wanted = frame[frame.attack == "b"].reset_index(drop=True)
    pd.testing.assert_frame_equal(left, wanted, check_exact=False, rtol=1e-5)
    other = made({"attack": "b", **ROW, "accuracy": 0.5}, code=one.code)
    assert "accuracy" in carry(record, old, other, "tiny", "d" * 40)


def test_a_benchmark_whose_attack_is_gone_is_never_half_written(tmp_path, monkeypatch):
    both = Benchmark("matrix", {"a": STUDY.trial, "b": STUDY.trial}, STUDY.seeds)
    run_study(both, folder=tmp_path)
    one = Benchmark("matrix", {"b": STUDY.trial}, STUDY.seeds)
    (record,) = verify.records([one], everything=True, folder=tmp_path)
    row = {"attack": "b", **ROW}
    given = (record, made(row, code=both.code), made(row, code=one.code), "tiny", "d" * 40)
    stored_files = [tmp_path / "matrix.csv", tmp_path / "matrix.json"]
    before = [path.read_bytes() for path in stored_files]

    def cut_off(*names: object) -> None:
        raise KeyboardInterrupt

    for module, name in ((stored, "sealed_manifest"), (os, "replace")):
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(module, name, cut_off)
            carry(*given)
        assert [path.read_bytes() for path in stored_files] == before
    assert carry(*given) is None
    assert set(load_study(one, tmp_path).attack) == {"b"}


def test_rows_that_were_edited_get_no_new_hash(tmp_path):
    study = Benchmark("matrix", {"a": STUDY.trial}, STUDY.seeds)
    run_study(study, folder=tmp_path)
    (record,) = verify.records([study], everything=True, folder=tmp_path)
    path = tmp_path / "matrix.csv"
    path.write_text(path.read_text().replace("0.333333", "0.9"))
    row = {"attack": "a", **ROW}
    with pytest.raises(stored.StudyError, match=r"matrix.csv differs from what its manifest"):
        carry(record, made(row, code=study.code), made(row, code=study.code), "tiny", "d" * 40)


SAMPLE = '''
from course_utils.stored import Study
from course_utils.settings import Setting


def trial(seed: int, setting: Setting) -> list[dict]:
    """One number."""
    return [{"condition": "attack", "value": seed * setting.scaled(100)}]


STUDY = Study("sample", "07", trial, range(3))
'''
BENCHMARK = """
from course_utils.stored import Benchmark
from course_utils.studies.sample import trial

BENCHMARK = Benchmark("matrix", {"sample": trial}, range(2))
CURVES = Benchmark("curves", {"sample": trial}, range(2), scale="controls")
"""


def in_project(root: Path, *command: str) -> subprocess.CompletedProcess:
    """Run a command in the small project, with its own code."""
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)


def committed(root: Path, message: str) -> None:
    """Commit all that has changed."""
    who = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    for command in (["add", "-A"], [*who, "commit", "-q", "-m", message]):
        assert in_project(root, "git", *command).returncode == 0


@pytest.fixture
def project(tmp_path) -> Path:
    """A project of its own: the course's modules and tools, one study, one benchmark."""
    root = tmp_path / "project"
    for folder in ("course_utils", "tools"):
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
    studies = root / "course_utils" / "studies"
    for path in studies.glob("*.py"):
        if path.name != "__init__.py":
            path.unlink()
    (studies / "sample.py").write_text(SAMPLE)
    (studies / "lesson_16.py").write_text(BENCHMARK)
    in_project(root, "git", "init", "-q")
    (root / ".gitignore").write_text("__pycache__/\n*.lock\n")
    committed(root, "The code")
    stored_now = in_project(root, sys.executable, "-m", "tools.results", "--jobs", "1")
    assert stored_now.returncode == 0, stored_now.stderr
    committed(root, "The rows")
    return root


@pytest.mark.skipif(not shutil.which("git"), reason="git is not installed")
def test_the_command_compares_two_trees_and_stamps_only_what_agrees(project):
    path = project / "course_utils/studies/sample.py"
    manifest = project / "data/results/sample.json"
    before = manifest.read_bytes()
    look = (sys.executable, "-m", "tools.verify", "--jobs", "1", "--study", "sample")

    path.write_text(SAMPLE.replace("seed * setting.scaled(100)", "setting.scaled(100) * seed"))
    refused = in_project(project, *look)
    assert refused.returncode and "Commit course_utils first" in refused.stderr
    committed(project, "The same rows in other words")
    done = in_project(project, *look)
    assert done.returncode == 0 and "sample.json: the same rows" in done.stdout, done.stderr
    assert json.loads(manifest.read_text())["verified"][0]["size"] == "tiny"
    assert manifest.read_bytes() != before
    committed(project, "Verified")

    before = manifest.read_bytes()
    path.write_text(SAMPLE.replace("seed *", "2 * seed *"))
    committed(project, "Other rows")
    done = in_project(project, *look)
    assert done.returncode and "sample is due: 1 values of 1 columns (value)" in done.stderr
    assert manifest.read_bytes() == before
