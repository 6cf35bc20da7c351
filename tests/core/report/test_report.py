import errno
import html
import json
import os
import shutil
import socket
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from mmrec_bench.errors import ConfigError, MMRecError, StorageError
from mmrec_bench.leaderboard import build
from mmrec_bench.records import read_records, write_record
from mmrec_bench.report.draft import MARKER
from mmrec_bench.report.escaping import script
from tests.core.report.toys import HOSTILE, N_USERS, data_of, report
from tests.core.test_records import make_record, make_spec


class _Page(HTMLParser):
    """Collects what a page would run or load."""

    def __init__(self) -> None:
        super().__init__()
        self.scripts: list[str] = []
        self.loads: list[str] = []
        self.handlers: list[str] = []
        self.inline = 0
        self.title = self.text = ""
        self.regions: list[str] = []
        self.tables: list[list[list[str]]] = []
        self._script = False
        self._tag = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self._tag = tag
        if tag == "section" or given.get("role") == "region":
            self.regions.append(given.get("aria-label") or given["aria-labelledby"] or "")
        self.handlers += [name for name in given if name.startswith("on") or name == "style"]
        self._script = tag in ("script", "style")
        if tag == "script":
            self.scripts.append(given.get("src") or "")
        self.loads += [given[n] or "" for n in ("src", "href") if n in given]
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_data(self, data: str) -> None:
        if self._tag == "title":
            self.title += data
        else:
            self.text += data
        if self._script and data.strip():
            self.inline += 1
        if self.tables and self.tables[-1] and self.tables[-1][-1]:
            self.tables[-1][-1][-1] += data

    def handle_endtag(self, tag: str) -> None:
        self._tag = ""
        self._script = self._script and tag not in ("script", "style")


def parsed(path: Path) -> _Page:
    page = _Page()
    page.feed(path.read_text(encoding="utf-8"))
    return page


def test_every_page_runs_only_its_own_files_and_asks_no_host(site: Path) -> None:
    pages = sorted(site.glob("*.html"))
    assert len(pages) == 3
    for path in pages:
        page = parsed(path)
        assert page.inline == 0
        assert page.handlers == []
        assert all(name.startswith("static/") for name in page.scripts)
        for target in page.loads:
            assert "://" not in target, target
            assert not target.startswith("//"), target
            assert target.startswith("#") or (site / target).exists(), target
        assert "default-src 'none'" in path.read_text(encoding="utf-8")


def test_the_leaderboard_says_what_the_records_say(toy: Path, site: Path) -> None:
    board = build(read_records(toy / "results"))[0]
    rows = parsed(site / "index.html").tables[0][1:]
    assert [row[1] for row in rows] == [row.label for row in board.rows]
    for shown, row in zip(rows, board.rows, strict=True):
        assert shown[2].startswith(f"{row.cells[board.metrics[0]].value:.4f}")


def test_the_title_of_a_report_is_text(site: Path) -> None:
    page = (site / "index.html").read_text(encoding="utf-8")
    assert "<title>Toys &amp; &lt;b&gt;more&lt;/b&gt;</title>" in page


def test_a_hostile_title_stays_text_in_scripts(site: Path) -> None:
    items = data_of(next(site.glob("data/*/items.js")))
    assert HOSTILE.strip() in [title.strip() for title in items["title"]]
    for path in site.rglob("*.js"):
        if path.parent.name != "static":
            raw = path.read_bytes()
            assert not {*b"<>&"} & {*raw}
            assert max(raw) < 128
    for path in site.glob("*.html"):
        assert HOSTILE.strip() not in path.read_text(encoding="utf-8")


def test_data_cannot_leave_its_string() -> None:
    for value in ("'", "\\", "\\'", "\n", "\u2028", "</script>", "\ud800", "__proto__", "${x}"):
        text = script("items", {"title": [value, f"a{value}b"]})
        body = text.removeprefix('mmrecData("items",\'').removesuffix("');\n")
        rest = body.replace("\\\\", "").replace("\\'", "")
        assert "'" not in rest
        assert "\n" not in rest


def test_the_same_input_gives_the_same_bytes(toy: Path, site: Path) -> None:
    done = report(toy / "results", "-o", toy / "again", "--title", "Toys & <b>more</b>")
    assert done.exit_code == 0, done.output
    ours = {p.relative_to(site): p.read_bytes() for p in site.rglob("*") if p.is_file()}
    again = toy / "again"
    assert ours == {p.relative_to(again): p.read_bytes() for p in again.rglob("*") if p.is_file()}


