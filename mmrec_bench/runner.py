"""The only module that knows every step of a run; read it top to bottom."""

import logging
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mmrec_bench import protocol, transfer
from mmrec_bench.asking import announce, check_scores, score_in_orders, shown_orders
from mmrec_bench.collecting import training_data
from mmrec_bench.config import Component, Images, RunConfig
from mmrec_bench.errors import ConfigError, MMRecError, StorageError
from mmrec_bench.evaluation import (
    STRICT,
    intervals,
    measurements,
    only_valid,
    rank,
)
from mmrec_bench.interfaces import (
    AsksAhead,
    EstimatesCost,
    Metric,
    ProbesMemory,
    Recommender,
    ReportsParameters,
    TrainingData,
    Transfers,
)
from mmrec_bench.permutations import show
from mmrec_bench.planning import PlannedRun, Task, Workspace, build_metrics, plan_one
from mmrec_bench.plugins import Plugins
from mmrec_bench.predictions import PredictionStore
from mmrec_bench.progress import progress
from mmrec_bench.records import DatasetSpec, RunRecord, RunSpec
from mmrec_bench.runfolder import RunFolder, make_record, read_request
from mmrec_bench.types import (
    Measurement,
    Outcomes,
)

log = logging.getLogger("mmrec_bench")

_CASES_PER_PART = {True: 64, False: 1024}
"""Cases scored between two writes: models that read instructions are slow, others fast."""


@dataclass(frozen=True)
class FinishedRun:
    """A record and the per-case values behind it."""

    record: RunRecord
    measurements: dict[str, Measurement]


def prepare(config: RunConfig, workspace: Workspace, plugins: Plugins) -> Task:
    """Read the data set, and the source of a transfer, and divide them under the protocol."""
    task = _divide(config, "dataset", config.dataset, workspace, plugins)
    if config.limit_cases is not None:
        rows = np.arange(min(config.limit_cases, len(task.split.test)), dtype=np.int64)
        task = replace(task, split=replace(task.split, test=task.split.test.take(rows)))
    if config.transfer is None or config.transfer.source is None:
        return task
    learned_on = config.model_copy(
        update={"protocol": transfer.source_protocol(config.protocol), "transfer": None}
    )
    component = config.transfer.source
    source = _divide(learned_on, "transfer.source", component, workspace, plugins)
    transfer.check_source(source.data, task.data)
    counts = {**task.split.counts, **transfer.source_counts(source.split, task.split)}
    return replace(task, split=replace(task.split, counts=counts), source=source)


def _divide(
    config: RunConfig, section: str, component: Component, workspace: Workspace, plugins: Plugins
) -> Task:
    """Read one data set and divide it under the protocol."""
    registry = plugins["dataset"]
    dataset = registry.create(
        component.name, registry.configure(component.name, component.options, section)
    )
    log.info("reading %s below %s", component.name, workspace.data_root)
    data = dataset.load(workspace.data_root)
    leaks = protocol.describe_leaks(config.protocol)
    data = replace(data, card=replace(data.card, notes=(*data.card.notes, *leaks)))
    split = protocol.make_split(data, config.protocol, config.transfer)
    log.info(
        "%s: %d users, %d items, %d train interactions, %d test cases",
        data.name,
        len(split.users),
        len(split.catalog),
        len(split.train),
        len(split.test),
    )
    if split.held_out is not None:
        n_users, n_items = len(split.held_out.users), len(split.held_out.items)
        log.info("%s: %d users and %d items are held out", data.name, n_users, n_items)
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
        if len(todo) or (planned.probe_memory and not folder.memory_facts()):
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
    recommender = make_ready(planned, task, workspace, plugins, folder)
    if planned.probe_memory and isinstance(recommender, ProbesMemory):
        log.info("probing what %s remembers of %s", name, task.data.name)
        folder.keep_memory_facts(
            recommender.probe_memory(task.data.catalog, seed=planned.spec.seed)
        )
    if not len(todo):
        return
    cases = task.split.test
    orders = shown_orders(planned, cases)
    if isinstance(recommender, AsksAhead):
        announce(recommender, cases.queries.take(todo), None if orders is None else orders[todo])
    with progress(f"scoring with {name}", total=len(todo), unit="cases") as bar:
        for rows in _parts(todo, planned.recommender.reads_instructions):
            part = cases.take(rows)
            started = time.monotonic()
            if orders is None:
                scores, shown = recommender.score(part.queries), None
                check_scores(scores, part.queries, len(task.split.catalog), name)
            else:
                scores, shown = score_in_orders(recommender, part, orders[rows], name)
            folder.add_score_time(time.monotonic() - started, len(rows))
            store.append(rows, scores, rank(scores.values, part), shown)
            bar.advance(len(rows))
    if isinstance(recommender, ReportsParameters):
        folder.keep_facts(recommender.facts())


