"""`mmrec-bench new-plugin`: a complete distribution to change."""

from pathlib import Path

import click

from mmrec_bench.authoring.names import names_of
from mmrec_bench.authoring.rendering import KINDS, commands, render, write
from mmrec_bench.cli.options import FOLDER
from mmrec_bench.plugins import installed


@click.command(epilog="Example:  mmrec-bench new-plugin my-baseline")
@click.argument("name")
@click.option(
    "--kind", type=click.Choice(list(KINDS)), default="model", show_default=True, help="Of plugin."
)
@click.option(
    "-O",
    "--output",
    type=FOLDER,
    default=Path(),
    help="Folder in which the plugin's own folder is made.  [default: here]",
)
def command(name: str, kind: str, output: Path) -> None:
    """Write a new plugin: pyproject with its entry point, a working example, tests, README.

    It passes its own tests, ruff and mypy at once. An existing folder is left as it is.
    """
    names = names_of(name, kind, installed())
    folder = output / names.distribution
    texts = render(names, kind)
    write(texts, folder)
    click.echo(f"{folder}: {len(texts)} files for {KINDS[kind].noun} {names.component!r}; next:")
    click.echo("")
    click.echo(f"  cd {folder}")
    for line in commands(names, kind):
        click.echo(f"  {line}")
