import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmrec_plugins.instructions.building.reading import looks_refused, read_object

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), json_values))
def test_a_whole_object_is_read_as_it_is(value: dict[str, object]) -> None:
    read = read_object(json.dumps(value))
    assert read.value == value
    assert not read.repaired


@given(st.text())
def test_no_text_raises(text: str) -> None:
    read_object(text)
    read_object("{" + text)
    looks_refused(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('Sure! Here it is:\n{"a": "b"} I hope it helps.', {"a": "b"}),
        ('```json\n{"a": ["b", "c",]}\n```', {"a": ["b", "c"]}),
        ('{"a": "b", "c": ["d", "e', {"a": "b", "c": ["d", "e"]}),
        ('{"a": "b",', {"a": "b"}),
        ('{"a": "a } in a \\" string", "b": 1} {"second": 1}', {"a": 'a } in a " string', "b": 1}),
    ],
)
def test_form_is_repaired(text: str, value: dict[str, object]) -> None:
    read = read_object(text)
    assert read.value == value
    assert read.repaired


@pytest.mark.parametrize("text", ["", "no object", "[1, 2]", "{a: b}", '{"a": ]', "{" * 5000])
def test_what_is_no_object_reads_as_nothing(text: str) -> None:
    assert read_object(text).value is None


@pytest.mark.parametrize("text", ["I'm sorry, but I can't help with that.", "抱歉，我无法完成。"])
def test_a_refusal_is_known(text: str) -> None:
    assert looks_refused(text)


@pytest.mark.parametrize("text", ["A shopper who cannot resist mugs.", "Sorry-looking lamps."])
def test_ordinary_words_are_no_refusal(text: str) -> None:
    assert not looks_refused(text)
