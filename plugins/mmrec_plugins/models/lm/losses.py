"""What tuning minimises: the target's text, or the target's place among the candidates.

`answer_loss` is the cross-entropy of the target's answer tokens. `ranking_loss` is the
cross-entropy of the target under a softmax over all candidates' answer likelihoods, which are what
candidates are ranked by afterwards (ListNet's top-one loss: Cao et al., ICML 2007). The second asks
only what a ranking depends on, at one and a half to two times the cost of a step: it reads all
candidates' answers in one row behind the prompt, as the tree that `scoring` uses.

Letters: B examples, P longest prompt, W most tree nodes read, V virtual tokens, C most candidates.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from mmrec_bench.types import FloatArray
from mmrec_plugins.models.lm.adapters import has_prefix
from mmrec_plugins.models.lm.encoding import IGNORED, Tokens, pad_left
from mmrec_plugins.models.lm.prefill import (
    additive_mask,
    causal_model,
    last_hidden,
    token_inputs,
    visual_tokens,
)
from mmrec_plugins.models.lm.scoring import AnswerTree
from mmrec_plugins.models.tensors import take_rows

RowT_contra = TypeVar("RowT_contra", contravariant=True)


class LossFunction(Protocol[RowT_contra]):
    """A loss of some examples, summed, fp32, with gradients."""

    def __call__(
        self, model: nn.Module, rows: Sequence[RowT_contra], device: torch.device
    ) -> Tensor:
        """Return () the sum; it is divided by the rows' `n_terms` of a whole step."""
        ...


@dataclass(frozen=True, slots=True)
class Choice:
    """An example of the ranking loss.

    Attributes:
        prompt_ids: tokens up to where the answer starts.
        tree: all candidates' answers.
        target: number of the target's answer.
        offsets: (C,) float32 taken off the candidates' log-likelihoods.
        shortened: history was left out of the prompt to fit.
    """

    prompt_ids: list[int]
    tree: AnswerTree
    target: int
    offsets: FloatArray
    shortened: bool = False

    def __len__(self) -> int:
        """Return the tokens that are read."""
        return len(self.prompt_ids) + len(self.tree.inner())

    @property
    def n_terms(self) -> int:
        """One choice."""
        return 1

    @property
    def kind(self) -> str:
        """The run's own examples."""
        return "ranking"


def answer_loss(
    model: nn.Module, rows: Sequence[Tokens], device: torch.device, *, pad_id: int
) -> Tensor:
    """Return the summed cross-entropy of the answers' tokens, nats.

    Logits are made for the last A positions only: (B, A, vocabulary) instead of (B, T, vocabulary).
    """
    batch = pad_left(rows, pad_id)
    labels = batch.labels.to(device, non_blocking=True)
    logits = model(
        **token_inputs(model, batch.input_ids.to(device, non_blocking=True)),
        attention_mask=batch.attention_mask.to(device, non_blocking=True),
        position_ids=batch.position_ids.to(device, non_blocking=True),
        use_cache=False,
        logits_to_keep=labels.shape[1],
    ).logits
    return nn.functional.cross_entropy(
        logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum"
    )


def ranking_loss(
    model: nn.Module, rows: Sequence[Choice], device: torch.device, *, pad_id: int
) -> Tensor:
    """Return the summed cross-entropy of the targets among their candidates, nats."""
    scores = choice_scores(model, rows, device, pad_id=pad_id)
    targets = torch.tensor([row.target for row in rows], device=device)
    return nn.functional.cross_entropy(scores, targets, reduction="sum")


