"""Tiny random models of three families, and the plain ways of scoring and writing with them."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from transformers import (
    GlmConfig,
    GlmForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from mmrec_bench.types import FloatArray
from mmrec_plugins.models.lm.adapters import attach_lora, attach_prefix
from mmrec_plugins.models.lm.scoring import ScoringRequest

VOCABULARY = 97
FAMILIES = ("glm", "llama", "qwen3")
ADAPTERS = ("plain", "prefix", "lora")

_SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def make_model(family: str, adapter: str = "plain", *, attention: str = "sdpa") -> nn.Module:
    """Return a random model whose predictions depend strongly on what it reads."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        base: nn.Module
        if family == "glm":
            base = GlmForCausalLM(GlmConfig(**_SHAPE, attn_implementation=attention))
        elif family == "llama":
            base = LlamaForCausalLM(LlamaConfig(**_SHAPE, attn_implementation=attention))
        else:
            base = Qwen3ForCausalLM(Qwen3Config(**_SHAPE, attn_implementation=attention))
        with torch.no_grad():
            for value in base.parameters():
                if value.ndim == 2:
                    value.normal_(std=0.25)
        if adapter == "prefix":
            base = attach_prefix(base, length=6, dropout=0.5, seed=1)
        if adapter == "lora":
            base = attach_lora(base, rank=4, alpha=16.0, dropout=0.5, seed=1)
            for name, value in base.named_parameters():
                if "lora_B" in name:  # starts at zero, which would be no adapter at all
                    nn.init.normal_(value, std=0.2)
        return base.eval()


def random_tokens(rng: np.random.Generator, length: int) -> list[int]:
    return [int(token) for token in rng.integers(3, VOCABULARY, length)]


def random_request(
    rng: np.random.Generator, prompt: int, n_answers: int, longest: int = 7
) -> ScoringRequest:
    lengths = rng.integers(1, longest + 1, n_answers)
    return ScoringRequest(
        random_tokens(rng, prompt), [random_tokens(rng, int(length)) for length in lengths]
    )


@torch.no_grad()
def naive_scores(model: nn.Module, request: ScoringRequest) -> FloatArray:
    """Return each answer's log-likelihood from a plain forward pass of its own."""
    rows = []
    for answer in request.answer_ids:
        logits = model(input_ids=torch.tensor([request.prompt_ids + answer])).logits[0]
        log_probs = logits[len(request.prompt_ids) - 1 : -1].log_softmax(-1)
        rows.append(float(log_probs[torch.arange(len(answer)), torch.tensor(answer)].sum()))
    return np.array(rows, np.float32)


@torch.no_grad()
def naive_answer(
    model: nn.Module, prompt: Sequence[int], stops: set[int], max_new_tokens: int
) -> list[int]:
    """Return the greedy answer, the whole text read again for every token."""
    ids = list(prompt)
    while len(ids) < len(prompt) + max_new_tokens:
        token = int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())
        if token in stops:
            break
        ids.append(token)
    return ids[len(prompt) :]
