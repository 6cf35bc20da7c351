"""Forward passes that share a prompt's keys and values, for any causal model, tuned or not.

A prompt is read once (`prefill`); afterwards any number of continuations of it are read in one row
(`extend`), told apart by a mask and by positions that restart behind the prompt. A tuned prefix
(P-tuning v2: Liu et al., ACL 2022) is what it is in PEFT: keys and values of V virtual tokens
before position V, where the first real token stands.

Letters: B prompts, P longest prompt, V virtual tokens, S = V + P keys of a prompt, T tokens of a
continuation.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from peft import PeftModel, PeftType
from torch import Tensor, nn
from transformers import Cache, DynamicCache, PreTrainedModel

from mmrec_bench.errors import ModelError
from mmrec_plugins.models.lm.prefix_cache import ReadOnlyCache
from mmrec_plugins.models.lm.visual import ATTRIBUTE, VisualTokens

# Tokens in one forward pass. On a CPU more are no faster. On a GPU passes must be large, and 4,096
# tokens keep the logits of a 65,024-word vocabulary at 0.5 GB in half precision.
_CPU_PASS_TOKENS = 1024
_GPU_PASS_TOKENS = 4096

# Attention implementations that take a mask of any form; the others are replaced while scoring.
_MASKED_ATTENTION = ("sdpa", "eager")


@dataclass(frozen=True, slots=True)
class Prefilled:
    """B prompts that were read.

    Attributes:
        cache: keys and values of every layer, (B, heads, S, width). Prompts end at S: padding is on
            their left, behind the virtual tokens.
        visible: (B, S) bool, False = padding.
        lengths: (B,) int64 position of the next token: virtual tokens + prompt tokens.
        logits: (B, vocabulary) of the token behind each prompt, in the model's dtype.
        states: what `VisualTokens.read` takes from each prompt; None for a model that sees no
            pictures.
    """

    cache: Cache
    visible: Tensor
    lengths: Tensor
    logits: Tensor
    states: Tensor | None = None


@contextmanager
def inference(model: nn.Module) -> Iterator[None]:
    """Switch dropout and gradients off, choose masked attention, and put all back as it was."""
    base = causal_model(model)
    attention = base.config._attn_implementation
    training = [module for module in model.modules() if module.training]
    model.eval()
    if attention not in _MASKED_ATTENTION:
        base.set_attn_implementation("sdpa")
    try:
        # Not inference_mode: buffers that a pass makes anew (rotary scaling) must serve training.
        with torch.no_grad():
            yield
    finally:
        if attention not in _MASKED_ATTENTION:
            base.set_attn_implementation(attention)
        for module in training:
            module.training = True


def causal_model(model: nn.Module) -> PreTrainedModel:
    """Return the transformers model inside PEFT's wrapper; LoRA layers stay inside it."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


def visual_tokens(model: nn.Module) -> VisualTokens | None:
    """Return the projector of a model, plain or under PEFT; None where it sees no pictures."""
    found = getattr(causal_model(model), ATTRIBUTE, None)
    return found if isinstance(found, VisualTokens) else None


def token_inputs(model: nn.Module, ids: Tensor) -> dict[str, Tensor]:
    """Return what a forward pass takes for (B, T) ids, negative ones being pictures."""
    visual = visual_tokens(model)
    if visual is None:
        return {"input_ids": ids}
    embeddings = causal_model(model).get_input_embeddings()(ids.clamp(min=0))  # (B, T, H)
    places = ids < 0
    if bool(places.any()):
        soft = visual.embeddings(ids[places]).to(embeddings.dtype)
        embeddings = embeddings.index_put((places,), soft)
    return {"inputs_embeds": embeddings}


@contextmanager
def last_hidden(model: nn.Module) -> Iterator[list[Tensor]]:
    """Collect the last hidden states of a model that sees pictures; [] of any other.

    Each forward pass within adds one (B, T, H) tensor.
    """
    found: list[Tensor] = []
    if visual_tokens(model) is None:
        yield found
        return
    decoder = causal_model(model).base_model
    handle = decoder.register_forward_hook(
        lambda _module, _inputs, output: found.append(output.last_hidden_state)
    )
    try:
        yield found
    finally:
        handle.remove()


