"""Nearest items by sentence vectors."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
import scipy.sparse as sp

from mmrec_bench.errors import ModelError, StorageError
from mmrec_bench.files import read_arrays, write_arrays
from mmrec_bench.interfaces import TrainingData
from mmrec_bench.types import BoolArray, FloatArray, Queries, Scores
from mmrec_plugins.models.item_vectors import have_vectors
from mmrec_plugins.models.matrices import Csr, RecencyConfig, blocks, history_matrix

FILE = "text_nn.npz"


class TextNN:
    """Scores an item by the cosine of its text vector and the mean of the history's.

    With v_i the text vector of item i, scaled to length 1,

        u = sum over i in the history of recency^age(i) * v_i,    score(j) = u v_j / |u|,

    a content-based profile (Pazzani and Billsus, The adaptive web, 2007, chapter 10) over vectors
    of sentences (Reimers and Gurevych, EMNLP 2019); age 0 is the newest item. An item without a
    vector is left out (NaN), and of a history such items are passed over; where nothing of it is
    left, all items are tied at 0. Train interactions are not looked at.
    """

    class Config(RecencyConfig):
        """Options of `text-nn`."""

    reads_instructions: ClassVar[bool] = False
    reads_modalities: ClassVar[tuple[str, ...]] = ("text",)
    default_vectors: ClassVar[Mapping[str, str]] = {"text_vectors": "minilm"}

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or self.Config()
        self._keep(np.zeros((0, 0), np.float32))

    def _keep(self, vectors: FloatArray) -> None:
        self._vectors = vectors
        # A product with each vector once: BLAS may round equal columns apart, and they must tie.
        rows, place = np.unique(np.nan_to_num(vectors), axis=0, return_inverse=True)
        self._each_once = rows, place.reshape(-1)

    def fit(self, data: TrainingData, *, seed: int) -> None:  # noqa: ARG002
        """Keep the vectors; nothing is drawn.

        Raises:
            ModelError: the run gives no text vectors.
        """
        vectors = data.modalities.get("text")
        if vectors is None:
            raise ModelError(
                "text-nn needs vectors of the items' words; name an encoder, e.g. -o "
                "text_vectors.name=minilm"
            )
        known = have_vectors(vectors)[:, None]
        self._keep(_scaled(np.where(known, vectors, np.float32(np.nan))))

    def score(self, queries: Queries) -> Scores:
        """Return (B, C) float32, or (B, N) for the whole catalog, in [-1, 1]."""
        known = np.nan_to_num(self._vectors)
        recency, n_items = self.config.recency, len(known)
        history = history_matrix(queries.history, n_items, recency=recency)
        history = _of_known(history, np.asarray(known.any(axis=1), np.bool_))
        wanted = _scaled(history @ known)
        if queries.candidates is None:
            unique, place = self._each_once
            values: FloatArray = (wanted @ unique.T)[:, place]
            values[:, np.isnan(self._vectors[:, 0])] = np.nan
            return Scores(values)
        values = np.empty(queries.candidates.shape, np.float32)
        for rows in blocks(len(values), queries.candidates.shape[1] * known.shape[1]):
            found = self._vectors[queries.candidates[rows]]
            values[rows] = np.einsum("bd,bcd->bc", wanted[rows], found)
        return Scores(values)

    def save(self, folder: Path) -> None:
        """Write the vectors."""
        write_arrays(folder / FILE, {"vectors": self._vectors})

    def restore(self, folder: Path, data: TrainingData) -> None:
        """Read what `save` wrote.

        Raises:
            StorageError: missing, torn, or of another catalog.
        """
        path = folder / FILE
        vectors = read_arrays(path).get("vectors")
        if vectors is None or vectors.ndim != 2 or len(vectors) != data.n_items:
            raise StorageError(f"{path} holds no vectors of {data.n_items} items; fit again")
        self._keep(vectors.astype(np.float32))


def _of_known(history: Csr, known: BoolArray) -> Csr:
    """Return (B, N) CSR float32 whose largest weight of a known item is 1 in each row.

    The cosine is the same, and the weights of what is known stay far from where float32 ends: where
    the newest items are unknown, recency^age is tiny for all others.
    """
    weights = np.where(known[history.indices], history.data, 0.0)
    row = np.repeat(np.arange(history.shape[0]), np.diff(history.indptr))
    largest = np.zeros(history.shape[0])
    np.maximum.at(largest, row, weights)
    scaled = weights / np.where(largest > 0, largest, 1.0)[row]
    return sp.csr_array(
        (scaled.astype(np.float32), history.indices, history.indptr), shape=history.shape
    )


def _scaled(rows: FloatArray) -> FloatArray:
    """Return (n, D) rows scaled to length 1; rows of 0 and of NaN stay as they are."""
    norms: FloatArray = np.linalg.norm(rows, axis=1, keepdims=True)
    norms[norms == 0] = 1
    return rows / norms
