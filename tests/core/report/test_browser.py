"""Clicks through a report in a real browser; `pip install mmrec-bench[browser]` and a Chromium."""

import importlib.util
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from tests.core.report.toys import HOSTILE, N_USERS

pytestmark = pytest.mark.slow

Page: TypeAlias = Any
"""Playwright's types are not there where it is not installed."""

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_SIZES = {"desktop": (1280, 900), "phone": (390, 844)}


def _browser_path() -> str | None:
    return os.environ.get("MMREC_TEST_BROWSER") or next(
        filter(None, map(shutil.which, _NAMES)), None
    )


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = _browser_path()
    if path is None:
        pytest.skip(f"no browser: none of {', '.join(_NAMES)}; set MMREC_TEST_BROWSER")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with playwright.sync_playwright() as started:
        found = started.chromium.launch(executable_path=path, args=flags)
        yield found
        found.close()


@pytest.fixture(scope="module")
def axe() -> str:
    found = importlib.util.find_spec("axe_playwright_python")
    if found is None or found.origin is None:
        pytest.skip("axe-playwright-python is not installed")
    return (Path(found.origin).parent / "axe.min.js").read_text(encoding="utf-8")


class Visit:
    """A page, and everything that went wrong on it."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.wrong: list[str] = []
        page.on("console", lambda m: self.wrong.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        page.on("dialog", lambda dialog: self.wrong.append(f"dialog {dialog.message}"))
        page.on("request", self._asked)

    def _asked(self, request: Page) -> None:
        if not request.url.startswith("file://"):
            self.wrong.append(f"asked {request.url}")

    def until(self, condition: str) -> None:
        """Wait for an expression; Playwright's own way needs eval, which the page forbids."""
        deadline = time.monotonic() + 10
        while not self.page.evaluate(condition):
            assert time.monotonic() < deadline, f"{condition} did not come true"
            time.sleep(0.02)

    def order(self, col: str) -> list[str]:
        cells: list[str] = self.page.eval_on_selector_all(
            f"tbody tr:not([hidden]) [data-col='{col}']", "all => all.map(one => one.dataset.v)"
        )
        return cells


@pytest.fixture
def visit(browser: Page, site: Path) -> Iterator[Callable[..., Visit]]:
    opened: list[tuple[Any, Visit]] = []

    def go(name: str, size: str = "desktop", scheme: str = "light") -> Visit:
        width, height = _SIZES[size]
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme
        )
        found = Visit(context.new_page())
        opened.append((context, found))
        found.page.goto(next(site.glob(name)).as_uri())
        if "cases" in name:
            found.page.wait_for_selector(".list tbody tr")
            found.until("performance.getEntriesByName('mmrec-titles').length > 0")
        return found

    yield go
    for context, one in opened:
        context.close()
        assert one.wrong == []


def test_a_heading_sorts_its_table_and_says_so(visit: Callable[..., Visit]) -> None:
    one = visit("index.html")
    button = one.page.get_by_role("button", name="ndcg@5")
    button.click()
    heading = one.page.locator("th[data-col='m:ndcg@5']")
    assert heading.get_attribute("aria-sort") == "descending"
    down = one.order("m:ndcg@5")
    assert down == sorted(down, key=float, reverse=True)
    button.press("Enter")
    assert heading.get_attribute("aria-sort") == "ascending"
    assert one.order("m:ndcg@5") == down[::-1]
    one.page.get_by_role("button", name="model", exact=True).click()
    assert one.order("label") == sorted(one.order("label"))
    assert one.page.locator("th[aria-sort]").count() == 1


def test_rows_are_found_and_counted(visit: Callable[..., Visit]) -> None:
    one = visit("index.html")
    count = one.page.locator("#count")
    assert count.inner_text() == "2 rows"
    one.page.get_by_label("Find a model").fill("POPU")
    assert one.order("label") == ["popularity"]
    assert count.inner_text() == "1 of 2 rows"
    one.page.get_by_label("Find a model").fill("nobody")
    assert one.page.locator("#none").is_visible()
    one.page.get_by_label("Find a model").fill("")
    one.page.get_by_label("Data set").select_option("toy")
    assert count.inner_text() == "2 rows"


def test_columns_are_chosen_and_kept(visit: Callable[..., Visit]) -> None:
    one = visit("index.html")
    memory = one.page.locator("th[data-col='f:peak_memory_bytes']")
    assert not memory.is_visible()
    one.page.locator("details.menu summary").click()
    one.page.get_by_label("memory").check()
    one.page.get_by_label("hit_rate@1").uncheck()
    one.page.keyboard.press("Escape")
    assert memory.is_visible()
    assert not one.page.locator("th[data-col='m:hit_rate@1']").is_visible()
    one.page.reload()
    assert memory.is_visible()
    one.page.locator("details.menu summary").click()
    one.page.get_by_role("button", name="As at first").click()
    assert not memory.is_visible()


