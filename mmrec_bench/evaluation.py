"""Scores and cases -> ranks (with ties as counts) -> measurements -> bootstrap intervals.

Everything works on columns in blocks of bounded memory; no Python loop over cases.
Letters: B cases, C candidates, N items, T targets, K top.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mmrec_bench import guard
from mmrec_bench.errors import ModelError, PluginError, ProtocolError
from mmrec_bench.interfaces import Metric
from mmrec_bench.ranks import concat, take
from mmrec_bench.ties import gain_sum
from mmrec_bench.toplists import TopLists
from mmrec_bench.types import (
    BoolArray,
    Cases,
    FloatArray,
    Int32Array,
    Int64Array,
    Measurement,
    Outcomes,
    Queries,
    Ranks,
    Scores,
)

__all__ = [
    "Interval",
    "concat",
    "interval",
    "intervals",
    "measure",
    "measurements",
    "paired_difference",
    "rank",
    "take",
    "validate",
    "validate_by",
]

TOP_K = 20
"""Items of each case kept for the record and for list metrics."""

BLOCK = 1 << 20
"""Numbers handled at a time."""

_CACHED = 1 << 19
"""Scores ranked at a time: they and a copy stay in a core's cache."""

RESAMPLES = 1000

STRICT = "strict_"
"""Before a metric's name: answers that had to be repaired count as misses."""

LEVEL = 0.95


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


