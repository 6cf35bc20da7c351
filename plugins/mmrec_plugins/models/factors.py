"""The base of models with one vector per user and one per item, trained on pairs.

Letters: U users, N items, B queries, D size of a vector.
"""

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmrec_bench.interfaces import TrainingData
from mmrec_bench.types import Queries
from mmrec_plugins.models.neural import NeuralRecommender
from mmrec_plugins.models.sampling import Pairs, PairSampler

_BLOCK = 1 << 16
"""Numbers in the gathered vectors of a block of pairs; a few such blocks fit into a cache."""

_SUM = 0
"""torch.embedding_bag's number for sums."""


class FactorRecommender(NeuralRecommender):
    """Scores an item by the product of its vector with the user's.

    A user's vector holds what train told of the user, so that a query's history is not looked at:
    a test history that also shows validation items changes nothing. A user unseen in train has no
    vector of worth, and gets the mean vector of the users seen (the 0 vector where there are none):
    items in the order in which users like them on the mean. Its score is the mean of theirs.

    A model says what its vectors are (`vectors`), beside `build` and `loss`, and calls
    `know_users` in `build`.
    """

    sampler: PairSampler
    _seen: Tensor
    _computed: tuple[Tensor, Tensor] | None = None

    @abstractmethod
    def vectors(self) -> tuple[Tensor, Tensor]:
        """Return (U, D) and (N, D) float32 of all users and items, with the weights as they are."""

    def know_users(self, data: TrainingData) -> None:
        """Note which users train holds."""
        seen = np.bincount(data.interactions.user, minlength=data.n_users) > 0
        self._seen = torch.from_numpy(seen).to(self.device)

    def prepare(self, data: TrainingData) -> None:
        """Make the sampler of pairs."""
        self.sampler = PairSampler.of(data)

    def n_batches(self) -> int:
        """Return the steps of one epoch."""
        return self.sampler.n_batches(self.config.batch_size)

    def batches(self, rng: np.random.Generator) -> Iterator[Pairs]:
        """Yield all train interactions in a new order, each with a fresh negative."""
        for pairs in self.sampler.epoch(rng, self.config.batch_size):
            yield pairs.to(self.device)

    def represent(self, queries: Queries) -> Tensor:
        """Return (B, D) float32, the users' vectors."""
        return self._all_vectors()[0][torch.from_numpy(queries.user).to(self.device, torch.int64)]

    def items(self) -> Tensor:
        """Return (N, D) float32."""
        return self._all_vectors()[1]

    def weights_changed(self) -> None:
        """Forget the vectors that were computed from the weights before."""
        super().weights_changed()
        self._computed = None

    def _all_vectors(self) -> tuple[Tensor, Tensor]:
        """Vectors to rank by, computed once for the weights as they are."""
        if self._computed is None:
            with torch.inference_mode():
                users, items = self.vectors()
                mean = users[self._seen].mean(0) if self._seen.any() else torch.zeros_like(users[0])
                self._computed = torch.where(self._seen[:, None], users, mean), items
        return self._computed


def pair_loss(preferred: Tensor, other: Tensor) -> Tensor:
    """Return the () mean of -ln sigmoid(preferred - other) over (B,) scores.

    Source: Rendle et al., BPR: Bayesian Personalized Ranking from Implicit Feedback, UAI 2009,
    section 4.1 (BPR-OPT).
    """
    return nn.functional.softplus(other - preferred).mean()


def factor_pair_loss(
    users: Tensor,
    items: Tensor,
    bias: Tensor | None,
    pairs: Pairs,
    regularisation: float = 0.0,
) -> Tensor:
    """Return () `pair_loss` of products of vectors (and biases), plus the L2 penalty of a pair.

    The mean over pairs of -ln sigmoid(x_ui - x_uj) + regularisation / 2 (|w_u|^2 + |h_i|^2 +
    |h_j|^2 + b_i^2 + b_j^2), x_ui = w_u . h_i + b_i. The same as autograd would give, but the
    gradient is written out: a row's part of it is a weighted sum of the other side's vectors, so
    that no vector of a pair is held. Several times faster than op after op over a large batch.

    Args:
        users: (U, D) w.
        items: (N, D) h.
        bias: (N,) b, or None.
        pairs: B pairs.
        regularisation: of what a pair touches.
    """
    # Vectors are gathered and added up here, which half the digits would only spoil.
    with torch.autocast(users.device.type, enabled=False):
        loss: Tensor = _FactorPairs.apply(users, items, bias, pairs, regularisation)  # type: ignore[no-untyped-call]
    return loss


