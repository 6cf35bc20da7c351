from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from mmrec_bench.interfaces import Recommender, TrainingData
from mmrec_bench.testing import RecommenderTests, toy_split, toy_training_data
from mmrec_bench.types import Interactions, Queries, Ragged, Split
from mmrec_plugins.models import factors
from mmrec_plugins.models.bpr_mf import BPRMF
from mmrec_plugins.models.factors import FactorRecommender, factor_pair_loss, pair_loss
from mmrec_plugins.models.lightgcn import LightGCN
from mmrec_plugins.models.popularity import Popularity
from mmrec_plugins.models.sampling import Pairs

SMALL = {"embedding_size": 8, "learning_rate": 0.05, "batch_size": 32, "epochs": 12}


class TestBPRMF(RecommenderTests):
    def make(self) -> Recommender:
        return BPRMF(BPRMF.Config(**SMALL))


class TestBPRMFWithoutBias(RecommenderTests):
    def make(self) -> Recommender:
        return BPRMF(BPRMF.Config(**SMALL, item_bias=False))


class TestLightGCN(RecommenderTests):
    def make(self) -> Recommender:
        return LightGCN(LightGCN.Config(**SMALL, n_layers=2))


MODELS = [
    pytest.param(lambda: BPRMF(BPRMF.Config(**SMALL)), id="bpr-mf"),
    pytest.param(lambda: LightGCN(LightGCN.Config(**SMALL)), id="lightgcn"),
]


def random_pairs() -> tuple[Tensor, Tensor, Tensor, Pairs]:
    draw = torch.Generator().manual_seed(0)
    users, items, bias = (
        torch.randn(*shape, generator=draw, dtype=torch.float64, requires_grad=True)
        for shape in ((7, 6), (11, 6), (11,))
    )
    user, positive, negative = (torch.randint(0, n, (30,), generator=draw) for n in (7, 11, 11))
    return users, items, bias, Pairs(user, positive, negative)


def by_autograd(
    users: Tensor, items: Tensor, bias: Tensor | None, pairs: Pairs, regularisation: float
) -> Tensor:
    """The formula of the docstring, pair by pair."""
    total = torch.zeros((), dtype=torch.float64)
    for u, i, j in zip(*(column.tolist() for column in pairs), strict=True):
        ahead = users[u] @ (items[i] - items[j])
        norms = users[u] @ users[u] + items[i] @ items[i] + items[j] @ items[j]
        if bias is not None:
            ahead = ahead + bias[i] - bias[j]
            norms = norms + bias[i] ** 2 + bias[j] ** 2
        total = total - torch.log(torch.sigmoid(ahead)) + regularisation / 2 * norms
    return total / len(pairs.user)


