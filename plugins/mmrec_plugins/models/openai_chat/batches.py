"""The Batch API: hand in, leave, come back; nothing is handed in twice.

A batch goes through the states preparing (its requests are claimed), creating (its file is
uploaded, the batch may or may not exist at the server), submitted (its id is known) and done. A
process that dies in between is followed by the next call: what was only prepared is given up, what
may exist is looked for by its file and its mark, and only where it is not there it is made.
"""

import json
import logging
import math
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mmrec_bench.errors import ModelError
from mmrec_plugins.models.openai_chat.asking import ChatRequest
from mmrec_plugins.models.openai_chat.log import BATCH, Attempt, BatchRow
from mmrec_plugins.models.openai_chat.owners import this_process
from mmrec_plugins.models.openai_chat.replies import answered, refusal
from mmrec_plugins.models.openai_chat.server import PassingError, RefusedError

if TYPE_CHECKING:
    from mmrec_plugins.models.openai_chat.calling import Call

log = logging.getLogger("mmrec_bench")

MOST_REQUESTS = 50_000
MOST_BYTES = 190_000_000
_PATH = "/v1/chat/completions"
_MARK = "mmrec"
_OVER = frozenset({"completed", "failed", "expired", "cancelled"})
_ROUNDS = 3


def bring_in(call: "Call", requests: Sequence[ChatRequest]) -> None:
    """Fetch the results of every batch that holds one of the requests.

    Raises:
        ModelError: such a batch is not done; it is waited for `batch_wait` seconds at most.
    """
    rows = call.store.open_batches(call.client.settings.provider)
    if not rows:
        return
    wanted = call.missing(requests)
    waiting = []
    for row in rows:
        keys = set(call.store.batch_keys(row.ref))
        if not keys & wanted.keys():
            continue
        row = _settled(call, row)  # noqa: PLW2901 - the same batch, further on
        if row.id is not None and not _fetch(call, row):
            waiting.append(row)
    if waiting:
        raise ModelError(_come_back(call, waiting))


def hand_in(call: "Call", requests: Sequence[ChatRequest]) -> None:
    """Submit what has no answer as batches, then wait for them or leave.

    What a batch brought back without an answer is handed in again, a few times.

    Raises:
        ModelError: the batches are on their way; the same command comes back for them.
    """
    for _ in range(_ROUNDS):
        missing = call.missing(requests)
        if not missing:
            return
        for some in _portions(call, missing):
            _submit(call, some)
        bring_in(call, requests)
    if left := len(call.missing(requests)):
        raise ModelError(
            f"{left} of {len(requests)} requests came back from {_ROUNDS} batches without an "
            "answer; without -o model.batch=true they are asked one by one"
        )


def _portions(
    call: "Call", missing: Mapping[str, ChatRequest]
) -> list[dict[str, tuple[ChatRequest, str]]]:
    """Divide requests, with their lines, into files that the API takes and the budget allows."""
    client = call.client
    wire, budget = client.wire(call.store), client.budget
    portions: list[dict[str, tuple[ChatRequest, str]]] = [{}]
    size, left, planned = 0, 0, budget.spent
    for request in missing.values():
        key, _ = client.key(request, wire)
        line = json.dumps(
            {
                "custom_id": key,
                "method": "POST",
                "url": _PATH,
                "body": request.body(client.settings, wire),
            }
        )
        if budget.most is not None:
            worst = client.worst_cost(request, batch=True)
            if planned + worst > budget.most:
                left += 1
                continue
            planned += worst
        if size + len(line) > MOST_BYTES or len(portions[-1]) >= MOST_REQUESTS:
            portions.append({})
            size = 0
        portions[-1][key] = (request, line)
        size += len(line) + 1
    if left:
        log.warning(
            "%d of %d requests are not handed in: with them a batch might cost more than "
            "model.max_cost=%g",
            *(left, len(missing), budget.most),
        )
    if not portions[0]:
        raise ModelError(
            f"stopped before model.max_cost={budget.most:g}: not one of {left} requests fits; "
            f"${budget.spent:.6f} is spent or handed in"
        )
    return portions


