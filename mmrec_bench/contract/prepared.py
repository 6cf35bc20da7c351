"""A registered component made ready for its checks: its options, its makers, toy data for it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmrec_bench import guard
from mmrec_bench.config import ComponentConfig
from mmrec_bench.contract import toys
from mmrec_bench.contract.datasets import DatasetSubject
from mmrec_bench.contract.encoders import EncoderSubject
from mmrec_bench.contract.instructions import InstructionSubject
from mmrec_bench.contract.metrics import MetricSubject
from mmrec_bench.contract.subjects import RecommenderSubject, toy_modalities
from mmrec_bench.errors import ConfigError, DataMissingError
from mmrec_bench.interfaces import (
    ChoosesInstructions,
    InstructionBuilder,
    PreparesInstructions,
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


@dataclass(frozen=True)
class Prepared:
    """A component whose class was imported and whose options are known.

    Attributes:
        asked: as it was asked for.
        plugins: that it is among.
        cls: its class.
        config: its options.
        family: its registered name.
    """

    asked: Asked
    plugins: Plugins
    cls: type[Any]
    config: ComponentConfig
    family: str

    def make(self) -> Any:  # noqa: ANN401 - of any kind
        """Return a new component."""
        return self.plugins[self.asked.kind].create(self.family, self.config)

    @property
    def name(self) -> str:
        """As a metric calls itself, with its cutoff; of other kinds as registered."""
        k = getattr(self.config, "k", None) if self.asked.kind == "metric" else None
        return self.family if k is None else f"{self.family}@{k}"


def prepare(asked: Asked, plugins: Plugins) -> Prepared:
    """Import a component's class and read its options.

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
    return Prepared(asked, plugins, registry.load(family), config, family)


def model_subject(one: Prepared) -> RecommenderSubject:
    """Return a model, its options resolved, with toy data of the modalities that it reads."""
    cls, config = one.cls, one.config
    if issubclass(cls, ResolvesOptions):
        with guard.calling("model", one.family, cls, "resolve"):
            config, _ = cls.resolve(config, device=one.asked.device)
    split = toys.toy_split()
    data = toys.toy_training_data(
        split,
        one.asked.folder / "scratch",
        builder=_builder(one, config, split) if cls.reads_instructions else None,
        modalities=toy_modalities(cls, split),
        device=one.asked.device,
    )
    registry = one.plugins["model"]
    return RecommenderSubject(
        lambda: registry.create(one.family, config), split, data, one.asked.folder / "model"
    )


def _builder(one: Prepared, config: ComponentConfig, split: Split) -> InstructionBuilder:
    """Build the instruction builder that a model would choose."""
    chosen = "ranking"
    if issubclass(one.cls, ChoosesInstructions):
        with guard.calling("model", one.family, one.cls, "choose_instructions"):
            chosen = one.cls.choose_instructions(config)
    registry = one.plugins["instructions"]
    builder: InstructionBuilder = registry.create(
        chosen, registry.configure(chosen, {}, "instructions")
    )
    _learn(builder, split, chosen)
    return builder


def _learn(builder: object, split: Split, name: str) -> None:
    if isinstance(builder, PreparesInstructions):
        with guard.calling("instructions", name, builder, "prepare"):
            builder.prepare(toys.toy_context(split, toys.toy_vectors(split.catalog)))


def instruction_subject(one: Prepared) -> InstructionSubject:
    """Return a builder with toy cases, prepared on their train part."""
    split = toys.toy_split()

    def make() -> InstructionBuilder:
        builder: InstructionBuilder = one.make()
        _learn(builder, split, one.family)
        return builder

    return InstructionSubject(make, split)


def dataset_subject(one: Prepared) -> DatasetSubject:
    """Return a data set that reads its own files."""

    def load(_: Path) -> RecData:
        try:
            data: RecData = one.make().load(one.asked.data_root)
        except ConfigError as error:
            raise DataMissingError(f"{error}; give the options with -o") from error
        return data

    return DatasetSubject(one.make, load, one.asked.folder)


def encoder_subject(one: Prepared) -> EncoderSubject:
    """Return an encoder with toy items whose pictures are written for it."""
    return EncoderSubject(one.make, toys.toy_items(one.asked.folder / "pictures"))


def metric_subject(one: Prepared) -> MetricSubject:
    """Return a metric with toy outcomes."""
    return MetricSubject(one.make, toys.toy_outcomes, one.name)
