"""The pages of leaderboards: one of all boards, and one a board with its figures and runs."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version

import yaml

from mmrec_bench.leaderboard import Board, Row
from mmrec_bench.report.escaping import page, text
from mmrec_bench.report.figures import figures, positions
from mmrec_bench.report.gathering import Sheet
from mmrec_bench.report.tables import COLUMNS, SHOWN_METRICS, leaderboard

EXPLORER_SCRIPTS = ("cases-data.js", "cases-detail.js", "cases-list.js")
"""Scripts of an explorer, in the order in which they are read."""

FIGURE_METRICS = 8
"""Metrics of a board that have figures."""


def index_page(sheets: Sequence[Sheet], explorers: Mapping[str, int], title: str) -> str:
    """Return the page of all leaderboards.

    Args:
        sheets: one a board.
        explorers: board's file name -> cases that its explorer shows; only boards with one.
        title: of the report.
    """
    n_rows = sum(len(sheet.board.rows) for sheet in sheets)
    n_runs = sum(len(row.records) for sheet in sheets for row in sheet.board.rows)
    datasets = sorted({sheet.board.dataset for sheet in sheets})
    lead = (
        f"{_many(n_rows, 'row')} of {_many(n_runs, 'run')} on {_many(len(datasets), 'data set')} "
        f"under {_many(len(sheets), 'protocol')}. Rows are ranked only against those on the same "
        "cases."
    )
    live = 'id="live" class="live" aria-label="Live progress" aria-live="polite" hidden'
    body = [
        f"<h1>{text(title)}</h1><p class=lead>{text(lead)}</p>",
        f"<section {live}></section>",
        _controls(sheets, datasets, n_rows),
    ]
    body += [_board(sheet, explorers.get(sheet.name)) for sheet in sheets]
    body.append('<p id="none" class="note" hidden>No row fits.</p>')
    return _page(title, "index", "<b>Leaderboards</b>", ["table.js", "live.js"], "\n".join(body))


def board_page(sheet: Sheet, explorer: int | None, title: str) -> str:
    """Return the page of one board: table, figures by metric, and what ran."""
    board = sheet.board
    metrics = board.metrics[:FIGURE_METRICS]
    choices = "".join(f'<option value="{i}">{text(m)}</option>' for i, m in enumerate(metrics))
    groups = "".join(
        f'<div class="metric" data-metric="{i}"><h3 class="which">{text(m)}</h3>'
        f"{figures(sheet, m)}</div>"
        for i, m in enumerate(metrics)
    )
    drawn = positions(sheet)
    bias = f'<div class="figures">{drawn}</div>' if drawn else ""
    caption = f"All rows under protocol {text(board.protocol_id)}"
    picker = f'<label class="pick" hidden>of metric <select id="metric">{choices}</select></label>'
    runs = "".join(_run(n, row) for n, row in enumerate(board.rows, 1))
    body = [
        f"<h1><bdi>{text(board.dataset)}</bdi></h1>",
        f"<p class=lead>{text(sheet.where)}{_cases_link(sheet, explorer)}</p>",
        leaderboard(board, sheet.name, caption=caption),
        _legend(board),
        _section("figures", "Figures", groups + bias, picker),
        _section("runs", "What ran", runs),
        _section("protocol", "Protocol", _protocol(sheet)),
    ]
    crumbs = f'<a href="index.html">Leaderboards</a> <span>/</span> <b>{text(board.dataset)}</b>'
    head = f"{board.title} · {title}"
    return _page(head, "one", crumbs, ["table.js", "board.js"], "\n".join(body))


def cases_page(sheet: Sheet, title: str, n_shown: int) -> str:
    """Return the explorer's page; a script fills it from data/<name>/."""
    board = sheet.board
    crumbs = (
        '<a href="index.html">Leaderboards</a> <span>/</span> '
        f'<a href="{sheet.name}.html">{text(board.dataset)}</a> <span>/</span> <b>Cases</b>'
    )
    n_cases = board.rows[0].records[0].counts["n_cases"]
    cut = f" Shown are the first {n_shown:,}." if n_shown < n_cases else ""
    body = (
        f"<h1>Cases of <bdi>{text(board.dataset)}</bdi></h1>"
        f'<p class="lead">{text(sheet.where)}.{text(cut)}</p>'
        '<noscript><p class="note">Cases are drawn by a script; scripts are off.</p></noscript>'
        f'<div id="explorer" data-folder="data/{sheet.name}"></div>'
    )
    return _page(f"Cases of {board.title} · {title}", "cases", crumbs, EXPLORER_SCRIPTS, body)


def _page(title: str, kind: str, crumbs: str, scripts: Sequence[str], body: str) -> str:
    return page(
        head_title=text(title),
        kind=kind,
        crumbs=crumbs,
        scripts="\n".join(f'<script src="static/{name}" defer></script>' for name in scripts),
        body=body,
        foot=text(f"Written by mmrec-bench {version('mmrec-bench')} from records and predictions."),
    )


