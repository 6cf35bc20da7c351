"""EASE: a linear autoencoder of the interactions in closed form."""

from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.linalg import lapack

from mmrec_bench.config import searched
from mmrec_bench.errors import ModelError, StorageError
from mmrec_bench.files import read_arrays, write_arrays
from mmrec_bench.interfaces import TrainingData
from mmrec_bench.types import FloatArray, Queries, Scores
from mmrec_plugins.models.matrices import (
    Csr,
    RecencyConfig,
    blocks,
    dense_gram,
    history_matrix,
    interaction_matrix,
    score_dense,
)

FILE = "ease.npz"
_TOLERANCE = 1e-4
"""Largest relative error of an inverse, by its condition number, that float32 may have."""


class Ease:
    """Scores by item-to-item weights that rebuild the users' interactions best.

    Steck (Embarrassingly shallow autoencoders for sparse data, WWW 2019): with X the binary
    interactions (n_users, N), B minimises |X - X B|^2 + l2 |B|^2 under diag(B) = 0, and

        P = (X'X + l2 I)^-1,    B_ij = -P_ij / P_jj  (i != j),    B_jj = 0        (equation 8)
        score(j) = sum over i in the history of recency^age(i) * B_ij.

    The recency weight departs from the paper, for which a history has no order; age 0 is the newest
    item. An item that a query's history holds twice counts twice, where the paper's X is binary.
    Items without a train interaction have no weights: their score is 0.

    Memory: X'X and its inverse share one (N, N) array of `dtype`, and B is a float32 one: 8 N^2
    bytes at the peak in float32 (1.2 GB for N = 12,101) and 12 N^2 in float64 (1.8 GB). Time grows
    with N^3.
    """

    class Config(RecencyConfig):
        """Options of `ease`."""

        l2: float = searched(
            500.0,
            low=1.0,
            high=5000.0,
            log=True,
            gt=0,
            description="weight of the penalty (the paper's lambda)",
        )
        dtype: Literal["auto", "float64", "float32"] = Field(
            "auto",
            description="of the inverse; auto = float32, which takes half the time, where it keeps "
            "four digits, else float64",
        )

    reads_instructions: ClassVar[bool] = False

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or self.Config()
        self._weights: FloatArray = np.zeros((0, 0), np.float32)

    def fit(self, data: TrainingData, *, seed: int) -> None:  # noqa: ARG002
        """Solve for B; nothing is drawn."""
        l2 = self.config.l2
        gram = _gram(interaction_matrix(data, np.float32), l2, self.config.dtype)
        gram.ravel(order="K")[:: len(gram) + 1] += l2  # a view: the diagonal is raised in place
        self._weights = _weights(_inverse(gram, l2))

    def score(self, queries: Queries) -> Scores:
        """Return (B, C) float32, or (B, N) for the whole catalog."""
        recency, n_items = self.config.recency, len(self._weights)
        history = history_matrix(queries.history, n_items, recency=recency, dtype=np.float32)
        return Scores(score_dense(history, self._weights, queries.candidates))

    def save(self, folder: Path) -> None:
        """Write B, 4 N^2 bytes."""
        write_arrays(folder / FILE, {"weights": self._weights})

    def restore(self, folder: Path, data: TrainingData) -> None:
        """Read what `save` wrote.

        Raises:
            StorageError: missing, torn, or of another catalog.
        """
        path = folder / FILE
        weights = read_arrays(path).get("weights")
        if weights is None or weights.shape != (data.n_items, data.n_items):
            raise StorageError(f"{path} holds no weights of {data.n_items} items; fit again")
        self._weights = np.ascontiguousarray(weights, np.float32)


def _gram(users: Csr, l2: float, dtype: str) -> NDArray[np.floating]:
    """Return (N, N) X'X in Fortran order, which LAPACK overwrites, in the precision it needs."""
    dense = dense_gram(users)
    gram: Any = users.T @ users if dense is None else dense
    if dtype == "auto":
        # No eigenvalue is above the largest sum of a row (Gershgorin's theorem).
        condition = 1 + float(gram.sum(axis=1).max(initial=0)) / l2
        dtype = "float32" if condition * np.finfo(np.float32).eps < _TOLERANCE else "float64"
    found: NDArray[np.floating]
    if dense is None:
        gram.data = gram.data.astype(dtype)
        found = gram.toarray(order="F")
    else:
        found = np.asarray(dense, dtype, order="F")
    return found


def _inverse(gram: NDArray[np.floating], l2: float) -> NDArray[np.floating]:
    """Return the lower triangle of the inverse, in the place of a positive definite matrix.

    Raises:
        ModelError: it is not positive definite in its precision.
    """
    double = gram.dtype == np.float64
    factorise, invert = (lapack.dpotrf, lapack.dpotri) if double else (lapack.spotrf, lapack.spotri)
    inverse: NDArray[np.floating]
    factor, failed = factorise(gram, lower=1, clean=0, overwrite_a=1)
    if not failed:
        inverse, failed = invert(factor, lower=1, overwrite_c=1)
    if failed:
        raise ModelError(
            f"EASE's matrix cannot be inverted in {gram.dtype} with model.l2={l2:g}: raise "
            "model.l2" + ("" if double else ", or take model.dtype=float64")
        )
    return inverse


def _weights(inverse: NDArray[np.floating]) -> FloatArray:
    """Return (N, N) B, C order, from the lower triangle of P."""
    n = len(inverse)
    scale = -1 / np.diagonal(inverse)
    weights = np.empty((n, n), np.float32)
    for rows in blocks(n, n):
        # P is symmetric: what lies right of the diagonal is below it.
        weights[rows, : rows.start] = inverse[rows, : rows.start]
        weights[rows, rows.start :] = inverse[rows.start :, rows].T
        square = np.tril(inverse[rows, rows], -1)
        weights[rows, rows] = square + square.T  # the diagonal is 0
        weights[rows] *= scale
    return weights
