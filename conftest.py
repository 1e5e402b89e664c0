"""How pytest runs the lessons: one failing cell skips the rest, and their seconds are reported."""

from collections import Counter

import pytest

collect_ignore = ["notebooks/workshop", "my_work"]  # their exercises are not written yet
FIRST_FAILURE = pytest.StashKey[str]()


def is_notebook_cell(item: pytest.Item) -> bool:
    """Whether nbval made this item. It has no public class to ask for."""
    return type(item).__name__ == "IPyNbCell"


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip the cells after a failed one: they would only repeat its error."""
    if is_notebook_cell(item) and FIRST_FAILURE in item.parent.stash:
        pytest.skip(f"{item.parent.stash[FIRST_FAILURE]} of this notebook failed")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo):
    """Remember the first cell of a notebook that failed."""
    report = yield
    if is_notebook_cell(item) and report.failed:
        item.parent.stash.setdefault(FIRST_FAILURE, item.name)
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the seconds of each lesson, the start of its kernel included."""
    seconds = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            notebook = getattr(report, "nodeid", "").partition("::")[0]
            if notebook.endswith(".ipynb"):
                seconds[notebook] += getattr(report, "duration", 0.0)
    if seconds:
        terminalreporter.section("seconds per lesson")
        for notebook in sorted(seconds):
            terminalreporter.write_line(f"{seconds[notebook]:7.1f}  {notebook}")
