"""Stored studies: experiments too long to run live, with the code that they came from."""

import hashlib
import io
import json
import os
import platform
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from filelock import FileLock, Timeout

from course_utils import fixed_trials, journal
from course_utils.code_hash import code_hash, short_hash
from course_utils.journal import StudyError, write
from course_utils.runtime import package_versions, timed
from course_utils.settings import MLP, Setting
from course_utils.trials import Rows, as_finished, check_seeds, one_trial

RESULTS = Path(__file__).resolve().parents[1] / "data" / "results"

Trial = Callable[[int, Setting], Rows]
Key = tuple[str | int, ...]  # names one trial: its seed; in a benchmark, its attack and its seed


class _Trials:
    """What a study and a benchmark have in common: a name, and trials for each of their seeds."""

    def __post_init__(self) -> None:
        """Raise ValueError for a name that would write outside the folder of the results."""
        if not self.name or set(self.name) & set("/\\:") or self.name.startswith("."):
            raise ValueError(
                f"{self.name!r} cannot name the files of a study: use letters, digits and '_'."
            )

    @property
    def units(self) -> dict[Key, Trial]:
        """The trials in the order of their rows, each with its key."""
        trials = {key: partial(trial, setting=self.setting) for key, trial in self.kinds.items()}
        return {
            (*key, seed): run for seed in check_seeds(self.seeds) for key, run in trials.items()
        }

    @property
    def code(self) -> str:
        """The hash of the code that the trials reach."""
        return "-".join(sorted({code_hash(trial) for trial in self.kinds.values()}))


@dataclass(frozen=True)
class Study(_Trials):
    """An experiment that is too long to run live: its trials are stored in data/results.

    name: the name of the files. lesson: the lesson that shows it, as "05".
    trial: what one trial does in a setting. seeds: the trials, fixed beforehand; none was tuned on.
    """

    name: str
    lesson: str
    trial: Trial
    seeds: Sequence[int]
    setting: Setting = MLP

    columns = ("trial",)
    anywhere = False

    @property
    def kinds(self) -> dict[Key, Trial]:
        """The one kind of trial, which needs no name."""
        return {(): self.trial}

    @property
    def origin(self) -> dict[str, str]:
        """What the manifest says of where it belongs."""
        return {"lesson": self.lesson, "setting": self.setting.name}

    @property
    def command(self) -> str:
        """What runs it."""
        return f"make results LESSON={self.lesson}"


@dataclass(frozen=True)
class Benchmark(_Trials):
    """Several attacks on the same trials. Each attack has a trial of its own for every seed.

    name: the name of the files. trials: what one trial of each attack does in a setting. seeds:
    fixed beforehand; none was tuned on. scale: the SCALE of `make benchmark` that runs it.
    anywhere: for GPUs, of which no two give the very same rows. Then a run goes on with other code
        and versions than it was begun with, and each line of the journal names its own.

    The trials run seed by seed, so that an unfinished benchmark has about as many of each attack.
    """

    name: str
    trials: Mapping[str, Trial]
    seeds: Sequence[int]
    scale: str = "laptop"
    setting: Setting = MLP
    anywhere: bool = False

    columns = ("attack", "trial")

    @property
    def kinds(self) -> dict[Key, Trial]:
        """The trials by their attacks. Raises ValueError if there is none."""
        if not self.trials:
            raise ValueError(f"The benchmark {self.name} has no attack: give at least one trial.")
        return {(attack,): trial for attack, trial in self.trials.items()}

    @property
    def origin(self) -> dict[str, str]:
        """What the manifest says of where it belongs."""
        return {"scale": self.scale, "setting": self.setting.name}

    @property
    def command(self) -> str:
        """What runs it."""
        return f"make benchmark SCALE={self.scale}"


