"""Load and save the original ChatGLM2 / ChatGLM3 layout, exactly and without remote code.

The original's tensors map one to one onto transformers' `GlmForCausalLM`, except that its fused
`query_key_value` is split by rows into queries, keys and values. Loading never holds more than the
model and a small window of the file: the model is made on the meta device and filled tensor by
tensor.

In fp32 the logits equal the original's. Run in half precision, the original computes its rotary
angles in half precision too; transformers computes them in fp32, so there the original differs from
its own fp32 result while this model does not.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import GenerationConfig, GlmConfig, GlmForCausalLM
from transformers.models.glm.modeling_glm import GlmRotaryEmbedding

from mmrec_bench.errors import ModelError
from mmrec_plugins.models.chatglm2.hub import resolve
from mmrec_plugins.models.chatglm2.original import (
    CONFIG_FILE,
    OriginalConfig,
    Version,
    detect_version,
    glm_config,
    is_original,
    read_config,
)
from mmrec_plugins.models.chatglm2.shards import Shape, read_tensors, weight_files

__all__ = [
    "OriginalConfig",
    "Version",
    "detect_version",
    "glm_config",
    "is_original",
    "load_original",
    "original_shapes",
    "read_config",
    "resolve",
    "save_original",
]

_LAYER = "transformer.encoder.layers"
# Not weights of the backbone: a fixed buffer, and the adapter that `prefix_import` reads.
_DROPPED_NAMES = ("transformer.rotary_pos_emb.inv_freq",)
_DROPPED_PREFIXES = ("transformer.prefix_encoder.",)


@dataclass(frozen=True, slots=True)
class Source:
    """Where one parameter comes from: rows `[start, stop)` of an original tensor."""

    name: str
    start: int
    stop: int


def original_shapes(original: OriginalConfig) -> dict[str, Shape]:
    """Return every weight of the original model, by its original name, with its shape."""
    hidden, inner, vocab = (
        original.hidden_size,
        original.ffn_hidden_size,
        original.padded_vocab_size,
    )
    fused = original.query_size + 2 * original.kv_size
    shapes: dict[str, Shape] = {"transformer.embedding.word_embeddings.weight": (vocab, hidden)}
    for index in range(original.num_layers):
        layer = f"{_LAYER}.{index}"
        shapes[f"{layer}.input_layernorm.weight"] = (hidden,)
        shapes[f"{layer}.self_attention.query_key_value.weight"] = (fused, hidden)
        if original.add_qkv_bias:
            shapes[f"{layer}.self_attention.query_key_value.bias"] = (fused,)
        shapes[f"{layer}.self_attention.dense.weight"] = (hidden, original.query_size)
        shapes[f"{layer}.post_attention_layernorm.weight"] = (hidden,)
        shapes[f"{layer}.mlp.dense_h_to_4h.weight"] = (2 * inner, hidden)
        shapes[f"{layer}.mlp.dense_4h_to_h.weight"] = (hidden, inner)
    shapes["transformer.encoder.final_layernorm.weight"] = (hidden,)
    shapes["transformer.output_layer.weight"] = (vocab, hidden)
    return shapes


def parameter_sources(original: OriginalConfig) -> dict[str, Source]:
    """Return, for every parameter of `GlmForCausalLM`, the original rows that fill it."""
    shapes = original_shapes(original)
    query, kv = original.query_size, original.kv_size
    parts = {"q": (0, query), "k": (query, query + kv), "v": (query + kv, query + 2 * kv)}
    simple = {
        "self_attention.dense": "self_attn.o_proj",
        "input_layernorm": "input_layernorm",
        "post_attention_layernorm": "post_attention_layernorm",
        "mlp.dense_h_to_4h": "mlp.gate_up_proj",
        "mlp.dense_4h_to_h": "mlp.down_proj",
    }
    renamed = {
        "transformer.embedding.word_embeddings.weight": "model.embed_tokens.weight",
        "transformer.encoder.final_layernorm.weight": "model.norm.weight",
        "transformer.output_layer.weight": "lm_head.weight",
    }
    sources: dict[str, Source] = {}
    for index in range(original.num_layers):
        old, new = f"{_LAYER}.{index}", f"model.layers.{index}"
        for ours, theirs in simple.items():
            renamed[f"{old}.{ours}.weight"] = f"{new}.{theirs}.weight"
        for kind in ("weight", "bias") if original.add_qkv_bias else ("weight",):
            fused = f"{old}.self_attention.query_key_value.{kind}"
            for part, (start, stop) in parts.items():
                sources[f"{new}.self_attn.{part}_proj.{kind}"] = Source(fused, start, stop)
    for old, new in renamed.items():
        sources[new] = Source(old, 0, shapes[old][0])
    return sources


def empty_model(config: GlmConfig, dtype: torch.dtype, device: torch.device) -> GlmForCausalLM:
    """Return a model with parameters on the meta device and buffers computed on `device`."""
    with torch.device("meta"):
        model = GlmForCausalLM(config)
    model = model.to(dtype)
    # inv_freq is not in any checkpoint, and a cast to half precision would ruin it: compute it
    # anew.
    with torch.device(device):
        model.model.rotary_emb = GlmRotaryEmbedding(config=config)
    stale = [name for name, buffer in model.named_buffers() if buffer.is_meta]
    if stale:
        raise ModelError(f"this transformers version has buffers that nothing fills: {stale}")
    return model


def fill(
    model: nn.Module,
    original: OriginalConfig,
    tensors: Iterable[tuple[str, Tensor]],
    *,
    device: torch.device,
    source: str,
) -> None:
    """Fill a model in place from original tensors: every one used, every parameter filled.

    Args:
        model: a `GlmForCausalLM`; its parameters (on any device) give shapes and dtypes.
        original: settings that the tensors must fit.
        tensors: `(original name, tensor)`; each is copied before the next is asked for.
        device: where the parameters go.
        source: named in messages.

    Raises:
        ModelError: an unknown name, a repeated one, a wrong shape or dtype, a parameter left empty.
    """
    shapes = original_shapes(original)
    targets: dict[str, list[tuple[str, Source]]] = {}
    for parameter, part in parameter_sources(original).items():
        targets.setdefault(part.name, []).append((parameter, part))
    unknown: list[str] = []
    seen: set[str] = set()
    empty = {name for name, _ in model.named_parameters()}
    for name, tensor in tensors:
        if name in _DROPPED_NAMES or name.startswith(_DROPPED_PREFIXES):
            continue
        if name not in targets:
            unknown.append(name)
            continue
        if name in seen:
            raise ModelError(f"{source}: tensor {name} is stored twice")
        seen.add(name)
        _check_tensor(name, tensor, shapes[name], source)
        for parameter, part in targets[name]:
            _assign(model, parameter, tensor[part.start : part.stop], device)
            empty.discard(parameter)
    if unknown:
        raise ModelError(f"{source}: {len(unknown)} unknown tensors: {_some(unknown)}")
    absent = [name for name in shapes if name not in seen]
    if absent:
        raise ModelError(f"{source}: {len(absent)} tensors are missing: {_some(absent)}")
    if empty:
        raise ModelError(f"{source}: nothing fills the parameters {_some(sorted(empty))}")


def _assign(model: nn.Module, parameter: str, rows: Tensor, device: torch.device) -> None:
    owner, _, leaf = parameter.rpartition(".")
    module = model.get_submodule(owner)
    old = module.get_parameter(leaf)
    if old.shape != rows.shape:
        raise ModelError(
            f"the model's {parameter} has shape {tuple(old.shape)}, the config says "
            f"{tuple(rows.shape)}"
        )
    # Always a copy: the source may be a view of a file that is unmapped next.
    new = torch.empty(rows.shape, dtype=old.dtype, device=device)
    new.copy_(rows)
    module.register_parameter(leaf, nn.Parameter(new))


def load_original(
    folder: Path,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    attention: str = "sdpa",
    version: Version | None = None,
) -> GlmForCausalLM:
    """Load an original checkpoint into transformers' native GLM; peak memory stays near its size.

    Args:
        folder: `config.json` with `.bin` shards or safetensors (single or with an index).
        dtype: of the parameters; those stored in another are cast one by one.
        device: where the parameters go.
        attention: transformers' attention implementation ("sdpa", "eager", ...).
        version: 2 or 3 where the checkpoint does not say (see `detect_version`).

    Returns:
        The model in `eval` mode.

    Raises:
        ModelError: anything missing, unknown, misshapen, torn or unsafe; one line says what.
    """
    folder = Path(folder)
    original = read_config(folder)
    config = glm_config(original, detect_version(original, folder, override=version))
    config.dtype = dtype
    config._attn_implementation = attention
    # Left empty on purpose: PEFT would look a name up on the hub whenever an adapter is saved, and
    # would misread an original config.json in a folder.
    config.name_or_path = ""
    model = empty_model(config, dtype, torch.device(device))
    tensors = (pair for file in weight_files(folder) for pair in read_tensors(file))
    fill(model, original, tensors, device=torch.device(device), source=str(folder))
    model.generation_config = GenerationConfig.from_model_config(config)
    return model.eval()


def save_original(
    model: GlmForCausalLM,
    original: OriginalConfig,
    folder: Path,
    *,
    dtype: torch.dtype | None = None,
) -> None:
    """Write a model in the original layout: `config.json` and one `model.safetensors`.

    The inverse of `load_original` up to the cast. Meant for small models: all weights are held
    twice.

    Args:
        model: filled, of the shape that `original` states.
        original: written as `config.json`; set `name_or_path` so that the version can be told.
        folder: made when absent; files of the same names are replaced.
        dtype: storage type such as `torch.float16`; None keeps the model's.

    Raises:
        ModelError: the model does not fit `original`.
    """
    original.check("save_original")
    parameters: Mapping[str, Tensor] = dict(model.named_parameters(remove_duplicate=False))
    pieces: dict[str, list[tuple[int, Tensor]]] = {}
    for name, part in parameter_sources(original).items():
        if name not in parameters:
            raise ModelError(f"the model has no parameter {name}, which the config promises")
        pieces.setdefault(part.name, []).append((part.start, parameters[name].detach().cpu()))
    tensors: dict[str, Tensor] = {}
    for name, shape in original_shapes(original).items():
        rows = [tensor for _, tensor in sorted(pieces[name], key=lambda piece: piece[0])]
        tensor = torch.cat(rows) if len(rows) > 1 else rows[0].clone()
        _check_tensor(name, tensor, shape, "save_original")
        tensors[name] = tensor.to(dtype or tensor.dtype).contiguous()
    stored = str(next(iter(tensors.values())).dtype).removeprefix("torch.")
    written = original.model_copy(update={"architectures": ["ChatGLMModel"], "torch_dtype": stored})
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / "model.safetensors.part"
    save_file(tensors, temporary, metadata={"format": "pt"})
    temporary.replace(folder / "model.safetensors")
    text = written.model_dump_json(by_alias=True, indent=2)
    (folder / CONFIG_FILE).write_text(text + "\n", encoding="utf-8")


def _check_tensor(name: str, tensor: Tensor, shape: Shape, source: str) -> None:
    if tuple(tensor.shape) != shape:
        raise ModelError(
            f"{source}: tensor {name} has shape {tuple(tensor.shape)}, expected {shape}"
        )
    if not tensor.is_floating_point():
        raise ModelError(
            f"{source}: tensor {name} is {tensor.dtype}, expected floating point; quantised "
            "checkpoints cannot be loaded"
        )


def _some(names: list[str], limit: int = 8) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
