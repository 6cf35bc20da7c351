"""Whether the answers of a generator could be read at all."""

from typing import ClassVar

import numpy as np
from pydantic import Field

from mmrec_bench.config import ComponentConfig
from mmrec_bench.types import Measurement, Outcomes


class ValidRate:
    """Share of answers that could be read: outcome `ok` or `repaired`; with `strict`, `ok` alone.

    Invalid and refused answers count 0. Undefined (NaN) where a model generates no text: a model
    that is scored by likelihood has no answers, not perfect ones.

    Source: reported as "valid answer rate" or "compliance rate" for language model recommenders,
    e.g. Hou et al., Large language models are zero-shot rankers for recommender systems, ECIR 2024.
    """

    class Config(ComponentConfig):
        """Options of the valid rate."""

        strict: bool = Field(default=False, description="repaired answers count as unread")

    higher_is_better: ClassVar[bool] = True

    def __init__(self, config: Config) -> None:
        self._readable = ("ok",) if config.strict else ("ok", "repaired")
        self.name = "valid_rate_strict" if config.strict else "valid_rate"

    def measure(self, outcomes: Outcomes) -> Measurement:
        """Measure; per case 0 or 1, NaN without answers."""
        if outcomes.answers is None:
            return Measurement.mean(np.full(len(outcomes.ranks), np.nan))
        readable = np.isin(np.array(outcomes.answers.outcome, np.str_), self._readable)
        return Measurement.mean(readable.astype(np.float64))
