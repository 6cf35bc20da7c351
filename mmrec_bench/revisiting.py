"""Runs that are there: measured again from their predictions, or repeated with other pictures."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mmrec_bench import runner
from mmrec_bench.config import Images
from mmrec_bench.errors import ConfigError, StorageError
from mmrec_bench.measuring import metrics_with_recorded
from mmrec_bench.planning import Workspace, plan_one
from mmrec_bench.plugins import Plugins
from mmrec_bench.records import DatasetSpec
from mmrec_bench.registry import check_unique
from mmrec_bench.runfolder import RunFolder, read_request
from mmrec_bench.runner import FinishedRun

log = logging.getLogger("mmrec_bench")


def evaluate(
    run_id: str,
    results: Path,
    metrics: tuple[str, ...] | None,
    data_root: Path | None,
    plugins: Plugins,
) -> FinishedRun:
    """Measure the stored predictions of a finished run again; loads no model.

    What the run's record tells is measured again too, so that nothing is lost by asking for more.

    Args:
        run_id: of the run.
        results: where it lies.
        metrics: to measure beside those of the run and of its record; None = none.
        data_root: where the data set lies now; None = where the run found it.
        plugins: the registries.

    Raises:
        StorageError: no such run, unfinished, or the data set has changed since.
        ConfigError: a metric is unknown or given twice.
    """
    request = read_request(results, run_id)
    config = request.config
    workspace = Workspace(results, data_root or request.data_root)
    check_unique(metrics or (), "metric")
    asked = tuple(dict.fromkeys([*config.metrics, *(metrics or ())]))
    built = metrics_with_recorded(asked, results, request.spec, plugins)
    task = runner.prepare(config, workspace, plugins)
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
        store = runner.open_store(folder, request.spec, task)
        if missing := len(store.missing()):
            raise StorageError(
                f"{run_id} is unfinished: {missing} of {len(task.split.test)} cases have no "
                "prediction; run the same command again to go on"
            )
        return runner.finish(request.spec, task, built, folder, store, plugins)


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
    task = runner.prepare(request.config, workspace, plugins)
    finished = []
    for mode in modes:
        log.info("%s with images=%s", request.spec.model.name, mode)
        config = request.config.model_copy(update={"images": mode})
        planned = plan_one(replace(task, config=config), config.model, workspace, plugins)
        if planned.spec.images != mode:
            raise ConfigError(f"{request.spec.model.name} is shown no pictures: nothing to ablate")
        finished.append(runner.run(planned, task, workspace, plugins))
    return finished
