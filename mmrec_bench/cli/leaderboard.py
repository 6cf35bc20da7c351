"""`mmrec-bench leaderboard`: records to tables."""

import sys
from pathlib import Path

import click

from mmrec_bench.cli.output import echo_json
from mmrec_bench.errors import ConfigError
from mmrec_bench.files import atomic_write, is_stream
from mmrec_bench.leaderboard import FORMATS, Board, build, render, to_blocks, to_values
from mmrec_bench.records import read_records
from mmrec_bench.terminal import is_terminal, show

_SUFFIXES = {"csv": ".csv", "markdown": ".md", "latex": ".tex", "html": ".html", "json": ".json"}


@click.command(
    epilog="Examples:  mmrec-bench leaderboard results   |   mmrec-bench leaderboard results "
    "../other/results --metrics ndcg@10,hit_rate@10 --baseline popularity -o table.tex"
)
@click.argument(
    "results",
    nargs=-1,
    required=True,
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="RESULTS...",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="One file of all data sets; its ending chooses the format.  [default: "
    "RESULTS/leaderboard/<dataset>.csv]",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(list(FORMATS)),
    help="The format, where the ending of --output does not tell.  [default: csv]",
)
@click.option("--metrics", help="Comma-separated, in this order.  [default: all]")
@click.option(
    "--sort", metavar="METRIC", help="The metric that ranks.  [default: the first of --metrics]"
)
@click.option(
    "--baseline",
    metavar="MODEL",
    help="Also test every row against this model (column p_baseline).",
)
@click.option("--dataset", "only", multiple=True, help="Only this data set; can be given again.")
@click.option("--check", is_flag=True, help="Write nothing; fail where a table is out of date.")
@click.option("--json", "as_json", is_flag=True, help="Print the tables as JSON; write nothing.")
def command(
    results: tuple[Path, ...],
    output: Path | None,
    form: str | None,
    metrics: str | None,
    sort: str | None,
    baseline: str | None,
    only: tuple[str, ...],
    check: bool,
    as_json: bool,
) -> None:
    """Write the tables of all records below one or more RESULTS folders.

    One row a model with its options; runs that differ in their seed alone are one row. Rows are
    ranked only within one data set and protocol. Each row is tested against the best one over the
    same cases, where the per-case values beside the records are there. A record that was changed by
    hand is refused, and so are two records of one run with different numbers. Without --output the
    tables are also shown, where this is a terminal.
    """
    stored = read_records(*results)
    known = {one.record.spec.dataset.name for one in stored}
    if unknown := set(only) - known:
        raise ConfigError(f"no record of data set {min(unknown)!r}; there are {sorted(known)}")
    if only:
        stored = [one for one in stored if one.record.spec.dataset.name in only]
    names = tuple(name.strip() for name in metrics.split(",")) if metrics else ()
    boards = build(stored, metrics=names, sort=sort, baseline=baseline)
    if as_json:
        echo_json(to_values(boards))
        return
    tables = _tables(boards, results[0] / "leaderboard", output, form)
    if check:
        stale = [path for path, text in tables.items() if not _is_current(path, text)]
        for path in stale:
            click.echo(f"{path} is not what the records say", err=True)
        sys.exit(1 if stale else 0)
    if output is None and is_terminal():
        show([*to_blocks(boards), ""])
    for path, text in tables.items():
        atomic_write(path, text.encode())
        shown = [b for b in boards if output is not None or b.dataset == path.stem]
        # Behind a table on standard output, the line would be part of it.
        click.echo(f"{path}: {sum(len(board.rows) for board in shown)} rows", err=is_stream(path))


def _tables(
    boards: list[Board], folder: Path, output: Path | None, form: str | None
) -> dict[Path, str]:
    """Return texts by path: one for all boards, or one a data set below `folder`."""
    if output is not None:
        return {output: render(boards, form or _format_of(output))}
    form = form or "csv"
    by_dataset: dict[str, list[Board]] = {}
    for board in boards:
        by_dataset.setdefault(board.dataset, []).append(board)
    return {
        folder / f"{name}{_SUFFIXES[form]}": render(some, form)
        for name, some in sorted(by_dataset.items())
    }


def _format_of(output: Path) -> str:
    for form, suffix in _SUFFIXES.items():
        if output.suffix == suffix:
            return form
    raise ConfigError(
        f"{output} does not tell its format: end it in {', '.join(_SUFFIXES.values())}, or give "
        "--format"
    )


def _is_current(path: Path, text: str) -> bool:
    try:
        # A pipe has no content to compare, and reading one may wait for ever.
        return path.is_file() and path.read_text(encoding="utf-8") == text
    except (OSError, UnicodeDecodeError):
        return False
