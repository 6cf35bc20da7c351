"""What a corpus is built from: the catalog and train interactions, and nothing else of a split."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mmrec_bench import runner
from mmrec_bench.collecting import item_vectors, shown_catalog
from mmrec_bench.config import RunConfig
from mmrec_bench.examples import FULL_CANDIDATES, TrainingExamples
from mmrec_bench.planning import Workspace
from mmrec_bench.plugins import Plugins
from mmrec_bench.types import (
    Catalog,
    DataCard,
    FloatArray,
    HeldOut,
    Interactions,
    Ragged,
    Split,
    Vocabulary,
)
from mmrec_plugins.instructions.building.config import BuildingConfig, BuildRequest, Language

_LIMIT_STREAM = 11
_SHARE_BITS = 53


@dataclass(frozen=True)
class Sources:
    """What the kinds of instruction may look at; no validation or test case is in it.

    Attributes:
        dataset: its name.
        version: its content hash.
        users: user vocabulary after the filter.
        catalog: items after the filter, with image words where an encoder ran.
        train: train interactions.
        config: the run's data set, protocol and seed.
        building: options of the build.
        language: of the questions.
        limit: only so many users and items.
        looks: the teacher looks at pictures.
        vectors: (N, D) float32 of the encoder `vectors`; None without one.
        held_out: users and items that nothing may be learned from; None = none are.
    """

    dataset: str
    version: str
    users: Vocabulary
    catalog: Catalog
    train: Interactions
    config: RunConfig
    building: BuildingConfig
    language: Language
    limit: int | None
    looks: bool
    vectors: FloatArray | None = None
    held_out: HeldOut | None = None

    @cached_property
    def histories(self) -> Ragged:
        """Train items of each user, oldest first."""
        return self.train.histories(len(self.users))

    @cached_property
    def rated(self) -> bool:
        """Whether ratings differ, so that low ones say something."""
        return len(self.train) > 0 and bool(np.ptp(self.train.rating) > 0)

    def ratings(self, user: int) -> FloatArray:
        """Return (H,) float32 ratings of the user's train items, in the order of `histories`."""
        offsets = self.histories.offsets
        return self.train.rating[offsets[user] : offsets[user + 1]]

    def examples(self, per_user: int, n_candidates: int | None = None) -> TrainingExamples:
        """Return the run's training examples, at most so many a user."""
        protocol = self.config.protocol
        full = protocol.candidates == "full"
        return TrainingExamples(
            self.train,
            n_users=len(self.users),
            n_items=len(self.catalog),
            history_length=protocol.history_length,
            n_candidates=n_candidates or (FULL_CANDIDATES if full else protocol.n_candidates),
            seed=self.config.seed,
            per_user=per_user,
            held_out_items=None if self.held_out is None else self.held_out.items,
        )

    def chosen_users(self) -> list[int]:
        """Return the users that are written about, in the order of their ids."""
        held_out = () if self.held_out is None else self.held_out.users.tolist()
        return self._chosen(self.users.ids, held_out)

    def chosen_items(self) -> list[int]:
        """Return the items that are written about, in the order of their ids."""
        held_out = () if self.held_out is None else self.held_out.items.tolist()
        return self._chosen(self.catalog.items.ids, held_out)

    def _chosen(self, ids: Sequence[str], held_out: Sequence[int]) -> list[int]:
        order = sorted(set(range(len(ids))) - set(held_out), key=ids.__getitem__)
        if self.limit is None or self.limit >= len(order):
            return order
        rng = np.random.default_rng([self.config.seed, _LIMIT_STREAM])
        kept = np.sort(rng.permutation(len(order))[: self.limit])
        return [order[at] for at in kept.tolist()]

    def part(self, name: str) -> str:
        """Return "train" or "validation" for a user's or an item's id, by a seeded hash."""
        digest = hashlib.sha256(f"{self.config.seed}\0{name}".encode()).digest()
        share = (int.from_bytes(digest[:8], "big") >> (64 - _SHARE_BITS)) / 2**_SHARE_BITS
        return "validation" if share < self.building.validation_share else "train"


@dataclass(frozen=True)
class Truth:
    """Which items of a user are validation or test targets; only the quality filter sees it.

    Attributes:
        items: user number -> item numbers.
    """

    items: dict[int, frozenset[int]]

    @classmethod
    def of(cls, split: Split) -> "Truth":
        """Collect the targets of a split."""
        found: dict[int, set[int]] = {}
        for cases in (split.validation, split.test):
            for user, targets in zip(cases.queries.user.tolist(), cases.targets, strict=True):
                found.setdefault(user, set()).update(targets.tolist())
        return cls({user: frozenset(items) for user, items in found.items()})


@dataclass(frozen=True)
class Prepared:
    """The two sides of a split, kept apart, and the data set's card."""

    sources: Sources
    truth: Truth
    card: DataCard


def prepare(
    request: BuildRequest, workspace: Workspace, plugins: Plugins, *, looks: bool
) -> Prepared:
    """Read and divide the data set as a run with the same options does.

    Raises:
        MMRecError: as a run's.
    """
    task = runner.prepare(request.run, workspace, plugins)
    catalog = shown_catalog(task.split.catalog, plugins, task.config)
    sources = Sources(
        dataset=task.data.name,
        version=task.data.version,
        users=task.split.users,
        catalog=catalog,
        train=task.split.train,
        config=request.run,
        building=request.building,
        language=request.language,
        limit=request.limit,
        looks=looks,
        vectors=item_vectors(catalog, plugins, task.config),
        held_out=task.split.held_out,
    )
    return Prepared(sources, Truth.of(task.split), task.data.card)