def run_study(
    study: Study | Benchmark, jobs: int | None = None, folder: Path = RESULTS
) -> pd.DataFrame:
    """Run a study and store its frame (NAME.csv) with its manifest (NAME.json).

    Every trial that ends is written to a journal (NAME.journal). A run that was cut off goes on
    from there, however it ended; the journal goes when the study is stored. `jobs`: see
    `run_trials`. The rows come in the order of the trials, whichever ended first.
    Raises StudyError if another run of this study is at work, the folder cannot be written, or the
    journal is damaged, or was begun with other code, seeds or versions.
    """
    units, path = study.units, folder / f"{study.name}.journal"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{study.name}.lock", timeout=0):
            header = _header(study)  # with the code that runs, whatever is edited meanwhile
            made_by = _made_by(study) if study.anywhere else {}
            done = {tuple(entry["unit"]): entry for entry in journal.resume(path, header)}
            left = [key for key in units if key not in done]
            tasks = [(units[key], key, study.columns) for key in left]
            for number, result in as_finished(_run_unit, tasks, jobs, before=len(done)):
                entry = {"unit": left[number], **made_by, **result}
                done[left[number]] = journal.append(path, header, entry)
            frame = _store(study, header, [done[key] for key in units], folder)
            path.unlink(missing_ok=True)
    except Timeout as error:
        raise StudyError(
            f"Another run of {study.name} is at work in {folder}: wait for it, or end it first."
        ) from error
    except PermissionError as error:
        raise StudyError(f"{folder} cannot be written: {error}. Nothing was run.") from error
    return frame


def _store(
    study: Study | Benchmark, header: dict, entries: Sequence[dict], folder: Path
) -> pd.DataFrame:
    """Write the frame and the manifest of a study whose trials are all done."""
    frame = pd.DataFrame([row for entry in entries for row in entry["rows"]])
    text = frame.to_csv(index=False, float_format="%.6g", lineterminator="\n")
    made_by = header
    if study.anywhere:
        made_by = {name: _different(entries, name) for name in ("code", "commit", "versions")}
    manifest = {
        "study": study.name,
        **study.origin,
        "seeds": header["seeds"],
        "fixed_trials": fixed_trials.SHA256,
        "columns": list(frame.columns),
        "texts": texts_of(frame),
        "rows": len(frame),
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
        "code": made_by["code"],
        "commit": made_by["commit"],
        "versions": made_by["versions"],
        "machine": "; ".join(sorted({entry["machine"] for entry in entries})),
        "date": time.strftime("%Y-%m-%d"),
        "minutes": round(sum(entry["seconds"] for entry in entries) / 60, 1),
    }
    stem = folder / study.name
    write({stem.with_suffix(".csv"): text, stem.with_suffix(".json"): sealed_manifest(manifest)})
    return frame


def texts_of(frame: pd.DataFrame) -> list[str]:
    """The columns that hold texts. Raises TypeError for one that a CSV could not give back."""
    found = []
    for name, values in frame.items():
        given = values.dropna()
        is_text = given.map(lambda value: isinstance(value, str))
        if not is_text.any():
            continue
        if not is_text.all() or (given == "").any():
            raise TypeError(
                f"The column {name!r} mixes texts with other values, or holds an empty text: "
                "a stored row could not be told from another. Use one kind of value."
            )
        found.append(name)
    return found


def sealed_manifest(manifest: dict) -> str:
    """The text of a manifest, with a checksum of its own: what is edited by hand is found out."""
    plain = {name: value for name, value in manifest.items() if name != "seal"}
    return json.dumps({**plain, "seal": short_hash(json.dumps(plain))}, indent=1) + "\n"


def _run_unit(trial: Trial, key: Key, columns: Sequence[str]) -> dict:
    """The rows of one trial, the machine that it ran on, and its processor seconds."""
    rows, seconds = timed(one_trial, trial, key, columns)
    return {"machine": machine(), "seconds": seconds, "rows": rows}


def _header(study: Study | Benchmark) -> dict:
    """What all the trials of a journal have in common."""
    common = {
        "study": study.name,
        "seeds": [journal.plain(seed) if hasattr(seed, "item") else seed for seed in study.seeds],
    }
    if study.anywhere:
        return {**common, "setting": repr(study.setting)}
    return {**common, "setting": study.setting.name, **_made_by(study)}


def _made_by(study: Study | Benchmark) -> dict:
    """The code and the versions that rows come from."""
    return {
        "code": study.code,
        "commit": commit(),
        "versions": {"python": platform.python_version(), **package_versions()},
    }


def _different(entries: Sequence[dict], name: str) -> list:
    """What the entries of a journal say under this name, each once."""
    found = []
    for entry in entries:
        if entry[name] not in found:
            found.append(entry[name])
    return found


def commit() -> str | None:
    """The commit whose code this is, or None: no git, or code that differs from what it holds."""
    root = Path(__file__).resolve().parents[1]
    try:
        changed = _git(root, "status", "--porcelain", "--", "course_utils")
        return None if changed else _git(root, "rev-parse", "HEAD")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(root: Path, *command: str) -> str:
    run = ["git", "-C", str(root), *command]
    return subprocess.run(run, capture_output=True, check=True, text=True).stdout.strip()


