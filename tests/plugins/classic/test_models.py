"""Hand-worked numbers, and second implementations that loop."""

import math
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

from mmrec_bench.errors import ConfigError, ModelError
from mmrec_plugins.models import ease, item_knn, matrices
from mmrec_plugins.models.bm25 import BM25
from mmrec_plugins.models.ease import Ease
from mmrec_plugins.models.id_successor import IdSuccessor
from mmrec_plugins.models.item_knn import ItemKNN
from mmrec_plugins.models.markov import Markov
from mmrec_plugins.models.text_nn import TextNN

from .worked import binary, data_of, queries_of, random_histories

# Items 0..4; item 4 is in no history.
HISTORIES = [[0, 1, 2], [0, 1], [1, 3], [0, 2, 1]]


def test_markov_divides_the_steps_to_an_item_by_all_steps(tmp_path: Path) -> None:
    model = Markov()
    model.fit(data_of(HISTORIES, 5, tmp_path), seed=0)
    # After 0: 1, 1, 2. After 1: 2, 3. After 2: 1. After 3 and 4: nothing.
    values = model.score(queries_of([[2, 0], [1], [0, 2], [3], [4]])).values
    expected: list[list[float]] = [
        [0, 2 / 3, 1 / 3, 0, 0],
        [0, 0, 1 / 2, 1 / 2, 0],
        [0, 1, 0, 0, 0],
        [0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0],
    ]
    np.testing.assert_allclose(values, expected, rtol=1e-7)


def test_item_knn_is_the_cosine_of_shared_users(tmp_path: Path) -> None:
    model = ItemKNN()
    model.fit(data_of(HISTORIES, 5, tmp_path), seed=0)
    # Users of 0: 3, of 1: 4, of 2: 2, of 3: 1; shared 0-1: 3, 0-2: 2, 1-2: 2, 1-3: 1.
    values = model.score(queries_of([[0], [0, 1]])).values
    near0 = np.array([0, 3 / math.sqrt(12), 2 / math.sqrt(6), 0, 0])
    near1 = np.array([3 / math.sqrt(12), 0, 2 / math.sqrt(8), 1 / 2, 0])
    np.testing.assert_allclose(values, [near0, near0 + near1], rtol=1e-7)


def test_item_knn_weighs_an_older_item_less_and_shrinks_rare_pairs(tmp_path: Path) -> None:
    model = ItemKNN(ItemKNN.Config(recency=0.5, shrink=2.0))
    model.fit(data_of(HISTORIES, 5, tmp_path), seed=0)
    values = model.score(queries_of([[0, 1]], [[2, 3]])).values
    at2 = 0.5 * 2 / (math.sqrt(6) + 2) + 2 / (math.sqrt(8) + 2)
    np.testing.assert_allclose(values, [[at2, 1 / (2 + 2)]], rtol=1e-7)


def test_item_knn_keeps_the_nearest_of_the_scored_item_or_of_the_history(tmp_path: Path) -> None:
    data, asked = data_of(HISTORIES, 5, tmp_path), queries_of([[1]])
    # The nearest of 0 is 1 (.87), of 1 is 0 (.87), of 2 is 0 (.82), of 3 is 1 (.5).
    target, history = (ItemKNN(ItemKNN.Config(k=1, neighbours_of=n)) for n in ("target", "history"))
    target.fit(data, seed=0)
    history.fit(data, seed=0)
    near = 3 / math.sqrt(12)
    np.testing.assert_allclose(target.score(asked).values, [[near, 0, 0, 1 / 2, 0]], rtol=1e-7)
    np.testing.assert_allclose(history.score(asked).values, [[near, 0, 0, 0, 0]], rtol=1e-7)


def test_neighbours_as_near_as_the_kth_stay_whatever_their_number(tmp_path: Path) -> None:
    model = ItemKNN(ItemKNN.Config(k=1, neighbours_of="history"))
    model.fit(data_of([[0, 1], [0, 2], [0, 3]], 4, tmp_path), seed=0)
    values = model.score(queries_of([[0]])).values
    np.testing.assert_allclose(values, [[0, *[1 / math.sqrt(3)] * 3]], rtol=1e-7)


