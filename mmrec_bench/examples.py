"""Training examples with candidates, drawn from train interactions alone."""

from collections.abc import Iterator
from typing import Literal, Self

import numpy as np

from mmrec_bench.candidates import SeenItems, draw_negatives
from mmrec_bench.config import ProtocolConfig
from mmrec_bench.types import Example, Int32Array, Int64Array, Interactions, Query, Split

BLOCK = 1 << 14
"""Examples drawn at a time; bounds memory, and is part of what a seed means."""

FULL_CANDIDATES = 20
"""Candidates of an example where cases rank the whole catalog."""


class TrainingExamples:
    """Draws examples epoch by epoch; implements `interfaces.ExampleSource`.

    An example is a position t >= 1 of a user's train row: the history is what came before, the
    candidates are the item at t and uniform negatives among items that are not in the user's train
    interactions, in random order. Nothing here has seen validation or test, so that a negative may
    well be a later target. A user who leaves fewer free items than asked for gets as many negatives
    as there are; an example without any negative is left out. Items that are held out from what is
    learned are never negatives.
    """

    def __init__(
        self,
        train: Interactions,
        *,
        n_users: int,
        n_items: int,
        history_length: int,
        n_candidates: int,
        seed: int,
        per_user: int | None = None,
        choose: Literal["random", "newest"] = "random",
        held_out_items: Int32Array | None = None,
    ) -> None:
        """Prepare the draw.

        Args:
            train: train interactions.
            n_users: users after the filter.
            n_items: items after the filter.
            history_length: newest items of the history shown.
            n_candidates: size of a candidate set, the target included; at least 2.
            seed: the run's seed.
            per_user: at most so many positions of a user in an epoch; None = all.
            choose: which positions, where there are more: the newest ones, or other random ones in
                each epoch.
            held_out_items: items that are no negatives; they are in no train interaction.
        """
        self._rows = train
        self._n_items = n_items
        self._history_length, self._n_candidates, self._seed = history_length, n_candidates, seed
        self._per_user, self._choose = per_user, choose
        self._seen = SeenItems(train.user, train.item, n_users, n_items)
        self._weights = None
        if held_out_items is not None and len(held_out_items):
            self._weights = np.ones(n_items)
            self._weights[held_out_items] = 0.0
        starts = train.histories(n_users).offsets[:-1][train.user]
        free = self._seen.available(train.user, self._weights)
        usable = (np.arange(len(train)) > starts) & (free > 0)
        self._positions = np.flatnonzero(usable)
        self._starts = starts

    @classmethod
    def from_split(
        cls,
        split: Split,
        protocol: ProtocolConfig,
        *,
        seed: int,
        per_user: int | None = None,
        choose: Literal["random", "newest"] = "random",
    ) -> Self:
        """Build for a split; candidate sets as large as those of the cases (20 when full)."""
        full = protocol.candidates == "full"
        return cls(
            split.train,
            n_users=len(split.users),
            n_items=len(split.catalog),
            history_length=protocol.history_length,
            n_candidates=FULL_CANDIDATES if full else protocol.n_candidates,
            seed=seed,
            per_user=per_user,
            choose=choose,
            held_out_items=None if split.held_out is None else split.held_out.items,
        )

    def __len__(self) -> int:
        """Return the number of examples in one epoch."""
        if self._per_user is None:
            return len(self._positions)
        counts = np.bincount(self._rows.user[self._positions])
        return int(np.minimum(counts, self._per_user).sum())

    def __call__(self, epoch: int) -> Iterator[Example]:
        """Yield the examples of one epoch in random order; the same epoch, the same examples."""
        positions = self._epoch_positions(np.random.default_rng([self._seed, epoch, 0]))
        for block, start in enumerate(range(0, len(positions), BLOCK)):
            rng = np.random.default_rng([self._seed, epoch, 1 + block])
            yield from self._draw(rng, positions[start : start + BLOCK])

    def _epoch_positions(self, rng: np.random.Generator) -> Int64Array:
        chosen = self._positions
        if self._per_user is not None:
            user = self._rows.user[chosen]
            key = rng.random(len(chosen)) if self._choose == "random" else -chosen
            order = np.lexsort((key, user))
            counts = np.bincount(user)
            place = np.arange(len(order)) - (np.cumsum(counts) - counts)[user[order]]
            chosen = np.sort(chosen[order[place < self._per_user]])
        return rng.permutation(chosen)

    def _draw(self, rng: np.random.Generator, positions: Int64Array) -> Iterator[Example]:
        user = self._rows.user[positions]
        need = np.minimum(self._n_candidates - 1, self._seen.available(user, self._weights))
        negatives = draw_negatives(rng, user, need, self._seen, self._weights)
        places = rng.integers(0, need + 1)
        for i, (at, place) in enumerate(zip(positions.tolist(), places.tolist(), strict=True)):
            first = max(int(self._starts[at]), at - self._history_length)
            candidates = np.insert(negatives[i, : need[i]], place, self._rows.item[at])
            yield Example(Query(int(user[i]), self._rows.item[first:at], candidates), place)
