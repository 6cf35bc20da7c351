"""What items are called: schemes, distinct codes, and the tree of clusters."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from mmrec_bench.interfaces import TrainingData
from mmrec_bench.testing import toy_split, toy_training_data
from mmrec_bench.types import Catalog, Interactions, Vocabulary
from mmrec_plugins.models.p5.collaborative import cluster_paths, divide, k_means
from mmrec_plugins.models.p5.ids import codes_of, name_items, order_of_appearance
from mmrec_plugins.models.p5.options import P5Config, Scheme
from mmrec_plugins.models.p5.tokens import Tokens, make_tokens


def data_of(
    tmp_path: Path, rows: list[list[int]], n_items: int, titles: list[str] | None = None
) -> TrainingData:
    user = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
    interactions = Interactions.build(user, np.array([item for row in rows for item in row]))
    catalog = Catalog(Vocabulary([f"i{n}" for n in range(n_items)]), titles or [""] * n_items)
    data = toy_training_data(toy_split(), tmp_path)
    return replace(data, interactions=interactions, catalog=catalog, n_users=len(rows))


def codes(
    data: TrainingData, scheme: Scheme, tokens: Tokens | None = None, seed: int = 0
) -> list[list[int]]:
    config = P5Config(ids=scheme, cluster_size=2, n_clusters=2, title_tokens=3)
    names = name_items(config, data, seed=seed)
    texts = [" ".join(words) for words in names.words] if scheme == "title" else []
    longest = config.title_tokens if scheme == "title" else None
    return codes_of(names, tokens or make_tokens(texts), longest=longest)


def test_sequential_numbers_follow_the_first_appearance_in_train(tmp_path: Path) -> None:
    data = data_of(tmp_path, [[4, 2], [2, 0, 4]], 6)
    # 4, 2, 0 appear in this order; 1, 3 and 5 do not.
    assert order_of_appearance(data).tolist() == [2, 3, 1, 4, 0, 5]


def test_sequential_numbers_do_not_see_what_is_not_in_train(tmp_path: Path) -> None:
    whole = data_of(tmp_path, [[4, 2, 5], [2, 0, 4, 3]], 6)
    last = np.array([2, 6])
    train = replace(whole, interactions=whole.interactions.take(np.delete(np.arange(7), last)))
    shown = data_of(tmp_path, [[4, 2], [2, 0, 4]], 6)
    np.testing.assert_array_equal(order_of_appearance(train), order_of_appearance(shown))


def test_catalog_numbers_are_the_runs_own(tmp_path: Path) -> None:
    data = data_of(tmp_path, [[4, 2], [2, 0, 4]], 6)
    names = name_items(P5Config(ids="sequential", numbering="catalog"), data, seed=0)
    assert names.words == (("0",), ("1",), ("2",), ("3",), ("4",), ("5",))


@pytest.mark.parametrize("scheme", ["sequential", "random", "collaborative", "independent"])
def test_every_item_has_a_code_of_its_own(scheme: Scheme, tmp_path: Path) -> None:
    data = data_of(tmp_path, [[0, 1, 2], [7, 8, 2], [0, 1]], 150)
    found = [tuple(code) for code in codes(data, scheme)]
    assert len(set(found)) == len(found) == 150
    assert all(found)


def test_random_numbers_follow_the_seed(tmp_path: Path) -> None:
    data = data_of(tmp_path, [[0, 1]], 40)
    assert codes(data, "random") == codes(data, "random")
    assert codes(data, "random") != codes(data, "random", seed=1)


def test_independent_codes_are_one_new_token_each(tmp_path: Path) -> None:
    tokens = make_tokens([])
    before = len(tokens)
    found = codes(data_of(tmp_path, [[0, 1]], 5), "independent", tokens)
    assert found == [[before + item] for item in range(5)]
    assert len(tokens) == before + 5


def test_equal_titles_are_told_apart_by_numbers(tmp_path: Path) -> None:
    titles = ["red mug", "Red  mug", "red mug", "red mug 2", ""]
    data = data_of(tmp_path, [[0, 1]], 5, titles)
    tokens = make_tokens([*titles, "untitled"])
    found = [tokens.tokenizer.decode(code) for code in codes(data, "title", tokens)]
    # "red mug 2" is another item's own title, so the copies get the numbers behind it.
    assert found == ["red mug", "red mug 3", "red mug 4", "red mug 2", "untitled"]


def test_titles_are_cut_before_they_are_told_apart(tmp_path: Path) -> None:
    titles = ["one two three four", "one two three five", "x"]
    data = data_of(tmp_path, [[0, 1]], 3, titles)
    tokens = make_tokens(titles)
    found = [tokens.tokenizer.decode(code) for code in codes(data, "title", tokens)]
    assert found[:2] == ["one two three", "one two three 2"]


def test_a_title_that_spells_the_end_token_is_words(tmp_path: Path) -> None:
    tokens = make_tokens(["</s> mug"])
    (code,) = codes(data_of(tmp_path, [[0]], 1, ["</s> mug"]), "title", tokens)
    assert tokens.end not in code


class TestClusters:
    def paths(self, rows: list[list[int]], n_items: int, **sizes: int) -> list[list[int]]:
        user = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
        items = np.array([item for row in rows for item in row])
        sizes = {"n_clusters": 2, "cluster_size": 3} | sizes
        interactions = Interactions.build(user, items)
        return cluster_paths(interactions, len(rows), n_items, seed=0, **sizes)

    def test_items_that_are_taken_together_share_the_start(self) -> None:
        # Two groups that nobody mixes; items 1, 3, 5 and items 0, 2, 4.
        paths = self.paths([[1, 3], [3, 5], [5, 1], [0, 2], [2, 4], [4, 0]], 6)
        first = [path[0] for path in paths]
        assert first[1] == first[3] == first[5] != first[0] == first[2] == first[4]
        assert {len(path) for path in paths} == {2}

    def test_a_small_catalog_is_one_leaf_in_order_of_popularity(self) -> None:
        assert self.paths([[2, 1], [2]], 3) == [[2], [1], [0]]

    def test_items_never_taken_together_end_in_leaves_too(self) -> None:
        paths = self.paths([[0]], 20, cluster_size=4)
        assert len({tuple(path) for path in paths}) == 20
        assert max(path[-1] for path in paths) < 4

    def test_the_same_seed_gives_the_same_tree(self) -> None:
        rng = np.random.default_rng(0)
        rows = [rng.choice(60, 6, replace=False).tolist() for _ in range(50)]
        assert self.paths(rows, 60) == self.paths(rows, 60)

    def test_the_same_seed_gives_the_same_tree_where_all_eigenvalues_are_equal(self) -> None:
        pairs = [[n, n + 1] for n in range(0, 900, 2)]  # ARPACK starts again, by chance
        sizes = {"n_clusters": 10, "cluster_size": 100}
        assert self.paths(pairs, 900, **sizes) == self.paths(pairs, 900, **sizes)

    def test_a_large_graph_is_divided_as_a_small_one(self) -> None:
        block = np.ones((300, 300)) - np.eye(300)
        graph = sparse.block_diag([block, block], format="csr")
        labels = divide(graph, 2, np.random.default_rng(0))
        assert len(set(labels[:300])) == len(set(labels[300:])) == 1
        assert labels[0] != labels[-1]


def test_k_means_finds_what_is_far_apart() -> None:
    points = np.array([[0.0, 0.0], [0.1, 0.0], [9.0, 0.0], [9.1, 0.0], [0.0, 9.0]])
    labels = k_means(points, 3, np.random.default_rng(0))
    assert labels[0] == labels[1]
    assert labels[2] == labels[3]
    assert len(set(labels.tolist())) == 3
