"""Read the JSON that a teacher wrote; repaired by its form only, never by what it should say."""

import json
import re
from dataclasses import dataclass
from typing import Any

from mmrec_bench.teaching import Written

_FENCE = re.compile(r"^\s*```[a-zA-Z]*\s*|\s*```\s*$")
_TRAILING_COMMA = re.compile(r",(\s*[}\]])")
_REFUSAL = re.compile(
    r"\b(?:i(?:'|’)?m sorry|i am sorry|sorry, (?:but )?i|i can(?:no|')?t (?:help|assist|comply|do)"
    r"|i cannot|unable to (?:help|assist|comply|provide)|as an ai)\b"
    r"|抱歉|对不起|我无法|我不能|作为一个?人工智能",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class ReadObject:
    """A JSON object as read.

    Attributes:
        value: None where there is none.
        repaired: something around it or in its form had to be mended.
    """

    value: dict[str, Any] | None
    repaired: bool


def read_object(text: str) -> ReadObject:
    """Read the first JSON object of a text.

    What is mended: text around the object, a code fence, commas before a closing bracket, and
    brackets and quotes that are missing at the end of an answer that was cut.
    """
    whole = _load(text)
    if whole is not None:
        return ReadObject(whole, repaired=False)
    bare = _FENCE.sub("", text)
    start = bare.find("{")
    if start < 0:
        return ReadObject(None, repaired=False)
    bare = bare[start:]
    for form in (_first_object(bare), _closed(bare)):
        if form is not None and (value := _load(_TRAILING_COMMA.sub(r"\1", form))) is not None:
            return ReadObject(value, repaired=True)
    return ReadObject(None, repaired=False)


def looks_refused(text: str) -> bool:
    """Return whether a text declines to answer."""
    return bool(_REFUSAL.search(text))


def unusable(written: Written) -> str | None:
    """Return why an answer that should be an object needs no reading: refused or empty; or None."""
    if written.refused or (looks_refused(written.text) and "{" not in written.text):
        return "refused"
    return None if written.text.strip() else "empty"


def _load(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _first_object(text: str) -> str | None:
    """Return the text up to the bracket that closes the first one; None where none does."""
    depth, quoted, escaped = 0, False, False
    for at, sign in enumerate(text):
        if quoted:
            quoted = escaped or sign != '"'
            escaped = sign == "\\" and not escaped
            continue
        quoted = sign == '"'
        depth += (sign in "{[") - (sign in "}]")
        if depth == 0:
            return text[: at + 1]
    return None


def _closed(text: str) -> str | None:
    """Close what an answer that was cut left open, after its last whole piece."""
    open_brackets: list[str] = []
    quoted, escaped = False, False
    for sign in text:
        if quoted:
            if escaped:
                escaped = False
            elif sign == "\\":
                escaped = True
            elif sign == '"':
                quoted = False
            continue
        if sign == '"':
            quoted = True
        elif sign in "{[":
            open_brackets.append("}" if sign == "{" else "]")
        elif sign in "}]" and (not open_brackets or open_brackets.pop() != sign):
            return None
    if not open_brackets:
        return None
    body = text + ('"' if quoted else "")
    return body.rstrip().rstrip(",") + "".join(reversed(open_brackets))
