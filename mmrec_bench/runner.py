"""The only module that knows every step of a run; read it top to bottom."""

import logging
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mmrec_bench import protocol
from mmrec_bench.config import Component, RunConfig
from mmrec_bench.descriptions import describe_catalog
from mmrec_bench.errors import ConfigError, MMRecError, PluginError, StorageError
from mmrec_bench.evaluation import intervals, measurements, rank, validate
from mmrec_bench.examples import TrainingExamples
from mmrec_bench.interfaces import (
    Describer,
    InstructionBuilder,
    Metric,
    Recommender,
    ReportsParameters,
    TrainingData,
)
from mmrec_bench.planning import PlannedRun, Task, Workspace, build_metrics
from mmrec_bench.plugins import Plugins
from mmrec_bench.predictions import PredictionStore
from mmrec_bench.progress import progress
from mmrec_bench.records import DatasetSpec, RunRecord, RunSpec
from mmrec_bench.runfolder import RunFolder, make_record, read_request
from mmrec_bench.types import Catalog, Measurement, Outcomes, Queries, Scores

log = logging.getLogger("mmrec_bench")

_CASES_PER_PART = {True: 64, False: 1024}
"""Cases scored between two writes: models that read instructions are slow, others fast."""


@dataclass(frozen=True)
class FinishedRun:
    """A record and the per-case values behind it."""

    record: RunRecord
    measurements: dict[str, Measurement]


def prepare(config: RunConfig, workspace: Workspace, plugins: Plugins) -> Task:
    """Read the data set and divide it under the protocol."""
    name, options = config.dataset.name, config.dataset.options
    dataset = plugins["dataset"].create(
        name, plugins["dataset"].configure(name, options, "dataset")
    )
    log.info("reading %s below %s", name, workspace.data_root)
    data = dataset.load(workspace.data_root)
    leaks = protocol.describe_leaks(config.protocol)
    data = replace(data, card=replace(data.card, notes=(*data.card.notes, *leaks)))
    split = protocol.make_split(data, config.protocol)
    if config.limit_cases is not None:
        rows = np.arange(min(config.limit_cases, len(split.test)), dtype=np.int64)
        split = replace(split, test=split.test.take(rows))
    log.info(
        "%s: %d users, %d items, %d train interactions, %d test cases",
        data.name,
        len(split.users),
        len(split.catalog),
        len(split.train),
        len(split.test),
    )
    return Task(config, data, split)


def run(planned: PlannedRun, task: Task, workspace: Workspace, plugins: Plugins) -> FinishedRun:
    """Fit or restore, score what is missing, measure, and write the record.

    A run that was killed goes on where its last whole part ended; a finished one is only measured.
    """
    metrics = build_metrics(planned.config.metrics, plugins)
    with RunFolder.claim(
        workspace.results,
        planned.spec,
        planned.config,
        workspace.data_root,
        fresh=workspace.fresh,
    ) as folder:
        store = open_store(folder, planned.spec, task)
        todo = store.missing()
        if len(todo):
            score_cases(planned, task, workspace, plugins, folder, store, todo)
        return finish(planned.spec, task, metrics, folder, store)


def open_store(folder: RunFolder, spec: RunSpec, task: Task) -> PredictionStore:
    """Open the run's predictions; scores over a whole catalog would be gigabytes, ranks are not."""
    listed = spec.protocol["candidates"] != "full"
    return PredictionStore(folder.predictions, spec.hash, len(task.split.test), keep_scores=listed)


def score_cases(
    planned: PlannedRun,
    task: Task,
    workspace: Workspace,
    plugins: Plugins,
    folder: RunFolder,
    store: PredictionStore,
    todo: np.ndarray[tuple[int], np.dtype[np.int64]],
) -> None:
    """Fit or restore the model and append the missing parts to the store."""
    name = planned.spec.model.name
    recommender = planned.recommender(planned.options)
    training = training_data(planned, task, workspace, plugins, folder)
    fit_or_restore(recommender, training, folder, name, planned.spec.seed)
    cases = task.split.test
    with progress(f"scoring with {name}", total=len(todo), unit="cases") as bar:
        for rows in _parts(todo, planned.recommender.reads_instructions):
            part = cases.take(rows)
            started = time.monotonic()
            scores = recommender.score(part.queries)
            folder.add_score_time(time.monotonic() - started, len(rows))
            check_scores(scores, part.queries, len(task.split.catalog), name)
            store.append(rows, scores, rank(scores.values, part))
            bar.advance(len(rows))


def training_data(
    planned: PlannedRun, task: Task, workspace: Workspace, plugins: Plugins, folder: RunFolder
) -> TrainingData:
    """Collect what a model may learn from; no test case is in it."""
    split, config = task.split, planned.config
    builder, catalog = None, split.catalog
    if planned.recommender.reads_instructions:
        builder = _create_builder(plugins, config.instructions)
        catalog = _describe(catalog, plugins, config.encoder)
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
        device=workspace.device,
        scratch=folder.scratch,
    )


