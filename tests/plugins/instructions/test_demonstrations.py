import itertools
from typing import Literal

import numpy as np
import pytest

from mmrec_bench.errors import ConfigError
from mmrec_bench.testing import toy_split
from mmrec_bench.types import HeldOut, Query
from mmrec_plugins.instructions.demonstrations import (
    Demonstration,
    DemonstrationOptions,
    Demonstrations,
)
from tests.plugins.instructions.toys import context, material_vectors, prepared

SPLIT = toy_split()
HISTORIES = SPLIT.train.histories(len(SPLIT.users))
By = Literal["seeded", "popularity", "nearest"]
WAYS: tuple[By, ...] = ("seeded", "popularity", "nearest")


def chooser(by: By = "seeded", n: int = 4, *, seed: int = 0) -> Demonstrations:
    demonstrations = Demonstrations(DemonstrationOptions(demonstrations=n, by=by))
    demonstrations.prepare(context(SPLIT, vectors=material_vectors(SPLIT), seed=seed))
    return demonstrations


def candidates(one: Demonstration) -> list[int]:
    assert one.query.candidates is not None
    found: list[int] = one.query.candidates.tolist()
    return found


@pytest.mark.parametrize("by", WAYS)
def test_the_asking_user_is_never_shown(by: By) -> None:
    choose = chooser(by).choose
    for query in SPLIT.test.queries:
        users = [one.query.user for one in choose(query)]
        assert query.user not in users
        assert len(set(users)) == 4


@pytest.mark.parametrize("by", WAYS)
def test_a_demonstration_is_a_stretch_of_another_users_train_row(by: By) -> None:
    held_out = [
        {*validation.tolist(), *test.tolist()}
        for validation, test in zip(SPLIT.validation.targets, SPLIT.test.targets, strict=True)
    ]
    by_user = dict(zip(SPLIT.test.queries.user.tolist(), held_out, strict=True))
    for query in SPLIT.test.queries:
        for one in chooser(by).choose(query)[:2]:
            row = HISTORIES[one.query.user].tolist()
            at = row.index(one.chosen)
            assert one.query.history.tolist() == row[max(0, at - 5) : at]
            shown = {*one.query.history.tolist(), one.chosen}
            assert not shown & by_user[one.query.user]


@pytest.mark.parametrize("by", WAYS)
def test_the_chosen_item_leads_and_the_others_were_not_taken(by: By) -> None:
    for query in SPLIT.test.queries[:10]:
        for one in chooser(by).choose(query):
            listed = candidates(one)
            assert len(listed) == len(set(listed)) == 5
            assert listed[one.ranking[0]] == one.chosen
            assert sorted(one.ranking) == list(range(5))
            others = set(listed) - {one.chosen}
            assert not others & set(HISTORIES[one.query.user].tolist())


def test_the_candidates_that_are_asked_about_change_nothing() -> None:
    first = [chooser().choose(query) for query in SPLIT.test.queries[:5]]
    for query, chosen in zip(SPLIT.test.queries[:5], first, strict=True):
        other = Query(query.user, query.history, np.zeros(6, np.int32))
        assert str(chooser().choose(other)) == str(chosen)


def test_the_place_of_the_chosen_item_tells_nothing() -> None:
    places = [one.ranking[0] for query in SPLIT.test.queries for one in chooser(n=8).choose(query)]
    counts = np.bincount(places, minlength=5)
    assert counts.min() > 0.5 * counts.mean()


def test_the_seed_decides_the_draw() -> None:
    query = SPLIT.test.queries[0]
    assert str(chooser(seed=0).choose(query)) == str(chooser(seed=0).choose(query))
    assert str(chooser(seed=0).choose(query)) != str(chooser(seed=1).choose(query))


def test_popularity_shows_rare_and_popular_choices_alike() -> None:
    counts = np.bincount(SPLIT.train.item, minlength=len(SPLIT.catalog))
    occurring = np.flatnonzero(counts)
    by_count = occurring[np.argsort(counts[occurring], kind="stable")]
    bins = [set(items.tolist()) for items in np.array_split(by_count, 4)]
    choose = chooser("popularity").choose
    for query in SPLIT.test.queries:
        chosen = [one.chosen for one in choose(query)]
        assert sorted(next(b for b in range(4) if i in bins[b]) for i in chosen) == [0, 1, 2, 3]


