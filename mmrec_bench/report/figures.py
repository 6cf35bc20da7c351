"""The figures of a board: each a plot, its legend and the numbers as a table."""

from collections.abc import Sequence

from mmrec_bench.leaderboard import averaged
from mmrec_bench.report.escaping import text
from mmrec_bench.report.gathering import Sheet
from mmrec_bench.report.plots import N_COLOURS, Mark, Series, intervals, key, lines, scatter
from mmrec_bench.report.slices import means, slicings

_ACROSS = (
    ("cost_usd", "US dollars for all cases"),
    ("fit_seconds", "seconds of fitting"),
    ("score_seconds", "seconds of scoring all cases"),
)
_ABSENT = {
    "cost_usd": "no row was paid for by request, so that there is no cost in dollars",
    "fit_seconds": "no row took time to fit",
    "score_seconds": "no row took time to score",
}


def figures(sheet: Sheet, metric: str) -> str:
    """Return all figures about one metric as HTML."""
    marks = _marks(sheet, metric)
    if not marks:
        return f"<p class=note>No row has a value of {text(metric)}.</p>"
    board = sheet.board
    best = next(m.number for m in marks if board.is_best(board.rows[m.number - 1], metric))
    rows = [(f"{m.number} {m.label}", _num(m.y), _num(m.low), _num(m.high)) for m in marks]
    parts = [
        _figure(
            f"{metric} with 95 % intervals",
            "Mean and bootstrap interval over cases; the band is the best row's.",
            intervals(marks, metric, best),
            _table(("row", metric, "low", "high"), rows),
        )
    ]
    parts += [_against(sheet, metric, marks, name, across) for name, across in _ACROSS]
    parts += _by_slice(sheet, metric)
    absent = [words for name, words in _ABSENT.items() if not _known(sheet, name)]
    if not sheet.cases:
        absent.append(
            "no per-case values lie beside these records, so that no slices are; "
            "mmrec-bench evaluate writes them where a run's predictions are"
        )
    note = f'<p class="note">Not drawn: {text("; ".join(absent))}.</p>' if absent else ""
    return f'<div class="figures">{"".join(parts)}</div>{note}'


def positions(sheet: Sheet) -> str:
    """Return the figure of position bias; "" where no row was shown lists."""
    series, counts = [], []
    for number, row in enumerate(sheet.board.rows, start=1):
        told = [r.positions for r in row.records if r.positions.get("hit_rate@1")]
        if told:
            values = _pooled([one["n"] for one in told], [one["hit_rate@1"] for one in told])
            counts = [str(i + 1) for i in range(len(values))]
            series.append(Series(number, row.label, tuple(values)))
    if not series:
        return ""
    series = [one for one in series if len(one.values) == len(counts)][:N_COLOURS]
    rows = [(f"{s.number} {s.label}", *map(_num, s.values)) for s in series]
    plot = lines(
        series,
        counts,
        "hit_rate@1 by place of the target",
        "place of the target in the list shown",
        reference=1 / len(counts),
    )
    return _figure(
        "Position bias",
        "Share of cases in which the target came first, by the place where it was shown. A model "
        "without a favourite place is level; the dashed line is chance.",
        _legend(series) + plot,
        _table(("row", *counts), rows),
    )


def _marks(sheet: Sheet, metric: str) -> list[Mark]:
    found = []
    for number, row in enumerate(sheet.board.rows, start=1):
        cell = row.cells[metric]
        if cell.value is not None:
            found.append(Mark(number, row.label, cell.value, cell.low, cell.high))
    return found


def _known(sheet: Sheet, name: str) -> bool:
    """Whether a row has a positive number of a fact, which alone has a place on the axis."""
    values = [row.facts.get(name) for row in sheet.board.rows]
    return any(isinstance(value, int | float) and value > 0 for value in values)


def _against(sheet: Sheet, metric: str, marks: Sequence[Mark], name: str, across: str) -> str:
    title = f"{metric} against {across}"
    placed, left_out = [], 0
    for mark in marks:
        value = sheet.board.rows[mark.number - 1].facts.get(name)
        if isinstance(value, int | float) and value > 0:
            placed.append(Mark(mark.number, mark.label, mark.y, x=float(value)))
        else:
            left_out += 1
    if not placed:
        return ""
    note = "Logarithmic axis; numbers are those of the leaderboard."
    if left_out:
        rows_are = (
            "1 row without such a number is"
            if left_out == 1
            else (f"{left_out} rows without such a number are")
        )
        note += f" {rows_are} left out."
    rows = [(f"{m.number} {m.label}", f"{m.x:.4g}", _num(m.y)) for m in placed]
    plot = scatter(placed, metric, across)
    return _figure(title, note, plot, _table(("row", across, metric), rows))


def _by_slice(sheet: Sheet, metric: str) -> list[str]:
    if not sheet.cases:
        return []
    first = next(iter(sheet.cases.values()))[0]
    found = []
    for slicing in slicings(first):
        series = []
        for number, tables in sheet.cases.items():
            values = averaged(tables, metric)
            if values is not None:
                told = means(values, slicing.parts)
                series.append(Series(number, sheet.board.rows[number - 1].label, *told))
        series = [one for one in series if any(v is not None for v in one.values)]
        if not series:
            continue
        shown = series[:N_COLOURS]
        note = "Mean and 95 % interval of each part."
        if len(series) > len(shown):
            note += f" The first {len(shown)} rows of {len(series)}; the table has all."
        names = list(slicing.parts)
        rows = [(f"{s.number} {s.label}", *map(_num, s.values)) for s in series]
        title = f"{metric} by {slicing.title}"
        plot = lines(shown, names, title, slicing.across, slicing.counts())
        rows.append(("cases", *(f"{n:,}" for n in slicing.counts())))
        found.append(_figure(title, note, _legend(shown) + plot, _table(("row", *names), rows)))
    return found


def _pooled(
    counts: Sequence[Sequence[float | None]], rates: Sequence[Sequence[float | None]]
) -> list[float | None]:
    """Put seeds together: each place weighted by how often it was shown."""
    found: list[float | None] = []
    for place in zip(*counts, *rates, strict=True):
        ns, hits = place[: len(counts)], place[len(counts) :]
        total = sum(n or 0 for n in ns)
        sums = sum((n or 0) * (h or 0.0) for n, h in zip(ns, hits, strict=True))
        found.append(sums / total if total else None)
    return found


def _legend(series: Sequence[Series]) -> str:
    entries = "".join(
        f"<li>{key(place)}<span><b>{one.number}</b> {text(one.label)}</span></li>"
        for place, one in enumerate(series)
    )
    return f'<ul class="legend">{entries}</ul>'


def _figure(title: str, note: str, plot: str, table: str) -> str:
    region = f'<div class="wide" tabindex="0" role="region" aria-label="Numbers: {text(title)}">'
    numbers = f"<details><summary>Numbers</summary>{region}{table}</div></details>"
    return (
        f"<figure><figcaption><h3>{text(title)}</h3><p>{text(note)}</p></figcaption>"
        f"{plot}{numbers}</figure>"
    )


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col">{text(name)}</th>' for name in header)
    body = "".join(
        f'<tr><th scope="row">{text(row[0])}</th>'
        + "".join(f"<td>{text(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row in rows
    )
    return f"<table class=small><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _num(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
