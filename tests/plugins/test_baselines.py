from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mmrec_bench.errors import StorageError
from mmrec_bench.interfaces import Recommender, TrainingData
from mmrec_bench.types import Catalog, Interactions, Queries, Ragged, Vocabulary
from mmrec_plugins.models.popularity import Popularity
from mmrec_plugins.models.random import Random

N_ITEMS = 50

MODELS: list[Callable[[], Recommender]] = [Random, Popularity]


def data_of(folder: Path, n_items: int = N_ITEMS) -> TrainingData:
    rng = np.random.default_rng(0)
    names = [f"i{i}" for i in range(n_items)]
    return TrainingData(
        interactions=Interactions.build(
            np.repeat(np.arange(20), 5), rng.integers(0, n_items // 2, 100)
        ),
        n_users=20,
        catalog=Catalog(Vocabulary(names), names),
        validation=Queries(np.zeros(0, np.int32), Ragged.from_rows([])),
        validate=lambda _: 0.0,
        validate_by=lambda _: 0.0,
        examples=lambda _: iter(()),
        n_examples=0,
        builder=None,
        users=Vocabulary([f"u{i}" for i in range(20)]),
        device="cpu",
        scratch=folder,
    )


def queries(n: int = 8, n_candidates: int | None = 10) -> Queries:
    rng = np.random.default_rng(1)
    user, history = np.arange(n, dtype=np.int32), Ragged.from_rows([[0]] * n)
    if n_candidates is None:
        return Queries(user, history)
    candidates = np.stack([rng.permutation(N_ITEMS)[:n_candidates] for _ in range(n)])
    return Queries(user, history, candidates.astype(np.int32))


@pytest.fixture(params=MODELS, ids=["random", "popularity"])
def make(request: pytest.FixtureRequest) -> Callable[[], Recommender]:
    build: Callable[[], Recommender] = request.param
    return build


def test_scores_do_not_depend_on_candidate_order_or_batch(
    make: Callable[[], Recommender], tmp_path: Path
) -> None:
    model = make()
    model.fit(data_of(tmp_path), seed=0)
    asked = queries()
    assert asked.candidates is not None
    turned = Queries(asked.user, asked.history, asked.candidates[:, ::-1])
    whole = model.score(asked).values

    np.testing.assert_array_equal(model.score(turned).values, whole[:, ::-1])
    np.testing.assert_array_equal(model.score(asked[3:5]).values, whole[3:5])
    catalog = model.score(queries(n_candidates=None)).values
    np.testing.assert_array_equal(np.take_along_axis(catalog, asked.candidates, 1), whole)
    assert whole.dtype == catalog.dtype == np.float32
    assert catalog.shape == (8, N_ITEMS)


def test_a_restored_model_scores_the_same(make: Callable[[], Recommender], tmp_path: Path) -> None:
    data, model, again = data_of(tmp_path), make(), make()
    model.fit(data, seed=5)
    model.save(tmp_path / "model")
    again.restore(tmp_path / "model", data)

    np.testing.assert_array_equal(again.score(queries()).values, model.score(queries()).values)


def test_a_state_that_cannot_be_used_is_one_clear_error(
    make: Callable[[], Recommender], tmp_path: Path
) -> None:
    model = make()
    with pytest.raises(StorageError, match="cannot read"):
        model.restore(tmp_path / "nowhere", data_of(tmp_path))
    model.fit(data_of(tmp_path), seed=0)
    model.save(tmp_path)
    with pytest.raises(StorageError, match=r"50 items, not (of )?30 items"):
        model.restore(tmp_path, data_of(tmp_path, 30))
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:9])
    with pytest.raises(StorageError, match="cannot read"):
        model.restore(tmp_path, data_of(tmp_path))


def test_popularity_counts_train_interactions(tmp_path: Path) -> None:
    data, model = data_of(tmp_path), Popularity()
    model.fit(data, seed=0)

    counts = np.bincount(data.interactions.item, minlength=N_ITEMS)
    assert model.score(queries(2, None)).values.tolist() == [counts.tolist()] * 2


def test_random_scores_are_uniform_and_differ_by_user_item_and_seed(tmp_path: Path) -> None:
    model, other = Random(), Random()
    model.fit(data_of(tmp_path), seed=0)
    other.fit(data_of(tmp_path), seed=1)
    asked = queries(2000, None)
    values = model.score(asked).values

    assert values.min() >= 0
    assert values.max() < 1
    assert np.abs(np.histogram(values, 10, (0, 1))[0] / values.size - 0.1).max() < 0.005
    assert abs(np.corrcoef(values[0], values[1])[0, 1]) < 0.5
    assert abs(np.corrcoef(values.ravel(), other.score(asked).values.ravel())[0, 1]) < 0.02
    assert np.abs(values.mean(axis=0) - 0.5).max() < 0.03
    assert np.abs(np.corrcoef(values.T) - np.eye(N_ITEMS)).max() < 0.12
