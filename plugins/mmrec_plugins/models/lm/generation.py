"""Greedy answers in batches, token for token those of one prompt at a time."""

from collections.abc import Sequence

import torch
from torch import nn

from mmrec_plugins.models.lm.prefill import (
    Prefilled,
    additive_mask,
    causal_model,
    inference,
    length_batches,
    pass_tokens,
    prefill,
)


def generate(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    *,
    eos_id: int | Sequence[int],
    pad_id: int,
    max_new_tokens: int,
    prompts_per_batch: int | None = None,
) -> list[list[int]]:
    """Return the most likely next tokens of each prompt, one by one, up to an end token.

    Args:
        model: a transformers causal model, plain or under PEFT (prefix tuning, LoRA), on any device
            and in any dtype. It is left in the mode (train / eval) that it is in.
        prompts: token ids of each prompt.
        eos_id: token id, or several, at which an answer ends; it is not returned.
        pad_id: any valid token id.
        max_new_tokens: an answer is cut here.
        prompts_per_batch: prompts answered at once; None = by their length and the device.

    Returns:
        For each prompt, at most `max_new_tokens` ids: those that the prompt alone would get, unless
        two tokens tie to float noise.

    Raises:
        ModelError: an empty prompt, or a model that keeps no keys and values.
    """
    stops = {eos_id} if isinstance(eos_id, int) else set(eos_id)
    answers: list[list[int]] = [[] for _ in prompts]
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    lengths = [len(prompts[i]) for i in order]
    with inference(model):
        for at in length_batches(lengths, prompts_per_batch, pass_tokens(model)):
            chosen = order[at]
            read = prefill(model, [prompts[i] for i in chosen], pad_id=pad_id)
            for i, answer in zip(
                chosen, _continue(model, read, stops, max_new_tokens), strict=True
            ):
                answers[i] = answer
    return answers


def _continue(
    model: nn.Module, read: Prefilled, stops: set[int], max_new_tokens: int
) -> list[list[int]]:
    base = causal_model(model)
    cache = read.cache  # nothing else reads these prompts: it may grow
    answers: list[list[int]] = [[] for _ in read.lengths]
    running = list(range(len(answers)))
    logits, visible, positions = read.logits, read.visible, read.lengths
    for step in range(max_new_tokens):
        tokens = logits.argmax(-1)  # (B,)
        going: list[int] = []
        for at, token in enumerate(tokens.tolist()):
            if token not in stops:
                answers[running[at]].append(token)
                going.append(at)
        if not going or step + 1 == max_new_tokens:
            break
        if len(going) < len(running):
            rows = torch.tensor(going, device=tokens.device)
            running = [running[at] for at in going]
            tokens, visible, positions = tokens[rows], visible[rows], positions[rows]
            cache.batch_select_indices(rows)
        visible = torch.cat([visible, visible.new_ones(len(running), 1)], dim=1)
        logits = base(
            input_ids=tokens[:, None],
            attention_mask=additive_mask(visible[:, None], base),
            position_ids=positions[:, None],
            past_key_values=cache,
            use_cache=True,
        ).logits[:, -1]
        positions = positions + 1
    return answers
