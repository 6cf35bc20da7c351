"""What the sequential models share: which rows they learn from, and how they read a history.

Letters: B rows or queries, T positions of all rows, N items, D size of a vector.
"""

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from mmrec_bench.config import searched
from mmrec_bench.errors import ModelError
from mmrec_bench.interfaces import TrainingData
from mmrec_bench.splitting import newest
from mmrec_bench.types import BoolArray, Int64Array, Queries, Ragged
from mmrec_plugins.models.neural import NeuralRecommender
from mmrec_plugins.models.sampling import NegativeSampler
from mmrec_plugins.models.sequential.losses import catalog_cross_entropy
from mmrec_plugins.models.sequential.packing import Packed, by_length, pack
from mmrec_plugins.models.training import TrainingConfig

_ROWS_AT_ONCE = 256
"""Histories that are read at a time when scores are asked for."""


class SequentialConfig(TrainingConfig):
    """Options of all sequential models."""

    embedding_size: int = searched(
        64, choices=[32, 64, 128], ge=1, description="size of an item's vector"
    )
    max_length: int = Field(
        50,
        ge=1,
        description="newest items of a history that are read; protocol.history_length cuts too",
    )
    dropout: float = searched(
        0.5, low=0.0, high=0.7, ge=0, lt=1, description="share of values left out in training"
    )
    batch_size: int = Field(256, ge=1, description="users a step")


class SequentialRecommender(NeuralRecommender):
    """Learns from each user's train items in their order; the newest `max_length` of them.

    Batches are random users, as in the papers; inside a batch rows are sorted by length and packed
    without padding. The item table has a row more, number N: what stands in the place of an item
    (nothing, or a mask). An item unseen in train keeps the vector that it was drawn, moved only as
    a negative. An empty history is read as one N.
    """

    module: "SequentialModule"
    _n_items: int

    @abstractmethod
    def build(self, data: TrainingData) -> "SequentialModule":
        """Return the untrained network."""

    def prepare(self, data: TrainingData) -> None:
        """Keep the rows: users with two train items or more, oldest item first."""
        longest = self.config.max_length
        rows = newest(data.interactions.histories(data.n_users), longest + self.extra_items)
        users = np.flatnonzero(rows.lengths >= 2)
        users = users[self.usable(data, users)]
        if not len(users):
            raise ModelError(
                f"there is no sequence to learn from: {len(data.interactions)} train interactions "
                f"of {data.n_users} users, and none has two train items or more (and, for losses "
                "with negatives, an item left); use more data or lower protocol.k_core"
            )
        self._users: Int64Array = users
        self._rows = rows.take(users)
        self._allowed: Tensor | None = None
        if data.held_out is not None:
            allowed = np.setdiff1d(np.arange(data.n_items), data.held_out.items)
            self._allowed = torch.from_numpy(allowed).to(self.device)

    _sampler: NegativeSampler | None = None
    """Draws negatives, where the loss has some."""

    def ready_negatives(self, data: TrainingData, users: Int64Array) -> BoolArray:
        """Get ready to draw, and return which of `users` have an item left to be a negative."""
        self._sampler = NegativeSampler(
            data.interactions, data.n_users, data.n_items, data.held_out
        )
        usable: BoolArray = self._sampler.free[users] > 0
        return usable

    extra_items: int = 0
    """1 where a row's first item is read and never predicted, so that a row has one more."""

    def usable(self, data: TrainingData, users: Int64Array) -> BoolArray:  # noqa: ARG002
        """Return which of `users` the loss can learn from; a loss with negatives readies them."""
        return np.ones(len(users), np.bool_)

    def n_batches(self) -> int:
        """Return the steps of one epoch."""
        return -(-len(self._users) // int(self.config.batch_size))

    def batches(self, rng: np.random.Generator) -> Iterator[Any]:
        """Yield all users once, in an order drawn from `rng`."""
        order = rng.permutation(len(self._users))
        size = self.config.batch_size
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            chosen = chosen[by_length(self._rows.lengths[chosen])]
            yield self.batch(self._users[chosen], self._rows.take(chosen), rng)

    @abstractmethod
    def batch(self, users: Int64Array, rows: Ragged, rng: np.random.Generator) -> Any:  # noqa: ANN401
        """Return one batch of rows that increase in length; all draws come from `rng`."""

    def shown(self, history: Ragged) -> Ragged:
        """Return what is read of histories: their newest items, and N where there is none."""
        rows = newest(history, self.config.max_length)
        return with_last(rows, self._n_items, rows.lengths == 0)

    def represent(self, queries: Queries) -> Tensor:
        """Return (B, D) float32: what the network holds at each history's end."""
        rows = self.shown(queries.history)
        order = by_length(rows.lengths)
        found = torch.empty(len(order), self.config.embedding_size, device=self.device)
        for start in range(0, len(order), _ROWS_AT_ONCE):
            chosen = order[start : start + _ROWS_AT_ONCE]
            packed = pack(rows.take(chosen), self.config.max_length, self.device)
            found[torch.from_numpy(chosen)] = self.module.ends(packed).float()
        return found

    def items(self) -> Tensor:
        """Return (N, D) float32: the item table, which is also what is ranked by."""
        return self.module.items.weight[: self._n_items]

    def cross_entropy(self, rows: Tensor, target: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return the () mean loss of (n, D) rows over the catalog without held-out items."""
        items = self.items()
        if self._allowed is not None:  # increasing, and no target is held out
            items, target = items[self._allowed], torch.searchsorted(self._allowed, target)
            bias = None if bias is None else bias[self._allowed]
        return catalog_cross_entropy(rows, items, target, bias)


class SequentialModule(nn.Module):
    """A network over packed histories with an item table."""

    items: nn.Embedding

    def ends(self, packed: Packed) -> Tensor:
        """Return (B, D): the vector at each row's newest position, in the packed order."""
        raise NotImplementedError


def with_last(rows: Ragged, item: int, chosen: BoolArray) -> Ragged:
    """Return the rows with `item` appended to the (B,) bool `chosen` ones."""
    ends = rows.offsets[1:][chosen]
    values = np.insert(rows.values, ends, np.int32(item))
    return Ragged.from_lengths(values, rows.lengths + chosen)


def shifted(rows: Ragged) -> tuple[Ragged, Int64Array]:
    """Return the rows without their last item, and (T,) int64 the item that follows each."""
    first = np.zeros(len(rows.values), np.bool_)
    last = np.zeros(len(rows.values), np.bool_)
    first[rows.offsets[:-1]] = last[rows.offsets[1:] - 1] = True
    following = rows.values[~first].astype(np.int64)
    return Ragged.from_lengths(rows.values[~last], rows.lengths - 1), following
