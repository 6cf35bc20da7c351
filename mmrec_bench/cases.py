"""Per-case values of a run on disk: what comparisons and pages are made of."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mmrec_bench.errors import StorageError
from mmrec_bench.files import read_arrays, write_arrays
from mmrec_bench.types import BoolArray, Int32Array, Int64Array, Measurement, Split

FILE = "cases.npz"
_VALUE = "value "
"""Before a metric's name in the file."""


@dataclass(frozen=True)
class CaseTable:
    """What each case of a run came to, in case order.

    Attributes:
        users: (B,) the data set's own user ids.
        values: metric -> (B,) float64, NaN = undefined; metrics of whole lists are not here.
        history_length: (B,) int32 items of the history.
        popularity: (B,) int64 train interactions of the case's least popular target.
        pictured: (B,) bool: every target has a picture.
    """

    users: NDArray[np.str_]
    values: Mapping[str, NDArray[np.float64]]
    history_length: Int32Array
    popularity: Int64Array
    pictured: BoolArray

    def __len__(self) -> int:
        return len(self.users)


def case_table(split: Split, measured: Mapping[str, Measurement]) -> CaseTable:
    """Put together a run's per-case values and what its cases are like."""
    cases = split.test
    counts = np.bincount(split.train.item, minlength=len(split.catalog))
    images = split.catalog.images or [()] * len(split.catalog)
    seen = np.array([bool(some) for some in images], np.bool_)
    first = cases.targets.offsets[:-1]
    return CaseTable(
        users=np.array([split.users[user] for user in cases.queries.user.tolist()], np.str_),
        values={name: one.per_case for name, one in measured.items() if one.per_case is not None},
        history_length=cases.queries.history.lengths.astype(np.int32),
        popularity=np.minimum.reduceat(counts[cases.targets.values], first),
        pictured=np.logical_and.reduceat(seen[cases.targets.values], first),
    )


def write_cases(folder: Path, table: CaseTable) -> None:
    """Write the table into a run's folder, whole or not at all."""
    arrays: dict[str, NDArray[np.generic]] = {
        "users": table.users,
        "history_length": table.history_length,
        "popularity": table.popularity,
        "pictured": table.pictured,
    }
    arrays |= {f"{_VALUE}{name}": values for name, values in table.values.items()}
    write_arrays(folder / FILE, arrays)


def read_cases(results: Path, run_id: str) -> CaseTable:
    """Read the per-case values of a run.

    Raises:
        StorageError: they are not here, or torn.
    """
    path = results / "runs" / run_id / FILE
    if not path.exists():
        raise StorageError(
            f"no per-case values of {run_id} at {path}; they stay on the machine that made them: "
            f"run `mmrec-bench evaluate {run_id}` where its predictions are, or run it again here"
        )
    arrays = read_arrays(path)
    try:
        table = CaseTable(
            users=arrays["users"],
            values={
                name.removeprefix(_VALUE): values.astype(np.float64)
                for name, values in arrays.items()
                if name.startswith(_VALUE)
            },
            history_length=arrays["history_length"].astype(np.int32),
            popularity=arrays["popularity"].astype(np.int64),
            pictured=arrays["pictured"].astype(np.bool_),
        )
    except KeyError as error:
        raise StorageError(f"{path} has no {error}; run `mmrec-bench evaluate {run_id}`") from None
    if any(column.shape != table.users.shape for column in arrays.values()):
        raise StorageError(f"{path} has columns of different lengths; evaluate {run_id} again")
    return table
