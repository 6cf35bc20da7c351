"""Item codes from what is taken together: a tree by spectral clustering of the co-occurrence graph.

Hua, Xu, Ge and Zhang, How to Index Item IDs for Recommendation Foundation Models, SIGIR-AP 2023,
section 3.3: items are nodes, and an edge's weight is the number of users who took both ends; the
graph is divided into clusters, each cluster's graph again, until a cluster is small. An item's code
is the path through the tree and a number within the last cluster. Items that are often taken
together share the start of their codes.

We divide by the normalised spectral clustering of Ng, Jordan and Weiss (NIPS 2001) with our own
seeded k-means. A cluster that the graph does not divide (its items were never taken together) is
cut into equal parts in the order of popularity, so that the tree always ends.

Letters: N items, n items of a cluster, K clusters.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import eigsh

from mmrec_bench.types import Int64Array, Interactions

_DENSE = 400
_ROUNDS = 50
Matrix = NDArray[np.float64]


def cluster_paths(
    interactions: Interactions,
    n_users: int,
    n_items: int,
    *,
    n_clusters: int,
    cluster_size: int,
    seed: int,
) -> list[list[int]]:
    """Return of each item the path of cluster numbers, and its number within the last cluster.

    Args:
        interactions: train.
        n_users: users.
        n_items: N; items without an interaction get codes too.
        n_clusters: K of each division.
        cluster_size: a cluster of at most so many items is not divided.
        seed: of k-means.
    """
    taken = sparse.csr_matrix(
        (np.ones(len(interactions)), (interactions.user, interactions.item)),
        shape=(n_users, n_items),
    )
    taken.data[:] = 1.0  # repeats were summed
    together = (taken.T @ taken).tocsr()
    together.setdiag(0)
    together.eliminate_zeros()
    popularity = np.bincount(interactions.item, minlength=n_items)
    rng = np.random.default_rng([seed, n_items, n_clusters])
    paths: list[list[int]] = [[] for _ in range(n_items)]
    # Most popular first, so that leaf number 0 is each cluster's most taken item.
    todo = [np.argsort(-popularity, kind="stable")]
    while todo:
        members = todo.pop()
        if len(members) <= cluster_size:
            for number, item in enumerate(members.tolist()):
                paths[item].append(number)
            continue
        labels = divide(together[members][:, members], n_clusters, rng)
        for number, label in enumerate(np.unique(labels)):
            part = members[labels == label]
            for item in part.tolist():
                paths[item].append(number)
            todo.append(part)
    return paths


def divide(graph: Any, n_clusters: int, rng: np.random.Generator) -> Int64Array:  # noqa: ANN401
    """Return (n,) int64 clusters of a weighted graph, at least two; fewer where it has few edges.

    Args:
        graph: (n, n) symmetric sparse weights, at least 0.
        n_clusters: K.
        rng: of the start of the eigenvectors' search and of k-means.
    """
    n = graph.shape[0]
    n_clusters = min(n_clusters, n)
    degree = np.asarray(graph.sum(axis=1)).ravel()
    linked = np.flatnonzero(degree > 0)
    labels = np.full(n, -1, np.int64)
    if len(linked) > n_clusters:
        scale = sparse.diags(1 / np.sqrt(degree[linked]))
        similar = scale @ graph[linked][:, linked] @ scale
        vectors = _leading(similar, n_clusters, rng)
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        labels[linked] = k_means(vectors / np.maximum(norms, 1e-12), n_clusters, rng)
    # What no edge reaches is a cluster of its own.
    _, labels = np.unique(labels, return_inverse=True)
    if labels.max(initial=0) == 0:
        labels = np.arange(n) * n_clusters // n
    return labels.astype(np.int64)


def _leading(matrix: Any, k: int, rng: np.random.Generator) -> Matrix:  # noqa: ANN401
    """Return (n, k) eigenvectors of the k largest eigenvalues of a symmetric sparse matrix."""
    n = matrix.shape[0]
    if n <= max(_DENSE, k + 1):
        _, vectors = np.linalg.eigh(matrix.toarray())
        return np.asarray(vectors[:, -k:])
    _, found = eigsh(matrix, k=k, which="LA", v0=rng.random(n), rng=rng)
    return np.asarray(found)


def k_means(points: Matrix, k: int, rng: np.random.Generator) -> Int64Array:
    """Return (n,) int64 clusters by Lloyd's rounds from a k-means++ start.

    Args:
        points: (n, D).
        k: clusters, at most n; where points coincide, some may stay empty.
        rng: of the start (Arthur and Vassilvitskii, SODA 2007).
    """
    centres = _start(points, k, rng)
    labels = np.full(len(points), -1, np.int64)
    for _ in range(_ROUNDS):
        nearest = _squared_distances(points, centres).argmin(axis=1)
        if (nearest == labels).all():
            break
        labels = nearest
        counts = np.bincount(labels, minlength=k)
        sums = np.zeros_like(centres)
        np.add.at(sums, labels, points)
        filled = counts > 0
        centres[filled] = sums[filled] / counts[filled, None]
    return labels


def _start(points: Matrix, k: int, rng: np.random.Generator) -> Matrix:
    chosen = [int(rng.integers(len(points)))]
    nearest = _squared_distances(points, points[chosen]).ravel()
    while len(chosen) < k:
        total = nearest.sum()
        share = nearest / total if total > 0 else np.full(len(points), 1 / len(points))
        chosen.append(int(rng.choice(len(points), p=share)))
        nearest = np.minimum(nearest, _squared_distances(points, points[chosen[-1:]]).ravel())
    return points[chosen].copy()


def _squared_distances(points: Matrix, centres: Matrix) -> Matrix:
    """Return (n, K); never below 0."""
    products = points @ centres.T
    lengths = (points**2).sum(axis=1)[:, None] + (centres**2).sum(axis=1)
    return np.asarray(np.maximum(lengths - 2 * products, 0.0))