def make_ready(
    planned: PlannedRun, task: Task, workspace: Workspace, plugins: Plugins, folder: RunFolder
) -> Recommender:
    """Return the model fitted or restored; with a source, learned there and then taken over."""
    name, seed = planned.spec.model.name, planned.spec.seed
    recommender: Recommender = planned.recommender(planned.options)
    if task.source is None:
        training = _training_data(planned, task, workspace, plugins, folder)
        fit_or_restore(recommender, training, folder, name, seed)
        return recommender
    training = _training_data(planned, task.source, workspace, plugins, folder)
    training = replace(training, tested_on=task.data.name)
    target = replace(task, split=transfer.without_training(task.split))
    shown = _training_data(planned, target, workspace, plugins, folder)
    fit_or_restore(recommender, training, folder, name, seed)
    if not isinstance(recommender, Transfers):
        raise ConfigError(f"model {name!r} cannot transfer from {task.source.data.name}")
    recommender.transfer(shown)
    return recommender


def _training_data(
    planned: PlannedRun, task: Task, workspace: Workspace, plugins: Plugins, folder: RunFolder
) -> TrainingData:
    return training_data(planned, task, plugins, device=workspace.device, scratch=folder.scratch)


def estimate(
    planned: PlannedRun, task: Task, workspace: Workspace, plugins: Plugins
) -> dict[str, str | int | float]:
    """Return what scoring all cases would cost; {} for a model whose answers cost nothing."""
    recommender = planned.recommender(planned.options)
    if not isinstance(recommender, EstimatesCost):
        return {}
    folder = RunFolder(workspace.results, planned.spec)
    training = _training_data(planned, task, workspace, plugins, folder)
    queries, orders = task.split.test.queries, shown_orders(planned, task.split.test)
    if orders is not None:
        n_cases, n_orders, n_candidates = orders.shape
        queries = queries.take(np.repeat(np.arange(n_cases), n_orders))
        queries = show(queries, orders.reshape(-1, n_candidates))
    return recommender.estimate(training, queries)


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
    if task.transfer_spec() != request.spec.transfer:
        raise StorageError(
            f"{run_id} ran with {request.spec.transfer}, but {workspace.data_root} now gives "
            f"{task.transfer_spec()}: another source, or other users and items held out"
        )
    with RunFolder.claim(results, request.spec, config, workspace.data_root) as folder:
        store = open_store(folder, request.spec, task)
        if missing := len(store.missing()):
            raise StorageError(
                f"{run_id} is unfinished: {missing} of {len(task.split.test)} cases have no "
                "prediction; run the same command again to go on"
            )
        return finish(request.spec, task, built, folder, store)


def ablate(
    run_id: str, workspace: Workspace, modes: Sequence[Images], plugins: Plugins
) -> list[FinishedRun]:
    """Repeat a run, fitting included, with each kind of pictures, on the same cases.

    Returns:
        One finished run for each of `modes`; those that were run before are only measured.

    Raises:
        StorageError: no such run here.
        ConfigError: the run's model is shown no pictures.
    """
    request = read_request(workspace.results, run_id)
    task = prepare(request.config, workspace, plugins)
    finished = []
    for mode in modes:
        log.info("%s with images=%s", request.spec.model.name, mode)
        config = request.config.model_copy(update={"images": mode})
        planned = plan_one(replace(task, config=config), config.model, workspace, plugins)
        if planned.spec.images != mode:
            raise ConfigError(f"{request.spec.model.name} is shown no pictures: nothing to ablate")
        finished.append(run(planned, task, workspace, plugins))
    return finished


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
    if predictions.answers is not None:
        ranking = [metric for metric in metrics if not metric.name.startswith("valid_rate")]
        strict = measurements(ranking, only_valid(outcomes))
        measured |= {f"{STRICT}{name}": one for name, one in strict.items()}
        better |= {f"{STRICT}{name}": better[name] for name in strict}
    record = make_record(spec, task.data, split, predictions, intervals(measured), better, folder)
    folder.write_record(record)
    return FinishedRun(record, measured)


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
