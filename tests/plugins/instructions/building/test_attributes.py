import json
from pathlib import Path
from typing import Any

import pytest

from mmrec_bench.teaching import WritingRequest, Written
from mmrec_bench.types import Image, Item
from mmrec_plugins.instructions.building.attributes import check_attributes
from mmrec_plugins.instructions.building.config import BuildingConfig
from mmrec_plugins.instructions.building.describing import Describer
from mmrec_plugins.instructions.building.jobs import Made, Rejected, work
from mmrec_plugins.instructions.building.rules import Value, attributes_of, stands_in
from mmrec_plugins.instructions.building.schemas import load_schemas
from tests.plugins.instructions.building.making import (
    Saying,
    make_data,
    make_workshop,
    with_pictures,
)

MUG = Item(
    0,
    "B1",
    "Lunor glass mug",
    "This mug by Lunor is made of glass.",
    {"brand": "Lunor", "category": "Mug"},
    (Path("mug.jpg"),),
    ("blue", "round", "striped"),
)


def checked(raw: dict[str, Any], item: Item = MUG, *, looks: bool = False) -> tuple[Any, bool]:
    describer = Describer(BuildingConfig(), "en", looks=looks)
    found = check_attributes(raw, item, load_schemas().schema_of(item), describer)
    return {name: (one.value, one.source) for name, one in found.values.items()}, found.repaired


@pytest.mark.parametrize(
    ("category", "title"),
    [
        ("Gift Cards", "gift cards"),
        ("Mug", "home"),
        ("Chairs", "any"),  # holds "hair", and is no beauty
        ("Hair Care", "beauty"),
        ("Women's Shoes", "clothing"),
        ("Car Parts", "any"),
    ],
)
def test_an_items_category_decides_its_schema(category: str, title: str) -> None:
    item = Item(0, "x", "x", attributes={"category": category})
    assert load_schemas().schema_of(item).title == title


def test_an_attribute_that_only_films_have_makes_a_film() -> None:
    item = Item(0, "x", "Heat (1995)", attributes={"genres": "Action, Crime", "year": "1995"})
    schema = load_schemas().schema_of(item)
    found = attributes_of(item, schema)
    assert found["genre"] == Value("Action, Crime", "text")
    assert found["era"] == Value("1990s", "text")
    assert stands_in("1990s", "Heat 1995")
    assert not stands_in("1980s", "Heat 1995")


def test_every_schema_asks_in_both_languages_and_is_a_strict_json_schema() -> None:
    for schema in load_schemas().schemas:
        shape = schema.json_schema()
        assert shape["required"] == list(shape["properties"]) == list(schema.fields)
        assert shape["additionalProperties"] is False
        assert all(set(spec.ask) == {"en", "zh"} for spec in schema.fields.values())
        assert all(spec.image in {"", *load_schemas().lists} for spec in schema.fields.values())


def test_rules_take_text_before_picture_and_guess_nothing() -> None:
    found = attributes_of(MUG, load_schemas().schema_of(MUG))
    assert found == {
        "brand": Value("Lunor", "text"),
        "kind": Value("Mug", "text"),
        "material": Value("glass", "text"),
        "colour": Value("blue", "image"),
        "shape": Value("round", "image"),
        "pattern": Value("striped", "image"),
    }


def test_rules_pass_their_own_check() -> None:
    schema = load_schemas().schema_of(MUG)
    raw = {
        name: {"value": one.value, "source": one.source}
        for name, one in attributes_of(MUG, schema).items()
    }
    _, repaired = checked(raw)
    assert not repaired


def test_a_value_in_the_text_may_say_text() -> None:
    found, repaired = checked({"material": {"value": "glasses", "source": "text"}})
    assert found == {"material": ("glasses", "text")}
    assert not repaired


def test_a_picture_that_was_looked_at_is_the_source_of_what_no_text_says() -> None:
    raw = {"style": {"value": "elegant", "source": "text"}}
    assert checked(raw, looks=True) == ({"style": ("elegant", "image")}, True)


