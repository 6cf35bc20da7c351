"""Scores and cases -> ranks, with ties as counts; blocks of rows that stay in a core's cache.

Letters: B cases, C candidates, N items, T targets, K top; b cases of a block.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from mmrec_bench.errors import ModelError, ProtocolError
from mmrec_bench.rowmask import RowMask
from mmrec_bench.toplists import TopLists
from mmrec_bench.types import BoolArray, Cases, FloatArray, Int32Array, Int64Array, Ragged, Ranks

TOP_K = 20
"""Items of each case kept for the record and for list metrics."""

CACHED = 1 << 20
"""Scores ranked at a time: a copy of them stays in a core's cache."""


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
        ModelError: the scores have another shape than the cases, or fewer columns than items.
        ProtocolError: a target is masked or not among its candidates.
    """
    _check_shape(scores, cases)
    targets, width = cases.targets, scores.shape[1]
    hidden = _hidden(cases, width)
    _check_items(cases, width, hidden)
    step = max(1, CACHED // max(1, width))
    n_candidates = np.full(len(cases), width, np.int32)
    if cases.queries.candidates is None:
        n_candidates -= np.bincount(hidden // width, minlength=len(cases)).astype(np.int32)
        blocks = _masked_blocks(scores, hidden, step)
    else:
        blocks = _candidate_blocks(scores, cases.queries.candidates, step)
    above, level = (np.zeros(len(targets.values), np.int32) for _ in range(2))
    scored = np.zeros(len(targets.values), np.bool_)
    best, mask = TopLists(top_k), RowMask(min(step, len(cases)), width)
    start = 0
    for block, columns in blocks:
        stop = start + len(block)
        part = targets.slice(start, stop)
        column = part.values if columns is None else _find(columns, part)
        at = slice(targets.offsets[start], targets.offsets[stop])
        above[at], level[at], scored[at] = _count(
            block, part, column, n_candidates[start:stop], mask
        )
        best.add(block, columns)
        start = stop
    return Ranks(
        n_better=above,
        n_tied=level,
        ranked=scored,
        case=targets.row_ids,
        n_targets=targets.lengths.astype(np.int32),
        n_candidates=n_candidates,
        top=best.lists(),
    )


def _check_shape(scores: FloatArray, cases: Cases) -> None:
    candidates = cases.queries.candidates
    want = f"{len(cases)} cases x " + (
        "the whole catalog" if candidates is None else f"{candidates.shape[1]} candidates"
    )
    fits = scores.ndim == 2 and len(scores) == len(cases)
    if not fits or (candidates is not None and candidates.shape != scores.shape):
        raise ModelError(f"scores have the shape {scores.shape}, not {want}")


def _hidden(cases: Cases, width: int) -> Int64Array:
    """Return increasing case * N + item of all that is masked, each once."""
    if cases.masked is None:
        return np.zeros(0, np.int64)
    keys = cases.masked.row_ids * width + cases.masked.values
    if (np.diff(keys) <= 0).any():
        # Sorted and compared: np.unique hashes, which is many times slower.
        keys = np.sort(keys, kind="stable")
        keys = keys[np.diff(keys, prepend=-1) > 0]
    return keys


def _check_items(cases: Cases, width: int, hidden: Int64Array) -> None:
    for what, rows in (("target", cases.targets), ("masked item", cases.masked)):
        largest = -1 if rows is None else int(rows.values.max(initial=-1))
        if cases.queries.candidates is None and largest >= width:
            raise ModelError(f"scores cover {width} items, but a {what} has the number {largest}")
    keys = cases.targets.row_ids * width + cases.targets.values
    ended = np.append(hidden, np.iinfo(np.int64).max)
    n_hidden = int((ended[np.searchsorted(hidden, keys)] == keys).sum())
    if n_hidden:
        raise ProtocolError(
            f"{n_hidden} of {len(keys)} targets are masked, so that no model "
            f"could name them; use protocol.repeats=first or protocol.mask_seen=false"
        )


_Blocks = Iterator[tuple[FloatArray, Int32Array | None]]
"""(b, C) scores, which are overwritten by the next block, and the items of the columns."""


def _masked_blocks(scores: FloatArray, hidden: Int64Array, step: int) -> _Blocks:
    """Copy rows of a whole catalog's scores and write NaN where items are masked."""
    n_cases, width = scores.shape
    starts = range(0, n_cases, step)
    ends = np.searchsorted(hidden, np.append(starts, n_cases) * width)
    buffer = np.empty((min(step, n_cases), width), scores.dtype)
    for i, start in enumerate(starts):
        block = buffer[: min(step, n_cases - start)]
        block[:] = scores[start : start + step]
        block.reshape(-1)[hidden[ends[i] : ends[i + 1]] - start * width] = np.nan
        yield block, None


def _candidate_blocks(scores: FloatArray, candidates: Int32Array, step: int) -> _Blocks:
    """Put the candidates of each case, and their scores, in the order of their numbers."""
    for start in range(0, len(scores), step):
        shown = candidates[start : start + step]
        order = np.argsort(shown, axis=1)
        yield (
            np.take_along_axis(scores[start : start + step], order, axis=1),
            np.take_along_axis(shown, order, axis=1),
        )


def _find(columns: Int32Array, targets: Ragged) -> Int64Array:
    """Return (T,) column of each target in candidates (b, C) that are sorted by item."""
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
    targets: Ragged,
    column: NDArray[np.integer],
    n_candidates: Int32Array,
    mask: RowMask,
) -> tuple[Int64Array, Int64Array, BoolArray]:
    """Return (T,) candidates above and level, and whether the target was scored."""
    row, first, lengths = targets.row_ids, targets.offsets[:-1], targets.lengths
    value = scores[row, column]
    scored = ~np.isnan(value)
    above = np.zeros(len(row), np.int64)
    level = np.zeros(len(row), np.int64)
    # The j-th targets of all cases at once.
    for j in range(int(lengths.max())):
        at = first[lengths > j] + j
        rows = scores if len(at) == len(scores) else scores[row[at]]
        above[at] = mask.compare(np.greater, rows, value[at]).counts()
        # Each scored target is level with itself, and mostly nothing else is.
        equal = mask.compare(np.equal, rows, value[at])
        if equal.total() > np.count_nonzero(scored[at]):
            level[at] = equal.counts() - 1
    if not scored.all():
        n_scored = (~np.isnan(scores)).sum(axis=1)
        above[~scored] = n_scored[row[~scored]]
        level[~scored] = (n_candidates - n_scored)[row[~scored]] - 1
    return above, level, scored
