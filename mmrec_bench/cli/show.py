"""`mmrec-bench show`: one record."""

from pathlib import Path

import click
import yaml

from mmrec_bench.cli.output import echo_json
from mmrec_bench.errors import UnknownNameError
from mmrec_bench.records import Stored, read_record, record_files
from mmrec_bench.tables import record_table
from mmrec_bench.terminal import is_terminal, show


@click.command()
@click.argument("run_id")
@click.option(
    "--results",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("results"),
    show_default=True,
)
@click.option("--json", "as_json", is_flag=True, help="Print the record as JSON.")
def command(run_id: str, results: Path, as_json: bool) -> None:
    """Show the record of a run; the beginning of its id is enough where it is unique."""
    record = find_record(results, run_id).record
    if as_json:
        echo_json(record.model_dump(mode="json"))
        return
    if is_terminal():
        show(record_table(record))
        return
    values = record.model_dump(mode="json")
    values["metrics"] = {
        name: f"{one.value} [{one.low}, {one.high}] over {one.n} cases"
        for name, one in record.metrics.items()
    }
    click.echo(f"# {record.title}")
    click.echo(yaml.safe_dump(values, sort_keys=False, allow_unicode=True), nl=False)


def find_record(results: Path, run_id: str) -> Stored:
    """Return the record whose id is, or begins with, `run_id`.

    Raises:
        UnknownNameError: none, or more than one.
    """
    paths = {path.stem: path for path in record_files(results)}
    matches = [run_id] if run_id in paths else [one for one in paths if one.startswith(run_id)]
    if len(matches) != 1:
        raise UnknownNameError("run", run_id, matches or paths)
    path = paths[matches[0]]
    return Stored(path, read_record(path))
