"""MMGCN: one graph network a modality.

Letters: U users, N items, V = U + N nodes (users first), B pairs of a batch, D size of a vector.
"""

from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from mmrec_bench.config import searched
from mmrec_bench.interfaces import TrainingData
from mmrec_plugins.models.factors import pair_loss
from mmrec_plugins.models.graphs import bipartite_adjacency, propagate
from mmrec_plugins.models.multimodal.base import (
    MultimodalConfig,
    MultimodalRecommender,
    embedding,
    projection,
)
from mmrec_plugins.models.sampling import Pairs


class _Layer(nn.Module):
    """One step of a modality's network: W1, W2 and W3."""

    def __init__(self, size_in: int, size: int) -> None:
        super().__init__()
        self.gather = projection(size_in, size)
        self.own = projection(size_in, size)
        self.combine = projection(size, size)


class _ModalityNetwork(nn.Module):
    """(U, D') preferences of users, the map of the items' vectors, and the layers."""

    def __init__(self, n_users: int, n_features: int, sizes: tuple[int, int, int]) -> None:
        super().__init__()
        latent, size, n_layers = sizes
        self.preference = embedding(n_users, latent)
        self.map = projection(n_features, latent)
        self.layers = nn.ModuleList(
            _Layer(latent if number == 0 else size, size) for number in range(n_layers)
        )


class _Networks(nn.Module):
    """(V, D) id vectors that all modalities share, and a network for each."""

    def __init__(self, n_nodes: int, size: int, networks: dict[str, _ModalityNetwork]) -> None:
        super().__init__()
        self.ids = embedding(n_nodes, size)
        self.networks = nn.ModuleDict(networks)

    def of(self, modality: str) -> _ModalityNetwork:
        """Return one modality's network."""
        return cast("_ModalityNetwork", self.networks[modality])


class MMGCN(MultimodalRecommender):
    """Message passing in a graph of its own for each modality, bridged by shared id vectors.

    In modality m a node starts at x^0 = its preference (a user), or its mapped vector (an item),
    scaled to length 1; an item whose vector is 0 (it has none, and they are centred) starts at 0.
    A layer is

        h = LeakyReLU(mean over neighbours of W1 x)         (aggregation)
        x' = LeakyReLU(W3 h + LeakyReLU(W2 x) + id)         (combination, element-wise)

    and the vector of a node is the mean of the modalities' last layers. The loss of a pair is -ln
    sigmoid(e_u . e_i - e_u . e_j) + regularisation / 2 (squares of the id vectors and preferences
    that it touches).

    Departures: the mean of the modalities, where the paper has the sum (the authors' code has the
    mean); every modality is mapped to `latent_size` numbers, where that code maps pictures to 256
    and leaves the others as they are. Id vectors and preferences are trained, as the paper says; in
    that code they stay as they were drawn, and its combination is concatenation. The encoder's
    vectors are centred unless `centre=false`.

    Source: Wei, Wang, Nie, He, Hong, Chua, MMGCN: Multi-modal Graph Convolution Network for
    Personalized Recommendation of Micro-video, MM 2019, section 2.2 (mean aggregation,
    element-wise combination) and 2.3.
    """

    class Config(MultimodalConfig):
        """Sizes, layers, regularisation and training."""

        n_layers: int = searched(
            2, low=1, high=3, ge=1, description="steps of the propagation in each modality"
        )
        latent_size: int = searched(
            64, choices=[32, 64, 128], ge=1, description="size of preferences and mapped vectors"
        )
        regularisation: float = searched(
            1e-4,
            low=1e-6,
            high=1e-2,
            log=True,
            ge=0,
            description="L2 penalty of a pair on ids and preferences that it touches",
        )

    config: Config
    module: _Networks

    def create(self, data: TrainingData) -> nn.Module:
        """Return untrained networks."""
        config, n_users = self.config, data.n_users
        self._n_users = n_users
        self._adjacency = bipartite_adjacency(data.interactions, n_users, data.n_items, self.device)
        # A^ = D^-1/2 A D^-1/2 is symmetric; the mean over neighbours is D^-1/2 A^ D^1/2.
        degree = np.diff(self._adjacency.crow_indices().cpu().numpy())
        root = np.sqrt(np.maximum(degree, 1)).astype(np.float32)
        self._root = torch.from_numpy(root)[:, None].to(self.device)
        sizes = config.latent_size, config.embedding_size, config.n_layers
        networks = {
            name: _ModalityNetwork(n_users, one.vectors.shape[1], sizes)
            for name, one in self.modalities.items()
        }
        return _Networks(n_users + data.n_items, config.embedding_size, networks)

    def loss(self, batch: Pairs) -> Tensor:
        """Return the () mean loss of B pairs."""
        n_pairs, n_users = len(batch.user), self._n_users
        touched = torch.cat((batch.user, batch.positive + n_users, batch.negative + n_users))
        user, positive, negative = self._nodes().index_select(0, touched).view(3, n_pairs, -1)
        norms = self.module.ids.index_select(0, touched).square().sum()
        for name in self.modalities:
            preference = self.module.of(name).preference
            norms = norms + preference.index_select(0, batch.user).square().sum()
        penalty = 0.5 * self.config.regularisation / n_pairs * norms
        return pair_loss((user * positive).sum(-1), (user * negative).sum(-1)) + penalty

    def vectors(self) -> tuple[Tensor, Tensor]:
        """Return (U, D) and (N, D)."""
        nodes = self._nodes()
        return nodes[: self._n_users], nodes[self._n_users :]

    def _nodes(self) -> Tensor:
        """(V, D): the mean over modalities of the last layer."""
        last = [self._network(name) for name in self.modalities]
        return torch.stack(last).mean(0).float()

    def _network(self, name: str) -> Tensor:
        network, modality = self.module.of(name), self.modalities[name]
        items = network.map(modality.vectors).where(modality.told[:, None], 0.0)
        nodes = nn.functional.normalize(torch.cat((network.preference, items)), dim=1)
        for layer in cast("list[_Layer]", network.layers):
            gathered = nn.functional.leaky_relu(self._mean_of_neighbours(layer.gather(nodes)))
            own = nn.functional.leaky_relu(layer.own(nodes)) + self.module.ids
            nodes = nn.functional.leaky_relu(layer.combine(gathered) + own)
        return nodes

    def _mean_of_neighbours(self, nodes: Tensor) -> Tensor:
        # Without autocast: products of sparse matrices are float32 here.
        with torch.autocast(self.device.type, enabled=False):
            return propagate(self._adjacency, nodes.float() * self._root) / self._root
