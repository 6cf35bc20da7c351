"""What a model is given: train data, catalog, builder and vectors, and no test case."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmrec_bench import guard
from mmrec_bench.config import MODALITIES, Component, RunConfig
from mmrec_bench.descriptions import describe_catalog
from mmrec_bench.errors import ConfigError, PluginError
from mmrec_bench.evaluation import validate, validate_by
from mmrec_bench.examples import TrainingExamples
from mmrec_bench.interfaces import (
    Describer,
    Encoder,
    InstructionBuilder,
    InstructionContext,
    Metric,
    PreparesInstructions,
    TrainingData,
)
from mmrec_bench.itemkeys import reads_of
from mmrec_bench.pictures import with_images, with_vectors
from mmrec_bench.planning import PlannedRun, Task, modality_sections
from mmrec_bench.plugins import Plugins
from mmrec_bench.types import Catalog, FloatArray, Instruction, Message, Query
from mmrec_bench.vectors import encode_catalog


def training_data(
    planned: PlannedRun, task: Task, plugins: Plugins, *, device: str, scratch: Path
) -> TrainingData:
    """Collect what a model may learn from; no test case is in it."""
    split, config = task.split, planned.config
    builder: InstructionBuilder | None = None
    catalog, vectors = split.catalog, None
    modalities = _modalities(planned, catalog, plugins)
    if planned.recommender.reads_instructions:
        catalog = shown_catalog(catalog, plugins, config)
        vectors = item_vectors(catalog, plugins, config)
        builder = _create_builder(plugins, config.instructions)
        context = InstructionContext(
            dataset=task.data.name,
            users=split.users,
            catalog=catalog,
            train=split.train,
            vectors=vectors,
            n_candidates=config.protocol.n_candidates,
            seed=config.seed,
            held_out=split.held_out,
        )
        if isinstance(builder, PreparesInstructions):
            with guard.calling("instructions", config.instructions.name, builder, "prepare"):
                builder.prepare(context)
        builder = GuardedBuilder(builder, config.instructions.name)
    examples = TrainingExamples.from_split(split, config.protocol, seed=config.seed)
    return TrainingData(
        interactions=split.train,
        n_users=len(split.users),
        catalog=catalog,
        validation=split.validation.queries,
        validate=lambda scores: validate(scores, split.validation),
        validate_by=lambda score: validate_by(score, split.validation, len(catalog)),
        examples=examples,
        n_examples=len(examples),
        builder=builder,
        users=split.users,
        item_vectors=vectors,
        modalities=modalities,
        device=device,
        scratch=scratch,
        dataset=task.data.name,
        dataset_version=task.data.version,
        held_out=split.held_out,
        mask_seen=config.protocol.mask_seen,
    )


class GuardedBuilder:
    """A builder that is blamed itself where it raises, or gives what cannot be, inside a model."""

    def __init__(self, builder: InstructionBuilder, name: str) -> None:
        self.builder, self.name = builder, name

    def build(self, query: Query, catalog: Catalog) -> Instruction:
        """Ask for one query, as the builder does."""
        with guard.calling("instructions", self.name, self.builder, "build"):
            built = self.builder.build(query, catalog)
        if wrong := _malformed(built, query):
            raise PluginError(f"{self._whose} built {wrong}")
        return built

    def parse(self, text: str, instruction: Instruction) -> list[int]:
        """Read an answer, as the builder does."""
        with guard.calling("instructions", self.name, self.builder, "parse"):
            found = self.builder.parse(text, instruction)
        n = len(instruction.answers)
        if not isinstance(found, list) or not all(_is_position(i, n) for i in found):
            raise PluginError(
                f"{self._whose} parsed {found!r:.80}, expected a list of positions 0 to {n - 1}"
            )
        return found

    @property
    def _whose(self) -> str:
        return f"instructions {self.name!r} of {guard.owner_of(self.builder)}"


def _is_position(found: object, n: int) -> bool:
    whole = isinstance(found, int | np.integer) and not isinstance(found, bool)
    return whole and 0 <= int(found) < n  # type: ignore[call-overload]


def _malformed(built: object, query: Query) -> str | None:
    """Say what is wrong with an instruction; None where it is well."""
    if not isinstance(built, Instruction):
        return f"{type(built).__name__}, expected Instruction"
    messages = built.messages
    if not messages or not all(isinstance(message, Message) for message in messages):
        return f"messages {messages!r:.80}, expected one or more of type Message"
    n = 0 if query.candidates is None else len(query.candidates)
    for name, names in (("answers", built.answers), ("labels", built.labels)):
        if name == "labels" and not names:
            continue  # candidates that are not listed
        if len(names) != n or not all(isinstance(one, str) for one in names):
            return f"{name} {names!r:.80}, expected {n} strings, one a candidate"
    return None


def _create_builder(plugins: Plugins, component: Component) -> InstructionBuilder:
    registry = plugins["instructions"]
    config = registry.configure(component.name, component.options, "instructions")
    builder: InstructionBuilder = registry.create(component.name, config)
    return builder


def shown_catalog(catalog: Catalog, plugins: Plugins, config: RunConfig) -> Catalog:
    """Return the catalog with the run's pictures, and what its encoder says of them in words.

    Raises:
        ConfigError: the encoder gives no words.
    """
    catalog = with_images(catalog, config.images, seed=config.protocol.data_seed)
    component = config.encoder
    if component is None:
        return catalog
    encoder = _create_encoder(plugins, component, "encoder")
    if not isinstance(encoder, Describer):
        raise ConfigError(
            f"encoder {component.name!r} gives vectors, not words; for soft visual tokens use -o "
            f"vectors.name={component.name}, and -o encoder.name=image-tags for words"
        )
    with guard.calling("encoder", component.name, encoder, "describe"):
        return describe_catalog(catalog, encoder, component.name)


def _modalities(planned: PlannedRun, catalog: Catalog, plugins: Plugins) -> dict[str, FloatArray]:
    """Return the vectors that a model asks for with `reads_modalities`, by modality.

    Raises:
        ConfigError: there are none.
    """
    config, wanted = planned.config, modality_sections(planned.recommender)
    if planned.recommender.reads_instructions or not wanted:
        return {}
    shown = with_images(catalog, config.images, seed=config.protocol.data_seed)
    found = {}
    for section in wanted:
        vectors = item_vectors(shown, plugins, config, section)
        if vectors is not None:
            found[MODALITIES[section]] = vectors
    if not found:
        raise ConfigError(
            f"model {planned.spec.model.name!r} needs vectors of the items; name an encoder, e.g. "
            + " or ".join(f"-o {section}.name=..." for section in wanted)
            + "; see `mmrec-bench list encoders`"
        )
    return found


def metric_vectors(
    metrics: Sequence[Metric], catalog: Catalog, plugins: Plugins, config: RunConfig
) -> dict[str, FloatArray]:
    """Return the vectors that metrics ask for with `reads_modalities`, by modality.

    They are of the run's encoder of that section, else of the metric's default; and always of the
    real pictures, since a list is what it is whatever the model was shown.
    """
    found: dict[str, FloatArray] = {}
    real = config.model_copy(update={"images": "real"})
    for metric in metrics:
        for section in modality_sections(type(metric)):
            if MODALITIES[section] in found:
                continue
            chosen = real
            if getattr(real, section) is None:
                default = getattr(metric, "default_vectors", {}).get(section)
                component = None if default is None else Component(name=default)
                chosen = real.model_copy(update={section: component})
            vectors = item_vectors(catalog, plugins, chosen, section)
            if vectors is not None:
                found[MODALITIES[section]] = vectors
    return found


def item_vectors(
    catalog: Catalog, plugins: Plugins, config: RunConfig, section: str = "vectors"
) -> FloatArray | None:
    """Return (N, D) float32 vectors of a shown catalog's items; None where none are asked for.

    Args:
        catalog: with the run's pictures.
        plugins: for the encoder.
        config: of the run.
        section: of the config that names the encoder; see `config.MODALITIES`.

    Raises:
        ConfigError: the encoder gives no vectors, or none that images=grey could change.
    """
    component: Component | None = getattr(config, section)
    if component is None:
        return None
    encoder = _create_encoder(plugins, component, section)
    if not isinstance(encoder, Encoder):
        raise ConfigError(
            f"encoder {component.name!r} gives words, not vectors; use it as -o "
            f"encoder.name={component.name}, and for vectors e.g. -o vectors.name=efficientnet"
        )
    with guard.calling("encoder", component.name, encoder, "encode"):
        vectors = encode_catalog(catalog, encoder, component.name)
    if reads_of(encoder, component.name) == "picture" or section != "vectors":
        return vectors  # the catalog's pictures are what the run is shown
    seed = config.protocol.data_seed
    return with_vectors(vectors, catalog.items, config.images, seed)


def _create_encoder(plugins: Plugins, component: Component, section: str) -> object:
    registry = plugins["encoder"]
    config = registry.configure(component.name, component.options, section)
    encoder: object = registry.create(component.name, config)
    return encoder