def test_what_neither_text_nor_the_pictures_words_say_is_dropped() -> None:
    raw = {
        "style": {"value": "elegant", "source": "image"},
        "material": {"value": "gold", "source": "text"},
        "colour": {"value": "blue", "source": "text"},
    }
    assert checked(raw) == ({"colour": ("blue", "image")}, True)


def test_a_claimed_picture_is_corrected_to_the_text_where_only_that_says_so() -> None:
    raw = {"material": {"value": "glass", "source": "image"}}
    assert checked(raw) == ({"material": ("glass", "text")}, True)


def test_an_item_without_a_picture_has_nothing_from_one() -> None:
    bare = Item(0, "B2", "Steel mug", attributes={"category": "Mug"})
    raw = {"colour": {"value": "blue", "source": "image"}}
    assert checked(raw, bare, looks=True) == ({}, True)


@pytest.mark.parametrize("nothing", [None, "", "null", "N/A", "unknown", "无"])
def test_a_value_that_says_nothing_is_no_attribute(nothing: str | None) -> None:
    assert checked({"style": {"value": nothing, "source": "text"}}) == ({}, False)


def test_one_value_for_all_fields_stays_in_the_first() -> None:
    raw = {name: {"value": "glass mug", "source": "text"} for name in ("brand", "use", "style")}
    assert checked(raw) == ({"brand": ("glass mug", "text")}, True)


def test_fields_outside_the_schema_are_cut_away() -> None:
    raw = {"Material": {"value": "glass", "source": "text"}, "price": {"value": "5"}}
    assert checked(raw) == ({"material": ("glass", "text")}, True)


def run(teacher: Saying) -> list[Made | Rejected]:
    workshop = make_workshop(make_data(), teacher, kinds=("attributes",))
    return work(workshop.jobs("attributes"), teacher.write, at_once=3, on_done=lambda: None)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("", "empty"),
        ("I'm sorry, I can't help with that.", "refused"),
        (Written("", refused=True), "refused"),
        ("Material: glass", "no JSON object"),
        ('{"material": {"value": "gold", "source": "text"}}', "no attribute with a known source"),
    ],
)
def test_an_unusable_answer_is_rejected_with_its_reason(answer: str | Written, reason: str) -> None:
    results = run(Saying(lambda _: answer))
    assert results
    assert {one.reason for one in results if isinstance(one, Rejected)} == {reason}
    assert not [one for one in results if isinstance(one, Made)]


def test_the_answer_that_is_tuned_on_holds_what_was_checked() -> None:
    teacher = Saying(
        lambda _: (
            '{"colour": {"value": "plutonium", "source": "text"}, '
            '"use": {"value": "kitchen", "source": "text"}}'
        )
    )
    for one in run(teacher):
        assert isinstance(one, Made)
        assert json.loads(one.entry.answer) == one.entry.value["attributes"]
        assert one.entry.value["attributes"] == {"use": {"value": "kitchen", "source": "text"}}
        assert one.entry.outcome == "repaired"


@pytest.mark.parametrize("looks", [True, False])
def test_a_teacher_that_looks_gets_the_picture_and_another_one_its_words(
    tmp_path: Path, looks: bool
) -> None:
    asked: list[WritingRequest] = []

    def draft(request: WritingRequest) -> str:
        asked.append(request)
        return request.draft

    data = with_pictures(make_data(), tmp_path)
    teacher = Saying(draft, looks=looks)
    workshop = make_workshop(data, teacher, kinds=("attributes",))
    work(workshop.jobs("attributes"), teacher.write, at_once=3, on_done=lambda: None)
    parts = asked[0].messages[0].parts
    assert sum(isinstance(part, Image) for part in parts) == 1
    colours = ("red", "green", "blue", "white")
    assert any(f" {word}\n" in asked[0].messages[0].text for word in colours) is not looks
