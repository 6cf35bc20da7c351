"""On the split of MovieLens-100k that RecBole draws, the figures are those that RecBole gives."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mmrec_bench.counting import rank
from mmrec_bench.evaluation import measurements
from mmrec_bench.interfaces import Recommender
from mmrec_bench.planning import build_metrics
from mmrec_bench.plugins import installed
from mmrec_bench.splitting import ratio_sizes
from mmrec_bench.types import Cases, Int64Array, Interactions, Outcomes, Queries, Ragged
from mmrec_plugins.models.ease import Ease
from mmrec_plugins.models.item_knn import ItemKNN

from .worked import data_of

N_USERS, N_ITEMS = 943, 1682


def recbole_parts(path: Path) -> list[tuple[Int64Array, Int64Array]]:
    """(user, item) of train, validation, test as RecBole 1.2.1 draws them with its seed 2020.

    It shuffles all rows by `torch.randperm` and cuts each user's rows at 8:1:1.
    """
    rows = np.loadtxt(path, dtype=np.int64)[:, :2] - 1
    with torch.random.fork_rng():
        torch.manual_seed(2020)
        rows = rows[torch.randperm(len(rows)).numpy()]
    rows = rows[np.argsort(rows[:, 0], kind="stable")]
    user, item = rows.T
    lengths = np.bincount(user)
    n_validation, n_test = ratio_sizes(lengths, (0.8, 0.1, 0.1))
    place = np.arange(len(rows)) - (np.cumsum(lengths) - lengths)[user]
    first_test = (lengths - n_test)[user]
    part = np.where(place >= first_test, 2, place >= first_test - n_validation[user])
    return [(user[part == p], item[part == p]) for p in range(3)]


def rows_of(user: Int64Array, item: Int64Array) -> Ragged:
    order = np.argsort(user, kind="stable")
    return Ragged.from_lengths(item[order].astype(np.int32), np.bincount(user, minlength=N_USERS))


@pytest.mark.parametrize(
    ("model", "hit_rate", "ndcg"),
    [
        (ItemKNN(ItemKNN.Config(k=100)), 0.7847, 0.2834),
        (Ease(Ease.Config(l2=250.0)), 0.8197, 0.3295),
    ],
    ids=["ItemKNN", "EASE"],
)
def test_recbole_and_we_agree_to_four_digits(
    model: Recommender, hit_rate: float, ndcg: float, shared_data: Path, tmp_path: Path
) -> None:
    train, validation, test = recbole_parts(shared_data / "ml-100k" / "u.data")
    data = replace(data_of([[0]], N_ITEMS, tmp_path), interactions=Interactions.build(*train))
    model.fit(replace(data, n_users=N_USERS), seed=0)
    seen = rows_of(*(np.concatenate(pair) for pair in zip(train, validation, strict=True)))
    queries = Queries(np.arange(N_USERS, dtype=np.int32), rows_of(*train))
    ranks = rank(model.score(queries).values, Cases(queries, rows_of(*test), seen))
    found = measurements(
        build_metrics(("hit_rate@10", "ndcg@10"), installed()),
        Outcomes(ranks, data.catalog, data.item_counts()),
    )
    assert found["hit_rate@10"].value == pytest.approx(hit_rate, abs=5e-5)
    assert found["ndcg@10"].value == pytest.approx(ndcg, abs=5e-5)
