"""Clients and requests for the tests."""

from pathlib import Path
from typing import Any

from mmrec_bench.types import Message, Text
from mmrec_plugins.models.openai_chat.asking import ChatRequest
from mmrec_plugins.models.openai_chat.client import ChatClient
from mmrec_plugins.models.openai_chat.options import ServerConfig, resolved

SCHEMA = {
    "type": "object",
    "properties": {"ranking": {"type": "array", "items": {"type": "string"}}},
}
FAST: dict[str, Any] = {"backoff": 0.002, "timeout": 5.0, "concurrency": 4}
PRICES = """
date: "2024-01"
source: a test
currency: USD
batch: 0.5
models:
  toy: {input: 1000.0, cached: 500.0, output: 10000.0}
"""


def make_client(url: str, folder: Path, *, model: str = "toy", **options: Any) -> ChatClient:  # noqa: ANN401 - options of any kind
    """Return a client of a server on loopback with its log in `folder`."""
    config = ServerConfig(base_url=url, request_log=folder / "log.sqlite", **{**FAST, **options})
    return ChatClient(resolved(config), model, seed=0)


def ask(text: str, *, schema: dict[str, Any] | None = None, max_tokens: int = 50) -> ChatRequest:
    """Return a request of one message."""
    return ChatRequest.make((Message("user", (Text(text),)),), schema, max_tokens, None)


def questions(n: int) -> list[ChatRequest]:
    """Return n different requests."""
    return [ask(f"question {i}") for i in range(n)]


def prices(folder: Path) -> Path:
    """Write a table with a price for `toy`: 0.1 + 0.1 dollars an answer of the fault server."""
    path = folder / "prices.yaml"
    path.write_text(PRICES)
    return path
