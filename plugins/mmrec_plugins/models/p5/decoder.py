"""A T5 decoder that reads the nodes of a token tree, many of one source at a time.

The encoder's output is projected to keys and values once a source, and all nodes of the source
attend to that one copy. The keys and values of earlier nodes stay where they were written: a node
sees its own ancestors among them through a mask, so nothing is reordered when beams are.

The submodules of the decoder do the arithmetic (Raffel et al., JMLR 2020, and its v1.1 with a gated
feed-forward part), so what replaces one of them, such as LoRA on a projection or an adapter within
`o` or the feed-forward layer, is read as well.

Letters: B sources, S source tokens, T nodes of a source at one level, C nodes of it read so far,
H heads, W width of a head, D width of the model, V words of the vocabulary.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention
from transformers.models.t5 import modeling_t5 as t5

from mmrec_bench.errors import ModelError
from mmrec_plugins.models.p5.packing import head_blocks

_LOG2_E = math.log2(math.e)
_BYPASSED = (t5.T5Stack, t5.T5Block, t5.T5LayerSelfAttention, t5.T5LayerCrossAttention)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Switch dropout and gradients off, and put the modules' modes back as they were."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True


def plain_t5(model: nn.Module) -> t5.T5ForConditionalGeneration:
    """Return the T5 inside PEFT's wrapper, or the model itself.

    Raises:
        ModelError: it is no T5 with a language-modelling head, or something was hung on a part of
            its decoder that is not called here and would be left out without a word.
    """
    unwrap = getattr(model, "get_base_model", None)
    base = model if unwrap is None else unwrap()
    if getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False):
        raise ModelError(
            "constrained decoding reads no virtual tokens of PEFT; give them as inputs_embeds of "
            "the T5 itself"
        )
    if not isinstance(base, t5.T5ForConditionalGeneration):
        raise ModelError(
            f"constrained decoding reads a T5ForConditionalGeneration, not a {type(base).__name__}"
        )
    head = base.lm_head
    if type(head) is not nn.Linear:
        raise ModelError(
            f"the head of the T5 is a {type(head).__name__}; merge it into a plain linear layer "
            "before decoding"
        )
    if head._forward_hooks or head._forward_pre_hooks:
        raise ModelError(
            "the head of the T5 has a hook, which constrained decoding would leave out"
        )
    if head.weight.dtype == torch.float16:
        raise ModelError("T5 overflows in float16; load it in bfloat16 or float32")
    for name, module in base.decoder.named_modules():
        if not isinstance(module, (*_BYPASSED, t5.T5Attention)):
            continue
        known = next(kind for kind in (*_BYPASSED, t5.T5Attention) if isinstance(module, kind))
        if type(module).forward is not known.forward or module._forward_hooks:
            raise ModelError(
                f"decoder.{name} has a forward pass of its own ({type(module).__name__}), which "
                "constrained decoding would leave out; put adapters into its `o`, its projections "
                "or the feed-forward layer instead"
            )
    return base


@dataclass(frozen=True, slots=True)
class Sources:
    """B sources that were read, and the model that read them. Made by `encode_sources`.

    Attributes:
        model: the T5; it must not be trained between reading and decoding.
        keys: of each decoder layer, (B, H, S, W) keys of the cross-attention.
        values: of each decoder layer, (B, H, S, W) values of it.
        mask: (B, 1, 1, S) to add to the attention's logits: 0, or the dtype's lowest at padding.
    """

    model: t5.T5ForConditionalGeneration
    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    mask: Tensor

    def __len__(self) -> int:
        return len(self.mask)

    def __getitem__(self, rows: slice) -> "Sources":
        """Return some of the sources, without a copy."""
        return Sources(
            self.model,
            tuple(keys[rows] for keys in self.keys),
            tuple(values[rows] for values in self.values),
            self.mask[rows],
        )


@dataclass(slots=True)
class TreeDecoder:
    """The decoder over a growing tree of nodes of each source; one level a call of `step`.

    Attributes:
        sources: the B sources.
        capacity: C at most.
    """

    sources: Sources
    capacity: int
    _widths: list[int] = field(default_factory=list)
    _visible: Tensor | None = None  # (B, T, C) bool of the level read last
    _cache: Tensor | None = None  # (layers, 2, B, capacity, H * W)

    def step(self, tokens: Tensor, parents: Tensor | None = None) -> Tensor:
        """Read the next level's nodes.

        Args:
            tokens: (B, T) int64 token that leads into each node.
            parents: (B, T) int64 place of each node's parent within the level read before; None
                at the root.

        Returns:
            (B, T, D) what the head multiplies.
        """
        model = self.sources.model
        stack = model.decoder
        mask = self._mask(tokens.shape[1], parents)
        states: Tensor = stack.embed_tokens(tokens)
        for number, block in enumerate(stack.block):
            states = self._attend_tree(number, block.layer[0], states, mask)
            states = self._attend_source(number, block.layer[1], states)
            states = block.layer[2](states)
        states = stack.final_layer_norm(states)
        config = model.config
        # Older transformers tell T5 from v1.1, which does not scale, by its tied head.
        if getattr(config, "scale_decoder_outputs", config.tie_word_embeddings):
            states = states * model.model_dim**-0.5
        return states

    def _mask(self, width: int, parents: Tensor | None) -> Tensor:
        """Return (B, H, T, C): position bias where a node sees another, the lowest elsewhere."""
        attention = self.sources.model.decoder.block[0].layer[0].SelfAttention
        device = self.sources.mask.device
        own = torch.eye(width, dtype=torch.bool, device=device).expand(len(self.sources), -1, -1)
        if self._visible is None or parents is None:
            self._visible = own
        else:
            before = self._visible.shape[2]
            seen = self._visible.gather(1, parents[:, :, None].expand(-1, -1, before))
            self._visible = torch.cat([seen, own], dim=2)
        self._widths.append(width)
        levels = len(self._widths)
        distance = torch.arange(1 - levels, 1, device=device)  # of each level to this one
        bucket = attention._relative_position_bucket(
            distance,
            bidirectional=False,
            num_buckets=attention.relative_attention_num_buckets,
            max_distance=attention.relative_attention_max_distance,
        )
        bias: Tensor = attention.relative_attention_bias(bucket).T[None, :, None]  # (1, H, 1, L)
        repeats = torch.tensor(self._widths, device=device)
        bias = bias.repeat_interleave(repeats, dim=3, output_size=sum(self._widths))
        lowest = torch.finfo(bias.dtype).min
        return torch.where(self._visible[:, None], bias, lowest)

    def _attend_tree(self, number: int, layer: t5.T5Block, states: Tensor, mask: Tensor) -> Tensor:
        """Add the self-attention of a level over its ancestors and itself."""
        attention = layer.SelfAttention
        normed = layer.layer_norm(states)
        batch, width, _ = states.shape
        query, key, value = attention.q(normed), attention.k(normed), attention.v(normed)
        if self._cache is None:
            layers = len(self.sources.model.decoder.block)
            self._cache = key.new_empty(layers, 2, batch, self.capacity, key.shape[2])
        stop = mask.shape[3]
        cache = self._cache[number]
        cache[0, :, stop - width : stop] = key
        cache[1, :, stop - width : stop] = value
        keys, values = (cache[i, :, :stop].unflatten(2, (attention.n_heads, -1)) for i in (0, 1))
        query = query.unflatten(2, (attention.n_heads, -1))
        found = F.scaled_dot_product_attention(
            query.transpose(1, 2),
            keys.transpose(1, 2),
            values.transpose(1, 2),
            attn_mask=mask,
            scale=1.0,
        )
        added: Tensor = attention.o(found.transpose(1, 2).flatten(2))
        return states + added

    def _attend_source(self, number: int, layer: t5.T5Block, states: Tensor) -> Tensor:
        """Add the attention of a level's nodes over the one copy of their source."""
        attention = layer.EncDecAttention
        query = attention.q(layer.layer_norm(states)).unflatten(2, (attention.n_heads, -1))
        found = F.scaled_dot_product_attention(
            query.transpose(1, 2),
            self.sources.keys[number],
            self.sources.values[number],
            attn_mask=self.sources.mask,
            scale=1.0,
        )
        added: Tensor = attention.o(found.transpose(1, 2).flatten(2))
        return states + added


def token_logits(model: t5.T5ForConditionalGeneration, states: Tensor, tokens: Tensor) -> Tensor:
    """Return float32 logits (..., n) of n tokens for (..., D) states: rows of the head."""
    head = model.lm_head
    bias = None if head.bias is None else head.bias[tokens]
    return F.linear(states, head.weight[tokens], bias).float()


def log_partition(model: t5.T5ForConditionalGeneration, states: Tensor) -> Tensor:
    """Return float32 log-sum-exp (...) of the logits of the whole vocabulary for (..., D) states.

    The head is read in blocks of words, and no (..., V) logits are held. Powers of 2 and not of e:
    torch computes them three times as fast on a CPU, and does not slow down where they underflow.
    """
    flat = states.flatten(0, -2)
    parts = []
    for block in head_blocks(model.lm_head):
        logits = block(flat).float()
        peak = logits.amax(-1, keepdim=True)
        powers = torch.add(peak * -_LOG2_E, logits, alpha=_LOG2_E, out=logits).exp2_()
        parts.append(peak[:, 0] + powers.sum(-1).log())
    return torch.stack(parts).logsumexp(0).view(states.shape[:-1])
