"""The network of P5: a T5 whose source tokens also know their word; and that of VIP5 beside it.

Letters: B sources, T source tokens, L target tokens, D width of the model, P width of a picture's
vector, k visual tokens, N items.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmrec_bench.types import FloatArray
from mmrec_plugins.models.item_vectors import filled, have_vectors
from mmrec_plugins.models.p5.prompts import Source
from mmrec_plugins.models.tensors import take_rows

MAX_WORDS = 512


@dataclass(frozen=True, slots=True)
class Sources:
    """Padded sources.

    Attributes:
        ids: (B, T) int64 tokens.
        words: (B, T) int64 number of the word, 0 = none.
        pictures: (B, T) int64 item whose picture stands there; -1 = a token.
        mask: (B, T) bool, False = padding.
    """

    ids: Tensor
    words: Tensor
    pictures: Tensor
    mask: Tensor

    @classmethod
    def pad(cls, sources: Sequence[Source], pad: int, device: torch.device) -> "Sources":
        """Pad on the right to the longest."""
        lengths = np.array([len(source.ids) for source in sources])
        mask = np.arange(lengths.max()) < lengths[:, None]
        columns = []
        for name, fill in (("ids", pad), ("words", 0), ("pictures", -1)):
            column = np.full(mask.shape, fill, np.int64)
            column[mask] = np.concatenate([getattr(source, name) for source in sources])
            columns.append(torch.from_numpy(column).to(device))
        columns[1].clamp_(max=MAX_WORDS - 1)  # (B, T)
        ids, words, pictures = columns
        return cls(ids, words, pictures, torch.from_numpy(mask).to(device))


def pad_targets(targets: Sequence[Sequence[int]], device: torch.device) -> Tensor:
    """Return (B, L) int64 labels; -100, which no loss counts, behind each target."""
    lengths = np.array([len(target) for target in targets])
    mask = np.arange(lengths.max()) < lengths[:, None]
    labels = np.full(mask.shape, -100, np.int64)
    labels[mask] = np.concatenate(targets)
    return torch.from_numpy(labels).to(device)


class P5Network(nn.Module):
    """T5 and the whole-word embeddings (Geng et al., RecSys 2022, section 4.2, figure 3).

    A source token is embedded as e(token) + w(number of its word); relative positions are T5's.
    """

    def __init__(self, t5: Any, *, whole_words: bool) -> None:  # noqa: ANN401
        super().__init__()
        self.t5 = t5
        width = t5.config.d_model
        self.words = nn.Embedding(MAX_WORDS, width) if whole_words else None
        if self.words is not None:
            nn.init.normal_(self.words.weight, std=t5.config.initializer_factor)

    def embed(self, sources: Sources) -> Tensor:
        """Return (B, T, D)."""
        states: Tensor = self.t5.shared(sources.ids)
        return states if self.words is None else states + self.words(sources.words)

    def forward(self, sources: Sources, labels: Tensor) -> Tensor:
        """Return the () mean cross-entropy of the target tokens, (B, L) labels."""
        output = self.t5(
            inputs_embeds=self.embed(sources), attention_mask=sources.mask.long(), labels=labels
        )
        loss: Tensor = output.loss
        return loss


class VIP5Network(P5Network):
    """P5 and the visual tokens of VIP5 (Geng et al., Findings of EMNLP 2023, section 3.2).

    A mapping of two layers turns a picture's vector into k tokens: (P,) -> hidden -> (k, D). A
    token's category, text or picture, has an embedding of its own, added like that of its word.
    """

    vectors: Tensor

    def __init__(
        self,
        t5: Any,  # noqa: ANN401
        vectors: FloatArray,
        *,
        whole_words: bool,
        n_visual: int,
        hidden: int | None,
    ) -> None:
        """Build around a T5.

        Args:
            t5: the backbone.
            vectors: (N, P) float32; NaN rows = no picture.
            whole_words: as for P5.
            n_visual: k.
            hidden: width between the two layers; None = D.
        """
        super().__init__(t5, whole_words=whole_words)
        width = t5.config.d_model
        self.n_visual = n_visual
        # Not saved with the weights: the run's encoder gives them again.
        scaled = torch.from_numpy(filled(vectors, have_vectors(vectors), centre=True))
        self.register_buffer("vectors", scaled, persistent=False)
        self.mapping = nn.Sequential(
            nn.Linear(vectors.shape[1], hidden or width),
            nn.ReLU(),
            nn.Linear(hidden or width, n_visual * width),
        )
        self.categories = nn.Embedding(2, width)
        nn.init.normal_(self.categories.weight, std=t5.config.initializer_factor)

    def embed(self, sources: Sources) -> Tensor:
        """Return (B, T, D); a picture's i-th place holds its i-th visual token."""
        shown = sources.pictures >= 0
        states: Tensor = self.t5.shared(sources.ids)
        if shown.any():
            items, at = torch.unique(sources.pictures[shown], return_inverse=True)
            visual = self.mapping(self.vectors[items]).unflatten(1, (self.n_visual, -1))
            # The k places of one picture stand together, so their order says which is which.
            place = torch.arange(len(at), device=at.device) % self.n_visual
            taken = take_rows(visual.flatten(0, 1), at * self.n_visual + place)
            states = states.masked_scatter(shown[:, :, None], taken.to(states.dtype))
        states = states + self.categories(shown.long())
        return states if self.words is None else states + self.words(sources.words)


class Adapter(nn.Module):
    """A bottleneck behind a linear layer: y + U act(W y), with U zero at the start.

    Houlsby et al., ICML 2019; VIP5, section 3.3 and figure 3, puts one behind each sub-layer of the
    encoder's and decoder's blocks. It stands around the sub-layer's last projection, before the
    residual is added, where both T5 and the constrained decoder call it.
    """

    def __init__(self, linear: nn.Linear, reduction: int) -> None:
        super().__init__()
        width = linear.out_features
        self.linear = linear
        self.down = nn.Linear(width, max(1, width // reduction))
        self.up = nn.Linear(max(1, width // reduction), width)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    @property
    def weight(self) -> Tensor:
        """The linear layer's weight; T5 looks at its dtype."""
        return self.linear.weight

    def forward(self, states: Tensor) -> Tensor:
        """Return (..., D) for (..., width of the linear layer's input)."""
        found: Tensor = self.linear(states)
        adapted: Tensor = self.up(nn.functional.gelu(self.down(found)))
        return found + adapted


def add_adapters(t5: Any, reduction: int) -> None:  # noqa: ANN401
    """Put an adapter behind every sub-layer of the blocks."""
    for stack in (t5.encoder, t5.decoder):
        for block in stack.block:
            *attentions, feed_forward = block.layer
            for layer in attentions:
                attention = getattr(layer, "SelfAttention", None) or layer.EncDecAttention
                attention.o = Adapter(attention.o, reduction)
            dense = feed_forward.DenseReluDense
            dense.wo = Adapter(dense.wo, reduction)


def freeze_backbone(network: VIP5Network, *, embeddings: bool, norms: bool) -> None:
    """Let only adapters, mapping, word and category embeddings learn; and what is asked for."""
    for name, value in network.t5.named_parameters():
        adapter = ".down." in name or ".up." in name
        value.requires_grad = adapter or (norms and "layer_norm" in name)
    # The head is tied to the embeddings in T5, and an own matrix in T5 v1.1.
    network.t5.shared.weight.requires_grad = embeddings
    network.t5.lm_head.weight.requires_grad = embeddings
