"""Ranks (see `counting`) -> measurements -> bootstrap intervals.

Everything works on columns in blocks of bounded memory; no Python loop over cases.
Letters: B cases, C candidates, N items, T targets, K top.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mmrec_bench import guard
from mmrec_bench.counting import rank
from mmrec_bench.errors import PluginError
from mmrec_bench.interfaces import Metric
from mmrec_bench.resampling import LEVEL, ends, resampled_means, resampled_sums
from mmrec_bench.statistics import differences
from mmrec_bench.ties import gain_sum
from mmrec_bench.types import Cases, Measurement, Outcomes, Queries, Scores

BLOCK = 1 << 20
"""Numbers handled at a time."""

RESAMPLES = 1000

STRICT = "strict_"
"""Before a metric's name: answers that had to be repaired count as misses."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with its 95 % bootstrap interval.

    Attributes:
        value: the mean over defined cases, or a list-level value; NaN = undefined.
        n: defined cases; 0 for list-level values.
        low: lower end; NaN where there are fewer than 2 defined cases.
        high: upper end, likewise.
    """

    value: float
    n: int
    low: float
    high: float


def validate(scores: Scores, cases: Cases) -> float:
    """Return expected ndcg@10 of the first rows of `cases`, as many as there are scores.

    Bind it to a split's validation cases for `TrainingData.validate`. NaN without scores.
    """
    return Measurement.mean(_ndcg(scores, cases.take(np.arange(len(scores.values))))).value


def validate_by(score: Callable[[Queries], Scores], cases: Cases, n_items: int) -> float:
    """Return expected ndcg@10 of all `cases`, scored in blocks; NaN where there are none.

    Args:
        score: gives (b, C) for b queries, or (b, N) for the whole catalog.
        cases: e.g. a split's validation cases.
        n_items: N, so that a block of a whole catalog's scores stays small.
    """
    candidates = cases.queries.candidates
    step = max(1, BLOCK // (n_items if candidates is None else candidates.shape[1]))
    values = [np.zeros(0)]
    for start in range(0, len(cases), step):
        block = cases.slice(start, min(start + step, len(cases)))
        values.append(_ndcg(score(block.queries), block))
    return Measurement.mean(np.concatenate(values)).value


def _ndcg(scores: Scores, cases: Cases) -> NDArray[np.float64]:
    ranks = rank(scores.values, cases, top_k=1)
    gains = 1.0 / np.log2(np.arange(2, 12))
    ideal = np.cumsum(gains)[np.minimum(ranks.n_targets, len(gains)) - 1]
    values: NDArray[np.float64] = gain_sum(ranks, gains, "expected") / ideal
    return values


def measurements(metrics: Iterable[Metric], outcomes: Outcomes) -> dict[str, Measurement]:
    """Return each metric's measurement by name, per-case values included.

    Raises:
        PluginError: a metric raised, or gave something else than a Measurement of all cases.
    """
    return {metric.name: _measure(metric, outcomes) for metric in metrics}


def _measure(metric: Metric, outcomes: Outcomes) -> Measurement:
    with guard.calling("metric", metric.name, metric, "measure"):
        measured = metric.measure(outcomes)
    n = len(outcomes.ranks)
    if found := _malformed(measured, n):
        raise PluginError(
            f"metric {metric.name!r} of {guard.owner_of(metric)} gave {found} for {n} cases, "
            f"expected a Measurement with a number and ({n},) values or none"
        )
    return measured


def _malformed(measured: object, n: int) -> str:
    """Return what a metric gave instead of a Measurement of n cases; "" where it gave one."""
    if not isinstance(measured, Measurement):
        return type(measured).__name__
    value: object = measured.value
    if not isinstance(value, int | float | np.integer | np.floating):
        return f"a value of type {type(value).__name__}"
    per_case: object = measured.per_case
    if per_case is None:
        return ""
    if not isinstance(per_case, np.ndarray) or per_case.dtype.kind not in "fiu":
        return f"values in a {type(per_case).__name__} that holds no numbers"
    return "" if per_case.shape == (n,) else f"{per_case.shape} values"


def only_valid(outcomes: Outcomes) -> Outcomes:
    """Return the outcomes with every answer that was not in order counted as a miss.

    Ranks of repaired answers are real, but another reader might not have repaired them; both
    readings belong in a record.
    """
    if outcomes.answers is None:
        return outcomes
    valid = np.array(outcomes.answers.outcome, np.str_) == "ok"
    ranks = outcomes.ranks
    return replace(outcomes, ranks=replace(ranks, ranked=ranks.ranked & valid[ranks.case]))


def measure(
    metrics: Iterable[Metric], outcomes: Outcomes, *, seed: int = 0, resamples: int = RESAMPLES
) -> dict[str, Interval]:
    """Return each metric's value with its bootstrap interval."""
    return intervals(measurements(metrics, outcomes), seed=seed, resamples=resamples)


def intervals(
    measured: dict[str, Measurement], *, seed: int = 0, resamples: int = RESAMPLES
) -> dict[str, Interval]:
    """Return percentile bootstrap intervals over cases; all metrics share the resamples.

    Cases are resampled with their undefined values; each mean is over what is defined in it
    (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13).

    Raises:
        ValueError: metrics have different numbers of cases.
    """
    per_case = {name: m.per_case for name, m in measured.items() if m.per_case is not None}
    bounds = {}
    if per_case:
        low, high = _bootstrap(np.column_stack(list(per_case.values())), seed, resamples)
        bounds = {name: (low[i], high[i]) for i, name in enumerate(per_case)}
    nothing = (float("nan"), float("nan"))
    return {
        name: Interval(m.value, m.n, *map(float, bounds.get(name, nothing)))
        for name, m in measured.items()
    }


def interval(
    per_case: NDArray[np.float64], *, seed: int = 0, resamples: int = RESAMPLES
) -> Interval:
    """Return the mean of (B,) per-case values with its bootstrap interval."""
    measured = {"value": Measurement.mean(per_case)}
    return intervals(measured, seed=seed, resamples=resamples)["value"]


def paired_difference(a: NDArray[np.float64], b: NDArray[np.float64], seed: int = 0) -> Interval:
    """Return the mean of a - b over cases defined in both, with its paired bootstrap interval.

    It is the interval that `statistics.paired_test` gives the same pair.

    Args:
        a: (B,) per-case values of one run.
        b: (B,) per-case values of another run on the same cases in the same order.
        seed: of the resamples.

    Raises:
        ValueError: different numbers of cases.
    """
    values = differences(a, b)
    measured = Measurement.mean(values)
    low, high = ends(resampled_means(values[:, None], seed=seed))[:, 0]
    return Interval(measured.value, measured.n, float(low), float(high))


def _bootstrap(
    values: NDArray[np.float64], seed: int, resamples: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (M,) lower and upper ends for (B, M) values with NaN = undefined."""
    n_metrics = values.shape[1]
    defined = ~np.isnan(values)
    usable = defined.sum(axis=0) >= 2
    ends = np.full((2, n_metrics), np.nan)
    if not usable.any():
        return ends[0], ends[1]
    columns = np.column_stack((np.where(defined, values, 0.0), defined))
    sums = resampled_sums(columns, seed=seed, resamples=resamples)
    tail = (1 - LEVEL) / 2
    for i in np.flatnonzero(usable):
        hits = sums[:, n_metrics + i] > 0
        means = sums[hits, i] / sums[hits, n_metrics + i]
        ends[:, i] = np.quantile(means, (tail, 1 - tail))
    return ends[0], ends[1]
