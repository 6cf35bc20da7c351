"""The transformer under SASRec and BERT4Rec, over packed histories.

Letters: B rows, T positions of all rows, L longest row of a group, H heads, D size of a vector.
"""

from dataclasses import dataclass
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from mmrec_bench.config import searched
from mmrec_plugins.models.sequential.base import SequentialConfig
from mmrec_plugins.models.sequential.packing import Group, Packed


class AttentionConfig(SequentialConfig):
    """Options of the models that attend."""

    n_blocks: int = searched(2, low=1, high=3, ge=1, description="blocks of attention")
    n_heads: int = Field(1, ge=1, description="attention heads; divide embedding_size")
    inner: int = Field(
        4, ge=1, description="width of the feed-forward layers, in embedding sizes; BERT has 4"
    )
    attention_dropout: float | None = Field(
        None, ge=0, lt=1, description="of attention weights; None = dropout"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.embedding_size % self.n_heads:
            raise ValueError(f"n_heads {self.n_heads} must divide {self.embedding_size}")
        return self


@dataclass(frozen=True)
class TransformerShape:
    """What is built.

    Attributes:
        size: D.
        n_blocks: attention layers, each followed by a feed-forward layer.
        n_heads: H, divides D.
        inner: width of the feed-forward layers as a multiple of D.
        dropout: of vectors and of attention weights.
        attention_dropout: of attention weights.
        norm: "pre" = LayerNorm before a layer and once at the end; "post" = after the sum.
        activation: of the feed-forward layers.
        causal: a position sees itself and earlier ones only.
    """

    size: int
    n_blocks: int
    n_heads: int
    inner: int
    dropout: float
    attention_dropout: float
    norm: Literal["pre", "post"]
    activation: Literal["relu", "gelu"]
    causal: bool

    @classmethod
    def of(
        cls,
        config: AttentionConfig,
        *,
        norm: Literal["pre", "post"],
        activation: Literal["relu", "gelu"],
        causal: bool,
    ) -> Self:
        """Return the shape that a model's options ask for."""
        dropout = config.attention_dropout
        return cls(
            size=config.embedding_size,
            n_blocks=config.n_blocks,
            n_heads=config.n_heads,
            inner=config.inner,
            dropout=config.dropout,
            attention_dropout=config.dropout if dropout is None else dropout,
            norm=norm,
            activation=activation,
            causal=causal,
        )


class Transformer(nn.Module):
    """Blocks of attention and feed-forward layers; (T, D) -> (T, D).

    "pre": x + Dropout(f(LayerNorm(x))) and a last LayerNorm (Kang & McAuley, ICDM 2018, section
    III.B). "post": LayerNorm(x + Dropout(f(x))), and a LayerNorm over the sum of item and position
    (BERT; also the SASRec of S3-Rec's table).
    """

    def __init__(self, shape: TransformerShape) -> None:
        super().__init__()
        self.pre = shape.norm == "pre"
        self.edge = nn.LayerNorm(shape.size, eps=_EPSILON)
        self.dropout = nn.Dropout(shape.dropout)
        self.blocks = nn.ModuleList(_Block(shape) for _ in range(shape.n_blocks))

    def forward(self, vectors: Tensor, packed: Packed) -> Tensor:
        """Read (T, D) sums of item and position vectors; return (T, D)."""
        vectors = self.dropout(vectors if self.pre else self.edge(vectors))
        for block in self.blocks:
            vectors = block(vectors, packed)
        edge: Tensor = self.edge(vectors) if self.pre else vectors
        return edge


_EPSILON = 1e-8
"""As in the code of Kang & McAuley; BERT's 1e-12 is the same in float32."""


_EMBEDDING_STD = 0.02


class _Block(nn.Module):
    def __init__(self, shape: TransformerShape) -> None:
        super().__init__()
        self.pre = shape.norm == "pre"
        self.attention = _Attention(shape)
        self.forward_layer = _FeedForward(shape)
        self.attention_norm = nn.LayerNorm(shape.size, eps=_EPSILON)
        self.forward_norm = nn.LayerNorm(shape.size, eps=_EPSILON)
        self.dropout = nn.Dropout(shape.dropout)

    def forward(self, x: Tensor, packed: Packed) -> Tensor:
        if self.pre:
            x = x + self._step(self.attention(self.attention_norm(x), packed))
            return x + self._step(self.forward_layer(self.forward_norm(x)))
        x = self.attention_norm(x + self._step(self.attention(x, packed)))
        found: Tensor = self.forward_norm(x + self._step(self.forward_layer(x)))
        return found

    def _step(self, change: Tensor) -> Tensor:
        dropped: Tensor = self.dropout(change)
        return dropped


class _FeedForward(nn.Module):
    """The paper's two point-wise layers; dropout between them only as SASRec's code has it."""

    def __init__(self, shape: TransformerShape) -> None:
        super().__init__()
        self.up = nn.Linear(shape.size, shape.inner * shape.size)
        self.down = nn.Linear(shape.inner * shape.size, shape.size)
        self.activation = functional.relu if shape.activation == "relu" else functional.gelu
        self.dropout = nn.Dropout(shape.dropout if shape.norm == "pre" else 0.0)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.down(self.dropout(self.activation(self.up(x))))
        return found


class _Attention(nn.Module):
    """Scaled dot-product attention with a projection of the heads' outputs."""

    def __init__(self, shape: TransformerShape) -> None:
        super().__init__()
        self.n_heads, self.causal = shape.n_heads, shape.causal
        self.attention_dropout = shape.attention_dropout
        self.project = nn.Linear(shape.size, 3 * shape.size)
        self.out = nn.Linear(shape.size, shape.size)

    def forward(self, x: Tensor, packed: Packed) -> Tensor:
        projected = self.project(x)  # (T, 3 D)
        parts = [self._group(projected[g.start : g.end], g) for g in packed.groups]
        found: Tensor = self.out(parts[0] if len(parts) == 1 else torch.cat(parts))
        return found

    def _group(self, projected: Tensor, group: Group) -> Tensor:
        rows = group.pad(projected)  # (b, L, 3 D)
        heads = rows.view(group.n_rows, group.length, 3, self.n_heads, -1)
        heads = heads.permute(2, 0, 3, 1, 4)  # (3, b, H, L, d)
        query, key, value = heads.unbind(0)
        found = functional.scaled_dot_product_attention(
            query,
            key,
            value,
            # Padding stands behind the real positions: causal attention never sees it.
            attn_mask=None if self.causal else group.real,
            dropout_p=self.attention_dropout if self.training else 0.0,
            is_causal=self.causal,
        )
        return group.unpad(found.transpose(1, 2).flatten(2))


def start_weights(module: nn.Module, *, std: float) -> None:
    """Draw embeddings from N(0, .02) and linear layers from N(0, std), or by Glorot for std 0."""
    for part in module.modules():
        if isinstance(part, nn.Embedding):
            nn.init.normal_(part.weight, std=_EMBEDDING_STD)
            if part.padding_idx is not None:
                with torch.no_grad():
                    part.weight[part.padding_idx].zero_()
        elif isinstance(part, nn.Linear):
            if std:
                nn.init.normal_(part.weight, std=std)
            else:
                nn.init.xavier_uniform_(part.weight)
            nn.init.zeros_(part.bias)
