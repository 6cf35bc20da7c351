"""Read what a language model wrote: which candidates, in which order, and in what form."""

import re
from collections.abc import Collection
from dataclasses import dataclass

from mmrec_bench.interfaces import InstructionBuilder
from mmrec_bench.types import Instruction, Outcome

_REFUSAL = re.compile(
    r"\b(?:sorry|cannot|can't|can not|unable to|as an ai|i do not know|i don't know)\b"
    r"|抱歉|无法|不能|对不起",
    re.IGNORECASE,
)
_LISTED = re.compile(r"^\s*(?:\d{1,3}[.):]|[-*•]|[A-Z]{1,3}[.):])\s+(?=\S)")
_SPACES = re.compile(r"\s+")
_NAME_WORDS = 24


@dataclass(frozen=True, slots=True)
class Reading:
    """An answer as read.

    Attributes:
        order: candidate positions, best first.
        outcome: "ok" = nothing but candidates; "repaired" = candidates among other text;
            "invalid" = none named; "refused" = none named, and the text is empty or declines.
        hallucinated: lines that name something which is not a candidate.
    """

    order: list[int]
    outcome: Outcome
    hallucinated: int


def read_answer(
    text: str, instruction: Instruction, builder: InstructionBuilder, titles: Collection[str]
) -> Reading:
    """Read one answer by the builder's own parser; its form decides the outcome, never the truth.

    A line names something when it is numbered or labelled, is the title of an item (of `titles`,
    as `normal` writes them), or is a short answer of one line.
    """
    order = builder.parse(text, instruction)
    lines = [line for line in text.splitlines() if line.strip()]
    strange = [line for line in lines if not builder.parse(line, instruction)]
    if not order and (not lines or _REFUSAL.search(text)):
        return Reading(order, "refused", 0)
    alone = len(lines) == 1 and len(text.split()) <= _NAME_WORDS
    hallucinated = sum(
        alone or bool(_LISTED.match(line)) or normal(line) in titles for line in strange
    )
    if not order:
        return Reading(order, "invalid", hallucinated)
    return Reading(order, "repaired" if strange else "ok", hallucinated)


def normal(text: str) -> str:
    """Return a title or a line that names one, without numbering, brackets behind it, and case."""
    bare = _LISTED.sub("", text).rsplit(" (", 1)[0]
    return _SPACES.sub(" ", bare).strip(" \t\"'`*.").casefold()
