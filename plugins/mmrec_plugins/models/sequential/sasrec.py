"""SASRec: self-attention over the history, read from the past to the present.

Letters: B users, T positions of all rows, N items, D size of a vector.
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
    SequentialModule,
    SequentialRecommender,
    shifted,
)
from mmrec_plugins.models.sequential.losses import binary_cross_entropy
from mmrec_plugins.models.sequential.packing import Packed, pack
from mmrec_plugins.models.sequential.transformer import (
    AttentionConfig,
    Transformer,
    TransformerShape,
    start_weights,
)


class SASRecConfig(AttentionConfig):
    """Defaults are those of the paper for sparse data."""

    loss: Literal["bce", "ce"] = Field(
        "bce",
        description="bce: binary cross-entropy with drawn negatives, as published; ce: "
        "cross-entropy over the whole catalog (Klenitskiy & Vasilev, RecSys 2023)",
    )
    n_negatives: int = Field(1, ge=1, description="negatives a position; loss=bce")
    embedding_size: int = searched(
        50, choices=[32, 50, 64, 128], ge=1, description="size of an item's vector"
    )
    inner: int = Field(
        1, ge=1, description="width of the feed-forward layers, in embedding sizes; BERT has 4"
    )
    norm: Literal["pre", "post"] = Field(
        "pre", description="LayerNorm before each layer, as published, or after (BERT, S3-Rec)"
    )
    activation: Literal["relu", "gelu"] = Field(
        "relu", description="of the feed-forward layers; relu as published"
    )
    scale_embeddings: bool = Field(
        default=True, description="read item vectors times sqrt(embedding_size), as published code"
    )
    batch_size: int = Field(128, ge=1, description="users a step")


class SASRecBatch(NamedTuple):
    """B rows: what is read, what follows each position, and what does not.

    Attributes:
        packed: the rows without their last item.
        target: (T,) int64 item that follows.
        negative: (T, m) int64 drawn items that the user did not take; None with loss=ce.
    """

    packed: Packed
    target: Tensor
    negative: Tensor | None


class SASRec(SequentialRecommender):
    """Self-attentive sequential recommendation (Kang & McAuley, ICDM 2018).

    Each position predicts the item after it; an item's score is the product of the position's
    output and the item's input vector, r_i = F_t . M_i (equation 6, shared table). loss=bce is
    section III.E, the mean of -ln sigmoid(r_i) - ln(1 - sigmoid(r_j)) with i what follows and j
    drawn; loss=ce is the same network with a softmax over all items, which Klenitskiy & Vasilev
    ("Turning Dross Into Gold Loss", RecSys 2023) found to be worth more than BERT4Rec's
    architecture.

    Departures from the paper: heads' outputs are projected, as in today's attention layers, and
    Adam's second moment decays by .999 (the authors' code: .98). Positions are counted from the
    newest item, which is always the last one, as the authors' left padding does. With norm=post,
    activation=gelu, inner=4, n_heads=2, scale_embeddings=false it is the SASRec of S3-Rec's table
    (Zhou et al., CIKM 2020).
    """

    class Config(SASRecConfig):
        """See `SASRecConfig`."""

    config: SASRecConfig
    module: "_Network"
    extra_items = 1

    def __init__(self, config: SASRecConfig | None = None) -> None:
        super().__init__(config or self.Config())

    def build(self, data: TrainingData) -> "_Network":
        """Return the network; a position has a vector of its own."""
        self._n_items = data.n_items
        return _Network(self.config, data.n_items)

    def usable(self, data: TrainingData, users: Int64Array) -> BoolArray:
        """With loss=bce a user must have an item left that can be a negative."""
        if self.config.loss == "ce":
            return np.ones(len(users), np.bool_)
        return self.ready_negatives(data, users)

    def batch(self, users: Int64Array, rows: Ragged, rng: np.random.Generator) -> SASRecBatch:
        """Shift the rows by one, and draw negatives where the loss has some."""
        read, following = shifted(rows)
        negative = None
        if self._sampler is not None:
            asked = np.repeat(users, read.lengths)[:, None]
            drawn = self._sampler.draw(np.repeat(asked, self.config.n_negatives, axis=1), rng)
            negative = torch.from_numpy(drawn).to(self.device)
        packed = pack(read, self.config.max_length, self.device)
        return SASRecBatch(packed, torch.from_numpy(following).to(self.device), negative)

    def loss(self, batch: SASRecBatch) -> Tensor:
        """Return the () mean loss of the batch's positions."""
        found = self.module(batch.packed)
        if batch.negative is None:
            return self.cross_entropy(found, batch.target)
        return binary_cross_entropy(found, self.items(), batch.target, batch.negative)


class _Network(SequentialModule):
    def __init__(self, config: SASRecConfig, n_items: int) -> None:
        super().__init__()
        size = config.embedding_size
        self.items = nn.Embedding(n_items + 1, size, padding_idx=n_items)
        self.positions = nn.Embedding(config.max_length, size)
        self.scale = size**0.5 if config.scale_embeddings else 1.0
        self.transformer = Transformer(
            TransformerShape.of(config, norm=config.norm, activation=config.activation, causal=True)
        )
        start_weights(self, std=0.0 if config.norm == "pre" else 0.02)

    def forward(self, packed: Packed) -> Tensor:
        """Return (T, D): what each position knows of what follows."""
        read = self.items(packed.items) * self.scale + self.positions(packed.positions)
        found: Tensor = self.transformer(read, packed)
        return found

    def ends(self, packed: Packed) -> Tensor:
        found: Tensor = self(packed)[packed.last]
        return found
