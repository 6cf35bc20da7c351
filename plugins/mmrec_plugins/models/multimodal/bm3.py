"""BM3: self-supervised learning without negatives.

Letters: U users, N items, V = U + N nodes (users first), B pairs of a batch, D size of a vector.
"""

import torch
from torch import Tensor, nn

from mmrec_bench.config import searched
from mmrec_bench.interfaces import TrainingData
from mmrec_plugins.models.graphs import bipartite_adjacency
from mmrec_plugins.models.multimodal.base import (
    MappedConfig,
    MappedItems,
    MultimodalRecommender,
    projection,
)
from mmrec_plugins.models.sampling import Pairs


class _Bootstrapped(MappedItems):
    """Also holds the predictor."""

    predictor: nn.Linear


class BM3(MultimodalRecommender):
    """Each view of a user or an item predicts the other views; nothing is pushed apart.

    e_u and e_i are the means of LightGCN's layers, e_i with its layer 0 added once more; e_m = W_m
    f + b_m is an item in modality m. A target is a view after dropout, without gradient (written
    '), and P a linear predictor. With C(a, b) = 1 - cos(P a, b') the loss of a pair is

        C(e_u, e_i) + C(e_i, e_u)                                   (reconstruction of the graph)
        + cl_weight sum_m [ C(e_m, e_i) + C(e_m, e_m) ]             (alignment; masked features)
        + regularisation (|E_u| + |E_i|) / N

    and the score is P e_u . P e_i. The second part is of the pair's item; a modality in which its
    vector is 0 (it has none, and they are centred) has no part in it.

    Departures: the last term has the norms of all users' and of all items' vectors, as the authors'
    code has, where the paper has squares. The encoder's vectors are fixed unless `train_vectors`,
    where that code trains them, and centred unless `centre=false`, where it takes them as they are.
    Dropout is drawn for a batch's rows alone. Batches are those of the pairwise models, so that a
    user who took every item is left out.

    Source: Zhou, Zhou, Liu, Zeng, Miao, Wang, You, Jiang, Bootstrap Latent Representations for
    Multi-modal Recommendation, WWW 2023, section 3.
    """

    class Config(MappedConfig):
        """Sizes, layers, weights of the losses and training."""

        n_layers: int = searched(
            1, low=1, high=3, ge=0, description="L, steps over the interactions; paper: 1 or 2"
        )
        dropout: float = searched(
            0.3, low=0.1, high=0.7, ge=0, lt=1, description="of targets; paper: 0.3 or 0.5"
        )
        cl_weight: float = searched(
            2.0, low=0.1, high=4.0, ge=0, description="weight of the items' modalities"
        )
        regularisation: float = searched(
            0.1, low=1e-3, high=1.0, log=True, ge=0, description="lambda; paper: 0.1 or 0.01"
        )

    config: Config
    module: _Bootstrapped

    def create(self, data: TrainingData) -> nn.Module:
        """Return untrained vectors and maps."""
        size = self.config.embedding_size
        self._adjacency = bipartite_adjacency(
            data.interactions, data.n_users, data.n_items, self.device
        )
        module = _Bootstrapped(
            data.n_users,
            data.n_items,
            size,
            self.modalities,
            size,
            train_vectors=self.config.train_vectors,
        )
        module.predictor = projection(size, size)
        return module

    def loss(self, batch: Pairs) -> Tensor:
        """Return the () mean loss of B pairs; their negatives are not looked at."""
        module, config = self.module, self.config
        users, items = self._layers()
        user = users.index_select(0, batch.user)
        item = items.index_select(0, batch.positive)
        target = self._target(item)
        loss = self._distance(user, target) + self._distance(item, self._target(user))
        for name, modality in self.modalities.items():
            told = modality.told.index_select(0, batch.positive)
            view = module.maps[name](module.vectors(name).index_select(0, batch.positive))
            aligned = self._distance(view, target, told)
            loss = loss + config.cl_weight * (
                aligned + self._distance(view, self._target(view), told)
            )
        norms: Tensor = torch.linalg.norm(users) + torch.linalg.norm(items)
        return loss + config.regularisation * norms / len(items)

    def vectors(self) -> tuple[Tensor, Tensor]:
        """Return (U, D) and (N, D) after the predictor."""
        users, items = self._layers()
        return self.module.predictor(users), self.module.predictor(items)

    def _target(self, view: Tensor) -> Tensor:
        return nn.functional.dropout(view.detach(), self.config.dropout)

    def _distance(self, view: Tensor, target: Tensor, told: Tensor | None = None) -> Tensor:
        """() mean over (B, D) pairs of C, which is 0 for those that are not `told`."""
        predicted = self.module.predictor(view)
        similarity: Tensor = nn.functional.cosine_similarity(predicted, target, dim=-1)
        if told is None:
            return 1 - similarity.mean()
        return told.float().mean() - similarity.where(told, 0.0).mean()

    def _layers(self) -> tuple[Tensor, Tensor]:
        # Without autocast: products of sparse matrices are float32 here.
        with torch.autocast(self.device.type, enabled=False):
            users, items = self.module.smoothed(self._adjacency, self.config.n_layers)
            return users, items + self.module.items
