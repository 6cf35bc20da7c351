"""Boards as text: CSV with raw numbers; Markdown, LaTeX, HTML and the terminal for reading."""

import csv
import html
import io
import json
from collections.abc import Callable, Mapping, Sequence

from mmrec_bench.leaderboard.rows import LEVEL, Board, Cell, Row
from mmrec_bench.terminal import Block, Heading, Role, Table

_BEFORE = (
    *("dataset", "dataset_version", "protocol_id", "split", "candidates", "n_candidates"),
    *("n_cases", "rank", "model", "backbone", "instructions", "encoder", "vectors"),
    *("text_vectors", "audio_vectors", "images", "permutations", "transfer", "n_seeds", "seeds"),
)
_AFTER = (
    *("valid_rate", "n_parameters", "n_tuned_parameters", "fit_seconds", "score_seconds"),
    *("cases_per_second", "peak_memory_bytes", "prompt_tokens", "answer_tokens", "retries"),
    *("cost_usd", "device", "mmrec_bench", "torch", "options", "protocol", "run_id"),
)
_PARTS = ("low", "high", "seed_sd", "p_best", "p_baseline")
_COSTS = {"fit_seconds": "fit s", "score_seconds": "score s", "cost_usd": "USD"}


def render(boards: Sequence[Board], form: str) -> str:
    """Return boards as text.

    Args:
        boards: from `build`.
        form: one of `FORMATS`.
    """
    return FORMATS[form](boards)


def to_csv(boards: Sequence[Board]) -> str:
    """Write one row a model, raw numbers; the columns before and after the metrics never change."""
    names = sorted({name for board in boards for name in board.metrics})
    columns = [part for name in names for part in (name, *(f"{name}_{p}" for p in _PARTS))]
    after = [name for name in _AFTER if name not in columns]
    text = io.StringIO()
    writer = csv.DictWriter(text, [*_BEFORE, *columns, *after], lineterminator="\n")
    writer.writeheader()
    for board in boards:
        for row in board.rows:
            values = {**row.facts, "rank": row.rank}
            for name, cell in row.cells.items():
                values[name] = cell.value
                values |= {f"{name}_{part}": getattr(cell, part) for part in _PARTS}
            writer.writerow(
                {name: _safe(values.get(name)) for name in writer.fieldnames if name in values}
            )
    return text.getvalue()


_FORMULA = ("=", "+", "-", "@", "\t", "\n")
"""Spreadsheets skip a tab or a line's end before a formula."""


def _safe(value: object) -> object:
    """Keep numbers raw; a text that a spreadsheet would run as a formula is quoted."""
    if not isinstance(value, str):
        return value
    text = value.replace("\r\n", "\n").replace("\r", "\n")  # a lone one would end the row
    return "'" + text if text.startswith(_FORMULA) else text


def to_markdown(boards: Sequence[Board]) -> str:
    """Write a heading and a table a board."""
    parts = []
    for board in boards:
        header, rows = _table(board, _Markdown)
        rule = ["---", *(["---:"] * (len(header) - 1))]
        lines = ["| " + " | ".join(row) + " |" for row in (header, rule, *rows)]
        parts.append(
            "\n".join(
                [f"## {_Markdown.text(board.title)}", "", *lines, "", _Markdown.text(board.legend)]
            )
        )
    return "\n\n".join(parts) + "\n"


def to_latex(boards: Sequence[Board]) -> str:
    r"""Write a `table` a board, for \usepackage{booktabs}."""
    parts = []
    for board in boards:
        header, rows = _table(board, _Latex)
        body = [" & ".join(row) + r" \\" for row in rows]
        parts.append(
            "\n".join(
                [
                    r"\begin{table}",
                    r"\centering",
                    rf"\caption{{{_Latex.text(board.title)}. {_Latex.text(board.legend)}}}",
                    rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}",
                    *(r"\toprule", " & ".join(header) + r" \\", r"\midrule"),
                    *body,
                    *(r"\bottomrule", r"\end{tabular}", r"\end{table}"),
                ]
            )
        )
    return "\n\n".join(parts) + "\n"


def to_html(boards: Sequence[Board]) -> str:
    """Write one page that needs nothing else."""
    parts = []
    for board in boards:
        header, rows = _table(board, _Html)
        head = "".join(f'<th scope="col">{cell}</th>' for cell in header)
        body = "\n".join(
            f'<tr><th scope="row">{row[0]}</th>'
            + "".join(f"<td>{cell}</td>" for cell in row[1:])
            + "</tr>"
            for row in rows
        )
        title = _Html.text(board.title)
        parts.append(
            f'<h2>{title}</h2>\n<div class=wide tabindex=0 role=region aria-label="{title}">'
            f"<table>\n<thead><tr>{head}</tr>"
            f"</thead>\n<tbody>\n{body}\n</tbody>\n</table></div>\n<p>{_Html.text(board.legend)}</p>"
        )
    return _PAGE.format(body="\n".join(parts))


def to_blocks(boards: Sequence[Board]) -> list[Block]:
    """Lay out boards for a terminal."""
    blocks: list[Block] = []
    for board in boards:
        header, rows = _table(board, _Plain)
        roles: dict[tuple[int, int], Role] = {
            (number, header.index(name)): "best"
            for number, row in enumerate(board.rows)
            for name in board.metrics
            if board.is_best(row, name)
        }
        blocks += [Heading(board.title), "", Table(header, rows, roles), "", board.legend, ""]
    return blocks[:-1]


