"""`mmrec-bench plugins`: what is installed, and what is broken and why."""

from dataclasses import asdict

import click

from mmrec_bench.cli.output import echo_json
from mmrec_bench.plugins import installed


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(as_json: bool) -> None:
    """List plugins with their distribution and version; broken ones with the reason."""
    plugins = installed()
    if as_json:
        echo_json(
            {
                "loaded": [asdict(one) for one in plugins.loaded],
                "broken": [asdict(one) for one in plugins.broken],
            }
        )
        return
    for one in plugins.loaded:
        click.echo(f"ok      {one.distribution} {one.version}  {one.name}  {one.module}")
    for bad in plugins.broken:
        click.echo(f"broken  {bad.distribution}  {bad.name}  {bad.reason}")
