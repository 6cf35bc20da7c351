"""The plugin kind that writes instruction corpora, and what goes to and fro."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from mmrec_bench.types import Message


@dataclass(frozen=True)
class WritingRequest:
    """One text that a teacher shall write.

    Attributes:
        messages: what is asked, with pictures as `Image` parts.
        schema: JSON schema of the answer; None = plain text.
        draft: what rules alone would answer; the teacher `template` returns it.
        max_tokens: of the answer.
    """

    messages: tuple[Message, ...]
    schema: Mapping[str, Any] | None
    draft: str
    max_tokens: int = 256


@dataclass(frozen=True)
class Written:
    """What a teacher wrote for one request.

    Attributes:
        text: the answer, "" where there is none.
        refused: the teacher declined.
        prompt_tokens: tokens read; 0 where nobody counts.
        answer_tokens: tokens written.
        cost: US dollars; NaN = not known.
    """

    text: str
    refused: bool = False
    prompt_tokens: int = 0
    answer_tokens: int = 0
    cost: float = 0.0


@runtime_checkable
class Teacher(Protocol):
    """Writes the answers of an instruction corpus."""

    def write(self, requests: Sequence[WritingRequest]) -> list[Written]:
        """Answer each request, in order; a killed call asks nothing twice where answers cost."""
        ...

    def fingerprint(self) -> str:
        """Name what the answers depend on: model and revision, weights, settings."""
        ...
