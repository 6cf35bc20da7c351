"""Tiny random models that see pictures, and the plain way of reading and scoring with them."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from mmrec_bench.types import FloatArray
from mmrec_plugins.models.item_vectors import have_vectors
from mmrec_plugins.models.lm.prefill import causal_model
from mmrec_plugins.models.lm.scoring import ScoringRequest
from mmrec_plugins.models.lm.visual import (
    PictureIds,
    VisualTokens,
    attach_visual,
)
from tests.plugins.lm.random_models import make_model, random_tokens

N_ITEMS = 7
BLIND = 4
"""The item that has no picture."""

WIDTH = 9


def vectors(seed: int = 0) -> FloatArray:
    """Return pictures of `N_ITEMS` items; `BLIND` has none."""
    found = np.random.default_rng(seed).normal(2.0, 3.0, (N_ITEMS, WIDTH)).astype(np.float32)
    found[BLIND] = np.nan
    return found


def make_seeing(
    family: str = "glm", adapter: str = "prefix", *, n_tokens: int = 2, dropout: float = 0.0
) -> tuple[nn.Module, VisualTokens, PictureIds]:
    """Return a random model with a random projector, in evaluation, and the ids of its pictures."""
    model = make_model(family, adapter)
    visual = attach_visual(
        causal_model(model),
        vectors(),
        n_tokens=n_tokens,
        code_size=5,
        dropout=dropout,
        seed=2,
        prompt_ids=[5, 6, 7, 8],
    )
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(9)
        visual.length.fill_(3.0)  # short enough for the layers to change what they read
        visual.without.normal_(std=0.3)
        visual.foretell.weight.normal_(std=0.3)  # it starts at zero, which would test nothing
    model.eval()
    return model, visual, PictureIds(n_tokens, have_vectors(vectors()))


def pictured_request(
    rng: np.random.Generator, pictures: PictureIds, shown: Sequence[int], answers: Sequence[int]
) -> ScoringRequest:
    """Return a prompt that shows pictures between words, and answers that have one each."""
    prompt = random_tokens(rng, 3)
    for item in shown:
        prompt += pictures.shown(item) + random_tokens(rng, int(rng.integers(1, 6)))
    return ScoringRequest(
        prompt,
        [[pictures.foretold(i), *random_tokens(rng, int(rng.integers(1, 5)))] for i in answers],
    )


def plain_code(visual: VisualTokens, item: int) -> Tensor:
    """Return a picture's code, from the vectors as they were given."""
    raw = torch.from_numpy(vectors())
    rows = raw[torch.isfinite(raw).all(dim=1)]
    z = (raw[item] - rows.mean(0)) / rows.std(0, correction=0)
    z = z / z.norm() * WIDTH**0.5
    code = visual.encode.weight @ z + visual.encode.bias
    scaled: Tensor = (code - code.mean()) / (code.var(correction=0) + 1e-5).sqrt()
    return scaled


def plain_soft(visual: VisualTokens, item: int) -> Tensor:
    """Return a picture's (n, H) directions."""
    soft = visual.embed.weight @ plain_code(visual, item) + visual.embed.bias
    rows = soft.view(visual.n_tokens, -1)
    directions: Tensor = rows / rows.norm(dim=1, keepdim=True)
    return directions


def plain_embeddings(model: nn.Module, visual: VisualTokens, ids: Sequence[int]) -> Tensor:
    """Return (1, T, H): one token after the other."""
    table = causal_model(model).get_input_embeddings().weight
    rows = []
    for token in ids:
        if token >= 0:
            rows.append(table[token])
        else:
            item, slot = divmod(-1 - token, visual.n_tokens)
            rows.append(plain_soft(visual, item)[slot] * visual.length)
    return torch.stack(rows)[None]


def plain_score(
    model: nn.Module, visual: VisualTokens, prompt: Sequence[int], answer: Sequence[int]
) -> Tensor:
    """Score one answer, its picture first, by a forward pass of its own."""
    picture, text = answer[0], list(answer[1:])
    output = model(
        inputs_embeds=plain_embeddings(model, visual, [*prompt, *text]), output_hidden_states=True
    )
    log_probs = output.logits[0, len(prompt) - 1 : -1].log_softmax(-1)
    score: Tensor = log_probs[torch.arange(len(text)), torch.tensor(text)].sum()
    hidden = output.hidden_states[-1][0]
    places = [at for at, token in enumerate(prompt) if token < 0]
    shown = hidden[places].mean(0) if places else torch.zeros_like(hidden[0])
    end, item = hidden[len(prompt) - 1], (-1 - picture) // visual.n_tokens
    if item == N_ITEMS:
        entries: Tensor = visual.without
    else:
        foretold = visual.foretell.weight @ plain_code(visual, item) + visual.foretell.bias
        entries = torch.stack([foretold, visual.closeness * plain_soft(visual, item).mean(0)])
    score = score + (end * entries[0]).sum()
    return score + (shown * entries[1]).sum()
