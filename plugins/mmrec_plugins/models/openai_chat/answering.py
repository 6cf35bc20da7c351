"""From a reply to a case's scores: what it names, and in what form."""

import json
from collections.abc import Collection, Iterator
from typing import Any

from mmrec_bench.interfaces import InstructionBuilder
from mmrec_bench.types import Instruction
from mmrec_plugins.instructions.reading import Reading, read_answer
from mmrec_plugins.models.openai_chat.replies import Reply


def malformed(reply: Reply) -> bool:
    """Return whether the form alone says that a reply is of no use; the truth plays no part.

    A refusal is an answer, and one that was cut would be cut again.
    """
    if reply.refused or reply.cut:
        return False
    return not reply.text.strip() or (reply.structured and _json(reply.text) is None)


def read_reply(
    reply: Reply,
    instruction: Instruction,
    builder: InstructionBuilder,
    titles: Collection[str],
) -> Reading:
    """Read a reply by the builder's own parser.

    In JSON, each string in a list of strings names something; one that the builder does not know
    is hallucinated. Anything else is read as `reading.read_answer` reads it.
    """
    if reply.refused:
        return Reading([], "refused", 0)
    value = None if instruction.schema is None else _json(reply.text)
    if value is None:
        reading = read_answer(reply.text, instruction, builder, titles)
        if reading.outcome == "ok" and reply.structured:  # JSON was asked for
            return Reading(reading.order, "repaired", reading.hallucinated)
        if reading.outcome == "refused" and reply.cut:
            return Reading([], "invalid", reading.hallucinated)
        return reading
    order = builder.parse(reply.text, instruction)
    strange = sum(not builder.parse(name, instruction) for name in _names(value))
    if not order:
        return Reading(order, "invalid", strange)
    return Reading(order, "repaired" if strange else "ok", strange)


def _json(text: str) -> Any:  # noqa: ANN401 - any JSON object or list
    """Return the object or list that a text is, or None."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict | list) else None


def _names(value: Any) -> Iterator[str]:  # noqa: ANN401 - any JSON value
    """Yield the strings that stand in lists."""
    if isinstance(value, dict):
        for one in value.values():
            yield from _names(one)
    elif isinstance(value, list):
        for one in value:
            if isinstance(one, str):
                yield one
            else:
                yield from _names(one)
