"""Which exercises you have done, and what comes next: python -m tools.progress.

The same as course_utils.progress() in a notebook, as text. Nothing is executed.
"""

import sys
import textwrap
from pathlib import Path

import pandas as pd

from course_utils import overview, record

INDENT = " " * 32


def report(frame: pd.DataFrame) -> list[str]:
    """The lines of the table: a lesson that nobody touched takes one, an exercise one or more."""
    lines = []
    for lesson, part in frame.groupby("lesson", sort=False):
        if part.state.eq("untouched").all():
            lines.append(f"{lesson}: {len(part)} exercises, untouched")
            continue
        lines.append(lesson)
        for row in part.itertuples():
            lines.append(f"  {row.state:16}  {row.date:10}  {row.exercise} ({row.function})")
            lines += textwrap.wrap(row.note, 100, initial_indent=INDENT, subsequent_indent=INDENT)
    return lines


def main() -> None:
    """Print the table, and what to do next."""
    path: Path = record.progress_file()
    try:
        print(*report(overview.table(path)), "", *overview.notices(path), sep="\n")
    except (OSError, ValueError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
