"""Sparse matrices of interactions and histories, and products of bounded memory with them.

Letters: B queries, C candidates, H history length, N items.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import DTypeLike, NDArray

from mmrec_bench.config import ComponentConfig, searched
from mmrec_bench.interfaces import TrainingData
from mmrec_bench.types import FloatArray, Int32Array, Int64Array, Queries, Ragged

Csr = Any
"""A `scipy.sparse.csr_array`; scipy ships no types."""

BLOCK = 1 << 20
"""Numbers of a dense intermediate held at a time: what a processor's cache holds."""

_STEPS = 1 << 24
"""Steps of a sparse product done at a time, each of which may leave a number of 12 bytes."""

_DENSE = 1 << 25
"""Numbers of a matrix at most where dense algebra may be the faster way."""


class RecencyConfig(ComponentConfig):
    """An option of every model that sums over the items of a history."""

    recency: float = searched(
        1.0,
        choices=[0.3, 0.5, 0.7, 0.9, 1.0],
        gt=0,
        le=1,
        description="an item of the history weighs recency^age, newest = 0",
    )


def interaction_matrix(data: TrainingData, dtype: DTypeLike = np.float64) -> Csr:
    """Return the (n_users, N) CSR of train interactions: 1 where there is one or more."""
    rows = data.interactions
    ones = np.ones(len(rows), dtype)
    matrix = sp.csr_array((ones, (rows.user, rows.item)), shape=(data.n_users, data.n_items))
    matrix.sum_duplicates()
    matrix.data[:] = 1
    return matrix


def dense_gram(users: Csr) -> FloatArray | None:
    """Return X'X, (N, N) float32 and exact, where dense algebra is the faster way; else None.

    Args:
        users: X, (n_users, N) CSR of ones.
    """
    n_users, n_items = users.shape
    lengths = np.diff(users.indptr).astype(np.float64)
    steps = float(lengths @ lengths)
    # A core does about 300 steps of a dense product in the time of one of a sparse product.
    small = max(n_users, n_items) * n_items <= _DENSE
    if not small or n_users * float(n_items) ** 2 > 300 * steps:
        return None
    dense = users.toarray().astype(np.float32)
    gram: FloatArray = dense.T @ dense
    return gram


def history_matrix(
    history: Ragged, n_items: int, *, recency: float = 1.0, dtype: DTypeLike = np.float64
) -> Csr:
    """Return the (B, N) CSR whose row holds a query's history in its order, repeats included.

    Args:
        history: B rows, oldest first.
        n_items: N.
        recency: an item weighs recency^age, age 0 = the newest of its row.
        dtype: of the weights.
    """
    newest = np.repeat(history.offsets[1:], history.lengths) - 1
    age = newest - np.arange(len(history.values))
    weights = np.power(recency, age).astype(dtype)
    return sp.csr_array((weights, history.values, history.offsets), shape=(len(history), n_items))


def score_sparse(history: Csr, weights: Csr, candidates: Int32Array | None) -> FloatArray:
    """Return `history @ weights`, (B, N) float32, or its (B, C) columns of the candidates.

    Sums are float64, so that scores that are equal on paper stay equal in float32.

    Args:
        history: (B, N) float64, see `history_matrix`.
        weights: (N, N) CSR float64, row = item of the history, column = item to score.
        candidates: (B, C), or None = all items.
    """
    n_items = weights.shape[1]
    shape = (history.shape[0], n_items) if candidates is None else candidates.shape
    values = np.zeros(shape, np.float32)
    for rows in blocks(len(values), n_items):
        product = history[rows] @ weights
        if candidates is None:
            product.data = product.data.astype(np.float32)  # `astype` would sort as well
            product.toarray(out=values[rows])
        else:
            values[rows] = _pick(product, candidates[rows])
    return values


