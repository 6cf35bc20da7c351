"""The original `config.json` of ChatGLM2-6B and ChatGLM3-6B, and its counterpart in transformers.

Both generations share one architecture (GLM: Du et al., ACL 2022;
https://github.com/THUDM/ChatGLM2-6B) and one layout of weights. They differ in two things that
`config.json` does not say outright:

* how `rope_ratio` stretches the context: ChatGLM2-6B-32k divides the positions by it,
  ChatGLM3-6B-32k (as GLM-4) multiplies the base 10000 of the rotary embedding by it;
* how a chat is written (see `tokenizer.py`).

`detect_version` tells them apart; a version given by the caller always wins.
"""

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from transformers import GlmConfig

from mmrec_bench.errors import ModelError

Version = Literal[2, 3]

CONFIG_FILE = "config.json"
_ROPE_BASE = 10000.0

# The published class fills a missing one of these with a default that no published checkpoint has
# (first-generation ChatGLM-6B lacks most of them), so a config.json must state each.
_REQUIRED = (
    "padded_vocab_size",
    "hidden_size",
    "ffn_hidden_size",
    "num_layers",
    "num_attention_heads",
    "kv_channels",
    "multi_query_attention",
    "multi_query_group_num",
    "add_qkv_bias",
)

# field -> the one value that GlmForCausalLM computes exactly. `apply_query_key_layer_scaling`,
# `attention_softmax_in_fp32` and `bias_dropout_fusion` change rounding or speed, not the function.
_EXACT: dict[str, Any] = {
    "model_type": "chatglm",
    "add_bias_linear": False,
    "apply_residual_connection_post_layernorm": False,
    "fp32_residual_connection": False,
    "hidden_dropout": 0.0,
    "interleaved_qkv": False,
    "multi_query_attention": True,
    "post_layer_norm": True,
    "quantization_bit": 0,
    "rmsnorm": True,
    "tie_word_embeddings": False,
}


class OriginalConfig(BaseModel):
    """Fields of an original `config.json`; the defaults are ChatGLM2-6B's.

    Sizes count elements; unknown fields are kept and written back by `save_original`.
    """

    model_config = ConfigDict(extra="allow", frozen=True, strict=True, populate_by_name=True)

    name_or_path: str = Field("", alias="_name_or_path", description="where it says it comes from")
    model_type: str = "chatglm"
    padded_vocab_size: int = Field(65024, gt=0, description="rows of both embeddings")
    hidden_size: int = Field(4096, gt=0)
    ffn_hidden_size: int = Field(13696, gt=0, description="width of SwiGLU's inner layer")
    num_layers: int = Field(28, gt=0)
    num_attention_heads: int = Field(32, gt=0)
    multi_query_attention: bool = True
    multi_query_group_num: int = Field(2, gt=0, description="heads of keys and of values")
    kv_channels: int = Field(128, gt=0, description="width of one head")
    layernorm_epsilon: float = Field(1e-5, gt=0)
    add_qkv_bias: bool = True
    add_bias_linear: bool = False
    seq_length: int = Field(32768, gt=0)
    rope_ratio: float = Field(1.0, gt=0)
    rmsnorm: bool = True
    post_layer_norm: bool = True
    apply_residual_connection_post_layernorm: bool = False
    fp32_residual_connection: bool = False
    interleaved_qkv: bool = False
    attention_dropout: float = Field(0.0, ge=0, lt=1)
    hidden_dropout: float = Field(0.0, ge=0, lt=1)
    tie_word_embeddings: bool = False
    quantization_bit: int = 0
    pre_seq_len: int | None = None
    prefix_projection: bool = False

    @property
    def query_size(self) -> int:
        """Rows of the fused projection that make queries: heads x kv_channels."""
        return self.num_attention_heads * self.kv_channels

    @property
    def kv_size(self) -> int:
        """Rows of the fused projection that make keys, and as many that make values."""
        return self.multi_query_group_num * self.kv_channels

    def check(self, source: str) -> None:
        """Refuse what `GlmForCausalLM` does not compute exactly.

        Args:
            source: named in the message.

        Raises:
            ModelError: naming the field, its value and the value that would do.
        """
        for name, exact in _EXACT.items():
            found = getattr(self, name)
            if found != exact:
                raise ModelError(
                    f"{source}: {name} is {found!r}, but only {exact!r} can be loaded exactly"
                    + ("; take the unquantised checkpoint" if name == "quantization_bit" else "")
                )
        if (self.model_extra or {}).get("quantization_config"):
            raise ModelError(
                f"{source}: quantization_config is set, but only unquantised weights can be loaded"
            )
        if self.kv_channels % 4:
            raise ModelError(
                f"{source}: kv_channels is {self.kv_channels}, but rotary pairs on half of a head "
                "need a multiple of 4"
            )
        if self.num_attention_heads % self.multi_query_group_num:
            raise ModelError(
                f"{source}: num_attention_heads {self.num_attention_heads} is not a multiple of "
                f"multi_query_group_num {self.multi_query_group_num}"
            )


