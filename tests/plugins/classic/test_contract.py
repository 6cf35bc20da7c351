"""What every classic model keeps: the contract, scores bit for bit, and clear errors."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmrec_bench.errors import MMRecError
from mmrec_bench.interfaces import Recommender, TrainingData
from mmrec_bench.testing import RecommenderTests
from mmrec_bench.types import Queries, Ragged
from mmrec_plugins.models.bm25 import BM25
from mmrec_plugins.models.ease import Ease
from mmrec_plugins.models.id_successor import IdSuccessor
from mmrec_plugins.models.item_knn import ItemKNN
from mmrec_plugins.models.markov import Markov
from mmrec_plugins.models.text_nn import TextNN

from .worked import data_of, queries_of, random_histories

N_ITEMS = 40


class TestMarkov(RecommenderTests):
    def make(self) -> Recommender:
        return Markov()


class TestItemKNN(RecommenderTests):
    def make(self) -> Recommender:
        return ItemKNN(ItemKNN.Config(k=5, shrink=1.0, recency=0.5))


class TestEase(RecommenderTests):
    def make(self) -> Recommender:
        return Ease(Ease.Config(l2=10.0))


class TestBM25(RecommenderTests):
    def make(self) -> Recommender:
        return BM25()


class TestTextNN(RecommenderTests):
    def make(self) -> Recommender:
        return TextNN()


class TestIdSuccessor(RecommenderTests):
    def make(self) -> Recommender:
        return IdSuccessor()


MODELS: dict[str, Callable[[], Any]] = {
    "markov-1": Markov,
    "item-knn": lambda: ItemKNN(ItemKNN.Config(k=4, recency=0.7)),
    "ease": lambda: Ease(Ease.Config(l2=3.0, recency=0.7)),
    "bm25": BM25,
    "id-successor": IdSuccessor,
    "text-nn": TextNN,
}


@pytest.fixture
def data(tmp_path: Path) -> TrainingData:
    rng = np.random.default_rng(0)
    words = [" ".join(f"w{w}" for w in rng.integers(0, 30, 5)) for _ in range(N_ITEMS - 1)]
    vectors = rng.normal(size=(N_ITEMS, 6)).astype(np.float32)
    vectors[7] = np.nan
    histories = random_histories(60, N_ITEMS, 12, seed=1)
    return data_of(histories, N_ITEMS, tmp_path, titles=[*words, ""], text_vectors=vectors)


@pytest.fixture(params=sorted(MODELS))
def make(request: pytest.FixtureRequest) -> Callable[[], Any]:
    return MODELS[request.param]


def asked(n: int = 30) -> Queries:
    """Queries with repeats, one item, no item, and items and users that train never saw."""
    rng = np.random.default_rng(2)
    rows = [rng.integers(0, N_ITEMS, int(rng.integers(0, 20))).tolist() for _ in range(n)]
    rows[0], rows[1], rows[2] = [], [N_ITEMS - 1], [3, 3, 5, 3]
    candidates = np.stack([rng.permutation(N_ITEMS)[:9] for _ in range(n)])
    return Queries(np.full(n, 59, np.int32), Ragged.from_rows(rows), candidates.astype(np.int32))


def test_the_catalog_and_lists_of_candidates_give_the_same_scores(
    make: Callable[[], Any], data: TrainingData
) -> None:
    model, queries = make(), asked()
    model.fit(data, seed=0)
    whole = model.score(Queries(queries.user, queries.history)).values
    listed = model.score(queries).values
    assert queries.candidates is not None
    assert whole.shape == (30, N_ITEMS)
    assert whole.dtype == listed.dtype == np.float32
    exact = 1e-6 if isinstance(model, TextNN) else 0  # a BLAS product is not summed in order
    np.testing.assert_allclose(
        np.take_along_axis(whole, queries.candidates, 1), listed, rtol=0, atol=exact
    )


def test_a_query_is_scored_alike_alone_and_among_others(
    make: Callable[[], Any], data: TrainingData
) -> None:
    model, queries = make(), asked()
    model.fit(data, seed=0)
    exact = 1e-6 if isinstance(model, TextNN) else 0
    for whole in (queries, Queries(queries.user, queries.history)):
        values = model.score(whole).values
        for i in range(0, 30, 7):
            alone = model.score(whole[i : i + 1]).values
            np.testing.assert_allclose(alone[0], values[i], rtol=0, atol=exact)


def test_an_empty_history_ties_everything_that_is_ranked(
    make: Callable[[], Any], data: TrainingData
) -> None:
    model = make()
    model.fit(data, seed=0)
    values = model.score(queries_of([[]])).values
    assert len(np.unique(values[~np.isnan(values)])) == 1


def test_a_query_that_is_no_train_user_is_scored_by_its_history_alone(
    make: Callable[[], Any], data: TrainingData
) -> None:
    model, queries = make(), asked()
    model.fit(data, seed=0)
    other = Queries(np.full(30, 10**6, np.int32), queries.history, queries.candidates)
    np.testing.assert_array_equal(model.score(other).values, model.score(queries).values)


def test_a_restored_model_gives_the_same_bits(
    make: Callable[[], Any], data: TrainingData, tmp_path: Path
) -> None:
    model, again, queries = make(), make(), asked()
    model.fit(data, seed=0)
    model.save(tmp_path / "model")
    again.restore(tmp_path / "model", data)
    np.testing.assert_array_equal(again.score(queries).values, model.score(queries).values)


def test_a_state_that_cannot_be_used_is_one_clear_error(
    make: Callable[[], Any], data: TrainingData, tmp_path: Path
) -> None:
    model = make()
    model.fit(data, seed=0)
    model.save(tmp_path / "model")
    with pytest.raises(MMRecError, match="cannot read"):
        make().restore(tmp_path / "nowhere", data)
    with pytest.raises(MMRecError, match=r"of 12 items|12 items"):
        make().restore(tmp_path / "model", data_of([[0]], 12, tmp_path))
    (path,) = (tmp_path / "model").iterdir()
    path.write_bytes(path.read_bytes()[:9])
    with pytest.raises(MMRecError, match="cannot read"):
        make().restore(tmp_path / "model", data)
