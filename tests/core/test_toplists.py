import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmrec_bench.toplists import TopLists
from mmrec_bench.types import FloatArray


def naive(scores: FloatArray, k: int) -> list[list[int]]:
    """Sort each row by (value from high to low, item), leave NaN out, fill up with -1."""
    lists = []
    for row in scores.tolist():
        known = [(-value, item) for item, value in enumerate(row) if value == value]  # noqa: PLR0124
        best = [item for _, item in sorted(known)][:k]
        lists.append(best + [-1] * (k - len(best)))
    return lists


@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 12),
    st.sampled_from([1, 3, 20, 33, 400, 1001, 2600]),
    st.sampled_from(["ties", "floats", "holes", "nothing", "clustered"]),
)
def test_lists_are_those_of_a_plain_sort(seed: int, n_rows: int, width: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(n_rows, width)).astype(np.float32)
    if kind == "ties":
        scores = np.round(scores)
    if kind == "holes":
        scores[rng.random(scores.shape) < 0.7] = np.nan
    if kind == "nothing":
        scores[:] = np.nan
    if kind == "clustered":  # the best are far more than k, in few groups
        scores[:, ::512] += 9
    best = TopLists(20)
    for start in range(0, n_rows, 5):
        best.add(np.ascontiguousarray(scores[start : start + 5]))
    assert best.lists().tolist() == naive(scores, 20)


@pytest.mark.parametrize("values", [[0.0, -0.0, 1.0], [-np.inf, np.inf, -1.0], [-2.0, -1.0, -3.0]])
def test_odd_values_are_ordered_as_numbers(values: list[float]) -> None:
    scores = np.array([values], np.float32)
    best = TopLists(3)
    best.add(scores)
    assert best.lists().tolist() == naive(scores, 3)


def test_items_of_candidate_lists_are_named() -> None:
    best = TopLists(2)
    best.add(np.array([[1.0, 3.0, 3.0]], np.float32), np.array([[4, 7, 9]], np.int32))
    assert best.lists().tolist() == [[7, 9]]


def test_no_rows_are_no_lists() -> None:
    assert TopLists(5).lists().shape == (0, 5)
