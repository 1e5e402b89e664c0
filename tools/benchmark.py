"""Run every attack against every defense: python -m tools.benchmark [--scale paper] [--jobs 2].

A run that was cut off goes on where it stopped.
"""

import argparse
import importlib
import sys
import time

from course_utils.data import DataError
from course_utils.stored import Benchmark, StudyError, run_study
from tools.results import job_count, warn_of_no_commit

PAPER = "course_utils.paper_scale"
PLACES = {
    "laptop": ("course_utils.studies.lesson_16", "BENCHMARK"),
    "controls": ("course_utils.studies.lesson_16", "CURVES"),
    "paper": (PAPER, "BENCHMARK"),
    "paper_knowing": (PAPER, "KNOWING"),
    "paper_resnet18": (PAPER, "ON_RESNET18"),
}
STORED = ("laptop", "controls")  # those whose rows lesson 16 shows


def benchmark(scale: str) -> Benchmark:
    """The benchmark of a scale."""
    module, name = PLACES[scale]
    return getattr(importlib.import_module(module), name)


def main() -> None:
    """Run the benchmark of the chosen scale."""
    parser = argparse.ArgumentParser(description="Run every attack against every defense.")
    parser.add_argument("--scale", choices=list(PLACES), default="laptop")
    parser.add_argument(
        "--jobs",
        type=job_count,
        help="trials at the same time (default: one a core; on a GPU: one)",
    )
    options = parser.parse_args()
    start = time.perf_counter()
    try:
        chosen = benchmark(options.scale)
        attacks = ", ".join(chosen.trials)
        print(f"{chosen.name}: {len(chosen.seeds)} trials each of {attacks} ...", flush=True)
        warn_of_no_commit()
        rows = len(run_study(chosen, jobs=options.jobs or (1 if chosen.anywhere else -1)))
    except (StudyError, DataError) as error:
        sys.exit(str(error))
    print(f"  {rows} rows in {(time.perf_counter() - start) / 60:.0f} minutes")


if __name__ == "__main__":
    main()
