"""Every page of the reading edition, opened as a file on a phone: make browser."""

import io
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from PIL import Image, ImageStat
from playwright.sync_api import Browser, Locator, Page

from tools.lessons import ROOT, lesson_files

SITE = ROOT / "site"
APART = ("index.html", "search.html")  # they have tests of their own
PAGES = [page for page in sorted(SITE.rglob("*.html")) if page.name not in APART]
PHONE = {"width": 390, "height": 844}
LESSON = SITE / "notebooks" / f"{lesson_files()[0].stem}.html"


@pytest.fixture
def phone(browser: Browser) -> Iterator[Page]:
    """A page of a phone's width. The test fails when the page reports an error or needs a net."""
    page = browser.new_page(viewport=PHONE)
    errors = []
    page.on("console", lambda message: message.type == "error" and errors.append(message.text))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("requestfailed", lambda request: errors.append(f"not loaded: {request.url}"))
    page.on("request", lambda r: r.url.startswith("http") and errors.append(f"net: {r.url}"))
    yield page
    page.close()
    assert errors == []


def open_page(page: Page, file: Path, query: str = "") -> None:
    """Open a file of the site and wait until its formulas are set."""
    page.goto(f"{file.as_uri()}{query}")
    page.evaluate("window.MathJax?.startup?.promise")


def test_every_lesson_has_a_page():
    assert {path.stem for path in lesson_files()} <= {page.stem for page in PAGES}


def test_the_first_page_is_the_readme(phone):
    phone.goto((SITE / "index.html").as_uri())
    phone.wait_for_url("**/README.html")


@pytest.mark.parametrize("file", PAGES, ids=lambda file: file.stem)
def test_page(phone, file, screenshot):
    open_page(phone, file)
    screenshot(phone, full_page=True)
    assert phone.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    assert [link for link in links(phone) if not leads_somewhere(link)] == []
    undescribed = "all => all.filter(i => !i.alt.trim() || !i.naturalWidth).map(i => i.src)"
    assert phone.eval_on_selector_all("img", undescribed) == []
    levels = phone.eval_on_selector_all(
        "article :is(h1,h2,h3,h4,h5,h6)", "all => all.map(h => +h.tagName[1])"
    )
    assert levels.count(1) == 1 and levels[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    formulas = phone.locator("article .math").count()
    assert phone.locator("mjx-container[jax=SVG]").count() == formulas
    assert phone.locator("mjx-container [data-mjx-error]").count() == 0


def links(page: Page) -> list[str]:
    """The addresses of all links to files."""
    found = page.eval_on_selector_all("a[href]", "all => all.map(a => a.href)")
    return sorted({link for link in found if link.startswith("file:")})


def leads_somewhere(link: str) -> bool:
    """Whether the file is there, and in it the place that the link names."""
    parts = urlsplit(link)
    file = Path(unquote(parts.path))
    if not file.is_file() or SITE not in file.parents:
        return False
    place = re.escape(unquote(parts.fragment))
    return not place or bool(re.search(rf'id="{place}"', file.read_text(encoding="utf-8")))


def test_a_hint_unfolds(phone):
    open_page(phone, LESSON)
    hint = phone.locator("article details:has(summary:text-is('Hint'))").first
    unfold(hint.locator("summary"), hint.locator("p").first)


def unfold(handle: Locator, hidden: Locator) -> None:
    """Click, and what was hidden is to be seen."""
    assert not hidden.is_visible()
    handle.click()
    assert hidden.is_visible()


def test_a_solution_unfolds(phone):
    open_page(phone, LESSON)
    cell = phone.locator("article .tag_exercise").first
    solution = cell.locator("pre").first
    unfold(cell.get_by_text("Show the solution"), solution)
    assert "def " in solution.inner_text()


@pytest.mark.parametrize("system", ["light", "dark"])
def test_a_drawing_follows_the_theme(browser, system):
    page = browser.new_page(color_scheme=system)
    open_page(page, LESSON)
    drawing = page.locator("article img[src$='.svg']").first
    lightness = {}
    for _ in ("auto", "light", "dark"):
        page.locator(".theme-toggle:visible").first.click()
        page.wait_for_timeout(500)  # the page fades from one theme to the next
        theme = page.evaluate("document.body.dataset.theme")
        lightness[theme] = png_mean(drawing.screenshot())
    page.close()
    assert lightness["dark"] < 100 < 200 < lightness["light"]
    assert lightness["auto"] == pytest.approx(lightness[system], abs=5)


def png_mean(picture: bytes) -> float:
    """The mean gray value of a picture, from 0 to 255."""
    return ImageStat.Stat(Image.open(io.BytesIO(picture)).convert("L")).mean[0]


def test_search_works_from_the_file_system(phone, screenshot):
    open_page(phone, SITE / "search.html", "?q=backdoor")
    result = phone.locator(f"#search-results a[href*='{LESSON.stem}']").first
    result.wait_for()
    screenshot(phone)
    result.click()
    phone.wait_for_url(f"**/{LESSON.stem}.html*")
    phone.locator("article .highlighted").first.wait_for()


def test_a_broken_link_is_seen(tmp_path):
    assert leads_somewhere(LESSON.as_uri())
    assert not leads_somewhere(LESSON.as_uri() + "#nowhere")
    assert not leads_somewhere((SITE / "nowhere.html").as_uri())
    assert not leads_somewhere((ROOT / "README.md").as_uri())
