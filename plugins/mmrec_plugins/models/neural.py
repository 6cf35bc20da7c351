"""The base of the torch models that score by a product of vectors: user (or history) and item.

Letters: B queries, C candidates, N items, D size of a vector.
"""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from mmrec_bench.config import identity
from mmrec_bench.files import atomic_write
from mmrec_bench.interfaces import TrainingData
from mmrec_bench.types import FloatArray, Queries, Scores
from mmrec_plugins.devices import pick_device
from mmrec_plugins.models.tensors import read_tensors
from mmrec_plugins.models.training import History, TrainingConfig, seeded, train

FILE = "weights.safetensors"
_BLOCK = 1 << 22
"""Numbers of gathered candidate vectors held at a time."""


class NeuralRecommender(ABC):
    """Trains a module with the shared loop and ranks by products of vectors.

    A model says what its module is (`build`), what it learns from (`prepare`, `batches`, `loss`)
    and which vectors it ranks by (`represent`, `items`, and `biases` where it has some).
    """

    Config: type[TrainingConfig]
    reads_instructions: ClassVar[bool] = False

    module: nn.Module
    device: torch.device

    def __init__(self, config: Any) -> None:  # noqa: ANN401 - each model's own Config
        self.config = config
        self._history = History()
        self._ranked_by: tuple[Tensor, Tensor | None] | None = None

    @abstractmethod
    def build(self, data: TrainingData) -> nn.Module:
        """Return the untrained module, weights drawn from torch's (seeded) stream.

        Called by `fit` and by `restore`; whatever else `represent` needs of `data` is kept here.
        """

    @abstractmethod
    def prepare(self, data: TrainingData) -> None:
        """Keep what `batches` draws from; called by `fit` after `build`.

        Raises:
            ModelError: there is nothing to learn from.
        """

    @abstractmethod
    def n_batches(self) -> int:
        """Return the steps of one epoch."""

    @abstractmethod
    def batches(self, rng: np.random.Generator) -> Iterator[Any]:
        """Yield one epoch's batches; all draws come from `rng`."""

    @abstractmethod
    def loss(self, batch: Any) -> Tensor:  # noqa: ANN401 - what `batches` yields
        """Return the () mean loss of a batch."""

    @abstractmethod
    def represent(self, queries: Queries) -> Tensor:
        """Return (B, D) float32: the vector that stands for each query's user or history."""

    @abstractmethod
    def items(self) -> Tensor:
        """Return (N, D) float32: the vector of each item."""

    def biases(self) -> Tensor | None:
        """Return (N,) float32 added to every query's scores; None = nothing."""
        return None

    def fit(self, data: TrainingData, *, seed: int) -> None:
        """Train until validation no longer gains; a killed fit goes on from `data.scratch`."""
        self.device = pick_device(data.device)
        with seeded(seed, 0, device=self.device):
            self.module = self.build(data).to(self.device)
        self.prepare(data)
        self._history = train(
            self,
            self.config,
            data,
            seed=seed,
            fingerprint=self._fingerprint(data, seed),
            title=f"training {type(self).__name__}",
        )

    def weights_changed(self) -> None:
        """Forget the vectors that were computed from the weights before."""
        self._ranked_by = None

    def score(self, queries: Queries) -> Scores:
        """Return (B, C) float32, or (B, N) for the whole catalog."""
        with torch.inference_mode():
            items, biases = self._vectors()
            rows = self.represent(queries).float()
            if queries.candidates is None:
                values = rows @ items.T
                values = values if biases is None else values.add_(biases)
                return Scores(values.cpu().numpy())
            return Scores(self._of_candidates(rows, items, biases, queries.candidates))

    def _of_candidates(
        self, rows: Tensor, items: Tensor, biases: Tensor | None, candidates: np.ndarray[Any, Any]
    ) -> FloatArray:
        values = np.empty(candidates.shape, np.float32)
        step = max(1, _BLOCK // max(1, candidates.shape[1] * items.shape[1]))
        for start in range(0, len(candidates), step):
            block = torch.from_numpy(candidates[start : start + step]).to(items.device, torch.int64)
            found = torch.einsum("bd,bcd->bc", rows[start : start + step], items[block])
            found = found if biases is None else found + biases[block]
            values[start : start + step] = found.cpu().numpy()
        return values

    def _vectors(self) -> tuple[Tensor, Tensor | None]:
        """Item vectors and biases, computed once for the weights as they are."""
        if self._ranked_by is None:
            biases = self.biases()
            self._ranked_by = self.items().float(), None if biases is None else biases.float()
        return self._ranked_by

    def save(self, folder: Path) -> None:
        """Write the weights as safetensors."""
        state = {name: value.contiguous().cpu() for name, value in self.module.state_dict().items()}
        atomic_write(folder / FILE, to_bytes(state))

    def restore(self, folder: Path, data: TrainingData) -> None:
        """Read what `save` wrote.

        Raises:
            ModelError: missing, torn, or of another catalog or other options.
        """
        self.device = pick_device(data.device)
        with seeded(0, device=self.device):  # weights are drawn, and overwritten at once
            module = self.build(data)
        module.load_state_dict(
            read_tensors(folder / FILE, module.state_dict(), f"weights of {type(self).__name__}")
        )
        self.module = module.to(self.device).eval()
        self.weights_changed()

    def facts(self) -> dict[str, str | int | float]:
        """Return how many parameters there are and how the fit went."""
        n_parameters = sum(value.numel() for value in self.module.parameters())
        return {"n_parameters": n_parameters, **self._history.facts()}

    def _fingerprint(self, data: TrainingData, seed: int) -> str:
        """Name what a fit depends on, so that it never goes on from another's checkpoint."""
        rows = data.interactions
        content = hashlib.sha256(rows.user.tobytes() + rows.item.tobytes())
        for name in sorted(data.modalities):
            content.update(data.modalities[name].tobytes())
        asked = data.validation  # which decides what epoch is kept
        content.update(asked.user.tobytes() + asked.history.values.tobytes())
        parts = {
            "model": type(self).__qualname__,
            "config": identity(self.config),
            "data": [data.n_users, data.n_items, data.dataset_version, content.hexdigest()],
            "held_out": data.held_out.hash if data.held_out else "",
            "mask_seen": data.mask_seen,
            "seed": seed,
            "torch": str(torch.__version__),
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
