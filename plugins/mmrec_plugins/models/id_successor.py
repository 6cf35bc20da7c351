"""The leak probe: guesses the next item from the numbers of the items alone."""

import json
from pathlib import Path
from typing import ClassVar

import numpy as np

from mmrec_bench.config import ComponentConfig
from mmrec_bench.errors import StorageError
from mmrec_bench.files import atomic_write
from mmrec_bench.interfaces import TrainingData
from mmrec_bench.types import FloatArray, Queries, Scores
from mmrec_plugins.models.matrices import all_items

FILE = "id_successor.json"


class IdSuccessor:
    """Scores the item whose number follows that of the history's newest item best; learns nothing.

    With N items and i the newest item of the history,

        score(j) = 1 / (1 + (j - i - 1) mod N),

    so that i + 1 comes first, then i + 2, and i itself comes last. After an empty history all items
    are tied at 0.

    Item numbers that a publisher gave in order of appearance tell the next item: whoever shows them
    to a model (P5's sequential indexing, Geng et al., RecSys 2022) leaks it (Hua et al., SIGIR-AP
    2023, arXiv 2305.06569). Figures far above `random` show such a data set. The probe means
    something only with `protocol.permute_ids=false`, which keeps the data set's own order of items;
    with permuted numbers it is as good as chance.
    """

    class Config(ComponentConfig):
        """`id-successor` has no options."""

    reads_instructions: ClassVar[bool] = False

    def __init__(self, config: Config | None = None) -> None:
        del config  # taken for the contract of components; there is nothing to set
        self._n_items = 0

    def fit(self, data: TrainingData, *, seed: int) -> None:  # noqa: ARG002
        """Keep the number of items."""
        self._n_items = data.n_items

    def score(self, queries: Queries) -> Scores:
        """Return (B, C) float32, or (B, N) for the whole catalog, in [0, 1]."""
        history, n = queries.history, self._n_items
        some = np.flatnonzero(history.lengths)
        newest = history.values[history.offsets[1:][some] - 1]
        values = all_items(queries, np.zeros(n, np.float32)).copy()
        if queries.candidates is None:
            # Each row of scores is a window into the scores by distance, written twice.
            windows = np.lib.stride_tricks.sliding_window_view(np.tile(_by_distance(n), 2), n)
            values[some] = windows[n - 1 - newest]
        else:
            ahead = (queries.candidates[some] - newest[:, None] - 1) % n
            values[some] = _by_distance(n)[ahead]
        return Scores(values)

    def save(self, folder: Path) -> None:
        """Write the number of items as JSON."""
        atomic_write(folder / FILE, json.dumps({"n_items": self._n_items}).encode())

    def restore(self, folder: Path, data: TrainingData) -> None:
        """Read what `save` wrote.

        Raises:
            StorageError: missing, torn, or of another catalog.
        """
        path = folder / FILE
        try:
            self._n_items = int(json.loads(path.read_bytes())["n_items"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StorageError(f"cannot read {path}: {error}; fit again") from None
        if self._n_items != data.n_items:
            raise StorageError(
                f"{path} holds {self._n_items} items, not {data.n_items} items; fit again"
            )


def _by_distance(n_items: int) -> FloatArray:
    """Return (N,) scores of the items that are 1, 2, ... N numbers ahead."""
    return (1 / np.arange(1, n_items + 1)).astype(np.float32)
