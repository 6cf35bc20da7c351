"""BM25: the history's words as a query against the words of each item."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from pydantic import Field

from mmrec_bench.config import searched
from mmrec_bench.errors import ConfigError, StorageError
from mmrec_bench.files import read_arrays, write_arrays
from mmrec_bench.interfaces import TrainingData
from mmrec_bench.types import FloatArray, Int32Array, Queries, Scores
from mmrec_plugins.documents import FIELDS, FIELDS_HELP, documents
from mmrec_plugins.models.matrices import (
    BLOCK,
    Csr,
    RecencyConfig,
    arrays_of,
    history_matrix,
    matrix_from,
)

FILE = "bm25.npz"
_WORD = re.compile(r"\w+")


class BM25:
    """Ranks items as documents for the query that the documents of the history make up.

    With tf(t, d) the times that the word t stands in document d, n(t) the documents that have it, N
    all documents and |d| / avg their relative length in words (Robertson and Zaragoza, The
    probabilistic relevance framework, 2009, equations 3.3 and 3.15),

        score(d) = sum over t of q(t) * idf(t) * tf(t, d) (k1 + 1)
                                 / (tf(t, d) + k1 (1 - b + b |d| / avg)),
        idf(t) = ln(1 + (N - n(t) + 0.5) / (n(t) + 0.5)),
        q(t) = sum over i in the history of recency^age(i) * tf(t, i).

    The 1 in the logarithm keeps idf positive (as in Lucene). The recency weight departs from the
    source, which has no history; age 0 is the newest item. Words are runs of letters and digits in
    lower case, neither stemmed nor left out. An item without words is left out (NaN): nothing says
    what it is. Train interactions are not looked at.
    """

    class Config(RecencyConfig):
        """Options of `bm25`."""

        k1: float = searched(
            1.2, low=0.5, high=2.5, ge=0, description="how slowly a repeated word stops to count"
        )
        b: float = searched(
            0.75, low=0.0, high=1.0, ge=0, le=1, description="how much long documents are held back"
        )
        fields: tuple[str, ...] = Field(FIELDS, description=FIELDS_HELP)

    reads_instructions: ClassVar[bool] = False
    _counts: Csr
    _weights: Csr

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or self.Config()

    def fit(self, data: TrainingData, *, seed: int) -> None:  # noqa: ARG002
        """Count the words of the catalog; nothing is drawn.

        Raises:
            ConfigError: no item has a word.
        """
        self._take(_count(documents(data.catalog, self.config.fields)))
        if not self._counts.nnz:
            raise ConfigError(
                f"none of the {data.n_items} items has a word in {', '.join(self.config.fields)}; "
                "bm25 needs a data set with titles, or other model.fields"
            )

    def score(self, queries: Queries) -> Scores:
        """Return (B, C) float32, or (B, N) for the whole catalog; NaN for items without words."""
        n_items, recency = self._counts.shape[0], self.config.recency
        asked = history_matrix(queries.history, n_items, recency=recency) @ self._counts
        silent = np.diff(self._counts.indptr) == 0
        if queries.candidates is None:
            values = _of_all(asked, self._weights)
            values[:, silent] = np.nan
        else:
            values = _of_candidates(asked, self._weights, queries.candidates)
            values[silent[queries.candidates]] = np.nan
        return Scores(values)

    def save(self, folder: Path) -> None:
        """Write the counts of words."""
        shape = np.array(self._counts.shape, np.int64)
        write_arrays(folder / FILE, {**arrays_of(self._counts), "shape": shape})

    def restore(self, folder: Path, data: TrainingData) -> None:
        """Read what `save` wrote.

        Raises:
            StorageError: missing, torn, or of another catalog.
        """
        path = folder / FILE
        arrays = read_arrays(path)
        shape: NDArray[Any] = arrays.get("shape", np.zeros(0))
        counts = None
        if shape.shape == (2,) and shape[0] == data.n_items:
            counts = matrix_from(arrays, (int(shape[0]), int(shape[1])))
        if counts is None:
            raise StorageError(f"{path} holds no words of {data.n_items} items; fit again")
        self._take(counts)

    def _take(self, counts: Csr) -> None:
        self._counts = counts
        self._weights = _weigh(counts, self.config.k1, self.config.b)


def _count(texts: Sequence[str]) -> Csr:
    """Return (N, V) CSR float64: how often each word stands in each text."""
    index: dict[str, int] = {}
    columns: list[int] = []
    values: list[int] = []
    ends = [0]
    for text in texts:
        for word, n in Counter(_WORD.findall(text.lower())).items():
            columns.append(index.setdefault(word, len(index)))
            values.append(n)
        ends.append(len(columns))
    arrays = (np.array(values, np.float64), np.array(columns, np.int32), np.array(ends, np.int64))
    return sp.csr_array(arrays, shape=(len(texts), len(index)))


def _weigh(counts: Csr, k1: float, b: float) -> Csr:
    """Return (N, V) CSR float64: what each word adds to a document's score."""
    n_items, n_words = counts.shape
    having = np.bincount(counts.indices, minlength=n_words)
    idf = np.log1p((n_items - having + 0.5) / (having + 0.5))
    lengths = np.asarray(counts.sum(axis=1)).ravel()
    mean = float(lengths.sum()) / max(1, n_items)
    relative = lengths / (mean if mean > 0 else 1.0)
    slow = np.repeat(k1 * (1 - b + b * relative), np.diff(counts.indptr))
    weights = counts.copy()
    weights.data = idf[counts.indices] * counts.data * (k1 + 1) / (counts.data + slow)
    return weights


def _of_all(asked: Csr, weights: Csr) -> FloatArray:
    """Return (B, N) float32 of queries (B, V) and documents (N, V)."""
    values = np.empty((asked.shape[0], weights.shape[0]), np.float32)
    # Documents times queries: a row of words is read once for all queries of a block.
    step = max(1, min(64, BLOCK // max(1, asked.shape[1])))
    for start in range(0, len(values), step):
        block = asked[start : start + step]
        values[start : start + step] = (weights @ block.T.toarray(order="C")).T
    return values


def _of_candidates(asked: Csr, weights: Csr, candidates: Int32Array) -> FloatArray:
    """Return (B, C) float32; words of other documents are not looked at."""
    values = np.empty(candidates.shape, np.float32)
    step = max(1, min(64, BLOCK // max(1, asked.shape[1])))
    for start in range(0, len(values), step):
        block = asked[start : start + step].toarray()
        chosen = candidates[start : start + step]
        found = weights[chosen.ravel()]
        pair = np.repeat(np.arange(chosen.size), np.diff(found.indptr))
        parts = found.data * block[pair // chosen.shape[1], found.indices]
        sums = np.bincount(pair, parts, minlength=chosen.size)
        values[start : start + step] = sums.reshape(chosen.shape)
    return values
