"""Components that raise in the step that an option names, and work otherwise."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from pydantic import Field

from mmrec_bench.config import ComponentConfig
from mmrec_bench.interfaces import InstructionContext, TrainingData
from mmrec_bench.types import (
    Catalog,
    FloatArray,
    Instruction,
    Item,
    Measurement,
    Message,
    Outcomes,
    Queries,
    Query,
    RecData,
    Scores,
    Text,
)


class StepConfig(ComponentConfig):
    """Where to raise."""

    step: str = Field("", description="raise in this step")


class Part:
    """Raises ZeroDivisionError in one step."""

    Config = StepConfig

    def __init__(self, config: StepConfig) -> None:
        self.step = config.step
        self.at("construction")

    def at(self, step: str) -> None:
        """Divide by zero in the chosen step."""
        self.quotient = 1 / (step != self.step)


class Model(Part):
    """Popularity."""

    reads_instructions: ClassVar[bool] = False

    def fit(self, data: TrainingData, *, seed: int) -> None:  # noqa: ARG002
        """Count."""
        self.at("fit")
        self.counts = data.item_counts().astype(np.float32)

    def score(self, queries: Queries) -> Scores:
        """Look up."""
        self.at("score")
        if queries.candidates is None:
            return Scores(np.tile(self.counts, (len(queries), 1)))
        return Scores(self.counts[queries.candidates])

    def save(self, folder: Path) -> None:
        """Write."""
        self.at("save")
        np.save(folder / "counts.npy", self.counts)

    def restore(self, folder: Path, data: TrainingData) -> None:  # noqa: ARG002
        """Read."""
        self.at("restore")
        self.counts = np.load(folder / "counts.npy", allow_pickle=False)

    def facts(self) -> dict[str, str | int | float]:
        """Say nothing."""
        self.at("facts")
        return {}


class WrongShape(Model):
    """Gives one score too many."""

    def score(self, queries: Queries) -> Scores:
        """Add a column."""
        values = super().score(queries).values
        return Scores(np.concatenate([values, values[:, :1]], axis=1))


class Dataset(Part):
    """Raises in load."""

    def load(self, root: Path) -> RecData:
        """Open what is not there."""
        (root / "no-such-file").read_text()
        raise AssertionError


class Builder(Part):
    """Names the candidates by their places."""

    def prepare(self, context: InstructionContext) -> None:  # noqa: ARG002
        """Look at nothing."""
        self.at("prepare")

    def build(self, query: Query, catalog: Catalog) -> Instruction:
        """Ask."""
        self.at("build")
        candidates = [] if query.candidates is None else query.candidates.tolist()
        labels = tuple(map(str, range(len(candidates))))
        titles = tuple(catalog.title[i] for i in candidates)
        return Instruction((Message("user", (Text("\n".join(titles)),)),), labels, titles)

    def parse(self, text: str, instruction: Instruction) -> list[int]:
        """Read."""
        self.at("parse")
        return [i for i, name in enumerate(instruction.labels) if name == text]


class Encoder(Part):
    """Knows nothing of any item."""

    encodes: ClassVar[str] = "item"

    def encode(self, items: Sequence[Item]) -> FloatArray:
        """Give zeros."""
        self.at("encode")
        return np.zeros((len(items), 2), np.float32)

    def describe(self, items: Sequence[Item]) -> list[tuple[str, ...]]:
        """Give no words."""
        self.at("describe")
        return [() for _ in items]

    def fingerprint(self) -> str:
        """Give a constant."""
        self.at("fingerprint")
        return "nothing"


class Metric:
    """Raises in measure."""

    Config = ComponentConfig
    higher_is_better: ClassVar[bool] = True
    name = "raises-in-measure"

    def __init__(self, config: ComponentConfig) -> None:
        del config

    def measure(self, outcomes: Outcomes) -> Measurement:
        """Look up what is not there."""
        return Measurement({}[len(outcomes.ranks)])


class TooShort(Metric):
    """Gives one value a run."""

    name = "too-short"

    def measure(self, outcomes: Outcomes) -> Measurement:
        """Forget the cases."""
        del outcomes
        return Measurement.mean(np.zeros(1))