class _FactorPairs(torch.autograd.Function):
    """Loss and gradients at once."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch's context
        users: Tensor,
        items: Tensor,
        bias: Tensor | None,
        pairs: Pairs,
        regularisation: float,
    ) -> Tensor:
        user, positive, negative = pairs
        n_pairs = len(user)
        ahead = _ahead(users, items, pairs)
        if bias is not None:
            ahead += bias.index_select(0, positive) - bias.index_select(0, negative)
        loss = nn.functional.softplus(-ahead).mean()
        slope = torch.sigmoid(-ahead).div_(-n_pairs)  # of the mean loss by `ahead`
        # Both items of a pair side by side: users that come sorted stay so.
        item, by = torch.stack((positive, negative), 1).ravel(), user.repeat_interleave(2)
        slopes = torch.stack((slope, slope.neg()), 1).ravel()
        to_users, of_users = _sums(items, item, slopes, by, len(users))
        to_items, of_items = _sums(users, by, slopes, item, len(items))
        to_bias = None
        if bias is not None:
            to_bias = torch.zeros_like(bias).index_add_(0, item, slopes)
        if regularisation:
            penalty = regularisation / n_pairs
            # Each pair stands twice among its user's rows.
            loss += _penalise(users, of_users.to(users).mul_(penalty / 2), to_users)
            by_item = of_items.to(items).mul_(penalty)
            loss += _penalise(items, by_item, to_items)
            if bias is not None and to_bias is not None:
                loss += _penalise(bias[:, None], by_item, to_bias[:, None])
        ctx.gradients = to_users, to_items, to_bias
        return loss

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        by_users, by_items, by_bias = ctx.gradients
        scaled = None if by_bias is None else by_bias.mul_(upstream)
        return by_users.mul_(upstream), by_items.mul_(upstream), scaled, None, None


def _ahead(users: Tensor, items: Tensor, pairs: Pairs) -> Tensor:
    """Return (B,) w_u . (h_i - h_j), block by block."""
    step = max(1, _BLOCK // users.shape[1])
    found = users.new_empty(len(pairs.user))
    for start in range(0, len(found), step):
        user, positive, negative = (column[start : start + step] for column in pairs)
        difference = items.index_select(0, positive).sub_(items.index_select(0, negative))
        products = difference.mul_(users.index_select(0, user))
        torch.sum(products, 1, out=found[start : start + step])
    return found


def _sums(
    vectors: Tensor, taken: Tensor, weight: Tensor, row: Tensor, n_rows: int
) -> tuple[Tensor, Tensor]:
    """Return (n_rows, D) sums of weighted vectors, each added to its row, and how many each has.

    The (E, D) products are never held, and a row is summed up by one thread in a fixed order, so
    that the last bits are the same each time.

    Args:
        vectors: (V, D).
        taken: (E,) int64, which vector.
        weight: (E,).
        row: (E,) int64, to which sum it belongs.
        n_rows: sums.
    """
    count = torch.bincount(row, minlength=n_rows)
    starts = count.cumsum(0).sub_(count)
    if not bool((row[1:] >= row[:-1]).all()):
        order = _by_number(row)
        taken, weight = taken.index_select(0, order), weight.index_select(0, order)
    sums: Tensor = torch.embedding_bag(
        vectors, taken, starts, mode=_SUM, per_sample_weights=weight
    )[0]
    return sums, count


def _by_number(numbers: Tensor) -> Tensor:
    """Return the (E,) int64 stable order of (E,) int64 numbers that are not negative.

    numpy sorts 16 bits by counting, several times faster than 64 by comparing.
    """
    if numbers.device.type != "cpu":
        return torch.argsort(numbers, stable=True)
    values = numbers.numpy()
    order = np.argsort(values.astype(np.uint16), kind="stable")  # the lowest 16 bits
    for shift in range(16, int(values.max(initial=0)).bit_length(), 16):
        order = order[np.argsort((values[order] >> shift).astype(np.uint16), kind="stable")]
    return torch.from_numpy(order)


def _penalise(table: Tensor, weight: Tensor, gradient: Tensor) -> Tensor:
    """Return the () sum of weight / 2 |row|^2 over rows; adds its gradient to `gradient`."""
    gradient.addcmul_(table, weight[:, None])
    penalty: Tensor = 0.5 * torch.linalg.vecdot(table, table).dot(weight)
    return penalty
