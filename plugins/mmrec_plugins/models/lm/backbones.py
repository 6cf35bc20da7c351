"""Load a causal language model and its tokenizer, by name, folder or hub id; no remote code."""

import pickle
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from huggingface_hub.utils import (  # type: ignore[attr-defined]
    are_progress_bars_disabled,
    enable_progress_bars,
)
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.utils import logging as transformers_logging

from mmrec_bench.errors import ModelError
from mmrec_plugins.devices import pick_device
from mmrec_plugins.models.chatglm2 import checkpoint
from mmrec_plugins.models.chatglm2.tokenizer import ChatGLMTokenizer
from mmrec_plugins.models.lm.gguf import unpacked
from mmrec_plugins.models.lm.locating import (
    CHATGLM2_VARIABLE,
    MICRO,
    NAMES,
    Family,
    Place,
    family_of,
    locate,
    search,
)
from mmrec_plugins.models.lm.tokenizing import HFTokenizer, TextTokenizer

__all__ = [
    "NAMES",
    "AutoChoice",
    "Backbone",
    "family_of",
    "load_backbone",
    "pick_device",
    "pick_dtype",
    "quiet_loading",
    "resolve_auto",
    "search",
    "search_report",
]

CHATGLM2 = "chatglm2-6b"

# 6.24 billion bf16 parameters, and room for what tuning with checkpointing and scoring take beside
# them (see configs/amazon/chatglm2-ptv2-a100.yaml).
_CHATGLM2_BYTES = 12_500_000_000
_ROOM_BYTES = 6_000_000_000

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

# What loading raises on files that are missing, torn, or of a kind that is not known.
_LOAD_ERRORS = (OSError, ValueError, RuntimeError, ImportError, KeyError, SafetensorError)


@dataclass(frozen=True, slots=True)
class Backbone:
    """A language model that is ready to run.

    Attributes:
        name: as it stands in records and tables: a known name, a hub id, or a folder's name.
        model: in `eval` mode.
        tokenizer: of the same checkpoint.
        source: where the files are from: "embedded", a hub id, a package with version, a folder.
        n_parameters: of the model; shared ones count once.
        family: kind of backbone, for settings that depend on it.
    """

    name: str
    model: PreTrainedModel
    tokenizer: TextTokenizer
    source: str
    n_parameters: int
    family: Family


class AutoChoice(NamedTuple):
    """The backbone that `auto` stands for here.

    Attributes:
        name: for `load_backbone`.
        reason: one clause.
        looked_for: (place, what was found there).
    """

    name: str
    reason: str
    looked_for: list[tuple[str, str]]

    @property
    def notice(self) -> str:
        """One line for the user: which backbone runs, why, and how to get the other."""
        line = f"backbone: {self.name}, because {self.reason}"
        if self.name == CHATGLM2:
            return f"{line}; for the embedded one: -o model.backbone={MICRO}"
        return (
            f"{line}; for ChatGLM2-6B: -o model.backbone=THUDM/{CHATGLM2} (downloads 12.5 GB), or "
            f"put its folder into {CHATGLM2_VARIABLE}"
        )


def load_backbone(
    name: str, *, device: str, dtype: str = "auto", attention: str = "sdpa"
) -> Backbone:
    """Load a backbone.

    Checkpoints in the original ChatGLM2 / ChatGLM3 layout go through `checkpoint.load_original`,
    all others through transformers. Weights are read from safetensors, from `.bin` files as tensors
    only, or from GGUF, which is unpacked into the cache folder first.

    Args:
        name: one of `NAMES`, a folder, or a hub id (downloaded where it is not in the local cache).
        device: "auto", "cpu", "cuda", "cuda:1" ...
        dtype: "auto", "float32", "bfloat16" or "float16".
        attention: transformers' attention implementation.

    Raises:
        ModelError: not found (says where it was looked for), damaged, of an unknown kind, or too
            large for the device.
    """
    target = pick_device(device)
    torch_dtype = pick_dtype(dtype, target)
    place = locate(name)
    try:
        with quiet_loading():
            model, tokenizer = _load(place, torch_dtype, target, attention)
    except torch.cuda.OutOfMemoryError as error:
        free = torch.cuda.mem_get_info(target)[0] / 1e9
        raise ModelError(
            f"{name} in {torch_dtype} does not fit into the {free:.1f} GB free on {target}; free "
            "some, or take a smaller backbone or dtype"
        ) from error
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{name} is refused: a .bin file in {place.folder} is damaged or holds more than "
            "tensors; take a checkpoint in safetensors"
        ) from error
    except _LOAD_ERRORS as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ModelError(f"{name} cannot be loaded from {place.folder}: {reason}") from error
    return Backbone(
        name=name if name in NAMES or not Path(name).is_dir() else Path(name).resolve().name,
        model=model.eval(),
        tokenizer=tokenizer,
        source=place.source,
        n_parameters=_n_parameters(model),
        family=family_of(name),
    )


