"""`mmrec-bench evaluate`: metrics from stored predictions."""

from pathlib import Path

import click

from mmrec_bench import revisiting
from mmrec_bench.cli.output import echo_json
from mmrec_bench.plugins import installed
from mmrec_bench.tables import run_table
from mmrec_bench.terminal import show


@click.command()
@click.argument("run_ids", nargs=-1, required=True, metavar="RUN_ID...")
@click.option("--metrics", help="Comma-separated; measured beside the run's own.")
@click.option(
    "--results",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("results"),
    show_default=True,
)
@click.option(
    "--data-root",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where the data set lies now.  [default: where the run found it]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the records as JSON.")
def command(
    run_ids: tuple[str, ...],
    metrics: str | None,
    results: Path,
    data_root: Path | None,
    as_json: bool,
) -> None:
    """Measure the stored predictions of finished runs again and rewrite their records.

    No model is loaded, so new metrics cost seconds. What a record tells already is measured again
    beside them.
    """
    names = tuple(name.strip() for name in metrics.split(",")) if metrics else None
    plugins = installed()
    finished = [revisiting.evaluate(one, results, names, data_root, plugins) for one in run_ids]
    if as_json:
        echo_json([one.record.model_dump(mode="json") for one in finished])
        return
    # only runs on the same cases stand in one table
    protocols = dict.fromkeys(one.record.spec.protocol_id for one in finished)
    for protocol in protocols:
        same = [one for one in finished if one.record.spec.protocol_id == protocol]
        show(run_table(same))
