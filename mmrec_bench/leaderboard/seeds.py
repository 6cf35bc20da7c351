"""The seeds of one row and their per-case values."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmrec_bench.cases import CaseTable
from mmrec_bench.records import Stored
from mmrec_bench.statistics import centre


@dataclass(frozen=True)
class Seeds:
    """Records that differ in their seed alone.

    Attributes:
        stored: by seed.
        tables: per-case values, one a record; () where not all of them are here.
    """

    stored: tuple[Stored, ...]
    tables: tuple[CaseTable, ...]


def read_seeds(members: Sequence[Stored]) -> Seeds:
    """Put seeds in order and read their per-case values, where all of them have any.

    Raises:
        StorageError: per-case values that are torn, or do not belong to their record.
    """
    ordered = tuple(sorted(members, key=lambda one: one.record.spec.seed))
    if not all(one.has_cases for one in ordered):
        return Seeds(ordered, ())
    return Seeds(ordered, tuple(one.cases() for one in ordered))


def averaged(tables: Sequence[CaseTable], metric: str) -> NDArray[np.float64] | None:
    """Return (B,) values of a metric, seeds averaged; None where they cannot be paired.

    That is where there are no tables, one lacks the metric, or they are not of the same cases:
    another version of a data set's reader may have kept others.
    """
    if not tables or any(metric not in table.values for table in tables):
        return None
    if len({table.users_hash for table in tables}) > 1:
        return None
    stacked = np.stack([table.values[metric] for table in tables])
    return centre(stacked)
