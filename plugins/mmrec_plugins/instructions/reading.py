"""Read what a language model wrote: which candidates, in which order, and in what form."""

import re
from collections.abc import Collection
from dataclasses import dataclass

from mmrec_bench.interfaces import InstructionBuilder
from mmrec_bench.types import Instruction, Outcome
from mmrec_plugins.instructions.written import JsonAnswer, find_json, label_list

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
    as `normal` writes them), or is a short answer of one line; in a list of labels each label does,
    and in a JSON answer each string of its list.
    """
    order = builder.parse(text, instruction)
    written = find_json(text)
    if written is not None:
        return _read_json(text, written, order, instruction, builder)
    lines = [line for line in text.splitlines() if line.strip()]
    strange = [line for line in lines if not builder.parse(line, instruction)]
    if not order and (not lines or _REFUSAL.search(text)):
        return Reading(order, "refused", 0)
    alone = len(lines) == 1 and len(text.split()) <= _NAME_WORDS
    hallucinated = 0
    for line in lines:
        if labels := label_list(line):
            hallucinated += sum(not builder.parse(name, instruction) for name in labels)
        elif line in strange:
            hallucinated += alone or bool(_LISTED.match(line)) or normal(line) in titles
    if not order:
        return Reading(order, "invalid", hallucinated)
    return Reading(order, "repaired" if strange or hallucinated else "ok", hallucinated)


def _read_json(
    text: str,
    written: JsonAnswer,
    order: list[int],
    instruction: Instruction,
    builder: InstructionBuilder,
) -> Reading:
    """Read a JSON answer: each string of its list names something."""
    strange = sum(not builder.parse(item, instruction) for item in written.items)
    if order:
        return Reading(order, "ok" if written.clean and not strange else "repaired", strange)
    empty = written.clean and not written.items
    if empty or _REFUSAL.search(text):
        return Reading(order, "refused", 0)
    return Reading(order, "invalid", strange)


def normal(text: str) -> str:
    """Return a title or a line that names one, without numbering, brackets behind it, and case."""
    bare = _LISTED.sub("", text).rsplit(" (", 1)[0]
    return _SPACES.sub(" ", bare).strip(" \t\"'`*.").casefold()
