import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmrec_bench.counting import rank
from mmrec_bench.ranks import rank_lists
from mmrec_bench.types import Cases, Queries, Ragged


@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.integers(2, 12))
def test_lists_give_the_ranks_of_the_scores_that_they_came_from(
    seed: int, n_cases: int, n_items: int
) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.permuted(np.tile(np.arange(n_items, dtype=np.float32), (n_cases, 1)), axis=1)
    rows = [
        rng.choice(n_items, rng.integers(1, n_items + 1), False).tolist() for _ in range(n_cases)
    ]
    targets = Ragged.from_rows(rows)
    lists = np.argsort(-scores, axis=1).astype(np.int32)
    queries = Queries(np.arange(n_cases, dtype=np.int32), Ragged.from_rows([[]] * n_cases))
    expected = rank(scores, Cases(queries, targets))
    found = rank_lists(lists, targets, n_items)
    for name in ("n_better", "n_tied", "ranked", "case", "n_targets", "n_candidates"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    np.testing.assert_array_equal(found.top, expected.top[:, : found.top.shape[1]])


def test_a_target_that_is_not_listed_is_a_miss() -> None:
    lists = np.array([[4, 2, -1], [1, 0, 3]], np.int32)
    found = rank_lists(lists, Ragged.from_rows([[2, 9], [1]]), 10)
    assert found.ranked.tolist() == [True, False, True]
    assert found.n_better[found.ranked].tolist() == [1, 0]


def test_an_item_listed_twice_counts_at_its_first_place() -> None:
    found = rank_lists(np.array([[3, 5, 3]], np.int32), Ragged.from_rows([[3]]), 10)
    assert found.n_better.tolist() == [0]


def test_no_cases_are_no_ranks() -> None:
    assert len(rank_lists(np.zeros((0, 5), np.int32), Ragged.from_rows([]), 10)) == 0


def test_other_numbers_of_lists_and_cases_are_refused() -> None:
    with pytest.raises(ValueError, match="2 lists for 1 cases"):
        rank_lists(np.zeros((2, 5), np.int32), Ragged.from_rows([[0]]), 10)