@pytest.mark.parametrize("regularisation", [0.0, 0.3])
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("block", [24, 1 << 16])
def test_the_written_out_gradient_is_that_of_the_formula(
    regularisation: float, with_bias: bool, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(factors, "_BLOCK", block)
    users, items, bias, pairs = random_pairs()
    tables = [users, items, bias] if with_bias else [users, items]
    used = bias if with_bias else None
    own = factor_pair_loss(users, items, used, pairs, regularisation)
    naive = by_autograd(users, items, used, pairs, regularisation)

    torch.testing.assert_close(own, naive)
    for a, b in zip(
        torch.autograd.grad(3 * own, tables), torch.autograd.grad(3 * naive, tables), strict=True
    ):
        torch.testing.assert_close(a, b)


def test_numbers_of_more_than_16_bits_are_ordered_too() -> None:
    numbers = torch.tensor([70_000, 3, 1 << 40, 65_536, 3, 0, 1 << 33, 70_000])
    expected = torch.argsort(numbers, stable=True)
    assert torch.equal(factors._by_number(numbers), expected)


def test_the_loss_of_equal_scores_is_the_logarithm_of_two() -> None:
    scores = torch.tensor([1.0, -2.0])
    assert pair_loss(scores, scores).item() == pytest.approx(np.log(2))
    assert pair_loss(torch.tensor([np.log(3.0)]), torch.tensor([0.0])).item() == pytest.approx(
        np.log(4 / 3)
    )


def cold_data(folder: Path) -> TrainingData:
    """Users 2 and 5 and items 20 to 23 are unseen in train."""
    data = toy_training_data(toy_split(), folder)
    rows = data.interactions
    kept = ~np.isin(rows.user, [2, 5]) & (rows.item < 20)
    rows = Interactions(rows.user[kept], rows.item[kept], rows.timestamp[kept], rows.rating[kept])
    return TrainingData(**{**vars(data), "interactions": rows})


@pytest.mark.parametrize("make", MODELS)
def test_a_user_unseen_in_train_gets_the_mean_of_the_others(
    make: Callable[[], FactorRecommender], tmp_path: Path
) -> None:
    data, model = cold_data(tmp_path), make()
    model.fit(data, seed=0)
    n_users = data.n_users
    values = model.score(
        Queries(np.arange(n_users, dtype=np.int32), Ragged.from_rows([[0]] * n_users))
    ).values
    seen = np.setdiff1d(np.arange(n_users), [2, 5])

    assert np.isfinite(values).all()
    np.testing.assert_array_equal(values[2], values[5])
    np.testing.assert_allclose(values[2], values[seen].mean(axis=0), rtol=1e-4, atol=1e-5)
    assert (values[seen] != values[2]).any(axis=1).all()


@pytest.mark.parametrize("make", MODELS)
def test_the_history_of_a_query_changes_nothing(
    make: Callable[[], FactorRecommender], tmp_path: Path
) -> None:
    data, model = cold_data(tmp_path), make()
    model.fit(data, seed=0)
    users = np.array([0, 2], np.int32)
    without = Queries(users, Ragged.from_rows([[], []]))
    with_some = Queries(users, Ragged.from_rows([[3, 4], [1]]))
    np.testing.assert_array_equal(model.score(without).values, model.score(with_some).values)


@pytest.mark.parametrize("make", MODELS)
def test_bfloat16_is_refused(make: Callable[[], FactorRecommender]) -> None:
    config = type(make().config)
    with pytest.raises(ValueError, match="float32"):
        config(dtype="bfloat16")


@pytest.mark.parametrize("make", MODELS)
def test_it_ranks_train_items_far_above_what_popularity_does(
    make: Callable[[], FactorRecommender], tmp_path: Path
) -> None:
    split: Split = toy_split()
    data = toy_training_data(split, tmp_path)

    def pairs_in_order(model: Recommender) -> float:
        """Share of (train item, other item) pairs that are in the right order."""
        model.fit(data, seed=0)
        users = np.arange(data.n_users, dtype=np.int32)
        values = model.score(Queries(users, Ragged.from_rows([[]] * len(users)))).values
        took = np.zeros(values.shape, np.bool_)
        took[data.interactions.user, data.interactions.item] = True
        ahead = [
            np.mean(row[mine][:, None] > row[~mine]) for row, mine in zip(values, took, strict=True)
        ]
        return float(np.mean(ahead))

    assert pairs_in_order(make()) > 0.85
    assert pairs_in_order(Popularity()) < 0.75


def test_lightgcn_without_layers_has_the_scores_of_plain_factors(tmp_path: Path) -> None:
    data = toy_training_data(toy_split(), tmp_path)
    model = LightGCN(LightGCN.Config(**{**SMALL, "epochs": 2}, n_layers=0))
    model.fit(data, seed=0)
    nodes = model.module.vectors.detach().numpy()
    users = np.arange(data.n_users, dtype=np.int32)
    found = model.score(Queries(users, Ragged.from_rows([[]] * len(users)))).values
    np.testing.assert_allclose(found, nodes[: data.n_users] @ nodes[data.n_users :].T, rtol=1e-5)


def test_the_loss_of_lightgcn_is_equation_15(tmp_path: Path) -> None:
    data = toy_training_data(toy_split(), tmp_path)
    model = LightGCN(LightGCN.Config(**{**SMALL, "epochs": 1}, n_layers=2, regularisation=0.3))
    model.fit(data, seed=0)
    (batch, *_) = model.batches(np.random.default_rng(0))
    nodes, n_users = model.module.vectors, data.n_users
    keys = set(zip(data.interactions.user.tolist(), data.interactions.item.tolist(), strict=True))
    dense = torch.zeros(len(nodes), len(nodes))
    for user, item in keys:
        dense[user, n_users + item] = dense[n_users + item, user] = 1
    scale = dense.sum(1).clamp(min=1).rsqrt()
    dense = scale[:, None] * dense * scale
    final = (nodes + dense @ nodes + dense @ dense @ nodes) / 3
    user, positive, negative = batch.user, batch.positive + n_users, batch.negative + n_users
    ahead = (final[user] * (final[positive] - final[negative])).sum(1)
    norms = torch.stack([nodes[r].square().sum() for r in (user, positive, negative)]).sum()
    expected = -torch.sigmoid(ahead).log().mean() + 0.3 / 2 * norms / len(user)

    found = model.loss(batch)
    torch.testing.assert_close(found, expected)
    (own,), (naive,) = torch.autograd.grad(found, nodes), torch.autograd.grad(expected, nodes)
    torch.testing.assert_close(own, naive)
