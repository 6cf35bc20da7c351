"""`mmrec-bench run`: the main job."""

import json
import sys
from pathlib import Path
from typing import Any

import click
import yaml

from mmrec_bench import planning, runner
from mmrec_bench.cli import echo_json
from mmrec_bench.config import RunConfig, parse_override, read_yaml
from mmrec_bench.errors import ConfigError
from mmrec_bench.paths import data_root as default_data_root
from mmrec_bench.plugins import installed
from mmrec_bench.tables import run_table

_FOLDER = click.Path(path_type=Path, file_okay=False)


@click.command(
    epilog="Examples:  mmrec-bench run --model popularity --dataset movielens "
    "-o protocol.candidates=full   |   mmrec-bench run --config configs/amazon/chatglm2-ptv2.yaml"
)
@click.option("--model", "-m", help="A registered model; see `mmrec-bench list models`.")
@click.option("--dataset", "-d", help="A registered data set; see `mmrec-bench list datasets`.")
@click.option(
    "--instructions", help="A registered instruction builder.  [default: the model's choice]"
)
@click.option("--metrics", help="Comma-separated, e.g. ndcg@10,recall@20,auc.")
@click.option("--protocol", help="leave-one-out | user-ratio | random-ratio | global-time")
@click.option(
    "--config", type=click.Path(path_type=Path, dir_okay=False), help="A YAML configuration."
)
@click.option(
    "overrides",
    "-o",
    "--option",
    multiple=True,
    metavar="SECTION.KEY=VALUE",
    help="Set one option, e.g. -o model.backbone=smollm2 -o protocol.n_candidates=50.",
)
@click.option("--seed", type=int, help="Seed of the model.  [default: 0]")
@click.option(
    "--data-root",
    type=_FOLDER,
    help="Where the data set's files lie.  [default: $MMREC_DATA, data]",
)
@click.option("--results", type=_FOLDER, default=Path("results"), show_default=True)
@click.option("--device", default="auto", show_default=True, help="auto | cpu | cuda | cuda:1 ...")
@click.option("--limit-cases", type=int, help="Score only the first n test cases.")
@click.option(
    "--resume/--fresh", default=True, help="Go on where a killed run stopped, or start anew."
)
@click.option(
    "--baselines/--no-baselines", default=True, help="Run the model's baselines in the same call."
)
@click.option(
    "--images",
    type=click.Choice(["real", "none", "shuffled", "grey"]),
    help="What stands in the place of the pictures; see `mmrec-bench ablate`.  [default: real]",
)
@click.option(
    "--permutations",
    type=click.IntRange(min=1),
    help="Orders of the candidates in which a language model is asked each case.  [default: 1]",
)
@click.option(
    "--transfer",
    "transfers",
    multiple=True,
    metavar="users|items|both|dataset:NAME[:KEY=VALUE,...]",
    help="Test on what was not tuned on: a share of users or items that is held out (-o "
    "transfer.share=0.2), or this data set after tuning on another, e.g. --transfer "
    "dataset:amazon:category=All_Beauty. The same as -o transfer.hold_out and transfer.source.",
)
@click.option(
    "--shots",
    type=click.IntRange(min=0),
    help="With --transfer: interactions of a test user that are shown, 0 = zero-shot, k = "
    "few-shot.  [default: as the protocol shows]",
)
@click.option(
    "--probe-memory",
    is_flag=True,
    help="Also test whether the untuned backbone completes titles of the data set that it was not "
    "shown, beside titles that nobody can know; the record tells. Local language models only.",
)
@click.option(
    "--strict", is_flag=True, help="Damaged data is an error; the same as -o dataset.strict=true."
)
@click.option(
    "--batch",
    is_flag=True,
    help="Chat models: submit the requests as a batch, leave, and come back with the same command "
    "(-o model.batch=true).",
)
@click.option(
    "--max-cost",
    type=click.FloatRange(min=0, min_open=True),
    metavar="DOLLARS",
    help="Chat models: stop cleanly before the requests of this run cost more (-o model.max_cost).",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Print the resolved run, and what a chat model's answers would cost, and stop.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the records as JSON.")
def command(
    model: str | None,
    dataset: str | None,
    instructions: str | None,
    metrics: str | None,
    protocol: str | None,
    config: Path | None,
    overrides: tuple[str, ...],
    seed: int | None,
    data_root: Path | None,
    results: Path,
    device: str,
    limit_cases: int | None,
    resume: bool,
    baselines: bool,
    images: str | None,
    permutations: int | None,
    transfers: tuple[str, ...],
    shots: int | None,
    probe_memory: bool,
    strict: bool,
    batch: bool,
    max_cost: float | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Run a model on a data set, beside its baselines, and write records and predictions.

    A run that was killed and is started again goes on where it stopped and gives the same record.
    """
    chosen = {
        "model": model,
        "dataset": dataset,
        "instructions": instructions,
        "metrics": metrics,
        "protocol": protocol,
        "seed": seed,
        "limit_cases": limit_cases,
        "images": images,
        "permutations": permutations,
    }
    if strict:
        overrides = (*overrides, "dataset.strict=true")
    if batch:
        overrides = (*overrides, "model.batch=true")
    if max_cost is not None:
        overrides = (*overrides, f"model.max_cost={max_cost}")
    overrides = (*transfer_overrides(transfers, shots), *overrides)
    run_config = resolve_config(config, chosen, overrides)
    root = data_root or default_data_root()
    workspace = planning.Workspace(
        results, root, device, fresh=not resume, probe_memory=probe_memory
    )
    plugins = installed()
    planning.check_config(run_config, plugins)
    task = runner.prepare(run_config, workspace, plugins)
    planned = planning.plan(task, workspace, plugins, baselines=baselines)
    if dry_run:
        specs = [
            one.spec.model_dump(mode="json")
            | {"run_id": one.spec.run_id}
            | ({"estimate": cost} if (cost := _estimate(one, task, workspace)) else {})
            for one in planned
        ]
        if as_json:
            echo_json(specs)
        else:
            click.echo(yaml.safe_dump_all(specs, sort_keys=False, allow_unicode=True), nl=False)
        return
    finished, failures = runner.run_all(planned, task, workspace, plugins)
    if as_json:
        echo_json([one.record.model_dump(mode="json") for one in finished])
    else:
        click.echo(run_table(finished))
    if failures:
        sys.exit(1)


def transfer_overrides(transfers: tuple[str, ...], shots: int | None) -> list[str]:
    """Turn --transfer and --shots into `transfer.key=value` overrides.

    Raises:
        ConfigError: neither a mode nor a data set.
    """
    overrides = []
    for text in transfers:
        if text in ("users", "items", "both"):
            overrides.append(f"transfer.hold_out={text}")
            continue
        kind, _, rest = text.partition(":")
        name, _, options = rest.partition(":")
        pairs = [pair for pair in options.split(",") if pair]
        if kind != "dataset" or not name or not all("=" in pair for pair in pairs):
            raise ConfigError(
                f"--transfer {text!r} is none of users, items, both and dataset:NAME (with options "
                "dataset:NAME:KEY=VALUE,...)"
            )
        source: dict[str, Any] = {"name": name}
        for pair in pairs:
            _, key, value = parse_override(f"source.{pair}")
            source[key] = value
        overrides.append(f"transfer.source={json.dumps(source)}")
    return overrides if shots is None else [*overrides, f"transfer.shots={shots}"]


def _estimate(
    one: planning.PlannedRun, task: planning.Task, workspace: planning.Workspace
) -> dict[str, str | int | float]:
    return runner.estimate(one, task, workspace, installed())


def resolve_config(
    path: Path | None, chosen: dict[str, Any], overrides: tuple[str, ...]
) -> RunConfig:
    """Lay the command line's choices over the configuration file.

    Raises:
        ConfigError: no model or data set, an unknown key, or a value of the wrong type.
    """
    values: dict[str, Any] = read_yaml(path) if path is not None else {}
    for key, value in chosen.items():
        if value is None:
            continue
        if key == "metrics":
            values[key] = tuple(name.strip() for name in value.split(","))
        elif key == "protocol":
            values[key] = {**(values.get(key) or {}), "split": value}
        else:
            values[key] = value
    for key in ("model", "dataset"):
        if key not in values:
            raise click.UsageError(
                f"--{key} is missing; `mmrec-bench list {key}s` shows what there is"
            )
    return RunConfig.parse(values, overrides)
