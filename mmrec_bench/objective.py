"""What a setting of a model is worth on validation; test cases are not there."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mmrec_bench import guard, planning
from mmrec_bench.asking import announce, ask
from mmrec_bench.collecting import metric_vectors, training_data
from mmrec_bench.config import RunConfig
from mmrec_bench.counting import rank
from mmrec_bench.errors import ConfigError, ModelError
from mmrec_bench.evaluation import BLOCK, measurements
from mmrec_bench.interfaces import AsksAhead, Metric, Recommender, TrainingData
from mmrec_bench.planning import PlannedRun, Task, Workspace
from mmrec_bench.plugins import Plugins
from mmrec_bench.ranks import concat
from mmrec_bench.spaces import Scalar, Space, with_settings
from mmrec_bench.types import FloatArray, Outcomes, Queries, Scores, Split

DEFAULT_METRIC = "ndcg@10"
"""What `TrainingData.validate_by` gives, and what the models stop early by."""

_FEW_CASES = 1000
"""Looked at before any fit, to see whether a metric can be measured."""

Measure = Callable[[Callable[[Queries], Scores]], float]
"""A function that scores queries -> the metric over all validation cases."""


@dataclass(frozen=True)
class Search:
    """What is asked for.

    Attributes:
        space: option -> what is tried for it.
        metric: on validation.
        n_trials: settings that are tried in all, over all calls and processes.
        seed: of the search; the model's is the run's and the same in every trial.
        fit_seeds: fits of a setting, with the run's seed and those after it; their mean counts.
        timeout: seconds after which no trial is begun; None = no limit.
    """

    space: Space
    metric: str = DEFAULT_METRIC
    n_trials: int = 20
    seed: int = 0
    fit_seeds: int = 1
    timeout: float | None = None


def without_test(task: Task) -> Task:
    """Return the task with no test case in it, nor the interactions that they came from."""
    nothing = np.zeros(0, np.int64)
    counts = {name: n for name, n in task.split.counts.items() if "test" not in name}
    split: Split = replace(task.split, test=task.split.test.take(nothing), counts=counts)
    data = replace(task.data, interactions=task.data.interactions.take(nothing))
    source = None if task.source is None else without_test(task.source)
    return replace(task, split=split, data=data, source=source)


class Objective:
    """What a setting is worth on validation: fits on train, scores validation, and nothing else."""

    def __init__(self, task: Task, workspace: Workspace, plugins: Plugins, search: Search) -> None:
        self._task, self._workspace, self._plugins = without_test(task), workspace, plugins
        self.search = search
        (self.metric,) = planning.build_metrics((search.metric,), plugins)
        self._collected: tuple[RunConfig, TrainingData] | None = None
        if not len(self._learned.split.validation):
            raise ConfigError(
                f"{self._learned.data.name} has no validation case under this protocol, and nothing"
                " else may choose; give it a share, e.g. -o protocol.ratios=[0.8,0.1,0.1]"
            )
        catalog = self._learned.split.catalog
        self._vectors = metric_vectors([self.metric], catalog, plugins, task.config)

    @property
    def _learned(self) -> Task:
        """The data set that is learned from, and whose validation decides."""
        return self._task.source or self._task

    @property
    def higher_is_better(self) -> bool:
        """Of the metric."""
        return type(self.metric).higher_is_better

    @property
    def n_cases(self) -> int:
        """Validation cases."""
        return len(self._learned.split.validation)

    def plan(self, settings: Mapping[str, Scalar], seed: int | None = None) -> PlannedRun:
        """Resolve the run that a setting stands for.

        Raises:
            ConfigError: the values do not go together.
        """
        config = with_settings(self._task.config, settings)
        config = config if seed is None else config.model_copy(update={"seed": seed})
        planning.check_config(config, self._plugins)
        task = replace(self._task, config=config)
        planned = planning.plan_one(task, config.model, self._workspace, self._plugins)
        planning.check_abilities(planned, task, self._workspace)
        return planned

    def value(self, planned: PlannedRun, scratch: Path) -> float:
        """Fit the run's model and return the metric on all validation cases."""
        data = replace(self.training_data(planned), scratch=scratch)
        name, seed = planned.spec.model.name, planned.spec.seed
        with guard.calling("model", name, planned.recommender, "construction"):
            recommender: Recommender = planned.recommender(planned.options)
        return fit_and_measure(recommender, data, self._measure(data), seed, name)

    def told(self, planned: PlannedRun, value: float) -> dict[str, Any]:
        """Return what trackers hear of a fit, laid out as a record is."""
        metric = {"value": value, "higher_is_better": self.higher_is_better}
        return {
            "spec": planned.spec.model_dump(mode="json"),
            "counts": {"n_validation_cases": self.n_cases},
            "metrics": {f"validation_{self.search.metric}": metric},
        }

    def training_data(self, planned: PlannedRun) -> TrainingData:
        """Return what may be learned from; collected once for runs that differ in the model alone.

        Raises:
            ConfigError: the run lacks what the model reads.
        """
        same = planned.config.model_copy(update={"model": self._task.config.model})
        if self._collected is None or self._collected[0] != same:
            where = self._workspace.results
            data = training_data(
                planned,
                self._learned,
                self._plugins,
                device=self._workspace.device,
                scratch=where,
            )
            if self._task.source is not None:
                data = replace(data, tested_on=self._task.data.name)
            self._collected = (same, data)
        return self._collected[1]

    def _measure(self, data: TrainingData) -> Measure:
        if self.search.metric == DEFAULT_METRIC:
            return data.validate_by
        return self._measure_all

    def _measure_all(self, score: Callable[[Queries], Scores]) -> float:
        return measure_by(self.metric, score, self._learned.split, self._vectors)

    def check_metric(self) -> None:
        """Measure scores drawn by chance: a metric that cannot choose is told before any fit.

        Raises:
            ConfigError: the metric lacks what it needs, or is undefined on all validation cases.
            PluginError: it fails.
        """
        split, rng = self._learned.split, np.random.default_rng(0)
        cases, n_items = split.validation, len(split.catalog)

        def drawn(queries: Queries) -> Scores:
            listed = queries.candidates
            shape = (len(queries), n_items) if listed is None else listed.shape
            return Scores(rng.random(shape, np.float32))

        for n in (min(_FEW_CASES, len(cases)), len(cases)):  # nearly always the few will do
            some = replace(split, validation=cases.take(np.arange(n)))
            if math.isfinite(measure_by(self.metric, drawn, some, self._vectors)):
                return
        raise ConfigError(
            f"{self.search.metric} is undefined on all {len(cases)} validation cases, whatever "
            "their scores are; choose by another --metric"
        )


