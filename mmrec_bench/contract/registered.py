"""Runs the contract on a registered component."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmrec_bench import guard
from mmrec_bench.config import ComponentConfig
from mmrec_bench.contract import (
    common,
    datasets,
    encoders,
    instructions,
    metrics,
    recommenders,
    subjects,
    toys,
)
from mmrec_bench.contract.findings import Result, run_check, run_checks
from mmrec_bench.errors import (
    ConfigError,
    DataMissingError,
    MMRecError,
    PluginError,
    UnknownNameError,
)
from mmrec_bench.interfaces import (
    ChoosesInstructions,
    EstimatesCost,
    InstructionBuilder,
    PreparesInstructions,
    Recommender,
    ResolvesOptions,
)
from mmrec_bench.plugins import Plugins
from mmrec_bench.registry import split_cutoff
from mmrec_bench.types import RecData, Split

log = logging.getLogger("mmrec_bench")

_CUTOFF = 10


@dataclass(frozen=True)
class Asked:
    """Which component is checked, and with what.

    Attributes:
        kind: "model", "dataset" ...
        name: as registered; of a metric also with a cutoff.
        options: that differ from its defaults.
        data_root: where a data set's files lie.
        folder: an empty one, for what is written on the way.
        device: of models.
    """

    kind: str
    name: str
    options: Mapping[str, Any]
    data_root: Path
    folder: Path
    device: str = "cpu"


def components_of(plugins: Plugins, name: str) -> list[tuple[str, str]]:
    """Return kind and name of each component that is called so, or is of that distribution.

    A metric keeps the cutoff that it is asked for with.

    Raises:
        PluginError: it is a plugin, or a distribution of one, that is left out; says why.
        UnknownNameError: in none; lists the nearest of all kinds.
    """
    family = name.partition("@")[0]
    kinds = plugins.registries
    found = [(kind, name) for kind in kinds if family in plugins[kind].names()]
    found += [
        (kind, one.entry.name)
        for kind in kinds
        for one in plugins[kind]
        if one.owner == name and (kind, one.entry.name) not in found
    ]
    if not found:
        for one in plugins.broken:
            if name in (one.name, one.distribution):
                whose = f"plugin {one.name} of {one.distribution}"
                raise PluginError(f"{whose} is left out: {one.reason}")
        known = {name for registry in kinds.values() for name in registry.names()}
        raise UnknownNameError("plugin", name, known)
    return found


def check(asked: Asked, plugins: Plugins) -> list[Result]:
    """Run every check of a component's kind.

    Raises:
        UnknownNameError: no such component.
        PluginError: its class cannot be imported.
        ConfigError: its options do not fit it.
    """
    registry = plugins[asked.kind]
    family, options = asked.name, dict(asked.options)
    if asked.kind == "metric":
        family, cutoff = split_cutoff(asked.name)
        if not cutoff and "k" in registry.load(family).Config.model_fields:
            cutoff = {"k": _CUTOFF}
        options = {**cutoff, **options}
    config = registry.configure(family, options, asked.kind)
    owned, cls = registry.find(family), registry.load(family)
    module = None if owned.mark else owned.module
    component = common.Component(cls, config, module, family)

    def make() -> Any:  # noqa: ANN401 - of any kind
        return registry.create(family, config)

    results = run_checks(common.CHECKS, component, cls)
    kind = _KINDS.get(asked.kind)
    if kind is None:
        reason = f"what a {asked.kind} does costs time or money; run its own tests"
        return [*results, Result("use", f"a {asked.kind} does its work", "skipped", reason=reason)]
    name = f"{family}@{options['k']}" if asked.kind == "metric" and "k" in options else family
    made = _Made(asked, plugins, cls, config, make, name)
    return [*results, *_use(kind, made)]


@dataclass(frozen=True)
class _Made:
    asked: Asked
    plugins: Plugins
    cls: type[Any]
    config: ComponentConfig
    make: Callable[[], Any]
    name: str


def _use(kind: "Callable[[_Made], list[Result]]", made: _Made) -> list[Result]:
    """Run the checks of a kind; where they cannot be prepared, that is what failed."""
    try:
        with guard.blaming("it raised", owner=made.cls, step=f"checks of {made.name}"):
            return kind(made)
    except MMRecError as error:
        log.debug("the checks of %s:", made.name, exc_info=error)
        ours = not isinstance(error, PluginError)
        mend = "do what it says; -o sets options" if ours else "mend the line that is named"
        mend += "; --debug prints the traceback"
        rule = "it can be prepared for its checks"
        return [Result("use", rule, "failed", str(error), "no exception", mend)]


def _check_model(made: _Made) -> list[Result]:
    cls, config = made.cls, made.config
    whole = run_check(recommenders.METHODS, cls, cls)
    if whole.outcome == "failed":
        return [whole, *_skipped("it lacks what every check needs; see `methods`")]
    if issubclass(cls, EstimatesCost):
        reason = "asking it costs money; run its own tests against a server of their own"
        return [whole, *_skipped(reason)]
    if issubclass(cls, ResolvesOptions):
        with guard.calling("model", made.name, cls, "resolve"):
            config, _ = cls.resolve(config, device=made.asked.device)
    split = toys.toy_split()
    builder = _builder(made, config, split) if cls.reads_instructions else None

    def make() -> Recommender:
        recommender: Recommender = made.plugins["model"].create(made.name, config)
        return recommender

    data = toys.toy_training_data(
        split,
        made.asked.folder / "scratch",
        builder=builder,
        modalities=subjects.toy_modalities(cls, split),
        device=made.asked.device,
    )
    subject = subjects.RecommenderSubject(make, split, data, made.asked.folder / "model")
    return [whole, *run_checks(recommenders.CHECKS, subject, cls)]


def _skipped(reason: str) -> list[Result]:
    return [Result(one.name, one.rule, "skipped", reason=reason) for one in recommenders.CHECKS]


def _builder(made: _Made, config: ComponentConfig, split: Split) -> InstructionBuilder:
    """Build the instruction builder that a model would choose."""
    chosen = "ranking"
    if issubclass(made.cls, ChoosesInstructions):
        with guard.calling("model", made.name, made.cls, "choose_instructions"):
            chosen = made.cls.choose_instructions(config)
    registry = made.plugins["instructions"]
    builder: InstructionBuilder = registry.create(
        chosen, registry.configure(chosen, {}, "instructions")
    )
    _prepare(builder, split, chosen)
    return builder


def _prepare(builder: object, split: Split, name: str) -> None:
    if isinstance(builder, PreparesInstructions):
        with guard.calling("instructions", name, builder, "prepare"):
            builder.prepare(toys.toy_context(split, toys.toy_vectors(split.catalog)))


def _check_instructions(made: _Made) -> list[Result]:
    split = toys.toy_split()

    def make() -> InstructionBuilder:
        builder: InstructionBuilder = made.make()
        _prepare(builder, split, made.name)
        return builder

    subject = instructions.InstructionSubject(make, split)
    return run_checks(instructions.CHECKS, subject, made.cls)


def _check_dataset(made: _Made) -> list[Result]:
    def load(_: Path) -> RecData:
        try:
            data: RecData = made.make().load(made.asked.data_root)
        except ConfigError as error:
            raise DataMissingError(f"{error}; give the options with -o") from error
        return data

    subject = datasets.DatasetSubject(made.make, load, made.asked.folder)
    return run_checks(datasets.CHECKS, subject, made.cls)


def _check_encoder(made: _Made) -> list[Result]:
    items = toys.toy_items(made.asked.folder / "pictures")
    return run_checks(encoders.CHECKS, encoders.EncoderSubject(made.make, items), made.cls)


def _check_metric(made: _Made) -> list[Result]:
    subject = metrics.MetricSubject(made.make, toys.toy_outcomes, made.name)
    return run_checks(metrics.CHECKS, subject, made.cls)


_KINDS: dict[str, Callable[[_Made], list[Result]]] = {
    "model": _check_model,
    "instructions": _check_instructions,
    "dataset": _check_dataset,
    "encoder": _check_encoder,
    "metric": _check_metric,
}
