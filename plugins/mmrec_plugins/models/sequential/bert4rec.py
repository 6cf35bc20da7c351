"""BERT4Rec: a bidirectional transformer that fills in hidden items.

Letters: B users, T positions of all rows, M hidden positions, N items, D size of a vector.
"""

from typing import NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from mmrec_bench.config import searched
from mmrec_bench.interfaces import TrainingData
from mmrec_bench.splitting import newest
from mmrec_bench.types import Int64Array, Ragged
from mmrec_plugins.models.sequential.base import (
    SequentialModule,
    SequentialRecommender,
    with_last,
)
from mmrec_plugins.models.sequential.packing import Packed, pack
from mmrec_plugins.models.sequential.transformer import (
    AttentionConfig,
    Transformer,
    TransformerShape,
    start_weights,
)


class BERT4RecConfig(AttentionConfig):
    """Layers, heads, size and share of hidden items are the paper's for long rows (Beauty: .6)."""

    max_length: int = Field(
        50, ge=2, description="positions: the newest items of a history and, when asked, the mask"
    )
    n_heads: int = Field(2, ge=1, description="attention heads; divide embedding_size")
    dropout: float = searched(0.2, low=0.0, high=0.7, ge=0, lt=1, description="of vectors")
    mask_probability: float = searched(
        0.2,
        low=0.1,
        high=0.7,
        gt=0,
        lt=1,
        description="share of a row's items that are hidden, at least one",
    )
    last_item_share: float = Field(
        0.1, ge=0, le=1, description="share of rows of which only the last item is hidden"
    )


class BERT4RecBatch(NamedTuple):
    """B rows with hidden items.

    Attributes:
        packed: the rows; a hidden item is number N.
        hidden: (M,) int64 places of the hidden items among the T positions.
        target: (M,) int64 what they are.
    """

    packed: Packed
    hidden: Tensor
    target: Tensor


class BERT4Rec(SequentialRecommender):
    """BERT4Rec (Sun et al., CIKM 2019): the cloze task, read in both directions.

    A share of each row's items is replaced by a mask, and the network says what stood there, with a
    softmax over all items (equation 7: a layer with GELU, the shared item table, and a bias an
    item): P(v) = softmax(LayerNorm(GELU(h W + b)) E' + b'), and the loss is the mean of -ln P(v_m)
    over all hidden items m of a batch. In part of the rows only the last item is hidden, which is
    what a query asks: the history with a mask at its end. Hidden items are drawn anew each epoch;
    the authors' code draws ten copies and one row with the last item hidden beforehand (hence
    last_item_share = .1). An empty history is the mask alone. Departures: the LayerNorm, and the
    mean over a batch where equation 8 has that of each row, both as the authors' code; the shared
    loop's Adam at 1e-3 without weight decay, linear decay or clipping, where the paper has 1e-4,
    .01, and both; rows of 50 items by default, as in S3-Rec's table.
    """

    class Config(BERT4RecConfig):
        """See `BERT4RecConfig`."""

    config: BERT4RecConfig
    module: "_Network"

    def __init__(self, config: BERT4RecConfig | None = None) -> None:
        super().__init__(config or self.Config())

    def build(self, data: TrainingData) -> "_Network":
        """Return the network; a position has a vector of its own."""
        self._n_items = data.n_items
        return _Network(self.config, data.n_items)

    def batch(self, users: Int64Array, rows: Ragged, rng: np.random.Generator) -> BERT4RecBatch:
        """Hide items."""
        del users
        config = self.config
        hidden = draw_hidden(rows, config.mask_probability, config.last_item_share, rng)
        read = rows.values.copy()
        read[hidden] = self._n_items
        packed = pack(Ragged(read, rows.offsets), config.max_length, self.device)
        target = rows.values[hidden].astype(np.int64)
        return BERT4RecBatch(
            packed,
            torch.from_numpy(hidden).to(self.device),
            torch.from_numpy(target).to(self.device),
        )

    def loss(self, batch: BERT4RecBatch) -> Tensor:
        """Return the () mean loss of the hidden items."""
        found = self.module(batch.packed, batch.hidden)
        return self.cross_entropy(found, batch.target, self.module.bias)

    def shown(self, history: Ragged) -> Ragged:
        """Return the newest items, with the mask at the end."""
        rows = newest(history, self.config.max_length - 1)
        return with_last(rows, self._n_items, np.ones(len(rows), np.bool_))

    def biases(self) -> Tensor:
        """Return (N,) what is added to an item's scores."""
        return self.module.bias


def draw_hidden(
    rows: Ragged, probability: float, last_share: float, rng: np.random.Generator
) -> Int64Array:
    """Return increasing int64 places, among the rows' values, of the items to hide.

    Of a row of L items max(1, round(L * probability)) are hidden, any set of them equally likely;
    with the chance `last_share` it is the last item alone.
    """
    lengths = rows.lengths
    count = np.maximum(1, np.rint(lengths * probability).astype(np.int64))
    keys = rng.random(len(rows.values))
    only_last = rng.random(len(rows)) < last_share
    count[only_last] = 1
    keys[rows.offsets[1:][only_last] - 1] = -1.0
    order = np.lexsort((keys, rows.row_ids))  # within each row by key
    rank = np.arange(len(keys)) - np.repeat(rows.offsets[:-1], lengths)
    hidden: Int64Array = np.sort(order[rank < np.repeat(count, lengths)])
    return hidden


class _Network(SequentialModule):
    def __init__(self, config: BERT4RecConfig, n_items: int) -> None:
        super().__init__()
        size = config.embedding_size
        self.items = nn.Embedding(n_items + 1, size)
        self.positions = nn.Embedding(config.max_length, size)
        self.transformer = Transformer(
            TransformerShape.of(config, norm="post", activation="gelu", causal=False)
        )
        self.head = nn.Linear(size, size)
        self.head_norm = nn.LayerNorm(size)
        self.bias = nn.Parameter(torch.zeros(n_items))
        start_weights(self, std=0.02)

    def forward(self, packed: Packed, places: Tensor) -> Tensor:
        """Return (M, D): what the network holds of the M places."""
        read = self.items(packed.items) + self.positions(packed.positions)
        found = self.transformer(read, packed)[places]
        answer: Tensor = self.head_norm(functional.gelu(self.head(found)))
        return answer

    def ends(self, packed: Packed) -> Tensor:
        found: Tensor = self(packed, packed.last)
        return found
