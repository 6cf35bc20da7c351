"""Few-shot demonstrations: what other training users chose next, from train interactions alone."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field

from mmrec_bench.candidates import SeenItems, draw_negatives
from mmrec_bench.config import ComponentConfig
from mmrec_bench.errors import ConfigError
from mmrec_bench.interfaces import InstructionContext
from mmrec_bench.types import BoolArray, FloatArray, Int32Array, Int64Array, Query

_USERS, _ORDER, _CANDIDATES = 1, 2, 3
"""What a stream of random numbers is for; 0 draws wordings."""


class DemonstrationOptions(ComponentConfig):
    """Options of few-shot instructions."""

    demonstrations: int = Field(0, ge=0, description="answered examples before the question")
    by: Literal["seeded", "popularity", "nearest"] = Field(
        "seeded",
        description="which other users are shown: drawn by seed, balanced over the popularity of "
        "what they chose, or with histories nearest by an encoder's vectors (-o vectors.name=...)",
    )
    demonstration_candidates: int = Field(
        5, ge=2, description="candidates of a demonstration, the chosen item included"
    )
    demonstration_history: int = Field(
        5, ge=1, description="newest items of a demonstration's history shown"
    )
    turns: bool = Field(
        default=True,
        description="demonstrations are earlier turns of the conversation; false = all in one "
        "message, for models without chat",
    )


@dataclass(frozen=True)
class Demonstration:
    """An answered question about another user.

    Attributes:
        query: history and candidates.
        chosen: what the user chose: an item number.
        ranking: (C,) candidate positions, the chosen item first, the others in random order:
            nothing is known about them. Empty where the only candidate was not chosen.
    """

    query: Query
    chosen: int
    ranking: tuple[int, ...]


class Demonstrations:
    """Chooses demonstrations for a query.

    A demonstration is a position t >= 1 of another user's train row, as `TrainingExamples` draws
    them: the history is what came before, the candidates are the item at t and uniform negatives
    among items that are not in the user's train row and not held out. Nothing but train
    interactions is looked at.
    The choice depends on the seed and the asking user; by=nearest also on the query's history.
    """

    def __init__(self, options: DemonstrationOptions, n_candidates: int | None = None) -> None:
        """Bind the options.

        Args:
            options: how many, and which.
            n_candidates: candidates of a demonstration where the task form fixes them; 1 = the
                chosen item or another one, by turns of a coin.
        """
        self.options = options
        self._n_candidates = n_candidates or options.demonstration_candidates
        self._context: InstructionContext | None = None

    def prepare(self, context: InstructionContext) -> None:
        """Index the train interactions; O(interactions), once.

        Raises:
            ConfigError: too few users to show, or by=nearest without vectors.
        """
        n = self.options.demonstrations
        if n == 0:
            return
        train, n_users = context.train, len(context.users)
        histories = train.histories(n_users)
        self._user, self._item = train.user, train.item
        self._starts, self._lengths = histories.offsets[:-1], histories.lengths
        self._eligible = np.flatnonzero(self._lengths >= 2)
        if len(self._eligible) <= n:
            raise ConfigError(
                f"instructions.demonstrations={n} needs {n + 1} users with two train interactions, "
                f"but there are {len(self._eligible)}; lower it"
            )
        self._seen = SeenItems(train.user, train.item, n_users, len(context.catalog))
        self._weights = None
        if context.held_out is not None and len(context.held_out.items):
            self._weights = np.ones(len(context.catalog))
            self._weights[context.held_out.items] = 0.0
        self._context = context
        if self.options.by == "popularity":
            self._index_popularity(context)
        elif self.options.by == "nearest":
            self._index_vectors(context)

    def choose(self, query: Query) -> list[Demonstration]:
        """Return the demonstrations for a query, in the order in which they are shown."""
        if self.options.demonstrations == 0:
            return []
        context = self._context
        if context is None:
            raise ConfigError(
                "demonstrations are drawn from train data by prepare(context), which was not "
                "called before the first build"
            )
        rows = None
        if self.options.by == "nearest":
            rows = self._nearest(query)
        elif self.options.by == "popularity":
            rows = self._balanced(query, context.seed)
        if rows is None:
            rows = self._drawn(query, context.seed)
        return [self._demonstration(row, context) for row in rows]

    def _drawn(self, query: Query, seed: int) -> list[int]:
        """Draw other users, and a position of each."""
        rng = np.random.default_rng([seed, query.user, _USERS])
        n = self.options.demonstrations
        users = rng.choice(self._eligible, n + 1, replace=False)
        users = users[users != query.user][:n]
        places = rng.integers(1, self._lengths[users])
        return [int(row) for row in self._starts[users] + places]

    def _index_popularity(self, context: InstructionContext) -> None:
        """Divide the items that occur into bins of equal size by count, and positions by bin."""
        counts = np.bincount(self._item, minlength=len(context.catalog))
        occurring = np.flatnonzero(counts)
        by_count = occurring[np.argsort(counts[occurring], kind="stable")]
        bin_of = np.full(len(counts), -1, np.int64)
        for number, items in enumerate(np.array_split(by_count, self.options.demonstrations)):
            bin_of[items] = number
        rows = np.flatnonzero(np.arange(len(self._item)) > self._starts[self._user])
        bins = bin_of[self._item[rows]]
        self._bins = [rows[bins == number] for number in range(self.options.demonstrations)]

    def _balanced(self, query: Query, seed: int) -> list[int]:
        """Draw a position from each popularity bin, each of another user, in random order."""
        rng = np.random.default_rng([seed, query.user, _USERS])
        used = [query.user]
        chosen: list[int] = []
        for own in self._bins:
            pool = self._of_others(own, used)
            if not len(pool):  # none of the bin's items was chosen by a user not yet shown
                pool = self._of_others(np.concatenate(self._bins), used)
            row = int(rng.choice(pool))
            chosen.append(row)
            used.append(int(self._user[row]))
        order = np.random.default_rng([seed, query.user, _ORDER]).permutation(len(chosen))
        return [chosen[i] for i in order]

    def _of_others(self, rows: Int64Array, used: list[int]) -> Int64Array:
        free = np.isin(self._user[rows], used, invert=True)
        return rows[free]

    def _index_vectors(self, context: InstructionContext) -> None:
        """Keep the direction of each eligible user's mean history vector, (U, D) float32."""
        if context.vectors is None:
            raise ConfigError(
                "instructions.by=nearest compares histories by an encoder's vectors, but this run "
                "has none; name an encoder for them, e.g. -o vectors.name=efficientnet, or take "
                "by=seeded"
            )
        vectors: FloatArray = context.vectors
        self._vectors = vectors
        self._known: BoolArray = np.asarray(np.isfinite(vectors).all(axis=1), np.bool_)
        means = np.zeros((len(self._eligible), vectors.shape[1]), np.float32)
        for i, last in enumerate(self._last_rows(self._eligible).tolist()):
            means[i] = self._direction(self._history(last))
        self._with_vector = means.any(axis=1)
        if int(self._with_vector.sum()) <= self.options.demonstrations:
            raise ConfigError(
                f"instructions.by=nearest: only {int(self._with_vector.sum())} users have items "
                f"with a vector, not enough for {self.options.demonstrations} demonstrations"
            )
        self._means = means

    def _nearest(self, query: Query) -> list[int] | None:
        """Return the newest positions of the nearest other users, the nearest last.

        None where the query's history has no vector to compare by.
        """
        shown = query.with_history(self.options.demonstration_history).history
        direction = self._direction(shown)
        if not direction.any():
            return None
        near = self._means @ direction
        near[~self._with_vector | (self._eligible == query.user)] = -np.inf
        best = np.argsort(-near, kind="stable")[: self.options.demonstrations]
        return [int(row) for row in self._last_rows(self._eligible[best[::-1]])]

    def _direction(self, items: Int32Array) -> FloatArray:
        """Return the unit vector (D,) of the items' mean; zeros where none has a vector."""
        known = items[self._known[items]]
        if not len(known):
            return np.zeros(self._vectors.shape[1], np.float32)
        mean = self._vectors[known].mean(axis=0, dtype=np.float64)
        return np.asarray(mean / max(float(np.linalg.norm(mean)), 1e-12), np.float32)

    def _last_rows(self, users: Int64Array) -> Int64Array:
        rows: Int64Array = self._starts[users] + self._lengths[users] - 1
        return rows

    def _history(self, row: int) -> Int32Array:
        """Return what came before a position, its newest items."""
        start = int(self._starts[self._user[row]])
        return self._item[max(start, row - self.options.demonstration_history) : row]

    def _demonstration(self, row: int, context: InstructionContext) -> Demonstration:
        rng = np.random.default_rng([context.seed, row, _CANDIDATES])
        user = self._user[row : row + 1]
        left = int(self._seen.available(user, self._weights)[0])
        need = min(max(self._n_candidates - 1, 1), left)
        negatives = draw_negatives(
            rng, user, np.array([need], np.int64), self._seen, self._weights
        )[0]
        chosen = int(self._item[row])
        if self._n_candidates == 1:
            taken = need == 0 or bool(rng.integers(2))
            candidates = np.array([chosen] if taken else negatives, np.int32)
            ranking = [0] if taken else []
        else:
            place = int(rng.integers(need + 1))
            candidates = np.insert(negatives, place, chosen).astype(np.int32)
            ranking = [place, *(i for i in rng.permutation(need + 1).tolist() if i != place)]
        query = Query(int(user[0]), self._history(row), candidates)
        return Demonstration(query, chosen, tuple(ranking))
