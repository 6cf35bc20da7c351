import numpy as np
import pytest

from mmrec_bench.rowmask import RowMask


@pytest.mark.parametrize("width", [1, 7, 8, 9, 513, 2041, 8 * 64 * 255 + 3])
def test_counts_and_places_are_those_of_plain_comparisons(width: int) -> None:
    rng = np.random.default_rng(width)
    values = rng.integers(0, 4, (3, width)).astype(np.float32)
    limits = np.array([0, 2, 9], np.float32)
    mask = RowMask(5, width).compare(np.greater, values, limits)
    plain = values > limits[:, None]

    assert mask.total() == plain.sum()
    assert mask.counts().tolist() == plain.sum(axis=1).tolist()
    assert np.array_equal(np.stack(mask.places()), np.stack(np.nonzero(plain)))


def test_a_row_of_nothing_but_true_is_counted_in_full() -> None:
    width = 8 * 64 * 255 * 2
    mask = RowMask(1, width).compare(np.equal, np.zeros((1, width), np.float32), np.zeros(1))

    assert mask.counts().tolist() == [width]


def test_a_shorter_block_leaves_the_rows_of_a_longer_one_out() -> None:
    mask = RowMask(2, 3)
    mask.compare(np.equal, np.ones((2, 3), np.float32), np.ones(2, np.float32))
    mask.compare(np.equal, np.ones((1, 3), np.float32), np.ones(1, np.float32))

    assert mask.total() == 3
    assert mask.counts().tolist() == [3]
    assert mask.places()[0].tolist() == [0, 0, 0]