def resolve_auto(device: str) -> AutoChoice:
    """Choose for this machine: ChatGLM2-6B where it lies here and fits, else the micro one.

    Args:
        device: as for `load_backbone`.

    Raises:
        ModelError: no such device.
    """
    target = pick_device(device)
    found = search(CHATGLM2)
    if found.place is None:
        return AutoChoice(MICRO, "ChatGLM2-6B is not on this machine", found.looked_for)
    if target.type != "cuda":
        reason = f"ChatGLM2-6B is here, but {target} is too slow for it"
        return AutoChoice(MICRO, reason, found.looked_for)
    free = torch.cuda.mem_get_info(target)[0]
    needed = _CHATGLM2_BYTES + _ROOM_BYTES
    if free < needed:
        reason = (
            f"ChatGLM2-6B is here, but {target} has {free / 1e9:.1f} GB free and it takes "
            f"{needed / 1e9:.1f}"
        )
        return AutoChoice(MICRO, reason, found.looked_for)
    return AutoChoice(CHATGLM2, f"it is here ({found.place.source})", found.looked_for)


def search_report() -> dict[str, str]:
    """Return, for every backbone known by name, where it was looked for and what was found.

    `auto` comes first, with the choice that it stands for on this machine.
    """
    choice = resolve_auto("auto")
    rows = {"backbone auto": f"{choice.name}, because {choice.reason}"}
    for name in NAMES:
        found = search(name)
        place = found.place
        rows[f"backbone {name}"] = (
            f"not here ({found.told()})" if place is None else f"{place.source}, in {place.folder}"
        )
    return rows


def pick_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """Return the dtype asked for; "auto" is bf16 on CUDA (fp16 where it has none), else fp32.

    Raises:
        ModelError: an unknown name.
    """
    if dtype == "auto":
        if device.type != "cuda":
            return torch.float32
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if dtype not in _DTYPES:
        raise ModelError(f"dtype {dtype!r} is not one of auto, {', '.join(_DTYPES)}")
    return _DTYPES[dtype]


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Keep transformers' bars and remarks out of ours; errors still come through."""
    bars = transformers_logging.is_progress_bar_enabled()
    hub_bars = not are_progress_bars_disabled()
    level = transformers_logging.get_verbosity()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()
        if hub_bars:
            enable_progress_bars()


def _load(
    place: Place, dtype: torch.dtype, device: torch.device, attention: str
) -> tuple[PreTrainedModel, TextTokenizer]:
    if checkpoint.is_original(place.folder):
        model = checkpoint.load_original(
            place.folder, dtype=dtype, device=device, attention=attention
        )
        return model, ChatGLMTokenizer.from_folder(place.folder)
    folder = place.folder
    if place.gguf_file is not None:
        folder = unpacked(folder / place.gguf_file)
    _check_causal(folder)
    # Stated: left open, transformers asks at the terminal whether to run a checkpoint's own code.
    options: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
    tokenizer = HFTokenizer(AutoTokenizer.from_pretrained(folder, **options))
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, attn_implementation=attention, **options
    )
    return model.to(device), tokenizer


def _check_causal(folder: Path) -> None:
    """Refuse what transformers would turn into a causal model with random weights."""
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    kinds = list(config.architectures or ())
    if kinds and not any("CausalLM" in kind or "LMHead" in kind for kind in kinds):
        raise ModelError(
            f"{folder} holds a {', '.join(kinds)}, expected a causal language model (..ForCausalLM)"
        )


def _n_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
