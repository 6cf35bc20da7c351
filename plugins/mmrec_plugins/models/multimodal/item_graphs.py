"""Graphs of like items, and products with them.

Letters: N items, E edges, D size of a vector, K neighbours.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmrec_bench.types import BoolArray, Int64Array
from mmrec_plugins.models.graphs import csr
from mmrec_plugins.models.tensors import take_rows

_BLOCK = 1 << 22
"""Numbers of a block that is held at a time (16 MiB)."""


@dataclass(frozen=True)
class Edges:
    """Directed edges between items, sorted by (row, column), each once.

    Attributes:
        row: (E,) int64 on the device.
        column: (E,) int64 on the device.
        n_items: N.
    """

    row: Tensor
    column: Tensor
    n_items: int

    @cached_property
    def keys(self) -> Tensor:
        """(E,) int64, increasing: one number an edge."""
        return self.row * self.n_items + self.column

    @cached_property
    def starts(self) -> Tensor:
        """(N + 1,) int64: where each row's edges begin."""
        return _starts(self.row, self.n_items)

    @cached_property
    def turned(self) -> Tensor:
        """(E,) int64: the edges sorted by (column, row)."""
        return (self.column * self.n_items + self.row).argsort()

    def matrix(self, values: Tensor) -> Tensor:
        """Return (N, N) sparse CSR with the (E,) values."""
        return csr(self.starts, self.column, values, check=False)

    def transposed(self, values: Tensor) -> Tensor:
        """Return the transposed of `matrix`."""
        turned = self.turned
        starts = _starts(self.column, self.n_items)
        return csr(starts, self.row[turned], values[turned], check=False)

    @classmethod
    def of(cls, keys: Tensor, n_items: int) -> "Edges":
        """Return the edges of increasing keys."""
        return cls(keys // n_items, keys % n_items, n_items)


@torch.no_grad()
def nearest(vectors: Tensor, known: BoolArray, k: int) -> Edges:
    """Return edges from each known item to the k known items of the largest cosine similarity.

    An item is its own nearest neighbour, also among items of the same vector; which of other equal
    ones stay is arbitrary. Where there are fewer than k known items, all are neighbours. The
    similarities are computed in blocks of rows.

    Args:
        vectors: (N, D) float32; a row of 0 points nowhere and is like none: it has no edges.
        known: (N,) bool; other items have no edges.
        k: K.
    """
    usable = torch.from_numpy(known).to(vectors.device) & vectors.any(dim=1)
    items = usable.nonzero().squeeze(1)
    unit = torch.nn.functional.normalize(vectors[items], dim=1)
    k = min(k, len(items))
    found = [items.new_zeros((0, k))]
    step = max(1, _BLOCK // max(1, len(items)))
    for start in range(0, len(items), step):
        similarity = unit[start : start + step] @ unit.T
        similarity.diagonal(start).fill_(torch.inf)  # itself
        found.append(similarity.topk(k, dim=1, sorted=False).indices)
    column = items[torch.cat(found)]
    keys = items[:, None] * len(vectors) + column
    return Edges.of(keys.flatten().sort().values, len(vectors))


def similarities(edges: Edges, vectors: Tensor) -> Tensor:
    """Return (E,) cosine similarities of the edges' ends, negative ones as 0, with gradient."""
    unit = torch.nn.functional.normalize(vectors, dim=1)
    cosine: Tensor = _EdgeProducts.apply(edges, unit, unit)  # type: ignore[no-untyped-call]
    return cosine.clamp_min(0)


def normalised(edges: Edges, values: Tensor) -> Tensor:
    """Return (E,) values of D^-1/2 A D^-1/2, D the sums of A's rows; a row of zeros stays zero."""
    degree = torch.zeros(edges.n_items, device=values.device).index_add(0, edges.row, values)
    some = degree > 0
    scale = torch.where(some, torch.where(some, degree, 1.0).rsqrt(), 0.0)
    return values * take_rows(scale, edges.row) * take_rows(scale, edges.column)


def laid_over(all_edges: Edges, edges: Edges, values: Tensor) -> Tensor:
    """Return the values of `edges` as values of `all_edges`, which holds them all; 0 elsewhere."""
    place = torch.searchsorted(all_edges.keys, edges.keys)
    return torch.zeros(len(all_edges.row), device=values.device).index_add(0, place, values)


def union(graphs: list[Edges]) -> Edges:
    """Return the edges that are in any of the graphs."""
    keys = torch.unique(torch.cat([one.keys for one in graphs]))
    return Edges.of(keys, graphs[0].n_items)


def product(edges: Edges, values: Tensor, vectors: Tensor) -> Tensor:
    """Return (N, D): A X, where A has `values` (E,) at `edges` and X is `vectors` (N, D).

    Gradients reach both; neither needs (E, D) numbers at once.
    """
    result: Tensor = _Product.apply(edges, values, vectors)  # type: ignore[no-untyped-call]
    return result


def _starts(row: Tensor, n_items: int) -> Tensor:
    starts = torch.zeros(n_items + 1, dtype=torch.int64, device=row.device)
    starts[1:] = torch.bincount(row, minlength=n_items).cumsum(0)
    return starts


def _edge_products(edges: Edges, left: Tensor, right: Tensor) -> Tensor:
    """(E,) products of the left vector of an edge's row and the right one of its column."""
    values = torch.empty(len(edges.row), device=left.device)
    step = max(1, _BLOCK // left.shape[1])
    for start in range(0, len(values), step):
        row, column = edges.row[start : start + step], edges.column[start : start + step]
        values[start : start + step] = (left[row] * right[column]).sum(1)
    return values


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, edges: Edges, values: Tensor, vectors: Tensor) -> Tensor:  # noqa: ANN401
        ctx.edges = edges
        ctx.save_for_backward(values, vectors)
        return edges.matrix(values) @ vectors

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor | None, Tensor | None]:  # noqa: ANN401
        values, vectors = ctx.saved_tensors
        _, of_values, of_vectors = ctx.needs_input_grad
        return (
            None,
            _edge_products(ctx.edges, gradient, vectors) if of_values else None,
            ctx.edges.transposed(values) @ gradient if of_vectors else None,
        )


class _EdgeProducts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, edges: Edges, left: Tensor, right: Tensor) -> Tensor:  # noqa: ANN401
        ctx.edges = edges
        ctx.save_for_backward(left, right)
        return _edge_products(edges, left, right)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor, Tensor]:  # noqa: ANN401
        left, right = ctx.saved_tensors
        edges: Edges = ctx.edges
        return None, edges.matrix(gradient) @ right, edges.transposed(gradient) @ left


def pruned(
    user: Int64Array, item: Int64Array, n_kept: int, rng: np.random.Generator
) -> tuple[Int64Array, Int64Array]:
    """Return `n_kept` of the edges, drawn without replacement by 1 / sqrt(d_u d_i).

    Edges of busy users and popular items go first. The draw takes the smallest of exponential
    times whose rates are the weights.

    Source: Zhou, Shen, A Tale of Two Graphs: Freezing and Denoising Graph Structures for
    Multimodal Recommendation, MM 2023, section 3 (degree-sensitive edge pruning).
    """
    degree = np.sqrt(np.bincount(user)[user]) * np.sqrt(np.bincount(item)[item])
    times = rng.exponential(size=len(user)) * degree
    kept = np.sort(np.argpartition(times, n_kept - 1)[:n_kept])
    return user[kept], item[kept]
