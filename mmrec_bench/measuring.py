"""Metric by metric, so that one that fails loses neither the run nor the others."""

import logging
from collections.abc import Sequence
from pathlib import Path

from mmrec_bench.collecting import metric_vectors
from mmrec_bench.config import MODALITIES
from mmrec_bench.errors import ConfigError, MMRecError, StorageError
from mmrec_bench.evaluation import STRICT, measurements
from mmrec_bench.interfaces import Metric
from mmrec_bench.planning import Task, build_metrics, modality_sections
from mmrec_bench.plugins import Plugins
from mmrec_bench.records import RunSpec, read_record, record_path
from mmrec_bench.types import FloatArray, Measurement, Outcomes

log = logging.getLogger("mmrec_bench")


def metrics_with_recorded(
    asked: tuple[str, ...], results: Path, spec: RunSpec, plugins: Plugins
) -> list[Metric]:
    """Build the metrics that are asked for, and then those that the run's record tells beside.

    Raises:
        ConfigError: a metric is unknown; where only the record tells it, its plugin is not here.
    """
    built = build_metrics(asked, plugins)
    path = record_path(results, spec)
    try:
        recorded = read_record(path).metrics if path.exists() else {}
    except StorageError as error:
        log.warning("%s; only the metrics asked for are measured", error)
        return built
    known = {metric.name for metric in built}
    known |= {f"{STRICT}{name}" for name in (*known, *recorded)}
    more = [name for name in recorded if name not in known]
    try:
        return [*built, *build_metrics(tuple(more), plugins)]
    except ConfigError as error:
        raise ConfigError(f"{path} tells a metric that cannot be measured again: {error}") from None


def vectors_for(metrics: Sequence[Metric], task: Task, plugins: Plugins) -> dict[str, FloatArray]:
    """Return the vectors that metrics ask for; where an encoder fails, its metrics alone do."""
    found: dict[str, FloatArray] = {}
    for metric in metrics:
        if all(MODALITIES[name] in found for name in modality_sections(type(metric))):
            continue
        try:
            found |= metric_vectors([metric], task.split.catalog, plugins, task.config)
        except MMRecError as error:
            log.error("no vectors for %s: %s", metric.name, error)
    return found


def measure_each(
    metrics: Sequence[Metric], outcomes: Outcomes, prefix: str = ""
) -> tuple[dict[str, Measurement], list[str]]:
    """Measure each metric; return measurements by name, and one line for each that failed.

    Args:
        metrics: to measure.
        outcomes: of all cases.
        prefix: of the names under which they will be recorded, for the lines.
    """
    measured: dict[str, Measurement] = {}
    failures = []
    for metric in metrics:
        try:
            measured |= measurements([metric], outcomes)
        except MMRecError as error:
            failures.append(f"{prefix}{metric.name} is not in the record: {error}")
            log.error("%s", failures[-1])
            log.debug("why:", exc_info=error)
    return measured, failures