def fit_and_measure(
    recommender: Recommender, data: TrainingData, measure: Measure, seed: int, name: str
) -> float:
    """Fit, and measure on validation.

    Raises:
        ModelError: the metric is undefined on all validation cases.
    """
    with guard.calling("model", name, recommender, "fit"):
        recommender.fit(data, seed=seed)
    if isinstance(recommender, AsksAhead):
        announce(recommender, data.validation, None, name)
    value = measure(lambda queries: ask(recommender, queries, data.n_items, name))
    if not math.isfinite(value):
        raise ModelError(f"the metric is {value:g} on validation: no case defines it")
    return float(value)


def measure_by(
    metric: Metric,
    score: Callable[[Queries], Scores],
    split: Split,
    vectors: Mapping[str, FloatArray],
) -> float:
    """Return any metric over all validation cases, scored in blocks.

    Args:
        metric: looks at anything but answers' texts, of which there are none.
        score: gives (b, C) for b queries, or (b, N) for the whole catalog.
        split: whose validation cases are asked.
        vectors: those that the metric asks for; see `Outcomes`.

    Raises:
        PluginError: the metric fails.
    """
    cases, candidates = split.validation, split.validation.queries.candidates
    width = len(split.catalog) if candidates is None else candidates.shape[1]
    step = max(1, BLOCK // max(1, width))
    blocks = []
    for start in range(0, len(cases), step):
        block = cases.take(np.arange(start, min(start + step, len(cases))))
        blocks.append(rank(score(block.queries).values, block))
    counts = np.bincount(split.train.item, minlength=len(split.catalog))
    outcomes = Outcomes(
        concat(blocks),
        split.catalog,
        counts,
        histories=cases.queries.history,
        vectors=vectors,
    )
    return measurements([metric], outcomes)[metric.name].value
