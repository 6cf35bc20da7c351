"""What stands of an item in words, as one text: for text encoders and lexical models."""

from collections.abc import Iterable, Sequence

from mmrec_bench.types import Item

FIELDS = ("title", "text", "brand", "category", "genres", "image_words")
"""Parts that are read where a model or encoder is told no others."""

FIELDS_HELP = (
    "parts of an item that are read, in order: title, text, image_words, or the name of an "
    "attribute; what an item lacks is left out"
)


def documents(items: Iterable[Item], fields: Sequence[str] = FIELDS) -> list[str]:
    """Return each item's parts, joined by a full stop and a space; "" where it has none."""
    return [". ".join(part for name in fields if (part := _part(item, name))) for item in items]


def _part(item: Item, name: str) -> str:
    if name == "title":
        return item.title.strip()
    if name == "text":
        return item.text.strip()
    if name == "image_words":
        return ", ".join(item.image_words)
    return item.attributes.get(name, "").strip()
