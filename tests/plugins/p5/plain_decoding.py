"""Tiny random T5s, and the plain ways of constraining and scoring: dicts, loops and `generate`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import T5Config, T5ForConditionalGeneration

END = 1
FIXED = [[11 + i % 5, 21 + i // 5 % 4, 31 + (i * 7) % 6] for i in range(20)]
"""20 items of 3 tokens each that share their starts."""

VARIABLE = [
    [11],
    [11, 21],
    [11, 21, 31],
    [11, 22],
    [12, 21, 31, 41],
    [12, 21, 31],
    [12, 23],
    [13, 22, 33],
    [13],
    [14, 21],
    [14, 24, 34, 44, 54],
    [14, 24, 34, 44],
    [15, 25],
    [15, 25, 31],
]
"""14 items of 1 to 5 tokens, some the start of others."""

Codes = Sequence[Sequence[int]]

TRIES = [
    pytest.param(FIXED, None, id="one length"),
    pytest.param(FIXED, END, id="one length and an end"),
    pytest.param(VARIABLE, END, id="many lengths"),
    pytest.param([[n] for n in range(10, 40)], None, id="one token"),
]
"""Tokens of each item, and the end token."""


def tiny_t5(*, v1_1: bool = False, seed: int = 0, **changes: float) -> T5ForConditionalGeneration:
    """Return a T5 of few layers with random weights: v1.0, or v1.1 with a head of its own."""
    torch.manual_seed(seed)
    sizes: dict[str, object] = {
        "vocab_size": 60,
        "d_model": 16,
        "d_kv": 6,
        "d_ff": 24,
        "num_layers": 3,
    }
    sizes |= {"num_decoder_layers": 2, "num_heads": 3, "decoder_start_token_id": 0}
    if v1_1:
        sizes |= {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
    model = T5ForConditionalGeneration(T5Config(**sizes | changes)).eval()
    if v1_1:
        model.lm_head.weight = nn.Parameter(torch.randn(60, 16))
    return model


def sources(n: int, length: int, seed: int = 0, side: str = "right") -> tuple[Tensor, Tensor]:
    """Return (n, length) tokens and their mask; each source is padded by another number."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(2, 60, (n, length), generator=generator)
    mask = torch.arange(length) < (length - torch.arange(n) % (length - 1))[:, None]
    if side == "left":
        mask = mask.flip(1)
    return ids.masked_fill(~mask, 0), mask.long()


def allowed_tokens(
    codes: Codes, end: int | None, excluded: Sequence[Sequence[int]] = ()
) -> Callable[[int, Tensor], list[int]]:
    """Return what `generate` asks for the tokens that may follow a start, one dict a source."""
    tables: dict[int, dict[tuple[int, ...], list[int]]] = {}

    def table(source: int) -> dict[tuple[int, ...], list[int]]:
        out = excluded[source] if excluded else ()
        found: dict[tuple[int, ...], set[int]] = {}
        for item, code in enumerate(codes):
            tokens = [*code, *([] if end is None else [end])]
            for n in range(len(tokens) if item not in out else 0):
                found.setdefault(tuple(tokens[:n]), set()).add(tokens[n])
        return {start: sorted(tokens) for start, tokens in found.items()}

    def allowed(source: int, sentence: Tensor) -> list[int]:
        known = tables.setdefault(source, table(source))
        return known.get(tuple(sentence.tolist()[1:]), [END])

    return allowed


@dataclass(frozen=True)
class Named:
    """What `generate` found for one source: items and scores, best first."""

    items: list[int]
    scores: list[float]


def generate(
    model: T5ForConditionalGeneration,
    inputs: tuple[Tensor, Tensor],
    codes: Codes,
    end: int | None,
    beams: int,
    excluded: Sequence[Sequence[int]] = (),
    **options: Any,  # noqa: ANN401
) -> list[Named]:
    """Ask transformers, and read its sequences; what it fills up with is left out."""
    ids, mask = inputs
    depth = max(len(code) for code in codes) + (end is not None)
    found = model.generate(
        input_ids=ids,
        attention_mask=mask,
        num_beams=beams,
        num_return_sequences=beams,
        prefix_allowed_tokens_fn=allowed_tokens(codes, end, excluded),
        max_new_tokens=depth,
        return_dict_in_generate=True,
        output_scores=True,
        **{"length_penalty": 0.0, "early_stopping": "never"} | options,
    )
    by_tokens = {(*code, *([] if end is None else [end])): i for i, code in enumerate(codes)}
    sequences = found.sequences[:, 1:].tolist()
    if end is not None:
        sequences = [row[: row.index(end) + 1] if end in row else row for row in sequences]
    rows = list(zip(sequences, found.sequences_scores.tolist(), strict=True))
    named = []
    for start in range(0, len(rows), beams):
        real = [(by_tokens.get(tuple(row), -1), score) for row, score in rows[start:][:beams]]
        kept = [(item, score) for item, score in real if score > -1e8]
        named.append(Named([item for item, _ in kept], [score for _, score in kept]))
    return named


@torch.no_grad()
def log_likelihood(
    model: T5ForConditionalGeneration,
    ids: Tensor,
    mask: Tensor,
    tokens: Sequence[int],
    allowed: Callable[[int, Tensor], list[int]] | None = None,
) -> float:
    """Return the log-probability of one item after one source, by one teacher-forced pass."""
    target = torch.tensor([[0, *tokens]])
    logits = model(
        input_ids=ids[None], attention_mask=mask[None], decoder_input_ids=target[:, :-1]
    ).logits[0]
    total = 0.0
    for place, token in enumerate(tokens):
        row = logits[place].double()
        if allowed is not None:
            rest = torch.ones_like(row, dtype=torch.bool)
            rest[allowed(0, target[0, : place + 1])] = False
            row = row.masked_fill(rest, -torch.inf)
        total += float(row.log_softmax(0)[token])
    return total