def _submit(call: "Call", portion: Mapping[str, tuple[ChatRequest, str]]) -> None:
    """Claim, upload and create one batch."""
    client, store = call.client, call.store
    wire = client.wire(store)
    ref = uuid.uuid4().hex
    described = {
        key: (client.key(request, wire)[1], request.n_characters)
        for key, (request, _) in portion.items()
    }
    server = call.server  # the key is read before anything is claimed
    ours = store.begin_batch(ref, client.settings.provider, described, call.lease(0.0))
    if not ours:
        return
    if client.budget.most is not None:
        worst = sum(client.worst_cost(portion[key][0], batch=True) for key in ours)
        client.budget.spent += worst
        call.handed_in[ref] = worst
    content = "".join(portion[key][1] + "\n" for key in ours).encode()
    try:
        uploaded = _insist(
            call,
            lambda: server.client.files.create(file=(f"{ref}.jsonl", content), purpose="batch"),
        )
    except BaseException:
        store.end_batch(ref, {})
        raise
    store.set_batch(ref, "creating", file=uploaded.id)
    _create(call, ref, uploaded.id)
    log.info("handed in %d requests as a batch", len(ours))


def _create(call: "Call", ref: str, file: str) -> str:
    """Create the batch of an uploaded file; where that is unclear, look whether it exists."""
    server, store = call.server, call.store
    try:
        batch = server.call(
            lambda: server.client.batches.create(
                input_file_id=file,
                endpoint="/v1/chat/completions",
                completion_window="24h",
                metadata={_MARK: ref},
            )
        )
    except RefusedError as error:
        store.end_batch(ref, {})
        raise ModelError(f"{call.client.where.host} refuses the batch: {error.detail}") from None
    except PassingError as error:
        if error.limited:
            store.end_batch(ref, {})
        raise ModelError(
            f"{call.client.where.host} did not take the batch ({error.status}); run the same "
            "command again: it looks whether the batch exists before it makes another"
        ) from None
    store.set_batch(ref, "submitted", id=batch.id)
    return batch.id


def _settled(call: "Call", row: BatchRow) -> BatchRow:
    """Bring a batch that a dead process left to a state that is certain."""
    if row.state == "submitted":
        return row
    lives = row.owner.lives(row.lease) and row.owner != this_process()
    if lives or not call.store.take_batch(row, call.lease(0.0)):
        raise ModelError("another process is handing these requests in; come back later")
    if row.state == "preparing" or row.file is None:
        call.store.end_batch(row.ref, {})
        return row
    server = call.server

    def look() -> str | None:
        for batch in server.client.batches.list(limit=100):
            marked = (batch.metadata or {}).get(_MARK) == row.ref
            if marked or batch.input_file_id == row.file:
                return str(batch.id)
        return None

    found = _insist(call, look)
    if found is None:
        found = _create(call, row.ref, row.file)
    call.store.set_batch(row.ref, "submitted", id=found)
    return BatchRow(row.ref, "submitted", row.file, found, row.n, row.owner, row.lease)


def _fetch(call: "Call", row: BatchRow) -> bool:
    """Keep a batch's results if it is over; waits `batch_wait` seconds at most."""
    server, store = call.server, call.store
    until = time.monotonic() + call.config.batch_wait
    pause = max(call.config.backoff, 0.01)
    while True:
        batch = _insist(call, lambda: server.client.batches.retrieve(str(row.id)))
        if batch.status in _OVER:
            break
        left = until - time.monotonic()
        if left <= 0:
            return False
        time.sleep(min(pause, left, 30.0))
        pause *= 1.5
    results: dict[str, Attempt] = {}
    refused: list[RefusedError] = []
    keys = store.batch_keys(row.ref)
    for file in (batch.output_file_id, batch.error_file_id):
        if file:
            name = str(file)
            text = _insist(call, lambda name=name: server.client.files.content(name).text)
            results |= _read_lines(call, text, frozenset(keys), refused)
    for key in keys:
        if key not in results:
            results[key] = Attempt(f"batch {batch.status}", started=time.time(), channel=BATCH)
    store.end_batch(row.ref, results)
    if row.ref in call.handed_in:  # of this call: what it cost takes the place of the worst
        costs = [call.client.cost_of(one) for one in results.values() if one.answer is not None]
        known = sum(cost for cost in costs if not math.isnan(cost))
        call.client.budget.spent += known - call.handed_in.pop(row.ref)
    _complain(call, batch, results, refused)
    return True


