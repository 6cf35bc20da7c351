"""Popularity: the same ranking for everyone."""

from pathlib import Path
from typing import ClassVar

import numpy as np

from mmrec_bench.config import ComponentConfig
from mmrec_bench.errors import StorageError
from mmrec_bench.files import read_arrays, write_arrays
from mmrec_bench.interfaces import TrainingData
from mmrec_bench.types import FloatArray, Queries, Scores

FILE = "popularity.npz"


class Popularity:
    """Scores an item by its number of train interactions: score(j) = |{(u, j) in train}|.

    Equal counts stay equal: what ties do is the protocol's business. (RecBole's `Pop` counts an
    item once a batch, not once an interaction, so that its figures are lower.)

    Source: Cremonesi, Koren, Turrin, Performance of Recommender Algorithms on Top-N Recommendation
    Tasks, RecSys 2010 (TopPop).
    """

    class Config(ComponentConfig):
        """Popularity has no options."""

    reads_instructions: ClassVar[bool] = False

    def __init__(self, config: Config | None = None) -> None:
        del config  # taken for the contract of components; there is nothing to set
        self._counts: FloatArray = np.zeros(0, np.float32)

    def fit(self, data: TrainingData, *, seed: int) -> None:  # noqa: ARG002
        """Count the train interactions of each item."""
        # Exact in float32 up to 2^24 interactions of one item.
        self._counts = data.item_counts().astype(np.float32)

    def score(self, queries: Queries) -> Scores:
        """Return (B, C) float32, or (B, N) as a read-only view of one row."""
        if queries.candidates is None:
            return Scores(np.broadcast_to(self._counts, (len(queries), len(self._counts))))
        return Scores(self._counts[queries.candidates])

    def save(self, folder: Path) -> None:
        """Write the counts."""
        write_arrays(folder / FILE, {"counts": self._counts})

    def restore(self, folder: Path, data: TrainingData) -> None:
        """Read what `save` wrote.

        Raises:
            StorageError: missing, torn, or of another catalog.
        """
        path = folder / FILE
        counts = read_arrays(path).get("counts")
        if counts is None or counts.shape != (data.n_items,):
            found = "no counts" if counts is None else f"counts of {counts.size} items"
            raise StorageError(f"{path} holds {found}, not of {data.n_items} items; fit again")
        self._counts = counts.astype(np.float32)
