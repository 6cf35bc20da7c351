"""Many runs from one file: models x data sets x seeds x variants, each on its own feet.

A sweep is a YAML mapping::

    base:                           # sections of a run that all share
      metrics: [ndcg@10, hit_rate@10]
      protocol: {candidates: full}
    models: [popularity, {name: item-knn, k: 100}]
    datasets: [movielens, {name: amazon, category: Gift_Cards}]
    seeds: [0, 1, 2]
    variants: [{images: real}, {images: none}]   # {model: {k: 50}} is an option of each model
    configs: [../beauty-p5/*.yaml]  # whole runs beside these, with the same seeds

What was run before is not run again; what fails is named at the end and the rest goes on.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from mmrec_bench import runner
from mmrec_bench.cases import read_cases
from mmrec_bench.config import (
    COMPONENTS,
    Component,
    ComponentConfig,
    RunConfig,
    build_config,
    read_yaml,
    section_options,
)
from mmrec_bench.errors import ConfigError, MMRecError, StorageError
from mmrec_bench.planning import PlannedRun, Task, Workspace, check_config, plan
from mmrec_bench.plugins import Plugins
from mmrec_bench.records import read_record, record_path

log = logging.getLogger("mmrec_bench")


class SweepConfig(ComponentConfig):
    """What a sweep's file may hold."""

    base: dict[str, Any] = Field(
        default_factory=dict, description="sections of a run's configuration that all runs share"
    )
    models: tuple[Component, ...] = Field((), description="names, or mappings with options")
    datasets: tuple[Component, ...] = Field((), description="names, or mappings with options")
    seeds: tuple[int, ...] = Field((0,), min_length=1, description="seeds of the models")
    variants: tuple[dict[str, Any], ...] = Field(
        ({},), min_length=1, description="sections laid over the base, one after the other"
    )
    configs: tuple[str, ...] = Field(
        (), description="configuration files of whole runs (patterns), relative to this file"
    )
    baselines: bool = Field(
        default=False, description="run each model's own baselines too, as `run` does"
    )


Outcome = Literal["done", "was there", "failed"]


@dataclass(frozen=True)
class Step:
    """One run of a sweep, and how it went.

    Attributes:
        title: model, data set, seed and variant in a line.
        outcome: "was there" = its record and the per-case values beside it were whole; its
            predictions need not be here, so that a record of another machine is enough.
        run_ids: of the model and its baselines.
        reason: one line, where it failed.
    """

    title: str
    outcome: Outcome
    run_ids: tuple[str, ...] = ()
    reason: str = ""


def read_sweep(path: Path) -> list[tuple[str, RunConfig]]:
    """Return title and configuration of every run of a sweep file, data set by data set.

    Raises:
        ConfigError: unknown keys, nothing to run, or two runs that are the same.
    """
    config = build_config(SweepConfig, read_yaml(path), path.name)
    runs = [*_grid(config), *_files(config, path.parent)]
    if not runs:
        raise ConfigError(
            f"{path} runs nothing: give it models and datasets, or configs that match a file"
        )
    known: dict[str, str] = {}
    for title, one in runs:
        first = known.setdefault(one.model_dump_json(), title)
        if first is not title:
            raise ConfigError(f"{path} runs {first} twice, the second time as {title}")
    return sorted(runs, key=lambda run: _dataset_key(run[1]))


def wants_baselines(path: Path) -> bool:
    """Return whether a sweep file asks for baselines."""
    return build_config(SweepConfig, read_yaml(path), path.name).baselines


def _grid(config: SweepConfig) -> Iterator[tuple[str, RunConfig]]:
    if bool(config.models) != bool(config.datasets):
        raise ConfigError("a sweep's models and datasets go together: one of them is missing")
    for dataset, variant, model, seed in product(
        config.datasets, config.variants, config.models, config.seeds
    ):
        values: dict[str, Any] = {"model": model.model_dump(), "dataset": dataset.model_dump()}
        for over in (config.base, variant):
            _check_same_components(over)
            values = _laid_over(values, over)
        found = RunConfig.parse(values | {"seed": seed})
        yield _title(found.model, found.dataset, seed, variant), found


def _files(config: SweepConfig, folder: Path) -> Iterator[tuple[str, RunConfig]]:
    for pattern in config.configs:
        try:
            paths = sorted(folder.glob(pattern))
        except (NotImplementedError, ValueError) as error:  # absolute, or no pattern
            raise ConfigError(
                f"configs: {pattern!r} is no pattern relative to {folder}: {error}"
            ) from None
        if not paths:
            raise ConfigError(f"no configuration matches {folder / pattern}")
        for path, variant, seed in product(paths, config.variants, config.seeds):
            values = _laid_over(_laid_over(read_yaml(path), config.base), variant)
            found = RunConfig.parse(values | {"seed": seed})
            title = f"{path.stem} on {_words(found.dataset)} seed {seed}"
            yield f"{title} {dict(variant)}" if variant else title, found


