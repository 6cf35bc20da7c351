"""`mmrec-bench run`: the main job."""

import json
import sys
from pathlib import Path
from typing import Any

import click
import yaml

from mmrec_bench import planning, runner
from mmrec_bench.cli.options import (
    hear,
    resolve_config,
    together,
    what_runs,
    where_it_runs,
    who_hears,
)
from mmrec_bench.cli.output import echo_json
from mmrec_bench.config import parse_override
from mmrec_bench.errors import ConfigError
from mmrec_bench.paths import data_root as default_data_root
from mmrec_bench.plugins import installed
from mmrec_bench.tables import run_table
from mmrec_bench.terminal import show

_which_cases_and_runs = together(
    click.option("--limit-cases", type=int, help="Score only the first n test cases."),
    click.option(
        "--resume/--fresh",
        default=True,
        help="Go on where a killed run stopped, or start anew.",
    ),
    click.option(
        "--baselines/--no-baselines",
        default=True,
        help="Run the model's baselines in the same call.",
    ),
)
"""The options of how much of it is done."""

_what_is_shown = together(
    click.option(
        "--images",
        type=click.Choice(["real", "none", "shuffled", "grey"]),
        help="What stands in the place of the pictures; see `mmrec-bench ablate`.  [default: real]",
    ),
    click.option(
        "--permutations",
        type=click.IntRange(min=1),
        help="Orders of the candidates in which a language model is asked each case.  [default: 1]",
    ),
)
"""The options of what stands in a question."""

_what_is_new = together(
    click.option(
        "--transfer",
        "transfers",
        multiple=True,
        metavar="users|items|both|dataset:NAME[:KEY=VALUE,...]",
        help="Test on what was not tuned on: a share of users or items that is held out (-o "
        "transfer.share=0.2), or this data set after tuning on another, e.g. --transfer "
        "dataset:amazon:category=All_Beauty. The same as -o transfer.hold_out and transfer.source.",
    ),
    click.option(
        "--shots",
        type=click.IntRange(min=0),
        help="With --transfer: interactions of a test user that are shown, 0 = zero-shot, k = "
        "few-shot.  [default: as the protocol shows]",
    ),
    click.option(
        "--probe-memory",
        is_flag=True,
        help="Also test whether the untuned backbone completes titles of the data set that it was "
        "not shown, beside titles that nobody can know; the record tells. Local language models "
        "only.",
    ),
)
"""The options of what is tested beyond what was tuned on."""

_short_forms = together(
    click.option(
        "--strict",
        is_flag=True,
        help="Damaged data is an error; the same as -o dataset.strict=true.",
    ),
    click.option(
        "--batch",
        is_flag=True,
        help="Chat models: submit the requests as a batch, leave, and come back with the same "
        "command (-o model.batch=true).",
    ),
    click.option(
        "--max-cost",
        type=click.FloatRange(min=0, min_open=True),
        metavar="DOLLARS",
        help="Chat models: stop cleanly before the requests of this run cost more "
        "(-o model.max_cost).",
    ),
)
"""Short forms of options of data sets and chat models."""


@click.command(
    epilog="Examples:  mmrec-bench run --model popularity --dataset movielens "
    "-o protocol.candidates=full   |   mmrec-bench run --config configs/amazon/chatglm2-ptv2.yaml"
)
@what_runs
@click.option("--metrics", help="Comma-separated, e.g. ndcg@10,recall@20,auc.")
@where_it_runs
@who_hears
@_which_cases_and_runs
@_what_is_shown
@_what_is_new
@_short_forms
@click.option(
    "--dry-run",
    is_flag=True,
    help="Print the resolved run, and what a chat model's answers would cost, and stop.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the records as JSON.")
def command(
    config: Path | None,
    overrides: tuple[str, ...],
    data_root: Path | None,
    results: Path,
    device: str,
    trackers: tuple[str, ...],
    resume: bool,
    baselines: bool,
    transfers: tuple[str, ...],
    shots: int | None,
    probe_memory: bool,
    strict: bool,
    batch: bool,
    max_cost: float | None,
    dry_run: bool,
    as_json: bool,
    **chosen: str | int | None,
) -> None:
    """Run a model on a data set, beside its baselines, and write records and predictions.

    A run that was killed and is started again goes on where it stopped and gives the same record.
    """
    short = short_overrides(strict=strict, batch=batch, max_cost=max_cost)
    overrides = (*transfer_overrides(transfers, shots), *overrides, *short)
    run_config = resolve_config(config, chosen, overrides)
    root = data_root or default_data_root()
    workspace = planning.Workspace(
        results, root, device, fresh=not resume, probe_memory=probe_memory
    )
    plugins = installed()
    planning.check_config(run_config, plugins)
    hear(() if dry_run else trackers)
    task = runner.prepare(run_config, workspace, plugins)
    failures: list[str] = []
    planned = planning.plan(
        task, workspace, plugins, baselines=baselines, on_failure=failures.append
    )
    if dry_run:
        _show_plan(planned, task, workspace, as_json=as_json)
        return
    finished, failed, error = runner.run_all(planned, task, workspace, plugins)
    if as_json:
        echo_json([one.record.model_dump(mode="json") for one in finished])
    elif finished:
        show(run_table(finished, compare=error is None))
    if error is not None:
        raise error
    if failures or failed or any(one.failures for one in finished):
        sys.exit(1)


def short_overrides(*, strict: bool, batch: bool, max_cost: float | None) -> list[str]:
    """Turn --strict, --batch and --max-cost into overrides."""
    overrides = ["dataset.strict=true"] if strict else []
    overrides += ["model.batch=true"] if batch else []
    return overrides if max_cost is None else [*overrides, f"model.max_cost={max_cost}"]


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


def _show_plan(
    planned: list[planning.PlannedRun],
    task: planning.Task,
    workspace: planning.Workspace,
    *,
    as_json: bool,
) -> None:
    """Print what would run, and what the answers of a chat model would cost."""
    specs = []
    for one in planned:
        spec = one.spec.model_dump(mode="json") | {"run_id": one.spec.run_id}
        cost = runner.estimate(one, task, workspace, installed())
        specs.append(spec | ({"estimate": cost} if cost else {}))
    if as_json:
        echo_json(specs)
    else:
        click.echo(yaml.safe_dump_all(specs, sort_keys=False, allow_unicode=True), nl=False)
