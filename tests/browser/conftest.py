"""A real browser for these tests, or a clear message where there is none: make browser."""

import shutil
from collections.abc import Iterator

import pytest

from tools.lessons import ROOT

sync_api = pytest.importorskip("playwright.sync_api", reason="run make browser")
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


@pytest.fixture(scope="session")
def browser() -> Iterator[sync_api.Browser]:
    """The Chromium or Chrome of this machine."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if not program:
        pytest.skip("there is no Chromium here; on Debian and Ubuntu: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=OPTIONS)
        yield started
        started.close()


@pytest.fixture
def screenshot(request: pytest.FixtureRequest):
    """Save a picture of a page in .screenshots/, named after the test."""
    folder = ROOT / ".screenshots"
    folder.mkdir(exist_ok=True)
    name = "".join(c if c.isalnum() else "_" for c in request.node.name)
    return lambda page, **options: page.screenshot(path=folder / f"{name}.png", **options)
