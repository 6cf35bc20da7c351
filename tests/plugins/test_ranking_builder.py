import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmrec_bench.config import ProtocolConfig
from mmrec_bench.errors import ProtocolError
from mmrec_bench.testing import InstructionBuilderTests, toy_split
from mmrec_bench.types import Catalog, Query, Vocabulary
from mmrec_plugins.instructions.answers import label
from mmrec_plugins.instructions.ranking import Ranking

CATALOG = Catalog(
    items=Vocabulary(["a", "b", "c", "d"]),
    title=["Red mug", "Blue mug", "", "An extremely long title of " + "many words " * 20],
    attributes=[{"brand": "Acme"}, {"brand": "Blue"}, {}, {}],
    image_words=[("red", "round"), (), ("green",), ()],
)
QUERY = Query(0, np.array([0, 1], np.int32), np.array([2, 1, 0], np.int32))


class TestRankingContract(InstructionBuilderTests):
    def make(self) -> Ranking:
        return Ranking(Ranking.Config())


@pytest.fixture
def builder() -> Ranking:
    return Ranking(Ranking.Config(fields=("brand",)))


def test_a_line_holds_title_attributes_and_what_the_picture_shows(builder: Ranking) -> None:
    assert builder.line(CATALOG[0]) == "Red mug (Acme, red, round)"


def test_an_attribute_that_the_title_says_is_not_repeated(builder: Ranking) -> None:
    assert builder.line(CATALOG[1]) == "Blue mug"


def test_an_item_without_a_title_is_named_by_its_permuted_number(builder: Ranking) -> None:
    assert builder.line(CATALOG[2]) == "item 2 (green)"


def test_a_long_title_is_cut_and_says_so(builder: Ranking) -> None:
    line = builder.line(CATALOG[3])
    assert line.endswith(" ...")
    assert len(line.split()) == 17


def test_pictures_can_be_left_out() -> None:
    builder = Ranking(Ranking.Config(pictures="none"))
    assert builder.line(CATALOG[0]) == "Red mug"


def test_the_prompt_lists_history_and_labelled_candidates(builder: Ranking) -> None:
    instruction = builder.build(QUERY, CATALOG)
    assert instruction.messages[0].text == (
        "A shopper bought these items, oldest first:\n"
        "1. Red mug (Acme, red, round)\n"
        "2. Blue mug\n"
        "Candidates:\n"
        "A. item 2 (green)\n"
        "B. Blue mug\n"
        "C. Red mug (Acme, red, round)\n"
        "Which candidate does the shopper buy next?"
    )
    assert instruction.labels == ("A", "B", "C")


def test_without_the_list_there_are_answers_and_no_labels() -> None:
    builder = Ranking(Ranking.Config(list_candidates=False))
    instruction = builder.build(QUERY, CATALOG)
    assert instruction.messages[0].text == (
        "A shopper bought these items, oldest first:\n"
        "1. Red mug (red, round)\n"
        "2. Blue mug\n"
        "What does the shopper buy next?"
    )
    assert instruction.labels == ()
    assert len(instruction.answers) == 3
    assert builder.parse("Blue mug", instruction) == [1]
    assert builder.parse("B", instruction) == []


def test_an_empty_history_is_said(builder: Ranking) -> None:
    query = Query(0, np.array([], np.int32), QUERY.candidates)
    assert "(nothing yet)" in builder.build(query, CATALOG).messages[0].text


def test_the_whole_catalog_cannot_be_listed(builder: Ranking) -> None:
    with pytest.raises(ProtocolError, match=r"protocol\.candidates=uniform"):
        builder.build(Query(0, QUERY.history, None), CATALOG)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("B", [1]),
        ("B.", [1]),
        ("(B)", [1]),
        ("B. Blue mug", [1]),
        ("B, A, C", [1, 0, 2]),
        ("C > A > B", [2, 0, 1]),
        ("1. C\n2. A", [2, 0]),
        ("- Red mug\n- blue mug", [2, 1]),
        ("Red mug (Acme, red, round)", [2]),
        ("A\nA\nA", [0]),
        ("B. Red mug", []),  # label and text contradict each other
        ("A nice mug for you", []),  # "A" is an article here
        ("D", []),
        ("b", []),
        ("I would choose B because", []),
    ],
)
def test_answers_are_read_strictly(text: str, expected: list[int], builder: Ranking) -> None:
    assert builder.parse(text, builder.build(QUERY, CATALOG)) == expected


def test_a_text_that_names_two_candidates_alike_names_none() -> None:
    twins = Catalog(items=Vocabulary(["a", "b"]), title=["Gift card", "Gift card"])
    builder = Ranking(Ranking.Config())
    query = Query(0, np.array([], np.int32), np.array([0, 1], np.int32))
    assert builder.parse("Gift card", builder.build(query, twins)) == []


@given(st.text(max_size=300))
def test_any_text_gives_valid_positions(text: str) -> None:
    builder = Ranking(Ranking.Config())
    found = builder.parse(text, builder.build(QUERY, CATALOG))
    assert len(found) == len(set(found))
    assert all(0 <= i < 3 for i in found)


def test_labels_go_on_after_z() -> None:
    assert [label(i) for i in (0, 25, 26, 27, 51, 52, 701, 702)] == [
        "A", "Z", "AA", "AB", "AZ", "BA", "ZZ", "AAA",
    ]  # fmt: skip


def test_labels_are_unique_for_a_thousand_candidates() -> None:
    assert len({label(i) for i in range(1000)}) == 1000


def test_the_history_is_cut_to_its_newest_items() -> None:
    split = toy_split(ProtocolConfig(k_core=2, n_candidates=6))
    long = next(q for q in split.test.queries if len(q.history) >= 4)
    text = Ranking(Ranking.Config(history_length=2)).build(long, split.catalog).messages[0].text
    assert split.catalog[int(long.history[-1])].title in text
    assert "\n3. " not in text
