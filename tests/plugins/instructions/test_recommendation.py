import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmrec_bench.errors import ConfigError, ProtocolError
from mmrec_bench.interfaces import HasFingerprint, InstructionBuilder, PreparesInstructions
from mmrec_bench.plugins import installed
from mmrec_bench.testing import InstructionBuilderTests, toy_split
from mmrec_bench.types import Catalog, Image, Query, Split, Vocabulary
from mmrec_plugins.instructions.recommendation import Recommendation
from tests.plugins.instructions.toys import context, maker, prepared, split_with

SPLIT = toy_split()
QUERY = SPLIT.test.queries[0]
make = maker(SPLIT)


def question(split: Split = SPLIT, query: Query = QUERY, **options: object) -> str:
    return prepared(split, **options).build(query, split.catalog).messages[-1].text


class TestZeroShotEnglish(InstructionBuilderTests):
    def make(self) -> InstructionBuilder:
        return Recommendation(Recommendation.Config())


class TestZeroShotChinese(InstructionBuilderTests):
    def make(self) -> InstructionBuilder:
        return Recommendation(Recommendation.Config(language="zh"))


class TestFewShotEnglish(InstructionBuilderTests):
    def make(self) -> InstructionBuilder:
        return make(demonstrations=4, structured=True, wording="seeded")


class TestFewShotChinese(InstructionBuilderTests):
    def make(self) -> InstructionBuilder:
        return make(language="zh", demonstrations=2, turns=False, intention="specific")


@pytest.mark.parametrize(("name", "n_demonstrations"), [("zero-shot", 0), ("few-shot", 4)])
def test_both_builders_are_registered(name: str, n_demonstrations: int) -> None:
    registry = installed()["instructions"]
    builder = registry.create(name, registry.configure(name, {}, "instructions"))
    assert builder.config.demonstrations == n_demonstrations
    assert isinstance(builder, PreparesInstructions)
    assert issubclass(type(builder), HasFingerprint)


def test_the_question_in_english() -> None:
    catalog = Catalog(Vocabulary(["a", "b", "c"]), ["Red mug", "Blue mug", "Vase"])
    query = Query(0, np.array([0], np.int32), np.array([2, 1], np.int32))
    instruction = Recommendation(Recommendation.Config()).build(query, catalog)
    assert instruction.messages[0].text == (
        "A user chose these items, oldest first:\n"
        "1. Red mug\n"
        "Candidates:\n"
        "A. Vase\n"
        "B. Blue mug\n"
        "Rank the candidates by how likely the user is to choose them next, the most likely "
        "first.\n"
        "Answer with the labels of the best 2 candidates alone, best first, separated by commas."
    )
    assert instruction.labels == ("A", "B")
    assert instruction.answers == ("Vase", "Blue mug")
    assert instruction.schema is None


def test_json_is_asked_for_and_its_schema_given() -> None:
    instruction = make(structured=True, list_length=3).build(QUERY, SPLIT.catalog)
    assert '{"ranking": [...]}' in instruction.messages[-1].text
    assert "best 3 candidates" in instruction.messages[-1].text
    assert instruction.schema == {
        "type": "object",
        "properties": {
            "ranking": {
                "type": "array",
                "items": {"type": "string", "enum": ["A", "B", "C", "D", "E", "F"]},
                "minItems": 3,
                "maxItems": 3,
            }
        },
        "required": ["ranking"],
        "additionalProperties": False,
    }


def test_a_seeded_wording_depends_on_seed_and_user_alone() -> None:
    builder = make(wording="seeded")
    queries = SPLIT.test.queries
    ids = [builder.wording(query) for query in queries]
    assert ids == [builder.wording(query.with_history(1)) for query in queries]
    assert ids == [make(wording="seeded").wording(query) for query in queries]
    other = Recommendation(Recommendation.Config(wording="seeded"))
    other.prepare(context(SPLIT, seed=1))
    assert ids != [other.wording(query) for query in queries]
    assert len(set(ids)) > 5


def test_the_id_of_a_wording_asks_in_that_wording() -> None:
    seeded = make(wording="seeded", intention="vague", form="choice")
    for query in SPLIT.test.queries[:8]:
        fixed = make(wording=seeded.wording(query), intention="vague", form="choice")
        assert fixed.build(query, SPLIT.catalog) == seeded.build(query, SPLIT.catalog)


@pytest.mark.parametrize(
    "wording", ["implicit.1", "implicit.9+ranking.1", "", "explicit.1+ranking.1"]
)
def test_a_wording_of_another_cell_is_refused(wording: str) -> None:
    with pytest.raises(ConfigError, match=r"such as implicit\.4\+ranking\.4"):
        Recommendation(Recommendation.Config(wording=wording))


def test_drawing_needs_to_be_prepared() -> None:
    for options in ({"wording": "seeded"}, {"demonstrations": 2}):
        builder = Recommendation(Recommendation.Config.model_validate(options))
        with pytest.raises(ConfigError, match="prepare"):
            builder.build(QUERY, SPLIT.catalog)


