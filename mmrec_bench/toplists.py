"""The best k items of many rows of scores, block by block.

Letters: b rows of a block, N scores of a row, K places of a list, G groups of a row.
"""

import numpy as np

from mmrec_bench.rowmask import RowMask
from mmrec_bench.types import FloatArray, Int32Array, Int64Array

_GROUPS = 4
"""Groups a place: more cost time to find the k-th best of, fewer leave more scores to sort."""

_LONG = 512
"""Groups a row is first folded into: a call handles them as one run of numbers."""

_FEW = 4
"""Picked scores a place beyond which those that cannot matter are thrown away at once."""

_NONE = np.iinfo(np.int64).max
"""The key of no item: it comes last, and its low half is -1 as an int32."""


class TopLists:
    """Collects the best items of rows that come in blocks, in order."""

    def __init__(self, k: int) -> None:
        self._k = k
        self._tops: list[Int32Array] = []
        self._mask = RowMask(0, 0)
        self._shape = (0, 0)

    def add(self, scores: FloatArray, items: Int32Array | None = None) -> None:
        """Find the best of each row.

        Args:
            scores: (b, N) float32, NaN = not to be listed.
            items: (b, N) item numbers, increasing in each row; None = the number of the column.
        """
        n_rows, width = scores.shape
        kept = min(self._k, width)
        if n_rows > self._shape[0] or width != self._shape[1]:
            self._shape, self._mask = scores.shape, RowMask(n_rows, width)
        maxima = _group_maxima(scores, _GROUPS * kept)
        n_groups = maxima.shape[1]
        # At least k scores reach it, and fewer than k groups exceed it: few are left to sort.
        bound = np.partition(maxima, n_groups - kept, axis=1)[:, n_groups - kept]
        row, column = self._mask.compare(np.greater_equal, scores, bound).places()
        values = scores[row, column]
        if len(row) > _FEW * kept * n_rows:
            level = np.flatnonzero(values == bound[row])
            spare = level[_place(row[level], n_rows) >= self._k]
            keep = np.ones(len(row), np.bool_)
            keep[spare] = False
            row, column, values = row[keep], column[keep], values[keep]
        place = _place(row, n_rows)
        # One key a score: the value from high to low, then the item.
        keys = np.full((n_rows, max(self._k, int(place.max(initial=0)) + 1)), _NONE, np.int64)
        keys[row, place] = (_descending(values) << 32) | (
            column if items is None else items[row, column]
        )
        keys.sort(axis=1)
        self._tops.append(keys[:, : self._k].astype(np.int32))

    def lists(self) -> Int32Array:
        """Return (rows, K) int32 items, best first, ties by item number, -1 = none."""
        return np.concatenate([np.zeros((0, self._k), np.int32), *self._tops])


def _descending(values: FloatArray) -> Int64Array:
    """Return (n,) int64 in the range of int32 that are smaller the higher a float32 is."""
    # Adding 0 makes -0.0 the same as 0.0; bits of negative floats run the other way.
    bits = (values + np.float32(0)).view(np.int32)
    return np.where(bits < 0, bits & 0x7FFFFFFF, ~bits).astype(np.int64)


def _group_maxima(scores: FloatArray, at_least: int) -> FloatArray:
    """Return (b, G) maxima of G >= `at_least` groups of each row, -inf for a group of NaN.

    Rows are laid over each other in runs, then folded in half until they are short.
    """
    groups, n_groups = scores, max(_LONG, at_least)
    n_runs = scores.shape[1] // n_groups
    if n_runs > 1:
        runs = scores[:, : n_runs * n_groups].reshape(len(scores), n_runs, n_groups)
        groups = _with_rest(np.fmax.reduce(runs, axis=1), scores[:, n_runs * n_groups :])
    while groups.shape[1] >= 2 * at_least:
        half = groups.shape[1] // 2
        rest = groups[:, 2 * half :]
        groups = _with_rest(np.fmax(groups[:, :half], groups[:, half : 2 * half]), rest)
    return np.where(np.isnan(groups), np.float32(-np.inf), groups)


def _with_rest(groups: FloatArray, rest: FloatArray) -> FloatArray:
    some = groups[:, : rest.shape[1]]
    np.fmax(some, rest, out=some)
    return groups


def _place(row: Int64Array, n_rows: int) -> Int64Array:
    """Return 0, 1, 2 ... within each run of equal, non-decreasing row numbers."""
    counts = np.bincount(row, minlength=n_rows)
    place: Int64Array = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    return place
