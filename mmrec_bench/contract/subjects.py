"""A recommender under contract, and the toy data that it is tried on."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from mmrec_bench.contract.findings import DoesNotApplyError
from mmrec_bench.contract.toys import TOY_PROTOCOL, toy_vectors
from mmrec_bench.examples import TrainingExamples
from mmrec_bench.interfaces import Recommender, TrainingData
from mmrec_bench.types import BoolArray, FloatArray, Int32Array, Queries, Split


@dataclass
class RecommenderSubject:
    """A recommender, and toy data to try it on.

    Attributes:
        make: returns a new, unfitted one.
        split: toy cases with explicit candidates.
        data: what it learns from on that split.
        folder: for what is saved.
        given: a fitted one where there is one already.
    """

    make: Callable[[], Recommender]
    split: Split
    data: TrainingData
    folder: Path
    given: Recommender | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Keep a copy of what is given, before any check lets the recommender see it."""
        self.before = {name: array.copy() for name, array in self.shared().items()}
        self.catalog_before = self.catalog()

    def catalog(self) -> dict[str, list[Any]]:
        """Return a copy of the catalog's columns, which may be read alone too, by name."""
        catalog = self.data.catalog
        return {
            "data.catalog.title": list(catalog.title),
            "data.catalog.text": list(catalog.text or ()),
            "data.catalog.attributes": [dict(one) for one in catalog.attributes or ()],
        }

    def shared(self) -> dict[str, NDArray[Any]]:
        """Return the arrays that a recommender may read and not write, by name."""
        found: dict[str, NDArray[Any]] = {
            "data.interactions.user": self.data.interactions.user,
            "data.interactions.item": self.data.interactions.item,
            "data.interactions.rating": self.data.interactions.rating,
            "data.interactions.timestamp": self.data.interactions.timestamp,
            **{f"data.modalities[{name!r}]": one for name, one in self.data.modalities.items()},
        }
        return {
            **found,
            **query_arrays("queries", self.queries),
            **query_arrays("data.validation", self.data.validation),
        }

    @cached_property
    def fitted(self) -> Recommender:
        """A recommender that was fitted with seed 0."""
        return self.given if self.given is not None else self.fit(self.data, "fitted")

    def fewer(self, kept: BoolArray) -> TrainingData:
        """Return the data with some of its train interactions (n,) alone."""
        train = self.data.interactions.take(kept)
        split = replace(self.split, train=train)
        examples = TrainingExamples.from_split(split, TOY_PROTOCOL, seed=0)
        return replace(self.data, interactions=train, examples=examples, n_examples=len(examples))

    def fit(self, data: TrainingData, scratch: str, seed: int = 0) -> Recommender:
        """Return a new recommender, fitted in a scratch folder of its own."""
        data = replace(data, scratch=self.folder / "scratch" / scratch)
        data.scratch.mkdir(parents=True, exist_ok=True)
        recommender = self.make()
        recommender.fit(data, seed=seed)
        return recommender

    @property
    def queries(self) -> Queries:
        """The test queries."""
        return self.split.test.queries

    @property
    def candidates(self) -> Int32Array:
        """(B, C) candidates of the test queries."""
        candidates = self.queries.candidates
        if candidates is None:
            raise DoesNotApplyError("the split lists no candidates")
        return candidates


def query_arrays(name: str, queries: Queries) -> dict[str, NDArray[Any]]:
    """Return the arrays of queries, by what they are called."""
    found: dict[str, NDArray[Any]] = {
        f"{name}.user": queries.user,
        f"{name}.history": queries.history.values,
        f"{name}.history.offsets": queries.history.offsets,
    }
    if queries.candidates is not None:
        found[f"{name}.candidates"] = queries.candidates
    return found


def toy_modalities(cls: type[Recommender], split: Split) -> dict[str, FloatArray]:
    """Return toy vectors for each modality that a recommender class reads."""
    wanted = getattr(cls, "reads_modalities", ())
    return {name: toy_vectors(split.catalog, seed=i) for i, name in enumerate(wanted)}
