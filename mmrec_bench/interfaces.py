"""What each kind of plugin must offer. The real contract is the kit in `mmrec_bench.testing`.

Every class carries `class Config(ComponentConfig)` and is built as `Cls(Cls.Config(**options))`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np

from mmrec_bench.config import ComponentConfig
from mmrec_bench.types import (
    Catalog,
    Example,
    FloatArray,
    HeldOut,
    Instruction,
    Interactions,
    Item,
    Measurement,
    Outcomes,
    Queries,
    Query,
    RecData,
    Scores,
    Vocabulary,
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


@dataclass(frozen=True)
class InstructionContext:
    """What an instruction builder may look at before it is asked; no test or validation case.

    Attributes:
        dataset: the data set's name.
        users: the split's user vocabulary: `Query.user` -> the data set's own id.
        catalog: items after the filter.
        train: train interactions.
        vectors: (N, D) float32 of the run's encoder where it gives vectors, NaN rows = nothing to
            encode; else None.
        n_candidates: candidates of a case.
        seed: seed of the run, for whatever is drawn (demonstrations, wordings).
        held_out: users and items that are held out from `train`: nothing made from more than it
            (profiles, demonstrations) may be used for them; None = nothing is held out.
    """

    dataset: str
    users: Vocabulary
    catalog: Catalog
    train: Interactions
    vectors: FloatArray | None
    n_candidates: int
    seed: int
    held_out: HeldOut | None = None


@runtime_checkable
class PreparesInstructions(Protocol):
    """An instruction builder that draws on train data: demonstrations, profiles, attributes."""

    def prepare(self, context: InstructionContext) -> None:
        """Called once, before the first `build`.

        Raises:
            ConfigError: an option asks for what is not there, e.g. profiles that were not built.
        """
        ...


@runtime_checkable
class Encoder(Protocol):
    """Turns items (picture, text) into vectors.

    An encoder class may say what a row (or words) depends on, as `encodes: ClassVar[str]`:

    - "picture" (also where it says nothing): the bytes of the item's first picture alone; rows are
      cached by them.
    - "words": the item's title, text, attributes and image words; rows are cached by all of them.
    - "item": the item's id or whatever else; rows are asked for in every run.
    """

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
        validate_by: a function that scores queries -> ndcg@10 on all of validation; asked in
            blocks, so that a whole catalog's scores are never held at once.
        examples: draws training examples with candidates; for models that read instructions.
        n_examples: examples in one epoch.
        builder: the instruction builder of the run; None for other models.
        users: the split's user vocabulary.
        item_vectors: (N, D) float32 of the run's encoder where it gives vectors (NaN rows = nothing
            to encode); None where there is none, or it gives words.
        modalities: "image", "text", "audio" -> (N, D) float32, NaN rows = nothing to encode; what a
            recommender asks for with `reads_modalities` and the run has an encoder for.
        device: "auto", "cpu", "cuda", "cuda:1" ...
        scratch: a folder for checkpoints of an unfinished fit, so that a killed run resumes.
        dataset: name of the data set; "" where it has none.
        dataset_version: its content hash.
        tested_on: name of the data set that is tested on, where it is another one.
        held_out: users and items that nothing may be learned from: a model that draws negatives of
            its own draws none of these items; None = nothing is held out.
        mask_seen: the protocol's: True = what a user took before is left out of a whole catalog's
            ranking and is no target; False = it can be one.
    """

    interactions: Interactions
    n_users: int
    catalog: Catalog
    validation: Queries
    validate: Callable[[Scores], float]
    validate_by: Callable[[Callable[[Queries], Scores]], float]
    examples: ExampleSource
    n_examples: int
    builder: InstructionBuilder | None
    users: Vocabulary
    device: str
    scratch: Path
    item_vectors: FloatArray | None = None
    modalities: Mapping[str, FloatArray] = field(default_factory=dict)
    dataset: str = ""
    dataset_version: str = ""
    tested_on: str = ""
    held_out: HeldOut | None = None
    mask_seen: bool = True

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


class ReadsModalities(Protocol):
    """A recommender class that learns from encoders' vectors of the items.

    Attributes alone cannot be checked with `issubclass`: see `planning.modality_sections`.

    Attributes:
        reads_modalities: which of "image", "text" and "audio" it can use.
        default_vectors: run section ("vectors", "text_vectors", "audio_vectors") -> encoder, where
            the run names none of them.
    """

    reads_modalities: ClassVar[tuple[str, ...]]
    default_vectors: ClassVar[Mapping[str, str]]


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
class Transfers(Protocol):
    """A recommender that, once fitted, can rank items of another catalog for other users."""

    def transfer(self, data: TrainingData) -> None:
        """Take over the catalog, users and builder of `data`; learn nothing from it.

        `data` holds no interaction, no example and no validation case.
        """
        ...


@runtime_checkable
class ProbesMemory(Protocol):
    """A recommender whose backbone may have read the data set before."""

    def probe_memory(self, catalog: Catalog, *, seed: int) -> dict[str, float]:
        """Return how well the untuned backbone completes what it was not shown, as flat facts."""
        ...


@runtime_checkable
class AsksAhead(Protocol):
    """A recommender that gains from knowing all it will be asked, e.g. to submit one batch."""

    def announce(self, queries: Queries) -> None:
        """Hear of queries that will be scored, part by part, by later calls of `score`."""
        ...


@runtime_checkable
class EstimatesCost(Protocol):
    """A recommender whose answers cost money or much time."""

    def estimate(self, data: TrainingData, queries: Queries) -> dict[str, str | int | float]:
        """Return tokens and cost that `score(queries)` would take, without asking anything."""
        ...


@runtime_checkable
class Tracker(Protocol):
    """Hears how runs go, and shows it elsewhere.

    It lives in a process of its own and gets copies, plain JSON values: nothing that it does
    changes a run. What it raises is one warning, and it hears nothing more. A run that was killed
    and goes on is started again under the same `run_id`.
    """

    def run_started(self, run_id: str, spec: Mapping[str, Any]) -> None:
        """Hear that a run begins; `spec` is its `RunSpec`: data set, model, protocol, seed ..."""
        ...

    def run_progressed(
        self, run_id: str, title: str, step: int, values: Mapping[str, float]
    ) -> None:
        """Hear numbers (loss, ndcg; NaN = undefined) after `step` units of the work `title`."""
        ...

    def run_finished(self, run_id: str, record: Mapping[str, Any]) -> None:
        """Hear the `RunRecord`; of a trial of a search: `spec`, `counts` and `metrics` alone."""
        ...

    def run_failed(self, run_id: str, reason: str) -> None:
        """Hear that a run raised, was stopped or killed; it may be started again later."""
        ...


@runtime_checkable
class Metric(Protocol):
    """Turns outcomes into a number per case."""

    name: str
    higher_is_better: ClassVar[bool]

    def measure(self, outcomes: Outcomes) -> Measurement:
        """Measure; undefined cases are NaN, never 0."""
        ...
