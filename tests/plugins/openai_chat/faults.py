"""A chat server on loopback that fails as it is told, and counts what it is asked."""

import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Body = dict[str, Any]


@dataclass
class Fault:
    """What the server does in place of an answer.

    Attributes:
        status: HTTP status; 0 = the connection is cut before anything is said.
        body: what is said; a dict is sent as JSON.
        headers: extra headers.
        cut: end the connection in the middle of an otherwise good answer.
        hang: seconds of silence before anything.
    """

    status: int = 200
    body: Body | str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False
    hang: float = 0.0


Answer = str | Body | Fault
Rule = Callable[[Body, int], Answer]
"""(request, how often this very request came before) -> what to say."""


def say(text: str | None, *, finish: str = "stop", refusal: str | None = None) -> Body:
    """Return an answer as a server sends it."""
    message = {"role": "assistant", "content": text, "refusal": refusal}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "served-2024",
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110},
    }


def prompt_of(body: Body) -> str:
    """Return the text of a request's messages."""
    texts = []
    for message in body["messages"]:
        content = message["content"]
        parts = [content] if isinstance(content, str) else [p.get("text", "") for p in content]
        texts += parts
    return "\n".join(texts)


class FaultServer:
    """The server's state; `served()` runs one."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.lock = threading.Lock()
        self.came: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.bodies: list[Body] = []
        self.headers: list[dict[str, str]] = []
        self.times: list[float] = []
        self.under_way = 0
        self.most_under_way = 0
        self.files: dict[str, str] = {}
        self.batches: dict[str, Body] = {}
        self.batch_rule: Callable[[Body], None] = complete_batch(self)
        self.batch_faults: list[Fault] = []
        self.url = ""

    @property
    def n_asked(self) -> int:
        """Requests for an answer that came, failed ones included."""
        return sum(self.came.values())

    def twice(self) -> list[str]:
        """Prompts that were answered in full more than once."""
        return [key for key, n in self.answered.items() if n > 1]

    def chat(self, body: Body) -> Answer:
        """Take a chat request by the rule."""
        key = json.dumps(body, sort_keys=True)
        with self.lock:
            n = self.came[key]
            self.came[key] += 1
            self.bodies.append(body)
            self.times.append(time.monotonic())
        answer = self.rule(body, n)
        if not isinstance(answer, Fault):
            with self.lock:
                self.answered[key] += 1
        return say(answer) if isinstance(answer, str) else answer


def complete_batch(server: FaultServer) -> Callable[[Body], None]:
    """Return what answers all lines of a batch by the server's rule, at its first poll."""

    def complete(batch: Body) -> None:
        lines = []
        for line in server.files[batch["input_file_id"]].splitlines():
            request = json.loads(line)
            answer = server.chat(request["body"])
            response: Body
            if isinstance(answer, Fault):
                response = {"status_code": answer.status, "body": answer.body or {}}
            else:
                response = {"status_code": 200, "body": answer}
            lines.append(
                json.dumps({"id": "b", "custom_id": request["custom_id"], "response": response})
            )
        name = f"out-{batch['id']}"
        server.files[name] = "\n".join(reversed(lines))  # the API promises no order
        batch.update(status="completed", output_file_id=name)

    return complete


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: FaultServer

    def log_message(self, *_: Any) -> None:  # noqa: ANN401 - options of any kind
        pass

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.state.headers.append({name.lower(): value for name, value in self.headers.items()})
        with self.state.lock:
            self.state.under_way += 1
            self.state.most_under_way = max(self.state.most_under_way, self.state.under_way)
        try:
            self._post(raw)
        finally:
            with self.state.lock:
                self.state.under_way -= 1

    def _post(self, raw: bytes) -> None:
        if self.path.endswith("/chat/completions"):
            self._say(self.state.chat(json.loads(raw)))
        elif self.path.endswith("/files"):
            name = f"file-{len(self.state.files)}"
            found = re.search(rb"\r\n\r\n(\{.*?\n)\r\n--", raw, re.DOTALL)
            assert found is not None
            self.state.files[name] = found[1].decode()
            self._say({"id": name, "object": "file", "purpose": "batch"})
        elif self.path.endswith("/batches"):
            body = json.loads(raw)
            fault = self.state.batch_faults.pop(0) if self.state.batch_faults else None
            if fault is None or fault.cut:
                name = f"batch_{len(self.state.batches)}"
                self.state.batches[name] = {
                    "id": name,
                    "object": "batch",
                    "status": "validating",
                    "input_file_id": body["input_file_id"],
                    "metadata": body.get("metadata"),
                }
                answer: Answer = self.state.batches[name]
            if fault is not None:
                answer = Fault(cut=True) if fault.cut else fault
            self._say(answer)

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path.endswith("/content"):
            self._send(200, self.state.files[path.split("/")[-2]].encode(), {})
        elif path.endswith("/batches"):
            data = list(self.state.batches.values())
            self._say({"object": "list", "data": data, "has_more": False})
        else:
            batch = self.state.batches[path.split("/")[-1]]
            if batch["status"] not in {"completed", "failed", "expired"}:
                self.state.batch_rule(batch)
            self._say(batch)

    def _say(self, answer: Answer) -> None:
        fault = answer if isinstance(answer, Fault) else Fault(body=answer)
        if fault.hang:
            time.sleep(fault.hang)
        if fault.status == 0:
            self.close_connection = True
            return
        body = say("never seen in full") if fault.body is None and fault.cut else fault.body
        data = (body if isinstance(body, str) else json.dumps(body or {})).encode()
        self._send(fault.status, data, fault.headers, cut=fault.cut)

    def _send(
        self, status: int, data: bytes, headers: dict[str, str], *, cut: bool = False
    ) -> None:
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data[: len(data) // 2] if cut else data)
            if cut:
                self.close_connection = True
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # the client gave up waiting


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, *_: Any) -> None:  # noqa: ANN401 - options of any kind
        pass  # clients that were killed


@contextmanager
def served(rule: Rule) -> Iterator[FaultServer]:
    """Run a server on a free port of loopback."""
    state = FaultServer(rule)
    handler = type("Handler", (_Handler,), {"state": state})
    with _Quiet(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(
            target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        thread.start()
        state.url = f"http://127.0.0.1:{server.server_port}/v1"
        try:
            yield state
        finally:
            server.shutdown()
            thread.join()
