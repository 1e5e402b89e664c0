"""The course in JupyterLab, as `make lab` opens it, in a real browser: make browser."""

import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.sample_lesson import link_environment
from tools.lessons import (
    ROOT,
    code_cells,
    has_tag,
    lesson_files,
    read,
    to_text,
    without_export,
    write,
)

FIRST = lesson_files()[0]
SECONDS = 1000  # Playwright counts milliseconds
IDLE = ".jp-Notebook-ExecutionIndicator[data-status=idle]:visible"
START, RUN = 60 * SECONDS, 300 * SECONDS


@pytest.fixture(scope="module")
def course(tmp_path_factory) -> Path:
    """A copy of what `make lab` and the lessons need."""
    folder = tmp_path_factory.mktemp("course")
    for name in ("Makefile", "requirements.txt", "pyproject.toml"):
        shutil.copy2(ROOT / name, folder)
    hidden = shutil.ignore_patterns(".*", "__pycache__")
    for name in ("notebooks", "tools", "course_utils", "data"):
        shutil.copytree(ROOT / name, folder / name, ignore=hidden)
    link_environment(folder)
    return folder


@pytest.fixture(scope="module")
def address(course) -> Iterator[str]:
    """The address of a JupyterLab that `make lab` started in the copy."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    options = f"--no-browser --allow-root --ServerApp.port={port} --IdentityProvider.token=test"
    command = ["make", "lab", f"LAB_ARGS={options}"]
    places = {"JUPYTERLAB_WORKSPACES_DIR": str(course / "workspaces"), "PYTHONPATH": str(course)}
    own = os.environ | places
    with open(course / "lab.log", "w") as log:
        server = subprocess.Popen(
            command, cwd=course, env=own, stdout=log, stderr=log, process_group=0
        )
    address = f"http://localhost:{port}"
    try:
        wait_until_ready(f"{address}/api/status?token=test", server)
        yield address
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=30)


def wait_until_ready(address: str, server: subprocess.Popen) -> None:
    """Wait until the server answers, for a minute at most."""
    for _ in range(60):
        assert server.poll() is None, "make lab ended: see lab.log in pytest's folder"
        try:
            urllib.request.urlopen(address).close()
        except OSError:
            time.sleep(1)
        else:
            return
    raise TimeoutError("make lab did not start within a minute")


@pytest.fixture(scope="module")
def page(browser: Browser, address: str) -> Iterator[Page]:
    """A page in that JupyterLab. The tests fail when the page's program fails."""
    page = browser.new_page(viewport={"width": 1300, "height": 1000})
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    page.close()
    assert errors == []


def solve(path: Path) -> None:
    """Write the exercises of a learner's copy of the first lesson."""
    nb = read(path)
    for cell, solved in zip(nb.cells, read(FIRST).cells, strict=True):
        if has_tag(cell, "exercise"):
            cell.source = without_export(solved.source)
    write(path, to_text(nb))


def test_a_learners_copy_runs_shows_its_figure_and_keeps_progress(
    page, address, course, screenshot
):
    lesson = course / "my_work" / FIRST.name
    solve(lesson)
    page.goto(f"{address}/lab/tree/my_work/{FIRST.name}?token=test")
    page.locator(".jp-Notebook h1").wait_for(timeout=START)
    page.locator(IDLE).first.wait_for(timeout=START)
    assert page.locator(".jp-RenderedImage img").count() == 0
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    cells = len(code_cells(read(lesson)))
    done = page.locator(".jp-InputPrompt", has_text=f"[{cells}]:")
    done.wait_for(state="attached", timeout=RUN)
    page.locator(IDLE).first.wait_for(timeout=RUN)
    figure = page.locator(".jp-RenderedImage img").first
    figure.scroll_into_view_if_needed()
    expect(figure).to_be_in_viewport()
    assert figure.evaluate("image => image.naturalWidth") > 300
    screenshot(page)
    with page.expect_response(lambda r: r.request.method == "PUT" and FIRST.name in r.url):
        page.keyboard.press("Control+s")
    outputs = [output for cell in code_cells(read(lesson)) for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert [output for output in outputs if output.output_type == "error"] == []
    noted = (course / "my_work" / "progress.jsonl").read_text(encoding="utf-8")
    assert noted.count('"passed": true') == noted.count("\n") == 2


def test_a_solution_of_a_complete_lesson_unfolds(page, address, screenshot):
    page.goto(f"{address}/lab/tree/notebooks/{FIRST.name}?token=test")
    lesson = page.locator(".jp-NotebookPanel:visible")
    lesson.locator("h1:visible").wait_for(timeout=START)
    page.locator(IDLE).first.wait_for(timeout=START)
    exercise = lesson.locator("h3", has_text="Exercise 1")
    exercise.wait_for(state="attached", timeout=START)
    exercise.evaluate("heading => heading.scrollIntoView()")
    solution = lesson.get_by_text("def stamp(")
    assert not solution.is_visible()
    lesson.locator(".jp-InputPlaceholder", has_text="first_backdoor").first.click()
    solution.wait_for()
    screenshot(page)


def test_another_copy_opens_unwritten(page, address, screenshot):
    page.goto(f"{address}/lab/tree/my_work/{lesson_files()[1].name}?token=test")
    note = page.locator("blockquote:visible", has_text="This is the workshop copy.")
    note.wait_for(timeout=START)
    page.locator(IDLE).first.wait_for(timeout=START)
    page.get_by_text("raise NotImplementedError").first.wait_for(state="attached")
    screenshot(page)
