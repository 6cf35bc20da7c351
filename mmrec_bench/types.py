"""The values that flow through a run, in order of appearance.

Columns for arithmetic, a row view for prompts: recommenders and metrics work on whole columns,
instruction builders read one `Query` at a time. What a model may see (`Queries`) and the truth
(`Cases`) are different types.

Letters in shape comments: B cases, C candidates, H history length, N catalog items, T targets.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self, overload

import numpy as np
from numpy.typing import NDArray

Int32Array = NDArray[np.int32]
Int64Array = NDArray[np.int64]
FloatArray = NDArray[np.float32]
BoolArray = NDArray[np.bool_]


class Vocabulary:
    """The data set's own string ids <-> 0-based int32, in a fixed order."""

    __slots__ = ("_index", "ids")

    def __init__(self, ids: Sequence[str]) -> None:
        self.ids: tuple[str, ...] = tuple(ids)
        self._index: dict[str, int] = {name: i for i, name in enumerate(self.ids)}
        if len(self._index) != len(self.ids):
            raise ValueError(f"{len(self.ids) - len(self._index)} ids occur more than once")

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> str:
        return self.ids[index]

    def __contains__(self, name: str) -> bool:
        return name in self._index

    def index(self, name: str) -> int:
        """Return the 0-based number of `name`; KeyError when it is not in the vocabulary."""
        return self._index[name]

    def take(self, indices: Int32Array | Int64Array) -> "Vocabulary":
        """Return the vocabulary of the chosen ids, renumbered in the order given."""
        return Vocabulary([self.ids[i] for i in indices.tolist()])


@dataclass(frozen=True, slots=True)
class Ragged:
    """Rows of different lengths in two arrays (CSR without values of its own).

    Attributes:
        values: (n,) int32, the rows one after another.
        offsets: (B + 1,) int64; row i is `values[offsets[i]:offsets[i + 1]]`.
    """

    values: Int32Array
    offsets: Int64Array

    @classmethod
    def from_rows(cls, rows: Sequence[Sequence[int]]) -> Self:
        """Build from Python rows; for tests and small data."""
        lengths = np.fromiter((len(row) for row in rows), np.int64, len(rows))
        values = np.fromiter((v for row in rows for v in row), np.int32, int(lengths.sum()))
        return cls.from_lengths(values, lengths)

    @classmethod
    def from_lengths(cls, values: Int32Array, lengths: Int64Array) -> Self:
        """Build from the rows' values one after another and (B,) lengths."""
        offsets = np.zeros(len(lengths) + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        return cls(values.astype(np.int32, copy=False), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> Int32Array:
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    def __iter__(self) -> Iterator[Int32Array]:
        return (self[i] for i in range(len(self)))

    @property
    def lengths(self) -> Int64Array:
        """(B,) int64 length of each row."""
        return np.diff(self.offsets)

    @property
    def row_ids(self) -> Int64Array:
        """(n,) int64 row of each value."""
        return np.repeat(np.arange(len(self), dtype=np.int64), self.lengths)

    def slice(self, start: int, stop: int) -> "Ragged":
        """Return rows `start` to `stop` as views of this one's values."""
        offsets = self.offsets[start : stop + 1]
        return Ragged(self.values[offsets[0] : offsets[-1]], offsets - offsets[0])

    def take(self, rows: Int64Array) -> "Ragged":
        """Return the chosen rows, in the order given, without a Python loop."""
        lengths = self.lengths[rows]
        starts = np.repeat(self.offsets[:-1][rows], lengths)
        ends = np.cumsum(lengths)
        within = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - lengths, lengths)
        return Ragged.from_lengths(self.values[starts + within], lengths)


class Review(NamedTuple):
    """What a user wrote of an item; either may be ""."""

    summary: str
    text: str


@dataclass(frozen=True, slots=True)
class Interactions:
    """Interaction columns sorted by (user, timestamp, file order).

    Attributes:
        user: (n,) int32 number in the user vocabulary.
        item: (n,) int32 number in the item vocabulary.
        timestamp: (n,) int64 Unix seconds; for data without times, the position in the user's row.
        rating: (n,) float32; 1.0 where the data set has none.
        part: (n,) int8, 0 = train, 1 = validation, 2 = test, of a data set that is published
            divided (protocol.split=given); None for all others.
        review: (n,) objects, a `Review` or None; None where the data set has none, or was not asked
            for them.
    """

    user: Int32Array
    item: Int32Array
    timestamp: Int64Array
    rating: FloatArray
    part: NDArray[np.int8] | None = None
    review: NDArray[np.object_] | None = None

    @classmethod
    def build(
        cls,
        user: NDArray[Any],
        item: NDArray[Any],
        timestamp: NDArray[Any] | None = None,
        rating: NDArray[Any] | None = None,
        part: NDArray[Any] | None = None,
        review: NDArray[np.object_] | None = None,
    ) -> Self:
        """Sort columns given in file order; the sort is stable, so file order breaks ties."""
        n = len(user)
        times = np.arange(n) if timestamp is None else timestamp
        ratings = np.ones(n, np.float32) if rating is None else rating
        order = np.lexsort((times, user))
        return cls(
            np.asarray(user, np.int32)[order],
            np.asarray(item, np.int32)[order],
            np.asarray(times, np.int64)[order],
            np.asarray(ratings, np.float32)[order],
            None if part is None else np.asarray(part, np.int8)[order],
            None if review is None else review[order],
        )

    def __len__(self) -> int:
        return len(self.user)

    def take(self, rows: BoolArray | Int64Array) -> "Interactions":
        """Return the chosen rows (mask or increasing indices), which stay sorted."""
        return Interactions(
            self.user[rows],
            self.item[rows],
            self.timestamp[rows],
            self.rating[rows],
            None if self.part is None else self.part[rows],
            None if self.review is None else self.review[rows],
        )

    def histories(self, n_users: int) -> Ragged:
        """Return the items of each user in time order, one row a user."""
        return Ragged.from_lengths(self.item, np.bincount(self.user, minlength=n_users))


@dataclass(frozen=True, slots=True)
class Item:
    """Row view of one catalog entry.

    Attributes:
        index: 0-based number in the item vocabulary.
        id: the data set's own id, e.g. an ASIN.
        title: may be "" where the data set has none.
        text: longer description, may be "".
        attributes: e.g. {"brand": "Acme", "category": "Gift Cards"}; only those known.
        images: local files, first is the main one; they may be missing or broken.
        image_words: what an encoder said of the picture; () when nothing is known.
    """

    index: int
    id: str
    title: str
    text: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)
    images: tuple[Path, ...] = ()
    image_words: tuple[str, ...] = ()


