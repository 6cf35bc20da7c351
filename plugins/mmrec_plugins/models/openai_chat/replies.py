"""Answers: as the log keeps them, and as they are read."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mmrec_plugins.models.openai_chat.log import ANSWERED, DIRECT, Attempt


@dataclass(frozen=True)
class Reply:
    """An answer, from the server or from the log.

    Attributes:
        text: what was written; for a refusal, its words.
        refused: the model or a filter declined.
        cut: the answer was cut at the most tokens.
        structured: it was asked for as JSON by a schema.
        model: as the server reports it.
        prompt_tokens: read; estimated where `counted` is False.
        answer_tokens: written; estimated where `counted` is False.
        counted: the server counted the tokens.
        retries: attempts before this answer that failed.
        seconds: from sending to the answer; NaN from a batch.
        cost: US dollars; NaN = the price is not known.
    """

    text: str
    refused: bool
    cut: bool
    structured: bool
    model: str
    prompt_tokens: int
    answer_tokens: int
    counted: bool
    retries: int
    seconds: float
    cost: float


def answered(
    answer: Mapping[str, Any], started: float, seconds: float | None, channel: str = DIRECT
) -> Attempt:
    """Return the attempt that brought an answer, with the tokens that the server counted."""
    usage = answer.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    return Attempt(
        status=ANSWERED,
        answer=answer,
        started=started,
        seconds=seconds,
        channel=channel,
        prompt_tokens=_count(usage.get("prompt_tokens")),
        cached_tokens=_count(cached),
        answer_tokens=_count(usage.get("completion_tokens")),
    )


def refusal(said: str) -> Attempt:
    """Return a server's refusal of a request's content, as the answer that it is."""
    message = {"role": "assistant", "content": None, "refusal": said}
    answer = {"choices": [{"message": message, "finish_reason": "content_filter"}]}
    return Attempt(
        ANSWERED, answer, started=time.time(), seconds=0.0, prompt_tokens=0, answer_tokens=0
    )


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
