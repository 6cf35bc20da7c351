"""Items named by a T5, token by token: beams over a trie, and likelihoods of given items.

An item's score is the sum of the log-probabilities of its tokens, its end token included. Under
`normalise="vocabulary"` a token's probability is its share of the whole vocabulary, which is what
`generate(prefix_allowed_tokens_fn=...)` of transformers sums: it takes the log-softmax first and
masks then. Under `"allowed"` it is the share of the tokens that the trie allows behind the same
start; the probabilities of all items then sum to one, and the head over the vocabulary is not read.
The two rank items differently.

Letters as in `decoder`; further N items, K beams, L tokens of the longest item.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from mmrec_bench.errors import ModelError
from mmrec_plugins.models.p5.decoder import (
    Sources,
    TreeDecoder,
    evaluating,
    log_partition,
    plain_t5,
    token_logits,
)
from mmrec_plugins.models.p5.trie import ItemTrie

Normalise = Literal["vocabulary", "allowed"]

_PASS_NODES = 512
"""Candidates of all sources that are scored in one go."""

_GROUP_TOKENS = 256
"""Tokens, padding counted, that a CPU's encoder reads in one go where sources are padded."""


@dataclass(frozen=True, slots=True)
class Beams:
    """The best items that beam search found, best first.

    Attributes:
        items: (B, K) int64, no item twice; -1 = there was no further item.
        scores: (B, K) float32, falling; -inf where there was no further item.
    """

    items: Tensor
    scores: Tensor


def encode_sources(
    model: nn.Module,
    input_ids: Tensor | None = None,
    attention_mask: Tensor | None = None,
    *,
    inputs_embeds: Tensor | None = None,
) -> Sources:
    """Read B sources once: the encoder, and the keys and values of the cross-attention.

    Args:
        model: a T5ForConditionalGeneration (T5 or v1.1, any size, float32 or bfloat16), plain or
            under PEFT.
        input_ids: (B, S) int64 tokens, padded on either side.
        attention_mask: (B, S), 1 or True = token, 0 or False = padding; None = no padding.
        inputs_embeds: (B, S, D) instead of `input_ids`.

    Raises:
        ModelError: the model is none of these, or not exactly one of the inputs is given.
    """
    base = plain_t5(model)
    if (input_ids is None) == (inputs_embeds is None):
        raise ModelError("give either input_ids or inputs_embeds, not both and not neither")
    given = input_ids if input_ids is not None else inputs_embeds
    assert given is not None  # noqa: S101 - checked above, which mypy does not follow
    named = "input_ids" if input_ids is not None else "inputs_embeds"
    with evaluating(base):
        mask = base.lm_head.weight.new_zeros(len(given), 1, 1, given.shape[1])
        if attention_mask is not None:
            padding = ~attention_mask.bool()[:, None, None]
            mask.masked_fill_(padding, torch.finfo(mask.dtype).min)
        heads = [block.layer[1].EncDecAttention for block in base.decoder.block]
        size = (len(given), heads[0].n_heads, given.shape[1], heads[0].key_value_proj_dim)
        keys, values = ([mask.new_zeros(size) for _ in heads] for _ in range(2))
        for rows, window in _windows(given, attention_mask):
            part = None if attention_mask is None else attention_mask[rows, window]
            inputs = {named: given[rows, window], "attention_mask": part}
            states = base.encoder(**inputs).last_hidden_state
            for attention, key, value in zip(heads, keys, values, strict=True):
                for project, kept in ((attention.k, key), (attention.v, value)):
                    found = project(states).unflatten(2, (attention.n_heads, -1))
                    kept[rows, :, window] = found.transpose(1, 2)
    return Sources(base, tuple(keys), tuple(values), mask)


