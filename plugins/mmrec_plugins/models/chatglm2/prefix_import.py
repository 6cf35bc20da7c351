"""Import prefix encoders that the original P-tuning v2 code trained, into PEFT's prefix tuning.

The original (https://github.com/THUDM/ChatGLM2-6B/tree/main/ptuning) stores, for each of V virtual
tokens, every layer's keys and values, flattened as [layers, 2, groups, width]; PEFT's prompt
embedding has the same layout. But the original puts the first real token at position 0 and PEFT
puts it at V. Rotary attention sees only distances, so turning each stored key by V positions makes
the two equal; copied as it is, the prefix would give other logits. Values carry no position.
"""

import warnings
from pathlib import Path

import torch
from peft import PeftModel, PrefixTuningConfig, TaskType, get_peft_model
from torch import Tensor
from transformers import GlmConfig, GlmForCausalLM

from mmrec_bench.errors import ModelError
from mmrec_plugins.models.chatglm2.shards import read_tensors, weight_files

_NAMESPACES = ("transformer.prefix_encoder.", "prefix_encoder.")
_EMBEDDING = "embedding.weight"
_PROJECTION = ("trans.0.weight", "trans.0.bias", "trans.2.weight", "trans.2.bias")


def read_prefix(path: Path) -> Tensor:
    """Read an original prefix, flattened through its projection where it has one.

    Args:
        path: `pytorch_model.bin` or a safetensors file, or a folder that holds such (as the
            original's `checkpoint-3000/`); tensors of other modules in it are passed over.

    Returns:
        (V, layers * 2 * groups * width) float32, as the original attends to it.

    Raises:
        ModelError: no prefix encoder in it, a torn or unsafe file, or shapes that do not fit.
    """
    path = Path(path)
    tensors = _prefix_tensors(path)
    embedding = tensors.get(_EMBEDDING)
    if embedding is None:
        raise ModelError(
            f"{path} holds no {_NAMESPACES[0]}{_EMBEDDING}: it is not a P-tuning v2 checkpoint"
        )
    if embedding.dim() != 2 or not embedding.is_floating_point():
        raise ModelError(
            f"{path}: {_EMBEDDING} is {embedding.dtype} {tuple(embedding.shape)}, expected "
            "floating point of two dimensions"
        )
    given = [name for name in _PROJECTION if name in tensors]
    if not given:
        return embedding
    if len(given) != len(_PROJECTION):
        raise ModelError(f"{path}: of the projection only {', '.join(given)} is there")
    first, first_bias, second, second_bias = (tensors[name] for name in _PROJECTION)
    try:
        inner = torch.tanh(torch.nn.functional.linear(embedding, first, first_bias))
        return torch.nn.functional.linear(inner, second, second_bias)
    except RuntimeError as error:
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        raise ModelError(f"{path}: the projection's shapes do not fit: {shapes}") from error


def _prefix_tensors(path: Path) -> dict[str, Tensor]:
    files = weight_files(path) if path.is_dir() else [path]
    if not files[0].is_file():
        raise ModelError(f"{path} is missing")
    known = (_EMBEDDING, *_PROJECTION)
    tensors: dict[str, Tensor] = {}
    for file in files:
        for full_name, tensor in read_tensors(file):
            name = full_name
            for namespace in _NAMESPACES:
                name = name.removeprefix(namespace)
            if name in known:
                tensors[name] = tensor.detach().to(torch.float32, copy=True)
    return tensors


def to_peft(prefix: Tensor, model: GlmForCausalLM) -> Tensor:
    """Turn an original prefix into PEFT's prompt embedding for a backbone.

    Args:
        prefix: (V, layers * 2 * groups * width) as from `read_prefix`.
        model: the loaded backbone; its rotary frequencies (scaled or not) are used.

    Returns:
        The same shape, float32, keys turned by +V positions.

    Raises:
        ModelError: the prefix belongs to a backbone of another shape.
    """
    config: GlmConfig = model.config
    groups, width = config.num_key_value_heads, config.head_dim
    expected = config.num_hidden_layers * 2 * groups * width
    if prefix.dim() != 2 or prefix.shape[1] != expected:
        raise ModelError(
            f"the prefix has shape {tuple(prefix.shape)}, but this backbone "
            f"({config.num_hidden_layers} layers, {groups} key-value heads of {width}) needs "
            f"(V, {expected})"
        )
    length = prefix.shape[0]
    # (V, layers, keys | values, groups, width)
    states = prefix.float().reshape(length, config.num_hidden_layers, 2, groups, width).clone()
    frequencies = model.model.rotary_emb.inv_freq.detach().cpu().double()  # (width / 4,)
    cos, sin = torch.cos(length * frequencies), torch.sin(length * frequencies)
    turned = 2 * frequencies.numel()
    # (V, layers, groups, width / 4, 2): interleaved pairs on the first half of a head.
    keys = states[:, :, 0, :, :turned].double().reshape(*states.shape[:2], groups, -1, 2)
    even, odd = keys[..., 0], keys[..., 1]
    rotated = torch.stack((even * cos - odd * sin, odd * cos + even * sin), dim=-1)
    states[:, :, 0, :, :turned] = rotated.flatten(-2).float()
    return states.reshape(length, expected)


def import_prefix(model: GlmForCausalLM, path: Path, *, adapter_name: str = "default") -> PeftModel:
    """Put an original P-tuning v2 checkpoint onto its backbone.

    Args:
        model: the loaded backbone; PEFT wraps it and freezes its weights.
        path: see `read_prefix`.
        adapter_name: PEFT's name for the prefix.

    Returns:
        A prefix-tuned `PeftModel`, trainable further and saved as any other.

    Raises:
        ModelError: see `read_prefix` and `to_peft`.
    """
    prompt = to_peft(read_prefix(path), model)
    config: GlmConfig = model.config
    settings = PrefixTuningConfig(
        task_type=TaskType.CAUSAL_LM,
        num_virtual_tokens=prompt.shape[0],
        num_layers=config.num_hidden_layers,
        token_dim=config.num_key_value_heads * config.head_dim,
        num_attention_heads=config.num_key_value_heads,
        encoder_hidden_size=config.hidden_size,
    )
    with warnings.catch_warnings():
        # PEFT asks for a property of transformers under its old name.
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*")
        wrapped = get_peft_model(model, settings, adapter_name=adapter_name)
    wrapped.prompt_encoder[adapter_name].load_prompt_embeddings(prompt)
    return wrapped
