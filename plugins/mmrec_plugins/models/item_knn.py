"""Item-based nearest neighbours by cosine."""

from collections.abc import Iterator
from typing import Literal

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from pydantic import Field

from mmrec_bench.config import searched
from mmrec_bench.interfaces import TrainingData
from mmrec_bench.types import FloatArray, Queries
from mmrec_plugins.models.item_to_item import SparseItemToItem
from mmrec_plugins.models.matrices import (
    Csr,
    RecencyConfig,
    blocks,
    blocks_of_work,
    dense_gram,
    history_matrix,
    interaction_matrix,
    keep,
    keep_largest,
)

Floats = NDArray[np.float64]


class ItemKNN(SparseItemToItem):
    """Scores an item by its similarity to the items of the history (Sarwar et al., WWW 2001).

    With U_i the users who have item i in train,

        sim(i, j) = |U_i & U_j| / (sqrt(|U_i| |U_j|) + shrink),    sim(i, i) = 0,
        score(j) = sum over i in the history of recency^age(i) * sim(i, j),

    the cosine of the binary user vectors, with the shrink term as in Dacrema, Cremonesi and
    Jannach (RecSys 2019, section 3.2). The sum runs over pairs among the k nearest neighbours:
    of the item that is scored (Sarwar et al., section 3.2; RecBole), or of the item in the
    history (Deshpande and Karypis, TOIS 2004; implicit). Neighbours as near as the k-th stay too.

    The recency weight departs from the papers, for which a history has no order; age 0 is the
    newest item. An item that a query's history holds twice counts twice, where theirs is binary.
    Memory: k pairs an item of 12 bytes, and more only where similarities are equal.
    """

    class Config(RecencyConfig):
        """Options of `item-knn`."""

        k: int = searched(
            100, low=5, high=500, log=True, ge=1, description="neighbours of an item that are kept"
        )
        shrink: float = searched(
            0.0,
            choices=[0.0, 1.0, 5.0, 20.0, 100.0],
            ge=0,
            description="added to the cosine's denominator: less trust in few users",
        )
        neighbours_of: Literal["target", "history"] = Field(
            "target", description="whose k neighbours are kept: the scored item's, or the history's"
        )

    config: Config

    def __init__(self, config: Config | None = None) -> None:
        super().__init__(config or self.Config())

    def weigh(self, data: TrainingData) -> Csr:
        """Return (N, N) similarities, the k nearest of each item."""
        nearest = _nearest(interaction_matrix(data), self.config.k, self.config.shrink)
        return nearest.T.tocsr() if self.config.neighbours_of == "target" else nearest

    def weigh_history(self, queries: Queries) -> Csr:
        """Return (B, N): recency^age of each item."""
        return history_matrix(queries.history, self.n_items, recency=self.config.recency)


def _nearest(users: Csr, k: int, shrink: float) -> Csr:
    """Return (N, N) CSR of each row's k largest similarities, from (n_users, N) of ones."""
    counts = np.bincount(users.indices, minlength=users.shape[1]).astype(np.float64)
    gram = dense_gram(users)
    if gram is None:
        parts = list(_sparse_parts(users, counts, k, shrink))
    else:
        parts = [
            _largest(_cosine(gram[rows], counts, rows, shrink), k)
            for rows in blocks(len(gram), len(gram))
        ]
    return sp.vstack([sp.csr_array((0, len(counts))), *parts], format="csr")


def _sparse_parts(users: Csr, counts: Floats, k: int, shrink: float) -> Iterator[Csr]:
    """Yield blocks of rows of (N, N); the similarities of no more items are held at once."""
    items = users.T.tocsr()
    # A row of the product takes one step for each item of each of its users.
    work = (items @ np.diff(users.indptr).astype(np.float64)).astype(np.int64)
    for rows in blocks_of_work(work):
        part = items[rows] @ users
        lengths = np.diff(part.indptr)
        part.data /= np.sqrt(np.repeat(counts[rows], lengths) * counts[part.indices]) + shrink
        own = np.repeat(np.arange(rows.start, rows.stop), lengths)
        yield keep_largest(keep(part, part.indices != own), k)


def _cosine(gram: FloatArray, counts: Floats, rows: slice, shrink: float) -> Floats:
    """Return (b, N) similarities of some items to all, from the users that they share."""
    scale = counts[rows, None] * counts
    np.sqrt(scale, out=scale)
    scale += shrink
    scale[scale == 0] = 1  # no users, none shared
    similarity = np.divide(gram, scale, out=scale)
    similarity[np.arange(len(gram)), np.arange(rows.start, rows.stop)] = 0
    return similarity


def _largest(similarity: Floats, k: int) -> Csr:
    """Return a CSR of each row's k largest positive values, and all equal to the k-th."""
    near, n_items = similarity.astype(np.float32), similarity.shape[1]
    mask = near > 0
    if k < n_items:
        mask &= near >= np.partition(near, n_items - k, axis=1)[:, n_items - k, None]
    row, column = np.nonzero(mask)
    return sp.csr_array((similarity[mask], (row, column)), shape=similarity.shape)
