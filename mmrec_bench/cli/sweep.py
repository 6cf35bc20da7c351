"""`mmrec-bench sweep`: many runs from files."""

import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path

import click

from mmrec_bench.cli.options import hear, where_it_runs, who_hears
from mmrec_bench.cli.output import echo_json
from mmrec_bench.paths import data_root as default_data_root
from mmrec_bench.planning import Workspace
from mmrec_bench.plugins import installed
from mmrec_bench.sweeps import Step, read_sweep, sweep, wants_baselines


@click.command(epilog="Example:  mmrec-bench sweep configs/sweeps/baselines.yaml --data-root data")
@click.argument(
    "files",
    nargs=-1,
    required=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE...",
)
@where_it_runs
@who_hears
@click.option("--fresh", is_flag=True, help="Run again what has a record already.")
@click.option("--dry-run", is_flag=True, help="List the runs and stop.")
@click.option("--json", "as_json", is_flag=True, help="Print the outcomes as JSON.")
def command(
    files: tuple[Path, ...],
    data_root: Path | None,
    results: Path,
    device: str,
    trackers: tuple[str, ...],
    fresh: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Run models x data sets x seeds x variants, as each FILE says.

    A FILE is YAML: `models` and `datasets` (names, or mappings with options), `seeds`, `variants`
    (sections laid over the others, e.g. {images: none}), `base` (sections that all share) and
    `configs` (whole configuration files, patterns allowed). A run that has a record is skipped, one
    that was killed goes on, one that fails is named at the end and the rest goes on; the exit code
    is 1 where any failed.
    """
    plans = [(read_sweep(path), wants_baselines(path)) for path in files]
    if dry_run:
        titles = [title for runs, _ in plans for title, _ in runs]
        if as_json:
            echo_json(titles)
        else:
            click.echo("\n".join(titles))
        return
    hear(trackers)
    workspace = Workspace(results, data_root or default_data_root(), device, fresh=fresh)
    steps: list[Step] = []
    for runs, baselines in plans:
        tell = partial(_tell, len(runs), quiet=as_json)
        steps += sweep(runs, workspace, installed(), baselines=baselines, on_step=tell)
    failed = [step for step in steps if step.outcome == "failed"]
    if as_json:
        echo_json([asdict(step) for step in steps])
    else:
        counts = {name: sum(s.outcome == name for s in steps) for name in ("done", "was there")}
        click.echo(
            f"\n{counts['done']} done, {counts['was there']} were there, {len(failed)} failed"
        )
        for step in failed:
            click.echo(f"failed: {step.title}: {step.reason}")
    sys.exit(1 if failed else 0)


def _tell(total: int, number: int, step: Step, *, quiet: bool) -> None:
    if not quiet:
        click.echo(f"{number}/{total} {step.outcome}: {step.title}")
