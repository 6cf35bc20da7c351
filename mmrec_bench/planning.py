"""From what was asked for to what will run: options resolved, specs hashed, nothing loaded."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmrec_bench import guard
from mmrec_bench.config import (
    COMPONENTS,
    MODALITIES,
    Component,
    ComponentConfig,
    RunConfig,
    identity,
)
from mmrec_bench.errors import ConfigError, MMRecError, PluginError
from mmrec_bench.interfaces import (
    ChoosesInstructions,
    HasFingerprint,
    Metric,
    ProbesMemory,
    ResolvesOptions,
    Transfers,
)
from mmrec_bench.plugins import Plugins
from mmrec_bench.records import ComponentSpec, DatasetSpec, RunSpec
from mmrec_bench.registry import Baseline, check_unique, split_cutoff
from mmrec_bench.transfer import describe as describe_transfer
from mmrec_bench.types import RecData, Split

log = logging.getLogger("mmrec_bench")


@dataclass(frozen=True)
class Workspace:
    """Where a run reads and writes, and on what it computes; none of it changes a number."""

    results: Path
    data_root: Path
    device: str = "auto"
    fresh: bool = False
    probe_memory: bool = False


@dataclass(frozen=True)
class Task:
    """A data set under a protocol: what every model of a call shares.

    Attributes:
        config: as asked for.
        data: as read.
        split: its cases, and what may be learned from it.
        source: another data set, which is learned from in its place; None = the same one.
    """

    config: RunConfig
    data: RecData
    split: Split
    source: "Task | None" = None

    def transfer_spec(self) -> dict[str, Any] | None:
        """Return what the run's spec says of its transfer."""
        source = None
        if self.source is not None:
            source = {"name": self.source.data.name, "version": self.source.data.version}
        return describe_transfer(self.config.transfer, self.split, source)


@dataclass(frozen=True)
class PlannedRun:
    """One model of a call, resolved: its spec says what will really run."""

    config: RunConfig
    spec: RunSpec
    recommender: type[Any]
    options: ComponentConfig
    notices: tuple[str, ...]
    probe_memory: bool = False


def check_config(config: RunConfig, plugins: Plugins) -> None:
    """Check every name and option of a run before any data is read.

    Raises:
        ConfigError: an unknown name, an unknown option, or a value of the wrong type.
    """
    build_metrics(config.metrics, plugins)
    for section in COMPONENTS:
        component: Component | None = getattr(config, section)
        if component is not None and (component.name or section != "instructions"):
            registry = plugins[registry_of(section)]
            registry.configure(component.name, component.options, section)
    if config.transfer is not None and (source := config.transfer.source) is not None:
        plugins["dataset"].configure(source.name, source.options, "transfer.source")


def plan(
    task: Task,
    workspace: Workspace,
    plugins: Plugins,
    *,
    baselines: bool,
    on_failure: Callable[[str], None] | None = None,
) -> list[PlannedRun]:
    """Resolve the model and, before it, its baselines; loads no weights.

    What was chosen for the user (a backbone, say) is told here, before anything runs. Baselines
    that cannot transfer from another data set are left out, and so are those that cannot be
    planned, which `on_failure` hears of in one line each.

    Raises:
        ConfigError: the model cannot do what was asked for.
    """
    main = plan_one(task, task.config.model, workspace, plugins)
    for notice in main.notices:
        log.info("%s", notice)
    check_abilities(main, task, workspace)
    main = replace(main, probe_memory=workspace.probe_memory)
    if not baselines:
        return [main]
    main_options = main.options.model_dump()
    planned = []
    for baseline in plugins["model"].find(task.config.model.name).entry.baselines:
        try:
            one = _plan_baseline(baseline, main_options, task, workspace, plugins)
        except MMRecError as error:
            line = f"baseline {baseline.name} failed: {error}"
            log.error("%s", line)
            log.debug("why:", exc_info=error)
            if on_failure is not None:
                on_failure(line)
            continue
        if task.source is not None and not issubclass(one.recommender, Transfers):
            log.info(
                "baseline %s is left out: it cannot rank what it learned nothing of, and nothing "
                "is learned from %s",
                baseline.name,
                task.data.name,
            )
            continue
        planned.append(one)
    return [*planned, main]


def _plan_baseline(
    baseline: Baseline,
    main_options: Mapping[str, Any],
    task: Task,
    workspace: Workspace,
    plugins: Plugins,
) -> PlannedRun:
    absent = [name for name in baseline.inherits if name not in main_options]
    if absent:
        raise PluginError(f"it inherits {', '.join(absent)}, which the main model does not have")
    inherited = {name: main_options[name] for name in baseline.inherits}
    component = Component(name=baseline.name, options=inherited)
    return plan_one(task, component, workspace, plugins)


def check_abilities(main: PlannedRun, task: Task, workspace: Workspace) -> None:
    """Check that the model can do what was asked for.

    Raises:
        ConfigError: it cannot transfer from another data set, or has no memory to probe.
    """
    name = main.spec.model.name
    if task.source is not None and not issubclass(main.recommender, Transfers):
        raise ConfigError(
            f"model {name!r} cannot transfer from {task.source.data.name} to {task.data.name}: "
            "what it learns belongs to the users and items of one data set; take a model that "
            "reads instructions, or hold out a part of one data set with --transfer users or items"
        )
    if workspace.probe_memory and not issubclass(main.recommender, ProbesMemory):
        raise ConfigError(
            f"model {name!r} has no backbone whose memory could be probed; leave out "
            "--probe-memory, or take a local language model, e.g. lm-zero-shot"
        )


