"""What is tuned of a language model: a prefix (P-tuning v2), LoRA matrices, or nothing.

P-tuning v2 (Liu et al., ACL 2022, arXiv 2110.07602) is PEFT's prefix tuning without projection:
keys and values of V virtual tokens in every layer. As in the original code the prefix is kept in
fp32 whatever the backbone's dtype, and dropout is applied to it. LoRA: Hu et al., ICLR 2022.
"""

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeGuard

import torch
from peft import (
    LoraConfig,
    PeftModel,
    PrefixTuningConfig,
    TaskType,
    get_peft_model,
    get_peft_model_state_dict,
    set_peft_model_state_dict,
)
from safetensors.torch import save
from torch import Tensor, nn

from mmrec_bench.errors import ModelError
from mmrec_bench.files import atomic_write
from mmrec_plugins.models.lm.prefill import causal_model
from mmrec_plugins.models.lm.prefix_cache import (
    disable_prefix_checkpointing,
    enable_prefix_checkpointing,
)
from mmrec_plugins.models.tensors import read_tensors, shapes

WEIGHTS_FILE = "adapter_model.safetensors"
SETTINGS_FILE = "adapter_config.json"

# The matrices that make queries, keys, values and the attention's output.
_LORA_TARGETS: dict[str, list[str]] = {
    "glm": ["q_proj", "k_proj", "v_proj", "o_proj"],
    "llama": ["q_proj", "k_proj", "v_proj", "o_proj"],
    "mistral": ["q_proj", "k_proj", "v_proj", "o_proj"],
    "qwen2": ["q_proj", "k_proj", "v_proj", "o_proj"],
    "qwen3": ["q_proj", "k_proj", "v_proj", "o_proj"],
    "gpt2": ["c_attn"],
}


def attach_prefix(
    model: nn.Module,
    *,
    length: int,
    dropout: float,
    seed: int,
    init: str = "normal",
    prompt_ids: Sequence[int] | None = None,
) -> PeftModel:
    """Freeze a backbone and put a trainable prefix before its inputs.

    Args:
        model: a transformers causal model.
        length: V, virtual tokens.
        dropout: on the prefix's numbers, while training.
        seed: of the normal initialisation.
        init: "normal" = N(0, 1) as the original; "zero"; "prompt" = what `prompt_ids` give.
        prompt_ids: token ids whose keys and values start the prefix (repeated or cut to V).

    Returns:
        The wrapped model; one trainable tensor (V, layers * 2 * key-value heads * width), fp32.
    """
    config = PrefixTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=length)
    if init == "zero":
        config.init_weights = "zero"
    start = None
    if init == "prompt":
        if not prompt_ids:
            raise ModelError("a prefix that starts as a prompt needs the prompt's tokens")
        start = _keys_values(model, prompt_ids, length)
    wrapped = _wrap(model, config, seed)
    if start is not None:
        wrapped.prompt_encoder["default"].load_prompt_embeddings(start)
    return prepare_prefix(wrapped, dropout=dropout)


def prepare_prefix(wrapped: PeftModel, *, dropout: float) -> PeftModel:
    """Add dropout to a prefix that PEFT made, and keep it in fp32."""
    encoder = wrapped.prompt_encoder["default"]
    encoder.float()

    def drop(module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:  # noqa: ANN401
        return nn.functional.dropout(output, dropout, training=module.training)

    if dropout:
        encoder.register_forward_hook(drop)
    return wrapped


def attach_lora(
    model: nn.Module, *, rank: int, alpha: float, dropout: float, seed: int
) -> PeftModel:
    """Freeze a backbone and put LoRA beside its attention matrices, fp32 in any dtype.

    Families that are not known get it beside every linear layer but the output.
    """
    kind = str(getattr(getattr(model, "config", None), "model_type", ""))
    config = LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=_LORA_TARGETS.get(kind, "all-linear"),
    )
    return _wrap(model, config, seed)


def _wrap(model: nn.Module, config: Any, seed: int) -> PeftModel:  # noqa: ANN401
    with torch.random.fork_rng(devices=[]), _quiet():
        torch.manual_seed(seed)
        return get_peft_model(model, config)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence PEFT's use of a transformers property that was renamed."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*")
        yield


