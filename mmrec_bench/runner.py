"""The only module that knows every step of a run; read it top to bottom."""

import logging
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from mmrec_bench import guard, protocol, transfer
from mmrec_bench.asking import announce, ask, score_in_orders, shown_orders
from mmrec_bench.cases import case_table
from mmrec_bench.collecting import training_data
from mmrec_bench.config import Component, RunConfig
from mmrec_bench.counting import rank
from mmrec_bench.errors import ConfigError, MMRecError
from mmrec_bench.evaluation import STRICT, intervals, only_valid
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
from mmrec_bench.loaded import check_loaded
from mmrec_bench.measuring import measure_each, metrics_with_recorded, vectors_for
from mmrec_bench.observers import observed
from mmrec_bench.paths import use_data_root
from mmrec_bench.permutations import show
from mmrec_bench.planning import PlannedRun, Task, Workspace, build_metrics
from mmrec_bench.plugins import Plugins
from mmrec_bench.predictions import PredictionStore
from mmrec_bench.progress import progress
from mmrec_bench.records import RunRecord, RunSpec
from mmrec_bench.registry import NAME_RULE, is_name
from mmrec_bench.runfolder import RunFolder, make_record
from mmrec_bench.types import Measurement, Outcomes

log = logging.getLogger("mmrec_bench")

_CASES_PER_PART = {True: 64, False: 1024}
"""Cases scored between two writes: models that read instructions are slow, others fast."""


@dataclass(frozen=True)
class FinishedRun:
    """A record and the per-case values behind it.

    Attributes:
        record: as written.
        measurements: by metric.
        failures: one line for each metric that could not be measured and is not in the record.
    """

    record: RunRecord
    measurements: dict[str, Measurement]
    failures: tuple[str, ...] = ()


class AllRuns(NamedTuple):
    """What became of the runs of one call.

    Attributes:
        finished: in order, the asked-for model last.
        failures: one line for each baseline that failed.
        error: why the asked-for model failed; None = it is the last of `finished`.
    """

    finished: list[FinishedRun]
    failures: list[str]
    error: MMRecError | None


