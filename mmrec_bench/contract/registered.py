"""Runs the contract on a registered component."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmrec_bench import guard
from mmrec_bench.contract import (
    common,
    datasets,
    encoders,
    instructions,
    metrics,
    recommenders,
    toys,
)
from mmrec_bench.contract.findings import Result, run_check, run_checks
from mmrec_bench.errors import ConfigError, DataMissingError, UnknownNameError
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


def kinds_of(plugins: Plugins, name: str) -> list[str]:
    """Return the kinds in which a name (without its cutoff) is registered.

    Raises:
        UnknownNameError: in none; lists the nearest of all kinds.
    """
    family = name.partition("@")[0]
    found = [kind for kind, registry in plugins.registries.items() if family in registry.names()]
    if not found:
        known = {name for registry in plugins.registries.values() for name in registry.names()}
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
    module = None if owned.mark else _hook_module(plugins, owned.owner, asked.kind, family)
    component = common.Component(cls, config, module, family)

    def make() -> Any:  # noqa: ANN401 - of any kind
        return registry.create(family, config)

    results = run_checks(common.CHECKS, component, cls)
    kind = _KINDS.get(asked.kind)
    if kind is None:
        reason = f"what a {asked.kind} does costs time or money; run its own tests"
        return [*results, Result("use", f"a {asked.kind} does its work", "skipped", reason=reason)]
    name = f"{family}@{options['k']}" if asked.kind == "metric" and "k" in options else family
    return [*results, *kind(_Made(asked, plugins, cls, make, name))]


@dataclass(frozen=True)
class _Made:
    asked: Asked
    plugins: Plugins
    cls: type[Any]
    make: Callable[[], Any]
    name: str

    @property
    def config(self) -> Any:  # noqa: ANN401 - of any component
        family = self.name.partition("@")[0]
        return self.plugins[self.asked.kind].configure(family, self.asked.options, self.asked.kind)


def _hook_module(plugins: Plugins, owner: str, kind: str, name: str) -> str | None:
    """Return the module of the hook that registered a name."""
    plural = kind if kind.endswith("s") else f"{kind}s"
    hook = getattr(plugins.manager.hook, f"mmrec_register_{plural}")
    for implementation in hook.get_hookimpls():
        if implementation.plugin_name.partition(":")[0] != owner:
            continue
        if any(entry.name == name for entry in implementation.function()):
            module: str = implementation.plugin.__name__
            return module
    return None


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
        modalities=recommenders.toy_modalities(cls, split),
        device=made.asked.device,
    )
    subject = recommenders.RecommenderSubject(make, split, data, made.asked.folder / "model")
    return [whole, *run_checks(recommenders.CHECKS, subject, cls)]


def _skipped(reason: str) -> list[Result]:
    return [Result(one.name, one.rule, "skipped", reason=reason) for one in recommenders.CHECKS]


def _builder(made: _Made, config: Any, split: Split) -> InstructionBuilder:  # noqa: ANN401
    """Build the instruction builder that a model would choose."""
    chosen = "ranking"
    if issubclass(made.cls, ChoosesInstructions):
        with guard.calling("model", made.name, made.cls, "choose_instructions"):
            chosen = made.cls.choose_instructions(config)
    registry = made.plugins["instructions"]
    builder: InstructionBuilder = registry.create(
        chosen, registry.configure(chosen, {}, "instructions")
    )
    _prepare(builder, split)
    return builder


def _prepare(builder: object, split: Split) -> None:
    if isinstance(builder, PreparesInstructions):
        builder.prepare(toys.toy_context(split, toys.toy_vectors(split.catalog)))


def _check_instructions(made: _Made) -> list[Result]:
    split = toys.toy_split()

    def make() -> InstructionBuilder:
        builder: InstructionBuilder = made.make()
        _prepare(builder, split)
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