def _keys_values(model: nn.Module, prompt_ids: Sequence[int], length: int) -> Tensor:
    """(V, layers * 2 * heads * width) fp32: what the backbone keeps of a text, in PEFT's layout."""
    repeats = -(-length // len(prompt_ids))
    ids = (list(prompt_ids) * repeats)[:length]
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    with torch.no_grad():
        tokens = torch.tensor([ids], device=device)
        cache = model(input_ids=tokens, use_cache=True, logits_to_keep=1).past_key_values
    model.train(training)
    # (V, layers, keys | values, heads, width)
    states = torch.stack(
        [
            torch.stack((layer.keys[0].transpose(0, 1), layer.values[0].transpose(0, 1)), dim=1)
            for layer in cache.layers
        ],
        dim=1,
    )
    return states.float().flatten(1).cpu()


def has_prefix(model: nn.Module) -> TypeGuard[PeftModel]:
    """Return whether a prefix is put before what the model reads."""
    return isinstance(model, PeftModel) and bool(model.active_peft_config.is_prompt_learning)


def enable_checkpointing(model: nn.Module) -> None:
    """Compute activations anew in the backward pass, under either adapter or none."""
    if has_prefix(model):
        enable_prefix_checkpointing(model)
        return
    base = causal_model(model)
    options = {"use_reentrant": False}
    if hasattr(base, "activation_checkpointing_enable"):
        base.activation_checkpointing_enable(activation_checkpointing_kwargs=options)
    else:
        base.gradient_checkpointing_enable(gradient_checkpointing_kwargs=options)


def disable_checkpointing(model: nn.Module) -> None:
    """Undo `enable_checkpointing`."""
    if has_prefix(model):
        disable_prefix_checkpointing(model)
        return
    base = causal_model(model)
    if hasattr(base, "activation_checkpointing_disable"):
        base.activation_checkpointing_disable()
    else:
        base.gradient_checkpointing_disable()


@contextmanager
def untuned(model: nn.Module) -> Iterator[None]:
    """Take the adapter off for a while; without one there is nothing to take off."""
    if isinstance(model, PeftModel):
        with model.disable_adapter():
            yield
    else:
        yield


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that are tuned, by name."""
    return {name: value for name, value in model.named_parameters() if value.requires_grad}


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    """Return a copy of the tuned parameters on the CPU."""
    return {name: value.detach().cpu().clone() for name, value in trainable(model).items()}


def put_back(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Copy a `snapshot` into the tuned parameters.

    Raises:
        ModelError: it is a snapshot of another adapter.
    """
    tuned = trainable(model)
    if {n: tuple(v.shape) for n, v in tuned.items()} != {
        n: tuple(v.shape) for n, v in state.items()
    }:
        raise ModelError(
            f"a stored adapter has tensors {shapes(state)}, but this one has {shapes(tuned)}"
        )
    with torch.no_grad():
        for name, value in tuned.items():
            value.copy_(state[name])


def save_adapter(model: PeftModel, folder: Path, *, backbone: str) -> None:
    """Write the adapter alone, as PEFT's own two files; `PeftModel.from_pretrained` reads them.

    Args:
        model: wrapped by one of the functions above.
        folder: made when absent.
        backbone: name written as the base model's.

    Raises:
        StorageError: the disk is full or the folder cannot be written.
    """
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    atomic_write(folder / WEIGHTS_FILE, save(tensors, metadata={"format": "pt"}))
    settings = _plain(model.active_peft_config.to_dict())
    settings |= {"base_model_name_or_path": backbone, "inference_mode": True}
    text = json.dumps(settings, indent=2, sort_keys=True)
    atomic_write(folder / SETTINGS_FILE, (text + "\n").encode())


def load_adapter(model: PeftModel, folder: Path) -> None:
    """Fill an adapter that was attached with the same settings from `save_adapter`'s files.

    Raises:
        ModelError: missing, torn, or of another shape.
    """
    expected = get_peft_model_state_dict(model, save_embedding_layers=False)
    state = read_tensors(folder / WEIGHTS_FILE, expected, "an adapter")
    with _quiet():
        set_peft_model_state_dict(model, state)


def saved_prefix_length(folder: Path) -> int:
    """Return the number of virtual tokens of a saved prefix.

    Raises:
        ModelError: the adapter's settings are missing or broken.
    """
    path = folder / SETTINGS_FILE
    try:
        return int(json.loads(path.read_text(encoding="utf-8"))["num_virtual_tokens"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path} does not hold the settings of a prefix: {error}") from error


def _plain(value: Any) -> Any:  # noqa: ANN401
    """Turn PEFT's settings into JSON values: sets become sorted lists, enums their values."""
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return getattr(value, "value", value)
