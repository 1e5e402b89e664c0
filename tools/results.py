"""Run studies and store their rows: python -m tools.results [--lesson 05] [--jobs 2].

A study that was cut off goes on where it stopped.
"""

import argparse
import importlib
import pkgutil
import sys
import time

import course_utils.studies
from course_utils.data import DataError
from course_utils.stored import Study, StudyError, commit, run_study


def studies(lesson: str | None = None) -> list[Study]:
    """Every study that a module of course_utils.studies holds, or those of one lesson ("05")."""
    modules = sorted(info.name for info in pkgutil.iter_modules(course_utils.studies.__path__))
    if lesson:
        modules = [name for name in modules if name == f"lesson_{lesson.zfill(2)}"]
    found = []
    for module in modules:
        values = vars(importlib.import_module(f"course_utils.studies.{module}")).values()
        found += [value for value in values if isinstance(value, Study) and value not in found]
    return [study for study in found if not lesson or study.lesson == lesson.zfill(2)]


def job_count(text: str) -> int:
    """The number of trials at the same time. Raises ArgumentTypeError for 0 and for no number."""
    try:
        jobs = int(text)
    except ValueError:
        jobs = 0
    if jobs == 0:
        raise argparse.ArgumentTypeError(
            f"JOBS is {text}: give a whole number, 1 or more, or -1 for one a core."
        )
    return jobs


def warn_of_no_commit() -> None:
    """Say that rows of code without a commit cannot be verified, before hours are spent on them."""
    if commit() is None:
        print(
            "Note: course_utils is not committed as it is, so that `make verify` will have nothing "
            "to compare with these rows when the code changes. To keep the rows, commit first."
        )


def main() -> None:
    """Run the chosen studies one after another."""
    parser = argparse.ArgumentParser(description="Run studies and store their rows.")
    parser.add_argument("--lesson", help="only the studies of this one, like 05")
    parser.add_argument(
        "--jobs", type=job_count, default=-1, help="trials at the same time (default: one a core)"
    )
    options = parser.parse_args()
    chosen = studies(options.lesson)
    if not chosen:
        sys.exit(f"No study for lesson {options.lesson!r} in course_utils/studies/.")
    warn_of_no_commit()
    for study in chosen:
        start = time.perf_counter()
        print(f"lesson {study.lesson}: {study.name} ...", flush=True)
        try:
            rows = len(run_study(study, jobs=options.jobs))
        except (StudyError, DataError) as error:
            sys.exit(str(error))
        print(f"  {rows} rows in {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
