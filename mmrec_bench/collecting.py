"""What a model is given: train data, catalog, builder and vectors, and no test case."""

from pathlib import Path

from mmrec_bench.config import Component, RunConfig
from mmrec_bench.descriptions import describe_catalog
from mmrec_bench.errors import ConfigError
from mmrec_bench.evaluation import validate
from mmrec_bench.examples import TrainingExamples
from mmrec_bench.interfaces import (
    Describer,
    Encoder,
    InstructionBuilder,
    InstructionContext,
    PreparesInstructions,
    TrainingData,
)
from mmrec_bench.pictures import with_images, with_vectors
from mmrec_bench.planning import PlannedRun, Task
from mmrec_bench.plugins import Plugins
from mmrec_bench.types import Catalog, FloatArray
from mmrec_bench.vectors import encode_catalog, looks_at_pictures


def training_data(
    planned: PlannedRun, task: Task, plugins: Plugins, *, device: str, scratch: Path
) -> TrainingData:
    """Collect what a model may learn from; no test case is in it."""
    split, config = task.split, planned.config
    builder: InstructionBuilder | None = None
    catalog, vectors = split.catalog, None
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
            builder.prepare(context)
    examples = TrainingExamples.from_split(split, config.protocol, seed=config.seed)
    return TrainingData(
        interactions=split.train,
        n_users=len(split.users),
        catalog=catalog,
        validation=split.validation.queries,
        validate=lambda scores: validate(scores, split.validation),
        examples=examples,
        n_examples=len(examples),
        builder=builder,
        users=split.users,
        item_vectors=vectors,
        device=device,
        scratch=scratch,
        dataset=task.data.name,
        dataset_version=task.data.version,
        held_out=split.held_out,
    )


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
    return describe_catalog(catalog, encoder, component.name)


def item_vectors(catalog: Catalog, plugins: Plugins, config: RunConfig) -> FloatArray | None:
    """Return (N, D) float32 vectors of a `shown_catalog`'s items; None where none are asked for.

    Raises:
        ConfigError: the encoder gives no vectors, or none that images=grey could change.
    """
    component = config.vectors
    if component is None:
        return None
    encoder = _create_encoder(plugins, component, "vectors")
    if not isinstance(encoder, Encoder):
        raise ConfigError(
            f"encoder {component.name!r} gives words, not vectors; use it as -o "
            f"encoder.name={component.name}, and for vectors e.g. -o vectors.name=efficientnet"
        )
    vectors = encode_catalog(catalog, encoder, component.name)
    if looks_at_pictures(encoder):
        return vectors  # the catalog's pictures are what the run is shown
    seed = config.protocol.data_seed
    return with_vectors(vectors, catalog.items, config.images, seed)


def _create_encoder(plugins: Plugins, component: Component, section: str) -> object:
    registry = plugins["encoder"]
    config = registry.configure(component.name, component.options, section)
    encoder: object = registry.create(component.name, config)
    return encoder
