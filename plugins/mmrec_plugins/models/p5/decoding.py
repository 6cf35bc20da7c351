"""Items named by a T5, token by token: beams over a trie. What a score is, `likelihood` says.

Letters as in `decoder`; further N items, K beams, L tokens of the longest item.
"""

from dataclasses import dataclass

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
from mmrec_plugins.models.p5.likelihood import Normalise, check_tokens
from mmrec_plugins.models.p5.trie import ItemTrie

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
        normalise: see `likelihood`.

    Raises:
        ModelError: an argument is out of its range, or a token of the trie is not in the model.
    """
    if beams < 1:
        raise ModelError(f"a beam search needs at least 1 beam; found {beams}")
    if length_penalty < 0:
        raise ModelError(f"length_penalty is 0 or more; found {length_penalty}")
    check_tokens(sources, trie)
    closed = None if excluded is None else trie.closed(excluded)
    search = _Search(sources, trie, beams, length_penalty, normalise, closed)
    with evaluating(sources.model):
        return search.run()


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
        node = torch.zeros(batch, 1, dtype=torch.int64, device=device)
        place = torch.zeros_like(node)
        score = torch.zeros(batch, 1, device=device)
        done = Beams(node[:, :0], score[:, :0])
        for level in range(self.trie.depth):
            child, scores, rank = self._continue(level, decoder, node, place, score)
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
            place = rank.gather(1, best // self.trie.widest[level])
        return self._fill(done)

    def _continue(
        self, level: int, decoder: TreeDecoder, node: Tensor, place: Tensor, score: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Follow every beam by one token; the decoder reads those whose next token is not certain.

        Args:
            level: of the tokens behind the beams, from 0.
            decoder: it has read the levels before.
            node: (B, T) of each beam.
            place: (B, T) of the beam's parent within the level that was read before.
            score: (B, T) summed log-probabilities; -inf = no beam.

        Returns:
            All continuations' nodes and summed scores, (B, T * widest); (B, T) place of each beam
            within the level that is read here, 0 where it is not.
        """
        trie = self.trie
        child, allowed = trie.children(level, node)
        open_beams = score > -torch.inf
        allowed = allowed & open_beams[:, :, None]
        scores = score[:, :, None].expand(child.shape)
        unknown = open_beams & (trie.below[node] > 1) if self._shares_allowed else open_beams
        width = int(unknown.sum(1).max())
        rank = torch.zeros_like(node)
        if width:
            # A source with fewer such beams reads others beside, of which nothing is taken.
            order = unknown.int().argsort(dim=1, descending=True, stable=True)[:, :width]
            steps = self._read(level, decoder, node.gather(1, order), place.gather(1, order))
            steps = steps.masked_fill(~unknown.gather(1, order)[:, :, None], 0.0)
            rank.scatter_(1, order, torch.arange(width, device=node.device).expand_as(order))
            added = torch.zeros_like(scores)
            scores = scores + added.scatter_(1, order[:, :, None].expand_as(steps), steps)
        if self.closed is not None and len(self.closed):
            source = torch.arange(len(node), device=node.device)[:, None, None]
            key = source * trie.n_nodes + child
            near = torch.searchsorted(self.closed, key).clamp(max=len(self.closed) - 1)
            allowed = allowed & (self.closed[near] != key)
        scores = torch.where(allowed, scores, -torch.inf)
        return child.flatten(1), scores.flatten(1), rank

    def _read(self, level: int, decoder: TreeDecoder, node: Tensor, place: Tensor) -> Tensor:
        """Return (B, W, widest) log-probabilities of the tokens behind (B, W) nodes."""
        model, trie = self.sources.model, self.trie
        if level:
            # A node that names no token (no beam) reads some token.
            states = decoder.step(trie.token[node].clamp(min=0), place)
        else:
            states = decoder.step(torch.full_like(node, model.config.decoder_start_token_id))
        logits = token_logits(model, states, trie.level_tokens[level])
        child, there = trie.children(level, node)
        # What is behind no beam is of any level, and masked later.
        found = logits.gather(2, trie.slot[child].clamp(0, logits.shape[2] - 1))
        if self._shares_allowed:
            total = found.masked_fill(~there, -torch.inf).logsumexp(2)
        else:
            total = log_partition(model, states)
        return found - total[:, :, None]

    @property
    def _shares_allowed(self) -> bool:
        return self.normalise == "allowed"

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