def score_dense(history: Csr, weights: FloatArray, candidates: Int32Array | None) -> FloatArray:
    """Return `history @ weights`, (B, N) float32, or its (B, C) columns of the candidates.

    Columns that nobody asks for are not computed.

    Args:
        history: (B, N) float32, see `history_matrix`.
        weights: (N, N) float32, C order.
        candidates: (B, C), or None = all items.
    """
    if candidates is None:
        values: FloatArray = history @ weights
        return values
    values = np.zeros(candidates.shape, np.float32)
    lengths = np.diff(history.indptr)
    for rows in blocks(len(values), candidates.shape[1]):
        for place in range(int(lengths[rows].max(initial=0))):
            # The same order of sums as in the product, so that both give the same bits.
            here = np.flatnonzero(lengths[rows] > place) + rows.start
            at = history.indptr[here] + place
            found = weights[history.indices[at][:, None], candidates[here]]
            values[here] += history.data[at][:, None] * found
    return values


def keep_largest(matrix: Csr, k: int) -> Csr:
    """Return a CSR of each row's k largest values, and all that equal the k-th in float32.

    Which of several equal ones are kept is so decided by no item's number.

    Args:
        matrix: CSR of positive values.
        k: 1 at least.
    """
    bits = matrix.data.astype(np.float32).view(np.uint32)  # positive: ordered as the values are
    lengths = np.diff(matrix.indptr)
    row = np.repeat(np.arange(len(lengths), dtype=np.uint64), lengths)
    keys = np.sort((row << np.uint64(32)) | (np.uint64(0xFFFFFFFF) - bits))
    full = np.flatnonzero(lengths > k)
    bound = np.zeros(len(lengths), np.uint32)
    bound[full] = 0xFFFFFFFF - (keys[matrix.indptr[full] + k - 1] & np.uint64(0xFFFFFFFF))
    return keep(matrix, bits >= np.repeat(bound, lengths))


def keep(matrix: Csr, mask: NDArray[np.bool_]) -> Csr:
    """Return the CSR of the chosen stored values, in their order."""
    ends = np.concatenate((np.zeros(1, np.int64), np.cumsum(mask)))
    indptr = ends[matrix.indptr]
    return sp.csr_array((matrix.data[mask], matrix.indices[mask], indptr), shape=matrix.shape)


def blocks(n_rows: int, width: int) -> Iterator[slice]:
    """Yield slices of rows that hold at most `BLOCK` numbers at `width` a row, or one row."""
    step = max(1, BLOCK // max(1, width))
    for start in range(0, n_rows, step):
        yield slice(start, min(start + step, n_rows))


def blocks_of_work(work: Int64Array) -> Iterator[slice]:
    """Yield slices of rows whose work adds up to `_STEPS` at most, or one row."""
    ends = np.cumsum(work)
    start = 0
    while start < len(work):
        done = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, done + _STEPS, side="right")))
        yield slice(start, stop)
        start = stop


def arrays_of(matrix: Csr) -> dict[str, NDArray[Any]]:
    """Return a CSR as arrays for `files.write_arrays`."""
    return {"data": matrix.data, "indices": matrix.indices, "indptr": matrix.indptr}


def matrix_from(arrays: dict[str, NDArray[Any]], shape: tuple[int, int]) -> Csr | None:
    """Return the CSR that `arrays_of` took apart; None where it is none of that shape."""
    if any(arrays.get(name, np.zeros(0)).ndim != 1 for name in ("data", "indices", "indptr")):
        return None
    try:
        matrix = sp.csr_array((arrays["data"], arrays["indices"], arrays["indptr"]), shape=shape)
        matrix.check_format(full_check=True)
    except (KeyError, ValueError, TypeError):
        return None
    return matrix


def all_items(queries: Queries, row: FloatArray) -> FloatArray:
    """Return one row of N scores for every query: (B, C), or (B, N) as a read-only view."""
    if queries.candidates is None:
        return np.broadcast_to(row, (len(queries), len(row)))
    return row[queries.candidates]


def _pick(product: Csr, candidates: Int32Array) -> FloatArray:
    """Return (b, C) float32 of the stored values of a (b, N) CSR, 0 where there is none."""
    product.sort_indices()
    width = product.shape[1]
    row = np.repeat(np.arange(len(candidates), dtype=np.int64), np.diff(product.indptr))
    keys = np.append(row * width + product.indices, np.iinfo(np.int64).max)
    wanted = np.arange(len(candidates), dtype=np.int64)[:, None] * width + candidates
    at = np.searchsorted(keys, wanted)
    values: FloatArray = np.where(keys[at] == wanted, np.append(product.data, 0)[at], 0)
    return values.astype(np.float32)
