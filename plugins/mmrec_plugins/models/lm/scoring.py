"""Score answers to a prompt by their likelihood, the prompt read once for all of them.

The answers of one prompt form a tree: those that start alike share the tokens they start with. All
nodes of the tree are read in one row behind the prompt; a mask shows each node the whole prompt and
its own ancestors, and its position is its depth (tree attention: SpecInfer, Miao et al., ASPLOS
2024). The last token of an answer predicts nothing that is asked for and is not read.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mmrec_bench.errors import ModelError
from mmrec_bench.types import FloatArray
from mmrec_plugins.models.lm.generation import generate
from mmrec_plugins.models.lm.prefill import (
    Prefilled,
    extend,
    inference,
    length_batches,
    pass_tokens,
    prefill,
    visual_tokens,
)

__all__ = ["ScoringRequest", "generate", "score_answers", "score_labels"]

Tokens = Sequence[int]

log = logging.getLogger("mmrec_bench")

# Rows of logits whose normaliser is computed at once. On a CPU they should stay in its cache (four
# times faster); on a GPU 512 rows of a 65,024-word vocabulary take 133 MB in fp32.
_CPU_SOFTMAX_ROWS = 16
_GPU_SOFTMAX_ROWS = 512


@dataclass(frozen=True, slots=True)
class ScoringRequest:
    """A prompt and the answers to score behind it.

    Attributes:
        prompt_ids: P token ids.
        answer_ids: C lists of token ids, encoded apart from the prompt, with the end token where it
            shall count. A negative id is the answer's picture (see `visual`).
    """

    prompt_ids: list[int]
    answer_ids: list[list[int]]


@dataclass(slots=True)
class AnswerTree:
    """Answers of one prompt that are read in one row; node 0 stands for the prompt's end.

    Attributes:
        tokens: token id of each node.
        parents: node before each node; always a smaller number.
        depths: tokens between the prompt and the node.
        ends: (answer's number, its last node).
        pictures: (answer's number, node of its picture), which follows the prompt's end alone.
    """

    tokens: list[int] = field(default_factory=lambda: [-1])
    parents: list[int] = field(default_factory=lambda: [-1])
    depths: list[int] = field(default_factory=lambda: [-1])
    ends: list[tuple[int, int]] = field(default_factory=list)
    pictures: list[tuple[int, int]] = field(default_factory=list)
    _children: dict[tuple[int, int], int] = field(default_factory=dict)

    def add(self, number: int, answer: Tokens) -> None:
        node = 0
        for token in answer:
            if token < 0:
                self.pictures.append((number, self._child(0, token)))
            else:
                node = self._child(node, token)
        self.ends.append((number, node))

    def _child(self, node: int, token: int) -> int:
        child = self._children.get((node, token))
        if child is None:
            child = len(self.tokens)
            self._children[node, token] = child
            self.tokens.append(token)
            self.parents.append(node)
            self.depths.append(self.depths[node] + 1)
        return child

    def inner(self) -> list[int]:
        """Return the nodes that must be read, in order: those that others follow."""
        return sorted(set(self.parents[1:]) - {0})


def score_answers(
    model: nn.Module,
    requests: Sequence[ScoringRequest],
    *,
    pad_id: int,
    prompts_per_batch: int | None = None,
    candidates_per_row: int | None = None,
) -> list[FloatArray]:
    """Return the log-likelihood of each answer: the sum over its tokens, each given all before it.

    Args:
        model: a transformers causal model, plain or under PEFT (prefix tuning, LoRA), on any device
            and in any dtype. It is left in the mode (train / eval) that it is in.
        requests: prompts with their answers.
        pad_id: any valid token id.
        prompts_per_batch: prompts read at once; None = by their length and the device.
        candidates_per_row: answers read at once behind each prompt; None = by length and device.

    Returns:
        For each request, (C,) float32 log-likelihoods (natural logarithm, fp32 softmax), plus the
        energy of the answer's picture where it has one. They
        depend on the request alone, not on its neighbours, up to float noise.

    Raises:
        ModelError: an empty prompt or answer, or a model that keeps no keys and values.
    """
    for request in requests:
        if not all(ids and ids[-1] >= 0 for ids in request.answer_ids):
            raise ModelError("an answer has no tokens, so that it has no likelihood")
    results: list[FloatArray] = [np.empty(0, np.float32)] * len(requests)
    order = sorted(
        (i for i, request in enumerate(requests) if request.answer_ids),
        key=lambda i: len(requests[i].prompt_ids),
    )
    lengths = [len(requests[i].prompt_ids) for i in order]
    with inference(model):
        for at in length_batches(lengths, prompts_per_batch, pass_tokens(model)):
            chosen = order[at]
            batch = [requests[i] for i in chosen]
            scores = _score_fitting(model, batch, pad_id, candidates_per_row)
            for i, row in zip(chosen, scores, strict=True):
                results[i] = row
    return results


def score_labels(
    model: nn.Module, prompts: Sequence[Tokens], label_ids: Sequence[Tokens], *, pad_id: int
) -> list[FloatArray]:
    """Return the log-probability of labels of one token each: one forward pass over the prompts.

    Args:
        model: as for `score_answers`.
        prompts: token ids of each prompt.
        label_ids: for each prompt, the token ids of its C labels.
        pad_id: any valid token id.

    Returns:
        For each prompt, (C,) float32 log-probabilities over the whole vocabulary.

    Raises:
        ModelError: see `score_answers`.
    """
    requests = [
        ScoringRequest(list(prompt), [[label] for label in labels])
        for prompt, labels in zip(prompts, label_ids, strict=True)
    ]
    return score_answers(model, requests, pad_id=pad_id)


def _score_fitting(
    model: nn.Module,
    batch: Sequence[ScoringRequest],
    pad_id: int,
    candidates_per_row: int | None,
) -> list[FloatArray]:
    """Score a batch; where the GPU's memory does not hold it, in smaller parts."""
    at_once = candidates_per_row or max(len(request.answer_ids) for request in batch)
    try:
        return _score_batch(model, batch, pad_id, candidates_per_row)
    except torch.cuda.OutOfMemoryError as error:
        if len(batch) == 1 and at_once == 1:
            raise ModelError(
                f"the device's memory does not hold a prompt of {len(batch[0].prompt_ids)} tokens "
                "with one answer; use a shorter prompt, a smaller backbone or another device"
            ) from error
    # Behind the handler, so that what the failed pass held is freed.
    log.warning("out of memory with %d prompts x %d answers: halved", len(batch), at_once)
    if len(batch) == 1:
        return _score_fitting(model, batch, pad_id, at_once // 2)
    middle = len(batch) // 2
    return [
        *_score_fitting(model, batch[:middle], pad_id, candidates_per_row),
        *_score_fitting(model, batch[middle:], pad_id, candidates_per_row),
    ]


def _score_batch(
    model: nn.Module,
    batch: Sequence[ScoringRequest],
    pad_id: int,
    candidates_per_row: int | None,
) -> list[FloatArray]:
    read = prefill(model, [request.prompt_ids for request in batch], pad_id=pad_id)
    # Sorted, answers that start alike fall into the same tree.
    orders = [
        sorted(range(len(request.answer_ids)), key=request.answer_ids.__getitem__)
        for request in batch
    ]
    whole = [_tree(request, order) for request, order in zip(batch, orders, strict=True)]
    rounds = _n_rounds(whole, candidates_per_row, pass_tokens(model))
    scores = [np.empty(len(request.answer_ids), np.float32) for request in batch]
    for part in range(rounds):
        trees = whole
        if rounds > 1:
            parts = [np.array_split(order, rounds)[part].tolist() for order in orders]
            trees = [_tree(request, order) for request, order in zip(batch, parts, strict=True)]
        log_probs = _node_log_probs(model, read, trees, pad_id)
        for row, tree, values in zip(scores, trees, log_probs, strict=True):
            sums = values.tolist()
            for node in range(1, len(sums)):
                sums[node] += sums[tree.parents[node]]
            for number, node in tree.ends:
                row[number] = sums[node]
            for number, node in tree.pictures:
                row[number] += sums[node]
    return scores


def _tree(request: ScoringRequest, numbers: Sequence[int]) -> AnswerTree:
    tree = AnswerTree()
    for number in numbers:
        tree.add(number, request.answer_ids[number])
    return tree


def _n_rounds(trees: Sequence[AnswerTree], candidates_per_row: int | None, max_tokens: int) -> int:
    """Return in how many parts the answers of each prompt are read."""
    most = max(len(tree.ends) for tree in trees)
    if candidates_per_row is not None:
        return math.ceil(most / candidates_per_row)
    # Attention between answers, which see nothing of each other, grows with the square of a row.
    row_tokens = max(1, max_tokens // max(len(trees), 4))
    widest = max(len(tree.inner()) for tree in trees)
    return min(most, max(1, math.ceil(widest / row_tokens)))


def _node_log_probs(
    model: nn.Module, read: Prefilled, trees: Sequence[AnswerTree], pad_id: int
) -> list[NDArray[np.float64]]:
    """Return, for each tree, (nodes,) log-probabilities of each node's token behind its ancestors.

    Entry 0, which stands for the prompt, is 0.
    """
    device = read.logits.device
    inner = [tree.inner() for tree in trees]
    # Slot 0 is the prompt's last token, slot 1 the first node that is read.
    slots = [{0: 0} | {node: s + 1 for s, node in enumerate(nodes)} for nodes in inner]
    width = max(len(nodes) for nodes in inner)
    logits = [read.logits[:, None]]  # (B, 1, vocabulary)
    if width:
        tokens = np.full((len(trees), width), pad_id)
        depths = np.zeros((len(trees), width), np.int64)
        sees = np.zeros((len(trees), width, width), np.bool_)
        for row, (tree, nodes) in enumerate(zip(trees, inner, strict=True)):
            for at, node in enumerate(nodes):
                tokens[row, at] = tree.tokens[node]
                depths[row, at] = tree.depths[node]
                if tree.parents[node]:
                    sees[row, at] = sees[row, slots[row][tree.parents[node]] - 1]
                sees[row, at, at] = True
        on_device = (torch.from_numpy(array).to(device) for array in (tokens, depths, sees))
        logits.append(extend(model, read, *on_device))  # (B, T, vocabulary)
    wanted = [
        (row, slots[row][tree.parents[node]], tree.tokens[node])
        for row, tree in enumerate(trees)
        for node in range(1, len(tree.tokens))
    ]
    places = torch.tensor(wanted, device=device).T  # (3, n)
    flat = _log_softmax_at(logits, places)
    if bool((places[2] < 0).any()):
        flat = np.where((places[2] < 0).cpu().numpy(), _picture_energies(model, read, places), flat)
    ends = np.cumsum([len(tree.tokens) - 1 for tree in trees])[:-1]
    return [np.concatenate([[0.0], values]) for values in np.split(flat, ends)]


def _picture_energies(model: nn.Module, read: Prefilled, places: Tensor) -> NDArray[np.float64]:
    """Return, for (3, n) rows, slots and ids, (n,) energies of pictures; 0 where there is none."""
    visual = visual_tokens(model)
    if visual is None or read.states is None:
        raise ModelError("an answer has a picture, but this model sees none")
    row, _, ids = places
    at = ids < 0
    found = torch.zeros(len(ids), device=ids.device)
    found[at] = visual.energies(read.states[row[at]], ids[at])
    return found.double().cpu().numpy()


def _log_softmax_at(logits: Sequence[Tensor], wanted: Tensor) -> NDArray[np.float64]:
    """Return the log-probability at each of n places, in fp32, over the whole vocabulary.

    Args:
        logits: one or two tensors (B, slots, vocabulary), to be read as one along the slots.
        wanted: (3, n) row, slot and token.
    """
    normaliser = torch.cat([_normaliser(part) for part in logits], dim=1)  # (B, slots)
    row, slot, token = wanted[0], wanted[1], wanted[2].clamp(min=0)
    first = logits[0][row, 0, token]
    chosen = first
    if len(logits) > 1:
        chosen = torch.where(slot > 0, logits[1][row, (slot - 1).clamp(min=0), token], first)
    return (chosen.float() - normaliser[row, slot]).double().cpu().numpy()


def _normaliser(logits: Tensor) -> Tensor:
    """Return the logarithm of the softmax's denominator, (B, slots) fp32."""
    step = _CPU_SOFTMAX_ROWS if logits.device.type == "cpu" else _GPU_SOFTMAX_ROWS
    rows = logits.flatten(0, 1)
    parts = [rows[at : at + step].float().logsumexp(-1) for at in range(0, len(rows), step)]
    return torch.cat(parts).view(logits.shape[:2])
