"""Pairs of what a user took and what the user did not: the batches of pairwise models.

Letters: U users, N items, n train interactions, B pairs of a batch.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mmrec_bench.errors import ModelError
from mmrec_bench.interfaces import TrainingData
from mmrec_bench.types import HeldOut, Int32Array, Int64Array, Interactions


class Pairs(NamedTuple):
    """One batch: each user prefers the positive item to the negative one.

    Attributes:
        user: (B,) int64.
        positive: (B,) int64, an item of the user's train interactions.
        negative: (B,) int64, an item that the user did not take in train.
    """

    user: Tensor
    positive: Tensor
    negative: Tensor

    def to(self, device: torch.device) -> "Pairs":
        """Return the batch on a device."""
        return Pairs(*(column.to(device) for column in self))


_TABLE = 1 << 23
"""Users times items up to which each user's free items are listed: 32 MiB."""


class NegativeSampler:
    """Draws items uniformly from those that a user did not take.

    Nothing is drawn in vain: of a user with f free items the r-th one is drawn, r uniform in
    [0, f). Of the user's taken items t_0 < t_1 < ..., those below the r-th free one are those with
    t_j - j <= r, and a binary search counts them. Where users times items are few (`_TABLE`), the
    free items are listed once instead; both draw the same.

    Args:
        interactions: what users took; repeats count once.
        n_users: U.
        n_items: N.
        held_out: its items are never drawn.
    """

    def __init__(
        self,
        interactions: Interactions,
        n_users: int,
        n_items: int,
        held_out: HeldOut | None = None,
    ) -> None:
        allowed = np.ones(n_items, np.bool_)
        if held_out is not None:
            allowed[held_out.items] = False
        self._pool = np.flatnonzero(allowed)
        # Items are numbered within the pool: P of them, and -1 outside.
        size = len(self._pool)
        place = np.where(allowed, np.cumsum(allowed) - 1, -1)[interactions.item]
        inside = place >= 0
        base = max(1, size)
        keys = np.unique(interactions.user[inside].astype(np.int64) * base + place[inside])
        user, taken = keys // base, keys % base
        counts = np.bincount(user, minlength=n_users)
        self._starts = np.cumsum(counts) - counts
        self._width = size + 1
        self._keys = user * self._width + taken - (np.arange(len(keys)) - self._starts[user])
        self.free: Int64Array = size - counts
        self._listed: Int32Array | None = None
        if n_users * size <= _TABLE:
            is_free = np.ones((n_users, size), np.bool_)
            is_free[user, taken] = False
            self._listed = self._pool[np.nonzero(is_free)[1]].astype(np.int32)

    def draw(self, users: Int64Array, rng: np.random.Generator) -> Int64Array:
        """Return an int64 array of the shape of `users`: an item for each.

        Args:
            users: users' numbers, any shape; searching is fastest where equal ones are neighbours.
            rng: gives one number a draw.

        Raises:
            ValueError: one of the users took every item, so that there is nothing to draw;
                `free` says how many items each one has left.
        """
        free = self.free[users]
        if users.size and free.min() == 0:
            user = int(users.ravel()[int(free.argmin())])
            raise ValueError(f"user {user} took all items: there is no negative to draw")
        # A product of a number below 1 and f, rounded to a double, stays below f.
        place = (rng.random(users.shape) * free).astype(np.int64)
        if self._listed is not None:
            first = users * (self._width - 1) - self._starts[users]  # free items of users before
            return self._listed[first + place].astype(np.int64)
        found = np.searchsorted(self._keys, users * self._width + place, side="right")
        drawn: Int64Array = self._pool[place + found - self._starts[users]]
        return drawn


class PairSampler:
    """Train interactions in a new order each epoch, each with one fresh negative.

    A pair of a user who took every item is left out: there is no item to prefer another to.

    Args:
        interactions: train.
        n_users: U.
        n_items: N.
        held_out: its items are no negatives.

    Raises:
        ModelError: no pair is left.
    """

    def __init__(
        self,
        interactions: Interactions,
        n_users: int,
        n_items: int,
        held_out: HeldOut | None = None,
    ) -> None:
        self.negatives = NegativeSampler(interactions, n_users, n_items, held_out)
        usable = self.negatives.free[interactions.user] > 0
        self._user: Int64Array = interactions.user[usable].astype(np.int64)
        self._item: Int64Array = interactions.item[usable].astype(np.int64)
        if not len(self._user):
            raise ModelError(
                f"there is no pair to learn from: {len(interactions)} train interactions of "
                f"{n_users} users with {n_items} items, and no user has an item left as a "
                f"negative; lower protocol.k_core, or use more data"
            )

    @classmethod
    def of(cls, data: TrainingData) -> "PairSampler":
        """Return a sampler of what a recommender may learn from."""
        return cls(data.interactions, data.n_users, data.n_items, data.held_out)

    def __len__(self) -> int:
        return len(self._user)

    def n_batches(self, batch_size: int) -> int:
        """Return the batches of one epoch; the last may be smaller."""
        return -(-len(self) // batch_size)

    def epoch(self, rng: np.random.Generator, batch_size: int) -> Iterator[Pairs]:
        """Yield all pairs once, divided and given negatives by `rng`; in a batch by user.

        The order in a batch is nothing to a loss, and neighbours in memory are read faster.
        """
        columns = self._user, self._item, self.negatives.draw(self._user, rng)
        order = rng.permutation(len(self))
        # Which batch each row falls to; sorting by it keeps the order of the rows inside. Numbers
        # of 16 bits are sorted by counting, which is several times faster.
        n_batches = self.n_batches(batch_size)
        batch = np.empty(len(self), np.uint16 if n_batches <= 1 << 16 else np.int64)
        batch[order] = np.repeat(np.arange(n_batches), batch_size)[: len(self)]
        rows = np.argsort(batch, kind="stable")
        shuffled = [torch.from_numpy(column[rows]) for column in columns]
        for start in range(0, len(self), batch_size):
            yield Pairs(*(column[start : start + batch_size] for column in shuffled))
