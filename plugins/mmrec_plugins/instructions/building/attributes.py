"""Item attributes: title, description, catalog fields and picture -> the category's schema."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mmrec_bench.teaching import WritingRequest
from mmrec_bench.types import Image, Item, Message
from mmrec_plugins.instructions.building.describing import Describer, words_of
from mmrec_plugins.instructions.building.jobs import Job, Made, Rejected, turns_of
from mmrec_plugins.instructions.building.prompts import wording
from mmrec_plugins.instructions.building.provenance import Origin
from mmrec_plugins.instructions.building.reading import read_object, unusable
from mmrec_plugins.instructions.building.rules import Value, attributes_of, stands_in
from mmrec_plugins.instructions.building.schemas import CategorySchema, load_schemas
from mmrec_plugins.instructions.building.sources import Sources
from mmrec_plugins.instructions.corpus import Kind
from mmrec_plugins.instructions.items import join_parts, one_line

_MOST_FIELDS = 1
_KIND: Kind = "attributes"
_NOTHING = frozenset(
    (
        *("", "-", "null", "none", "n/a", "na", "unknown", "unspecified", "not specified"),
        *("not available", "not mentioned", "无", "未知", "未说明", "没有"),
    )
)


def attribute_jobs(sources: Sources, origin: Origin) -> Iterator[Job]:
    """Yield one job an item that has a text or a picture."""
    describer = Describer(sources.building, sources.language, looks=sources.looks)
    for index in sources.chosen_items():
        item = sources.catalog[index]
        if describer.readable(item).strip() or item.images:
            yield _job(item, load_schemas().schema_of(item), sources, describer, origin)


def _job(
    item: Item, schema: CategorySchema, sources: Sources, describer: Describer, origin: Origin
) -> Job:
    message = _question(item, schema, describer)
    draft = {name: _plain(value) for name, value in attributes_of(item, schema).items()}
    written = yield WritingRequest(
        (message,),
        schema.json_schema(),
        json.dumps(draft, ensure_ascii=False),
        sources.building.max_tokens,
    )
    if (reason := unusable(written)) is not None:
        return Rejected(_KIND, item.id, reason, written.text)
    read = read_object(written.text)
    if read.value is None:
        return Rejected(_KIND, item.id, "no JSON object", written.text)
    checked = check_attributes(read.value, item, schema, describer)
    if not checked.values:
        return Rejected(_KIND, item.id, "no attribute with a known source", written.text)
    fields = {name: _plain(value) for name, value in checked.values.items()}
    answer = json.dumps(fields, ensure_ascii=False)
    entry = origin.entry(
        kind=_KIND,
        split=sources.part(item.id),
        items=(item.id,),
        turns=turns_of((message,), sources.catalog.items.ids),
        answer=answer,
        value={"attributes": fields},
        outcome="repaired" if read.repaired or checked.repaired else "ok",
        template=f"attributes: {schema.title}",
        messages=(message,),
    )
    said = tuple(value.value for value in checked.values.values())
    readable = describer.readable(item)
    content = f"{readable}\n{describer.picture_words(item)}\n{answer}"
    return Made(
        entry,
        user=None,
        shown=frozenset((item.index,)),
        prose="",
        phrases=said,
        content=content,
        source=readable,
        written=answer,
    )


def _question(item: Item, schema: CategorySchema, describer: Describer) -> Message:
    language = describer.language
    say = wording(_KIND, language)
    pieces: list[str | Image] = [f"{say['ask']}\n\n{say['title']}{describer.title(item)}"]
    if text := describer.text(item):
        pieces.append(f"\n{say['text']}{text}")
    for name, value in describer.attributes(item).items():
        pieces.append(f"\n{say['attribute'].format(name=name.capitalize())}{value}")
    picture, words = describer.picture(item), describer.picture_words(item)
    if picture is not None or words:
        pieces.append(f"\n{say['picture']}")
        pieces += [picture, " " if words else ""] if picture is not None else []
        pieces.append(words)
    elif describer.shown != "none":
        pieces.append(f"\n{say['no_picture']}")
    pieces.append(f"\n\n{say['fields']}")
    pieces += [
        "\n" + say["field"].format(name=name, ask=spec.ask[language])
        for name, spec in schema.fields.items()
    ]
    return Message("user", join_parts(pieces))


@dataclass(frozen=True, slots=True)
class Checked:
    """Attributes whose source is known.

    Attributes:
        values: in the order of the schema.
        repaired: something was dropped, or its source was corrected.
    """

    values: dict[str, Value]
    repaired: bool


def check_attributes(
    raw: Mapping[str, Any], item: Item, schema: CategorySchema, describer: Describer
) -> Checked:
    """Keep the schema's fields whose stated source holds, as far as it can be checked.

    - "text" holds where the words of the value stand in what was shown of the item's text.
    - "image" holds where the teacher saw the picture; one that was shown words of it can only have
      the value from these.
    - A value whose source does not hold gets the other one where that does, else it is dropped.
    - One value in many fields describes none of them: it stays in the first alone.
    """
    names = {_key(name): value for name, value in raw.items()}
    values: dict[str, Value] = {}
    said: Counter[str] = Counter()
    repaired = any(_key(name) not in schema.fields for name in raw)
    for name in schema.fields:
        field = names.get(_key(name))
        stated = field.get("source") if isinstance(field, dict) else None
        text = field.get("value") if isinstance(field, dict) else field
        if text is None or (isinstance(text, str) and one_line(text).casefold() in _NOTHING):
            continue
        if isinstance(text, list) and all(isinstance(one, str) for one in text):
            text = ", ".join(text)
        value = _sourced(one_line(text), stated, item, describer) if isinstance(text, str) else None
        if value is not None:
            said[value.value.casefold()] += 1
            if said[value.value.casefold()] > _MOST_FIELDS:
                value = None
        repaired |= value is None or value.source != stated or not isinstance(field, dict)
        if value is not None:
            values[name] = value
    return Checked(values, repaired)


def _sourced(text: str, stated: object, item: Item, describer: Describer) -> Value | None:
    in_text = stands_in(text, describer.readable(item))
    if stated == "text" and in_text:
        return Value(text, "text")
    if _seen(text, item, describer):
        return Value(text, "image")
    return Value(text, "text") if in_text else None


def _seen(text: str, item: Item, describer: Describer) -> bool:
    if describer.picture(item) is not None and describer.looks:
        return bool(words_of(text))
    return bool(describer.picture_words(item)) and stands_in(text, " ".join(item.image_words))


def _plain(value: Value) -> dict[str, str]:
    return {"value": value.value, "source": value.source}


def _key(name: str) -> str:
    return name.strip().casefold().replace(" ", "_").replace("-", "_")
