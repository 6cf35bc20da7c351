"""`mmrec-bench data`: fetch data sets from their publishers."""

import logging
import time
from pathlib import Path

import click

from mmrec_bench.cli.output import echo_json
from mmrec_bench.config import merge_overrides
from mmrec_bench.errors import ConfigError
from mmrec_bench.interfaces import Fetches, FetchProgress
from mmrec_bench.paths import data_root as default_data_root
from mmrec_bench.plugins import installed

log = logging.getLogger("mmrec_bench")


@click.group()
def command() -> None:
    """Fetch data sets from their publishers."""


@command.command()
@click.argument("dataset")
@click.option("--category", help="Short for -o dataset.category=...")
@click.option("overrides", "-o", "--option", multiple=True, metavar="dataset.KEY=VALUE")
@click.option(
    "--data-root",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where to put the files.  [default: $MMREC_DATA, data]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the files as JSON.")
def fetch(
    dataset: str,
    category: str | None,
    overrides: tuple[str, ...],
    data_root: Path | None,
    as_json: bool,
) -> None:
    """Download DATASET from its publisher's addresses.

    A download that was cut goes on where it stopped; files take their place only when whole.
    """
    values = merge_overrides({"dataset": {"name": dataset}}, overrides)["dataset"]
    if category is not None:
        values["category"] = category
    registry = installed()["dataset"]
    options = {key: value for key, value in values.items() if key != "name"}
    plugin = registry.create(dataset, registry.configure(dataset, options, "dataset"))
    if not isinstance(plugin, Fetches):
        raise ConfigError(
            f"data set {dataset!r} cannot be fetched; its files must be put in place by hand"
        )
    root = data_root or default_data_root()
    paths = plugin.fetch(root, _show_progress(dataset))
    if as_json:
        echo_json([str(path) for path in paths])
        return
    for path in paths:
        click.echo(path)


def _show_progress(dataset: str) -> FetchProgress:
    """Log how much of each file is there, at most once a second a file."""
    shown: dict[str, float] = {}

    def show(name: str, done: int, total: int | None) -> None:
        now = time.monotonic()
        if done == total or now - shown.get(name, 0.0) >= 1.0:
            shown[name] = now
            of = f" of {total / 2**20:.1f}" if total else ""
            log.info("fetching %s: %s %.1f%s MiB", dataset, name, done / 2**20, of)

    return show
