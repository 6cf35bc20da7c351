"""Histories of different lengths, one after another, without padding.

Whatever works on one position at a time (embeddings, norms, feed-forward layers, losses) sees only
real positions. Attention is computed in groups of rows of about equal length; only there a row is
padded, to the longest of its group.

Letters: B rows, T positions of all rows, L longest row of a group, D size of a vector.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmrec_bench.types import Int64Array, Ragged

_GROWTH = 1.3
"""A group's longest row has at most so many times the positions of its shortest."""


@dataclass(frozen=True)
class Group:
    """Rows of about equal length, neighbours in `Packed`.

    Attributes:
        start: first position of the group.
        end: one past its last.
        n_rows: b.
        length: L.
        slots: (end - start,) int64 place of each position in a padded (b * L) column, padding at
            the end of a row; None where all rows have L positions.
        real: (b, 1, 1, L) bool, False = padding; None where there is none.
    """

    start: int
    end: int
    n_rows: int
    length: int
    slots: Tensor | None
    real: Tensor | None

    def pad(self, columns: Tensor) -> Tensor:
        """(end - start, D) -> (b, L, D), zeros where there is no position."""
        size = columns.shape[-1]
        if self.slots is not None:
            empty = columns.new_zeros(self.n_rows * self.length, size)
            columns = empty.index_copy(0, self.slots, columns)
        return columns.reshape(self.n_rows, self.length, size)

    def unpad(self, rows: Tensor) -> Tensor:
        """(b, L, D) -> (end - start, D)."""
        columns = rows.reshape(self.n_rows * self.length, rows.shape[-1])
        return columns if self.slots is None else columns[self.slots]


@dataclass(frozen=True)
class Packed:
    """B histories, shortest first, oldest item first.

    Attributes:
        items: (T,) int64.
        positions: (T,) int64, counted from the end: the newest item of each row stands at
            max_length - 1, however long the row is.
        last: (B,) int64 place of each row's newest item among the T.
        groups: cover all positions, in order.
    """

    items: Tensor
    positions: Tensor
    last: Tensor
    groups: tuple[Group, ...]


def by_length(lengths: Int64Array) -> Int64Array:
    """Return the order, (B,) int64, in which `pack` wants rows; equal lengths stay in order."""
    order: Int64Array = np.argsort(lengths, kind="stable")
    return order


def pack(rows: Ragged, max_length: int, device: torch.device) -> Packed:
    """Lay rows out one after another.

    Args:
        rows: B rows of 1 to `max_length` items, increasing in length.
        max_length: positions that there are.
        device: where the tensors go.

    Raises:
        ValueError: an empty row, one that is too long, or rows that are not sorted.
    """
    lengths = rows.lengths
    if len(lengths) and not (lengths[0] >= 1 and lengths[-1] <= max_length):
        raise ValueError(f"rows of {lengths[0]} to {lengths[-1]} items, not of 1 to {max_length}")
    if (np.diff(lengths) < 0).any():
        raise ValueError("rows must be sorted by length")
    ends = np.repeat(rows.offsets[1:], lengths)
    positions = max_length - (ends - np.arange(len(rows.values)))
    return Packed(
        items=_tensor(rows.values, device),
        positions=_tensor(positions, device),
        last=_tensor(rows.offsets[1:] - 1, device),
        groups=tuple(_groups(rows, device)),
    )


def _groups(rows: Ragged, device: torch.device) -> list[Group]:
    lengths, offsets = rows.lengths, rows.offsets
    groups: list[Group] = []
    first = 0
    while first < len(lengths):
        last = int(np.searchsorted(lengths, int(lengths[first] * _GROWTH), side="right"))
        size, longest = lengths[first:last], int(lengths[last - 1])
        slots = real = None
        if size[0] != longest:
            shown = np.arange(longest) < size[:, None]
            slots = _tensor(np.flatnonzero(shown), device)
            real = torch.from_numpy(shown).to(device)[:, None, None, :]
        start, end = int(offsets[first]), int(offsets[last])
        groups.append(Group(start, end, last - first, longest, slots, real))
        first = last
    return groups


def _tensor(values: np.ndarray[Any, Any], device: torch.device) -> Tensor:
    return torch.from_numpy(values.astype(np.int64, copy=False)).to(device)
