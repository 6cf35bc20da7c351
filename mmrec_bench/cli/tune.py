"""`mmrec-bench tune`: choose a model's options on validation."""

from pathlib import Path

import click

from mmrec_bench import planning, runner
from mmrec_bench.cli.options import (
    FILE,
    hear,
    resolve_config,
    together,
    what_runs,
    where_it_runs,
    who_hears,
)
from mmrec_bench.cli.output import echo_json
from mmrec_bench.config import RunConfig, parse_override
from mmrec_bench.configfile import check_writable, default_path, write_config
from mmrec_bench.objective import DEFAULT_METRIC, Search
from mmrec_bench.paths import data_root as default_data_root
from mmrec_bench.plugins import Plugins, installed
from mmrec_bench.selection import searchable, select
from mmrec_bench.spaces import Space, build_space
from mmrec_bench.studies import load_optuna
from mmrec_bench.terminal import show
from mmrec_bench.trialtable import trials_rows, trials_table

_DEFAULT = Path("-")
"""What click gives for --write without a path."""

_what_is_tried = together(
    click.option(
        "--trials",
        "-n",
        type=click.IntRange(min=1),
        default=20,
        show_default=True,
        help="Settings to try in all; the same command again with more goes on from there.",
    ),
    click.option(
        "searches",
        "-s",
        "--search",
        multiple=True,
        metavar="SECTION.KEY=WHAT",
        help="What to try for an option: log:1e-4..1e-1 (orders of magnitude alike), 0..0.5 "
        "(evenly), 10..200/10 (in steps), 32,64,128 (these). Added to what the model declares, or "
        "in its place; an option that -o sets is not searched.",
    ),
    click.option(
        "--space",
        type=FILE,
        help="The same from a YAML file: model.learning_rate: log:1e-4..1e-1",
    ),
    click.option(
        "--metric",
        default=DEFAULT_METRIC,
        show_default=True,
        help="What decides, on validation cases; any registered metric, e.g. recall@20.",
    ),
    click.option(
        "--timeout",
        type=click.FloatRange(min=0, min_open=True),
        metavar="SECONDS",
        help="Begin no trial after so long; the one that runs is finished.",
    ),
    click.option(
        "--search-seed",
        type=click.IntRange(min=0),
        default=0,
        show_default=True,
        help="Seed of the search; --seed is the model's, and the same in every trial.",
    ),
    click.option(
        "--fit-seeds",
        type=click.IntRange(min=1),
        default=1,
        show_default=True,
        help="Fits of each setting, each with a seed of its own; their mean counts, and less "
        "chance.",
    ),
)
"""The options of the search."""

_where_it_is_written = together(
    click.option(
        "--write",
        type=FILE,
        is_flag=False,
        flag_value=str(_DEFAULT),
        metavar="[FILE]",
        help="Write the best settings as a complete configuration for `mmrec-bench run --config`.  "
        "[default: configs/DATASET/MODEL.yaml]",
    ),
    click.option("--force", is_flag=True, help="Overwrite the file of --write."),
)
"""The options of the file for the best settings."""


@click.command(
    epilog="Examples:  mmrec-bench tune -m sasrec -d sequences --trials 30 --write   |   "
    "mmrec-bench tune -m item-knn -d movielens -s model.k=10..500 -s model.shrink=log:1..1000"
)
@what_runs
@_what_is_tried
@_where_it_is_written
@where_it_runs
@who_hears
@click.option("--dry-run", is_flag=True, help="Print what would be searched, and stop.")
@click.option("--json", "as_json", is_flag=True, help="Print all trials as JSON.")
def command(
    config: Path | None,
    overrides: tuple[str, ...],
    trials: int,
    searches: tuple[str, ...],
    space: Path | None,
    metric: str,
    timeout: float | None,
    search_seed: int,
    fit_seeds: int,
    write: Path | None,
    force: bool,
    data_root: Path | None,
    results: Path,
    device: str,
    trackers: tuple[str, ...],
    dry_run: bool,
    as_json: bool,
    **chosen: str | int | None,
) -> None:
    """Choose a model's options by what they are worth on validation.

    Each trial fits the model with other options and scores the validation cases; test cases are
    neither scored nor there. The first trial is the model as it is, the next ones are spread over
    the space, and the later ones are drawn near the best so far (TPE). What is searched is declared
    by the model, and -s and --space say otherwise.

    A search that was killed and is started again goes on where it stopped, in the middle of a fit
    where the model keeps checkpoints, and ends with the same trials. Several processes with the
    same command and --results folder share the work. Trials are kept in results/tuning.

    A setting that fails (a loss that is no number, no memory left) is a failed trial, told with its
    reason, and the search goes on. The difference between good trials is often chance: see whether
    it stays with --fit-seeds 3, and report what `mmrec-bench run` measures on test, once.
    """
    run_config, plugins = resolve_config(config, chosen, overrides), installed()
    planning.check_config(run_config, plugins)
    planning.build_metrics((metric,), plugins)
    domains = _space(run_config, plugins, overrides, space, searches)
    if dry_run:
        _show_space(domains, as_json=as_json)
        return
    load_optuna()
    target = _target(write, run_config, force=force)
    hear(trackers)
    workspace = planning.Workspace(results, data_root or default_data_root(), device)
    task = runner.prepare(run_config, workspace, plugins)
    search = Search(domains, metric, trials, search_seed, fit_seeds, timeout)
    selection = select(task, search, workspace, plugins)
    if target is not None:
        write_config(target, selection, plugins, force=force)
    if as_json:
        echo_json(trials_rows(selection) | {"config": None if target is None else str(target)})
        return
    where = f"config: {target}" if target is not None else "config: not written; see --write"
    show([*trials_table(selection), where])


def _target(write: Path | None, config: RunConfig, *, force: bool) -> Path | None:
    """Return the file of --write, which can be written; None where nothing is."""
    if write is None:
        return None
    target = default_path(config) if write == _DEFAULT else write
    check_writable(target, force=force)
    return target


def _space(
    config: RunConfig,
    plugins: Plugins,
    overrides: tuple[str, ...],
    file: Path | None,
    texts: tuple[str, ...],
) -> Space:
    fixed = [".".join(parse_override(text)[:2]) for text in overrides]
    classes = searchable(config, plugins)
    return build_space(config, classes, fixed=fixed, file=file, texts=texts)


def _show_space(space: Space, *, as_json: bool) -> None:
    shown = {key: str(domain) for key, domain in space.items()}
    if as_json:
        echo_json(shown)
    else:
        click.echo("\n".join(f"{key}: {text}" for key, text in shown.items()))
