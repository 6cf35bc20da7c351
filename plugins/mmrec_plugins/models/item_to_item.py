"""The base of models that keep one sparse weight for each pair of items."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

from mmrec_bench.errors import StorageError
from mmrec_bench.files import read_arrays, write_arrays
from mmrec_bench.interfaces import TrainingData
from mmrec_bench.types import Queries, Scores
from mmrec_plugins.models.matrices import Csr, arrays_of, matrix_from, score_sparse

FILE = "weights.npz"


class SparseItemToItem(ABC):
    """Scores an item by the sum of its weights from the items of the query's own history.

    A model says what the weights are (`weigh`) and how much each item of a history counts
    (`weigh_history`). Scores of items without a weight are 0, and tied.
    """

    reads_instructions: ClassVar[bool] = False
    _weights: Csr

    def __init__(self, config: Any) -> None:  # noqa: ANN401 - each model's own Config
        self.config = config

    @abstractmethod
    def weigh(self, data: TrainingData) -> Csr:
        """Return (N, N) CSR float64: row = item of the history, column = item to score."""

    @abstractmethod
    def weigh_history(self, queries: Queries) -> Csr:
        """Return (B, N) CSR float64."""

    def fit(self, data: TrainingData, *, seed: int) -> None:  # noqa: ARG002
        """Compute the weights from the train interactions; nothing is drawn."""
        self._weights = self.weigh(data)

    def score(self, queries: Queries) -> Scores:
        """Return (B, C) float32, or (B, N) for the whole catalog."""
        history = self.weigh_history(queries)
        return Scores(score_sparse(history, self._weights, queries.candidates))

    @property
    def n_items(self) -> int:
        """N."""
        return int(self._weights.shape[0])

    def save(self, folder: Path) -> None:
        """Write the weights."""
        write_arrays(folder / FILE, arrays_of(self._weights))

    def restore(self, folder: Path, data: TrainingData) -> None:
        """Read what `save` wrote.

        Raises:
            StorageError: missing, torn, or of another catalog.
        """
        path = folder / FILE
        weights = matrix_from(read_arrays(path), (data.n_items, data.n_items))
        if weights is None:
            raise StorageError(f"{path} holds no weights between {data.n_items} items; fit again")
        self._weights = weights
