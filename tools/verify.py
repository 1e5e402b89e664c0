"""Say whether changed code still gives the rows of the stored studies: python -m tools.verify.

A study whose hash changed is due only if its rows would change. The commit that its manifest names
is checked out beside; the study's first trials run there and here, now, on this machine, in a tenth
of their size, and are compared bit for bit. Where they agree the manifest takes the new hash, and
says how it was verified. An unfinished journal is carried over in the same way. Where they differ
the study is due, and its manifest stays as it is.
"""

import argparse
import contextlib
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from course_utils import fixed_trials, journal, stored
from course_utils.stored import RESULTS, Benchmark, Study, StudyError
from tools.benchmark import STORED, benchmark
from tools.lessons import ROOT
from tools.results import studies

TRIALS = 2
CLOCKS = ("seconds", "crafting", "crafting_seconds")  # what no two runs have in common
SCRIPT = Path(__file__).with_name("trial_rows.py")


@dataclass(frozen=True)
class Record:
    """A file that stands on a study's code: its manifest, or the journal of an unfinished run."""

    study: Study | Benchmark
    path: Path
    found: dict
    code: str  # as it is when the trials start, whatever is edited while they run

    @property
    def old(self) -> str:
        """The commit whose code made or last verified the rows."""
        return self.found["commit"]


def records(chosen: Sequence[Study | Benchmark], everything: bool, folder: Path) -> list[Record]:
    """The manifests and journals whose code has changed, or all of them."""
    found = []
    for study in chosen:
        manifest, begun = folder / f"{study.name}.json", folder / f"{study.name}.journal"
        if manifest.is_file():
            found.append(Record(study, manifest, stored.load_manifest(study, folder), study.code))
        if begun.is_file():
            first = journal.unseal(begun.read_bytes().split(b"\n")[0])
            found.append(Record(study, begun, first, study.code))
    return [one for one in found if everything or one.found["code"] != one.code]


@contextlib.contextmanager
def checked_out(commit: str, root: Path = ROOT) -> Iterator[Path]:
    """The tree of a commit, in a folder that goes again. Raises StudyError if git has it not."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        add = ["git", "-C", str(root), "worktree", "add", "--detach", str(tree), commit]
        done = subprocess.run(add, capture_output=True, text=True)
        if done.returncode:
            raise StudyError(
                f"The commit {commit} that made the rows is not here ({done.stderr.strip()}): "
                "fetch the whole history (`git fetch --unshallow`), or run the study again."
            )
        try:
            yield tree
        finally:
            remove = ["git", "-C", str(root), "worktree", "remove", "--force", str(tree)]
            subprocess.run(remove, capture_output=True)


def start(tree: Path, names: Sequence[str], size: str, trials: int, path: Path) -> subprocess.Popen:
    """Start the trials of these studies in a tree; the rows come into the file."""
    command = [sys.executable, str(SCRIPT), str(path), str(trials), size, *names]
    environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=tree, env=environment)


def run_both(
    old: Path, new: Path, names: Sequence[str], size: str, trials: int, jobs: int
) -> tuple[dict, dict]:
    """What the trials of these studies give in the old and in the new tree, by study."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in ("old", "new")]
        running = []
        for tree, path in zip((old, new), paths, strict=True):
            running.append(start(tree, names, size, trials, path))
            if jobs == 1:
                running[-1].wait()
        for process in running:
            if process.wait():
                raise StudyError("The trials could not be run: see the error above.")
        lines = ([json.loads(line) for line in path.read_text().splitlines()] for path in paths)
        old_rows, new_rows = ({line["study"]: line for line in found} for found in lines)
    return old_rows, new_rows


def difference(old: dict, new: dict, code: str) -> str | None:
    """How the rows of two trees differ, or None if they are the same, bit for bit."""
    for name, found in (("old", old), ("new", new)):
        if "error" in found:
            return f"the {name} code fails: {found['error'].strip().splitlines()[-1]}"
    if old["code"] != code:
        return "the commit that is named does not hold the code that made the rows"
    if not new["rows"]:
        return "no row was compared"
    if len(old["rows"]) != len(new["rows"]):
        return f"{len(old['rows'])} rows were made, now {len(new['rows'])}"
    changed = []
    # In which order a trial gives its rows does not matter: each is known by its texts.
    ordered = (sorted(found["rows"], key=labels) for found in (old, new))
    for before, now in zip(*ordered, strict=True):
        if list(before) != list(now):
            return f"the columns were {', '.join(before)}, now {', '.join(now)}"
        changed += [
            (name, before[name], now[name])
            for name in before
            if name not in CLOCKS and json.dumps(before[name]) != json.dumps(now[name])
        ]
    if not changed:
        return None
    columns = sorted({name for name, *_ in changed})
    name, before, now = changed[0]
    return (
        f"{len(changed)} values of {len(columns)} columns ({', '.join(columns)}) differ; "
        f"the first is {name}: {before!r}, now {now!r}"
    )


