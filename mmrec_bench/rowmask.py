"""Comparisons of many scores with one limit a row, counted and found eight bytes at a time.

Letters: b rows of a block, N scores of a row, W words of a part.
"""

import numpy as np
from numpy.typing import NDArray

from mmrec_bench.types import FloatArray, Int64Array

_SPAN = 64
"""Words added at a time where a row is long enough; shorter runs cost more calls than additions."""


class RowMask:
    """True or false for each score of up to `n_rows` rows; its memory is used again and again."""

    def __init__(self, n_rows: int, width: int) -> None:
        n_words = max(1, -(-width // 8))
        # A byte of a sum of at most 255 words holds at most 255: no byte runs into the next.
        n_parts = min(255, -(-n_words // _SPAN))
        self._width = width
        # (b, parts, W) words of eight booleans; those beyond the width stay False.
        self._words = np.zeros((n_rows, n_parts, -(-n_words // n_parts)), np.uint64)
        self._used = self._words

    def compare(
        self, ufunc: np.ufunc, values: FloatArray, limits: NDArray[np.floating]
    ) -> "RowMask":
        """Hold `ufunc(values, limits)` for (b, N) values and (b,) limits."""
        self._used = self._words[: len(values)]
        rows = self._used.view(np.bool_).reshape(len(values), -1)
        ufunc(values, limits[:, None], out=rows[:, : self._width])
        return self

    def total(self) -> int:
        """Return how many are true."""
        return int(np.count_nonzero(self._used.view(np.bool_)))

    def counts(self) -> Int64Array:
        """Return (b,) int64, how many are true in each row."""
        sums = np.add.reduce(self._used, axis=1).view(np.uint8)
        counts: Int64Array = sums.sum(axis=1, dtype=np.int64)
        return counts

    def places(self) -> tuple[Int64Array, Int64Array]:
        """Return (n,) rows and columns of what is true, row by row."""
        words = self._used.ravel()
        some = np.flatnonzero(words != 0)
        byte = np.flatnonzero(words[some].view(np.bool_))
        flat = some[byte >> 3] * 8 + (byte & 7)
        row = flat // (words.size // len(self._used) * 8)
        return row, flat - row * (words.size // len(self._used) * 8)
