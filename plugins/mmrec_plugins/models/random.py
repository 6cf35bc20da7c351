"""Random scores: the floor that every result is read against."""

import json
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from mmrec_bench.config import ComponentConfig
from mmrec_bench.errors import StorageError
from mmrec_bench.files import atomic_write
from mmrec_bench.interfaces import TrainingData
from mmrec_bench.types import Queries, Scores

UInt64Array = NDArray[np.uint64]

FILE = "random.json"


class Random:
    """Scores by hashing (seed, user, item), uniform in [0, 1).

    A score depends on nothing else: not on the other candidates, on their order or on the batch.
    Equal scores (24 bits) are as rare as chance makes them and count as ties like any other.

    The hash is SplitMix64's finaliser (Steele, Lea and Flood, Fast splittable pseudorandom number
    generators, OOPSLA 2014).
    """

    class Config(ComponentConfig):
        """Random scores have no options; the seed is the run's."""

    reads_instructions: ClassVar[bool] = False

    def __init__(self, config: Config | None = None) -> None:
        del config  # taken for the contract of components; there is nothing to set
        self._seed = 0
        self._n_items = 0

    def fit(self, data: TrainingData, *, seed: int) -> None:
        """Keep the seed and the number of items."""
        self._seed, self._n_items = seed, data.n_items

    def transfer(self, data: TrainingData) -> None:
        """Score the items of another catalog; nothing was learned of the first."""
        self._n_items = data.n_items

    def score(self, queries: Queries) -> Scores:
        """Return (B, C) or (B, N) float32 in [0, 1)."""
        if queries.candidates is None:
            items = np.arange(self._n_items, dtype=np.uint64)[None, :]
        else:
            items = queries.candidates.astype(np.uint64)
        seed = _mix(np.array(self._seed, np.uint64))
        users = _mix(queries.user.astype(np.uint64) ^ seed)
        bits = _mix(users[:, None] ^ _mix(items + np.uint64(1)))
        # The top 24 bits are exact in float32, so that the result stays below 1.
        return Scores((bits >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24))

    def save(self, folder: Path) -> None:
        """Write the seed and the number of items as JSON."""
        state = {"seed": self._seed, "n_items": self._n_items}
        atomic_write(folder / FILE, json.dumps(state).encode())

    def restore(self, folder: Path, data: TrainingData) -> None:
        """Read what `save` wrote.

        Raises:
            StorageError: missing, torn, or of another catalog.
        """
        path = folder / FILE
        try:
            state = json.loads(path.read_bytes())
            self._seed, self._n_items = int(state["seed"]), int(state["n_items"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StorageError(f"cannot read {path}: {error}; fit again") from None
        if self._n_items != data.n_items:
            raise StorageError(
                f"{path} holds {self._n_items} items, not {data.n_items} items; fit again"
            )


def _mix(x: UInt64Array) -> UInt64Array:
    # A copy, at least 1-d: arrays wrap around in silence, scalars warn.
    x = np.atleast_1d(x) + np.uint64(0x9E3779B97F4A7C15)
    x ^= x >> np.uint64(30)
    x *= np.uint64(0xBF58476D1CE4E5B9)
    x ^= x >> np.uint64(27)
    x *= np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    return x