def naive_knn(
    histories: list[list[int]], n_items: int, query: list[int], k: int, config: ItemKNN.Config
) -> list[float]:
    x = binary(histories, n_items)
    near = np.zeros((n_items, n_items))
    for i in range(n_items):
        for j in range(n_items):
            both = float((x[:, i] * x[:, j]).sum())
            if i != j and both:
                below = math.sqrt(x[:, i].sum() * x[:, j].sum()) + config.shrink
                near[i, j] = both / below
    kth = np.sort(near, axis=1)[:, -k]
    kept = near * (near >= kth[:, None] - 1e-12)
    kept = kept.T if config.neighbours_of == "target" else kept
    return [
        sum(config.recency ** (len(query) - 1 - at) * kept[i, j] for at, i in enumerate(query))
        for j in range(n_items)
    ]


@pytest.mark.parametrize("neighbours_of", ["target", "history"])
@pytest.mark.parametrize("dense", [True, False])
def test_item_knn_agrees_with_loops(
    neighbours_of: str, dense: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not dense:
        monkeypatch.setattr(item_knn, "dense_gram", lambda _: None)
        monkeypatch.setattr(matrices, "_STEPS", 300)  # several blocks
    monkeypatch.setattr(matrices, "BLOCK", 64)
    histories = random_histories(50, 25, 12, seed=3)
    config = ItemKNN.Config(k=4, shrink=1.5, recency=0.8, neighbours_of=neighbours_of)
    model = ItemKNN(config)
    model.fit(data_of(histories, 25, tmp_path), seed=0)
    asked = [[3], [4, 9, 1, 0, 12], [24, 2], [5, 6, 7]]
    expected = [naive_knn(histories, 25, query, 4, config) for query in asked]
    np.testing.assert_allclose(model.score(queries_of(asked)).values, expected, rtol=1e-6)


def test_repeated_interactions_count_once(tmp_path: Path) -> None:
    once, twice = ItemKNN(), ItemKNN()
    once.fit(data_of(HISTORIES, 5, tmp_path), seed=0)
    twice.fit(data_of([[0, 1, 2, 0, 0], *HISTORIES[1:]], 5, tmp_path), seed=0)
    asked = queries_of([[0], [1, 2]])
    np.testing.assert_array_equal(once.score(asked).values, twice.score(asked).values)


def test_scores_that_are_equal_on_paper_are_tied(tmp_path: Path) -> None:
    # 3 and 4 have the same users, and so the same sums, whichever order they are taken in.
    histories = [[0, 1, 2, 3, 4], [1, 3, 4], [0, 2], [2, 3, 4], [0, 1], [0, 4, 3]]
    model = ItemKNN()
    model.fit(data_of(histories, 5, tmp_path), seed=0)
    values = model.score(queries_of([[0, 1, 2], [2, 1, 0], [1, 0, 2]])).values
    np.testing.assert_array_equal(values[:, 3], values[:, 4])
    assert len(np.unique(values[:, 3])) == 1


def test_ease_of_two_items_is_worked_by_hand(tmp_path: Path) -> None:
    model = Ease(Ease.Config(l2=1.0))
    model.fit(data_of([[0, 1], [0, 1], [0]], 2, tmp_path), seed=0)
    # X'X + I = [[4, 2], [2, 3]], P = [[3, -2], [-2, 4]] / 8: B_01 = 2/4, B_10 = 2/3.
    values = model.score(queries_of([[0], [1], [0, 1]])).values
    np.testing.assert_allclose(values, [[0, 1 / 2], [2 / 3, 0], [2 / 3, 1 / 2]], rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float64", "float32", "auto"])
@pytest.mark.parametrize("dense", [True, False])
def test_ease_minimises_its_loss_column_by_column(
    dtype: str, dense: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not dense:
        monkeypatch.setattr(ease, "dense_gram", lambda _: None)
    monkeypatch.setattr(matrices, "BLOCK", 64)
    n_items, l2 = 25, 2.0
    histories = random_histories(60, n_items, 12, seed=4)
    model = Ease(Ease.Config(l2=l2, recency=0.9, dtype=dtype))
    model.fit(data_of(histories, n_items, tmp_path), seed=0)
    # Ridge regression of each column on all others: the same minimum, found another way.
    x, weights = binary(histories, n_items), np.zeros((n_items, n_items))
    for j in range(n_items):
        others = np.delete(np.arange(n_items), j)
        below = x[:, others].T @ x[:, others] + l2 * np.eye(n_items - 1)
        weights[others, j] = np.linalg.solve(below, x[:, others].T @ x[:, j])
    asked = [[1], [4, 9, 0, 12], [24, 2], [5, 5, 7]]
    expected = [
        sum(0.9 ** (len(query) - 1 - at) * weights[i] for at, i in enumerate(query))
        for query in asked
    ]
    np.testing.assert_allclose(
        model.score(queries_of(asked)).values, expected, rtol=1e-4, atol=1e-5
    )


def test_ease_takes_float64_where_float32_would_lose_digits() -> None:
    users = sp.csr_array(np.ones((4, 3), np.float32))
    assert ease._gram(users, 100.0, "auto").dtype == np.float32
    assert ease._gram(users, 1e-3, "auto").dtype == np.float64
    assert ease._gram(users, 1e-3, "float32").dtype == np.float32


def test_ease_says_when_float32_cannot_invert(tmp_path: Path) -> None:
    model = Ease(Ease.Config(l2=1e-12, dtype="float32"))
    with pytest.raises(ModelError, match=r"raise model.l2, or take model.dtype=float64"):
        model.fit(data_of([[0, 1, 2]] * 5, 3, tmp_path), seed=0)


def test_the_successor_of_the_newest_number_comes_first(tmp_path: Path) -> None:
    model = IdSuccessor()
    model.fit(data_of(HISTORIES, 5, tmp_path), seed=0)
    values = model.score(queries_of([[0, 3], [4]])).values
    np.testing.assert_allclose(
        values, [[1 / 2, 1 / 3, 1 / 4, 1 / 5, 1], [1, 1 / 2, 1 / 3, 1 / 4, 1 / 5]], rtol=1e-7
    )


TITLES = ["red mug", "red red lamp", "blue lamp", "MUG, small", ""]


def test_bm25_of_one_word_is_worked_by_hand(tmp_path: Path) -> None:
    model = BM25(BM25.Config(k1=1.2, b=0.75))
    model.fit(data_of(HISTORIES, 5, tmp_path, titles=TITLES), seed=0)
    values = model.score(queries_of([[2]])).values[0]  # blue, lamp; 9 words in 5 documents
    blue, lamp = math.log(1 + 4.5 / 1.5), math.log(1 + 3.5 / 2.5)
    short, long = (1.2 * (0.25 + 0.75 * n / (9 / 5)) for n in (2, 3))
    at1, at2 = lamp * 2.2 / (1 + long), (blue + lamp) * 2.2 / (1 + short)
    np.testing.assert_allclose(values, [0, at1, at2, 0, np.nan], rtol=1e-6)


def naive_bm25(titles: list[str], query: list[int], config: BM25.Config) -> list[float]:
    words = [re.findall(r"\w+", title.lower()) for title in titles]
    n = len(words)
    mean = sum(map(len, words)) / n
    asked: Counter[str] = Counter()
    for at, item in enumerate(query):
        for word in words[item]:
            asked[word] += config.recency ** (len(query) - 1 - at)  # type: ignore[assignment]
    scores = []
    for document in words:
        total = 0.0
        for word, weight in asked.items():
            tf, having = document.count(word), sum(word in other for other in words)
            idf = math.log(1 + (n - having + 0.5) / (having + 0.5))
            slow = config.k1 * (1 - config.b + config.b * len(document) / mean)
            total += weight * idf * tf * (config.k1 + 1) / (tf + slow)
        scores.append(total if document else math.nan)
    return scores


def test_bm25_agrees_with_loops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmrec_plugins.models.bm25.BLOCK", 64)
    rng = np.random.default_rng(5)
    titles = [" ".join(f"w{w}" for w in rng.integers(0, 12, n)) for n in rng.integers(0, 9, 20)]
    config = BM25.Config(k1=0.9, b=0.4, recency=0.6)
    model = BM25(config)
    model.fit(data_of(HISTORIES, 20, tmp_path, titles=titles), seed=0)
    asked = [[3], [4, 9, 1], [0, 0, 7], [11, 12, 13, 14, 15]]
    expected = [naive_bm25(titles, query, config) for query in asked]
    np.testing.assert_allclose(model.score(queries_of(asked)).values, expected, rtol=1e-5)


def test_bm25_compares_lengths_to_a_mean_below_one_word(tmp_path: Path) -> None:
    titles = ["mug", "", "mug lamp", ""]
    config = BM25.Config()
    model = BM25(config)
    model.fit(data_of([[0, 1]], 4, tmp_path, titles=titles), seed=0)
    expected = naive_bm25(titles, [0], config)
    found = model.score(queries_of([[0]], [[0, 2]])).values
    np.testing.assert_allclose(found, [[expected[0], expected[2]]], rtol=1e-5)


def test_bm25_needs_words(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="none of the 2 items has a word"):
        BM25().fit(data_of([[0, 1]], 2, tmp_path, titles=["", "..."]), seed=0)


def test_text_nn_is_the_cosine_to_the_mean_of_the_history(tmp_path: Path) -> None:
    vectors = np.array([[2, 0], [0, 3], [1, 1], [np.nan, np.nan], [-1, 0]], np.float32)
    model = TextNN()
    model.fit(data_of(HISTORIES, 5, tmp_path, text_vectors=vectors), seed=0)
    half = math.sqrt(0.5)
    values = model.score(queries_of([[0, 3], [0, 1], [3]])).values
    expected = [
        [1, 0, half, np.nan, -1],
        [half, half, 1, np.nan, -half],
        [0, 0, 0, np.nan, 0],
    ]
    np.testing.assert_allclose(values, expected, atol=1e-6)


def test_items_of_equal_vectors_tie_in_text_nn(tmp_path: Path) -> None:
    # Of a size at which BLAS was seen to round equal columns apart.
    rng = np.random.default_rng(0)
    which = rng.integers(0, 6000, 12_000)
    vectors = rng.normal(size=(6000, 384)).astype(np.float32)[which]
    model = TextNN()
    model.fit(data_of(HISTORIES, 12_000, tmp_path, text_vectors=vectors), seed=0)
    for histories in ([[1, 2, 3]], [[3], [5, 7], [9]]):
        values = model.score(queries_of(histories)).values
        first = np.zeros((len(histories), 6000), np.float32)
        first[:, which] = values
        np.testing.assert_array_equal(first[:, which], values)


def test_text_nn_weighs_older_items_less(tmp_path: Path) -> None:
    vectors = np.array([[2, 0], [0, 3], [1, 1]], np.float32)
    model = TextNN(TextNN.Config(recency=0.5))
    model.fit(data_of([[0, 1, 2]], 3, tmp_path, text_vectors=vectors), seed=0)
    # u = v_1 + 0.5 v_0 = (0.5, 1)
    length = math.sqrt(1.25)
    expected = [[0.5 / length, 1 / length, 1.5 / length / math.sqrt(2)]]
    np.testing.assert_allclose(model.score(queries_of([[0, 1]])).values, expected, rtol=1e-6)


@pytest.mark.parametrize("n_unknown", [1, 80, 85, 400])
def test_text_nn_gives_cosines_where_only_old_items_are_known(
    n_unknown: int, tmp_path: Path
) -> None:
    # 0.3^80 is 1e-42, of which float32 keeps two digits.
    vectors = np.array([[3, 1], [np.nan, np.nan], [0, 0], [1, -2]], np.float32)
    model = TextNN(TextNN.Config(recency=0.3))
    model.fit(data_of([[0, 1, 2]], 4, tmp_path, text_vectors=vectors), seed=0)
    found = model.score(queries_of([[0] + [1, 2] * (n_unknown // 2) + [1] * (n_unknown % 2)]))
    expected = [[1, np.nan, 0, 1 / math.sqrt(50)]]
    np.testing.assert_allclose(found.values, expected, rtol=1e-6)


def test_text_nn_has_no_vector_of_a_row_that_is_not_finite_throughout(tmp_path: Path) -> None:
    vectors = np.array([[2, 0], [1, np.inf], [1, np.nan]], np.float32)
    model = TextNN()
    model.fit(data_of([[0, 1, 2]], 3, tmp_path, text_vectors=vectors), seed=0)
    whole = model.score(queries_of([[1, 0]])).values
    asked = model.score(queries_of([[1, 0]], [[0, 1, 2]])).values
    for found in (whole, asked):
        np.testing.assert_array_equal(found, [[1, np.nan, np.nan]])


def test_text_nn_says_that_it_needs_vectors(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"text_vectors\.name=minilm"):
        TextNN().fit(data_of(HISTORIES, 5, tmp_path), seed=0)
