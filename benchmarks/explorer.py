"""The case explorer of a report of 20,000 cases, timed in a browser.

    python benchmarks/explorer.py [--cases 20000] [--visits 5] [--browser PATH]

Made-up sequences with titles, by seed; `popularity`, `random` and `markov-1` are run on all users
(20 candidates each), `mmrec-bench report` writes the site, and a headless Chromium opens the case
explorer from disk, each visit with an empty cache. Printed are medians over visits, and the
slowest:

* first paint, as the browser reports it;
* the list is there, and all titles are (what a search reads);
* each search, filter and sort: from the change to the new list in the page, script alone;
* a case: from the click to its heading, the files of its chunk read from disk.

Needs `pip install 'mmrec-bench[browser]'` and a Chromium, from --browser or the search path.
"""

import argparse
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

N_ITEMS, LENGTH = 4000, (5, 30)
MODELS = ("popularity", "random", "markov-1")
WORDS = (
    "amber birch coral dusk ember fern glass hazel indigo jade",
    "arm bell chair desk easel frame globe hook inkwell jug",
)
SEARCHES = {"a word of titles": "amber", "a user": "user00123", "nothing found": "zzz", "all": ""}
CHOICES = {"filter: runs disagree": ("Show", "runs disagree"), "sort": ("Sort", "spread of ranks")}
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
Timing = tuple[str, float]


def write_data(folder: Path, n_users: int) -> None:
    """Write sequences of skewed popularity, and a title for each item."""
    rng = random.Random(0)
    first, second = (words.split() for words in WORDS)
    titles = [f"{rng.choice(first)} {rng.choice(second)}, model {i}" for i in range(N_ITEMS)]
    rows = [f'item{i},"{title}"\n' for i, title in enumerate(titles)]
    (folder / "titles.csv").write_text("item,title\n" + "".join(rows))
    weights = [1 / (i + 10) for i in range(N_ITEMS)]
    with (folder / "made-up.txt").open("w") as file:
        for user in range(n_users):
            items = rng.choices(range(N_ITEMS), weights, k=rng.randint(*LENGTH))
            file.write(" ".join([f"user{user:05}", *(f"item{i}" for i in dict.fromkeys(items))]))
            file.write("\n")


def write_site(folder: Path, n_users: int) -> Path:
    """Run the models and write the report; return the explorer's page."""
    data, results, site = folder / "data", folder / "results", folder / "report"
    data.mkdir()
    write_data(data, n_users)
    program = [sys.executable, "-m", "mmrec_bench", "--quiet"]
    for model in MODELS:
        command = [*program, "run", "--model", model, "--dataset", "sequences"]
        command += ["-o", "protocol.k_core=0", "--data-root", str(data)]
        subprocess.run(
            [*command, "--results", str(results), "--no-baselines"],
            check=True,
            stdout=subprocess.DEVNULL,
        )
    started = time.perf_counter()
    subprocess.run([*program, "report", str(results), "-o", str(site)], check=True)
    size = sum(path.stat().st_size for path in site.rglob("*") if path.is_file()) / 2**20
    print(f"report of {len(MODELS)} runs: {time.perf_counter() - started:.1f} s, {size:.0f} MiB")
    return next(site.glob("*-cases.html"))


def visit(browser: Any, page_file: Path) -> Iterator[Timing]:  # noqa: ANN401
    """Open the explorer in a new context and use it; yield what each step took, in ms."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.goto(page_file.as_uri())
    until(page, "performance.getEntriesByName('mmrec-titles').length > 0")
    marks = "performance.getEntriesByName('{}')[0].startTime"
    yield "first paint", page.evaluate(marks.format("first-paint"))
    yield "list", page.evaluate(marks.format("mmrec-list"))
    yield "all titles", page.evaluate(marks.format("mmrec-titles"))
    for name, text in SEARCHES.items():
        yield f"search: {name}", applied(page, lambda t=text: page.get_by_label("Search").fill(t))
    for name, (label, option) in CHOICES.items():
        box = page.get_by_label(label)
        choice = box.locator("option", has_text=option).inner_text()
        yield name, applied(page, lambda b=box, c=choice: b.select_option(label=c))
    page.evaluate("performance.mark('mmrec-asked'); document.querySelector('.list button').click()")
    until(page, "document.querySelector('.detail h2') !== null")
    yield "a case opens", page.evaluate("performance.now() - " + marks.format("mmrec-asked"))
    context.close()


def applied(page: Any, change: Any) -> float:  # noqa: ANN401
    """Make a change, wait for the list that follows, and return what it took, in ms."""
    entries = "performance.getEntriesByName('mmrec-apply')"
    before = page.evaluate(f"{entries}.length")
    change()
    until(page, f"{entries}.length > {before}")
    return float(page.evaluate(f"{entries}.at(-1).duration"))


def until(page: Any, condition: str) -> None:  # noqa: ANN401
    """Wait for an expression; Playwright's own way needs eval, which the page forbids."""
    deadline = time.monotonic() + 60
    while not page.evaluate(condition):
        if time.monotonic() > deadline:
            raise SystemExit(f"{condition} did not come true within a minute")
        time.sleep(0.005)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--visits", type=int, default=5)
    parser.add_argument("--browser", default=next(filter(None, map(shutil.which, BROWSERS)), None))
    options = parser.parse_args()
    if options.browser is None:
        parser.error(f"no browser: none of {', '.join(BROWSERS)}; name one with --browser")
    from playwright.sync_api import sync_playwright

    timings: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as started:
        page_file = write_site(Path(folder), options.cases)
        browser = started.chromium.launch(executable_path=options.browser, args=FLAGS)
        for _ in range(options.visits):
            for name, milliseconds in visit(browser, page_file):
                timings.setdefault(name, []).append(milliseconds)
        browser.close()
    print(f"\n{options.cases} cases, {options.visits} visits{'median':>22}{'slowest':>10}  ms")
    for name, found in timings.items():
        print(f"{name:<40}{statistics.median(found):>10.1f}{max(found):>10.1f}")


if __name__ == "__main__":
    main()
