"""Options of the language-model recommender, and what fills those that were left open.

No torch here: a command that only shows what would run must not pay for it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from mmrec_bench.config import ComponentConfig, added, operational

Adapter = Literal["prefix", "lora", "none"]
Answer = Literal["likelihood", "letter", "generate"]
Objective = Literal["answer", "ranking"]
Normalise = Literal["sum", "mean", "lift"]
MixKind = Literal["ranking", "profile", "attributes", "zero-shot", "few-shot"]
DType = Literal["float32", "bfloat16", "float16"]


class LanguageModelConfig(ComponentConfig):
    """Options of the language-model recommenders; None = by backbone and device."""

    backbone: str = Field(
        "auto", description="auto, a name, a folder or a hub id of a causal language model"
    )
    adapter: Adapter = Field(
        "prefix", description="prefix = P-tuning v2, lora, or none = the backbone as it is"
    )
    answer: Answer = Field(
        "likelihood",
        description="likelihood of each candidate's text, of its letter, or a written answer",
    )
    normalise: Normalise | None = Field(
        None,
        description="log-likelihood of an answer: sum over its tokens, mean, or lift = sum less "
        "what it would be without the history",
    )
    dtype: DType | None = Field(None, description="of the backbone's weights")
    attention: Literal["sdpa", "eager", "flash_attention_2"] | None = Field(
        None, description="transformers' attention implementation"
    )
    max_length: int | None = Field(
        None, ge=64, description="tokens of prompt and answer; older history is left out to fit"
    )
    max_new_tokens: int = Field(64, ge=1, description="tokens of a written answer")

    pre_seq_len: int | None = Field(None, ge=1, description="virtual tokens of the prefix")
    prefix_dropout: float | None = Field(None, ge=0, lt=1, description="dropout on the prefix")
    prefix_init: Literal["normal", "zero", "prompt"] | None = Field(
        None,
        description="normal as in P-tuning v2, or prompt = keys and values of a first example",
    )
    import_prefix: Path | None = Field(
        None, description="an original P-tuning v2 checkpoint to start from (file or folder)"
    )
    lora_r: int | None = Field(None, ge=1, description="rank of LoRA")
    lora_alpha: float | None = Field(None, gt=0, description="LoRA's scale is alpha / r")
    lora_dropout: float | None = Field(None, ge=0, lt=1, description="dropout before LoRA")

    visual_tokens: int = added(
        0,
        ge=0,
        description="soft tokens of a picture in the prompt, from the encoder's vectors; 0 = the "
        "model reads text only",
    )
    visual_hidden: int | None = added(
        None, ge=1, description="numbers of the code that a picture is projected to"
    )
    visual_dropout: float | None = added(None, ge=0, lt=1, description="dropout on that code")
    visual_alignment_steps: int | None = added(
        None,
        ge=0,
        description="steps that align the projector of pictures by what users took together, "
        "before the language model is tuned with it",
    )
    visual_learning_rate: float | None = added(
        None, gt=0, description="peak of AdamW's rate for the projector of pictures"
    )

    probe_items: int = operational(
        200, ge=1, description="questions of each kind that --probe-memory asks the backbone"
    )

    corpus: tuple[Path, ...] = operational(
        (),
        description="instruction corpora to tune on beside the ranking examples: JSONL files, or "
        "folders of them; their contents are part of the run's identity, their paths are not",
    )
    mix: dict[MixKind, Annotated[float, Field(ge=0)]] | None = added(
        None,
        description="weights of the kinds of instructions, e.g. {ranking: 0.5, profile: 0.5}; None "
        "= 0.8 ranking, and 0.2 shared by the kinds that the corpus has",
    )
    other_corpus: bool = operational(
        default=False,
        description="allow a corpus of another data set, or of another version of this one",
    )

    objective: Objective | None = Field(
        None,
        description="answer = likelihood of the target's answer; ranking = of the target among "
        "all candidates, scored as they are afterwards",
    )
    learning_rate: float | None = Field(None, gt=0, description="peak of AdamW's rate")
    batch_size: int | None = Field(None, ge=1, description="examples in one forward pass")
    accumulation: int | None = Field(None, ge=1, description="forward passes in one step")
    epochs: int | None = Field(None, ge=1, description="passes over the training examples")
    max_steps: int | None = Field(None, ge=0, description="optimiser steps at most; 0 = no tuning")
    examples: int | None = Field(None, ge=1, description="training examples an epoch at most")
    warmup_ratio: float | None = Field(None, ge=0, le=1, description="share of steps of warm-up")
    max_grad_norm: float | None = Field(None, gt=0, description="gradients are clipped to it")
    weight_decay: float | None = Field(None, ge=0, description="of AdamW")
    gradient_checkpointing: bool | None = Field(
        None, description="compute activations anew in the backward pass: less memory, more time"
    )
    evaluate_every: int | None = Field(None, ge=1, description="steps between validations")
    patience: int | None = Field(
        None, ge=1, description="validations without a better ndcg@10 before tuning stops"
    )
    validation_cases: int | None = Field(
        None,
        ge=1,
        description="validation queries looked at; and corpus entries, all kinds together",
    )

    @field_validator("corpus", mode="before")
    @classmethod
    def _one_path(cls, value: object) -> object:
        """Accept a single path, as command lines give it."""
        return (value,) if isinstance(value, str | Path) else value


ADAPTER_ONLY: dict[Adapter, tuple[str, ...]] = {
    "prefix": ("pre_seq_len", "prefix_dropout", "prefix_init"),
    "lora": ("lora_r", "lora_alpha", "lora_dropout"),
    "none": (),
}
"""Options that mean something with one adapter only; they stay None with the others."""

TUNING_ONLY = (
    "objective",
    "learning_rate",
    "batch_size",
    "accumulation",
    "epochs",
    "max_steps",
    "examples",
    "warmup_ratio",
    "max_grad_norm",
    "weight_decay",
    "gradient_checkpointing",
    "evaluate_every",
    "patience",
    "validation_cases",
)
"""Options that mean something only where an adapter is tuned."""


VISUAL_ONLY = (
    *("visual_hidden", "visual_dropout"),
    *("visual_alignment_steps", "visual_learning_rate"),
)
"""Options that mean something only where the model sees pictures."""


@dataclass(frozen=True, slots=True)
class Situation:
    """What a preset depends on.

    Attributes:
        family: "chatglm2-micro", "chatglm2", "smollm2" or "hf" for any other.
        adapter: which adapter is tuned.
        cuda: the device is a GPU.
        dtype: that suits the device.
    """

    family: str
    adapter: Adapter
    cuda: bool
    dtype: str


_COMMON: dict[str, Any] = {
    "normalise": "sum",
    "objective": "answer",
    "attention": "sdpa",
    "max_length": 2048,
    "pre_seq_len": 64,
    "prefix_dropout": 0.1,
    "prefix_init": "prompt",
    "lora_r": 8,
    "lora_alpha": 32.0,
    "lora_dropout": 0.1,
    "batch_size": 4,
    "accumulation": 4,
    "epochs": 1,
    "warmup_ratio": 0.05,
    "max_grad_norm": 1.0,
    "weight_decay": 0.0,
    "gradient_checkpointing": False,
    "evaluate_every": 50,
    "patience": 4,
    "validation_cases": 200,
    "visual_hidden": 64,
    "visual_dropout": 0.0,
    "visual_alignment_steps": 800,
    "visual_learning_rate": 2e-3,
}

# The recipe of the original P-tuning v2 code for ChatGLM2-6B (ptuning/train.sh, Apache-2.0): 128
# virtual tokens, rate 2e-2, 1 x 16 examples a step, 3,000 steps, normal initialisation. Warm-up,
# clipping and early stopping are ours.
_CHATGLM2: dict[str, Any] = {
    "pre_seq_len": 128,
    "prefix_init": "normal",
    "batch_size": 1,
    "accumulation": 16,
    "epochs": None,
    "max_steps": 3000,
    "warmup_ratio": 0.03,
    "evaluate_every": 250,
    "gradient_checkpointing": True,
}

# Chosen on validation cases of the embedded sample. A small random prefix is not attended to by so
# small a model: it starts from the keys and values of a first prompt.
_MICRO: dict[str, Any] = {
    "normalise": "sum",
    "max_length": 1536,
    "pre_seq_len": 16,
    "prefix_init": "prompt",
    "prefix_dropout": 0.0,
    "batch_size": 16,
    "accumulation": 1,
    "epochs": None,
    "max_steps": 240,
    "evaluate_every": 40,
    "validation_cases": 200,
    "patience": 10,
}

_SMOLLM2: dict[str, Any] = {
    "pre_seq_len": 32,
    "batch_size": 4,
    "accumulation": 2,
    "max_steps": 200,
    "evaluate_every": 50,
    "validation_cases": 50,
}

_FAMILIES: dict[str, dict[str, Any]] = {
    "chatglm2": _CHATGLM2,
    "chatglm2-micro": _MICRO,
    "smollm2": _SMOLLM2,
}

_RATES: dict[str, dict[Adapter, float]] = {
    "chatglm2": {"prefix": 2e-2, "lora": 2e-4},
    "chatglm2-micro": {"prefix": 5e-2, "lora": 2e-3},
    "smollm2": {"prefix": 1e-2, "lora": 5e-4},
}
_OTHER_RATES: dict[Adapter, float] = {"prefix": 1e-2, "lora": 2e-4}


def preset(situation: Situation) -> dict[str, Any]:
    """Return a value for every option that may be left open, for a backbone family and a device."""
    values = {**_COMMON, **_FAMILIES.get(situation.family, {})}
    values["dtype"] = situation.dtype
    rates = _RATES.get(situation.family, _OTHER_RATES)
    values["learning_rate"] = rates.get(situation.adapter, values["visual_learning_rate"])
    if not situation.cuda and situation.family != "chatglm2":
        values["gradient_checkpointing"] = False
    return values


def fill(config: LanguageModelConfig, situation: Situation) -> LanguageModelConfig:
    """Return the configuration with every open option filled that has a meaning here.

    Asking for `epochs` or `max_steps` alone is asking for that length: the preset's other limit
    does not apply.
    """
    values = preset(situation)
    if config.epochs is not None or config.max_steps is not None:
        values["epochs"] = values["max_steps"] = None
    idle = {
        name
        for adapter, names in ADAPTER_ONLY.items()
        if adapter != situation.adapter
        for name in names
    }
    if not config.visual_tokens:
        idle.update(VISUAL_ONLY)
    if situation.adapter == "none" and not config.visual_tokens:
        idle.update(TUNING_ONLY)
    if config.import_prefix is not None:
        idle.update(("pre_seq_len", "prefix_init"))  # the imported prefix has its own
    given = config.model_dump()
    filled = {
        name: values[name]
        for name in values
        if given[name] is None and name not in idle and values[name] is not None
    }
    return config.model_copy(update=filled)
