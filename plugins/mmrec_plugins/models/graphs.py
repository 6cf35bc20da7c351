"""Graphs of users and items, and products with them.

Letters: U users, N items, V = U + N nodes (users first), D size of a vector.
"""

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmrec_bench.types import Int64Array, Interactions


def bipartite_adjacency(
    interactions: Interactions, n_users: int, n_items: int, device: torch.device
) -> Tensor:
    """Return (V, V) sparse CSR float32: A normalised to D^-1/2 A D^-1/2, symmetric.

    A user and an item with an interaction are neighbours, once however often it was repeated; a
    node without any has an empty row.

    Source: He et al., LightGCN: Simplifying and Powering Graph Convolution Network for
    Recommendation, SIGIR 2020, equations 7 and 8.
    """
    return adjacency_of(*distinct_pairs(interactions, n_items), n_users, n_items, device)


def distinct_pairs(interactions: Interactions, n_items: int) -> tuple[Int64Array, Int64Array]:
    """Return (E,) int64 users and items of the pairs there are, each once, by user and item."""
    keys = np.unique(interactions.user.astype(np.int64) * n_items + interactions.item)
    return keys // n_items, keys % n_items


def adjacency_of(
    user: Int64Array, item: Int64Array, n_users: int, n_items: int, device: torch.device
) -> Tensor:
    """Return (V, V) sparse CSR float32: D^-1/2 A D^-1/2, D the sums of A's rows.

    Args:
        user: (E,) int64 of the edges.
        item: (E,) int64; no edge twice.
        n_users: U.
        n_items: N.
        device: where the matrix shall be.
    """
    n_nodes = n_users + n_items
    row, column = np.concatenate((user, item + n_users)), np.concatenate((item + n_users, user))
    degree = np.bincount(row, minlength=n_nodes).astype(np.float64)
    scale = np.where(degree > 0, degree, 1.0) ** -0.5
    order = np.lexsort((column, row))
    row, column = row[order], column[order]
    values = (scale[row] * scale[column]).astype(np.float32)
    starts = np.zeros(n_nodes + 1, np.int64)
    np.cumsum(np.bincount(row, minlength=n_nodes), out=starts[1:])
    parts = (torch.from_numpy(part) for part in (starts, column, values))
    return csr(*parts, check=True).to(device)


def propagate(adjacency: Tensor, vectors: Tensor) -> Tensor:
    """Return (V, D): the product of a symmetric matrix and the nodes' vectors.

    The gradient is the same product, so that no transposed matrix is made.
    """
    product: Tensor = _SymmetricProduct.apply(adjacency, vectors)  # type: ignore[no-untyped-call]
    return product


def layer_mean(adjacency: Tensor, vectors: Tensor, n_layers: int) -> Tensor:
    """Return (V, D): the mean of E, A E, A^2 E ... A^n_layers E for a symmetric A.

    One polynomial of A, so that its gradient is the same polynomial and no layer is kept for it.
    """
    mean: Tensor = _LayerMean.apply(adjacency, vectors, n_layers)  # type: ignore[no-untyped-call]
    return mean


class _SymmetricProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, adjacency: Tensor, vectors: Tensor) -> Tensor:  # noqa: ANN401
        ctx.adjacency = adjacency
        return adjacency @ vectors

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor]:  # noqa: ANN401
        return None, ctx.adjacency @ gradient


class _LayerMean(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, adjacency: Tensor, vectors: Tensor, n_layers: int) -> Tensor:  # noqa: ANN401
        ctx.adjacency, ctx.n_layers = adjacency, n_layers
        return _mean_of_layers(adjacency, vectors, n_layers)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor, None]:  # noqa: ANN401
        return None, _mean_of_layers(ctx.adjacency, gradient, ctx.n_layers), None


def _mean_of_layers(adjacency: Tensor, vectors: Tensor, n_layers: int) -> Tensor:
    layer, total = vectors, vectors.clone()
    for _ in range(n_layers):
        layer = adjacency @ layer
        total += layer
    return total.div_(n_layers + 1)


def csr(starts: Tensor, column: Tensor, values: Tensor, *, check: bool) -> Tensor:
    """Return (n, n) sparse CSR.

    Args:
        starts: (n + 1,) int64, where each row's values begin.
        column: (E,) int64.
        values: (E,).
        check: look whether the parts fit together, which costs more than some products.
    """
    shape = len(starts) - 1, len(starts) - 1
    with warnings.catch_warnings():
        # torch calls all its CSR tensors a beta; the products used here are there since 1.9.
        warnings.simplefilter("ignore", UserWarning)
        return torch.sparse_csr_tensor(starts, column, values, shape, check_invariants=check)