def plan_one(task: Task, model: Component, workspace: Workspace, plugins: Plugins) -> PlannedRun:
    """Resolve one model's options and build the spec of its run."""
    registry = plugins["model"]
    cls = registry.load(model.name)
    options = registry.configure(model.name, model.options, "model")
    if not isinstance(getattr(cls, "reads_instructions", None), bool):
        raise PluginError(
            f"model {model.name!r} of {registry.find(model.name).owner} does not say "
            "`reads_instructions: ClassVar[bool]`"
        )
    notices: list[str] = []
    if issubclass(cls, ResolvesOptions):
        with guard.calling("model", model.name, cls, "resolve"):
            options, notices = cls.resolve(options, device=workspace.device)
    config = task.config.model_copy(update={"model": model})
    config, shown = _shown(config, cls, options)
    parts: dict[str, ComponentSpec | None] = dict.fromkeys(("instructions", "encoder"))
    for section in shown:
        component = getattr(config, section)
        if component is not None:
            parts[section] = _component_spec(plugins, section, component)
    spec = RunSpec(
        dataset=DatasetSpec(name=task.data.name, version=task.data.version),
        protocol=config.protocol.model_dump(mode="json", exclude={"candidates_file"}),
        candidates_hash=task.split.candidates_hash,
        model=ComponentSpec(
            name=model.name,
            options=identity(options),
            fingerprint=_fingerprint(plugins, "model", model.name, options),
        ),
        **parts,
        seed=config.seed,
        limit_cases=config.limit_cases,
        images=config.images,
        permutations=config.permutations,
        transfer=task.transfer_spec(),
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
        metric = registry.create(family, registry.configure(family, options, name))
        says = (getattr(metric, "name", None), getattr(type(metric), "higher_is_better", None))
        if not isinstance(says[0], str) or not isinstance(says[1], bool):
            raise PluginError(
                f"metric {name!r} of {registry.find(family).owner} has name={says[0]!r} and "
                f"higher_is_better={says[1]!r}, expected a string and a bool"
            )
        metrics.append(metric)
    return metrics


def _shown(
    config: RunConfig, cls: type[Any], options: ComponentConfig
) -> tuple[RunConfig, tuple[str, ...]]:
    """Return the config as this model sees it, and the sections of what the model is shown.

    What a model is not shown is no part of its run.
    """
    if cls.reads_instructions:
        return _with_instructions(config, cls, options), ("instructions", "encoder", "vectors")
    changed: dict[str, Any] = {"permutations": 1}
    reads = modality_sections(cls)
    if all(getattr(config, section) is None for section in reads):
        defaults: Mapping[str, str] = getattr(cls, "default_vectors", {})
        changed |= {s: Component(name=n) for s, n in defaults.items() if s in reads}
    if "vectors" not in reads:
        changed["images"] = "real"
    return config.model_copy(update=changed), reads


def modality_sections(recommender: type[Any]) -> tuple[str, ...]:
    """Return the sections of a run whose vectors a model reads; see `ReadsModalities`."""
    wanted = getattr(recommender, "reads_modalities", ())
    return tuple(section for section, kind in MODALITIES.items() if kind in wanted)


def _with_instructions(config: RunConfig, cls: type[Any], options: ComponentConfig) -> RunConfig:
    """Fill in the instruction builder where the user named none."""
    if config.instructions.name:
        return config
    chosen = "ranking"
    if issubclass(cls, ChoosesInstructions):
        with guard.calling("model", config.model.name, cls, "choose_instructions"):
            chosen = cls.choose_instructions(options)
    component = config.instructions.model_copy(update={"name": chosen})
    return config.model_copy(update={"instructions": component})


def registry_of(section: str) -> str:
    """Return which registry a section's names belong to."""
    return "encoder" if section in MODALITIES else section


def _component_spec(plugins: Plugins, section: str, component: Component) -> ComponentSpec:
    kind = registry_of(section)
    registry = plugins[kind]
    config = registry.configure(component.name, component.options, section)
    mark = _fingerprint(plugins, kind, component.name, config)
    return ComponentSpec(name=component.name, options=identity(config), fingerprint=mark)


def _fingerprint(plugins: Plugins, kind: str, name: str, config: ComponentConfig) -> str:
    """Return what a component's output depends on beside its options; "" = nothing.

    A one-file plugin depends on its file, so that an edited file is another run.
    """
    registry = plugins[kind]
    cls, mark = registry.load(name), ""
    if kind == "encoder":
        encoder = registry.create(name, config)
        with guard.calling(kind, name, cls, "fingerprint"):
            mark = encoder.fingerprint()
    elif issubclass(cls, HasFingerprint):
        with guard.calling(kind, name, cls, "fingerprint"):
            mark = cls.fingerprint(config)
    file = registry.find(name).mark
    return f"{mark}+{file}" if mark and file else mark or file
