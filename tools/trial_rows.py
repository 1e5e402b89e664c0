"""Run the first trials of studies and write their rows: what `make verify` runs in both trees.

This one file runs in the tree that it is started in, which may be older than it: it asks for
nothing that a tree of the course has not always had. Arguments: a file to write to, how many
trials, the size, and the names of the studies. Sizes: "tiny", a tenth of the setting; "short", the
whole setting, but every epoch of a training ends after eight batches; "full".
"""

import dataclasses
import importlib
import itertools
import json
import pkgutil
import sys
import time
import traceback
from collections.abc import Iterator

import course_utils.studies
from course_utils import training
from course_utils.stored import Benchmark, Study
from course_utils.trials import one_trial


def all_studies() -> dict[str, Study | Benchmark]:
    """The studies of this tree by name. A broken module hides no other."""
    found = {}
    for module in pkgutil.iter_modules(course_utils.studies.__path__):
        try:
            values = vars(importlib.import_module(f"course_utils.studies.{module.name}")).values()
        except ImportError:
            traceback.print_exc()
            continue
        found |= {value.name: value for value in values if isinstance(value, Study | Benchmark)}
    return found


def shortened(study: Study | Benchmark, trials: int, size: str) -> Study | Benchmark:
    """The first trials of a study, in a tenth of its setting or in the whole of it."""
    fields = {"seeds": list(study.seeds)[:trials]}
    if size == "tiny":
        fields["setting"] = study.setting.tiny
    return dataclasses.replace(study, **fields)


def end_epochs_early(most: int = 8) -> None:
    """Let every epoch of `train` end after its first batches, for trees that know no settings."""
    whole = training.batch_rows

    def first_batches(*given: object) -> Iterator:
        yield from itertools.islice(whole(*given), most)

    training.batch_rows = first_batches


def rows_of(study: Study | Benchmark) -> dict:
    """The rows of all trials and their processor seconds, or the error that ended them."""
    begin = time.process_time()
    try:
        units = study.units.items()
        rows = [row for key, run in units for row in one_trial(run, key, study.columns)]
        found = {"rows": json.loads(json.dumps(rows, default=lambda number: number.item()))}
    except Exception:
        found = {"error": traceback.format_exc()}
    return {**found, "seconds": time.process_time() - begin}


def main() -> None:
    """Write one line for each study, as soon as it is done."""
    path, trials, size, *names = sys.argv[1:]
    known = all_studies()
    codes = {name: known[name].code for name in names if name in known}
    if size == "short":
        end_epochs_early()  # after the hashes: those of old trees depend on it
    with open(path, "a", encoding="utf-8") as file:
        for name in names:
            found = {"error": f"There is no study {name} in this tree."}
            if name in known:
                found = rows_of(shortened(known[name], int(trials), size))
                found["code"] = codes[name]
            file.write(json.dumps({"study": name, **found}) + "\n")
            file.flush()


if __name__ == "__main__":
    main()
