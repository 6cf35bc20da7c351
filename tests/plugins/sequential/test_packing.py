import numpy as np
import pytest
import torch

from mmrec_bench.types import Ragged
from mmrec_plugins.models.sequential.base import shifted, with_last
from mmrec_plugins.models.sequential.packing import pack
from tests.plugins.sequential.toys import sorted_rows

CPU = torch.device("cpu")


def test_the_newest_item_of_every_row_stands_at_the_last_position() -> None:
    packed = pack(sorted_rows([[5, 6, 7], [8]]), 50, CPU)
    assert packed.items.tolist() == [8, 5, 6, 7]
    assert packed.positions.tolist() == [49, 47, 48, 49]
    assert packed.last.tolist() == [0, 3]


def test_groups_cover_every_position_once_and_pad_little() -> None:
    rng = np.random.default_rng(0)
    rows = [rng.integers(0, 99, n).tolist() for n in rng.integers(1, 51, 300)]
    packed = pack(sorted_rows(rows), 50, CPU)
    ends = [group.end for group in packed.groups]
    assert [group.start for group in packed.groups] == [0, *ends[:-1]]
    assert ends[-1] == len(packed.items)
    padded = sum(group.n_rows * group.length for group in packed.groups)
    assert padded <= 1.3 * len(packed.items)
    assert len(packed.groups) < 16


def test_padding_and_back_changes_nothing() -> None:
    packed = pack(sorted_rows([[1, 2, 3, 4, 5], [1, 2, 3, 4], [1, 2, 3, 4], [9]]), 9, CPU)
    columns = torch.randn(len(packed.items), 3)
    parts = [g.unpad(g.pad(columns[g.start : g.end])) for g in packed.groups]
    assert torch.equal(torch.cat(parts), columns)


def test_padding_stands_behind_the_real_positions() -> None:
    group = pack(sorted_rows([[1, 2, 3, 4, 5], [1, 2, 3, 4]]), 9, CPU).groups[0]
    padded = group.pad(torch.ones(9, 1))
    assert padded.squeeze(-1).tolist() == [[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]
    assert group.real is not None
    assert group.real[:, 0, 0].tolist() == (padded.squeeze(-1) == 1).tolist()


@pytest.mark.parametrize("rows", [[[1, 2], [3]], [[], [1]], [[1] * 10]])
def test_rows_that_cannot_be_packed_are_refused(rows: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="rows"):
        pack(Ragged.from_rows(rows), 9, CPU)


def test_each_position_is_followed_by_the_next_item_of_its_row() -> None:
    read, following = shifted(Ragged.from_rows([[1, 2], [3, 4, 5]]))
    assert [row.tolist() for row in read] == [[1], [3, 4]]
    assert following.tolist() == [2, 4, 5]


def test_an_item_is_appended_to_the_chosen_rows_only() -> None:
    rows = Ragged.from_rows([[], [1, 2], [], [3]])
    found = with_last(rows, 7, np.array([True, False, True, True]))
    assert [row.tolist() for row in found] == [[7], [1, 2], [7], [3, 7]]
