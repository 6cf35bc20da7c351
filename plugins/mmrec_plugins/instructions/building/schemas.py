"""Which attributes are asked of an item: a fixed schema per category, from a data file."""

import json
import re
from collections.abc import Mapping
from functools import cache, cached_property
from importlib.resources import files
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from mmrec_bench.types import Item
from mmrec_plugins.instructions.building.config import Language

_LIST = "@"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FieldSpec(_Strict):
    """One attribute.

    Attributes:
        ask: what it means, by language.
        words: what rules look for in the text, longest first; "@list" stands for a shared list.
        attribute: catalog attribute whose value it is.
        image: a list of words that can be read off a picture; "" = none can.
        like: how a profile says that somebody likes a value, by language, with {value}.
    """

    ask: Mapping[Language, str]
    words: tuple[str, ...] = ()
    attribute: str = ""
    image: str = ""
    like: Mapping[Language, str] = Field(default_factory=dict)

    @cached_property
    def pattern(self) -> re.Pattern[str] | None:
        """Any of the words in a text, in singular or plural."""
        return _any_of(self.words)


class CategorySchema(_Strict):
    """The attributes of one category.

    Attributes:
        title: its name.
        categories: words in a catalog category that belong to it.
        attributes: catalog attributes that only its items have.
        fields: name -> what is asked, in order.
    """

    title: str
    categories: tuple[str, ...] = ()
    attributes: tuple[str, ...] = ()
    fields: Mapping[str, FieldSpec]

    @cached_property
    def category_pattern(self) -> re.Pattern[str] | None:
        """Any of the category's words."""
        return _any_of(self.categories)

    def json_schema(self) -> dict[str, Any]:
        """Return the JSON schema of an answer: each field with value (or null) and source."""
        field = {
            "type": "object",
            "properties": {
                "value": {"type": ["string", "null"]},
                "source": {"type": "string", "enum": ["text", "image"]},
            },
            "required": ["value", "source"],
            "additionalProperties": False,
        }
        return {
            "type": "object",
            "properties": {
                name: {**field, "description": spec.ask["en"]} for name, spec in self.fields.items()
            },
            "required": list(self.fields),
            "additionalProperties": False,
        }


class SchemaFile(_Strict):
    """All schemas, the last one for whatever no other one claims, and shared word lists."""

    lists: Mapping[str, tuple[str, ...]]
    schemas: tuple[CategorySchema, ...]

    def words(self, name: str) -> tuple[str, ...]:
        """Return a shared list; () for ""."""
        return self.lists[name] if name else ()

    def schema_of(self, item: Item) -> CategorySchema:
        """Return the schema of an item: by its category, or by an attribute that it has."""
        category = item.attributes.get("category", "").casefold()
        for schema in self.schemas:
            claimed = schema.category_pattern is not None and schema.category_pattern.search(
                category
            )
            if claimed or any(name in item.attributes for name in schema.attributes):
                return schema
        return self.schemas[-1]


def _any_of(words: tuple[str, ...]) -> re.Pattern[str] | None:
    """Match any of the words in singular or plural, the longest first; None without words."""
    if not words:
        return None
    longest = sorted(words, key=lambda word: (-len(word), word))
    return re.compile(rf"\b({'|'.join(map(re.escape, longest))})(?:e?s)?\b", re.IGNORECASE)


@cache
def load_schemas() -> SchemaFile:
    """Read the schemas that come with this package."""
    raw = json.loads(files(__package__).joinpath("schemas.json").read_text(encoding="utf-8"))
    for schema in raw["schemas"]:
        for spec in schema["fields"].values():
            spec["words"] = [
                word
                for entry in spec.get("words", [])
                for word in (raw["lists"][entry[1:]] if entry.startswith(_LIST) else [entry])
            ]
    return SchemaFile.model_validate(raw)