def _laid_over(values: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return sections with others laid over them; mappings are joined key by key."""
    if "seed" in over:
        raise ConfigError("base and variants set no seed; write seeds: [...] beside them")
    joined = dict(values)
    for name, value in over.items():
        if isinstance(value, Mapping) and (
            name in COMPONENTS or isinstance(joined.get(name), Mapping)
        ):
            old, new = section_options(joined, name), section_options(over, name)
            # Another component has nothing to do with the options of this one.
            same = new.get("name", old.get("name")) == old.get("name")
            joined[name] = {**old, **new} if same else new
        else:
            joined[name] = value
    return joined


def _check_same_components(over: Mapping[str, Any]) -> None:
    """Refuse another model or data set than that of `models` and `datasets`; options are fine."""
    for section in ("model", "dataset"):
        value = over.get(section, {})
        if not isinstance(value, Mapping) or "name" in value:
            raise ConfigError(
                f"base and variants set options of a {section}, e.g. {section}: {{k: 5}}; got "
                f"{value!r}, but names stand in {section}s"
            )


def _title(model: Component, dataset: Component, seed: int, variant: Mapping[str, Any]) -> str:
    parts = [_words(model), "on", _words(dataset), f"seed {seed}"]
    others = {name: value for name, value in variant.items() if name not in ("model", "dataset")}
    if others:
        parts.append(str(others))
    return " ".join(parts)


def _words(component: Component) -> str:
    options = " ".join(f"{name}={value}" for name, value in component.options.items())
    return f"{component.name} ({options})" if options else component.name


def _dataset_key(config: RunConfig) -> str:
    """Name what `runner.prepare` depends on: runs that share it share one reading of the data."""
    parts = (config.dataset, config.protocol, config.transfer, config.limit_cases)
    return repr([None if part is None else str(part) for part in parts])


def sweep(
    runs: Sequence[tuple[str, RunConfig]],
    workspace: Workspace,
    plugins: Plugins,
    *,
    baselines: bool,
    on_step: Callable[[int, Step], None],
) -> list[Step]:
    """Run all, one after the other; a failure is kept and the rest goes on.

    Args:
        runs: from `read_sweep`; neighbours that share a data set and protocol share its reading.
        workspace: where to read and write.
        plugins: the registries.
        baselines: run each model's baselines too.
        on_step: told the number (from 1) and the outcome of each run.
    """
    steps: list[Step] = []
    shared: tuple[str, Task] | None = None
    for number, (title, config) in enumerate(runs, start=1):
        log.info("sweep %d/%d: %s", number, len(runs), title)
        try:
            check_config(config, plugins)
            if shared is None or shared[0] != _dataset_key(config):
                shared = None  # the old data set is let go before the next is read
                shared = _dataset_key(config), runner.prepare(config, workspace, plugins)
            task = replace(shared[1], config=config)
            step = _one(title, task, workspace, plugins, baselines=baselines)
        except MMRecError as error:
            step = Step(title, "failed", reason=" ".join(str(error).split()))
            log.error("sweep %d/%d failed: %s", number, len(runs), step.reason)
        steps.append(step)
        on_step(number, step)
    return steps


def _one(
    title: str, task: Task, workspace: Workspace, plugins: Plugins, *, baselines: bool
) -> Step:
    failures: list[str] = []
    planned = plan(task, workspace, plugins, baselines=baselines, on_failure=failures.append)
    run_ids = tuple(one.spec.run_id for one in planned)
    if not workspace.fresh and all(_is_there(one, workspace) for one in planned) and not failures:
        return Step(title, "was there", run_ids)
    outcome = runner.run_all(planned, task, workspace, plugins)
    if outcome.error is not None:
        raise outcome.error
    failures += outcome.failures
    if failures:
        return Step(title, "failed", run_ids, "; ".join(failures))
    return Step(title, "done", run_ids)


def _is_there(planned: PlannedRun, workspace: Workspace) -> bool:
    """Say whether a run has a record that can be believed and holds all metrics asked for.

    The per-case values that it tells of must be those beside it; early records tell of none.
    """
    path = record_path(workspace.results, planned.spec)
    if not path.exists():
        return False
    try:
        record = read_record(path)
        if record.cases:
            read_cases(path, record.cases)
    except StorageError as error:
        log.warning("%s; it is run again", error)
        return False
    return set(planned.config.metrics) <= set(record.metrics)