def _windows(given: Tensor, attention_mask: Tensor | None) -> list[tuple[Tensor | slice, slice]]:
    """Return which rows the encoder reads at a time, and the columns that hold their tokens.

    On a CPU a batch costs what its tokens cost, padding too, so sources of like lengths are read
    together. A GPU is faster with all at once.
    """
    everything: list[tuple[Tensor | slice, slice]] = [(slice(None), slice(None))]
    if attention_mask is None or given.device.type != "cpu" or bool(attention_mask.all()):
        return everything
    tokens = attention_mask.bool()
    width = tokens.shape[1]
    some = tokens.any(1)
    first = torch.where(some, tokens.int().argmax(1), 0)
    last = torch.where(some, width - tokens.flip(1).int().argmax(1), width)
    order = torch.argsort(last - first, stable=True)
    size = max(1, _GROUP_TOKENS // width)
    groups = [order[start : start + size] for start in range(0, len(order), size)]
    return [(rows, slice(int(first[rows].min()), int(last[rows].max()))) for rows in groups]


def beam_search(
    sources: Sources,
    trie: ItemTrie,
    *,
    beams: int,
    excluded: Tensor | None = None,
    length_penalty: float = 0.0,
    normalise: Normalise = "vocabulary",
) -> Beams:
    """Find the K items that a beam search of K beams ranks highest.

    The same items and scores as `generate(num_beams=K, num_return_sequences=K,
    prefix_allowed_tokens_fn=..., length_penalty=..., early_stopping="never")` of transformers
    where that finds K items; where the trie holds fewer, `generate` fills up with repeats and
    sequences outside of the trie, and this with -1.

    Args:
        sources: B sources.
        trie: the items, on the sources' device.
        beams: K, at least 1.
        excluded: (B, E) int64 items that each source may not name, -1 = none. No beam is lost to
            them: a start that leads only to them is left out too. Other items' scores stand.
        length_penalty: a finished item's score is the sum of its log-probabilities divided by its
            number of tokens to this power; 0 leaves the sum. Not negative.
        normalise: see the module.

    Raises:
        ModelError: an argument is out of its range, or a token of the trie is not in the model.
    """
    if beams < 1:
        raise ModelError(f"a beam search needs at least 1 beam; found {beams}")
    if length_penalty < 0:
        raise ModelError(f"length_penalty is 0 or more; found {length_penalty}")
    _check_tokens(sources, trie)
    closed = None if excluded is None else trie.closed(excluded)
    search = _Search(sources, trie, beams, length_penalty, normalise, closed)
    with evaluating(sources.model):
        return search.run()


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
    _check_tokens(sources, trie)
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

    It reads `trie.n_inner` nodes of each source, where a beam search reads at most 1 + K (L - 1):
    cheaper for items of one token each (one node) and for small catalogs.
    """
    scores = sources.mask.new_empty(len(sources), trie.n_items, dtype=torch.float32)
    for start in range(0, trie.n_items, _PASS_NODES):
        block = trie.order[start : start + _PASS_NODES]
        candidates = block.expand(len(sources), -1)
        scores[:, block] = score_candidates(sources, trie, candidates, normalise=normalise)
    return scores


@dataclass(slots=True)
class _Search:
    """One beam search; `run` reads the trie level by level."""

    sources: Sources
    trie: ItemTrie
    beams: int
    length_penalty: float
    normalise: Normalise
    closed: Tensor | None

    def run(self) -> Beams:
        """Return the finished items."""
        sizes = [1, *(inner for inner in (n - ends for n, ends in self.trie.sizes) if inner)]
        decoder = TreeDecoder(self.sources, sum(min(self.beams, size) for size in sizes))
        device, batch = self.sources.mask.device, len(self.sources)
        start = self.sources.model.config.decoder_start_token_id
        tokens = torch.full((batch, 1), start, device=device)
        node = torch.zeros_like(tokens)
        score = torch.zeros(batch, 1, device=device)
        parents: Tensor | None = None
        done = Beams(node[:, :0], score[:, :0])
        for level in range(self.trie.depth):
            states = decoder.step(tokens, parents)
            child, scores = self._continue(level, states, node, score)
            done = self._finish(level, done, child, scores)
            n_nodes, n_ends = self.trie.sizes[level]
            if n_nodes == n_ends:
                break
            ends = self.trie.item[child] >= 0
            inner = scores.masked_fill(ends, -torch.inf) if n_ends else scores
            width = min(self.beams, n_nodes - n_ends, inner.shape[1])
            score, best = inner.topk(width)
            n_open = self._n_open(done, score)
            if not n_open:
                break
            score, best = score[:, :n_open], best[:, :n_open]
            node = child.gather(1, best)
            parents = best // self.trie.widest[level]
            # A beam without a continuation reads some token; it stays at -inf and gets none.
            tokens = self.trie.token[node].clamp(min=0)
        return self._fill(done)

    def _continue(
        self, level: int, states: Tensor, node: Tensor, score: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return all continuations' nodes and summed scores, (B, T * widest)."""
        trie = self.trie
        child, allowed = trie.children(level, node)
        allowed = allowed & (score > -torch.inf)[:, :, None]
        logits = token_logits(self.sources.model, states, trie.level_tokens[level])
        logits = logits.gather(2, trie.slot[child].clamp(min=0))
        if self.normalise == "vocabulary":
            total = log_partition(self.sources.model, states)
        else:
            total = logits.masked_fill(~allowed, -torch.inf).logsumexp(2)
        if self.closed is not None and len(self.closed):
            source = torch.arange(len(node), device=node.device)[:, None, None]
            key = source * trie.n_nodes + child
            near = torch.searchsorted(self.closed, key).clamp(max=len(self.closed) - 1)
            allowed = allowed & (self.closed[near] != key)
        scores = score[:, :, None] + (logits - total[:, :, None])
        scores = torch.where(allowed, scores, -torch.inf)
        return child.flatten(1), scores.flatten(1)

    def _finish(self, level: int, done: Beams, child: Tensor, scores: Tensor) -> Beams:
        """Add the items that end here. Only the best K continuations may, as in `generate`."""
        if not self.trie.sizes[level][1]:
            return done
        best, chosen = scores.topk(min(self.beams, scores.shape[1]))
        items = self.trie.item[child.gather(1, chosen)]
        best = torch.where(items >= 0, best / (level + 1) ** self.length_penalty, -torch.inf)
        pool = torch.cat([done.scores, best], dim=1)
        items = torch.cat([done.items, items], dim=1)
        best, chosen = pool.topk(min(self.beams, pool.shape[1]))
        return Beams(items.gather(1, chosen), best)

    def _n_open(self, done: Beams, score: Tensor) -> int:
        """Return how many beams, best first, are read on: of the source that needs most.

        Sums only fall, so a beam that is not above the last of K finished items is done with; what
        its continuations keep out of the best K is below them.
        """
        bound = score / self.trie.depth**self.length_penalty
        full = done.scores.shape[1] == self.beams
        worst = done.scores[:, -1:] if full else torch.full_like(bound[:, :1], -torch.inf)
        return int((bound > worst).any(0).sum())

    def _fill(self, done: Beams) -> Beams:
        """Return exactly K columns, -1 and -inf where nothing was found."""
        missing = self.beams - done.items.shape[1]
        items = done.items.masked_fill(done.scores == -torch.inf, -1)
        return Beams(
            nn.functional.pad(items, (0, missing), value=-1),
            nn.functional.pad(done.scores, (0, missing), value=-torch.inf),
        )


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


def _check_tokens(sources: Sources, trie: ItemTrie) -> None:
    """Refuse a trie whose tokens the model does not have."""
    words = sources.model.lm_head.weight.shape[0]
    highest = max(int(tokens[-1]) for tokens in trie.level_tokens)
    if highest >= words:
        raise ModelError(
            f"the trie holds token {highest}, but the model's vocabulary has {words}; resize its "
            "embeddings before decoding"
        )