def prefix_layers(model: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """Return each layer's tuned keys and values, (1, heads, V, width); [] without a prefix.

    Raises:
        ModelError: an adapter that is neither a prefix nor inside the layers.
    """
    if not isinstance(model, PeftModel) or model._adapters_disabled:
        return []
    config = model.active_peft_config
    if not config.is_prompt_learning:
        return []
    if config.peft_type != PeftType.PREFIX_TUNING:
        raise ModelError(
            f"the adapter is {config.peft_type.value}; scoring knows prefix tuning and adapters "
            "inside the layers, such as LoRA"
        )
    return [(layer.keys, layer.values) for layer in model.get_prompt(1).layers]


def prefill(model: nn.Module, prompts: Sequence[Sequence[int]], *, pad_id: int) -> Prefilled:
    """Read prompts, once each; logits are computed behind their last tokens only.

    Args:
        model: a transformers causal model, or PEFT's around one, in `inference`.
        prompts: B lists of token ids, none empty; negative ids are pictures (see `visual`).
        pad_id: any valid id; padding is masked.

    Raises:
        ModelError: an empty prompt, an adapter that cannot be used, or a model without keys and
            values for every token (recurrent, sliding windows).
    """
    if not all(len(prompt) for prompt in prompts):
        raise ModelError("a prompt has no tokens; at least one must precede an answer")
    base = causal_model(model)
    device = base.get_input_embeddings().weight.device
    longest = max(len(prompt) for prompt in prompts)
    rows = [[pad_id] * (longest - len(prompt)) + list(prompt) for prompt in prompts]
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
    columns = torch.arange(longest, device=device)
    real = columns >= longest - lengths[:, None]  # (B, P)
    cache, n_virtual = _prefix_cache(model, len(prompts), device)
    visible = torch.cat([real.new_ones(len(prompts), n_virtual), real], dim=1)  # (B, S)
    mask = None  # the attention kernel then skips the upper triangle
    if n_virtual or not bool(real.all()):
        distance = columns[:, None] + n_virtual - torch.arange(n_virtual + longest, device=device)
        # A padding row sees itself at least, so that no softmax is empty.
        mask = additive_mask((distance >= 0) & visible[:, None] | (distance == 0), base)
    ids = torch.tensor(rows, device=device)
    with last_hidden(model) as hidden:
        output = base(
            **token_inputs(model, ids),
            attention_mask=mask,
            position_ids=(real.cumsum(1) - 1).clamp(min=0) + n_virtual,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
    _check_cache(cache, n_virtual + longest)
    visual = visual_tokens(model)
    states = None if visual is None else visual.read(hidden[0], ids)
    return Prefilled(cache, visible, lengths + n_virtual, output.logits[:, -1], states)


def extend(
    model: nn.Module, read: Prefilled, tokens: Tensor, depths: Tensor, sees: Tensor
) -> Tensor:
    """Read continuations of prompts; the prompts' keys and values stay as they are.

    Args:
        model: as for `prefill`.
        read: B prompts.
        tokens: (B, T) int64, padded with any valid id.
        depths: (B, T) int64, 0 for a token right behind the prompt.
        sees: (B, T, T) bool, which of the T tokens each sees besides the prompt and itself.

    Returns:
        (B, T, vocabulary) logits of the token behind each, in the model's dtype.
    """
    base = causal_model(model)
    n_rows, n_tokens = tokens.shape
    itself = torch.eye(n_tokens, dtype=torch.bool, device=tokens.device)
    prompt = read.visible[:, None].expand(n_rows, n_tokens, -1)
    logits: Tensor = base(
        input_ids=tokens,
        attention_mask=additive_mask(torch.cat([prompt, sees | itself], dim=2), base),
        position_ids=read.lengths[:, None] + depths,
        past_key_values=ReadOnlyCache(read.cache),
        use_cache=True,
    ).logits
    return logits


def additive_mask(allowed: Tensor, base: PreTrainedModel) -> Tensor:
    """Turn a (B, T, S) bool mask into the (B, 1, T, S) one that is added to attention scores."""
    dtype = base.get_input_embeddings().weight.dtype
    mask = torch.zeros(allowed.shape, dtype=dtype, device=allowed.device)
    return mask.masked_fill_(~allowed, torch.finfo(dtype).min)[:, None]


def pass_tokens(model: nn.Module) -> int:
    """Return how many tokens one forward pass should hold on the model's device."""
    on_cpu = next(model.parameters()).device.type == "cpu"
    return _CPU_PASS_TOKENS if on_cpu else _GPU_PASS_TOKENS


def length_batches(
    lengths: Sequence[int], per_batch: int | None, max_tokens: int
) -> Iterator[slice]:
    """Cut prompts, sorted by length, into batches that waste little on padding.

    Args:
        lengths: increasing numbers of tokens.
        per_batch: prompts in a batch; None = as many as `max_tokens` allow.
        max_tokens: of a batch, padding included; a longer prompt stands alone.
    """
    start = 0
    for stop in range(1, len(lengths) + 1):
        last = stop == len(lengths)
        size = stop + 1 - start
        if last or (size > per_batch if per_batch else size * lengths[stop] > max_tokens):
            yield slice(start, stop)
            start = stop


def _prefix_cache(model: nn.Module, n_rows: int, device: torch.device) -> tuple[DynamicCache, int]:
    """Return a new cache that holds the prefix in each of B rows, and V."""
    cache = DynamicCache()
    n_virtual = 0
    for index, (keys, values) in enumerate(prefix_layers(model)):
        shape = (n_rows, *keys.shape[1:])
        cache.update(keys.to(device).expand(shape), values.to(device).expand(shape), index)
        n_virtual = keys.shape[2]
    return cache, n_virtual


def _check_cache(cache: Cache, expected: int) -> None:
    kept = [getattr(layer, "keys", None) for layer in cache.layers]
    if not kept or any(keys is None or keys.shape[-2] != expected for keys in kept):
        raise ModelError(
            f"this backbone does not keep keys and values of all {expected} tokens in every layer, "
            "which scoring with a shared prompt needs; take a model with full attention"
        )
