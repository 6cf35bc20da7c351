"""BPR-MF: matrix factorisation that learns to rank what a user took above what not.

Letters: U users, N items, B pairs of a batch, D size of a vector.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from mmrec_bench.config import searched
from mmrec_bench.interfaces import TrainingData
from mmrec_plugins.models.factors import FactorRecommender, factor_pair_loss
from mmrec_plugins.models.sampling import Pairs
from mmrec_plugins.models.training import TrainingConfig


class _Factors(nn.Module):
    """(U, D) users, (N, D) items and, with `item_bias`, (N,) biases."""

    def __init__(self, n_users: int, n_items: int, size: int, std: float, bias: bool) -> None:
        super().__init__()
        self.users = nn.Parameter(torch.randn(n_users, size) * std)
        self.items = nn.Parameter(torch.randn(n_items, size) * std)
        self.bias = nn.Parameter(torch.zeros(n_items)) if bias else None


class BPRMF(FactorRecommender):
    """x_ui = w_u . h_i (+ b_i), learned by BPR-OPT.

    The loss of a pair is -ln sigmoid(x_ui - x_uj) + regularisation / 2 (|w_u|^2 + |h_i|^2 +
    |h_j|^2 + b_i^2 + b_j^2), j drawn uniformly from the items that the user did not take in train.

    Departures: Adam over batches of all pairs in a shuffled order, where the paper's LearnBPR takes
    single steps of SGD on pairs drawn with replacement; one constant of regularisation where it
    has three; an item bias, as in the authors' MyMediaLite (the paper's x_ui may be any model).

    Source: Rendle, Freudenthaler, Gantner, Schmidt-Thieme, BPR: Bayesian Personalized Ranking from
    Implicit Feedback, UAI 2009, sections 4 and 4.3.1.
    """

    class Config(TrainingConfig):
        """Size, regularisation and training."""

        embedding_size: int = searched(
            64, choices=[32, 64, 128], ge=1, description="D, numbers in a vector"
        )
        regularisation: float = searched(
            0.01,
            low=1e-4,
            high=0.1,
            log=True,
            ge=0,
            description="L2 penalty of a pair on the vectors (and biases) it touches",
        )
        dtype: Literal["float32"] = Field(
            "float32", description="gathers and sums of vectors gain nothing from bfloat16"
        )
        item_bias: bool = Field(default=True, description="a learned number added to an item")
        init_std: float = Field(0.1, gt=0, description="of the normal draws of the vectors")

    config: Config
    module: _Factors

    def build(self, data: TrainingData) -> nn.Module:
        """Return untrained factors."""
        self.know_users(data)
        config = self.config
        size, bias = config.embedding_size, config.item_bias
        return _Factors(data.n_users, data.n_items, size, config.init_std, bias)

    def loss(self, batch: Pairs) -> Tensor:
        """Return the () mean loss of B pairs."""
        users, items, bias = self.module.users, self.module.items, self.module.bias
        return factor_pair_loss(users, items, bias, batch, self.config.regularisation)

    def vectors(self) -> tuple[Tensor, Tensor]:
        """Return (U, D) and (N, D) weights."""
        return self.module.users, self.module.items

    def biases(self) -> Tensor | None:
        """Return (N,) biases, or None without them."""
        return self.module.bias