def test_a_folder_that_is_no_report_is_left_as_it_is(toy: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years of work")
    done = report(toy / "results", "-o", tmp_path / "thesis")
    assert isinstance(done.exception, StorageError)
    assert f"no {MARKER}" in str(done.exception)
    assert [p.name for p in tmp_path.rglob("*")] == ["thesis", "chapter.tex"]


def test_a_report_is_replaced_as_a_whole_and_leaves_nothing_beside_it(
    toy: Path, tmp_path: Path
) -> None:
    target = tmp_path / "site"
    assert report(toy / "results", "-o", target).exit_code == 0
    (target / "old.html").write_text("of an older version")
    assert report(toy / "results", "-o", target, "--max-cases", "0").exit_code == 0
    assert not (target / "old.html").exists()
    assert not (target / "data").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["site"]


def test_a_failure_leaves_the_old_report_whole(toy: Path, tmp_path: Path) -> None:
    target = tmp_path / "site"
    assert report(toy / "results", "-o", target, "--max-cases", "0").exit_code == 0
    before = sorted(path.name for path in target.iterdir())
    done = report(toy / "results", "-o", target, "--metrics", "nonsense@3")
    assert isinstance(done.exception, ConfigError)
    assert sorted(path.name for path in target.iterdir()) == before
    assert [path.name for path in tmp_path.iterdir()] == ["site"]


def _spoilt(toy: Path, folder: Path, old: str, new: str) -> MMRecError:
    """Report records of which one was changed; return the error."""
    shutil.copytree(toy / "results" / "records", folder / "records")
    path = next((folder / "records").rglob("popularity*.json"))
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    done = report(folder, "-o", folder / "site")
    assert isinstance(done.exception, MMRecError), done.output
    assert not (folder / "site").exists()
    assert path.name in str(done.exception)
    assert "\n" not in str(done.exception)
    return done.exception


def test_a_tampered_record_is_one_clear_line(toy: Path, tmp_path: Path) -> None:
    record = json.loads(next((toy / "results" / "records").rglob("popularity*.json")).read_text())
    value = record["metrics"]["ndcg@5"]["value"]
    error = _spoilt(toy, tmp_path, f'"value": {value}', '"value": 0.999')
    assert "was changed after it was written" in str(error)


def test_a_record_of_another_schema_is_one_clear_line(toy: Path, tmp_path: Path) -> None:
    error = _spoilt(toy, tmp_path, '"schema_version": 1', '"schema_version": 0')
    assert "has schema_version 0, this version reads 1" in str(error)


def test_a_record_with_nan_is_one_clear_line(toy: Path, tmp_path: Path) -> None:
    record = json.loads(next((toy / "results" / "records").rglob("popularity*.json")).read_text())
    value = record["metrics"]["ndcg@5"]["value"]
    error = _spoilt(toy, tmp_path, f'"value": {value}', '"value": NaN')
    assert "NaN is not JSON" in str(error)


def test_records_without_their_cases_make_tables_and_say_what_is_missing(
    toy: Path, tmp_path: Path
) -> None:
    shutil.copytree(toy / "results" / "records", tmp_path / "records")
    for path in tmp_path.rglob("*.cases.npz"):
        path.unlink()
    assert report(tmp_path, "-o", tmp_path / "site").exit_code == 0
    page = next((tmp_path / "site").glob("toy-*.html")).read_text(encoding="utf-8")
    assert "no per-case values lie beside these records" in page
    assert not list((tmp_path / "site").glob("*-cases.html"))


def test_what_was_written_is_told_as_json(toy: Path, tmp_path: Path) -> None:
    done = report(toy / "results", "-o", tmp_path / "site", "--json")
    told = json.loads(done.stdout)
    assert (told["n_boards"], told["n_rows"], told["n_cases"]) == (1, 2, N_USERS)


@pytest.mark.parametrize("limit", [7, 0])
def test_the_explorer_has_no_more_cases_than_asked_for(
    toy: Path, tmp_path: Path, limit: int
) -> None:
    done = report(toy / "results", "-o", tmp_path / "site", "--max-cases", str(limit))
    assert done.exit_code == 0, done.output
    found = list((tmp_path / "site").glob("data/*/index.js"))
    assert [len(data_of(path)["users"]) for path in found] == ([limit] if limit else [])


def test_an_unknown_data_set_is_named_with_the_nearest(toy: Path, tmp_path: Path) -> None:
    done = report(toy / "results", "-o", tmp_path / "site", "--dataset", "toys")
    assert isinstance(done.exception, ConfigError)
    assert "unknown data set 'toys'; did you mean 'toy'?" in str(done.exception)
    assert not (tmp_path / "site").exists()


def test_a_hostile_record_is_text_on_every_page(tmp_path: Path) -> None:
    for number in range(2):
        spec = make_spec(f"m{number}")
        record = make_record(spec, 0.25 * number, backbone=HOSTILE)
        path = tmp_path / "records" / f"{number}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(record.model_dump_json())
    done = report(tmp_path, "-o", tmp_path / "site")
    assert done.exit_code == 0, done.output
    pages = sorted((tmp_path / "site").glob("*.html"))
    assert len(pages) == 2
    for path in pages:
        page = parsed(path)
        assert page.inline == 0
        assert page.handlers == []
        assert all(name.startswith("static/") for name in page.scripts)
        assert HOSTILE.strip() in page.tables[0][1][1]


def test_a_record_whose_data_set_has_a_hostile_name_is_refused_in_one_line(tmp_path: Path) -> None:
    record = make_record(make_spec("m", dataset=HOSTILE))
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "0.json").write_text(record.model_dump_json())
    done = report(tmp_path, "-o", tmp_path / "site")
    assert isinstance(done.exception, StorageError)
    assert "the dataset is called" in str(done.exception)
    assert "\n" not in str(done.exception)
    assert not (tmp_path / "site").exists()