def prepare(config: RunConfig, workspace: Workspace, plugins: Plugins) -> Task:
    """Read the data set, and the source of a transfer, and divide them under the protocol."""
    use_data_root(workspace.data_root)
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
    with guard.calling("dataset", component.name, dataset, "load"):
        loaded = dataset.load(workspace.data_root)
    owned = registry.find(component.name)
    data = check_loaded(loaded, f"dataset {component.name!r} of {owned.owner}")
    if not is_name(data.name):  # records and studies lie in folders of this name
        raise ConfigError(
            f"dataset {component.name!r} of {owned.owner} goes by the name {data.name!r}, expected "
            f"{NAME_RULE}"
        )
    if owned.mark:
        data = replace(data, version=f"{data.version}+{owned.mark}")
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

    A run that was killed goes on where its last whole part ended; a finished one is only measured,
    by what its record tells too, so that nothing of it is lost.
    """
    asked = planned.config.metrics
    if workspace.fresh:
        metrics = build_metrics(asked, plugins)
    else:
        metrics = metrics_with_recorded(asked, workspace.results, planned.spec, plugins)
    with (
        RunFolder.claim(
            workspace.results,
            planned.spec,
            planned.config,
            workspace.data_root,
            fresh=workspace.fresh,
        ) as folder,
        observed(planned.spec) as tell,
    ):
        store = open_store(folder, planned.spec, task)
        todo = store.missing()
        if len(todo) or (planned.probe_memory and not folder.memory_facts()):
            score_cases(planned, task, workspace, plugins, folder, store, todo)
        finished = finish(planned.spec, task, metrics, folder, store, plugins)
        tell(finished.record)
        return finished


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
        with guard.calling("model", name, recommender, "probe_memory"):
            memory = recommender.probe_memory(task.data.catalog, seed=planned.spec.seed)
        folder.keep_memory_facts(memory)
    if not len(todo):
        return
    cases = task.split.test
    orders = shown_orders(planned, cases)
    if isinstance(recommender, AsksAhead):
        asked = None if orders is None else orders[todo]
        announce(recommender, cases.queries.take(todo), asked, name)
    with progress(f"scoring with {name}", total=len(todo), unit="cases") as bar:
        for rows in _parts(todo, planned.recommender.reads_instructions):
            part = cases.take(rows)
            started = time.monotonic()
            if orders is None:
                scores = ask(recommender, part.queries, len(task.split.catalog), name)
                shown = None
            else:
                scores, shown = score_in_orders(recommender, part, orders[rows], name)
            folder.add_score_time(time.monotonic() - started, len(rows))
            store.append(rows, scores, rank(scores.values, part), shown)
            bar.advance(len(rows))
    if facts := _facts(recommender, name):
        folder.keep_facts(facts)


def make_ready(
    planned: PlannedRun, task: Task, workspace: Workspace, plugins: Plugins, folder: RunFolder
) -> Recommender:
    """Return the model fitted or restored; with a source, learned there and then taken over."""
    name, seed = planned.spec.model.name, planned.spec.seed
    with guard.calling("model", name, planned.recommender, "construction"):
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
    with guard.calling("model", name, recommender, "transfer"):
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
    name = planned.spec.model.name
    with guard.calling("model", name, planned.recommender, "construction"):
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
    with guard.calling("model", name, recommender, "estimate"):
        return recommender.estimate(training, queries)


def fit_or_restore(
    recommender: Recommender, training: TrainingData, folder: RunFolder, name: str, seed: int
) -> None:
    """Restore a saved model, or fit one and save it whole or not at all."""
    if folder.fitted:
        log.info("restoring %s from %s", name, folder.model)
        with guard.calling("model", name, recommender, "restore"):
            recommender.restore(folder.model, training)
        return
    started = time.monotonic()
    with guard.calling("model", name, recommender, "fit"):
        recommender.fit(training, seed=seed)
    seconds = time.monotonic() - started
    with (
        folder.saving(seconds, _facts(recommender, name)) as target,
        guard.calling("model", name, recommender, "save"),
    ):
        recommender.save(target)
    shutil.rmtree(folder.scratch, ignore_errors=True)


def _facts(recommender: Recommender, name: str) -> dict[str, str | int | float]:
    if not isinstance(recommender, ReportsParameters):
        return {}
    with guard.calling("model", name, recommender, "facts"):
        return recommender.facts()


def finish(
    spec: RunSpec,
    task: Task,
    metrics: list[Metric],
    folder: RunFolder,
    store: PredictionStore,
    plugins: Plugins,
) -> FinishedRun:
    """Measure stored predictions and write the record."""
    predictions = store.read()
    split = task.split
    outcomes = Outcomes(
        ranks=predictions.ranks,
        catalog=split.catalog,
        item_counts=np.bincount(split.train.item, minlength=len(split.catalog)),
        answers=predictions.answers,
        histories=split.test.queries.history,
        vectors=vectors_for(metrics, task, plugins),
    )
    measured, failures = measure_each(metrics, outcomes)
    better = {metric.name: type(metric).higher_is_better for metric in metrics}
    if predictions.answers is not None:
        ranking = [metric for metric in metrics if not metric.name.startswith("valid_rate")]
        ranking = [metric for metric in ranking if metric.name in measured]
        strict, failed = measure_each(ranking, only_valid(outcomes), STRICT)
        failures += failed
        measured |= {f"{STRICT}{name}": one for name, one in strict.items()}
        better |= {f"{STRICT}{name}": better[name] for name in strict}
    cases = case_table(split, measured)
    record = make_record(
        spec, task.data, split, predictions, intervals(measured), better, folder, cases.hash
    )
    folder.write_record(record, cases)
    return FinishedRun(record, measured, tuple(failures))


def _parts(
    todo: np.ndarray[tuple[int], np.dtype[np.int64]],
    slow: bool,
) -> Iterator[np.ndarray[tuple[int], np.dtype[np.int64]]]:
    size = _CASES_PER_PART[slow]
    for start in range(0, len(todo), size):
        yield todo[start : start + size]


def run_all(
    planned: list[PlannedRun], task: Task, workspace: Workspace, plugins: Plugins
) -> AllRuns:
    """Run baselines and then the model; one that fails is named and the rest goes on."""
    finished: list[FinishedRun] = []
    failures: list[str] = []
    for one in planned:
        try:
            finished.append(run(one, task, workspace, plugins))
        except MMRecError as error:
            if one is planned[-1]:
                return AllRuns(finished, failures, error)
            failures.append(f"baseline {one.spec.model.name} failed: {error}")
            log.error("%s", failures[-1])
            log.debug("why:", exc_info=error)
    return AllRuns(finished, failures, None)