def fit_or_restore(
    recommender: Recommender, training: TrainingData, folder: RunFolder, name: str, seed: int
) -> None:
    """Restore a saved model, or fit one and save it whole or not at all."""
    if folder.fitted:
        log.info("restoring %s from %s", name, folder.model)
        recommender.restore(folder.model, training)
        return
    started = time.monotonic()
    recommender.fit(training, seed=seed)
    facts = recommender.facts() if isinstance(recommender, ReportsParameters) else {}
    with folder.saving(time.monotonic() - started, facts) as target:
        recommender.save(target)
    shutil.rmtree(folder.scratch, ignore_errors=True)


def evaluate(
    run_id: str,
    results: Path,
    metrics: tuple[str, ...] | None,
    data_root: Path | None,
    plugins: Plugins,
) -> FinishedRun:
    """Measure the stored predictions of a finished run again; loads no model.

    Raises:
        StorageError: no such run, unfinished, or the data set has changed since.
    """
    request = read_request(results, run_id)
    config = request.config.model_copy(update={"metrics": metrics or request.config.metrics})
    workspace = Workspace(results, data_root or request.data_root)
    built = build_metrics(config.metrics, plugins)
    task = prepare(config, workspace, plugins)
    found = DatasetSpec(name=task.data.name, version=task.data.version)
    if found != request.spec.dataset or task.split.candidates_hash != request.spec.candidates_hash:
        raise StorageError(
            f"{run_id} ran on {request.spec.dataset.name} {request.spec.dataset.version[:12]}, but "
            f"{workspace.data_root} now gives {found.name} {found.version[:12]}: other cases"
        )
    with RunFolder.claim(results, request.spec, config, workspace.data_root) as folder:
        store = open_store(folder, request.spec, task)
        if missing := len(store.missing()):
            raise StorageError(
                f"{run_id} is unfinished: {missing} of {len(task.split.test)} cases have no "
                "prediction; run the same command again to go on"
            )
        return finish(request.spec, task, built, folder, store)


def finish(
    spec: RunSpec,
    task: Task,
    metrics: list[Metric],
    folder: RunFolder,
    store: PredictionStore,
) -> FinishedRun:
    """Measure stored predictions and write the record."""
    predictions = store.read()
    split = task.split
    outcomes = Outcomes(
        ranks=predictions.ranks,
        catalog=split.catalog,
        item_counts=np.bincount(split.train.item, minlength=len(split.catalog)),
        answers=predictions.answers,
    )
    measured = measurements(metrics, outcomes)
    better = {metric.name: type(metric).higher_is_better for metric in metrics}
    record = make_record(spec, task.data, split, predictions, intervals(measured), better, folder)
    folder.write_record(record)
    return FinishedRun(record, measured)


def check_scores(scores: Scores, queries: Queries, n_items: int, name: str) -> None:
    """Check a model's scores at the seam, so that the inside can trust them.

    Raises:
        PluginError: wrong type, shape or dtype; names the model.
    """
    width = n_items if queries.candidates is None else queries.candidates.shape[1]
    expected = (len(queries), width)
    values = scores.values
    if not isinstance(values, np.ndarray) or values.shape != expected:
        found = getattr(values, "shape", type(values).__name__)
        raise PluginError(f"model {name!r} returned scores of shape {found}, expected {expected}")
    if values.dtype != np.float32:
        raise PluginError(f"model {name!r} returned {values.dtype} scores, expected float32")


def _create_builder(plugins: Plugins, component: Component) -> InstructionBuilder:
    registry = plugins["instructions"]
    config = registry.configure(component.name, component.options, "instructions")
    builder: InstructionBuilder = registry.create(component.name, config)
    return builder


def _describe(catalog: Catalog, plugins: Plugins, component: Component | None) -> Catalog:
    if component is None:
        return catalog
    registry = plugins["encoder"]
    config = registry.configure(component.name, component.options, "encoder")
    encoder = registry.create(component.name, config)
    if not isinstance(encoder, Describer):
        raise ConfigError(
            f"encoder {component.name!r} gives vectors, not words, and an instruction in text "
            "can only show words; use -o encoder.name=image-tags"
        )
    return describe_catalog(catalog, encoder, component.name)


def _parts(
    todo: np.ndarray[tuple[int], np.dtype[np.int64]],
    slow: bool,
) -> Iterator[np.ndarray[tuple[int], np.dtype[np.int64]]]:
    size = _CASES_PER_PART[slow]
    for start in range(0, len(todo), size):
        yield todo[start : start + size]


def run_all(
    planned: list[PlannedRun], task: Task, workspace: Workspace, plugins: Plugins
) -> tuple[list[FinishedRun], list[str]]:
    """Run baselines and then the model; a baseline that fails is named and the rest goes on.

    Returns:
        The finished runs in order, and one line for each baseline that failed.

    Raises:
        MMRecError: the model itself failed.
    """
    finished, failures = [], []
    for one in planned:
        try:
            finished.append(run(one, task, workspace, plugins))
        except MMRecError as error:
            if one is planned[-1]:
                raise
            failures.append(f"baseline {one.spec.model.name} failed: {error}")
            log.error("%s", failures[-1])
    return finished, failures
