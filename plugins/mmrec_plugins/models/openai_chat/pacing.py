"""How fast and how dear: requests at once, and dollars at most."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_TICK = 0.1


class Stopped(Exception):  # noqa: N818 - no error: another thread met one
    """The call is being ended; nothing more is sent."""


class OverBudgetError(Exception):
    """The next request might cost more than is left."""


@dataclass
class Slot:
    """A request under way; `limited` is set when the server asked to slow down."""

    started: float
    limited: bool = False


class Pace:
    """Requests at once: additive increase, multiplicative decrease (as TCP; Chiu & Jain 1989).

    A 429 halves the limit, once for all requests that were under way together; each answer adds
    1 / limit. A server's Retry-After holds all requests back, not only the one that met it.
    """

    def __init__(self, most: int) -> None:
        self.limit = float(most)
        self.lowest = self.limit
        self._most = most
        self._under_way = 0
        self._halved = -1.0
        self._not_before = 0.0
        self._changed = threading.Condition()

    @contextmanager
    def slot(self, stop: threading.Event) -> Iterator[Slot]:
        """Wait for a place; the request may be sent inside.

        Raises:
            Stopped: the call is being ended.
        """
        with self._changed:
            while (wait := self._wait()) > 0:
                if stop.is_set():
                    raise Stopped
                self._changed.wait(min(wait, _TICK))
            if stop.is_set():
                raise Stopped
            self._under_way += 1
        slot = Slot(time.monotonic())
        try:
            yield slot
        finally:
            with self._changed:
                self._under_way -= 1
                self._changed.notify_all()

    def _wait(self) -> float:
        held = self._not_before - time.monotonic()
        return max(held, 0.0 if self._under_way < int(self.limit) else _TICK)

    def answered(self) -> None:
        """Grow: an answer came."""
        with self._changed:
            self.limit = min(float(self._most), self.limit + 1 / self.limit)
            self._changed.notify_all()

    def limited(self, slot: Slot, wait: float) -> None:
        """Shrink: the server answered 429 and asks for `wait` seconds (0 = it does not say)."""
        with self._changed:
            now = time.monotonic()
            if slot.started >= self._halved:
                self.limit = max(1.0, self.limit / 2)
                self.lowest = min(self.lowest, self.limit)
                self._halved = now
            self._not_before = max(self._not_before, now + wait)


class Budget:
    """Dollars that this call may spend: what is under way counts at its worst."""

    def __init__(self, most: float | None) -> None:
        self.most = most
        self.spent = 0.0
        self._reserved = 0.0
        self._n_reserved = 0
        self._changed = threading.Condition()

    def reserve(self, worst: float, stop: threading.Event) -> None:
        """Set dollars aside; waits for requests under way, which mostly turn out cheaper.

        Raises:
            OverBudgetError: nothing is under way, and it would still be too much.
            Stopped: the call is being ended.
        """
        if self.most is None:
            return
        with self._changed:
            while self.spent + self._reserved + worst > self.most:
                if self._n_reserved == 0:
                    raise OverBudgetError
                if stop.is_set():
                    raise Stopped
                self._changed.wait(_TICK)
            self._reserved += worst
            self._n_reserved += 1

    def settle(self, worst: float, cost: float) -> None:
        """Put what a request really cost (NaN = not known: its worst) in place of the reserve."""
        with self._changed:
            self.spent += worst if cost != cost else cost  # noqa: PLR0124 - NaN
            if self.most is not None:
                self._reserved -= worst
                self._n_reserved -= 1
                if self._n_reserved == 0:
                    self._reserved = 0.0  # no rounding error is carried on
            self._changed.notify_all()