def load_unfinished(study: Study | Benchmark, folder: Path = RESULTS) -> pd.DataFrame:
    """The rows of the trials that a running or interrupted study has finished, to look at.

    Claims need all the trials: see `load_study`. Raises StudyError if there is no journal, or as
    `run_study` does.
    """
    path = folder / f"{study.name}.journal"
    if not path.is_file():
        raise StudyError(f"No unfinished {study.name}: there is no {path}.")
    done = {tuple(entry["unit"]): entry for entry in journal.read(path, _header(study))}
    return pd.DataFrame([row for key in study.units if key in done for row in done[key]["rows"]])


def load_study(study: Study | Benchmark, folder: Path = RESULTS) -> pd.DataFrame:
    """The stored frame of a study, with the texts and kinds of number that `run_study` gave.

    Raises StudyError if it is missing, unfinished, damaged, of other seeds, or its code has changed
    since it was made or verified. Code that was typed into a notebook is not compared: it may hold
    a reader's own solutions.
    """
    manifest = load_manifest(study, folder)
    text = load_text(study, manifest, folder)
    if manifest["study"] != study.name or manifest["seeds"] != list(study.seeds):
        raise StudyError(
            f"The stored study {study.name} has other seeds or another name. Run `{study.command}`."
        )
    trials = [run.func for run in study.units.values()]
    in_a_notebook = any(getattr(trial, "__module__", None) == "__main__" for trial in trials)
    if not in_a_notebook and not study.anywhere and manifest["code"] != study.code:
        raise StudyError(
            f"The code of the stored study {study.name} has changed. If it should give the same "
            f"rows, commit it and run `make verify`; if not, run `{study.command}`."
        )
    texts = dict.fromkeys(manifest["texts"], str)
    empty = {name: [""] for name in manifest["columns"]}
    frame = pd.read_csv(io.StringIO(text), dtype=texts, keep_default_na=False, na_values=empty)
    if list(frame.columns) != manifest["columns"] or len(frame) != manifest["rows"]:
        raise StudyError(
            f"{study.name}.csv has other rows or columns than its manifest says. "
            f"Restore both with `git checkout -- data/results`, or run `{study.command}`."
        )
    return frame


def load_text(study: Study | Benchmark, manifest: dict, folder: Path = RESULTS) -> str:
    """The stored rows as text. Raises StudyError unless they are those that the manifest promises.

    As text, so that line ends changed by git on Windows do not count as damage.
    """
    text = (folder / f"{study.name}.csv").read_text(encoding="utf-8", errors="replace")
    if hashlib.sha256(text.encode()).hexdigest() != manifest["sha256"]:
        raise StudyError(
            f"{study.name}.csv differs from what its manifest promises: it was edited or cut "
            f"short. Restore it with `git checkout -- data/results`, or run `{study.command}`."
        )
    return text


def load_manifest(study: Study | Benchmark, folder: Path = RESULTS) -> dict:
    """The manifest of a stored study.

    Raises StudyError if the study is unfinished, or a file is missing, unreadable or was edited.
    """
    for ending in ("csv", "json"):
        if not (folder / f"{study.name}.{ending}").is_file():
            raise StudyError(_what_is_missing(study, ending, folder))
    try:
        text = (folder / f"{study.name}.json").read_text(encoding="utf-8")
        manifest = json.loads(text)
        if sealed_manifest(manifest) != text:
            raise ValueError("it was edited by hand: only run_study and make verify write it")
        return manifest
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StudyError(
            f"The manifest {study.name}.json cannot be read ({error}). "
            f"Restore it with `git checkout -- data/results`, or run `{study.command}`."
        ) from error


def _what_is_missing(study: Study | Benchmark, ending: str, folder: Path) -> str:
    """Why there is no file with this ending, and what to do."""
    path = folder / f"{study.name}.journal"
    if not path.is_file():
        return f"There is no stored {study.name}.{ending}. Run `{study.command}`."
    done, all_of_them = len(journal.read(path, _header(study))), len(study.units)
    return (
        f"The study {study.name} is not finished: {done} of {all_of_them} trials are done. "
        f"Run `{study.command}` to go on, or look at these with load_unfinished."
    )


def machine() -> str:
    """The processor that numbers were measured on, as far as the system tells, and the GPU."""
    processor = platform.processor() or platform.machine()
    cpu_info = Path("/proc/cpuinfo")
    if cpu_info.is_file():
        for line in cpu_info.read_text().splitlines():
            if line.startswith("model name"):
                processor = line.partition(":")[2].strip()
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{processor}, {os.cpu_count()} cores{gpu}"
