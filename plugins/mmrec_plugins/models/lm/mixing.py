"""Mix the kinds of instructions in tuning: how many of each a step holds, and which ones.

A step holds examples of several kinds. Its loss is

    L = sum over kinds k of  (n_k / n) * (sum of the loss of kind k) / (terms of kind k)

with n_k of its n examples of kind k, drawn so that n_k / n is the kind's weight w_k on average. A
term is an answer token of a written answer, or a choice of the ranking loss. So a kind's loss is a
mean of its own before kinds are weighed: a profile of a hundred tokens pulls no harder than an
answer of one, and the expected gradient is the w_k-weighted sum of the kinds' own, whatever the
lengths. With one kind it is the plain mean that tuning without a corpus minimises.

Every draw depends on seed and place alone: a fit that was killed goes on at any step without
tokenising what came before.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Generic, Protocol, TypeVar

import numpy as np

from mmrec_bench.errors import ModelError
from mmrec_bench.interfaces import ExampleSource
from mmrec_bench.types import Example, Int64Array
from mmrec_plugins.models.lm.encoding import NO_EXAMPLES, R, Row

T = TypeVar("T")
R_co = TypeVar("R_co", bound=Row, covariant=True)

WINDOW_STEPS = 32
"""Steps whose examples are tokenised and sorted by length together."""

_GOLDEN = (5**0.5 - 1) / 2


class Stream(Protocol[R_co]):
    """Examples of one kind, in an order without end."""

    def take(self, start: int, count: int) -> Sequence[R_co]:
        """Return the examples at places `start` to `start + count`, tokenised."""
        ...


class Schedule:
    """Which kind each example of each step is of.

    Example j of the whole fit gets the kind in whose share of [0, 1) the fractional part of
    u + j * 0.618... lies: the golden-ratio sequence fills the interval more evenly than random
    draws, so that a kind's count after any number of steps is off its weight by a few examples
    at most.
    """

    def __init__(self, weights: Mapping[str, float], step_size: int, *, seed: int) -> None:
        """Prepare.

        Args:
            weights: of each kind, > 0; they need not sum to 1.
            step_size: examples a step.
            seed: of the start u.
        """
        self.kinds = tuple(weights)
        self.step_size = step_size
        shares = np.array(list(weights.values()), np.float64)
        self._bounds = np.cumsum(shares / shares.sum())[:-1]
        self._start = float(np.random.default_rng(seed).random())

    def counts(self, first: int, last: int) -> Int64Array:
        """Return (last - first, K) int64: examples of each kind in each of these steps."""
        number = np.arange(first * self.step_size, last * self.step_size, dtype=np.int64)
        phase = (self._start + number * _GOLDEN) % 1.0
        kind = np.searchsorted(self._bounds, phase, side="right")
        step = number // self.step_size - first
        table = np.zeros((last - first, len(self.kinds)), np.int64)
        np.add.at(table, (step, kind), 1)
        return table

    def drawn(self, n_steps: int) -> dict[str, int]:
        """Return the examples of each kind in the first `n_steps` steps."""
        totals = self.counts(0, n_steps).sum(axis=0)
        return dict(zip(self.kinds, totals.tolist(), strict=True))


class ExampleStream(Generic[R]):
    """The run's own ranking examples, epoch after epoch."""

    def __init__(
        self, source: ExampleSource, encode: Callable[[Example], R], *, per_epoch: int
    ) -> None:
        """Bind a source.

        Args:
            source: draws examples by epoch.
            encode: tokenises one.
            per_epoch: how many are taken of each epoch; it must have them.

        Raises:
            ModelError: an epoch without examples.
        """
        if not per_epoch:
            raise ModelError(NO_EXAMPLES)
        self._source, self._encode, self._per_epoch = source, encode, per_epoch
        self._at, self._rest = 0, self._from(0)

    def take(self, start: int, count: int) -> list[R]:
        """See `Stream`; places that follow on the last ones are not drawn anew."""
        if start != self._at:
            self._rest = self._from(start)
        self._at = start + count
        return [self._encode(example) for example in islice(self._rest, count)]

    def _from(self, place: int) -> Iterator[Example]:
        epoch, skip = divmod(place, self._per_epoch)
        while True:
            count = 0
            for count, example in enumerate(islice(self._source(epoch), self._per_epoch), start=1):
                if count > skip:
                    yield example
            if count < self._per_epoch:  # places would mean other examples after a kill
                raise ModelError(
                    f"epoch {epoch} gave {count} training examples, not {self._per_epoch}"
                )
            epoch, skip = epoch + 1, 0


class EntryStream(Generic[T, R]):
    """Entries of a corpus, in another order in each pass."""

    def __init__(
        self, entries: Sequence[T], encode: Callable[[T], R], *, seed: tuple[int, ...]
    ) -> None:
        """Bind entries, at least one; `seed` decides their order in each pass."""
        self._entries, self._encode, self._seed = entries, encode, seed
        self._orders: dict[int, Int64Array] = {}

    def take(self, start: int, count: int) -> list[R]:
        """See `Stream`."""
        rows = []
        for place in range(start, start + count):
            lap, at = divmod(place, len(self._entries))
            rows.append(self._encode(self._entries[self._order(lap)[at]]))
        return rows

    def _order(self, lap: int) -> Int64Array:
        if lap not in self._orders:
            rng = np.random.default_rng((*self._seed, lap))
            self._orders = {lap: rng.permutation(len(self._entries))}
        return self._orders[lap]


def mixed_steps(
    streams: Mapping[str, Stream[R]], schedule: Schedule, *, seed: int, skip: int = 0
) -> Iterator[list[R]]:
    """Yield the examples of each optimiser step, without end.

    As in `encoding.training_steps`, the examples of a window of steps are tokenised together and
    each kind's are sorted by length, so that a step pads little; which step gets which lengths is
    shuffled.

    Args:
        streams: by kind, for each kind of the schedule.
        schedule: how many of each kind a step holds.
        seed: of the order.
        skip: steps that are done already.
    """
    window, skip = divmod(skip, WINDOW_STEPS)
    while True:
        first = window * WINDOW_STEPS
        counts = schedule.counts(first, first + WINDOW_STEPS)
        before = schedule.drawn(first)
        steps: list[list[R]] = [[] for _ in range(WINDOW_STEPS)]
        for number, kind in enumerate(schedule.kinds):
            column = counts[:, number]
            rows = sorted(streams[kind].take(before[kind], int(column.sum())), key=len)
            turns = np.random.default_rng((seed, window, number)).permutation(WINDOW_STEPS)
            ends = np.cumsum(column[turns])
            for turn, end in zip(turns.tolist(), ends.tolist(), strict=True):
                steps[turn] += rows[end - int(column[turn]) : end]
        yield from steps[skip:]
        window, skip = window + 1, 0