def choice_scores(
    model: nn.Module, rows: Sequence[Choice], device: torch.device, *, pad_id: int
) -> Tensor:
    """Return (B, C) log-likelihoods less offsets, with gradients; -inf where there is no candidate.

    Args:
        model: a causal model, plain or under PEFT (prefix tuning, LoRA).
        rows: B examples.
        device: the model's.
        pad_id: any valid token id.
    """
    base = causal_model(model)
    cache, n_virtual = None, 0
    if has_prefix(model):
        cache = model.get_prompt(len(rows))
        n_virtual = int(model.active_peft_config.num_virtual_tokens)
    layout = _lay_out(rows, pad_id)
    sees = torch.from_numpy(layout.sees).to(device)
    if n_virtual:
        sees = torch.cat([sees.new_ones(*sees.shape[:2], n_virtual), sees], dim=2)
    ids = torch.from_numpy(layout.ids).to(device)
    with last_hidden(model) as hidden:
        logits = base(
            **token_inputs(model, ids),
            attention_mask=additive_mask(sees, base),
            position_ids=torch.from_numpy(layout.positions).to(device) + n_virtual,
            past_key_values=cache,
            use_cache=False,
            logits_to_keep=layout.kept,
        ).logits  # (B, 1 + W, vocabulary)
    row, slot, token = torch.from_numpy(layout.edges).to(device)
    edges = logits.float().log_softmax(-1)[row, slot, token.clamp(min=0)]
    visual = visual_tokens(model)
    if visual is not None and bool((token < 0).any()):
        at = token < 0
        prompt = ids.shape[1] - layout.kept + 1
        states = visual.read(hidden[0][:, :prompt], ids[:, :prompt])
        energies = visual.energies(take_rows(states, row[at]), token[at])
        edges = edges.index_put((at,), energies.to(edges.dtype))
    width = max(len(each.offsets) for each in rows)
    place, edge = torch.from_numpy(layout.paths).to(device)
    offsets = np.full((len(rows), width), np.inf, np.float32)
    for at, each in enumerate(rows):
        offsets[at, : len(each.offsets)] = each.offsets
    sums: Tensor = edges.new_zeros(len(rows) * width).index_add(0, place, take_rows(edges, edge))
    return sums.view(len(rows), width) - torch.from_numpy(offsets).to(device)


@dataclass(frozen=True, slots=True)
class _Layout:
    """Prompts, padded on the left, and behind each its tree, padded on the right; T = P + W.

    Attributes:
        ids: (B, T) int64.
        positions: (B, T) int64, counted from each prompt's first token.
        sees: (B, T, T) bool, which token sees which; each sees itself.
        kept: 1 + W, last positions whose logits are needed.
        edges: (3, n) int64: row, kept position and token of each step from a node to the next.
        paths: (2, m) int64: place of an answer in the flat (B, C) table, and an edge on its way.
    """

    ids: np.ndarray[tuple[int, int], np.dtype[np.int64]]
    positions: np.ndarray[tuple[int, int], np.dtype[np.int64]]
    sees: np.ndarray[tuple[int, int, int], np.dtype[np.bool_]]
    kept: int
    edges: np.ndarray[tuple[int, int], np.dtype[np.int64]]
    paths: np.ndarray[tuple[int, int], np.dtype[np.int64]]


def _lay_out(rows: Sequence[Choice], pad_id: int) -> _Layout:
    longest = max(len(row.prompt_ids) for row in rows)
    nodes_of = [row.tree.inner() for row in rows]
    total = longest + max(len(nodes) for nodes in nodes_of)
    width = max(len(row.offsets) for row in rows)
    ids = np.full((len(rows), total), pad_id, np.int64)
    positions = np.zeros((len(rows), total), np.int64)
    sees = np.repeat(np.eye(total, dtype=np.bool_)[None], len(rows), axis=0)
    edges: list[tuple[int, int, int]] = []
    paths: list[tuple[int, int]] = []
    for at, (row, nodes) in enumerate(zip(rows, nodes_of, strict=True)):
        length, tree = len(row.prompt_ids), row.tree
        start = longest - length
        ids[at, start:longest] = row.prompt_ids
        positions[at, start:longest] = np.arange(length)
        sees[at, start:longest, start:longest] = np.tri(length, dtype=np.bool_)
        slot = {0: longest - 1} | {node: longest + i for i, node in enumerate(nodes)}
        for node in nodes:  # a parent's number is smaller, so its row is complete
            here, parent = slot[node], tree.parents[node]
            ids[at, here] = tree.tokens[node]
            positions[at, here] = length + tree.depths[node]
            sees[at, here, start:longest] = True
            if parent:
                sees[at, here] |= sees[at, slot[parent]]
        first = len(edges) - 1  # node n's edge is first + n
        edges += [
            (at, slot[tree.parents[node]] - longest + 1, tree.tokens[node])
            for node in range(1, len(tree.tokens))
        ]
        for number, end in [*tree.ends, *tree.pictures]:
            node = end
            while node:
                paths.append((at * width + number, first + node))
                node = tree.parents[node]
    return _Layout(
        ids,
        positions,
        sees,
        total - longest + 1,
        np.array(edges, np.int64).T.copy(),
        np.array(paths, np.int64).T.copy(),
    )
