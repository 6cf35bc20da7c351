"""T5 under P5: random weights of a chosen size, or a checkpoint in safetensors; no remote code.

Raffel et al., Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer,
JMLR 2020.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import nn
from transformers import AutoTokenizer, T5Config, T5ForConditionalGeneration

from mmrec_bench.errors import ModelError
from mmrec_plugins.models.chatglm2 import hub
from mmrec_plugins.models.chatglm2.shards import weight_files
from mmrec_plugins.models.lm.backbones import quiet_loading
from mmrec_plugins.models.lm.locating import Place, fingerprint
from mmrec_plugins.models.p5.options import P5Config
from mmrec_plugins.models.p5.tokens import Tokens, make_tokens

SIZES: dict[str, dict[str, int]] = {
    "random-tiny": {"d_model": 64, "d_kv": 16, "d_ff": 256, "num_layers": 2, "num_heads": 4},
    "random-small": {"d_model": 512, "d_kv": 64, "d_ff": 2048, "num_layers": 6, "num_heads": 8},
}
"""Shapes of random weights; `random-small` is T5-small's."""

_LOAD_ERRORS = (OSError, ValueError, RuntimeError, ImportError, KeyError, SafetensorError)


def is_random(config: P5Config) -> bool:
    """Say whether the backbone has random weights."""
    return config.backbone in SIZES


def weights_fingerprint(config: P5Config) -> str:
    """Return a hash of the backbone's files; "" for random weights.

    Raises:
        ModelError: the backbone cannot be had.
    """
    if is_random(config):
        return ""
    return fingerprint(Place(locate(config.backbone), config.backbone))


def locate(name: str) -> Path:
    """Return the folder of a T5 checkpoint, downloaded where a hub id is not here.

    Raises:
        ModelError: not to be had, not T5, or not in safetensors.
    """
    try:
        folder = hub.resolve(name)
    except ModelError as error:
        raise ModelError(f"backbone {name!r} is none of {', '.join(SIZES)}, and {error}") from None
    bad = [file.name for file in weight_files(folder) if file.suffix != ".safetensors"]
    if bad:
        raise ModelError(
            f"{folder} holds its weights as {', '.join(bad)}; only safetensors are read: convert "
            "it, or take a checkpoint that has model.safetensors"
        )
    try:
        kind = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(f"{folder / 'config.json'} cannot be read: {error}") from None
    if kind != "t5":
        raise ModelError(f"{folder} holds a {kind}, but P5 is built on a T5; take one of its sizes")
    return folder


def load_tokens(config: P5Config, texts: Iterable[str]) -> Tokens:
    """Return the checkpoint's tokenizer, or one made of `texts` for random weights.

    Raises:
        ModelError: the checkpoint's tokenizer cannot be read.
    """
    if is_random(config):
        return make_tokens(texts)
    folder = locate(config.backbone)
    try:
        with quiet_loading():
            tokenizer = AutoTokenizer.from_pretrained(
                folder, trust_remote_code=False, local_files_only=True
            )
    except _LOAD_ERRORS as error:
        raise ModelError(f"the tokenizer in {folder} cannot be read: {_line(error)}") from error
    return Tokens(tokenizer)


def build_t5(config: P5Config, tokens: Tokens) -> Any:  # noqa: ANN401 - transformers is untyped
    """Return a T5 in float32 whose embedding has a row for each token.

    Random weights are drawn from torch's global stream, which the caller seeds.

    Raises:
        ModelError: sizes are given for a checkpoint, or it cannot be loaded.
    """
    asked = {name: getattr(config, name) for name in SIZES["random-tiny"]}
    given = {name: value for name, value in asked.items() if value is not None}
    if is_random(config):
        shape = T5Config(
            vocab_size=len(tokens),
            dropout_rate=config.dropout_rate,
            pad_token_id=tokens.pad,
            eos_token_id=tokens.end,
            decoder_start_token_id=tokens.pad,
            **{**SIZES[config.backbone], **given},
        )
        return T5ForConditionalGeneration(shape)
    if given:
        raise ModelError(
            f"model.{next(iter(given))} is for random weights; the shape of {config.backbone} is "
            "fixed"
        )
    folder = locate(config.backbone)
    try:
        with quiet_loading():
            model = T5ForConditionalGeneration.from_pretrained(
                folder,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                dtype="float32",
                dropout_rate=config.dropout_rate,
            )
            # T5Config says of every head that it is tied, also of one with weights of its own.
            model.config.tie_word_embeddings = model.lm_head.weight is model.shared.weight
            if len(tokens) > model.get_input_embeddings().num_embeddings:
                # Drawn like the rest, not from the mean of what is there.
                model.resize_token_embeddings(len(tokens), mean_resizing=False)
    except _LOAD_ERRORS as error:
        raise ModelError(f"{config.backbone} cannot be loaded: {_line(error)}") from error
    return model


def shape_of(model: Any) -> str:  # noqa: ANN401
    """Return the model's settings as JSON, for `rebuild_t5`."""
    return json.dumps(model.config.to_dict(), sort_keys=True)


def rebuild_t5(settings: str) -> Any:  # noqa: ANN401
    """Return a T5 of saved settings, its weights to be filled in.

    Raises:
        ModelError: the settings are none.
    """
    try:
        found = json.loads(settings)
        model = T5ForConditionalGeneration(T5Config.from_dict(found))
    except (ValueError, TypeError, AttributeError) as error:
        raise ModelError(f"saved settings are not those of a T5: {_line(error)}") from None
    if found.get("tie_word_embeddings") is False:
        model.config.tie_word_embeddings = False
        model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach().clone())
    return model


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
