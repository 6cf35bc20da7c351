"""VBPR: matrix factorisation with a part that is seen.

Letters: U users, N items, B pairs of a batch, D size of a vector, F size of an item's features.
"""

import torch
from pydantic import Field
from torch import Tensor, nn

from mmrec_bench.config import searched
from mmrec_bench.interfaces import TrainingData
from mmrec_plugins.models.factors import pair_loss
from mmrec_plugins.models.multimodal.base import (
    MultimodalConfig,
    MultimodalRecommender,
    embedding,
)
from mmrec_plugins.models.sampling import Pairs


class _VisualFactors(nn.Module):
    """Users (U, D + D'), items (N, D), biases (N, 1), the map E (F, D') and beta' (F, 1)."""

    def __init__(self, n_users: int, n_items: int, sizes: tuple[int, int, int], std: float) -> None:
        super().__init__()
        size, visual, n_features = sizes
        self.users = nn.Parameter(torch.randn(n_users, size + visual) * std)
        self.items = nn.Parameter(torch.randn(n_items, size) * std)
        self.bias = nn.Parameter(torch.zeros(n_items, 1))
        self.map = embedding(n_features, visual)
        self.visual_bias = nn.Parameter(torch.zeros(n_features, 1))


class VBPR(MultimodalRecommender):
    """x_ui = b_i + gamma_u . gamma_i + theta_u . (E f_i) + beta' . f_i, learned by BPR-OPT.

    f_i are the features of all modalities one after another (the paper has pictures alone), over
    one number, so that the mean of |f_i|^2 is 1: the steps of E are then no larger than others.
    The loss of a pair is -ln sigmoid(x_ui - x_uj) + regularisation / 2 (squares of the vectors and
    biases that it touches) + visual_regularisation / 2 (|E|^2 + |beta'|^2).

    Departures: Adam over batches, where the paper has single steps of SGD; b_u and the global
    offset are left out, for they rank nothing; sizes are 64 + 64, where the paper has 10 + 10; the
    encoder's vectors are centred unless `centre=false`.

    Source: He, McAuley, VBPR: Visual Bayesian Personalized Ranking from Implicit Feedback, AAAI
    2016, equation 4 and the section on learning.
    """

    class Config(MultimodalConfig):
        """Sizes, regularisation and training."""

        visual_size: int = searched(
            64, choices=[32, 64, 128], ge=1, description="D', size of theta_u and E f_i"
        )
        regularisation: float = searched(
            0.01,
            low=1e-4,
            high=0.3,
            log=True,
            ge=0,
            description="lambda_Theta: L2 penalty of a pair on what it touches",
        )
        visual_regularisation: float = Field(
            0.0, ge=0, description="lambda_E: L2 penalty on E and beta'"
        )
        init_std: float = Field(0.1, gt=0, description="of the normal draws of the vectors")

    config: Config
    module: _VisualFactors

    def create(self, data: TrainingData) -> nn.Module:
        """Return untrained factors."""
        features = torch.cat([one.vectors for one in self.modalities.values()], dim=1)
        self._features = features / features.square().sum(1).mean().sqrt().clamp_min(1e-12)
        config = self.config
        sizes = config.embedding_size, config.visual_size, self._features.shape[1]
        return _VisualFactors(data.n_users, data.n_items, sizes, config.init_std)

    def loss(self, batch: Pairs) -> Tensor:
        """Return the () mean loss of B pairs."""
        n_pairs = len(batch.user)
        both = torch.cat((batch.positive, batch.negative))
        module, config = self.module, self.config
        users = module.users.index_select(0, batch.user)
        items, bias = module.items.index_select(0, both), module.bias.index_select(0, both)
        features = self._features.index_select(0, both)
        vectors = torch.cat((items, features @ module.map), dim=1)
        scores = (users * vectors.view(2, n_pairs, -1)).sum(-1)
        scores = scores + (bias + features @ module.visual_bias).view(2, n_pairs)
        norms = users.square().sum() + items.square().sum() + bias.square().sum()
        visual = module.map.square().sum() + module.visual_bias.square().sum()
        penalty = 0.5 * (
            config.regularisation / n_pairs * norms + config.visual_regularisation * visual
        )
        return pair_loss(scores[0], scores[1]) + penalty

    def vectors(self) -> tuple[Tensor, Tensor]:
        """Return (U, D + D') and (N, D + D')."""
        module = self.module
        return module.users, torch.cat((module.items, self._features @ module.map), dim=1)

    def biases(self) -> Tensor | None:
        """Return (N,): b_i + beta' . f_i."""
        return (self.module.bias + self._features @ self.module.visual_bias).squeeze(1)
