"""Fill a JSON schema slot by slot: the form is ours, a language model writes the values alone."""

import json
import re
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any

_MOST_PHRASES = 4
_END = re.compile(r"[\]\n}{]")
_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"?')


@dataclass(frozen=True, slots=True)
class Slot:
    """A place where the model writes.

    Attributes:
        before: the JSON up to here.
        choices: the only continuations that are allowed; () = free text.
        ends_at: what ends a free text: a quote, or the bracket of a list.
        max_tokens: of a free text.
    """

    before: str
    choices: tuple[str, ...] = ()
    ends_at: str = '"'
    max_tokens: int = 16


Filling = Generator[Slot, str, str]
"""Yields slots, is sent what the model wrote, returns the JSON so far."""

_PHRASE_TOKENS, _SENTENCE_TOKENS, _LIST_TOKENS = 14, 60, 40


def fill(schema: Mapping[str, Any]) -> Filling:
    """Fill an object's schema; returns a JSON text that fits it.

    Each field of the outer object is asked for as if it were the first: a small model that sees
    the value of one field writes it again in all others.

    Known are objects, strings, strings or null, enumerations and lists of strings, which is what
    the schemas of instruction building are made of.

    Raises:
        ValueError: another type.
    """
    if schema.get("type") != "object":
        raise ValueError(f"a schema of type {schema.get('type')!r} cannot be filled slot by slot")
    fields = []
    for name, field in schema["properties"].items():
        opened = f"{{{json.dumps(name)}: "
        text = yield from _value(field, opened, name)
        fields.append(text.removeprefix("{"))
    return f"{{{', '.join(fields)}}}"


def _value(schema: Mapping[str, Any], before: str, name: str) -> Filling:
    kind = schema.get("type")
    if kind == "object":
        return (yield from _object(schema, before))
    if "enum" in schema:
        choice = yield Slot(f'{before}"', choices=tuple(f'{value}"' for value in schema["enum"]))
        return f'{before}"{choice}'
    if kind == "array" and schema["items"].get("type") == "string":
        written = yield Slot(f'{before}["', ends_at="]", max_tokens=_LIST_TOKENS)
        return before + json.dumps(_phrases(written), ensure_ascii=False)
    if kind in ("string", ["string", "null"]):
        long = name == "summary"
        written = yield Slot(f'{before}"', max_tokens=_SENTENCE_TOKENS if long else _PHRASE_TOKENS)
        return before + json.dumps(_until_quote(written), ensure_ascii=False)
    raise ValueError(f"a schema of type {kind!r} cannot be filled slot by slot")


def _object(schema: Mapping[str, Any], before: str) -> Filling:
    text = before + "{"
    for number, (name, field) in enumerate(schema["properties"].items()):
        text += (", " if number else "") + json.dumps(name) + ": "
        text = yield from _value(field, text, name)
    return text + "}"


def _until_quote(written: str) -> str:
    """Return a free text up to the quote or the line that ends it."""
    return re.split(r'(?<!\\)"|\n', written, maxsplit=1)[0].replace('\\"', '"').strip()


def _phrases(written: str) -> list[str]:
    """Return the strings of a list whose opening `["` was given."""
    body = '"' + _END.split(written, maxsplit=1)[0]
    found = [match.strip() for match in _STRING.findall(body)]
    return list(dict.fromkeys(phrase for phrase in found if phrase))[:_MOST_PHRASES]