def rank(scores: FloatArray, cases: Cases, *, top_k: int = TOP_K) -> Ranks:
    """Count for each target the unmasked candidates above it and level with it.

    Other targets of the case are candidates like any other. Infinities are scores. NaN = left out:
    such a candidate is above and level with nothing that was scored; such a target is
    `ranked = False`, with all scored candidates counted as better and the other left-out ones as
    tied.

    Args:
        scores: (B, C) in the order of the cases' candidates, or (B, N); may be a broadcast view.
        cases: B cases.
        top_k: width K of `Ranks.top`; candidates that were left out or masked are not in it.

    Raises:
        ModelError: the scores have another shape than the cases.
        ProtocolError: a target is masked or not among its candidates.
    """
    candidates = cases.queries.candidates
    want = f"{len(cases)} cases x " + (
        "the whole catalog" if candidates is None else f"{candidates.shape[1]} candidates"
    )
    fits = scores.ndim == 2 and len(scores) == len(cases)
    if not fits or (candidates is not None and candidates.shape != scores.shape):
        raise ModelError(f"scores have the shape {scores.shape}, not {want}")
    if not len(cases):
        none = np.zeros(0, np.int32)
        top = np.zeros((0, top_k), np.int32)
        return Ranks(none, none, np.zeros(0, np.bool_), np.zeros(0, np.int64), none, none, top)
    _check_targets(cases, scores.shape[1])
    step = max(1, _CACHED // max(1, scores.shape[1]))
    counter = _Counter(min(step, len(cases)), scores.shape[1])
    blocks, best = [], TopLists(top_k)
    for start in range(0, len(cases), step):
        block = cases.slice(start, min(start + step, len(cases)))
        blocks.append(_rank_block(scores[start : start + step], block, best, counter))
    return replace(concat(blocks), top=best.lists())


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
    per_case = getattr(measured, "per_case", None)
    if not isinstance(measured, Measurement) or (per_case is not None and per_case.shape != (n,)):
        found = type(measured).__name__ if per_case is None else f"{per_case.shape} values"
        raise PluginError(
            f"metric {metric.name!r} of {guard.owner_of(metric)} gave {found} for {n} cases, "
            f"expected a Measurement with ({n},) values or none"
        )
    return measured


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


def paired_difference(
    a: NDArray[np.float64],
    b: NDArray[np.float64],
    seed: int = 0,
    *,
    resamples: int = RESAMPLES,
) -> Interval:
    """Return the mean of a - b over cases defined in both, with its paired bootstrap interval.

    Args:
        a: (B,) per-case values of one run.
        b: (B,) per-case values of another run on the same cases in the same order.
        seed: of the resamples.
        resamples: how many.

    Raises:
        ValueError: different numbers of cases.
    """
    if a.shape != b.shape:
        raise ValueError(f"paired runs have {a.shape} and {b.shape} cases; they must be the same")
    return interval(a - b, seed=seed, resamples=resamples)


def _bootstrap(
    values: NDArray[np.float64], seed: int, resamples: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (M,) lower and upper ends for (B, M) values with NaN = undefined."""
    n, n_metrics = values.shape
    defined = ~np.isnan(values)
    usable = defined.sum(axis=0) >= 2
    ends = np.full((2, n_metrics), np.nan)
    if not usable.any():
        return ends[0], ends[1]
    rng = np.random.default_rng([seed, n])
    columns = np.column_stack((np.where(defined, values, 0.0), defined))
    sums = np.empty((resamples, 2 * n_metrics))
    step = max(1, BLOCK // n)
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        # Row r counts how often each case is in resample r.
        drawn = rng.integers(n, size=(size, n), dtype=np.int32)
        drawn += np.arange(size, dtype=np.int32)[:, None] * np.int32(n)
        weights = np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n)
        sums[start : start + size] = weights.astype(np.float64) @ columns
    tail = (1 - LEVEL) / 2
    for i in np.flatnonzero(usable):
        hits = sums[:, n_metrics + i] > 0
        means = sums[hits, i] / sums[hits, n_metrics + i]
        ends[:, i] = np.quantile(means, (tail, 1 - tail))
    return ends[0], ends[1]


class _Counter:
    """Counts true values of each row of a mask, eight bytes at a time."""

    def __init__(self, n_rows: int, width: int) -> None:
        self._width = width
        # Padded to whole words; the padding stays False.
        self._mask = np.zeros((n_rows, -(-width // 8) * 8), np.bool_)

    def __call__(
        self, ufunc: np.ufunc, values: FloatArray, limits: NDArray[np.floating]
    ) -> Int64Array:
        """Return (b,) int64 counts of `ufunc(values, limits)` for (b, width) and (b,)."""
        rows = self._mask[: len(values)]
        ufunc(values, limits[:, None], out=rows[:, : self._width])
        words = rows.view(np.uint64)
        total = np.zeros(len(values), np.int64)
        # A byte of a sum of 255 words holds at most 255, so that no byte runs into the next.
        for start in range(0, words.shape[1], 255):
            sums = np.add.reduce(words[:, start : start + 255], axis=1)
            total += sums.view(np.uint8).reshape(-1, 8).sum(axis=1, dtype=np.int64)
        return total


def _check_targets(cases: Cases, width: int) -> None:
    if cases.masked is not None:
        hidden = cases.masked.row_ids * width + cases.masked.values
        keys = cases.targets.row_ids * width + cases.targets.values
        hidden = np.append(np.sort(hidden), np.iinfo(np.int64).max)
        n_hidden = int((hidden[np.searchsorted(hidden, keys)] == keys).sum())
        if n_hidden:
            raise ProtocolError(
                f"{n_hidden} of {len(cases.targets.values)} targets are masked, so that no model "
                f"could name them; use protocol.repeats=first or protocol.mask_seen=false"
            )
    if cases.queries.candidates is None and len(cases.targets.values):
        largest = int(cases.targets.values.max())
        if largest >= width:
            raise ModelError(f"scores cover {width} items, but a target has the number {largest}")


def _rank_block(scores: FloatArray, cases: Cases, best: TopLists, counter: _Counter) -> Ranks:
    width = scores.shape[1]
    columns: Int32Array | None = None
    if cases.queries.candidates is None:
        # A contiguous copy: the mask is written into it.
        scores = np.array(scores, order="C")
        column: NDArray[np.integer] = cases.targets.values
        n_candidates = np.full(len(cases), width, np.int32)
        if cases.masked is not None:
            # Sorted and compared: np.unique hashes, which is many times slower.
            hidden = np.sort(cases.masked.row_ids * width + cases.masked.values)
            scores.ravel()[hidden] = np.nan
            hidden = hidden[np.diff(hidden, prepend=-1) > 0]
            n_candidates -= np.bincount(hidden // width, minlength=len(cases)).astype(np.int32)
    else:
        order = np.argsort(cases.queries.candidates, axis=1)
        columns = np.take_along_axis(cases.queries.candidates, order, axis=1)
        scores = np.take_along_axis(scores, order, axis=1)
        column = _find(columns, cases)
        n_candidates = np.full(len(cases), width, np.int32)
    n_better, n_tied, ranked = _count(scores, cases, column, counter, n_candidates)
    best.add(scores, columns)
    return Ranks(
        n_better=n_better.astype(np.int32),
        n_tied=n_tied.astype(np.int32),
        ranked=ranked,
        case=cases.targets.row_ids,
        n_targets=cases.targets.lengths.astype(np.int32),
        n_candidates=n_candidates,
        top=np.zeros((len(cases), 0), np.int32),
    )


def _find(columns: Int32Array, cases: Cases) -> Int64Array:
    """Return (T,) column of each target in candidates (b, C) that are sorted by item."""
    targets = cases.targets
    base = int(max(columns.max(), targets.values.max())) + 1
    keys = (np.arange(len(columns), dtype=np.int64)[:, None] * base + columns).ravel()
    wanted = targets.row_ids * base + targets.values
    at: Int64Array = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    if (keys[at] != wanted).any():
        n_absent = int((keys[at] != wanted).sum())
        raise ProtocolError(f"{n_absent} of {len(wanted)} targets are not among their candidates")
    column: Int64Array = at % columns.shape[1]
    return column


def _count(
    scores: FloatArray,
    cases: Cases,
    column: NDArray[np.integer],
    counter: _Counter,
    n_candidates: Int32Array,
) -> tuple[Int64Array, Int64Array, BoolArray]:
    """Return (T,) candidates above and level, and whether the target was scored."""
    row = cases.targets.row_ids
    value = scores[row, column]
    above = np.zeros(len(row), np.int64)
    level = np.zeros(len(row), np.int64)
    # The j-th targets of all cases at once.
    for j in range(int(cases.targets.lengths.max())):
        at = cases.targets.offsets[:-1][cases.targets.lengths > j] + j
        rows = scores if len(at) == len(scores) else scores[row[at]]
        above[at] = counter(np.greater, rows, value[at])
        level[at] = counter(np.equal, rows, value[at]) - 1
    left_out = np.isnan(value)
    if left_out.any():
        n_scored = (~np.isnan(scores)).sum(axis=1)
        above[left_out] = n_scored[row[left_out]]
        level[left_out] = (n_candidates - n_scored)[row[left_out]] - 1
    return above, level, ~left_out
