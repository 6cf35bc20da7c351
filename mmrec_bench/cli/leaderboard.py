"""`mmrec-bench leaderboard`: records to CSV."""

import sys
from pathlib import Path

import click

from mmrec_bench import leaderboard
from mmrec_bench.records import read_records


@click.command()
@click.argument("results", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="One CSV of all data sets.  [default: RESULTS/leaderboard/<dataset>.csv]",
)
@click.option("--check", is_flag=True, help="Write nothing; fail where a table is out of date.")
def command(results: Path, output: Path | None, check: bool) -> None:
    """Write the table of all records below RESULTS.

    Rows are ranked only within one data set and protocol; a record that was changed by hand is
    refused.
    """
    records = read_records(results)
    tables = leaderboard.tables(records, results / "leaderboard", output)
    stale = [path for path, text in tables.items() if not leaderboard.is_current(path, text)]
    if check:
        for path in stale:
            click.echo(f"{path} is not what the records say", err=True)
        sys.exit(1 if stale else 0)
    for path, text in tables.items():
        leaderboard.write(path, text)
        click.echo(f"{path}: {text.count(chr(10)) - 1} rows")
