"""FREEDOM: a frozen graph of like items, and a graph of interactions that is denoised.

Letters: U users, N items, V = U + N nodes (users first), B pairs of a batch, D size of a vector,
E edges.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from mmrec_bench.config import searched
from mmrec_bench.interfaces import TrainingData
from mmrec_plugins.models.factors import pair_loss
from mmrec_plugins.models.graphs import adjacency_of, bipartite_adjacency, distinct_pairs
from mmrec_plugins.models.multimodal.base import (
    MappedConfig,
    MappedItems,
    MultimodalRecommender,
)
from mmrec_plugins.models.multimodal.item_graphs import (
    Edges,
    laid_over,
    nearest,
    normalised,
    product,
    pruned,
    union,
)
from mmrec_plugins.models.sampling import Pairs


class FREEDOM(MultimodalRecommender):
    """LATTICE with the item graph frozen before training, and edges of popular nodes dropped.

    S_m has a 1 for the k nearest items by cosine, and is normalised to D^-1/2 S D^-1/2; S = sum_m
    a_m S_m is never changed. h = S^L q of the items' vectors q. In each epoch a share `dropout` of
    the interactions is left out of the graph, what stays being drawn by 1 / sqrt(d_u d_i); scores
    are given with all of them. An item's vector is the mean of LightGCN's layers plus h. With f_m =
    W_m f + b_m, the loss of a pair is

        -ln sigmoid(e_u . e_i - e_u . e_j)
        + feature_weight sum_m -ln sigmoid(e_u . f_m_i - e_u . f_m_j)

    a_m is `image_weight` for pictures, and the other modalities share the rest; with one modality
    it is 1.

    Departures: the encoder's vectors are fixed unless `train_vectors`, where the authors' code
    trains them, and centred unless `centre=false`, which also makes another graph of like items.

    Source: Zhou, Shen, A Tale of Two Graphs: Freezing and Denoising Graph Structures for Multimodal
    Recommendation, MM 2023, section 3 (frozen item graph, degree-sensitive edge pruning).
    """

    class Config(MappedConfig):
        """Sizes, layers, graphs, weights of the losses and training."""

        n_layers: int = searched(
            2, low=1, high=3, ge=0, description="L_ui, steps over the interactions"
        )
        n_item_layers: int = searched(
            1, low=1, high=2, ge=1, description="L_ii, steps over the graph of items"
        )
        k: int = searched(
            10,
            low=5,
            high=20,
            ge=1,
            description="nearest items, itself counted, that stay in a graph",
        )
        dropout: float = searched(
            0.8,
            low=0.5,
            high=0.9,
            ge=0,
            lt=1,
            description="rho: share of interactions left out of an epoch's graph",
        )
        image_weight: float = searched(
            0.1, low=0.0, high=1.0, ge=0, le=1, description="alpha_v: weight of the pictures' graph"
        )
        feature_weight: float = searched(
            1e-3,
            low=1e-5,
            high=0.1,
            log=True,
            ge=0,
            description="lambda: weight of the pairs' loss by features alone",
        )

    config: Config
    module: MappedItems

    def create(self, data: TrainingData) -> nn.Module:
        """Return untrained vectors and maps; makes the frozen graph."""
        size = self.config.embedding_size
        self._n_users, self._n_items = data.n_users, data.n_items
        self._adjacency = bipartite_adjacency(
            data.interactions, data.n_users, data.n_items, self.device
        )
        self._in_epoch = self._adjacency
        self._edges, self._values = self._frozen_graph()
        return MappedItems(
            data.n_users,
            data.n_items,
            size,
            self.modalities,
            size,
            train_vectors=self.config.train_vectors,
        )

    def prepare(self, data: TrainingData) -> None:
        """Keep the interactions, each once, from which an epoch's graph is drawn."""
        super().prepare(data)
        self._user, self._item = distinct_pairs(data.interactions, data.n_items)

    def batches(self, rng: np.random.Generator) -> Iterator[Pairs]:
        """Draw the epoch's graph, and yield its pairs."""
        n_kept = max(1, round((1 - self.config.dropout) * len(self._user)))
        if n_kept < len(self._user):
            user, item = pruned(self._user, self._item, n_kept, rng)
            self._in_epoch = adjacency_of(user, item, self._n_users, self._n_items, self.device)
        yield from super().batches(rng)

    def loss(self, batch: Pairs) -> Tensor:
        """Return the () mean loss of B pairs."""
        users, items = self._layers(self._in_epoch)
        user = users.index_select(0, batch.user)
        both = torch.cat((batch.positive, batch.negative))
        loss = _loss_of_pairs(user, items.index_select(0, both))
        if self.config.feature_weight:
            for name in self.modalities:
                given = self.module.vectors(name).index_select(0, both)
                mapped = self.module.maps[name](given)
                loss = loss + self.config.feature_weight * _loss_of_pairs(user, mapped)
        return loss

    def vectors(self) -> tuple[Tensor, Tensor]:
        """Return (U, D) and (N, D) with the graph of all interactions."""
        return self._layers(self._adjacency)

    def _frozen_graph(self) -> tuple[Edges, Tensor]:
        """Edges and (E,) values of S."""
        names = list(self.modalities)
        graphs = [nearest(m.vectors, m.known, self.config.k) for m in self.modalities.values()]
        every = union(graphs)
        values = torch.zeros(len(every.row), device=self.device)
        for name, edges in zip(names, graphs, strict=True):
            ones = torch.ones(len(edges.row), device=self.device)
            values += self._weight(name) * laid_over(every, edges, normalised(edges, ones))
        return every, values

    def _weight(self, name: str) -> float:
        others = len(self.modalities) - 1
        if "image" not in self.modalities or not others:
            return 1.0 / len(self.modalities)
        return (
            self.config.image_weight if name == "image" else (1 - self.config.image_weight) / others
        )

    def _layers(self, adjacency: Tensor) -> tuple[Tensor, Tensor]:
        # Without autocast: products of sparse matrices are float32 here.
        with torch.autocast(self.device.type, enabled=False):
            users, items = self.module.smoothed(adjacency, self.config.n_layers)
            heard: Tensor = self.module.items
            for _ in range(self.config.n_item_layers):
                heard = product(self._edges, self._values, heard)
            return users, items + heard


def _loss_of_pairs(user: Tensor, both: Tensor) -> Tensor:
    """() mean loss of (B, D) users and (2 B, D) items, the positive ones first."""
    scores = (user * both.view(2, len(user), -1)).sum(-1)
    return pair_loss(scores[0], scores[1])
