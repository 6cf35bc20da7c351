"""One call: claims, sends and retries many requests at once, and keeps every answer."""

import math
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from mmrec_bench.errors import MMRecError, ModelError
from mmrec_plugins.models.openai_chat.asking import ChatRequest, Wire
from mmrec_plugins.models.openai_chat.log import Attempt, Held, RequestLog
from mmrec_plugins.models.openai_chat.pacing import OverBudgetError, Slot, Stopped
from mmrec_plugins.models.openai_chat.replies import answered, refusal
from mmrec_plugins.models.openai_chat.server import PassingError, RefusedError, Server

if TYPE_CHECKING:
    from mmrec_plugins.models.openai_chat.client import ChatClient


FORMS = ("json_schema", "json_object", "none")
LIMITS = ("max_tokens", "max_completion_tokens")
LONGEST_BACKOFF = 60.0
LONGEST_WAIT = 900.0
"""Seconds that one request waits for a server that keeps saying 429, before the call ends."""
_LEASE_MARGIN = 60.0
_POLL = (0.02, 0.5)


class Call:
    """One call of `ChatClient.ask`: the open log, the server once it is needed, the stop."""

    def __init__(self, client: "ChatClient", store: RequestLog, stack: ExitStack) -> None:
        self.client, self.config, self.store = client, client.config, store
        self.stop = threading.Event()
        self.handed_in: dict[str, float] = {}
        self._stack = stack
        self._server: Server | None = None
        self._opening = threading.Lock()

    @property
    def server(self) -> Server:
        """The server; connected, and the key read, only when something must be sent."""
        with self._opening:
            if self._server is None:
                client = self.client
                self._server = self._stack.enter_context(
                    Server(self.config, client.where, client.model)
                )
            return self._server

    def answer(self, requests: Sequence[ChatRequest]) -> None:
        """See to it that each request has an answer in the log."""
        todo = deque(self.missing(requests).values())
        if not todo:
            return
        workers = min(self.config.concurrency, len(todo))
        with ThreadPoolExecutor(workers, thread_name_prefix="chat") as pool:
            futures = [pool.submit(self._work, todo) for _ in range(workers)]
            try:
                error = self._first_error(futures)
            except BaseException:  # Ctrl-C: what is under way is paid for, so it is waited for
                self.stop.set()
                pool.shutdown(wait=True, cancel_futures=True)
                raise
        if isinstance(error, OverBudgetError):
            left = len(self.missing(requests))
            budget = self.client.budget
            raise ModelError(
                f"stopped before model.max_cost={budget.most:g}: ${budget.spent:.6f} spent in this "
                f"call, {left} of {len(requests)} requests at hand have no answer yet; the same "
                "command goes on from here and may spend as much again"
            )
        if error is not None:
            raise error

    def _first_error(self, futures: Sequence[Future[None]]) -> BaseException | None:
        """Wait for all; the first failure stops the rest, which end what they have under way."""
        first: BaseException | None = None
        for future in futures:
            try:
                future.result()
            except Stopped:
                continue
            except (MMRecError, OverBudgetError) as error:
                first = first or error
        return first

    def missing(self, requests: Sequence[ChatRequest]) -> dict[str, ChatRequest]:
        """Return the requests without an answer, by key, in order."""
        wire = self.client.wire(self.store)
        found = self.client.find(self.store, requests)
        return {
            self.client.key(request, wire)[0]: request
            for request, kept in zip(requests, found, strict=True)
            if kept is None
        }

    def _work(self, todo: deque[ChatRequest]) -> None:
        """Answer what is to do until nothing is left; what others ask right now comes last."""
        held, pause = 0, _POLL[0]
        try:
            while todo:
                if self.stop.is_set():
                    raise Stopped
                try:
                    request = todo.popleft()
                except IndexError:
                    return  # another thread took the last one
                if self._settle(request):
                    held, pause = 0, _POLL[0]
                    continue
                todo.append(request)
                held += 1
                if held > len(todo):  # all that is left is held by others
                    self.stop.wait(pause)
                    pause = min(2 * pause, _POLL[1])
        except BaseException:
            self.stop.set()
            raise

    def _settle(self, request: ChatRequest) -> bool:
        """Answer one request; False = somebody else is asking it now."""
        client = self.client
        while True:
            wire = client.wire(self.store)
            key, described = client.key(request, wire)
            holder = self.store.claim(key, described, request.n_characters, self.lease(0.0))
            if isinstance(holder, Held):
                if holder.batch is not None:
                    raise ModelError(
                        "a request was handed in as part of a batch by another process meanwhile; "
                        "come back with the same command"
                    )
                client.warn_once("wait", "waiting for answers that %s asks for", holder.owner)
                return False
            if holder is not None:
                return True
            done = False
            try:
                done = self._send(request, key, wire)
            finally:
                if not done:
                    self.store.release(key)
            if done:
                return True  # else the server wants it in another form

    def _send(self, request: ChatRequest, key: str, wire: Wire) -> bool:
        """Send a claimed request until it is answered; False = it must take another form."""
        dice = random.Random(f"{self.client.seed} {key}")  # noqa: S311 - spreads retries
        failures, waited = 0, 0.0
        while True:
            try:
                self._exchange(request, key, wire)
            except RefusedError as error:
                return self._refused(error, key, wire)
            except PassingError as error:
                failure = error
            else:
                return True
            patient = failure.limited and failure.wait is not None
            failures += not patient
            base = self.config.backoff * 2.0 ** min(failures, 30)
            pause = max(failure.wait or 0.0, min(LONGEST_BACKOFF, base) * dice.uniform(0.5, 1.0))
            if failures > self.config.retries or waited + pause > LONGEST_WAIT:
                raise ModelError(self._gave_up(failure, failures, waited + pause))
            waited += max(pause, 0.001)
            self.store.renew(key, self.lease(pause))
            if self.stop.wait(pause):
                raise Stopped

    def _exchange(self, request: ChatRequest, key: str, wire: Wire) -> None:
        """Send a request once and keep what came of it."""
        client, server = self.client, self.server
        with client.pace.slot(self.stop) as slot, self._reserved(request) as settle:
            self.store.renew(key, self.lease(0.0))
            started, clock = time.time(), time.monotonic()
            try:
                answer = server.ask(request.body(client.settings, wire))
            except (PassingError, RefusedError, ModelError) as error:
                status = "no use" if isinstance(error, ModelError) else error.status
                detail = None if isinstance(error, ModelError) else {"said": error.detail}
                seconds = time.monotonic() - clock
                if isinstance(error, PassingError):
                    self._slow_down(error, slot)
                settle(math.nan if getattr(error, "may_cost", False) else 0.0)
                failed = Attempt(status, detail, started, seconds)
                self.store.record(key, failed, release=False)
                raise
            attempt = answered(answer, started, time.monotonic() - clock)
            cost = client.cost_of(attempt)
            settle(cost)
            self.store.record(key, attempt, release=True)
            client.pace.answered()

    @contextmanager
    def _reserved(self, request: ChatRequest) -> Iterator[Callable[[float], None]]:
        """Hold the worst cost of a request; the block settles it once."""
        worst, budget = self.client.worst_cost(request), self.client.budget
        budget.reserve(worst, self.stop)
        costs: list[float] = []
        try:
            yield costs.append
        finally:
            budget.settle(worst, costs[0] if costs else math.nan)

    def _slow_down(self, error: PassingError, slot: Slot) -> None:
        if error.limited:
            self.client.pace.limited(slot, min(error.wait or 0.0, LONGEST_WAIT))

    def _refused(self, error: RefusedError, key: str, wire: Wire) -> bool:
        """Find another form for a request that was refused; True = the refusal is its answer."""
        if error.trouble == "content":
            self.store.record(key, refusal(error.detail), release=True)
            return True
        self.other_form(error, wire)
        return False

    def other_form(self, error: RefusedError, wire: Wire) -> None:
        """Remember that a server refused a form of request; the next is asked in another.

        Raises:
            ModelError: there is no other form.
        """
        client, store = self.client, self.store
        who = f"{client.model!r} at {client.where.host}"
        known = client.wire(store)
        if error.trouble == "structured" and wire.form != "none":
            form = FORMS[max(FORMS.index(wire.form) + 1, FORMS.index(known.form))]
            if form == "none" and self.config.structured == "on":
                raise ModelError(
                    f"{who} refuses structured outputs ({error.detail}); use "
                    "-o model.structured=auto or off"
                )
            store.set_feature(client.who, "structured", form)
            if form == "none":
                client.warn_once(
                    "form", "%s refuses structured outputs; it is asked in plain text", who
                )
            return
        if error.trouble == "limit":
            other = LIMITS[1 - LIMITS.index(wire.limit)]
            if wire.limit != known.limit:
                return  # another thread has found the other name meanwhile
            if store.feature(client.who, "limit refused") != other:
                store.set_feature(client.who, "limit refused", wire.limit)
                store.set_feature(client.who, "limit", other)
                return
        hint = {
            "pictures": "; it may read text only: -o model.pictures=off sends no pictures",
            "sampling": "; leave out what it refuses, e.g. -o model.temperature=null",
            "context": "; shorten the request, e.g. -o instructions.history_length=4",
        }.get(error.trouble, "")
        raise ModelError(f"{who} refuses a request ({error.status}: {error.detail}){hint}")

    def _gave_up(self, failure: PassingError, failures: int, waited: float) -> str:
        where = f"chat model {self.client.model!r} at {self.client.where.host}"
        said = f" ({failure.detail})" if failure.detail else ""
        if failure.limited and failure.wait is not None and failures <= self.config.retries:
            return (
                f"{where} asks to wait {failure.wait:.0f} s more, {waited:.0f} s in all{said}; "
                "answers so far are kept: run the same command again later"
            )
        return (
            f"{where} gave no answer in {failures} attempts, the last: {failure.status}{said}; "
            "answers so far are kept: run the same command again"
        )

    def lease(self, pause: float) -> float:
        """Return until when (Unix seconds) a claim is good that waits `pause` seconds first."""
        return time.time() + pause + self.config.timeout + _LEASE_MARGIN
