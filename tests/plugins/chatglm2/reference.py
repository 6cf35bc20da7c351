"""ChatGLM2 / ChatGLM3 in plain torch, from the published architecture: the tests' second opinion.

It shares no code with the project or with transformers. Parameters have the original's names and
layout, so `state_dict()` is an original checkpoint. Letters: B batch, T new tokens, S tokens
attended to, V virtual tokens, n query heads, g key-value groups, d width of a head.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

# One layer's keys and values, each (B, S, g, d).
LayerCache = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Shape:
    vocab: int = 96
    hidden: int = 64
    inner: int = 112
    layers: int = 3
    heads: int = 4
    groups: int = 2
    width: int = 24
    epsilon: float = 1e-5
    # How rope_ratio works: "positions" are divided by it (2-32k), the "base" is multiplied (3-32k).
    rope: Literal["positions", "base"] = "positions"
    rope_ratio: float = 1.0

    def original_config(self, name: str) -> dict[str, object]:
        return {
            "_name_or_path": name,
            "model_type": "chatglm",
            "architectures": ["ChatGLMModel"],
            "add_bias_linear": False,
            "add_qkv_bias": True,
            "apply_query_key_layer_scaling": True,
            "apply_residual_connection_post_layernorm": False,
            "attention_dropout": 0.0,
            "attention_softmax_in_fp32": True,
            "bias_dropout_fusion": True,
            "ffn_hidden_size": self.inner,
            "fp32_residual_connection": False,
            "hidden_dropout": 0.0,
            "hidden_size": self.hidden,
            "kv_channels": self.width,
            "layernorm_epsilon": self.epsilon,
            "multi_query_attention": True,
            "multi_query_group_num": self.groups,
            "num_attention_heads": self.heads,
            "num_layers": self.layers,
            "original_rope": True,
            "padded_vocab_size": self.vocab,
            "post_layer_norm": True,
            "rmsnorm": True,
            "seq_length": 512,
            "use_cache": True,
            "torch_dtype": "float16",
            "tie_word_embeddings": False,
            "eos_token_id": 2,
            "pad_token_id": 0,
        } | ({"rope_ratio": self.rope_ratio} if self.rope_ratio != 1 else {})


# The published sizes of ChatGLM2-6B.
FULL_SIZE = Shape(vocab=65024, hidden=4096, inner=13696, layers=28, heads=32, groups=2, width=128)


class RMSNorm(nn.Module):
    def __init__(self, size: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        scale = (x.float().square().mean(-1, keepdim=True) + self.epsilon).rsqrt()
        return self.weight * (x.float() * scale).to(x.dtype)


class RotaryTable(nn.Module):
    inv_freq: Tensor

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        turned = shape.width // 2
        # Stored by the original, though its angles are computed anew.
        self.register_buffer("inv_freq", 10000.0 ** -(torch.arange(0, turned, 2) / turned))

    def forward(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        shape = self.shape
        turned = shape.width // 2
        base, where = 10000.0, positions.float()
        if shape.rope == "base":
            base *= shape.rope_ratio
        else:
            where = where / shape.rope_ratio
        angles = where[..., None] / base ** (torch.arange(0, turned, 2) / turned)
        return angles.cos(), angles.sin()  # each (B, T, d / 4)


def turn(x: Tensor, table: tuple[Tensor, Tensor]) -> Tensor:
    """Rotate neighbouring dims (0,1), (2,3), ... of the first half of each head; x (B, T, n, d)."""
    cos, sin = (part[:, :, None, :] for part in table)
    half = x.shape[-1] // 2
    pairs = x[..., :half].reshape(*x.shape[:-1], half // 2, 2)
    first = pairs[..., 0] * cos - pairs[..., 1] * sin
    second = pairs[..., 1] * cos + pairs[..., 0] * sin
    return torch.cat([torch.stack([first, second], -1).flatten(-2), x[..., half:]], -1)


class SelfAttention(nn.Module):
    def __init__(self, shape: Shape, number: int) -> None:
        super().__init__()
        self.shape, self.number = shape, number
        rows = (shape.heads + 2 * shape.groups) * shape.width
        self.query_key_value = nn.Linear(shape.hidden, rows, bias=True)
        self.dense = nn.Linear(shape.heads * shape.width, shape.hidden, bias=False)

    def forward(
        self, x: Tensor, table: tuple[Tensor, Tensor], visible: Tensor, past: LayerCache | None
    ) -> tuple[Tensor, LayerCache]:
        n, g, d = self.shape.heads, self.shape.groups, self.shape.width
        batch, length = x.shape[:2]
        mixed = self.query_key_value(x)
        query, key, value = mixed.split([n * d, g * d, g * d], dim=-1)
        query = turn(query.view(batch, length, n, d), table)
        key = turn(key.view(batch, length, g, d), table)
        value = value.view(batch, length, g, d)
        if past is not None:
            key = torch.cat([past[0], key], dim=1)
            value = torch.cat([past[1], value], dim=1)
        kept = (key, value)
        # Each group serves n / g heads in a row.
        key = key[:, :, :, None].expand(-1, -1, -1, n // g, -1).flatten(2, 3)
        value = value[:, :, :, None].expand(-1, -1, -1, n // g, -1).flatten(2, 3)
        scores = torch.einsum("btnd,bsnd->bnts", query / (math.sqrt(d) * self.number), key)
        scores = scores.float() * self.number
        scores = scores.masked_fill(~visible[:, None], torch.finfo(torch.float32).min)
        mixed_values = torch.einsum("bnts,bsnd->btnd", scores.softmax(-1).to(x.dtype), value)
        return self.dense(mixed_values.flatten(2)), kept


class MLP(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.dense_h_to_4h = nn.Linear(shape.hidden, 2 * shape.inner, bias=False)
        self.dense_4h_to_h = nn.Linear(shape.inner, shape.hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.dense_h_to_4h(x).chunk(2, dim=-1)
        result: Tensor = self.dense_4h_to_h(gate * torch.sigmoid(gate) * up)
        return result


class Block(nn.Module):
    def __init__(self, shape: Shape, number: int) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(shape.hidden, shape.epsilon)
        self.self_attention = SelfAttention(shape, number)
        self.post_attention_layernorm = RMSNorm(shape.hidden, shape.epsilon)
        self.mlp = MLP(shape)

    def forward(
        self, x: Tensor, table: tuple[Tensor, Tensor], visible: Tensor, past: LayerCache | None
    ) -> tuple[Tensor, LayerCache]:
        attended, kept = self.self_attention(self.input_layernorm(x), table, visible, past)
        x = x + attended
        return x + self.mlp(self.post_attention_layernorm(x)), kept


class Encoder(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Block(shape, number + 1) for number in range(shape.layers))
        self.final_layernorm = RMSNorm(shape.hidden, shape.epsilon)


class Embedding(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(shape.vocab, shape.hidden)


class Transformer(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.embedding = Embedding(shape)
        self.rotary_pos_emb = RotaryTable(shape)
        self.encoder = Encoder(shape)
        self.output_layer = nn.Linear(shape.hidden, shape.vocab, bias=False)


class Reference(nn.Module):
    """The whole model; `state_dict()` has the original's names."""

    def __init__(self, shape: Shape, seed: int | None = 0) -> None:
        """Make random weights of a size that gives logits of order 1 (seed None: leave them)."""
        super().__init__()
        self.shape = shape
        self.transformer = Transformer(shape)
        if seed is None:
            return
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, weight in self.named_parameters():
                noise = torch.randn(weight.shape, generator=generator)
                if name.endswith("layernorm.weight"):
                    weight.copy_(1 + 0.2 * noise)
                elif "embeddings" in name or weight.dim() == 1:
                    weight.copy_(0.5 * noise)
                else:
                    weight.copy_(noise / math.sqrt(weight.shape[1]))

    def forward(
        self,
        ids: Tensor,
        mask: Tensor | None = None,
        past: list[LayerCache] | None = None,
        prefix: Tensor | None = None,
    ) -> tuple[Tensor, list[LayerCache]]:
        """Return logits (B, T, vocab) and the cache.

        Args:
            ids: (B, T).
            mask: (B, real and padded tokens so far) bool, True = real; positions count real ones.
            past: cache of the tokens so far.
            prefix: (V, layers, 2, g, d); joined before the first tokens, which stay at position 0.
        """
        batch, length = ids.shape
        before = past[0][0].shape[1] if past else 0
        virtual = 0 if mask is None else before + length - mask.shape[1]
        if prefix is not None:
            assert past is None
            past = [
                (
                    prefix[None, :, layer, 0].expand(batch, -1, -1, -1),
                    prefix[None, :, layer, 1].expand(batch, -1, -1, -1),
                )
                for layer in range(self.shape.layers)
            ]
            virtual = before = prefix.shape[0]
        if mask is None:
            mask = torch.ones(batch, before - virtual + length, dtype=torch.bool)
        positions = (mask.long().cumsum(1) - 1).clamp(min=0)[:, -length:]
        keys = torch.cat([torch.ones(batch, virtual, dtype=torch.bool), mask], dim=1)
        order = torch.arange(before + length)
        causal = order[None, :] <= order[before:, None]  # (T, S)
        visible = causal[None] & keys[:, None, :]
        table = self.transformer.rotary_pos_emb(positions)
        x = self.transformer.embedding.word_embeddings(ids)
        kept: list[LayerCache] = []
        for layer, block in enumerate(self.transformer.encoder.layers):
            x, cache = block(x, table, visible, past[layer] if past else None)
            kept.append(cache)
        x = self.transformer.encoder.final_layernorm(x)
        return self.transformer.output_layer(x), kept

    def greedy(self, ids: Tensor, steps: int, prefix: Tensor | None = None) -> Tensor:
        """Return `steps` greedy tokens (B, steps), computed each from the whole text, uncached."""
        start = ids.shape[1]
        for _ in range(steps):
            logits, _ = self(ids, prefix=prefix)
            ids = torch.cat([ids, logits[:, -1:].argmax(-1)], dim=1)
        return ids[:, start:]


def published_shapes(shape: Shape) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of all tensors that the original of this shape stores."""
    with torch.device("meta"):
        model = Reference(shape, seed=None)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