def _section(name: str, title: str, content: str, beside: str = "") -> str:
    return (
        f'<section aria-labelledby="h-{name}"><div class="head"><h2 id="h-{name}">{title}</h2>'
        f"{beside}</div>{content}</section>"
    )


def _controls(sheets: Sequence[Sheet], datasets: Sequence[str], n_rows: int) -> str:
    metrics = dict.fromkeys(m for sheet in sheets for m in sheet.board.metrics)
    shown = {m for sheet in sheets for m in sheet.board.metrics[:SHOWN_METRICS]}
    have = [
        c
        for c in COLUMNS
        if any(row.facts.get(c.name) is not None for s in sheets for row in s.board.rows)
    ]
    boxes = "".join(_box(f"m:{m}", m, m in shown) for m in metrics)
    costs = "".join(_box(f"f:{c.name}", c.title, c.shown) for c in have)
    options = "".join(f'<option value="{text(d)}">{text(d)}</option>' for d in datasets)
    return (
        '<form class="controls" id="controls" role="search" aria-label="Rows and columns" hidden>'
        '<label>Find a model <input type="search" id="find" autocomplete="off" '
        'placeholder="model, backbone, run id"></label>'
        f'<label>Data set <select id="dataset"><option value="">all</option>{options}</select>'
        '</label><details class="menu"><summary>Columns</summary><div class="sheet"><fieldset>'
        f"<legend>Metrics</legend>{boxes}</fieldset><fieldset><legend>Costs and versions</legend>"
        f'{costs}</fieldset><button type="button" id="reset" class="quiet">As at first</button>'
        "</div></details>"
        f'<output id="count" aria-live="polite">{_many(n_rows, "row")}</output></form>'
    )


def _box(col: str, title: str, checked: bool) -> str:
    mark = " checked" if checked else ""
    return f'<label><input type="checkbox" value="{text(col)}"{mark}> {text(title)}</label>'


def _board(sheet: Sheet, explorer: int | None) -> str:
    board = sheet.board
    return (
        f'<section class="sheet-of" data-dataset="{text(board.dataset)}" '
        f'aria-label="{text(board.title)}"><div class="head"><h2>'
        f'<a href="{sheet.name}.html"><bdi>{text(board.dataset)}</bdi></a></h2>'
        f'<p>{text(sheet.where)} · <span class="id">{text(board.protocol_id)}</span></p>'
        f'<p class="links"><a href="{sheet.name}.html" aria-label="Figures '
        f'and runs of {text(board.dataset)}, protocol {text(board.protocol_id)}">Figures</a>'
        f"{_cases_link(sheet, explorer)}</p></div>"
        f"{leaderboard(board, sheet.name, caption=f'protocol {text(board.protocol_id)}')}"
        f"{_legend(board)}</section>"
    )


def _legend(board: Board) -> str:
    return f'<p class="note">{text(board.legend)}</p>'


def _cases_link(sheet: Sheet, explorer: int | None) -> str:
    if explorer is None:
        return ""
    return (
        f' <a href="{sheet.name}-cases.html" aria-label="Explore {explorer:,} cases of '
        f'{text(sheet.board.dataset)}, protocol {text(sheet.board.protocol_id)}">'
        f"Explore {explorer:,} cases</a>"
    )


def _run(number: int, row: Row) -> str:
    first = row.records[0]
    spec = first.spec
    parts = {"model": {"name": spec.model.name, **spec.model.options}}
    for section in ("instructions", "encoder", "vectors", "text_vectors", "audio_vectors"):
        part = getattr(spec, section)
        if part is not None:
            parts[section] = {"name": part.name, **part.options}
    told = {
        "runs": [f"{record.run_id} of {record.created}" for record in row.records],
        **parts,
        "images": spec.images,
        "permutations": spec.permutations,
        "facts": dict(first.facts),
        "counts": dict(first.counts),
        "environment": dict(first.environment),
    }
    return (
        f"<details class=run><summary><b>{number}</b> <bdi>{text(row.label)}</bdi></summary>"
        f"<pre tabindex=0>{text(_yaml(told))}</pre></details>"
    )


def _protocol(sheet: Sheet) -> str:
    board = sheet.board
    card = board.rows[0].records[0].card
    told = {
        "dataset": board.dataset,
        "version": board.version,
        "protocol_id": board.protocol_id,
        "protocol": dict(board.protocol),
        "card": card,
    }
    return f"<pre tabindex=0>{text(_yaml(told))}</pre>"


def _yaml(value: object) -> str:
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=88)


def _many(n: int, what: str) -> str:
    return f"{n:,} {what}" + ("" if n == 1 else "s")
