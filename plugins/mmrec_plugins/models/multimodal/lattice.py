"""LATTICE: graphs of like items that are learned with the ranking.

Letters: U users, N items, V = U + N nodes (users first), B pairs of a batch, D size of a vector,
E edges.
"""

from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from mmrec_bench.config import searched
from mmrec_bench.interfaces import TrainingData
from mmrec_plugins.models.factors import pair_loss
from mmrec_plugins.models.graphs import bipartite_adjacency
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
    similarities,
    union,
)
from mmrec_plugins.models.sampling import Pairs


class _Latent(MappedItems):
    """Also holds a weight for each modality."""

    modality_weight: nn.Parameter


class LATTICE(MultimodalRecommender):
    """LightGCN, whose items also hear from like items in a graph that is learned.

    For modality m: S_m holds the cosine similarities of the items' vectors, negative ones as 0,
    kept for the k nearest of each item and normalised to D^-1/2 S D^-1/2. A_m is the same of the
    mapped vectors W_m f + b_m, before it is normalised. With weights a_m that are a softmax of what
    is learned, the graph is

        A = lambda sum_m a_m S_m + (1 - lambda) norm(sum_m a_m A_m)

    h = A^L q of the items' vectors q, and an item's vector is LightGCN's plus h / |h|. The loss of
    a pair is -ln sigmoid(e_u . e_i - e_u . e_j) + regularisation / 2 (|e_u|^2 + |e_i|^2 + |e_j|^2).

    As the paper does, the learned graph is made again once an epoch; its gradient comes from the
    epoch's first batch. Scores are given with the graph of the weights as they are.

    Departures: the items' vectors of the encoder are fixed unless `train_vectors`, where the
    authors' code trains them, and centred unless `centre=false`; what is normalised is the weighted
    sum of the A_m (as in that code), not each of them; LightGCN's A is D^-1/2 A D^-1/2, where that
    code has D^-1 (A + I); the learning rate is constant, where that code lets it decay by .96 in 50
    epochs. Sizes, rate, weights and k are those of that code.

    Source: Zhang, Zhu, Liu, Wu, Wang, Wang, Mining Latent Structures for Multimedia Recommendation,
    MM 2021, section 3.
    """

    class Config(MappedConfig):
        """Sizes, layers, graphs, regularisation and training."""

        learning_rate: float = searched(
            5e-4, low=1e-4, high=1e-2, log=True, gt=0, description="of Adam"
        )
        n_layers: int = searched(
            2, low=1, high=3, ge=0, description="LightGCN's steps over the interactions"
        )
        n_item_layers: int = searched(
            1, low=1, high=2, ge=1, description="L, steps over the graph of items"
        )
        k: int = searched(
            10,
            low=5,
            high=20,
            ge=1,
            description="nearest items, itself counted, that stay in a graph",
        )
        skip: float = searched(
            0.9,
            low=0.5,
            high=1.0,
            ge=0,
            le=1,
            description="lambda: weight of the graph of the vectors as given",
        )
        dtype: Literal["float32"] = Field(
            "float32", description="sparse products and graphs gain nothing from bfloat16"
        )
        feature_size: int = Field(64, ge=1, description="size of the mapped vectors W_m f + b_m")
        regularisation: float = searched(
            1e-5,
            low=1e-6,
            high=1e-2,
            log=True,
            ge=0,
            description="L2 penalty of a pair on the vectors that it scores with",
        )

    config: Config
    module: _Latent

    def create(self, data: TrainingData) -> nn.Module:
        """Return untrained vectors and maps; makes the graphs of the vectors as given."""
        config = self.config
        self._adjacency = bipartite_adjacency(
            data.interactions, data.n_users, data.n_items, self.device
        )
        self._given: list[tuple[Edges, Tensor]] = []
        for one in self.modalities.values():
            edges = nearest(one.vectors, one.known, config.k)
            self._given.append((edges, normalised(edges, similarities(edges, one.vectors))))
        self._learned: tuple[Edges, Tensor] | None = None
        module = _Latent(
            data.n_users,
            data.n_items,
            config.embedding_size,
            self.modalities,
            config.feature_size,
            train_vectors=config.train_vectors,
        )
        n_modalities = len(self.modalities)
        module.modality_weight = nn.Parameter(torch.full((n_modalities,), 1.0 / n_modalities))
        return module

    def batches(self, rng: np.random.Generator) -> Iterator[Pairs]:
        """Yield the pairs of an epoch, whose first batch makes the learned graph."""
        self._learned = None
        yield from super().batches(rng)

    def loss(self, batch: Pairs) -> Tensor:
        """Return the () mean loss of B pairs."""
        graph = self._learned or self._item_graph()
        self._learned = graph[0], graph[1].detach()
        users, items = self._layers(*graph)
        n_pairs = len(batch.user)
        user = users.index_select(0, batch.user)
        both = items.index_select(0, torch.cat((batch.positive, batch.negative)))
        scores = (user * both.view(2, n_pairs, -1)).sum(-1)
        norms = user.square().sum() + both.square().sum()
        penalty = 0.5 * self.config.regularisation / n_pairs * norms
        return pair_loss(scores[0], scores[1]) + penalty

    def vectors(self) -> tuple[Tensor, Tensor]:
        """Return (U, D) and (N, D) with the graph of the weights as they are."""
        return self._layers(*self._item_graph())

    def _item_graph(self) -> tuple[Edges, Tensor]:
        """Edges and (E,) values of A."""
        weight = self.module.modality_weight.softmax(0)
        learned: list[tuple[Edges, Tensor]] = []
        for name, one in self.modalities.items():
            mapped = self.module.maps[name](self.module.vectors(name))
            edges = nearest(mapped, one.known, self.config.k)
            learned.append((edges, similarities(edges, mapped)))
        every = union([edges for edges, _ in (*self._given, *learned)])
        given, mixed = (
            sum(
                (
                    weight[m] * laid_over(every, edges, values)
                    for m, (edges, values) in enumerate(graphs)
                ),
                start=torch.zeros(len(every.row), device=self.device),
            )
            for graphs in (self._given, learned)
        )
        skip = self.config.skip
        return every, skip * given + (1 - skip) * normalised(every, mixed)

    def _layers(self, edges: Edges, values: Tensor) -> tuple[Tensor, Tensor]:
        module, config = self.module, self.config
        users, items = module.smoothed(self._adjacency, config.n_layers)
        heard: Tensor = module.items
        for _ in range(config.n_item_layers):
            heard = product(edges, values, heard)
        return users, items + nn.functional.normalize(heard, dim=1)