def test_what_a_report_that_was_killed_left_is_cleared_and_put_right(
    toy: Path, tmp_path: Path
) -> None:
    target = tmp_path / "site"
    assert report(toy / "results", "-o", target, "--max-cases", "0").exit_code == 0
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    # killed between the two renames: the old report is aside, the new one not yet in its place
    own = f".site.{socket.gethostname()}."
    left = tmp_path / f"{own}{gone.pid}.tmp"
    (left / "site").mkdir(parents=True)
    target.rename(left / "old")
    alive = tmp_path / f"{own}{os.getppid()}.tmp"
    (alive / "site").mkdir(parents=True)
    elsewhere = tmp_path / f".site.elsewhere.{gone.pid}.tmp"
    (elsewhere / "site").mkdir(parents=True)
    strange = tmp_path / f"{own}backup.tmp"
    strange.mkdir()
    done = report(toy / "results", "-o", target, "--metrics", "nonsense@3")
    assert done.exit_code == 1
    assert (target / "index.html").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [alive.name, elsewhere.name, strange.name, "site"]
    )


def test_a_full_disk_is_one_clear_line_and_leaves_the_old_report(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "site"
    assert report(toy / "results", "-o", target, "--max-cases", "0").exit_code == 0
    before = (target / "index.html").read_bytes()

    def full(path: Path, _data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", full)
    done = report(toy / "results", "-o", target, "--title", "another")
    assert isinstance(done.exception, StorageError)
    assert "no room to write" in str(done.exception)
    assert (target / "index.html").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["site"]


def test_two_boards_of_one_data_set_say_in_what_they_differ(tmp_path: Path) -> None:
    spec = make_spec("a")
    for permuted in (True, False):
        own = spec.model_copy(update={"protocol": {**spec.protocol, "permute_ids": permuted}})
        write_record(tmp_path, make_record(own))
    done = report(tmp_path, "-o", tmp_path / "site")
    assert done.exit_code == 0, done.output
    page = parsed(tmp_path / "site" / "index.html")
    assert len(page.regions) == len(set(page.regions)) == 5  # two a board, and what runs
    boards = [parsed(path) for path in (tmp_path / "site").glob("toy-*.html")]
    assert len({board.title for board in boards}) == 2
    for words in ("permute_ids=True", "permute_ids=False"):
        assert page.text.count(words) == 1
        [board] = [one for one in boards if words in one.title]
        assert words in board.text.partition("Figures")[0]


def test_a_legend_and_the_bold_cells_are_those_of_the_leaderboard(toy: Path, site: Path) -> None:
    [board] = build(read_records(toy / "results"))
    page = (site / "index.html").read_text(encoding="utf-8")
    assert html.escape(board.legend) in page
    for metric in board.metrics:
        shown = page.count(f'data-col="m:{metric}"') - 1  # less the heading
        assert shown == len(board.rows)
    bold = sum(board.is_best(row, metric) for metric in board.metrics for row in board.rows)
    assert page.count("<strong>") == bold


def test_accuracy_is_drawn_against_dollars_where_they_are_known(tmp_path: Path) -> None:
    for name, dollars in (("a", 0.002), ("b", 0.5), ("c", None), ("d", 0.0)):
        record = make_record(make_spec(name), 0.25)
        resources = {**record.resources, "cost_usd": dollars}
        write_record(tmp_path, record.model_copy(update={"resources": resources}))
    assert report(tmp_path, "-o", tmp_path / "site").exit_code == 0
    page = next((tmp_path / "site").glob("toy-*.html")).read_text(encoding="utf-8")
    plot = page.partition('aria-label="ndcg@10 against US dollars')[2].partition("</svg>")[0]
    assert plot.count("<circle") == 2
    assert "2 rows without such a number are left out" in page
    assert "there is no cost in dollars" not in page
