"""`mmrec-bench instructions export`."""

from pathlib import Path

import click

from mmrec_bench.cli.output import echo_json
from mmrec_plugins.instructions.building.export import Form, export


@click.command(
    epilog="Example:  mmrec-bench instructions export "
    "results/instructions/amazon-sample/template --format sharegpt -o LLaMA-Factory/data"
)
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option(
    "--format",
    "form",
    type=click.Choice(["alpaca", "sharegpt"]),
    default="sharegpt",
    show_default=True,
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="A folder; may be LLaMA-Factory's data folder.",
)
@click.option(
    "--pictures/--no-pictures",
    default=True,
    show_default=True,
    help="Copy the pictures and put <image> where they stand.",
)
@click.option("--json", "as_json", is_flag=True, help="Print data set names and rows as JSON.")
def command(folder: Path, form: Form, output: Path, pictures: bool, as_json: bool) -> None:
    """Write the corpus in FOLDER in a form that LLaMA-Factory reads."""
    counts = export(folder, output, form, pictures=pictures)
    if as_json:
        echo_json(counts)
        return
    for name, n in counts.items():
        click.echo(f"{name}: {n} rows")
    click.echo(f"{output}: {form}; in LLaMA-Factory: --dataset_dir {output} --dataset NAME,NAME")
