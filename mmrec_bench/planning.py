"""From what was asked for to what will run: options resolved, specs hashed, nothing loaded."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmrec_bench.config import Component, ComponentConfig, RunConfig
from mmrec_bench.errors import ConfigError
from mmrec_bench.interfaces import ChoosesInstructions, HasFingerprint, Metric, ResolvesOptions
from mmrec_bench.plugins import Plugins
from mmrec_bench.records import ComponentSpec, DatasetSpec, RunSpec
from mmrec_bench.registry import check_unique, split_cutoff
from mmrec_bench.types import RecData, Split

log = logging.getLogger("mmrec_bench")


@dataclass(frozen=True)
class Workspace:
    """Where a run reads and writes, and on what it computes; none of it changes a number."""

    results: Path
    data_root: Path
    device: str = "auto"
    fresh: bool = False


@dataclass(frozen=True)
class Task:
    """A data set under a protocol: what every model of a call shares."""

    config: RunConfig
    data: RecData
    split: Split


@dataclass(frozen=True)
class PlannedRun:
    """One model of a call, resolved: its spec says what will really run."""

    config: RunConfig
    spec: RunSpec
    recommender: type[Any]
    options: ComponentConfig
    notices: tuple[str, ...]


def check_config(config: RunConfig, plugins: Plugins) -> None:
    """Check every name and option of a run before any data is read.

    Raises:
        ConfigError: an unknown name, an unknown option, or a value of the wrong type.
    """
    build_metrics(config.metrics, plugins)
    for kind in ("model", "dataset", "instructions", "encoder"):
        component: Component | None = getattr(config, kind)
        if component is not None and (component.name or kind != "instructions"):
            plugins[kind].configure(component.name, component.options, kind)


def plan(
    task: Task, workspace: Workspace, plugins: Plugins, *, baselines: bool
) -> list[PlannedRun]:
    """Resolve the model and, before it, its baselines; loads no weights.

    What was chosen for the user (a backbone, say) is told here, before anything runs.
    """
    main = plan_one(task, task.config.model, workspace, plugins)
    for notice in main.notices:
        log.info("%s", notice)
    if not baselines:
        return [main]
    main_options = main.options.model_dump()
    planned = []
    for baseline in plugins["model"].find(task.config.model.name).entry.baselines:
        inherited = {name: main_options[name] for name in baseline.inherits}
        component = Component(name=baseline.name, options=inherited)
        planned.append(plan_one(task, component, workspace, plugins))
    return [*planned, main]


def plan_one(task: Task, model: Component, workspace: Workspace, plugins: Plugins) -> PlannedRun:
    """Resolve one model's options and build the spec of its run."""
    registry = plugins["model"]
    cls = registry.load(model.name)
    options = registry.configure(model.name, model.options, "model")
    notices: list[str] = []
    if issubclass(cls, ResolvesOptions):
        options, notices = cls.resolve(options, device=workspace.device)
    config = task.config.model_copy(update={"model": model})
    instructions = encoder = None
    if cls.reads_instructions:
        config = _with_instructions(config, cls, options)
        instructions = _component_spec(plugins, "instructions", config.instructions)
        if config.encoder is not None:
            encoder = _component_spec(plugins, "encoder", config.encoder)
    spec = RunSpec(
        dataset=DatasetSpec(name=task.data.name, version=task.data.version),
        protocol=config.protocol.model_dump(mode="json", exclude={"candidates_file"}),
        candidates_hash=task.split.candidates_hash,
        model=ComponentSpec(
            name=model.name,
            options=options.model_dump(mode="json"),
            fingerprint=cls.fingerprint(options) if issubclass(cls, HasFingerprint) else "",
        ),
        instructions=instructions,
        encoder=encoder,
        seed=config.seed,
        limit_cases=config.limit_cases,
    )
    return PlannedRun(config, spec, cls, options, tuple(notices))


def build_metrics(names: tuple[str, ...], plugins: Plugins) -> list[Metric]:
    """Build the metrics asked for by name, e.g. "ndcg@10".

    Raises:
        ConfigError: unknown, given twice, or with a cutoff that it does not take.
    """
    check_unique(names, "metric")
    registry = plugins["metric"]
    metrics = []
    for name in names:
        family, options = split_cutoff(name)
        if not options and "k" in registry.load(family).Config.model_fields:
            raise ConfigError(f"metric {name!r} needs a cutoff, e.g. {name}@10")
        metrics.append(registry.create(family, registry.configure(family, options, name)))
    return metrics


def _with_instructions(config: RunConfig, cls: type[Any], options: ComponentConfig) -> RunConfig:
    """Fill in the instruction builder where the user named none."""
    if config.instructions.name:
        return config
    chosen = cls.choose_instructions(options) if issubclass(cls, ChoosesInstructions) else "ranking"
    component = config.instructions.model_copy(update={"name": chosen})
    return config.model_copy(update={"instructions": component})


def _component_spec(plugins: Plugins, kind: str, component: Component) -> ComponentSpec:
    registry = plugins[kind]
    config = registry.configure(component.name, component.options, kind)
    mark = ""
    if kind == "encoder":
        mark = registry.create(component.name, config).fingerprint()
    return ComponentSpec(
        name=component.name, options=config.model_dump(mode="json"), fingerprint=mark
    )
