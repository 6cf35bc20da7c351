"""Gradient checkpointing under PEFT prefix tuning.

Out of the box the two do not go together: PEFT refuses when checkpointing came first, and when it
came after, transformers' layers drop the cache (and with it the prefix) or write to it a second
time when the backward pass recomputes them. Here, while a model trains, the prefix travels in a
cache that is only read: `update` returns prefix and new states joined and keeps nothing, so
recomputing a layer gives the same states. Loss and gradients are those without checkpointing.

Prefix tuning: Li and Liang, ACL 2021; P-tuning v2: Liu et al., ACL 2022.
"""

import torch
from peft import PeftModel, PeftType
from torch import Tensor
from transformers import Cache, DynamicCache
from transformers.modeling_layers import GradientCheckpointingLayer

from mmrec_bench.errors import ModelError


class ReadOnlyCache(DynamicCache):  # type: ignore[misc]  # transformers is untyped here
    """A prefix's keys and values, which `update` joins with new states but does not store."""

    def __init__(self, prefix: Cache) -> None:
        """Take over a filled cache's layers; tensors are (batch, heads, length, width)."""
        Cache.__init__(self, layers=list(prefix.layers))

    def update(
        self,
        key_states: Tensor,
        value_states: Tensor,
        layer_idx: int,
        *_args: object,
        **_kwargs: object,
    ) -> tuple[Tensor, Tensor]:
        """Return prefix and new states joined along the length; the cache stays as it was."""
        layer = self.layers[layer_idx]
        keys = torch.cat([layer.keys, key_states], dim=-2)
        values = torch.cat([layer.values, value_states], dim=-2)
        return keys, values


def enable_prefix_checkpointing(model: PeftModel) -> None:
    """Turn gradient checkpointing on for a prefix-tuned model; call once, after `get_peft_model`.

    It works while `model.training`; in `eval` mode the model behaves as without, generation
    included. In training pass `use_cache=False`, and with left padding
    `position_ids=mask_positions(mask)`.

    Args:
        model: of PEFT type PREFIX_TUNING, on a backbone whose decoder layers are transformers'
            `GradientCheckpointingLayer` (GLM, Llama, Qwen, ...).

    Raises:
        ModelError: another kind of adapter, or a backbone without such layers.
    """
    kind = model.active_peft_config.peft_type
    if kind != PeftType.PREFIX_TUNING:
        raise ModelError(
            f"the adapter is {kind}, but only PREFIX_TUNING needs a cache; for others use the "
            "backbone's own gradient checkpointing"
        )
    base = model.get_base_model()
    layers = [part for part in base.modules() if isinstance(part, GradientCheckpointingLayer)]
    if not layers or not base.supports_gradient_checkpointing:
        raise ModelError(f"{type(base).__name__} has no layers that support gradient checkpointing")
    for layer in layers:
        layer._can_checkpoint_with_cache = True
    # The older name warns where the newer one exists.
    options = {"use_reentrant": False}
    if hasattr(base, "activation_checkpointing_enable"):
        base.activation_checkpointing_enable(activation_checkpointing_kwargs=options)
    else:
        base.gradient_checkpointing_enable(gradient_checkpointing_kwargs=options)
    if "get_prompt" in vars(model):
        return
    make_cache = model.get_prompt

    def get_prompt(*args: object, **kwargs: object) -> Cache:
        cache: Cache = make_cache(*args, **kwargs)
        return ReadOnlyCache(cache) if model.training else cache

    model.get_prompt = get_prompt


def disable_prefix_checkpointing(model: PeftModel) -> None:
    """Undo `enable_prefix_checkpointing`; does nothing to a model that it was not called on."""
    if "get_prompt" not in vars(model):
        return
    del model.get_prompt
    base = model.get_base_model()
    for layer in base.modules():
        if isinstance(layer, GradientCheckpointingLayer):
            layer._can_checkpoint_with_cache = False
    if hasattr(base, "activation_checkpointing_disable"):
        base.activation_checkpointing_disable()
    else:
        base.gradient_checkpointing_disable()


def mask_positions(attention_mask: Tensor) -> Tensor:
    """Return position ids that count real tokens only, as left padding needs.

    Args:
        attention_mask: (B, T), 1 = real token, 0 = padding; without the prefix, whose length PEFT
            adds to the positions itself.

    Returns:
        (B, T) int64; padding before the first token gets 0.
    """
    return (attention_mask.long().cumsum(dim=-1) - 1).clamp(min=0)
