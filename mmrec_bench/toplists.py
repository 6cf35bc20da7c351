"""The best k items of many rows of scores: picked block by block, sorted all at once.

Letters: b rows of a block, N scores of a row, K places of a list, G groups of a row.
"""

import numpy as np

from mmrec_bench.types import FloatArray, Int32Array, Int64Array

_FEW = 4
"""Picked scores a place beyond which those that cannot matter are thrown away at once."""


class TopLists:
    """Collects the best items of rows that come in blocks, in order."""

    def __init__(self, k: int) -> None:
        self._k = k
        self._n_rows = 0
        self._rows: list[Int64Array] = []
        self._items: list[Int32Array] = []
        self._values: list[FloatArray] = []

    def add(self, scores: FloatArray, items: Int32Array | None = None) -> None:
        """Pick what may be among the best of each row.

        Args:
            scores: (b, N) contiguous, NaN = not to be listed.
            items: (b, N) item numbers, increasing in each row; None = the number of the column.
        """
        n_rows, width = scores.shape
        kept = min(self._k, width)
        maxima = _group_maxima(scores, 4 * kept)
        n_groups = maxima.shape[1]
        # At least k scores reach it, and fewer than k groups exceed it: few are left to sort.
        bound = np.partition(maxima, n_groups - kept, axis=1)[:, n_groups - kept]
        flat = np.flatnonzero(scores >= bound[:, None])
        if len(flat) > _FEW * kept * n_rows:
            flat = self._trimmed(flat, scores, bound)
        row = flat // width
        self._rows.append(row + self._n_rows)
        self._items.append(
            (flat - row * width).astype(np.int32) if items is None else items.ravel()[flat]
        )
        self._values.append(scores.ravel()[flat])
        self._n_rows += n_rows

    def _trimmed(self, flat: Int64Array, scores: FloatArray, bound: FloatArray) -> Int64Array:
        """Leave out scores level with the bound but for the first k of each row."""
        row = flat // scores.shape[1]
        level = np.flatnonzero(scores.ravel()[flat] == bound[row])
        spare = level[_place(row[level], len(scores)) >= self._k]
        return np.delete(flat, spare)

    def lists(self) -> Int32Array:
        """Return (rows, K) int32 items, best first, ties by item number, -1 = none."""
        top = np.full((self._n_rows, self._k), -1, np.int32)
        if not self._n_rows:
            return top
        row = np.concatenate(self._rows)
        # One key a score: its row, then the value from high to low. Equal keys stay in the order of
        # the items, which is the order in which they were picked.
        key = (row << 32) | _descending(np.concatenate(self._values))
        order = np.argsort(key, kind="stable")
        row = row[order]
        place = _place(row, self._n_rows)
        first = place < self._k
        top[row[first], place[first]] = np.concatenate(self._items)[order[first]]
        return top


def _descending(values: FloatArray) -> Int64Array:
    """Return (n,) int64 in 0 ... 2^32 - 1 that are smaller the higher a float32 is."""
    # Adding 0 makes -0.0 the same as 0.0; bits of negative floats run the other way.
    bits = (values + np.float32(0)).view(np.int32).astype(np.int64)
    rising = np.where(bits < 0, -1 - (bits & 0x7FFFFFFF), bits)
    return np.asarray(0x7FFFFFFF - rising, np.int64)


def _group_maxima(scores: FloatArray, at_least: int) -> FloatArray:
    """Return (b, G) maxima of G >= `at_least` groups of each row, -inf for a group without any.

    Rows are folded in half until they are short. A group with a NaN counts as one without scores,
    which only lowers the bound that is made of them; where NaN leaves too few groups, it is
    passed over instead, which is slower.
    """
    for fold in (np.maximum, np.fmax):
        groups = scores
        while groups.shape[1] >= 2 * at_least:
            half = groups.shape[1] // 2
            rest = groups[:, 2 * half :]
            groups = fold(groups[:, :half], groups[:, half : 2 * half])
            groups[:, : rest.shape[1]] = fold(groups[:, : rest.shape[1]], rest)
        empty = np.isnan(groups)
        if 2 * np.count_nonzero(empty) <= empty.size:
            break
    return np.where(empty, np.float32(-np.inf), groups)


def _place(row: Int64Array, n_rows: int) -> Int64Array:
    """Return 0, 1, 2 ... within each run of equal, non-decreasing row numbers."""
    counts = np.bincount(row, minlength=n_rows)
    place: Int64Array = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    return place
