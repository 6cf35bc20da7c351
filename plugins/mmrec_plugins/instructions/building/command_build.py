"""`mmrec-bench instructions build`."""

from pathlib import Path

import click

from mmrec_bench.cli.output import echo_json
from mmrec_bench.config import read_yaml
from mmrec_bench.paths import data_root as default_data_root
from mmrec_bench.planning import Workspace
from mmrec_bench.plugins import installed
from mmrec_plugins.instructions.building.config import Language, default_output, parse_request
from mmrec_plugins.instructions.building.estimating import Estimate, estimate
from mmrec_plugins.instructions.building.report import account_line, kinds_table
from mmrec_plugins.instructions.building.writing import build, open_workshop

_FOLDER = click.Path(path_type=Path, file_okay=False)


@click.command(
    epilog="Example:  mmrec-bench instructions build --dataset amazon --kind all "
    "--teacher lm:smollm2 --limit 50"
)
@click.option("--dataset", "-d", help="A registered data set; see `mmrec-bench list datasets`.")
@click.option(
    "--kind",
    "-k",
    default="all",
    show_default=True,
    help="profile, attributes, zero-shot, few-shot, all, or several with commas.",
)
@click.option(
    "--teacher",
    "-t",
    help="name or name:model; see `mmrec-bench list teachers`.  [default: template]",
)
@click.option(
    "--config", type=click.Path(path_type=Path, dir_okay=False), help="A YAML configuration."
)
@click.option(
    "overrides",
    "-o",
    "--option",
    multiple=True,
    metavar="SECTION.KEY=VALUE",
    help="Sections: dataset, protocol, encoder, vectors, instructions, teacher, building.",
)
@click.option(
    "--data-root",
    type=_FOLDER,
    help="Where the data set's files lie.  [default: $MMREC_DATA, data]",
)
@click.option("--seed", type=click.IntRange(min=0), help="Seed of what is drawn.  [default: 0]")
@click.option("--limit", type=click.IntRange(min=1), help="Only so many users and items.")
@click.option("--language", type=click.Choice(["en", "zh"]), default="en", show_default=True)
@click.option(
    "--output",
    "-O",
    type=_FOLDER,
    help="[default: results/instructions/<dataset>/<teacher>]",
)
@click.option("--dry-run", is_flag=True, help="Count requests and tokens, ask nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def command(
    dataset: str | None,
    kind: str,
    teacher: str | None,
    config: Path | None,
    overrides: tuple[str, ...],
    data_root: Path | None,
    seed: int | None,
    limit: int | None,
    language: Language,
    output: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Let a teacher write an instruction corpus from a data set's train interactions.

    Data set, protocol and split are those of `run` with the same options. A build that was killed
    and is started again goes on where it stopped.
    """
    values = read_yaml(config) if config is not None else {}
    if dataset is not None:
        values["dataset"] = dataset
    if seed is not None:
        values["seed"] = seed
    if "dataset" not in values:
        raise click.UsageError(
            "--dataset is missing; `mmrec-bench list datasets` shows what there is"
        )
    request = parse_request(
        values, overrides, kind=kind, teacher=teacher, language=language, limit=limit
    )
    workspace = Workspace(Path("results"), data_root or default_data_root())
    workshop = open_workshop(request, workspace, installed())
    if dry_run:
        _tell(estimate(workshop), as_json=as_json)
        return
    folder = output or default_output(workshop.origin.dataset, request.teacher_label)
    report = build(workshop, folder)
    if as_json:
        echo_json(report.model_dump(mode="json"))
        return
    click.echo(kinds_table(report))
    click.echo(f"{folder}: {report.n_kept} entries; {account_line(report)}")


def _tell(found: Estimate, *, as_json: bool) -> None:
    if as_json:
        echo_json(found.as_json())
        return
    for line in found.lines():
        click.echo(line)