def test_without_a_preference_the_history_is_not_told() -> None:
    text = question(preference="none", form="choice")
    assert not any(SPLIT.catalog.title[i] in text for i in QUERY.history.tolist())


def test_a_specific_intention_points_at_the_newest_item() -> None:
    text = question(preference="none", intention="specific")
    assert SPLIT.catalog.title[int(QUERY.history[-1])] in text
    assert SPLIT.catalog.title[int(QUERY.history[0])] not in text


def test_a_specific_intention_is_left_out_without_a_history() -> None:
    query = QUERY.with_history(0)
    assert question(query=query, intention="specific") == question(query=query)
    assert "(nothing yet)" in question(query=query)


def test_two_candidates_are_compared() -> None:
    split = split_with(2)
    query = split.test.queries[0]
    assert "Which of the two" in question(split, query, form="pairwise")
    with pytest.raises(ProtocolError, match="shows 2 candidates, but the query has 6"):
        question(form="pairwise")


def test_one_candidate_is_judged_by_yes_or_no() -> None:
    assert QUERY.candidates is not None
    query = Query(QUERY.user, QUERY.history, QUERY.candidates[:1])
    builder = make(form="pointwise", demonstrations=3)
    instruction = builder.build(query, SPLIT.catalog)
    answers = [m.text for m in instruction.messages if m.role == "assistant"]
    assert set(answers) <= {"Yes", "No"}
    assert instruction.labels == ("Yes",)
    assert builder.parse("Yes, it fits.", instruction) == [0]
    assert builder.parse("No", instruction) == []
    chinese = make(form="pointwise", language="zh")
    assert chinese.parse("是的", chinese.build(query, SPLIT.catalog)) == [0]
    assert chinese.parse("是否合适？", chinese.build(query, SPLIT.catalog)) == []


def test_options_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="yes or no"):
        Recommendation.Config(form="pointwise", structured=True)
    with pytest.raises(ValueError, match="profile=true"):
        Recommendation.Config(preference="explicit")


def test_the_whole_catalog_cannot_be_listed() -> None:
    with pytest.raises(ProtocolError, match=r"protocol\.candidates=uniform"):
        make().build(Query(0, QUERY.history, None), SPLIT.catalog)


def test_the_history_is_cut_to_its_newest_items() -> None:
    text = question(history_length=2)
    assert SPLIT.catalog.title[int(QUERY.history[-1])] in text
    assert "\n3. " not in text


def test_answers_name_as_many_labels_as_asked() -> None:
    labels = ("A", "B", "C")
    assert make(list_length=2).answer([2, 0, 1], labels) == "C, A"
    assert make(form="choice").answer([2, 0, 1], labels) == "C"
    assert json.loads(make(structured=True).answer([2, 0, 1], labels)) == {
        "ranking": ["C", "A", "B"]
    }


@pytest.mark.parametrize("form", ["ranking", "choice"])
@pytest.mark.parametrize("answer", ["label", "title", "both"])
def test_an_answer_is_read_as_it_is_written(answer: str, form: str) -> None:
    builder = make(answer=answer, form=form, demonstrations=2, list_length=3)
    instruction = builder.build(QUERY, SPLIT.catalog)
    text = builder.answer([3, 1, 5, 0], instruction.labels, instruction.answers)
    assert builder.parse(text, instruction) == ([3, 1, 5] if form == "ranking" else [3])
    shown = instruction.messages[1].text.splitlines()
    titles = [any(title in line for title in SPLIT.catalog.title) for line in shown]
    assert all(titles) if answer != "label" else not any(titles)


def test_titles_are_asked_for_where_they_shall_be_written() -> None:
    assert "Answer with its title alone." in question(form="choice", answer="title")
    assert "labels and titles" in question(answer="both")
    with pytest.raises(ValueError, match="answer=label"):
        Recommendation.Config(structured=True, answer="title")


def test_pictures_of_the_question_come_before_those_of_demonstrations() -> None:
    paths = [(Path(f"{i}.jpg"),) for i in range(len(SPLIT.catalog))]
    catalog = Catalog(SPLIT.catalog.items, SPLIT.catalog.title, images=paths)
    for most, per_message in ((None, [10, 10, 12]), (12, [0, 0, 12]), (8, [0, 0, 8])):
        builder = make(pictures="images", max_pictures=most, demonstrations=2, history_length=6)
        messages = builder.build(QUERY, catalog).messages[::2]
        counts = [sum(isinstance(p, Image) for p in message.parts) for message in messages]
        assert counts[-1] == per_message[-1]
        assert most is None or sum(counts) <= most
        assert most is not None or all(counts)


@given(st.text(max_size=200))
def test_any_answer_is_read_without_an_error(text: str) -> None:
    for options in ({}, {"structured": True}, {"language": "zh"}):
        builder = Recommendation(Recommendation.Config.model_validate(options))
        found = builder.parse(text, builder.build(QUERY, SPLIT.catalog))
        assert len(found) == len(set(found))
        assert all(0 <= i < 6 for i in found)
