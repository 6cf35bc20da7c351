import numpy as np
import torch
from torch import Tensor

from mmrec_bench.types import Interactions
from mmrec_plugins.models.graphs import (
    bipartite_adjacency,
    layer_mean,
    propagate,
)

CPU = torch.device("cpu")


def small() -> Interactions:
    # user 0: items 0, 1; user 1: item 1, twice; user 2: nothing; item 2: nobody
    return Interactions.build(np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1]))


def random_adjacency() -> Tensor:
    rng = np.random.default_rng(0)
    rows = Interactions.build(rng.integers(0, 9, 40), rng.integers(0, 12, 40))
    return bipartite_adjacency(rows, 9, 12, CPU)


def test_an_edge_weighs_one_over_the_root_of_both_degrees() -> None:
    dense = bipartite_adjacency(small(), 3, 3, CPU).to_dense()
    half = np.zeros((3, 3))
    half[0, 0] = 1 / np.sqrt(2 * 1)
    half[0, 1] = 1 / np.sqrt(2 * 2)
    half[1, 1] = 1 / np.sqrt(1 * 2)
    expected = np.block([[np.zeros((3, 3)), half], [half.T, np.zeros((3, 3))]])
    np.testing.assert_allclose(dense.numpy(), expected, rtol=1e-6)


def test_the_gradient_of_a_product_is_that_of_the_dense_product() -> None:
    adjacency, torch_rng = random_adjacency(), torch.Generator().manual_seed(0)
    vectors = torch.randn(21, 4, generator=torch_rng, requires_grad=True)
    weight = torch.randn(21, 4, generator=torch_rng)
    (own,) = torch.autograd.grad((propagate(adjacency, vectors) * weight).sum(), vectors)
    (dense,) = torch.autograd.grad(((adjacency.to_dense() @ vectors) * weight).sum(), vectors)
    torch.testing.assert_close(own, dense)


def test_the_mean_of_layers_is_equation_8_of_the_paper_and_so_is_its_gradient() -> None:
    adjacency, torch_rng = random_adjacency(), torch.Generator().manual_seed(0)
    vectors = torch.randn(21, 4, generator=torch_rng, requires_grad=True)
    weight = torch.randn(21, 4, generator=torch_rng)
    dense = adjacency.to_dense()
    for n_layers in range(4):
        layers = [vectors]
        for _ in range(n_layers):
            layers.append(dense @ layers[-1])
        expected = torch.stack(layers).mean(0)
        found = layer_mean(adjacency, vectors, n_layers)
        torch.testing.assert_close(found, expected)
        (own,) = torch.autograd.grad((found * weight).sum(), vectors)
        (by_autograd,) = torch.autograd.grad((expected * weight).sum(), vectors)
        torch.testing.assert_close(own, by_autograd)
