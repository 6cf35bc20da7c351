"""`mmrec-bench ablate`: does the model use the pictures?"""

from pathlib import Path

import click

from mmrec_bench import revisiting
from mmrec_bench.cli.output import echo_json
from mmrec_bench.config import Images
from mmrec_bench.planning import Workspace
from mmrec_bench.plugins import installed
from mmrec_bench.runfolder import read_request
from mmrec_bench.tables import ablation_rows, ablation_table
from mmrec_bench.terminal import show

_FOLDER = click.Path(path_type=Path, file_okay=False)
_MODES: tuple[Images, ...] = ("real", "none", "shuffled", "grey")


@click.command(epilog="Example:  mmrec-bench ablate chatglm2-ptv2-s0-1f0c2a9b44 --images none")
@click.argument("run_id", metavar="RUN_ID")
@click.option(
    "--images",
    "chosen",
    multiple=True,
    type=click.Choice(_MODES[1:]),
    help="Only this kind; can be given again.  [default: all]",
)
@click.option("--results", type=_FOLDER, default=Path("results"), show_default=True)
@click.option(
    "--data-root",
    type=_FOLDER,
    help="Where the data set lies now.  [default: where the run found it]",
)
@click.option("--device", default="auto", show_default=True, help="auto | cpu | cuda | cuda:1 ...")
@click.option("--json", "as_json", is_flag=True, help="Print the differences as JSON.")
def command(
    run_id: str,
    chosen: tuple[str, ...],
    results: Path,
    data_root: Path | None,
    device: str,
    as_json: bool,
) -> None:
    """Repeat a run with its pictures taken away, shuffled between items, and replaced by grey.

    Everything else stays: cases, candidates, seeds. The model is tuned anew each time, so that each
    row is the best it can do with what it sees. A model that uses the pictures loses in all three;
    one that only likes that there are some loses with none alone. Each repetition is a run of its
    own with its record; those that exist are not run again.
    """
    root = data_root or read_request(results, run_id).data_root
    modes = [mode for mode in _MODES if mode == "real" or not chosen or mode in chosen]
    workspace = Workspace(results, root, device)
    finished = revisiting.ablate(run_id, workspace, modes, installed())
    if as_json:
        echo_json(ablation_rows(finished))
    else:
        show(ablation_table(finished))
