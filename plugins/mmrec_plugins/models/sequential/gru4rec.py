"""GRU4Rec: a recurrent network over the history.

Letters: B users, T positions of all rows, N items, D size of a vector, S negatives of a batch.
"""

from typing import Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from mmrec_bench.config import searched
from mmrec_bench.interfaces import TrainingData
from mmrec_bench.types import BoolArray, Int64Array, Ragged
from mmrec_plugins.models.sequential.base import (
    SequentialConfig,
    SequentialModule,
    SequentialRecommender,
    shifted,
)
from mmrec_plugins.models.sequential.losses import binary_cross_entropy, pairwise
from mmrec_plugins.models.sequential.packing import Packed, pack
from mmrec_plugins.models.sequential.transformer import start_weights


class GRU4RecConfig(SequentialConfig):
    """Defaults: one layer, and cross-entropy over the whole catalog."""

    loss: Literal["ce", "bce", "bpr", "top1", "bpr-max", "top1-max"] = Field(
        "ce",
        description="ce: cross-entropy over the whole catalog; bce: one drawn negative a position, "
        "as S3-Rec's table; bpr, top1 (ICLR 2016), bpr-max, top1-max (CIKM 2018): with shared "
        "negatives",
    )
    n_negatives: int = Field(
        2048, ge=1, description="negatives that a batch shares; bpr, top1, bpr-max, top1-max"
    )
    alpha: float = Field(
        0.5, ge=0, le=1, description="shared negatives are drawn by train count ^ alpha"
    )
    regularisation: float = Field(1.0, ge=0, description="of the negatives' scores; bpr-max")
    hidden_size: int = searched(
        100,
        choices=[64, 100, 128, 256],
        ge=1,
        description="size of the recurrent state, as in the paper's smaller network",
    )
    n_layers: int = searched(1, low=1, high=2, ge=1, description="recurrent layers")
    dropout: float = searched(
        0.2, low=0.0, high=0.7, ge=0, lt=1, description="of item vectors and states"
    )


class GRU4RecBatch(NamedTuple):
    """B rows: what is read, what follows each position, and what does not.

    Attributes:
        packed: the rows without their last item.
        target: (T,) int64 item that follows.
        negative: (T, 1) int64 with loss=bce; (S,) with shared negatives; None with loss=ce.
    """

    packed: Packed
    target: Tensor
    negative: Tensor | None


class GRU4Rec(SequentialRecommender):
    """Session-based recommendation with recurrent networks (Hidasi et al., ICLR 2016).

    A GRU reads item vectors; its state, projected to an item vector's size, is multiplied with the
    same item table ("constrained embeddings" of Hidasi & Karatzoglou, CIKM 2018): r_i = v_i . (W
    h_t), h_t = GRU(v_t, h_(t-1)); the loss of a position is -ln softmax(r)_i, i what follows
    (loss=ce). Departures: a user's whole row is read at once and is one session, instead of
    session-parallel steps of one item; shared negatives are drawn from the catalog by train count ^
    alpha (CIKM 2018, section 3.1) instead of being the other sessions' items; Adam instead of
    Adagrad.
    """

    class Config(GRU4RecConfig):
        """See `GRU4RecConfig`."""

    config: GRU4RecConfig
    module: "_Network"
    extra_items = 1

    def __init__(self, config: GRU4RecConfig | None = None) -> None:
        super().__init__(config or self.Config())
        self._cumulated: np.ndarray[tuple[int], np.dtype[np.float64]] = np.zeros(0)

    def build(self, data: TrainingData) -> "_Network":
        """Return the network."""
        self._n_items = data.n_items
        return _Network(self.config, data.n_items)

    def usable(self, data: TrainingData, users: Int64Array) -> BoolArray:
        """With loss=bce a user must have an item left that can be a negative."""
        counts = data.item_counts().astype(np.float64)
        weights = np.where(counts > 0, counts**self.config.alpha, 0.0)
        if data.held_out is not None:
            weights[data.held_out.items] = 0.0
        self._cumulated = np.cumsum(weights)
        if self.config.loss != "bce":
            return np.ones(len(users), np.bool_)
        return self.ready_negatives(data, users)

    def batch(self, users: Int64Array, rows: Ragged, rng: np.random.Generator) -> GRU4RecBatch:
        """Shift the rows by one, and draw negatives where the loss has some."""
        read, following = shifted(rows)
        negative = None
        if self._sampler is not None:
            drawn = self._sampler.draw(np.repeat(users, read.lengths)[:, None], rng)
            negative = torch.from_numpy(drawn).to(self.device)
        elif self.config.loss != "ce":
            negative = torch.from_numpy(self._shared(rng)).to(self.device)
        packed = pack(read, self.config.max_length, self.device)
        return GRU4RecBatch(packed, torch.from_numpy(following).to(self.device), negative)

    def _shared(self, rng: np.random.Generator) -> Int64Array:
        """Draw (S,) items by weight, with replacement."""
        place = rng.random(self.config.n_negatives) * self._cumulated[-1]
        found = np.searchsorted(self._cumulated, place, side="right").astype(np.int64)
        # The sum of the last weights may be lost in rounding: never go past the last item.
        last = int(np.flatnonzero(np.diff(self._cumulated, prepend=0.0))[-1])
        drawn: Int64Array = np.minimum(found, last)
        return drawn

    def loss(self, batch: GRU4RecBatch) -> Tensor:
        """Return the () mean loss of the batch's positions."""
        found = self.module(batch.packed)
        kind = self.config.loss
        if kind == "ce" or batch.negative is None:
            return self.cross_entropy(found, batch.target)
        if kind == "bce":
            return binary_cross_entropy(found, self.items(), batch.target, batch.negative)
        return pairwise(
            kind,
            found,
            self.items(),
            batch.target,
            batch.negative,
            regularisation=self.config.regularisation,
        )


class _Network(SequentialModule):
    def __init__(self, config: GRU4RecConfig, n_items: int) -> None:
        super().__init__()
        size, hidden, layers = config.embedding_size, config.hidden_size, config.n_layers
        self.items = nn.Embedding(n_items + 1, size, padding_idx=n_items)
        self.gru = nn.GRU(
            size,
            hidden,
            num_layers=layers,
            batch_first=True,
            dropout=config.dropout if layers > 1 else 0.0,
        )
        self.out = nn.Linear(hidden, size)
        self.dropout = nn.Dropout(config.dropout)
        start_weights(self, std=0.0)

    def forward(self, packed: Packed) -> Tensor:
        """Return (T, D): what each position knows of what follows."""
        read = self.dropout(self.items(packed.items))
        parts = [
            # Padding stands behind the real positions, so that no state has read it.
            group.unpad(self.gru(group.pad(read[group.start : group.end]))[0])
            for group in packed.groups
        ]
        found: Tensor = self.out(self.dropout(torch.cat(parts)))
        return found

    def ends(self, packed: Packed) -> Tensor:
        found: Tensor = self(packed)[packed.last]
        return found