def test_the_nearest_users_are_those_with_the_most_alike_histories() -> None:
    vectors = material_vectors(SPLIT)
    query = SPLIT.test.queries[0]
    asked = vectors[query.history[-5:]].mean(axis=0)

    def cosine(user: int) -> float:
        mean = vectors[HISTORIES[user][:-1][-5:]].mean(axis=0)
        return float(mean @ asked / np.linalg.norm(mean) / np.linalg.norm(asked))

    others = [user for user in range(len(SPLIT.users)) if user != query.user]
    best = sorted((cosine(user) for user in others), reverse=True)[:4]
    found = [cosine(one.query.user) for one in chooser("nearest").choose(query)]
    np.testing.assert_allclose(found, best[::-1], rtol=1e-5)


def test_without_a_history_the_nearest_are_drawn() -> None:
    query = SPLIT.test.queries[0].with_history(0)
    assert str(chooser("nearest").choose(query)) == str(chooser("seeded").choose(query))


def test_nearest_needs_vectors() -> None:
    demonstrations = Demonstrations(DemonstrationOptions(demonstrations=2, by="nearest"))
    with pytest.raises(ConfigError, match=r"vectors\.name=efficientnet"):
        demonstrations.prepare(context(SPLIT))
    nothing = np.full((len(SPLIT.catalog), 3), np.nan, np.float32)
    with pytest.raises(ConfigError, match="only 0 users have items with a vector"):
        demonstrations.prepare(context(SPLIT, vectors=nothing))


def test_items_without_a_vector_are_passed_over() -> None:
    vectors = material_vectors(SPLIT)
    vectors[::2] = np.nan
    demonstrations = Demonstrations(DemonstrationOptions(demonstrations=3, by="nearest"))
    demonstrations.prepare(context(SPLIT, vectors=vectors))
    assert len(demonstrations.choose(SPLIT.test.queries[0])) == 3


def test_more_demonstrations_than_users_are_refused() -> None:
    with pytest.raises(ConfigError, match="demonstrations=99 needs 100 users"):
        chooser(n=99)


def test_held_out_items_are_no_candidates() -> None:
    items = np.flatnonzero(np.bincount(SPLIT.train.item, minlength=len(SPLIT.catalog)) < 8)
    kept = SPLIT.train.take(~np.isin(SPLIT.train.item, items))
    held_out = HeldOut(np.array([], np.int32), items.astype(np.int32), "x")
    split = type(SPLIT)(**{**SPLIT.__dict__, "train": kept})
    demonstrations = Demonstrations(DemonstrationOptions(demonstrations=4))
    demonstrations.prepare(context(split, held_out=held_out))
    assert len(items)
    for query in SPLIT.test.queries:
        for one in demonstrations.choose(query):
            assert not set(candidates(one)) & set(items.tolist())


def test_demonstrations_are_earlier_turns() -> None:
    instruction = prepared(SPLIT, demonstrations=2).build(SPLIT.test.queries[0], SPLIT.catalog)
    assert [m.role for m in instruction.messages] == ["user", "assistant"] * 2 + ["user"]


def test_or_all_stand_in_one_message() -> None:
    query = SPLIT.test.queries[0]
    builder = prepared(SPLIT, demonstrations=2, turns=False)
    (message,) = builder.build(query, SPLIT.catalog).messages
    turns = prepared(SPLIT, demonstrations=2).build(query, SPLIT.catalog).messages
    assert all(turn.text in message.text for turn in turns)
    assert message.text.startswith("Example 1, another user:")
    assert message.text.endswith("Answer:")


def test_the_items_of_demonstrations_are_told() -> None:
    query = SPLIT.test.queries[0]
    instruction = prepared(SPLIT, demonstrations=2).build(query, SPLIT.catalog)
    text = "\n".join(message.text for message in instruction.messages[:-1])
    named = {i for i, title in enumerate(SPLIT.catalog.title) if title in text}
    assert set(instruction.shown) == named
    chosen = chooser(n=2).choose(query)
    assert named == set(
        itertools.chain(*([*one.query.history.tolist(), *candidates(one)] for one in chosen))
    )


def test_an_answer_of_a_demonstration_is_read_as_its_ranking() -> None:
    query = SPLIT.test.queries[0]
    for structured in (False, True):
        builder = prepared(SPLIT, demonstrations=2, structured=structured)
        answers = [m.text for m in builder.build(query, SPLIT.catalog).messages[1::2]]
        other = Query(0, query.history, np.arange(5, dtype=np.int32))
        instruction = builder.build(other, SPLIT.catalog)
        for answer, one in zip(answers, chooser(n=2).choose(query), strict=True):
            assert builder.parse(answer, instruction) == list(one.ranking)
