"""course_utils.stored: studies on disk, and how a stale or damaged one is found out."""

import functools
import importlib.util
import json
import os
import subprocess
import sys
from itertools import count
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from course_utils.code_hash import code_hash
from course_utils.journal import StudyError
from course_utils.stored import (
    Study,
    load_manifest,
    load_study,
    load_unfinished,
    machine,
    run_study,
)
from course_utils.trials import compare


def coin_trial(seed: int) -> list[dict]:
    """Two conditions, with a text, a yes/no and a number of many digits each."""
    return [
        {"condition": name, "success": seed % 2 == 0, "accuracy": seed / 3 + shift}
        for name, shift in (("clean", 0.5), ("attack", 0.25))
    ]


def failing_trial(seed: int) -> list[dict]:
    raise RuntimeError("the attack failed")


STUDY = Study("coins", lesson="07", trial=coin_trial, seeds=range(3))


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder with the stored study."""
    run_study(STUDY, folder=tmp_path)
    return tmp_path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


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


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"\xff\xfe", b"[]", b"null", b'{"seeds": [0, 1, 2]}']
)
def test_an_unreadable_manifest_is_found_out(damage, folder):
    (folder / "coins.json").write_bytes(damage)
    with pytest.raises(StudyError, match=r"manifest coins.json cannot be read .* LESSON=07"):
        load_study(STUDY, folder)


@pytest.mark.parametrize("seeds", [range(4), range(2), [2, 1, 0], [0, 1, 5]])
def test_other_seeds_are_found_out(seeds, folder):
    with pytest.raises(StudyError, match=r"other seeds. Run `make results LESSON=07`"):
        load_study(Study("coins", "07", coin_trial, seeds), folder)


def test_other_code_is_found_out(folder):
    with pytest.raises(StudyError, match=r"is stale: .* Run `make results LESSON=07`"):
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
    def other_numbers(seed):
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

    def __call__(self, seed: int) -> list[dict]:
        if seed == self.fails_at:
            raise RuntimeError("out of memory")
        self.seeds.append(seed)
        return coin_trial(seed)


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
        (coin_trial, range(5), r"trials of other seeds than .* Delete it"),
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


def test_numbers_of_numpy_and_torch_are_stored_as_numbers(tmp_path):
    def trial(seed):
        loss = torch.tensor(1.5)
        return [{"rate": np.float32(0.25), "n": np.int64(3), "ok": np.bool_(True), "loss": loss}]

    run_study(Study("numbers", "07", trial, [0]), folder=tmp_path)
    assert (tmp_path / "numbers.csv").read_text() == "trial,rate,n,ok,loss\n0,0.25,3,True,1.5\n"


def test_a_row_that_is_no_row_of_numbers_and_texts_is_refused(tmp_path):
    study = Study("odd", "07", lambda seed: [{"model": object()}], [0])
    with pytest.raises(TypeError, match="expected numbers, texts"):
        run_study(study, folder=tmp_path)
    assert contents(tmp_path) == {}


# The hash of the code

SOURCE = '''
"""A study."""
import functools
import sys
from dataclasses import dataclass

LIMIT = 3
UNUSED = 3
epsilon = 5
FACTOR = 5
STEPS = 7
RATES = [0.1, 0.2]
SHARES = {"low": 0.1, "high": (0.5, 0.9)}


class Base:
    def name(self):
        return "base"

    @staticmethod
    def half(value):
        return value / 2


@dataclass(frozen=True)
class Settings(Base):
    """What may be set."""

    epsilon: float = 0.1
    steps: int = 10

    def total(self) -> float:
        """All steps together."""
        return self.epsilon * scale(self.steps)


SETTINGS = Settings(steps=STEPS)


def power(exponent):
    return lambda value: value**exponent


SQUARE = power(2)
CURVES = (SQUARE, functools.partial(max, 100))
THIS = sys.modules[__name__]


@functools.cache
def cached(value):
    return value + 1


def through_the_module(value):
    return value + 2


def scale(value):
    """Bring a value to size."""
    return value * LIMIT


def not_reached(value):
    return value


def trial(seed, factor=FACTOR):
    """One trial."""
    values = [cached(seed), THIS.through_the_module(seed), *RATES]
    values += [curve(seed) for curve in CURVES]
    # Scaled first.
    rows = [scale(seed) for share in SHARES.values()]
    return [{"value": value, "total": SETTINGS.total()} for value in rows]
'''


@pytest.fixture
def hash_of(tmp_path, monkeypatch):
    """Hashes the `trial` of a module of the course with the given source."""
    numbers = count()

    def hash_of(source: str, name: str = "course_utils.studies.sample") -> str:
        path = tmp_path / str(next(numbers)) / "sample.py"
        path.parent.mkdir()
        path.write_text(source)
        spec = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
        return code_hash(module.trial)

    return hash_of


def edited(old: str, new: str) -> str:
    assert SOURCE.count(old) == 1
    return SOURCE.replace(old, new)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("scale(seed)", "scale(seed + 1)"),
        ("value * LIMIT", "value + LIMIT"),
        ("\nLIMIT = 3", "\nLIMIT = 4"),
        ('"low": 0.1', '"low": 0.2'),
        ("(0.5, 0.9)", "(0.5, 0.8)"),
        ("epsilon: float = 0.1", "epsilon: float = 0.2"),
        ("self.epsilon * scale", "self.epsilon + scale"),
        ("FACTOR = 5", "FACTOR = 6"),
        ("STEPS = 7", "STEPS = 8"),
        ("[0.1, 0.2]", "[0.1, 0.3]"),
        ('return "base"', 'return "bottom"'),
        ("value / 2", "value / 4"),
        ("power(2)", "power(3)"),
        ("value**exponent", "value * exponent"),
        ("functools.partial(max, 100)", "functools.partial(max, 200)"),
        ("return value + 1", "return value - 1"),
        ("return value + 2", "return value - 2"),
    ],
)
def test_a_change_of_code_that_the_trial_reaches_changes_the_hash(old, new, hash_of):
    assert hash_of(edited(old, new)) != hash_of(SOURCE)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('    """One trial."""\n', ""),
        ("Bring a value to size.", "Make it larger."),
        ("What may be set.", "The settings."),
        ("All steps together.", "The sum."),
        ("    # Scaled first.\n", ""),
        ("value * LIMIT", "(value\n        * LIMIT)"),
        ("UNUSED = 3", "UNUSED = 4"),
        ("\nepsilon = 5", "\nepsilon = 6"),
        ("    return value\n\n", "    return -value\n\n"),
        ("LIMIT = 3", "\n\n\nLIMIT = 3"),
    ],
)
def test_words_layout_and_code_out_of_reach_do_not_change_the_hash(old, new, hash_of):
    source = SOURCE.replace("UNUSED = 3", "IDLE = 3") if old == "LIMIT = 3" else SOURCE
    assert source.count(old) == 1
    assert hash_of(source.replace(old, new)) == hash_of(source)


def test_the_place_of_the_code_does_not_change_the_hash(hash_of):
    assert hash_of(SOURCE, "course_utils.attacks.sample") == hash_of(SOURCE)
    assert hash_of(SOURCE, "__main__") == hash_of(SOURCE)


def test_a_change_in_another_module_of_the_course_changes_the_hash(monkeypatch):
    before = code_hash(compare)
    monkeypatch.setattr("course_utils.training.SCENARIOS", ("scratch", "finetune"))
    assert code_hash(compare) != before


def test_a_trial_with_settings_of_its_own_is_hashed_with_them():
    first, again, other = (functools.partial(coin_trial, seed=seed) for seed in (1, 1, 2))
    assert code_hash(first) == code_hash(again) != code_hash(other)


def test_constants_of_the_same_name_in_two_modules_both_count(hash_of, monkeypatch):
    source = SOURCE.replace("\nLIMIT = 3", "\nfrom course_utils.training import train\nLIMIT = 3")
    source = source.replace("SETTINGS.total()", "[SETTINGS.total(), train, SCENARIOS]")
    source = source.replace("\nLIMIT", "\nSCENARIOS = 2\nLIMIT")
    hashes = {hash_of(source), hash_of(source.replace("SCENARIOS = 2", "SCENARIOS = 3"))}
    monkeypatch.setattr("course_utils.training.SCENARIOS", ("scratch", "finetune"))
    assert len(hashes | {hash_of(source)}) == 3


def test_libraries_do_not_count(hash_of):
    source = "import numpy as np\n\ndef trial(seed):\n    return np.arange(seed)\n"
    other = source.replace("import numpy as np", "import pandas as np")
    assert hash_of(source) == hash_of(other)


def test_the_hash_is_the_same_in_another_process():
    code = (
        "from course_utils.code_hash import code_hash\n"
        "from course_utils.trials import compare\n"
        "print(code_hash(compare))\n"
    )
    here = code_hash(compare)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in ("1", "2")
    ]
    assert [process.communicate()[0].strip() for process in processes] == [here, here]
