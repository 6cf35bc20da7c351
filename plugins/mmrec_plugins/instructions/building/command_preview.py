"""`mmrec-bench instructions preview`."""

from pathlib import Path

import click

from mmrec_bench.files import atomic_write
from mmrec_plugins.instructions.building.preview import preview


@click.command(
    epilog="Example:  mmrec-bench instructions preview results/instructions/amazon-sample/template"
)
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The page.  [default: FOLDER/preview.html]",
)
@click.option(
    "--examples",
    type=click.IntRange(min=1),
    default=12,
    show_default=True,
    help="Examples of each kind.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
def command(folder: Path, output: Path | None, examples: int, seed: int) -> None:
    """Show examples of the corpus in FOLDER with their pictures, as one HTML page."""
    page = preview(folder, per_kind=examples, seed=seed).encode()
    path = output or folder / "preview.html"
    atomic_write(path, page)
    click.echo(f"{path}: {len(page) / 2**20:.1f} MiB")
