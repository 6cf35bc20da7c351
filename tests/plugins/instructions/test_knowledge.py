import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmrec_bench.config import identity
from mmrec_bench.errors import ConfigError, DataFormatError
from mmrec_bench.interfaces import InstructionBuilder, PreparesInstructions
from mmrec_bench.testing import toy_split
from mmrec_bench.types import HeldOut, Query
from mmrec_plugins.instructions.corpus import CorpusEntry, Part, Turn, write_corpus
from mmrec_plugins.instructions.ranking import Ranking
from mmrec_plugins.instructions.recommendation import Recommendation
from tests.plugins.instructions.toys import context

SPLIT = toy_split()
QUERY = SPLIT.test.queries[0]
USER = SPLIT.users[QUERY.user]
ITEMS = SPLIT.catalog.items
TRAIN = SPLIT.train.histories(len(SPLIT.users))[QUERY.user].tolist()
PROFILE = {
    "likes": ["oak (dark)", "cotton"],
    "dislikes": [],
    "visual_taste": ["warm colours"],
    "summary": "Likes plain things.",
    "more": "ignored",
}
ATTRIBUTES = {
    "attributes": {
        "style": {"value": "rustic", "source": "text"},
        "colour": {"value": "brown", "source": "image"},
    }
}
TURNS = (Turn(role="user", parts=(Part(text="?"),)),)


def entry(kind: str, **fields: Any) -> CorpusEntry:  # noqa: ANN401 - fields of any type
    base = {"kind": kind, "split": "train", "dataset": "toy", "dataset_version": "1"}
    return CorpusEntry(**{**base, "turns": TURNS, "answer": "!", **fields})


def profile(**fields: Any) -> CorpusEntry:  # noqa: ANN401 - fields of any type
    names = tuple(ITEMS[i] for i in TRAIN)
    return entry("profile", **{"user": USER, "items": names, "value": PROFILE, **fields})


def attributes(item: int, **fields: Any) -> CorpusEntry:  # noqa: ANN401 - fields of any type
    return entry("attributes", **{"items": (ITEMS[item],), "value": ATTRIBUTES, **fields})


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.jsonl"
    write_corpus(path, [profile(), attributes(TRAIN[-1])])
    return path


BUILDERS: list[type[Any]] = [Ranking, Recommendation]


def ready(cls: type[Any], corpus: Path, **options: object) -> InstructionBuilder:
    builder = cls(cls.Config(corpus=(corpus,), **options))
    assert isinstance(builder, PreparesInstructions)
    builder.prepare(context(SPLIT))
    assert isinstance(builder, InstructionBuilder)
    return builder


def text_of(builder: InstructionBuilder, query: Query = QUERY) -> str:
    return builder.build(query, SPLIT.catalog).messages[-1].text


@pytest.mark.parametrize("cls", BUILDERS)
def test_the_profile_is_one_line_before_the_history(cls: type[Any], corpus: Path) -> None:
    first, rest = text_of(ready(cls, corpus, profile=True)).split("\n", 1)
    assert first.endswith(
        ": Likes plain things; likes: oak dark, cotton; visual taste: warm colours"
    )
    assert rest == text_of(cls(cls.Config()))


def test_the_profile_speaks_the_language_of_the_instruction(corpus: Path) -> None:
    builder = ready(Recommendation, corpus, profile=True, language="zh")
    assert "喜欢：oak dark、cotton；视觉偏好：warm colours" in text_of(builder)


def test_an_explicit_preference_shows_the_profile_and_no_history(corpus: Path) -> None:
    text = text_of(ready(Recommendation, corpus, profile=True, preference="explicit"))
    assert "Likes plain things" in text
    assert SPLIT.catalog.title[int(QUERY.history[-1])] not in text
    other = SPLIT.test.queries[1]
    builder = ready(Recommendation, corpus, profile=True, preference="explicit")
    assert "(nothing is known)" in text_of(builder, other)


@pytest.mark.parametrize("cls", BUILDERS)
def test_a_user_without_a_profile_is_asked_without(cls: type[Any], corpus: Path) -> None:
    other = SPLIT.test.queries[1]
    assert text_of(ready(cls, corpus, profile=True), other) == text_of(cls(cls.Config()), other)


