"""Accuracy by kind of case, from the per-case values beside records."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmrec_bench.cases import CaseTable
from mmrec_bench.types import BoolArray

_LENGTHS = ((0, 0), (1, 2), (3, 5), (6, 10), (11, 20), (21, 50))
_FEWEST = 5
"""Cases below which a mean tells nothing and is left out."""


@dataclass(frozen=True)
class Slicing:
    """A way to divide cases.

    Attributes:
        title: what they are divided by.
        across: what the categories are.
        parts: category -> (B,) bool.
    """

    title: str
    across: str
    parts: Mapping[str, BoolArray]

    def counts(self) -> list[int]:
        """Return the cases of each category."""
        return [int(part.sum()) for part in self.parts.values()]


def slicings(table: CaseTable) -> list[Slicing]:
    """Divide cases by history length, by popularity of the target and by its picture.

    Ways that put all cases into one part are left out.
    """
    found = [
        Slicing("history length", "items in the history; below, cases", _by_length(table)),
        Slicing(
            "popularity of the target",
            "train interactions of the target; below, cases",
            _by_popularity(table),
        ),
        Slicing(
            "picture of the target",
            "with or without a picture; below, cases",
            _kept({"with": table.pictured, "without": ~table.pictured}),
        ),
    ]
    return [one for one in found if len(one.parts) > 1]


def means(
    values: NDArray[np.float64], parts: Mapping[str, BoolArray]
) -> tuple[tuple[float | None, ...], tuple[float | None, ...]]:
    """Return the mean of each part and half the width of its 95 % interval (normal).

    Args:
        values: (B,) per-case values, NaN = undefined.
        parts: category -> (B,) bool.
    """
    found: list[tuple[float | None, float | None]] = []
    for part in parts.values():
        own = values[part]
        own = own[~np.isnan(own)]
        if len(own) < _FEWEST:
            found.append((None, None))
            continue
        error = 1.96 * float(own.std(ddof=1)) / len(own) ** 0.5
        found.append((float(own.mean()), error))
    return tuple(mean for mean, _ in found), tuple(error for _, error in found)


def _by_length(table: CaseTable) -> dict[str, BoolArray]:
    length = table.history_length
    parts = {
        f"{low}-{high}" if high > low else str(low): (length >= low) & (length <= high)
        for low, high in _LENGTHS
    }
    return _kept(parts | {f"{_LENGTHS[-1][1] + 1}+": length > _LENGTHS[-1][1]})


def _by_popularity(table: CaseTable) -> dict[str, BoolArray]:
    """Divide cases into thirds; equal counts stay together."""
    counts = table.popularity
    if not len(counts):
        return {}
    low, high = (int(v) for v in np.quantile(counts, (1 / 3, 2 / 3), method="lower"))
    parts = {
        f"tail ≤{low}": counts <= low,
        f"mid ≤{high}": (counts > low) & (counts <= high),
        f"head >{high}": counts > high,
    }
    return _kept(parts)


def _kept(parts: Mapping[str, BoolArray]) -> dict[str, BoolArray]:
    return {name: part for name, part in parts.items() if part.any()}
