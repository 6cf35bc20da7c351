"""The token sequences of all items as one tree of tensors.

Nodes are numbered level by level and, within a level, in the order of their parents. So the
children of a node are a range of node numbers, a child's number is the state after its token, and
nothing but arithmetic on tensors is needed to follow a beam.

Letters: N items, L longest sequence, M nodes (the root counts), B sources, E excluded items.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain, pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mmrec_bench.errors import ModelError

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ItemTrie:
    """All items' token sequences; node 0 is the root. Build it with `ItemTrie.build`.

    Attributes:
        first: (M + 1,) int64; the children of node m are the nodes `first[m]:first[m + 1]`.
        token: (M,) int64 token that leads into a node; -1 at the root.
        slot: (M,) int64 place of `token` within `level_tokens` of its level; -1 at the root.
        item: (M,) int64 item whose sequence ends in a node; -1 = none.
        below: (M,) int64 number of items whose sequences end in a node or below it.
        path: (N, L) int64 nodes of each item's sequence, the root left out; -1 behind its end.
        order: (N,) int64 items by their sequences, so that neighbours share their first tokens.
        level_tokens: of each level 1..L, its distinct tokens, ascending.
        widest: of each level 1..L, the most children that a node above it has.
        sizes: of each level 1..L, its nodes, and how many of them end an item's sequence.
        end: token that ends every sequence; None = sequences end where they end.
    """

    first: Tensor
    token: Tensor
    slot: Tensor
    item: Tensor
    below: Tensor
    path: Tensor
    order: Tensor
    level_tokens: tuple[Tensor, ...]
    widest: tuple[int, ...]
    sizes: tuple[tuple[int, int], ...]
    end: int | None = None

    @classmethod
    def build(cls, codes: Sequence[Sequence[int]], end: int | None = None) -> "ItemTrie":
        """Build the trie on the CPU.

        Args:
            codes: token ids of each item, without the end token; lengths may differ.
            end: token appended to every sequence (T5's `</s>` is 1). Without it no item's sequence
                may be the start of another's, for nothing would tell them apart.

        Raises:
            ModelError: there is no item, a sequence is empty, a token is negative or is the end
                token, or two items have the same sequence or one that starts the other's.
        """
        matrix, lengths = _matrix(codes, end)
        order = np.lexsort(matrix.T[::-1])
        _check_distinct(matrix[order], lengths[order], order)
        path, parent, token, sizes = _number(matrix[order], lengths[order])
        n_nodes = len(token)
        first = np.concatenate([[1], 1 + np.bincount(parent, minlength=n_nodes).cumsum()])
        item = np.full(n_nodes, -1, np.int64)
        item[path[np.arange(len(path)), lengths[order] - 1]] = order
        below = np.bincount(path[path >= 0], minlength=n_nodes)
        below[0] = len(path)
        unsorted = np.empty_like(path)
        unsorted[order] = path
        bounds = np.concatenate([[1], 1 + np.cumsum(sizes)])
        slot = np.full(n_nodes, -1, np.int64)
        tokens, widest, ends = [], [], []
        for start, stop in pairwise(bounds.tolist()):
            distinct, slot[start:stop] = np.unique(token[start:stop], return_inverse=True)
            tokens.append(torch.from_numpy(distinct))
            widest.append(int(np.bincount(parent[start - 1 : stop - 1]).max()))
            ends.append(int((item[start:stop] >= 0).sum()))
        return cls(
            first=torch.from_numpy(first),
            token=torch.from_numpy(token),
            slot=torch.from_numpy(slot),
            item=torch.from_numpy(item),
            below=torch.from_numpy(below),
            path=torch.from_numpy(unsorted),
            order=torch.from_numpy(order),
            level_tokens=tuple(tokens),
            widest=tuple(widest),
            sizes=tuple(zip(sizes, ends, strict=True)),
            end=end,
        )

    @property
    def n_items(self) -> int:
        """N."""
        return self.path.shape[0]

    @property
    def n_nodes(self) -> int:
        """M, the root included."""
        return self.token.shape[0]

    @property
    def depth(self) -> int:
        """L, the tokens of the longest sequence, the end token included."""
        return self.path.shape[1]

    def to(self, device: torch.device | str) -> "ItemTrie":
        """Return the trie with its tensors on a device."""
        return replace(
            self,
            first=self.first.to(device),
            token=self.token.to(device),
            slot=self.slot.to(device),
            item=self.item.to(device),
            below=self.below.to(device),
            path=self.path.to(device),
            order=self.order.to(device),
            level_tokens=tuple(tokens.to(device) for tokens in self.level_tokens),
        )

    def children(self, level: int, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """Return the nodes below nodes of one level.

        Args:
            level: of the nodes, 0 = the root.
            nodes: (B, T) int64.

        Returns:
            (B, T, widest) int64 children, 0 where a node has fewer; (B, T, widest) bool, True where
            there is one.
        """
        place = torch.arange(self.widest[level], device=nodes.device)
        begin = self.first[nodes]
        there = place < (self.first[nodes + 1] - begin)[:, :, None]
        return torch.where(there, begin[:, :, None] + place, 0), there

    def closed(self, excluded: Tensor) -> Tensor:
        """Return the nodes of each source below which every item is excluded.

        Args:
            excluded: (B, E) int64 items that a source may not name; -1 = none, repeats allowed.

        Returns:
            (D,) int64, ascending, of `source * M + node`. It is as short as the exclusions are
            few; the whole (B, M) table is never made.

        Raises:
            ModelError: an item is not in the trie.
        """
        if excluded.numel() and int(excluded.max()) >= self.n_items:
            raise ModelError(
                f"item {int(excluded.max())} is excluded, but the trie holds {self.n_items} items"
            )
        source = torch.arange(len(excluded), device=excluded.device)[:, None].expand_as(excluded)
        named = excluded >= 0
        pairs = torch.unique(source[named] * self.n_items + excluded[named])
        nodes = self.path[pairs % self.n_items]  # (pairs, L)
        keys = (pairs // self.n_items * self.n_nodes)[:, None] + nodes
        keys, counts = torch.unique(keys[nodes >= 0], return_counts=True)
        closed: Tensor = keys[counts == self.below[keys % self.n_nodes]]
        return closed


def _matrix(codes: Sequence[Sequence[int]], end: int | None) -> tuple[IntArray, IntArray]:
    """Return (N, L) tokens with -1 behind each sequence, and (N,) lengths, ends included."""
    lengths = np.fromiter((len(code) for code in codes), np.int64, len(codes))
    if not len(lengths):
        raise ModelError("a trie needs at least one item; found none")
    if not lengths.all():
        raise ModelError(
            f"item {int(lengths.argmin())} has no tokens; every item needs at least one"
        )
    matrix = np.full((len(lengths), int(lengths.max()) + (end is not None)), -1, np.int64)
    inside = np.arange(matrix.shape[1]) < lengths[:, None]
    matrix[inside] = np.fromiter(chain.from_iterable(codes), np.int64, int(lengths.sum()))
    bad = inside & ((matrix < 0) | (matrix == (-1 if end is None else end)))
    if bad.any():
        row, column = (int(values[0]) for values in bad.nonzero())
        raise ModelError(
            f"token {matrix[row, column]} at place {column} of item {row} cannot be part of a "
            f"sequence: tokens are 0 or more and not the end token ({end})"
        )
    if end is not None:
        matrix[np.arange(len(lengths)), lengths] = end
        lengths = lengths + 1
    return matrix, lengths


def _check_distinct(matrix: IntArray, lengths: IntArray, order: IntArray) -> None:
    """Refuse a sequence that is, or starts, the next one in lexicographic order."""
    inside = np.arange(matrix.shape[1]) < lengths[:-1, None]
    clash = ((matrix[:-1] == matrix[1:]) | ~inside).all(axis=1)
    if not clash.any():
        return
    row = int(clash.argmax())
    short, long = int(order[row]), int(order[row + 1])
    tokens = matrix[row, : lengths[row]].tolist()
    if lengths[row] == lengths[row + 1]:
        raise ModelError(f"items {short} and {long} have the same tokens, {tokens}")
    raise ModelError(
        f"the tokens of item {short}, {tokens}, start those of item {long}; give the trie an end "
        "token, or sequences that do not start one another"
    )


def _number(matrix: IntArray, lengths: IntArray) -> tuple[IntArray, IntArray, IntArray, list[int]]:
    """Number the nodes of sorted sequences.

    Returns:
        (N, L) path, (M - 1,) parents of the nodes behind the root, (M,) tokens, size of each level.
    """
    differs = np.ones(matrix.shape, bool)
    differs[1:] = np.logical_or.accumulate(matrix[1:] != matrix[:-1], axis=1)
    inside = np.arange(matrix.shape[1]) < lengths[:, None]
    starts = differs & inside  # where a row meets a node that the row before it did not
    sizes = starts.sum(axis=0)
    offsets = np.concatenate([[0], sizes.cumsum()[:-1]])
    path = np.where(inside, offsets + starts.cumsum(axis=0), -1)
    above = np.concatenate([np.zeros((len(path), 1), np.int64), path[:, :-1]], axis=1)
    parent = np.concatenate([above[starts[:, d], d] for d in range(matrix.shape[1])])
    token = np.concatenate([matrix[starts[:, d], d] for d in range(matrix.shape[1])])
    return path, parent, np.concatenate([[-1], token]), sizes.tolist()