def test_the_theme_can_be_chosen_and_is_kept(visit: Callable[..., Visit]) -> None:
    one = visit("index.html", scheme="light")
    colour = "getComputedStyle(document.body).backgroundColor"
    light = one.page.evaluate(colour)
    button = one.page.locator("#theme")
    button.click()
    assert (button.inner_text(), one.page.evaluate(colour)) == ("Theme: light", light)
    button.click()
    assert one.page.evaluate(colour) != light
    one.page.reload()
    assert one.page.evaluate(colour) != light
    assert button.inner_text() == "Theme: dark"


def test_the_first_stop_of_the_keyboard_skips_to_the_content(visit: Callable[..., Visit]) -> None:
    one = visit("index.html")
    one.page.keyboard.press("Tab")
    assert one.page.evaluate("document.activeElement.textContent") == "Skip to the content"
    one.page.keyboard.press("Enter")
    assert one.page.evaluate("document.activeElement.id") == "main"


def test_figures_are_of_the_metric_chosen(visit: Callable[..., Visit]) -> None:
    one = visit("toy-????????.html")
    shown = one.page.locator(".metric:not([hidden]) svg.plot").first
    assert "ndcg@5" in str(shown.get_attribute("aria-label"))
    one.page.get_by_label("of metric").select_option(label="hit_rate@1")
    assert "hit_rate@1" in str(shown.get_attribute("aria-label"))


def test_cases_are_searched_filtered_and_sorted(visit: Callable[..., Visit]) -> None:
    one = visit("*-cases.html")
    count = one.page.locator("output")
    assert count.inner_text() == f"{N_USERS} cases"
    one.page.get_by_label("Search").fill("u7")
    one.until("document.querySelector('output').textContent.startsWith('1 of')")
    assert one.page.locator(".list td.user").all_inner_texts() == ["u7"]
    one.page.get_by_label("Search").fill("")
    one.until("!document.querySelector('output').textContent.includes('of')")
    parts = 0
    for choice in ("all runs right", "all runs wrong", "runs disagree"):
        one.page.get_by_label("Show").select_option(label=choice)
        parts += one.page.locator(".list tbody tr").count()
    assert parts == N_USERS
    one.page.get_by_label("Show").select_option(label="all cases")
    one.page.get_by_label("Sort").select_option(label="largest spread of ranks")
    spread = [float(v) for v in one.page.locator(".list td:last-child").all_inner_texts()]
    assert spread == sorted(spread, reverse=True)
    assert spread[0] > spread[-1]


def test_a_case_opens_by_mouse_keyboard_and_address(visit: Callable[..., Visit]) -> None:
    one = visit("*-cases.html")
    one.page.locator(".list button").nth(2).press("Enter")
    title = one.page.locator(".detail h2")
    title.wait_for()
    assert title.inner_text().startswith("Case 3,")
    assert one.page.evaluate("document.activeElement.tagName") == "H2"
    assert one.page.locator(".matrix tbody tr").count() == 5
    assert one.page.locator(".matrix tr.target").count() == 1
    one.page.get_by_role("button", name="Next", exact=True).click()
    one.until("location.hash === '#case=4'")
    one.page.reload()
    title.wait_for()
    assert title.inner_text().startswith("Case 4,")
    one.page.get_by_role("button", name="Back to the list").click()
    assert one.page.evaluate("document.activeElement.textContent") == "4"


def test_a_hostile_title_is_shown_as_it_is_written(visit: Callable[..., Visit]) -> None:
    one = visit("*-cases.html")
    one.page.get_by_label("Search").fill('document.title="owned"')
    one.until("document.querySelector('output').textContent.includes(' of ')")
    assert one.page.locator(".list tbody tr").count() > 0
    one.page.locator(".list button").first.click()
    target = one.page.locator(".matrix tr.target .any")
    target.wait_for()
    assert target.inner_text().strip() == HOSTILE.strip()
    assert one.page.title().startswith("Cases of toy")
    assert one.page.locator("img[src=x]").count() == 0
    assert one.page.locator("body script").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", list(_SIZES))
@pytest.mark.parametrize("name", ["index.html", "toy-????????.html", "*-cases.html"])
def test_axe_finds_no_fault_and_nothing_is_cut_off(
    visit: Callable[..., Visit], axe: str, name: str, size: str, scheme: str
) -> None:
    one = visit(name, size, scheme)
    if "cases" in name:
        one.page.locator(".list button").first.click()
        one.page.locator(".matrix").wait_for()
    for details in one.page.locator("main details").all():
        details.evaluate("one => { one.open = true; }")
    one.page.evaluate(axe)
    found = one.page.evaluate("axe.run(document, {preload: false})")
    faults = [
        (fault["id"], fault["impact"], [node["html"][:120] for node in fault["nodes"][:3]])
        for fault in found["violations"]
    ]
    assert faults == []
    assert len(found["passes"]) > 10
    assert one.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