def read_json_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file.

    Raises:
        ModelError: not readable, not JSON, or not an object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"{path} is missing") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path} holds a JSON {type(value).__name__}, expected an object")
    return value


def is_original(folder: Path) -> bool:
    """Tell whether a folder holds a checkpoint in the original layout; never raises."""
    try:
        return read_json_object(Path(folder) / CONFIG_FILE).get("model_type") == "chatglm"
    except ModelError:
        return False


def read_config(folder: Path) -> OriginalConfig:
    """Read and check the original `config.json` of a folder.

    Raises:
        ModelError: the file is missing or broken, another model's, or states something that
            transformers' GLM does not compute exactly; the message names the field.
    """
    path = Path(folder) / CONFIG_FILE
    raw = read_json_object(path)
    if raw.get("model_type") != "chatglm":
        raise ModelError(
            f"{path}: model_type is {raw.get('model_type')!r}, expected 'chatglm': this is not a "
            "checkpoint in the original ChatGLM2 / ChatGLM3 layout"
        )
    missing = [name for name in _REQUIRED if raw.get(name) is None]
    if missing:
        raise ModelError(
            f"{path}: no field {', '.join(missing)}: neither ChatGLM2-6B nor ChatGLM3-6B "
            "(the first ChatGLM-6B is another architecture)"
        )
    # Some exports write `null` for "the default".
    given = {key: value for key, value in raw.items() if value is not None}
    try:
        config = OriginalConfig.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise ModelError(f"{path}: {field} is {first['input']!r}: {first['msg']}") from error
    config.check(str(path))
    return config


def detect_version(
    config: OriginalConfig, folder: Path | None = None, *, override: Version | None = None
) -> Version:
    """Tell ChatGLM2 from ChatGLM3; the two differ in rotary scaling and in the chat form.

    In order: `override`; `_name_or_path`, which every published checkpoint carries
    ("THUDM/chatglm3-6b"); `tokenizer_config.json`, where ChatGLM3's names its role tokens
    (`<|user|>`, in `chat_template` or `added_tokens_decoder`) or has `<|{{ message['role'] }}|>`.
    With none of these, version 2, unless `rope_ratio` is not 1, where a wrong guess would give
    wrong logits.

    Raises:
        ModelError: the version cannot be told and matters.
    """
    if override is not None:
        return override
    name = config.name_or_path.lower()
    if "chatglm3" in name or "glm-4" in name:
        return 3
    if "chatglm2" in name or "codegeex2" in name:
        return 2
    if folder is not None:
        path = Path(folder) / "tokenizer_config.json"
        if path.exists() and "<|" in json.dumps(read_json_object(path)):
            return 3
    if config.rope_ratio != 1:
        raise ModelError(
            f"{folder or 'config.json'}: rope_ratio is {config.rope_ratio:g}, which ChatGLM2 and "
            "ChatGLM3 apply differently, and nothing says which of them this is; give the version "
            "(2 or 3)"
        )
    return 2


def glm_config(original: OriginalConfig, version: Version) -> GlmConfig:
    """Return the `GlmConfig` whose model computes what the original code does.

    Args:
        original: the original settings.
        version: 2 or 3; matters only where `rope_ratio` is not 1.
    """
    rope: dict[str, Any] = {
        "rope_type": "default",
        "rope_theta": _ROPE_BASE,
        "partial_rotary_factor": 0.5,
    }
    if original.rope_ratio != 1 and version == 2:
        rope |= {"rope_type": "linear", "factor": original.rope_ratio}
    elif version == 3:
        rope["rope_theta"] = _ROPE_BASE * original.rope_ratio
    return GlmConfig(
        vocab_size=original.padded_vocab_size,
        hidden_size=original.hidden_size,
        intermediate_size=original.ffn_hidden_size,
        num_hidden_layers=original.num_layers,
        num_attention_heads=original.num_attention_heads,
        num_key_value_heads=original.multi_query_group_num,
        head_dim=original.kv_channels,
        attention_bias=original.add_qkv_bias,
        attention_dropout=original.attention_dropout,
        rms_norm_eps=original.layernorm_epsilon,
        rope_parameters=rope,
        max_position_embeddings=original.seq_length,
        tie_word_embeddings=False,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