@dataclass(frozen=True)
class Catalog(Sequence[Item]):
    """Items in vocabulary order, as columns; indexing gives the row view `Item`.

    Attributes:
        items: the item vocabulary, N ids.
        title: N strings.
        text: N strings, or () when the data set has none.
        attributes: N mappings, or ().
        images: N tuples of files, or ().
        image_words: N tuples of words, or (); filled by the runner with an encoder's `describe`.
        image_urls: N tuples of the publisher's picture addresses, or (); never fetched in a run.
    """

    items: Vocabulary
    title: Sequence[str]
    text: Sequence[str] = ()
    attributes: Sequence[Mapping[str, str]] = ()
    images: Sequence[tuple[Path, ...]] = ()
    image_words: Sequence[tuple[str, ...]] = ()
    image_urls: Sequence[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        for name in ("title", "text", "attributes", "images", "image_words", "image_urls"):
            column = getattr(self, name)
            if len(column) not in ((len(self.items),) if name == "title" else (0, len(self.items))):
                raise ValueError(f"catalog column {name!r} has {len(column)} rows, not {len(self)}")

    def __len__(self) -> int:
        return len(self.items)

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> list[Item]: ...
    def __getitem__(self, index: int | slice) -> Item | list[Item]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        i = int(index)
        return Item(
            index=i,
            id=self.items[i],
            title=self.title[i],
            text=self.text[i] if self.text else "",
            attributes=self.attributes[i] if self.attributes else {},
            images=self.images[i] if self.images else (),
            image_words=self.image_words[i] if self.image_words else (),
        )

    def take(self, rows: Int64Array) -> "Catalog":
        """Return the catalog of the chosen items, renumbered in the order given."""
        chosen = rows.tolist()
        columns = {
            name: [column[i] for i in chosen]
            for name in ("title", "text", "attributes", "images", "image_words", "image_urls")
            if len(column := getattr(self, name))
        }
        return Catalog(items=self.items.take(rows), **columns)

    def with_image_words(self, words: Sequence[tuple[str, ...]]) -> "Catalog":
        """Return the catalog with `image_words` replaced by N tuples of words."""
        return replace(self, image_words=words)


@dataclass(frozen=True, slots=True)
class DataCard:
    """What a reader must know of a data set before believing a number on it.

    Attributes:
        source: who published the files.
        licence: as stated by the publisher; "none stated" where it is silent.
        counts: what was read, kept and left out, and why, e.g. {"broken_lines": 3}.
        notes: sentences, e.g. about leaks.
    """

    source: str
    licence: str
    counts: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class RecData:
    """A data set as read, before any filter.

    Attributes:
        name: as it stands in records and tables, e.g. `amazon-sample`.
        version: hash of the content, so that changed files are another data set.
        users: user vocabulary.
        catalog: all items, in item vocabulary order.
        interactions: all interactions.
        card: counts, licence, source.
    """

    name: str
    version: str
    users: Vocabulary
    catalog: Catalog
    interactions: Interactions
    card: DataCard


@dataclass(frozen=True, slots=True)
class Query:
    """What a model may see of one case.

    Attributes:
        user: 0-based user number.
        history: (H,) int32 item numbers, oldest first; may be empty.
        candidates: (C,) int32 item numbers in no telling order, or None = the whole catalog.
    """

    user: int
    history: Int32Array
    candidates: Int32Array | None = None

    def with_history(self, length: int) -> "Query":
        """Return the query with only the newest `length` items of the history."""
        return replace(self, history=self.history[max(0, len(self.history) - length) :])


@dataclass(frozen=True)
class Queries(Sequence[Query]):
    """What a model may see of B cases, as columns; indexing gives the row view `Query`.

    Attributes:
        user: (B,) int32.
        history: Ragged of B rows, oldest first.
        candidates: (B, C) int32, or None = the whole catalog.
    """

    user: Int32Array
    history: Ragged
    candidates: Int32Array | None = None

    def __len__(self) -> int:
        return len(self.user)

    @overload
    def __getitem__(self, index: int) -> Query: ...
    @overload
    def __getitem__(self, index: slice) -> "Queries": ...
    def __getitem__(self, index: int | slice) -> "Query | Queries":
        if isinstance(index, slice):
            return self.take(np.arange(*index.indices(len(self))))
        i = int(index)
        candidates = None if self.candidates is None else self.candidates[i]
        return Query(int(self.user[i]), self.history[i], candidates)

    def take(self, rows: Int64Array) -> "Queries":
        """Return the chosen queries in the order given."""
        candidates = None if self.candidates is None else self.candidates[rows]
        return Queries(self.user[rows], self.history.take(rows), candidates)


@dataclass(frozen=True)
class Cases:
    """Queries and their truth. Models never receive Cases.

    Attributes:
        queries: what a model may see.
        targets: Ragged of B rows: the items that the user took, at least one a row.
        masked: Ragged of B rows of items left out of the ranking when candidates are the whole
            catalog (seen before); None with explicit candidates.
    """

    queries: Queries
    targets: Ragged
    masked: Ragged | None = None

    def __len__(self) -> int:
        return len(self.queries)

    def slice(self, start: int, stop: int) -> "Cases":
        """Return cases `start` to `stop` as views of these."""
        queries = self.queries
        candidates = None if queries.candidates is None else queries.candidates[start:stop]
        return Cases(
            Queries(queries.user[start:stop], queries.history.slice(start, stop), candidates),
            self.targets.slice(start, stop),
            None if self.masked is None else self.masked.slice(start, stop),
        )

    def take(self, rows: Int64Array) -> "Cases":
        """Return the chosen cases in the order given."""
        masked = None if self.masked is None else self.masked.take(rows)
        return Cases(self.queries.take(rows), self.targets.take(rows), masked)


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Users and items that nothing is learned from; see `mmrec_bench.transfer`.

    Attributes:
        users: increasing int32 numbers of held-out users, () where none are chosen.
        items: increasing int32 numbers of held-out items, () where none are chosen.
        hash: of their ids.
    """

    users: Int32Array
    items: Int32Array
    hash: str


@dataclass(frozen=True)
class Split:
    """A data set under a protocol: filtered, renumbered and divided.

    Attributes:
        users: user vocabulary after the filter.
        catalog: items after the filter, in the (permuted) order of their numbers.
        train: interactions that a model may learn from.
        validation: cases for early stopping and selection.
        test: cases that are reported.
        counts: n_users, n_items, n_train, ..., share of same-time ties in parts per million.
        candidates_hash: hash of the drawn candidate sets; "" for the whole catalog.
        held_out: who is held out from train and validation; None without such a protocol.
    """

    users: Vocabulary
    catalog: Catalog
    train: Interactions
    validation: Cases
    test: Cases
    counts: Mapping[str, int]
    candidates_hash: str = ""
    held_out: HeldOut | None = None


@dataclass(frozen=True, slots=True)
class Text:
    """A text part of a message."""

    text: str


@dataclass(frozen=True, slots=True)
class Image:
    """A picture part of a message.

    Attributes:
        path: the file, decoded by whoever looks; None where only the item's vector is known.
        item: 0-based number of the item that it shows.
    """

    path: Path | None
    item: int


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    parts: tuple[Text | Image, ...]

    @property
    def text(self) -> str:
        """The text parts, joined."""
        return "".join(part.text for part in self.parts if isinstance(part, Text))


@dataclass(frozen=True, slots=True)
class Instruction:
    """What a language model is asked.

    Attributes:
        messages: the conversation so far; the model answers next.
        labels: (C,) how each candidate is named, e.g. "A"; in the query's candidate order. () where
            the messages do not list them, so that only the likelihoods of `answers` rank.
        answers: (C,) the full answer text that names each candidate, for likelihoods.
        schema: JSON schema of a written answer, for servers with structured outputs; None = the
            answer is plain text. The builder's `parse` reads either form.
        shown: items of demonstrations and the like that are named beside history and candidates.
    """

    messages: tuple[Message, ...]
    labels: tuple[str, ...]
    answers: tuple[str, ...]
    schema: Mapping[str, Any] | None = None
    shown: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Example:
    """A query and the position of its target among the candidates; training only."""

    query: Query
    target: int


Outcome = Literal["ok", "repaired", "invalid", "refused"]


@dataclass(frozen=True)
class Answers:
    """What a generator said, per case; lengths B.

    Attributes:
        text: the raw answer.
        outcome: how it was read.
        hallucinated: named items that were not among the candidates.
        prompt_tokens: tokens read.
        answer_tokens: tokens written.
        retries: requests that were sent again, for whatever reason; None = cannot happen.
        seconds: float32 spent waiting for the answer; None = not measured by case.
        cost: float64 US dollars, NaN = the price is not known; None = costs nothing by case.
    """

    text: tuple[str, ...]
    outcome: tuple[Outcome, ...]
    hallucinated: Int32Array
    prompt_tokens: Int32Array
    answer_tokens: Int32Array
    retries: Int32Array | None = None
    seconds: FloatArray | None = None
    cost: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class Scores:
    """A model's opinion of each candidate, higher is better.

    Attributes:
        values: (B, C) float32 in the order of the query's candidates; (B, N) for the whole catalog.
            NaN = the model left this candidate out, which counts as a miss.
        answers: per case, for models that generate text.
    """

    values: FloatArray
    answers: Answers | None = None


@dataclass(frozen=True)
class Ranks:
    """Where each target stands, as counts, so that no tie-breaking hides in a number.

    Attributes:
        n_better: (T,) int32 candidates scored higher than the target (unmasked, not the target).
        n_tied: (T,) int32 other candidates with the same score.
        ranked: (T,) bool; False = the model left the target out: a miss at every k.
        case: (T,) int64 the case of each target, non-decreasing.
        n_targets: (B,) int32.
        n_candidates: (B,) int32 ranked candidates of each case, the targets included.
        top: (B, K) int32 item numbers of the best K, -1 = none, ties broken by item number (for
            the record and list metrics only).
    """

    n_better: Int32Array
    n_tied: Int32Array
    ranked: BoolArray
    case: Int64Array
    n_targets: Int32Array
    n_candidates: Int32Array
    top: Int32Array

    def __len__(self) -> int:
        return len(self.n_targets)

    @cached_property
    def first_target(self) -> Int64Array:
        """(B + 1,) int64 offsets of each case's targets."""
        offsets = np.zeros(len(self.n_targets) + 1, np.int64)
        np.cumsum(self.n_targets, out=offsets[1:])
        return offsets


@dataclass(frozen=True)
class Outcomes:
    """All that a metric may look at.

    Attributes:
        ranks: where the targets stand.
        catalog: for list metrics.
        item_counts: (N,) int64 training interactions of each item.
        answers: for validity metrics; None when the model generates no text.
        ties: how equal scores count.
        histories: Ragged of B rows, what the model saw of each user; None where nobody kept it.
        vectors: "image" | "text" | "audio" -> (N, D) float32, NaN rows = nothing to encode; those
            that a metric of the run asks for with `reads_modalities`.
    """

    ranks: Ranks
    catalog: Catalog
    item_counts: Int64Array
    answers: Answers | None = None
    ties: Literal["expected", "optimistic", "pessimistic"] = "expected"
    histories: Ragged | None = None
    vectors: Mapping[str, FloatArray] = field(default_factory=dict)


@dataclass(frozen=True)
class Measurement:
    """A metric's value and what it was computed from.

    Attributes:
        value: the mean over defined cases, or the list-level value; NaN when undefined.
        per_case: (B,) float64, NaN = undefined for that case; None for list-level metrics.
    """

    value: float
    per_case: NDArray[np.float64] | None = None

    @classmethod
    def mean(cls, per_case: NDArray[np.float64]) -> Self:
        """Average the defined cases; NaN when there are none."""
        defined = per_case[~np.isnan(per_case)]
        return cls(float(defined.mean()) if len(defined) else float("nan"), per_case)

    @property
    def n(self) -> int:
        """Number of defined cases; 0 for list-level metrics."""
        return 0 if self.per_case is None else int((~np.isnan(self.per_case)).sum())
