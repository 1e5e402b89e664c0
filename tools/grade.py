"""Grade reports on the incident: python -m tools.grade CASES KEY REPORTS.json [...].

CASES is the folder of a set, KEY its file of answers. For each file of reports a page is written
beside it, in Markdown, and its total is printed. Up to half a minute a case.
"""

import argparse
from pathlib import Path

from tqdm.auto import tqdm

from course_utils import incident


def main(arguments: list[str] | None = None) -> None:
    """Grade the chosen files; a report that cannot be scored is named and left out."""
    parser = argparse.ArgumentParser(description="Grade reports on the incident.")
    parser.add_argument("cases", type=Path, help="folder of the set")
    parser.add_argument("key", type=Path, help="file of its answers")
    parser.add_argument("reports", type=Path, nargs="+", help="files that learners handed in")
    given = parser.parse_args(arguments)
    for path in given.reports:
        reports, scores = incident.from_json(path.read_text(encoding="utf-8")), []
        for report in tqdm(reports, desc=path.stem, leave=False):
            try:
                scores.append(incident.score(report, given.cases, given.key))
            except incident.IncidentError as error:
                print(f"{path.stem}: not scored: {error}")
        page = incident.summary(reports, scores, path.stem, given.cases)
        path.with_suffix(".md").write_text(page, encoding="utf-8")
        print(f"{path.stem}: {incident.total(scores, given.cases):.1f} of 100")


if __name__ == "__main__":
    main()