class _Plain:
    """How a cell is written on a terminal, which points out the best itself."""

    @staticmethod
    def text(value: str) -> str:
        return value

    @staticmethod
    def bold(value: str) -> str:
        return value


class _Markdown:
    """How a cell is written in Markdown."""

    @staticmethod
    def text(value: str) -> str:
        plain = " ".join(html.escape(value, quote=False).splitlines())
        for sign in "\\|*_`[]":
            plain = plain.replace(sign, "\\" + sign)
        return plain

    @staticmethod
    def bold(value: str) -> str:
        return f"**{value}**"


class _Latex:
    """How a cell is written in LaTeX."""

    _SIGNS: Mapping[str, str] = {
        "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
        "†": r"$^\dagger$", "‡": r"$^\ddagger$",
        **{sign: "\\" + sign for sign in "&%$#_{}"},
        **{sign: f"${sign}$" for sign in "<>|"},  # other signs in the default font
    }  # fmt: skip

    @classmethod
    def text(cls, value: str) -> str:
        return "".join(cls._SIGNS.get(sign, sign) for sign in " ".join(value.splitlines()))

    @staticmethod
    def bold(value: str) -> str:
        return rf"\textbf{{{value}}}"


class _Html:
    """How a cell is written in HTML."""

    @staticmethod
    def text(value: str) -> str:
        return html.escape(value)

    @staticmethod
    def bold(value: str) -> str:
        return f"<strong>{value}</strong>"


Style = type[_Plain] | type[_Markdown] | type[_Latex] | type[_Html]


def _table(board: Board, style: Style) -> tuple[list[str], list[list[str]]]:
    """Return the header and the cells of a board for reading."""
    costs = [name for name in _COSTS if any(row.facts.get(name) is not None for row in board.rows)]
    header = ["model", "seeds", *board.metrics, *(_COSTS[name] for name in costs)]
    rows = []
    for row in board.rows:
        cells = [style.text(row.label), str(row.facts["n_seeds"])]
        for place, name in enumerate(board.metrics):
            best = board.is_best(row, name)
            cells.append(_shown(row.cells[name], style, best=best, wide=place == 0))
        rows.append([*cells, *(_cost(row, name) for name in costs)])
    return [style.text(name) for name in header], rows


def _shown(cell: Cell, style: Style, *, best: bool, wide: bool) -> str:
    if cell.value is None:
        return style.text("-")
    value = f"{cell.value:.4f}"
    if wide and cell.low is not None and cell.high is not None:
        value += f" [{cell.low:.4f}, {cell.high:.4f}]"
    if cell.p_best is not None and cell.p_best < LEVEL:
        value += " †"
    if cell.p_baseline is not None and cell.p_baseline < LEVEL:
        value += " ‡"
    shown = style.text(value)
    return style.bold(shown) if best else shown


def _cost(row: Row, name: str) -> str:
    value = row.facts.get(name)
    if not isinstance(value, int | float):
        return "-"
    return f"{value:.4f}" if name == "cost_usd" else f"{value:.1f}"


def to_json(boards: Sequence[Board]) -> str:
    """Write boards as JSON, raw values."""
    return json.dumps(to_values(boards), indent=2, ensure_ascii=False) + "\n"


def to_values(boards: Sequence[Board]) -> list[dict[str, object]]:
    """Return boards as what JSON can hold, raw values."""
    return [
        {
            "dataset": board.dataset,
            "version": board.version,
            "protocol_id": board.protocol_id,
            "protocol": board.protocol,
            "title": board.title,
            "metrics": list(board.metrics),
            "baseline": board.baseline,
            "rows": [
                {
                    "rank": row.rank,
                    "label": row.label,
                    "run_ids": [record.run_id for record in row.records],
                    "metrics": {name: vars(cell) for name, cell in row.cells.items()},
                    "facts": row.facts,
                }
                for row in board.rows
            ],
        }
        for board in boards
    ]


FORMATS: Mapping[str, Callable[[Sequence[Board]], str]] = {
    "csv": to_csv,
    "markdown": to_markdown,
    "latex": to_latex,
    "html": to_html,
    "json": to_json,
}
"""How a leaderboard can be written."""

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>mmrec-bench leaderboard</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 1.5rem auto; max-width: 90rem; }}
body {{ padding: 0 1rem; }}
.wide {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .3rem .7rem; text-align: right; white-space: nowrap; }}
th:first-child {{ text-align: left; }}
tbody th {{ min-width: 9rem; max-width: 32rem; white-space: normal; overflow-wrap: anywhere; }}
h2 {{ font-size: 1.15rem; overflow-wrap: anywhere; }}
thead th {{ border-bottom: 2px solid; }}
tbody tr {{ border-bottom: 1px solid color-mix(in srgb, currentColor 20%, transparent); }}
tbody th {{ font-weight: normal; }}
</style>
</head>
<body>
<main>
<h1>Leaderboard</h1>
{body}
</main>
</body>
</html>
"""
