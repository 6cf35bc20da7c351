"""What a build would ask and cost, told without asking anything."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from mmrec_bench.teaching import WritingRequest, Written
from mmrec_bench.types import Image
from mmrec_plugins.instructions.building.jobs import work
from mmrec_plugins.instructions.building.writing import Workshop

_CHARACTERS_PER_TOKEN = {"en": 4.0, "zh": 1.5}


@runtime_checkable
class EstimatesWriting(Protocol):
    """A teacher that knows what requests would cost."""

    def estimate_writing(
        self, requests: Sequence[WritingRequest]
    ) -> Mapping[str, str | int | float]:
        """Return tokens and cost of the requests, without asking anything."""
        ...


@dataclass(frozen=True)
class Estimate:
    """What a build would ask.

    Attributes:
        teacher: who would be asked.
        entries: entries of each kind that would be tried.
        requests: that they take.
        prompt_tokens: about so many, told from the length of the texts.
        answer_tokens: as long as the rules' drafts.
        pictures: that the teacher would look at.
        told: what the teacher itself says of tokens and cost; empty where it cannot tell.
    """

    teacher: str
    entries: Mapping[str, int]
    requests: int
    prompt_tokens: int
    answer_tokens: int
    pictures: int
    told: Mapping[str, str | int | float]

    def as_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "teacher": self.teacher,
            "entries": dict(self.entries),
            "requests": self.requests,
            "prompt_tokens": self.prompt_tokens,
            "answer_tokens": self.answer_tokens,
            "pictures": self.pictures,
            "teacher_estimate": dict(self.told),
        }

    def lines(self) -> list[str]:
        """Return lines for the user."""
        entries = ", ".join(f"{name} {n}" for name, n in self.entries.items())
        told = ", ".join(f"{name} {value}" for name, value in self.told.items())
        asked = (
            f"{self.teacher} would be asked {self.requests} times: about {self.prompt_tokens} "
            f"tokens of text read, {self.answer_tokens} written"
        ) + (f", {self.pictures} pictures looked at" if self.pictures else "")
        return [
            f"entries: {entries}",
            asked,
            f"the teacher's own estimate: {told}" if told else "cost: the teacher cannot tell",
        ]


def estimate(workshop: Workshop) -> Estimate:
    """Walk through all entries with the rules' drafts as answers, and count what they ask."""
    asked: list[WritingRequest] = []

    def draft(requests: Sequence[WritingRequest]) -> list[Written]:
        asked.extend(requests)
        return [Written(request.draft) for request in requests]

    entries: dict[str, int] = {}
    for kind in workshop.request.kinds:
        results = work(workshop.jobs(kind), draft, at_once=64, on_done=lambda: None)
        entries[kind] = len(results)
    per_token = _CHARACTERS_PER_TOKEN[workshop.request.language]
    texts = sum(len(message.text) for one in asked for message in one.messages)
    looks = workshop.prepared.sources.looks
    pictures = looks * sum(
        isinstance(part, Image) for one in asked for m in one.messages for part in m.parts
    )
    teacher = workshop.teacher
    told = teacher.estimate_writing(asked) if isinstance(teacher, EstimatesWriting) else {}
    return Estimate(
        workshop.request.teacher_label,
        entries,
        len(asked),
        round(texts / per_token),
        round(sum(len(one.draft) for one in asked) / per_token),
        pictures,
        told,
    )
