"""Graphs of like items against dense matrices."""

import numpy as np
import pytest
import torch
from torch import Tensor

from mmrec_plugins.models.multimodal import item_graphs
from mmrec_plugins.models.multimodal.item_graphs import (
    Edges,
    laid_over,
    nearest,
    normalised,
    product,
    pruned,
    similarities,
    union,
)


def dense(edges: Edges, values: Tensor) -> Tensor:
    matrix = torch.zeros(edges.n_items, edges.n_items, dtype=values.dtype)
    for row, column, value in zip(edges.row.tolist(), edges.column.tolist(), values, strict=True):
        matrix[row, column] += value
    return matrix


def naive_nearest(vectors: np.ndarray, known: np.ndarray, k: int) -> set[tuple[int, int]]:
    found = set()
    for i in np.flatnonzero(known).tolist():
        cosine = [
            float(vectors[i] @ vectors[j] / np.linalg.norm(vectors[i]) / np.linalg.norm(vectors[j]))
            if known[j]
            else -9.0
            for j in range(len(vectors))
        ]
        best = sorted(range(len(vectors)), key=lambda j: -cosine[j])[: min(k, int(known.sum()))]
        found |= {(i, j) for j in best}
    return found


@pytest.fixture
def vectors() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(23, 5)).astype(np.float32)


def pairs(edges: Edges) -> list[tuple[int, int]]:
    return list(zip(edges.row.tolist(), edges.column.tolist(), strict=True))


@pytest.mark.parametrize("block", [1, 50, 1 << 22])
def test_nearest_items_are_those_of_a_sorted_list(
    vectors: np.ndarray, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(item_graphs, "_BLOCK", block)
    known = np.arange(23) % 6 != 2
    edges = nearest(torch.from_numpy(vectors), known, 4)
    assert pairs(edges) == sorted(naive_nearest(vectors, known, 4))


def test_an_item_without_a_vector_has_no_edge(vectors: np.ndarray) -> None:
    known = np.zeros(23, np.bool_)
    assert pairs(nearest(torch.from_numpy(vectors), known, 4)) == []
    known[[3, 8]] = True
    edges = nearest(torch.from_numpy(vectors), known, 4)
    assert pairs(edges) == [(3, 3), (3, 8), (8, 3), (8, 8)]


def test_an_item_whose_vector_is_zero_has_no_edge(vectors: np.ndarray) -> None:
    vectors = vectors.copy()
    vectors[[1, 7]] = 0
    found = pairs(nearest(torch.from_numpy(vectors), np.ones(23, np.bool_), 23))
    others = [i for i in range(23) if i not in {1, 7}]
    assert found == [(i, j) for i in others for j in others]


@pytest.mark.parametrize("block", [50, 1 << 22])
def test_an_item_stays_its_own_neighbour_among_equal_ones(
    vectors: np.ndarray, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(item_graphs, "_BLOCK", block)
    vectors = vectors.copy()
    vectors[5:20] = vectors[5]
    found = pairs(nearest(torch.from_numpy(vectors), np.ones(23, np.bool_), 3))
    assert {(i, i) for i in range(23)} <= set(found)
    assert len(found) == len(set(found)) == 23 * 3


def test_similarities_are_cosines_and_never_negative(vectors: np.ndarray) -> None:
    edges = Edges(torch.arange(23).repeat_interleave(23), torch.arange(23).repeat(23), 23)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    expected = np.maximum(unit @ unit.T, 0)
    found = dense(edges, similarities(edges, torch.from_numpy(vectors)))
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)


def test_values_are_normalised_by_the_sums_of_rows() -> None:
    # Rows sum to 4, 0 and 9; the row of zeros is left alone.
    edges = Edges(torch.tensor([0, 0, 1, 2]), torch.tensor([0, 2, 0, 2]), 3)
    values = normalised(edges, torch.tensor([1.0, 3.0, 0.0, 9.0]))
    expected = torch.tensor([1 / 4, 3 / (2 * 3), 0.0, 9 / 9])
    torch.testing.assert_close(values, expected)


def test_gradients_of_normalised_values_repeat_bit_for_bit_on_four_threads() -> None:
    n_items, n_edges = 4_000, 60_000
    rng = torch.Generator().manual_seed(0)
    keys = torch.randperm(n_items**2, generator=rng)[:n_edges].sort().values
    edges = Edges.of(keys, n_items)
    values, weight = torch.rand(2, n_edges, generator=rng)

    def gradient() -> Tensor:
        leaf = values.clone().requires_grad_()
        found: Tensor = torch.autograd.grad((normalised(edges, leaf) * weight).sum(), leaf)[0]
        return found

    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        first = gradient()
        assert all(torch.equal(gradient(), first) for _ in range(10))
    finally:
        torch.set_num_threads(before)


def test_graphs_are_laid_over_one_another() -> None:
    one = Edges(torch.tensor([0, 1]), torch.tensor([1, 2]), 3)
    two = Edges(torch.tensor([0, 2]), torch.tensor([1, 0]), 3)
    both = union([one, two])
    assert pairs(both) == [(0, 1), (1, 2), (2, 0)]
    found = laid_over(both, one, torch.tensor([5.0, 6.0]))
    found += laid_over(both, two, torch.tensor([7.0, 8.0]))
    assert found.tolist() == [12.0, 6.0, 8.0]


@pytest.mark.parametrize("block", [1, 1 << 22])
def test_products_and_their_gradients_are_those_of_dense_matrices(
    vectors: np.ndarray, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(item_graphs, "_BLOCK", block)
    edges = nearest(torch.from_numpy(vectors), np.ones(23, np.bool_), 3)
    weights = torch.randn(23, 4, generator=torch.Generator().manual_seed(0))
    gradients = []
    for kind in ("sparse", "dense"):
        mapped = torch.from_numpy(vectors).clone().requires_grad_()
        others = weights.clone().requires_grad_()
        if kind == "sparse":
            values = normalised(edges, similarities(edges, mapped))
            result = product(edges, values, product(edges, values, others))
        else:
            unit = torch.nn.functional.normalize(mapped, dim=1)
            mask = dense(edges, torch.ones(len(edges.row)))
            matrix = (unit @ unit.T).clamp_min(0) * mask
            scale = matrix.sum(1).rsqrt()
            matrix = scale[:, None] * matrix * scale
            result = matrix @ (matrix @ others)
        torch.autograd.backward((result * torch.arange(4)).sum())
        assert mapped.grad is not None
        assert others.grad is not None
        gradients.append((result.detach(), mapped.grad, others.grad))
    for found, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_pruning_keeps_each_edge_once_and_in_order() -> None:
    user, item = np.repeat(np.arange(20), 5), np.tile(np.arange(5), 20)
    kept_user, kept_item = pruned(user, item, 30, np.random.default_rng(0))
    keys = kept_user * 5 + kept_item
    assert len(keys) == 30
    assert (np.diff(keys) > 0).all()


def test_pruning_draws_by_degree() -> None:
    # Two users with one item each, and one with eight: weights 1, 1, and 1 / sqrt(8) eight times.
    user = np.array([0, 1] + [2] * 8)
    item = np.arange(10)
    rng = np.random.default_rng(0)
    first = np.array([pruned(user, item, 1, rng)[1][0] for _ in range(4000)])
    weight = np.array([1, 1] + [8**-0.5] * 8)
    found = np.bincount(first, minlength=10) / 4000
    np.testing.assert_allclose(found, weight / weight.sum(), atol=0.03)
