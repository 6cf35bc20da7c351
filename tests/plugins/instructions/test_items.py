from pathlib import Path

import numpy as np
import pytest

from mmrec_bench.config import ProtocolConfig
from mmrec_bench.testing import toy_split
from mmrec_bench.types import Catalog, Image, Query, Text, Vocabulary
from mmrec_plugins.instructions.items import ItemOptions, ItemWriter, join_parts
from mmrec_plugins.instructions.ranking import Ranking
from tests.plugins.instructions.toys import context

CATALOG = Catalog(
    items=Vocabulary(["a", "b", "c"]),
    title=["Red mug", "Blue mug", "Green vase"],
    images=[(Path("a.jpg"), Path("a2.jpg")), (), (Path("c.jpg"),)],
    image_words=[("red",), (), ("green",)],
)
QUERY = Query(0, np.array([0, 1], np.int32), np.array([2, 1], np.int32))


def ranking(**options: object) -> Ranking:
    return Ranking(Ranking.Config.model_validate(options))


def test_a_picture_stands_in_its_line_before_the_title() -> None:
    parts = ranking(pictures="images").build(QUERY, CATALOG).messages[0].parts
    assert parts == (
        Text("A shopper bought these items, oldest first:\n1. "),
        Image(Path("a.jpg"), 0),
        Text("Red mug\n2. Blue mug\nCandidates:\nA. "),
        Image(Path("c.jpg"), 2),
        Text("Green vase\nB. Blue mug\nWhich candidate does the shopper buy next?"),
    )


@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize(("with_picture", "without"), [("images", "none"), ("both", "words")])
def test_the_text_is_the_same_without_its_pictures(
    with_picture: str, without: str, listed: bool
) -> None:
    texts = [
        ranking(pictures=pictures, list_candidates=listed).build(QUERY, CATALOG).messages[0].text
        for pictures in (with_picture, without)
    ]
    assert texts[0] == texts[1]


def test_by_default_there_is_one_text_part() -> None:
    parts = ranking().build(QUERY, CATALOG).messages[0].parts
    assert [type(part) for part in parts] == [Text]


def test_candidates_that_are_not_listed_show_no_picture() -> None:
    builder = ranking(pictures="images", list_candidates=False)
    parts = builder.build(QUERY, CATALOG).messages[0].parts
    assert [part.item for part in parts if isinstance(part, Image)] == [0]


def test_an_item_whose_vector_alone_is_known_has_a_picture_without_a_path() -> None:
    split = toy_split(ProtocolConfig(k_core=2, n_candidates=6))
    vectors = np.full((len(split.catalog), 3), np.nan, np.float32)
    known = int(split.test.queries[0].history[-1])
    vectors[known] = 1.0
    builder = ranking(pictures="images")
    builder.prepare(context(split, vectors=vectors))
    parts = builder.build(split.test.queries[0], split.catalog).messages[0].parts
    assert [part for part in parts if isinstance(part, Image)] == [Image(None, known)]


@pytest.mark.parametrize(
    ("most", "expected"),
    [
        (1, [2]),  # the one picture of a candidate
        (2, [0, 2]),
        (None, [0, 2]),
    ],
)
def test_candidates_are_given_pictures_before_the_history(
    most: int | None, expected: list[int]
) -> None:
    builder = ranking(pictures="images", max_pictures=most)
    parts = builder.build(QUERY, CATALOG).messages[0].parts
    assert [part.item for part in parts if isinstance(part, Image)] == expected


def test_all_candidates_show_their_picture_or_none_does() -> None:
    writer = ItemWriter(ItemOptions(pictures="images", max_pictures=3))
    a, _, c = CATALOG[:3]
    assert writer.allot([([a, c, a, c], True), ([a, c, a, c], False)]) == [
        [False] * 4,
        [False, True, True, True],  # the newest three
    ]


def test_texts_that_follow_one_another_are_one_part() -> None:
    picture = Image(None, 1)
    assert join_parts(["a", "", "b", picture, "", picture, "c"]) == (
        Text("ab"),
        picture,
        picture,
        Text("c"),
    )
