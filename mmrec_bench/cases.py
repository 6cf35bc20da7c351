"""Per-case values of a run, kept beside its record: what comparisons and tables are made of.

They hold no user's and no item's id, so that they travel with the record where the data may not.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmrec_bench.errors import StorageError
from mmrec_bench.files import read_arrays, write_arrays
from mmrec_bench.types import BoolArray, Int32Array, Int64Array, Measurement, Split

_VALUE = "value "
"""Before a metric's name in the file."""


@dataclass(frozen=True)
class CaseTable:
    """What each case of a run came to, in case order.

    Attributes:
        users_hash: of the users' ids, in order: two tables with the same one have the same cases.
        values: metric -> (B,) float64, NaN = undefined; metrics of whole lists are not here.
        history_length: (B,) int32 items of the history.
        popularity: (B,) int64 train interactions of the case's least popular target.
        pictured: (B,) bool: every target has a picture.
    """

    users_hash: str
    values: Mapping[str, NDArray[np.float64]]
    history_length: Int32Array
    popularity: Int64Array
    pictured: BoolArray

    def __len__(self) -> int:
        return len(self.history_length)

    @property
    def hash(self) -> str:
        """Return the hex SHA-256 of everything."""
        found = hashlib.sha256()
        for name, array in sorted(self.arrays().items()):
            found.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
            found.update(np.ascontiguousarray(array).tobytes())
        return found.hexdigest()

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the table as it stands in a file."""
        return {
            "users_hash": np.array(self.users_hash),
            "history_length": self.history_length,
            "popularity": self.popularity,
            "pictured": self.pictured,
            **{f"{_VALUE}{name}": values for name, values in self.values.items()},
        }


def case_table(split: Split, measured: Mapping[str, Measurement]) -> CaseTable:
    """Put together a run's per-case values and what its cases are like."""
    cases = split.test
    counts = np.bincount(split.train.item, minlength=len(split.catalog))
    images = split.catalog.images or [()] * len(split.catalog)
    seen = np.array([bool(some) for some in images], np.bool_)
    first, targets = cases.targets.offsets[:-1], cases.targets.values
    users = "\n".join(split.users[user] for user in cases.queries.user.tolist())
    return CaseTable(
        users_hash=hashlib.sha256(users.encode()).hexdigest(),
        values={name: one.per_case for name, one in measured.items() if one.per_case is not None},
        history_length=cases.queries.history.lengths.astype(np.int32),
        popularity=np.minimum.reduceat(counts[targets], first),
        pictured=np.logical_and.reduceat(seen[targets], first),
    )


def cases_path(record: Path) -> Path:
    """Return where the per-case values of a record lie."""
    return record.with_name(f"{record.stem}.cases.npz")


def write_cases(record: Path, table: CaseTable) -> None:
    """Write the table beside the record at this path, whole or not at all."""
    write_arrays(cases_path(record), table.arrays(), compress=True)


def read_cases(record: Path, expected_hash: str) -> CaseTable:
    """Read the per-case values of a record.

    Args:
        record: its path.
        expected_hash: as the record tells it; "" = written by a version that kept none.

    Raises:
        StorageError: they are not here, torn, or not those that the record was made with.
    """
    path, run_id = cases_path(record), record.stem
    if not expected_hash or not path.exists():
        raise StorageError(
            f"no per-case values of {run_id} at {path}; `mmrec-bench evaluate {run_id}` writes "
            "them where the run's predictions are, else run it again"
        )
    arrays = read_arrays(path)
    try:
        table = CaseTable(
            users_hash=str(arrays["users_hash"]),
            values={
                name.removeprefix(_VALUE): values
                for name, values in arrays.items()
                if name.startswith(_VALUE)
            },
            history_length=arrays["history_length"],
            popularity=arrays["popularity"],
            pictured=arrays["pictured"],
        )
    except KeyError as error:
        raise StorageError(f"{path} has no {error}; evaluate {run_id} again") from None
    if table.hash != expected_hash:
        raise StorageError(
            f"{path} is not what its record was made with: one of the two was changed, or a run "
            f"was killed between writing them; `mmrec-bench evaluate {run_id}` writes both again "
            "where the run's predictions are, else run it again"
        )
    return table