def labels(row: dict) -> list[tuple[str, str]]:
    """The texts of a row: who attacked whom. Rows with the same texts keep their order."""
    return [(name, value) for name, value in row.items() if isinstance(value, str)]


def carry(record: Record, old: dict, new: dict, size: str, head: str) -> str | None:
    """Give a manifest or journal the new hash if the rows agree; if not, say how they differ.

    Nothing else in the project writes a hash beside rows that it did not make. An attack that a
    benchmark no longer has is not compared, and its stored rows go.
    """
    if isinstance(record.study, Benchmark):
        left = [row for row in old.get("rows", []) if row["attack"] in record.study.trials]
        old = old | {"rows": left}
    found = difference(old, new, record.found["code"])
    if found is None and new["code"] != record.code:
        found = "the code was edited while its trials ran"
    if found is not None:
        return found
    how = {
        "old": record.old,
        "date": time.strftime("%Y-%m-%d"),
        "trials": len({str(row["trial"]) for row in new["rows"]}),
        "size": size,
    }
    changed = {"code": record.code, "commit": head}
    known = record.found | changed | {"verified": [*record.found.get("verified", []), how]}
    if record.path.suffix == ".journal":
        journal.carry_over(record.path, known)
        return None
    known["fixed_trials"] = fixed_trials.SHA256
    files = {}
    if isinstance(record.study, Benchmark):
        text = left_rows(record)
        known |= {"rows": text.count("\n") - 1, "sha256": hashlib.sha256(text.encode()).hexdigest()}
        files = {record.path.with_suffix(".csv"): text}
    journal.write(files | {record.path: stored.sealed_manifest(known)})
    return None


def left_rows(record: Record) -> str:
    """The stored rows of the attacks that a benchmark still has, as text.

    The lines that stay are not written anew: no number of theirs is read and rounded again. Raises
    StudyError if the rows are not those that the manifest promises.
    """
    text = stored.load_text(record.study, record.found, record.path.parent)
    head, *lines = text.splitlines(keepends=True)
    return head + "".join(line for line in lines if line.split(",")[0] in record.study.trials)


def verify(group: Sequence[Record], head: str, jobs: int, size: str, trials: int) -> list[str]:
    """Verify the records of one commit; the lines that say what is due."""
    names = list(dict.fromkeys(record.study.name for record in group))
    due = []
    with checked_out(group[0].old) as tree:
        if size == "tiny" and not (tree / "course_utils/settings.py").is_file():
            size = "short"  # the old code knows no settings
        old, new = run_both(tree, ROOT, names, size, trials, jobs)
    for record in group:
        name = record.study.name
        found = carry(record, old[name], new[name], size, head)
        seconds = new[name]["seconds"]
        print(f"  {record.path.name}: {found or 'the same rows'} ({seconds:.0f} s)", flush=True)
        if found:
            due.append(f"{name} is due: {found}. Run `{record.study.command}`.")
    return due


def main() -> None:
    """Verify what changed, one commit after another."""
    parser = argparse.ArgumentParser(description="Do the stored studies still hold?")
    parser.add_argument("--lesson", help="only the studies of this one, like 05")
    parser.add_argument("--study", help="only this one")
    parser.add_argument("--all", action="store_true", help="also where the code has not changed")
    parser.add_argument("--full", action="store_true", help="whole trials, not a tenth of them")
    parser.add_argument("--trials", type=int, default=TRIALS)
    parser.add_argument("--jobs", type=int, default=2, help="2: old and new at the same time")
    options = parser.parse_args()
    chosen = studies(options.lesson)
    if not options.lesson or options.lesson.zfill(2) == "16":
        chosen += map(benchmark, STORED)
    chosen = [one for one in chosen if options.study in (None, one.name)]
    head = stored.commit()
    if head is None:
        sys.exit("Commit course_utils first: the manifests will name the commit.")
    try:
        found = records(chosen, options.all, RESULTS)
        groups = {}
        for record in found:
            if record.old is None:
                sys.exit(
                    f"{record.study.name} was made by code that was never committed, so there is "
                    f"nothing to compare with: run `{record.study.command}`."
                )
            groups.setdefault(record.old, []).append(record)
        print(f"{len(found)} of the stored studies to look at.", flush=True)
        size, due = "full" if options.full else "tiny", []
        for group in groups.values():
            due += verify(group, head, options.jobs, size, options.trials)
    except (StudyError, ValueError, KeyError) as error:
        sys.exit(str(error))
    sys.exit("\n".join(due) or None)


if __name__ == "__main__":
    main()
