"""From records to a folder that a browser opens."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmrec_bench.errors import UnknownNameError
from mmrec_bench.leaderboard import Board, build, by_board, told_apart
from mmrec_bench.plugins import Plugins
from mmrec_bench.progress import progress
from mmrec_bench.records import Stored, read_records
from mmrec_bench.report.draft import Draft, drafted
from mmrec_bench.report.escaping import static
from mmrec_bench.report.explorer import write_explorer
from mmrec_bench.report.gathering import Sheet
from mmrec_bench.report.pages import EXPLORER_SCRIPTS, board_page, cases_page, index_page
from mmrec_bench.report.thumbnails import Thumbnails

log = logging.getLogger("mmrec_bench")

_STATIC = (
    "style.css",
    "icon.svg",
    "theme.js",
    "table.js",
    "board.js",
    "live.js",
    *EXPLORER_SCRIPTS,
)


@dataclass(frozen=True)
class ReportOptions:
    """What a report shows.

    Attributes:
        title: of its pages.
        max_cases: cases of an explorer at most; 0 = no explorer.
        pictures: whether thumbnails of items are written.
        data_roots: where data sets are looked for, before the places where runs found them.
        metrics: which to show, in this order; () = all.
        baseline: model that rows are tested against; None = none.
        only: data sets; () = all.
    """

    title: str = "mmrec-bench report"
    max_cases: int = 20_000
    pictures: bool = True
    data_roots: tuple[Path, ...] = ()
    metrics: tuple[str, ...] = ()
    baseline: str | None = None
    only: tuple[str, ...] = ()


@dataclass(frozen=True)
class Written:
    """What a report holds.

    Attributes:
        n_boards: leaderboards.
        n_rows: rows of all of them.
        n_cases: cases of all explorers.
        n_pictures: thumbnails.
        notes: a line for each thing that cannot be shown.
    """

    n_boards: int
    n_rows: int
    n_cases: int
    n_pictures: int
    notes: tuple[str, ...]


Known = dict[tuple[str, ...], list[Board]]
"""Hashes of the records of a protocol -> its board, so that a second report need not test anew."""


def build_report(
    folders: Sequence[Path],
    target: Path,
    options: ReportOptions,
    plugins: Plugins,
    known: Known | None = None,
) -> Written:
    """Write a report of all records below results folders; the same input, the same bytes.

    Args:
        folders: results folders.
        target: the report's folder; replaced as a whole where it is a report.
        options: what it shows.
        plugins: for data sets, builders and encoders.
        known: boards of the report before, with the same options; becomes those of this one.

    Raises:
        StorageError: a record that cannot be believed, or a folder that is not ours.
        ConfigError: an unknown metric or data set.
    """
    with drafted(target) as draft:
        stored = _chosen(read_records(*folders), options)
        boards = _boards(stored, options, {} if known is None else known)
        sheets = [Sheet(board) for board in boards]
        for name in _STATIC:
            draft.text(f"static/{name}", static(name))
        thumbnails = Thumbnails(draft.folder / "pictures") if options.pictures else None
        explorers, notes = _explorers(draft, sheets, folders, options, thumbnails, plugins)
        draft.text("index.html", index_page(sheets, explorers, options.title))
        for one in sheets:
            page = board_page(one, explorers.get(one.name), options.title)
            draft.text(f"{one.name}.html", page)
        if thumbnails is not None and thumbnails.broken:
            notes.append(
                f"{thumbnails.broken} pictures cannot be shown; the first: {thumbnails.reason}"
            )
        return Written(
            n_boards=len(sheets),
            n_rows=sum(len(one.board.rows) for one in sheets),
            n_cases=sum(explorers.values()),
            n_pictures=0 if thumbnails is None else len(thumbnails),
            notes=tuple(notes),
        )


def _chosen(stored: list[Stored], options: ReportOptions) -> list[Stored]:
    """Return the records of the data sets asked for, of which at least one has each metric."""
    datasets = {one.record.spec.dataset.name for one in stored}
    for name in options.only:
        if name not in datasets:
            raise UnknownNameError("data set", name, datasets)
    if options.only:
        stored = [one for one in stored if one.record.spec.dataset.name in options.only]
    metrics = {name for one in stored for name in one.record.metrics}
    for name in options.metrics:
        if name not in metrics:
            raise UnknownNameError("metric", name, metrics)
    return stored


def _boards(stored: Sequence[Stored], options: ReportOptions, known: Known) -> list[Board]:
    """Build the boards one by one, since testing all of their rows takes a while."""
    earlier, boards = dict(known), []
    known.clear()  # boards of which a record is gone or new are let go
    with progress("leaderboards", total=len(stored), unit="records") as bar:
        for group in by_board(stored):
            mark = tuple(sorted(one.record.digest + one.record.cases for one in group))
            known[mark] = earlier[mark] if mark in earlier else _built(group, options)
            boards += known[mark]
            bar.advance(len(group))
    return told_apart(boards)


def _built(group: Sequence[Stored], options: ReportOptions) -> list[Board]:
    """Build the board of a group; [] where it has none of the metrics asked for."""
    have = {name for one in group for name in one.record.metrics}
    metrics = [name for name in options.metrics if name in have]
    if options.metrics and not metrics:
        return []
    return build(group, metrics=metrics, baseline=options.baseline)


def _explorers(
    draft: Draft,
    sheets: Sequence[Sheet],
    folders: Sequence[Path],
    options: ReportOptions,
    thumbnails: Thumbnails | None,
    plugins: Plugins,
) -> tuple[dict[str, int], list[str]]:
    """Write the explorers; return board -> cases for those that there are, and what is missing."""
    found: dict[str, int] = {}
    notes: list[str] = []
    if options.max_cases == 0:
        return found, notes
    for one in sheets:
        told = write_explorer(
            *(draft, one, folders, options.data_roots, options.max_cases, thumbnails, plugins)
        )
        notes += [f"{one.board.dataset} ({one.board.protocol_id}): {n}" for n in told.notes]
        if told.n_cases:
            found[one.name] = told.n_cases
            page = cases_page(one, options.title, told.n_cases)
            draft.text(f"{one.name}-cases.html", page)
    return found, notes
