"""The leaderboard of a board as an HTML table that a script can sort, filter and narrow."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mmrec_bench.leaderboard import LEVEL, Board, Cell, Row
from mmrec_bench.report.axes import short
from mmrec_bench.report.escaping import text
from mmrec_bench.report.plots import strip

SHOWN_METRICS = 4
"""Metrics of a board that are shown before the reader chooses."""


@dataclass(frozen=True)
class Column:
    """A column beside the metrics.

    Attributes:
        name: of the row's fact.
        title: as it is headed.
        about: what it says, for the heading's tooltip.
        shown: before the reader chooses.
    """

    name: str
    title: str
    about: str
    shown: bool = False


COLUMNS = (
    Column("n_seeds", "seeds", "runs that differ in their seed alone, folded into the row", True),
    Column("fit_seconds", "fit s", "seconds of fitting, mean over seeds", True),
    Column("score_seconds", "score s", "seconds of scoring all cases, mean over seeds", True),
    Column("cost_usd", "USD", "what a server's answers cost, all seeds together", True),
    Column("cases_per_second", "cases/s", "cases scored in a second"),
    Column("peak_memory_bytes", "memory", "largest memory of the process, bytes"),
    Column("prompt_tokens", "read tok", "tokens read"),
    Column("answer_tokens", "written tok", "tokens written"),
    Column("n_parameters", "params", "parameters of the model"),
    Column("n_tuned_parameters", "tuned", "parameters that were tuned"),
    Column("device", "device", "what it was computed on"),
    Column("mmrec_bench", "version", "of mmrec-bench"),
)


def leaderboard(board: Board, name: str, *, caption: str) -> str:
    """Return the table of a board.

    Args:
        board: rows, best first.
        name: what ids of the table begin with.
        caption: HTML; says what it is a table of.
    """
    columns = [c for c in COLUMNS if any(row.facts.get(c.name) is not None for row in board.rows)]
    head = [_heading("place", "#", "place by the first metric, or its tie", kind="number")]
    head.append(
        _heading("label", "model", "model, backbone and what tells rows apart", kind="text")
    )
    first = board.metrics[0]
    for place, metric in enumerate(board.metrics):
        arrow = "higher is better" if board.higher_is_better[metric] else "lower is better"
        own = _heading(f"m:{metric}", metric, arrow, kind="number", hide=place >= SHOWN_METRICS)
        head.append(own)
        if place == 0:
            head.append(
                f'<th scope="col" class="graph" data-col="graph" title="95 % interval of '
                f'{text(first)}, bootstrap over cases">95 %</th>'
            )
    for c in columns:
        kind = "text" if c.name in ("device", "mmrec_bench") else "number"
        head.append(_heading(f"f:{c.name}", c.title, c.about, kind=kind, hide=not c.shown))
    ends = _ends(board, first)
    body = "\n".join(
        _row(board, row, number, columns, ends) for number, row in enumerate(board.rows, start=1)
    )
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="Leaderboard of '
        f'{text(board.title)}, scrolls sideways"><table class="board" id="t-{name}">'
        f"<caption>{caption}</caption><thead><tr>{''.join(head)}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
    )


def _heading(col: str, title: str, about: str, *, kind: str, hide: bool = False) -> str:
    hidden = " hidden" if hide else ""
    start = ' aria-sort="ascending"' if col == "place" else ""
    return (
        f'<th scope="col" class="{kind}" data-col="{text(col)}" data-kind="{kind}"{start}{hidden}>'
        f'<button type="button" title="{text(about)}">{text(title)}'
        '<span class="arrow" aria-hidden="true"></span></button></th>'
    )


def _row(
    board: Board,
    row: Row,
    number: int,
    columns: Sequence[Column],
    ends: tuple[float, float],
) -> str:
    first, label = board.metrics[0], text(row.label)
    cells = [
        f'<td data-col="place" data-v="{row.rank}.{number:04d}">{row.rank}</td>',
        f'<th scope="row" data-col="label" data-v="{label}" title="{label}">{_bdi(label)}</th>',
    ]
    for place, metric in enumerate(board.metrics):
        hidden = " hidden" if place >= SHOWN_METRICS else ""
        cells.append(_metric(metric, row.cells[metric], hidden, best=board.is_best(row, metric)))
        if place == 0:
            own = row.cells[first]
            told = strip(own.value, own.low, own.high, ends)
            cells.append(f'<td class="graph" data-col="graph">{told}</td>')
    for c in columns:
        hidden = "" if c.shown else " hidden"
        value = row.facts.get(c.name)
        cells.append(
            f'<td data-col="f:{c.name}" data-v="{text("" if value is None else value)}"{hidden}>'
            f"{text(_shown(c.name, value))}</td>"
        )
    found = " ".join(
        str(row.facts.get(n) or "")
        for n in ("label", "model", "backbone", "instructions", "encoder", "images", "run_id")
    )
    return f'<tr data-find="{text((row.label + " " + found).lower())}">{"".join(cells)}</tr>'


def _bdi(shown: str) -> str:
    return f"<bdi>{shown}</bdi>"


def _metric(metric: str, cell: Cell, hidden: str, *, best: bool) -> str:
    if cell.value is None:
        return f'<td data-col="m:{text(metric)}" data-v=""{hidden}>–</td>'
    shown = f"{cell.value:.4f}" if abs(cell.value) < 100 else f"{cell.value:.1f}"
    if best:
        shown = f"<strong>{shown}</strong>"
    marks = "†" if cell.p_best is not None and cell.p_best < LEVEL else ""
    marks += "‡" if cell.p_baseline is not None and cell.p_baseline < LEVEL else ""
    told = []
    if cell.low is not None and cell.high is not None:
        told.append(f"95 % [{cell.low:.4f}, {cell.high:.4f}]")
    if cell.seed_sd is not None:
        told.append(f"sd over seeds {cell.seed_sd:.4f}")
    if cell.p_best is not None:
        told.append(f"p {cell.p_best:.3g} against the best")
    title = f' title="{text("; ".join(told))}"' if told else ""
    return (
        f'<td data-col="m:{text(metric)}" data-v="{cell.value!r}"{title}{hidden}>{shown}'
        f'<span class="mark">{marks}</span></td>'
    )


def _shown(name: str, value: object) -> str:
    if value is None:
        return "–"
    if not isinstance(value, int | float):
        return str(value)
    if name == "cost_usd":
        return f"{value:.4f}"
    if name == "n_seeds":
        return str(value)
    return short(float(value)) if abs(value) >= 1 or value == 0 else f"{value:.2g}"


def _ends(board: Board, metric: str) -> tuple[float, float]:
    cells = [row.cells[metric] for row in board.rows]
    known: list[Any] = [v for c in cells for v in (c.value, c.low, c.high) if v is not None]
    return (min(known), max(known)) if known else (0.0, 0.0)
