"""Tables on a terminal, and the same as plain text everywhere else.

A command builds blocks (lines of text and tables) once; `show` prints them. On a terminal they are
laid out by rich, in its width; elsewhere (a pipe, a file) the text is always the same.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

Role = Literal["best", "good", "bad", "dim"]

_STYLES: dict[Role, str] = {
    "best": "bold green",
    "good": "green",
    "bad": "red",
    "dim": "dim",
}
_WIDEST_FIRST = 0.45
"""Share of the width that the first column may take where a table has to be folded."""


@dataclass(frozen=True)
class Table:
    """Cells of a table, and what to point out in them where there is colour.

    Attributes:
        header: names of the columns.
        rows: cells, as many a row as the header has.
        roles: (row, column) -> how a cell is shown on a terminal; "best" is bold.
        n_left: columns from the left that are aligned left; the others are right.
        headed: whether plain text shows the header and a rule; a terminal always does.
        wraps: whether the last column is text that may go on in the next line.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    roles: "dict[tuple[int, int], Role] | None" = None
    n_left: int = 1
    headed: bool = True
    wraps: bool = False


@dataclass(frozen=True)
class Heading:
    """A line that stands above what follows; plain text shows it as any line."""

    text: str


Block = str | Heading | Table


def plain(blocks: Sequence[Block]) -> str:
    """Return blocks as text, as wide as it needs to be."""
    lines: list[str] = []
    for block in blocks:
        if isinstance(block, Table):
            lines += align(block.header, block.rows, n_left=block.n_left, headed=block.headed)
        else:
            lines.append(block.text if isinstance(block, Heading) else block)
    return "\n".join(lines)


def show(blocks: Sequence[Block]) -> None:
    """Print blocks on stdout: laid out on a terminal, else as `plain` text."""
    if not is_terminal():
        sys.stdout.write(plain(blocks) + "\n")
        sys.stdout.flush()
        return
    from rich.console import Console  # noqa: PLC0415 - about 80 ms, for a terminal alone

    console = Console(highlight=False)
    for block in blocks:
        for part in _laid_out(block, console):
            console.print(part)


def is_terminal() -> bool:
    """Return whether stdout is a terminal that shows more than plain text."""
    return sys.stdout.isatty()


def align(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    n_left: int = 1,
    headed: bool = True,
) -> list[str]:
    """Lay out a table as text: columns from the left, then right-aligned ones, a rule below."""
    shown = [header, *rows] if headed else list(rows)
    widths = [max((len(row[i]) for row in shown), default=0) for i in range(len(header))]

    def line(row: Sequence[str]) -> str:
        cells = [
            cell.ljust(width) if place < n_left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        return "  ".join(cells).rstrip()

    rule = [line(header), "  ".join("-" * width for width in widths)] if headed else []
    return [*rule, *map(line, rows)]


def printable(text: str) -> str:
    """Return text without what a terminal would obey: control characters, escape sequences."""
    return "".join(
        one if one.isprintable() or one == "\n" else "\N{REPLACEMENT CHARACTER}" for one in text
    )


def folds(widths: Sequence[int], room: int) -> list[list[int]]:
    """Divide a table's columns into tables that fit, each beginning with the first column.

    Args:
        widths: of the columns, the gaps between them included.
        room: of the terminal.

    Returns:
        Column numbers of each table, in order.
    """
    tables: list[list[int]] = [[0]]
    used = widths[0]
    for column, width in enumerate(widths[1:], start=1):
        if used + width > room and len(tables[-1]) > 1:
            tables.append([0])
            used = widths[0]
        tables[-1].append(column)
        used += width
    return tables


def _laid_out(block: Block, console: "Console") -> "list[RenderableType]":
    from rich.text import Text  # noqa: PLC0415

    if isinstance(block, Heading):
        return [Text(printable(block.text), style="bold")]
    if isinstance(block, str):
        return [Text(printable(block))]
    return _tables(block, console)


def _tables(table: Table, console: "Console") -> "list[RenderableType]":
    """Return the table in one piece where it fits, else folded."""
    from rich.cells import cell_len  # noqa: PLC0415

    gap = 2
    shown = [table.header, *table.rows]
    widths = [
        max(cell_len(printable(row[i])) for row in shown) + gap for i in range(len(table.header))
    ]
    room = console.width
    if table.wraps or sum(widths) - gap <= room:
        return [_rich(table, list(range(len(table.header))), {})]
    first = min(widths[0], max(12, int(room * _WIDEST_FIRST)))
    parts: list[RenderableType] = []
    for columns in folds([first, *widths[1:]], room + gap):
        parts += [_rich(table, columns, {0: first - gap}), ""]
    return parts[:-1]


def _rich(table: Table, columns: Sequence[int], limits: dict[int, int]) -> "RenderableType":
    """Return some columns of a table; a first column that is too wide is cut with an ellipsis."""
    from rich import box  # noqa: PLC0415
    from rich.table import Table as RichTable  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    made = RichTable(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),  # and the divider of the box: two spaces
        header_style="bold cyan",
    )
    last = len(table.header) - 1
    for column in columns:
        made.add_column(
            Text(printable(table.header[column])),
            justify="left" if column < table.n_left else "right",
            no_wrap=not (table.wraps and column == last),
            overflow="fold" if table.wraps and column == last else "ellipsis",
            max_width=limits.get(column),
        )
    roles = table.roles or {}
    for number, row in enumerate(table.rows):
        cells = []
        for column in columns:
            role = roles.get((number, column))
            cells.append(Text(printable(row[column]), style=_STYLES[role] if role else ""))
        made.add_row(*cells)
    return made