def test_a_profile_written_from_a_candidate_is_not_shown(corpus: Path) -> None:
    """In training, the target is a train interaction that the profile may have seen."""
    builder = ready(Ranking, corpus, profile=True)
    query = Query(QUERY.user, QUERY.history, np.array([TRAIN[-1], 3], np.int32))
    assert "What is known" not in text_of(builder, query)
    assert "What is known" in text_of(builder)


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("all", "style: rustic, colour: brown"),
        ("text", "style: rustic"),
        ("image", "colour: brown"),
    ],
)
@pytest.mark.parametrize("cls", BUILDERS)
def test_attributes_stand_behind_the_title(
    cls: type[Any], source: str, shown: str, corpus: Path
) -> None:
    text = text_of(ready(cls, corpus, attributes=True, attribute_source=source))
    assert f"{SPLIT.catalog.title[TRAIN[-1]]} ({shown})\n" in text
    assert text.count(shown) == 1


def test_how_many_have_something_is_logged_once(
    corpus: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="mmrec_bench")
    builder = ready(Ranking, corpus, profile=True, attributes=True)
    for query in SPLIT.test.queries[:3]:
        text_of(builder, query)
    assert [record.getMessage() for record in caplog.records] == [
        f"profiles: 1 of {len(SPLIT.users)} users have one",
        f"attributes: 1 of {len(ITEMS)} items have some",
    ]


@pytest.mark.parametrize("cls", BUILDERS)
def test_a_corpus_that_is_not_there_names_the_command(cls: type[Any], tmp_path: Path) -> None:
    command = "mmrec-bench instructions build --dataset NAME --kind profile"
    for files in ((), (tmp_path / "no.jsonl",)):
        with pytest.raises(ConfigError, match=command):
            cls.fingerprint(cls.Config(profile=True, corpus=files))
    with pytest.raises(ConfigError, match="--dataset toy --kind attributes"):
        cls(cls.Config(attributes=True)).prepare(context(SPLIT))


def test_a_corpus_of_another_data_set_names_the_command(tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl"
    write_corpus(path, [profile(dataset="other")])
    with pytest.raises(ConfigError, match="no entry of kind profile for the data set toy"):
        ready(Ranking, path, profile=True)


def leaking(path: Path) -> Path:
    target = int(SPLIT.test.targets[0][0])
    write_corpus(path, [profile(items=(ITEMS[TRAIN[0]], ITEMS[target]))])
    return path


def test_a_profile_that_has_seen_a_target_is_refused(tmp_path: Path) -> None:
    target = ITEMS[int(SPLIT.test.targets[0][0])]
    with pytest.raises(ConfigError, match=f"written from item {target}"):
        ready(Ranking, leaking(tmp_path / "corpus.jsonl"), profile=True)


def test_under_a_transfer_protocol_it_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = leaking(tmp_path / "corpus.jsonl")
    builder = Ranking(Ranking.Config(profile=True, corpus=(path,)))
    nobody = np.array([], np.int32)
    builder.prepare(context(SPLIT, held_out=HeldOut(nobody, nobody, "x")))
    assert "What is known" not in text_of(builder)
    assert "1 were written from what is held out" in caplog.text


def test_a_value_of_another_shape_is_named(tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl"
    write_corpus(path, [attributes(2, value={"attributes": {"style": "rustic"}})])
    with pytest.raises(DataFormatError, match=r"value\.attributes\.style"):
        ready(Ranking, path, attributes=True)


@pytest.mark.parametrize("cls", BUILDERS)
def test_the_fingerprint_follows_the_files_where_they_are_used(
    cls: type[Any], corpus: Path, tmp_path: Path
) -> None:
    assert cls.fingerprint(cls.Config(corpus=(corpus,))) == ""
    config = cls.Config(profile=True, corpus=(corpus,))
    mark = cls.fingerprint(config)
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes(corpus.read_bytes())
    moved = cls.Config(profile=True, corpus=(copy,))
    assert cls.fingerprint(moved) == mark
    assert identity(moved) == identity(config)
    write_corpus(corpus, [attributes(1)])
    assert cls.fingerprint(config) != mark


@pytest.mark.parametrize("cls", BUILDERS)
def test_what_is_asked_for_must_be_prepared(cls: type[Any], corpus: Path) -> None:
    with pytest.raises(ConfigError, match="prepare"):
        text_of(cls(cls.Config(attributes=True, corpus=(corpus,))))
