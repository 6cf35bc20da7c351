"""Attributes of an item by rules alone: catalog fields, listed words, words of the picture."""

import re
from dataclasses import dataclass
from typing import Literal

from mmrec_bench.types import Item
from mmrec_plugins.instructions.building.describing import words_of
from mmrec_plugins.instructions.building.schemas import CategorySchema, FieldSpec, load_schemas
from mmrec_plugins.instructions.items import one_line

Source = Literal["text", "image"]

_YEAR = re.compile(r"^(?:1[89]|20)\d\d$")
_MAX_WORDS = 5
_JOINTS = frozenset(("and", "or", "with", "of", "the", "a", "an", "in", "for", "on"))


@dataclass(frozen=True, slots=True)
class Value:
    """One attribute of an item and where it stands."""

    value: str
    source: Source


def attributes_of(item: Item, schema: CategorySchema) -> dict[str, Value]:
    """Return what the catalog and the picture's words say of each field; nothing is guessed."""
    found: dict[str, Value] = {}
    for name, spec in schema.fields.items():
        value = _from_text(item, spec) or _from_picture(item, spec)
        if value is not None:
            found[name] = value
    return found


def _from_text(item: Item, spec: FieldSpec) -> Value | None:
    if spec.attribute:
        known = one_line(item.attributes.get(spec.attribute, ""))
        if known and len(known.split()) <= _MAX_WORDS:
            return Value(f"{known[:3]}0s" if _YEAR.match(known) else known, "text")
    if spec.pattern is None:
        return None
    for text in (item.title, *item.attributes.values(), item.text):
        if match := spec.pattern.search(text):
            return Value(match[1].casefold(), "text")
    return None


def _from_picture(item: Item, spec: FieldSpec) -> Value | None:
    listed = load_schemas().words(spec.image)
    seen = [word for word in item.image_words if word in listed]
    return Value(" and ".join(seen), "image") if seen else None


def stands_in(value: str, text: str) -> bool:
    """Return whether the words of a value occur in a text, in singular or plural.

    A decade ("1990s") stands in a text that names one of its years.
    """
    known = {form for word in words_of(text) for form in _forms(word)}
    asked = [word for word in words_of(value) if word not in _JOINTS]
    return bool(asked) and all(
        not known.isdisjoint(_forms(word)) or _decade_of(word, known) for word in asked
    )


def _forms(word: str) -> set[str]:
    """Return a word with and without a plural's or a possessive's ending."""
    forms = {word}
    for ending in ("'s", "es", "s", "y", "ies"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            forms.add(word[: -len(ending)])
    return forms


def _decade_of(word: str, known: set[str]) -> bool:
    decade = word.removesuffix("s")
    return (
        len(decade) == 4
        and decade.endswith("0")
        and any(_YEAR.match(year) and year[:3] == decade[:3] for year in known)
    )
