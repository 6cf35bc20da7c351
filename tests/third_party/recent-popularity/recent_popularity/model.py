"""Popularity that fades with age."""

from pathlib import Path
from typing import ClassVar

import numpy as np
from pydantic import Field

from mmrec_bench.config import ComponentConfig
from mmrec_bench.interfaces import TrainingData
from mmrec_bench.types import Queries, Scores


class RecentPopularity:
    """Each train interaction counts 0.5 ** (age / half_life_days)."""

    reads_instructions: ClassVar[bool] = False

    class Config(ComponentConfig):
        """Options of the model."""

        half_life_days: float = Field(180.0, gt=0, description="age at which it counts half")

    def __init__(self, config: Config) -> None:
        self.config = config

    def fit(self, data: TrainingData, *, seed: int) -> None:  # noqa: ARG002 - nothing is drawn
        """Weigh and count the train interactions."""
        rows = data.interactions
        age_days = (rows.timestamp.max() - rows.timestamp) / 86_400
        weights = 0.5 ** (age_days / self.config.half_life_days)
        self.counts = np.bincount(rows.item, weights, data.n_items).astype(np.float32)

    def score(self, queries: Queries) -> Scores:
        """Score (B, C), or (B, N) over the whole catalog."""
        if queries.candidates is None:
            return Scores(np.tile(self.counts, (len(queries), 1)))
        return Scores(self.counts[queries.candidates])

    def save(self, folder: Path) -> None:
        """Write counts.npy."""
        np.save(folder / "counts.npy", self.counts)

    def restore(self, folder: Path, data: TrainingData) -> None:  # noqa: ARG002 - counts say it all
        """Read counts.npy."""
        self.counts = np.load(folder / "counts.npy", allow_pickle=False)