def _read_lines(
    call: "Call", text: str, keys: frozenset[str], refused: list[RefusedError]
) -> dict[str, Attempt]:
    """Read a result file; lines that are torn or not ours are left out, so they are asked again."""
    results: dict[str, Attempt] = {}
    for line in text.splitlines():
        try:
            value = json.loads(line)
            key, response = str(value["custom_id"]), value.get("response") or {}
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
        if key in keys:
            results[key] = _read_line(call, value, response, refused)
    return results


def _read_line(
    call: "Call",
    value: Mapping[str, Any],
    response: Mapping[str, Any],
    refused: list[RefusedError],
) -> Attempt:
    now, code, body = time.time(), response.get("status_code"), response.get("body")
    if code == 200:
        try:
            answer = call.server.read_answer(json.dumps(body))
        except PassingError as error:
            return Attempt(error.status, {"said": error.detail}, now, None, BATCH)
        return answered(answer, now, None, BATCH)
    if code is None:
        said = call.server.scrub(json.dumps(value.get("error")))
        return Attempt("batch error", {"said": said[:300]}, now, None, BATCH)
    sorted_as = call.server.sort(int(code), call.server.scrub(json.dumps(body)), {})
    if isinstance(sorted_as, RefusedError):
        if sorted_as.trouble == "content":
            return refusal(sorted_as.detail)
        refused.append(sorted_as)
    said = getattr(sorted_as, "detail", "") or str(sorted_as)
    return Attempt(f"HTTP {code}", {"said": said}, now, None, BATCH)


def _complain(
    call: "Call",
    batch: Any,  # noqa: ANN401 - the package's own type
    results: Mapping[str, Attempt],
    refused: Sequence[RefusedError],
) -> None:
    """Say what went wrong with a batch; find another form where the server wants one."""
    n_answered = sum(attempt.status == "answered" for attempt in results.values())
    log.info("batch %s is %s: %d of %d answered", batch.id, batch.status, n_answered, len(results))
    if batch.status == "failed":
        errors = [str(one.message) for one in (batch.errors and batch.errors.data) or ()]
        said = call.server.scrub("; ".join(errors))[:300] or "it does not say why"
        raise ModelError(f"{call.client.where.host} refuses batch {batch.id}: {said}")
    if refused:
        call.other_form(refused[0], call.client.wire(call.store))


def _insist(call: "Call", exchange: Any) -> Any:  # noqa: ANN401 - the package's own types
    """Repeat an exchange that costs nothing until it works."""
    failures = 0
    while True:
        try:
            return call.server.call(exchange)
        except RefusedError as error:
            raise ModelError(
                f"{call.client.where.host} has no use for batches ({error.status}: "
                f"{error.detail}); leave out -o model.batch=true"
            ) from None
        except PassingError as error:
            failures += 1
            if failures > call.config.retries:
                raise ModelError(
                    f"{call.client.where.host} did not answer {failures} times, the last: "
                    f"{error.status}; run the same command again"
                ) from None
            time.sleep(max(error.wait or 0.0, call.config.backoff * 2.0**failures))


def _come_back(call: "Call", rows: Sequence[BatchRow]) -> str:
    ids = ", ".join(str(row.id) for row in rows)
    total = sum(row.n for row in rows)
    return (
        f"batch {ids} with {total} requests is on its way at {call.client.where.host}; come back "
        "with the same command, or let it wait with -o model.batch_wait=SECONDS"
    )
