"""A Markov chain of first order over items."""

import numpy as np
import scipy.sparse as sp

from mmrec_bench.config import ComponentConfig
from mmrec_bench.interfaces import TrainingData
from mmrec_bench.splitting import newest
from mmrec_bench.types import Queries
from mmrec_plugins.models.item_to_item import SparseItemToItem
from mmrec_plugins.models.matrices import Csr, history_matrix


class Markov(SparseItemToItem):
    """Scores an item by how often it came right after the newest item of the history.

    With n_ij the times that j follows i in the train histories of all users,

        score(j) = n_ij / sum over l of n_il,    i = the newest item of the history,

    the maximum-likelihood chain (Rendle, Freudenthaler and Schmidt-Thieme, WWW 2010, section 4.1,
    for baskets of one item). Items that never came after i are tied at 0 and stay so, as all items
    are after an empty history.
    """

    class Config(ComponentConfig):
        """`markov-1` has no options."""

    def __init__(self, config: Config | None = None) -> None:
        super().__init__(config or self.Config())

    def weigh(self, data: TrainingData) -> Csr:
        """Return (N, N) shares of the steps that leave each item."""
        rows = data.interactions
        follows = rows.user[1:] == rows.user[:-1]
        before, after = rows.item[:-1][follows], rows.item[1:][follows]
        shape = (data.n_items, data.n_items)
        steps = sp.csr_array((np.ones(len(before)), (before, after)), shape=shape)
        steps.sum_duplicates()
        leaving = np.bincount(before, minlength=data.n_items)
        steps.data /= np.repeat(leaving, np.diff(steps.indptr))
        return steps

    def weigh_history(self, queries: Queries) -> Csr:
        """Return (B, N): 1 at the newest item."""
        return history_matrix(newest(queries.history, 1), self.n_items)
