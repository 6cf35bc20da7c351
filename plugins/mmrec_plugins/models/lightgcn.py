"""LightGCN: user and item vectors smoothed over the graph of their interactions.

Letters: U users, N items, V = U + N nodes, B pairs of a batch, D size of a vector.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from mmrec_bench.config import searched
from mmrec_bench.interfaces import TrainingData
from mmrec_plugins.models.factors import FactorRecommender, factor_pair_loss
from mmrec_plugins.models.graphs import bipartite_adjacency, layer_mean
from mmrec_plugins.models.sampling import Pairs
from mmrec_plugins.models.training import TrainingConfig


class _Nodes(nn.Module):
    """(V, D) vectors of layer 0, users first."""

    def __init__(self, n_nodes: int, size: int) -> None:
        super().__init__()
        self.vectors = nn.Parameter(torch.empty(n_nodes, size))
        nn.init.normal_(self.vectors, std=0.1)


class LightGCN(FactorRecommender):
    """Mean of the layers E, A E ... A^K E, A the normalised adjacency, learned by BPR-OPT.

    The loss of a pair is -ln sigmoid(e_u . e_i - e_u . e_j) + regularisation / 2 (|e_u^0|^2 +
    |e_i^0|^2 + |e_j^0|^2), the vectors of layer 0 alone being regularised (equation 15).

    The mean of the layers is one polynomial of a symmetric matrix, so that the gradient is computed
    by the same products, and nothing but the sum is held (`layer_mean`).

    Departures: layer 0 is drawn from N(0, .1), as in the authors' code, where the paper has Xavier.

    Source: He, Deng, Wang, Li, Zhang, Wang, LightGCN: Simplifying and Powering Graph Convolution
    Network for Recommendation, SIGIR 2020, equations 3-8 and 15; alpha_k = 1 / (K + 1).
    """

    class Config(TrainingConfig):
        """Size, layers and regularisation are the paper's, which trains for 1000 epochs."""

        embedding_size: int = searched(
            64, choices=[32, 64, 128], ge=1, description="D, numbers in a vector"
        )
        n_layers: int = searched(
            3, low=1, high=4, ge=0, description="K, steps of the propagation; 0 = BPR-MF"
        )
        regularisation: float = searched(
            1e-4,
            low=1e-6,
            high=1e-2,
            log=True,
            ge=0,
            description="lambda: L2 penalty of a pair on the layer-0 vectors it touches",
        )
        dtype: Literal["float32"] = Field(
            "float32", description="sparse products and gathers gain nothing from bfloat16"
        )

    config: Config
    module: _Nodes

    def build(self, data: TrainingData) -> nn.Module:
        """Return untrained vectors of layer 0."""
        self.know_users(data)
        self._n_users, n_items = data.n_users, data.n_items
        self._adjacency = bipartite_adjacency(data.interactions, data.n_users, n_items, self.device)
        return _Nodes(data.n_users + n_items, self.config.embedding_size)

    def loss(self, batch: Pairs) -> Tensor:
        """Return the () mean loss of B pairs."""
        users, items = self.vectors()
        nodes, n_users = self.module.vectors, self._n_users
        touched = torch.cat((batch.user, batch.positive + n_users, batch.negative + n_users))
        weight = torch.bincount(touched, minlength=len(nodes)) * (
            0.5 * self.config.regularisation / len(batch.user)
        )
        penalty: Tensor = torch.linalg.vecdot(nodes, nodes) @ weight
        return factor_pair_loss(users, items, None, batch) + penalty

    def vectors(self) -> tuple[Tensor, Tensor]:
        """Return (U, D) and (N, D) means of the layers."""
        layers = layer_mean(self._adjacency, self.module.vectors, self.config.n_layers)
        return layers[: self._n_users], layers[self._n_users :]
