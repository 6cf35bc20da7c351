"""What each kind of plugin must offer. The real contract is the kit in `mmrec_bench.testing`.

Every class carries `class Config(ComponentConfig)` and is built as `Cls(Cls.Config(**options))`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np

from mmrec_bench.config import ComponentConfig
from mmrec_bench.types import (
    Catalog,
    Example,
    FloatArray,
    Instruction,
    Interactions,
    Item,
    Measurement,
    Outcomes,
    Queries,
    Query,
    RecData,
    Scores,
)


@runtime_checkable
class Dataset(Protocol):
    """Reads raw files."""

    def load(self, root: Path) -> RecData:
        """Read the data set below `root`.

        Raises:
            DataMissingError: says where to get the files and where to put them.
            DataFormatError: a file is not what its format promises.
        """
        ...


class FetchProgress(Protocol):
    """Told how far a download is."""

    def __call__(self, name: str, done: int, total: int | None) -> None:
        """Say that `done` of `total` bytes (None = not known) of the file `name` are here."""
        ...


@runtime_checkable
class Fetches(Protocol):
    """A data set that can download its own files."""

    def fetch(self, root: Path, on_progress: FetchProgress) -> list[Path]:
        """Download the files that `load(root)` will read; return where they are.

        Raises:
            ConfigError: the options do not say what to fetch.
            DataMissingError: the publisher does not have it, or cannot be reached.
            StorageError: the files cannot be written.
        """
        ...


@runtime_checkable
class InstructionBuilder(Protocol):
    """Owns both the question and the reading of the answer, so that they cannot drift."""

    def build(self, query: Query, catalog: Catalog) -> Instruction:
        """Ask for one query; `query.candidates` is never None."""
        ...

    def parse(self, text: str, instruction: Instruction) -> list[int]:
        """Return candidate positions, best first, no repeats; empty when nothing was named."""
        ...


@runtime_checkable
class Encoder(Protocol):
    """Turns items (picture, text) into vectors."""

    def encode(self, items: Sequence[Item]) -> FloatArray:
        """Return (n_items, D) float32; a row of NaN for an item that has nothing to encode."""
        ...

    def fingerprint(self) -> str:
        """Name everything that the output depends on (weights, versions), for caches."""
        ...


@runtime_checkable
class Describer(Protocol):
    """An encoder that also says in words what a picture shows."""

    def describe(self, items: Sequence[Item]) -> list[tuple[str, ...]]:
        """Return words per item; () where there is no usable picture."""
        ...

    def fingerprint(self) -> str:
        """Name everything that the output depends on (weights, versions), for caches."""
        ...


class ExampleSource(Protocol):
    """Draws training examples from the train interactions under the run's protocol."""

    def __call__(self, epoch: int) -> Iterator[Example]:
        """Yield the examples of one epoch; the same epoch gives the same examples."""
        ...


@dataclass(frozen=True)
class TrainingData:
    """Everything a recommender may learn from. Test cases are not here.

    Attributes:
        interactions: train interactions, columns.
        n_users: users after the filter.
        catalog: items after the filter, with image words where an encoder ran.
        validation: queries for early stopping; their truth is behind `validate`.
        validate: scores of `validation` (same order) -> ndcg@10 on validation.
        examples: draws training examples with candidates; for models that read instructions.
        n_examples: examples in one epoch.
        builder: the instruction builder of the run; None for other models.
        device: "auto", "cpu", "cuda", "cuda:1" ...
        scratch: a folder for checkpoints of an unfinished fit, so that a killed run resumes.
    """

    interactions: Interactions
    n_users: int
    catalog: Catalog
    validation: Queries
    validate: Callable[[Scores], float]
    examples: ExampleSource
    n_examples: int
    builder: InstructionBuilder | None
    device: str
    scratch: Path

    @property
    def n_items(self) -> int:
        """Items after the filter."""
        return len(self.catalog)

    def item_counts(self) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """(N,) int64 train interactions of each item."""
        return np.bincount(self.interactions.item, minlength=self.n_items)


@runtime_checkable
class Recommender(Protocol):
    """Learns from training data and scores candidates."""

    reads_instructions: ClassVar[bool]

    def fit(self, data: TrainingData, *, seed: int) -> None:
        """Learn. Zero-shot models only keep what they need of `data`."""
        ...

    def score(self, queries: Queries) -> Scores:
        """Score any slice of queries: (B, C), or (B, N) where candidates are the whole catalog.

        The result for a query depends on that query alone, not on its neighbours or on the order
        of its candidates.
        """
        ...

    def save(self, folder: Path) -> None:
        """Write what `restore` needs; no pickles."""
        ...

    def restore(self, folder: Path, data: TrainingData) -> None:
        """Come back to the state after `fit` on the same `data`."""
        ...


@runtime_checkable
class ResolvesOptions(Protocol):
    """A recommender class whose options depend on the machine or on one another."""

    @classmethod
    def resolve(cls, config: ComponentConfig, *, device: str) -> tuple[ComponentConfig, list[str]]:
        """Fill in what was left open, so that the run's spec names what really runs.

        Loads no weights. The second value holds lines for the user, e.g. which backbone was
        found and how to get the other.
        """
        ...


@runtime_checkable
class ChoosesInstructions(Protocol):
    """A recommender class that knows which instruction builder suits its options."""

    @classmethod
    def choose_instructions(cls, config: ComponentConfig) -> str:
        """Return the name of the builder that is used where the user chose none."""
        ...


@runtime_checkable
class HasFingerprint(Protocol):
    """A recommender class whose options name files (weights) that decide its numbers."""

    @classmethod
    def fingerprint(cls, config: ComponentConfig) -> str:
        """Return a hash of those files, so that changed weights are another run."""
        ...


@runtime_checkable
class ReportsSearch(Protocol):
    """A component class that looks for files of its own (weights, data)."""

    @classmethod
    def search(cls, root: Path) -> dict[str, str]:
        """Return what was looked for -> what was found and where, for `doctor`."""
        ...


@runtime_checkable
class ReportsParameters(Protocol):
    """A recommender that can tell how much of it was tuned, and on what it stands."""

    def facts(self) -> dict[str, str | int | float]:
        """Return e.g. {"backbone": "chatglm2-micro", "n_parameters": 2023456, ...}.

        `backbone`, where present, is shown behind the model's name in every table.
        """
        ...


@runtime_checkable
class Metric(Protocol):
    """Turns outcomes into a number per case."""

    name: str
    higher_is_better: ClassVar[bool]

    def measure(self, outcomes: Outcomes) -> Measurement:
        """Measure; undefined cases are NaN, never 0."""
        ...
