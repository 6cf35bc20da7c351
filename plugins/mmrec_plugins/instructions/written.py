"""Reading of written answers: JSON, whole or in need of repair, or lists in plain text."""

import json
import re
from dataclasses import dataclass

from mmrec_plugins.instructions.answers import read_pieces

KEY = "ranking"

_START = re.compile(rf"""["'“”]?\b{KEY}["'“”]?\s*[:：]\s*\[""")
# One item: a quoted string (cut strings have no end and do not match), or a bare word.
_ITEM = re.compile(r"""\s*(?:"((?:[^"\\\n]|\\.)*)"|'((?:[^'\\\n]|\\.)*)'|([^\s"',，\[\]{}]+))\s*""")
_LABEL = re.compile(r"[A-Z]{1,3}")
_BREAKS = re.compile(r"[;；>＞→]+")
_COMMAS = re.compile(r"[,，、;；>＞→]+")
_NUMBERING = re.compile(r"^\s*(?:\d{1,3}(?:[.):]\s+|、\s*)|[-*•]\s+)")
_EDGES = " \t\r\"'`*“”「」"


@dataclass(frozen=True, slots=True)
class JsonAnswer:
    """The list of a JSON answer.

    Attributes:
        items: what it names, in order.
        clean: the whole answer is the JSON that was asked for, and nothing had to be repaired.
    """

    items: tuple[str, ...]
    clean: bool


def find_json(text: str) -> JsonAnswer | None:
    """Find `{"ranking": [...]}` in an answer: alone, in a code fence, among prose, or cut off.

    A string that the end of the text cuts is left out: what it would have named is not known.

    Returns:
        None where there is no such list.
    """
    whole = _strict(text)
    if whole is not None:
        return JsonAnswer(whole, clean=True)
    start = _START.search(text)
    if start is None:
        return None
    items: list[str] = []
    at = start.end()
    while match := _ITEM.match(text, at):
        double, single, bare = match.groups()
        # a bare word at the very end may be cut, e.g. `[A, B` of `[A, BA]`
        if bare is not None and match.end() == len(text):
            break
        items.append(_unescaped(double) if double is not None else single or bare or "")
        at = match.end()
        if text[at : at + 1] not in {",", "，"}:
            break
        at += 1
    return JsonAnswer(_named(items), clean=False)


def read_written(text: str, labels: tuple[str, ...], answers: tuple[str, ...]) -> list[int]:
    """Read candidate positions from JSON or plain text, best first, no repeats; never raises.

    Plain text is read as `answers.read_plain` does; besides, a list of bare labels may name some
    that do not exist, which are skipped, and may use Chinese punctuation.
    """
    found = find_json(text)
    both = (f"{name}. {answer}" for name, answer in zip(labels, answers, strict=False))
    known = {*answers, *both}
    pieces = _plain_pieces(text, known) if found is None else found.items
    return read_pieces(list(pieces), labels, answers, labels_first=True)


def label_list(line: str) -> list[str] | None:
    """Return the labels of a line that is a list of them (`B, A > C`), known or not, else None."""
    parts = [part.strip(_EDGES + ".。()[]") for part in _COMMAS.split(line)]
    named = [part for part in parts if part]
    return named if len(named) > 1 and all(map(_LABEL.fullmatch, named)) else None


def _plain_pieces(text: str, known: set[str]) -> list[str]:
    pieces: list[str] = []
    for line in text.splitlines():
        bare = line.strip(_EDGES)
        # a title may hold whatever else divides a line, or begin like a numbered one
        segments = [bare] if bare in known else _BREAKS.split(_NUMBERING.sub("", line))
        for segment in segments:
            pieces += label_list(segment) or [segment.strip(_EDGES)]
    return [piece for piece in pieces if piece]


def _strict(text: str) -> tuple[str, ...] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    items = value.get(KEY) if isinstance(value, dict) and len(value) == 1 else None
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        return None
    return _named(items)


def _named(items: list[str]) -> tuple[str, ...]:
    return tuple(name for item in items if (name := item.strip(_EDGES + "\n")))


def _unescaped(text: str) -> str:
    try:
        return str(json.loads(f'"{text}"'))
    except ValueError:
        return text
