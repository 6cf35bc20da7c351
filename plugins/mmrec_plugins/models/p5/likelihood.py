"""Likelihoods of given items under a T5.

An item's score is the sum of the log-probabilities of its tokens, its end token included. Under
`normalise="vocabulary"` a token's probability is its share of the whole vocabulary, which is what
`generate(prefix_allowed_tokens_fn=...)` of transformers sums: it takes the log-softmax first and
masks then. Under `"allowed"` it is the share of the tokens that the trie allows behind the same
start; the probabilities of all items then sum to one, and the head over the vocabulary is not read.
Where a start leads to one item only, the rest of it has probability one and is not read either. The
two rank items differently.

Letters as in `decoder`; further N items, C candidates, L tokens of the longest item.
"""

from typing import Literal

import torch
from torch import Tensor

from mmrec_bench.errors import ModelError
from mmrec_plugins.models.p5.decoder import (
    Sources,
    TreeDecoder,
    evaluating,
    log_partition,
    token_logits,
)
from mmrec_plugins.models.p5.trie import ItemTrie

Normalise = Literal["vocabulary", "allowed"]

_PASS_NODES = 512
"""Candidates of all sources that are scored in one go."""


def score_candidates(
    sources: Sources,
    trie: ItemTrie,
    candidates: Tensor,
    *,
    normalise: Normalise = "vocabulary",
) -> Tensor:
    """Return the exact log-likelihood of given items; starts that they share are read once.

    Args:
        sources: B sources.
        trie: the items, on the sources' device.
        candidates: (B, C) int64 items, -1 = none; repeats allowed.
        normalise: see the module.

    Returns:
        (B, C) float32; NaN where a candidate is -1.

    Raises:
        ModelError: a candidate is not in the trie, or a token of the trie not in the model.
    """
    if candidates.numel() and int(candidates.max()) >= trie.n_items:
        raise ModelError(
            f"candidate {int(candidates.max())} is not in the trie of {trie.n_items} items"
        )
    check_tokens(sources, trie)
    with evaluating(sources.model):
        rows = max(1, _PASS_NODES // max(1, candidates.shape[1]))
        scores = torch.empty(candidates.shape, device=candidates.device)
        for start in range(0, len(candidates), rows):
            part = slice(start, start + rows)
            scores[part] = _score_block(sources[part], trie, candidates[part], normalise)
        return scores


def score_catalog(
    sources: Sources, trie: ItemTrie, *, normalise: Normalise = "vocabulary"
) -> Tensor:
    """Return the exact log-likelihood of every item, (B, N) float32.

    It reads all nodes but the last of each item, where a beam search reads at most 1 + K (L - 1):
    cheaper for items of one token each (one node) and for small catalogs.
    """
    scores = sources.mask.new_empty(len(sources), trie.n_items, dtype=torch.float32)
    for start in range(0, trie.n_items, _PASS_NODES):
        block = trie.order[start : start + _PASS_NODES]
        candidates = block.expand(len(sources), -1)
        scores[:, block] = score_candidates(sources, trie, candidates, normalise=normalise)
    return scores


def _score_block(
    sources: Sources, trie: ItemTrie, candidates: Tensor, normalise: Normalise
) -> Tensor:
    """Score (B, C) candidates level by level over the nodes that they need."""
    model = sources.model
    missing = candidates < 0
    path = trie.path[candidates.clamp(min=0)].masked_fill(missing[:, :, None], -1)  # (B, C, L)
    decoder = TreeDecoder(sources, 1 + path.shape[1] * (trie.depth - 1))
    nodes = path.new_zeros(len(path), 1)
    place = torch.zeros_like(candidates)
    scores = torch.zeros(candidates.shape, device=path.device)
    parents: Tensor | None = None
    for level in range(trie.depth):
        going = path[:, :, level] >= 0
        if normalise == "allowed":
            above = path[:, :, level - 1].clamp(min=0) if level else torch.zeros_like(place)
            going &= trie.below[above] > 1  # else the rest is certain
        if level:
            nodes, parents, place = _distinct(path[:, :, level - 1], going, place)
            tokens = trie.token[nodes].clamp(min=0)
        else:
            tokens = torch.full_like(nodes, model.config.decoder_start_token_id)
        if not nodes.shape[1]:
            break
        states = decoder.step(tokens, parents)
        logits = token_logits(model, states, trie.level_tokens[level])
        if normalise == "vocabulary":
            logits = logits - log_partition(model, states)[:, :, None]
        else:
            logits = logits - _allowed_partition(trie, level, nodes, logits)[:, :, None]
        slot = trie.slot[path[:, :, level].clamp(min=0)].clamp(min=0)
        steps = logits.flatten(1).gather(1, place * logits.shape[2] + slot)
        scores = torch.where(going, scores + steps, scores)
    return scores.masked_fill(missing, torch.nan)


def _distinct(nodes: Tensor, going: Tensor, place: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Name each source's nodes once.

    Args:
        nodes: (B, C) node of each candidate.
        going: (B, C) bool, where the candidate goes on below that node.
        place: (B, C) place of the node's parent within the level read before.

    Returns:
        (B, T) distinct nodes of those that go on, the root where a source has fewer; (B, T) places
        of their parents; (B, C) place of each candidate's node among them, 0 where it ended.
    """
    far = torch.iinfo(nodes.dtype).max
    ranked, order = torch.where(going, nodes, far).sort(dim=1)
    new = torch.ones_like(going)
    new[:, 1:] = ranked[:, 1:] != ranked[:, :-1]
    new &= ranked != far
    rank = new.cumsum(1) - 1
    width = int(rank[:, -1].max()) + 1 if rank.numel() else 0
    mine = torch.zeros_like(place).scatter_(1, order, rank)
    mine = torch.where(going, mine, 0)
    # Candidates that ended are written to a column behind the last, which is cut off.
    target = torch.where(going, mine, width)
    distinct = nodes.new_zeros(len(nodes), width + 1).scatter_(1, target, nodes)[:, :width]
    parents = nodes.new_zeros(len(nodes), width + 1).scatter_(1, target, place)[:, :width]
    return distinct, parents, mine


def _allowed_partition(trie: ItemTrie, level: int, nodes: Tensor, logits: Tensor) -> Tensor:
    """Return (B, T) log-sum-exp of the logits of the tokens that the trie allows behind nodes."""
    child, allowed = trie.children(level, nodes)
    found = logits.gather(2, trie.slot[child].clamp(min=0))
    return found.masked_fill(~allowed, -torch.inf).logsumexp(2)


def check_tokens(sources: Sources, trie: ItemTrie) -> None:
    """Refuse a trie whose tokens the model does not have."""
    words = sources.model.lm_head.weight.shape[0]
    highest = max(int(tokens[-1]) for tokens in trie.level_tokens)
    if highest >= words:
        raise ModelError(
            f"the trie holds token {highest}, but the model's vocabulary has {words}; resize its "
            "embeddings before decoding"
        )
