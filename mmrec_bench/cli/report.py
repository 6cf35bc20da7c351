"""`mmrec-bench report`: records as a site that opens from disk."""

from pathlib import Path

import click

from mmrec_bench.cli.output import echo_json
from mmrec_bench.plugins import installed
from mmrec_bench.report import ReportOptions, build_report
from mmrec_bench.report.serving import serve

_FOLDER = click.Path(path_type=Path, file_okay=False)


@click.command(
    epilog="Examples:  mmrec-bench report results -o report/   |   mmrec-bench report results "
    "../other/results --data-root data --title 'Gift cards'   |   mmrec-bench report --serve"
)
@click.argument(
    "results",
    nargs=-1,
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="[RESULTS]...",
)
@click.option("-o", "--output", type=_FOLDER, default=Path("report"), show_default=True)
@click.option("--title", default="mmrec-bench report", show_default=True, help="Of the pages.")
@click.option("--metrics", help="Comma-separated, in this order.  [default: all]")
@click.option("--baseline", metavar="MODEL", help="Also test every row against this model.")
@click.option("--dataset", "only", multiple=True, help="Only this data set; can be given again.")
@click.option(
    "--data-root",
    "data_roots",
    multiple=True,
    type=_FOLDER,
    help="Where data sets lie, for the case explorer; can be given again.  [default: where each "
    "run found its own]",
)
@click.option(
    "--max-cases",
    type=click.IntRange(min=0),
    default=20_000,
    show_default=True,
    help="Cases in the explorer of a board; 0 = no explorer.",
)
@click.option("--no-pictures", is_flag=True, help="Write no pictures of items.")
@click.option(
    "--serve", "serving", is_flag=True, help="Then show it at 127.0.0.1, with runs under way."
)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8765, show_default=True, help="0 = any."
)
@click.option("--json", "as_json", is_flag=True, help="Print what was written as JSON.")
def command(
    results: tuple[Path, ...],
    output: Path,
    title: str,
    metrics: str | None,
    baseline: str | None,
    only: tuple[str, ...],
    data_roots: tuple[Path, ...],
    max_cases: int,
    no_pictures: bool,
    serving: bool,
    port: int,
    as_json: bool,
) -> None:
    """Write a site of all records below one or more RESULTS folders.

    OUTPUT/index.html opens from disk: leaderboards, figures, and for runs whose predictions and
    data set are here an explorer of the cases, with pictures, prompts and answers. The site needs
    no server and asks no other host. It holds titles and pictures of the data set: see the data
    set's licence before you pass it on. A folder that is not a report is never overwritten.
    """
    folders = results or (Path("results"),)
    options = ReportOptions(
        title=title,
        max_cases=max_cases,
        pictures=not no_pictures,
        data_roots=data_roots,
        metrics=tuple(name.strip() for name in metrics.split(",")) if metrics else (),
        baseline=baseline,
        only=only,
    )
    plugins = installed()
    if serving:
        serve(folders, output, options, plugins, port, click.echo)
        return
    written = build_report(folders, output, options, plugins)
    if as_json:
        echo_json({"index": str(output / "index.html"), **vars(written)})
        return
    for note in written.notes:
        click.echo(f"note: {note}", err=True)
    click.echo(
        f"{output / 'index.html'}: {written.n_boards} leaderboards, {written.n_rows} rows, "
        f"{written.n_cases} cases, {written.n_pictures} pictures"
    )
