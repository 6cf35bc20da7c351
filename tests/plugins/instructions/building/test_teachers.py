import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmrec_bench.plugins import installed
from mmrec_bench.teaching import Teacher, WritingRequest
from mmrec_bench.types import Message, Text
from mmrec_plugins.instructions.building.profile import SCHEMA
from mmrec_plugins.instructions.building.schemas import load_schemas
from mmrec_plugins.instructions.teachers.filling import fill
from mmrec_plugins.instructions.teachers.lm import LanguageModelTeacher
from mmrec_plugins.instructions.teachers.template import Template

SCHEMAS = [dict(SCHEMA), *(schema.json_schema() for schema in load_schemas().schemas)]


@pytest.mark.parametrize("schema", SCHEMAS)
@given(data=st.data())
def test_whatever_is_written_the_form_stands(schema: dict[str, Any], data: st.DataObject) -> None:
    filling = fill(schema)
    slot = next(filling)
    while True:
        free = st.text(max_size=12)
        said = data.draw(st.sampled_from(slot.choices) if slot.choices else free)
        try:
            slot = filling.send(said)
        except StopIteration as stop:
            text = stop.value
            break
    value = json.loads(text)
    assert list(value) == schema["required"]
    assert all(isinstance(one, str | list | dict) for one in value.values())


def test_a_free_text_ends_at_its_quote_and_a_list_at_its_bracket() -> None:
    schema = {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "likes": {"type": "array", "items": {"type": "string"}},
        },
    }
    filling = fill(schema)
    assert next(filling).before == '{"name": "'
    assert filling.send('blue mug", "x').before == '{"likes": ["'
    with pytest.raises(StopIteration) as stop:
        filling.send('mugs", "lamps"] and so on')
    assert json.loads(stop.value.value) == {"name": "blue mug", "likes": ["mugs", "lamps"]}


def request(
    text: str, schema: dict[str, Any] | None = None, max_tokens: int = 12
) -> WritingRequest:
    return WritingRequest((Message("user", (Text(text),)),), schema, "the draft", max_tokens)


def test_the_template_returns_the_draft() -> None:
    teacher = Template(Template.Config())
    assert isinstance(teacher, Teacher)
    assert [one.text for one in teacher.write([request("a"), request("b")])] == ["the draft"] * 2


@pytest.fixture(scope="module")
def micro() -> LanguageModelTeacher:
    return LanguageModelTeacher(LanguageModelTeacher.Config(model="chatglm2-micro", device="cpu"))


def test_a_small_model_fills_every_form(micro: LanguageModelTeacher) -> None:
    schema = load_schemas().schemas[-2].json_schema()
    asked = [request("Describe a red glass mug.", schema), request("And a shopper.", dict(SCHEMA))]
    first, second = micro.write(asked)
    assert list(json.loads(first.text)) == schema["required"]
    assert {field["source"] for field in json.loads(first.text).values()} <= {"text", "image"}
    assert list(json.loads(second.text)) == SCHEMA["required"]
    assert first.prompt_tokens > 0
    assert first.answer_tokens > 0


def test_an_answer_does_not_depend_on_its_neighbours(micro: LanguageModelTeacher) -> None:
    asked = [
        request("What does somebody like who buys a red mug?", dict(SCHEMA)),
        request("Say a word."),
    ]
    together = micro.write(asked)
    assert [micro.write([one])[0] for one in asked] == together
    assert together[1].answer_tokens <= 12


def test_a_model_may_choose_among_the_values_that_a_field_allows() -> None:
    config = LanguageModelTeacher.Config(model="chatglm2-micro", device="cpu", choose=True)
    schema = {
        "type": "object",
        "properties": {"source": {"type": "string", "enum": ["qqq zzz xxx", "text"]}},
    }
    (written,) = LanguageModelTeacher(config).write([request("Where does it stand?", schema)])
    assert json.loads(written.text) == {"source": "text"}


def test_what_an_answer_depends_on_is_in_the_fingerprint(micro: LanguageModelTeacher) -> None:
    whole = LanguageModelTeacher.Config(model="chatglm2-micro", fill="whole")
    assert isinstance(micro, Teacher)
    assert "chatglm2-micro" in micro.fingerprint()
    assert LanguageModelTeacher(whole).fingerprint() != micro.fingerprint()


@pytest.mark.parametrize("name", ["template", "lm"])
def test_teachers_are_registered_with_described_options(name: str) -> None:
    config = installed()["teacher"].load(name).Config
    assert all(field.description for field in config.model_fields.values())
    assert "name" not in config.model_fields
