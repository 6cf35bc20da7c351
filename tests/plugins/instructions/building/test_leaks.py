"""Nothing of a user's validation and test cases reaches what a teacher or a model reads."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmrec_bench.config import TransferConfig
from mmrec_bench.teaching import WritingRequest
from mmrec_bench.types import Interactions, RecData, Vocabulary
from mmrec_plugins.instructions.building.jobs import Made, work
from mmrec_plugins.instructions.building.quality import Filters, Judged
from mmrec_plugins.instructions.building.writing import Workshop
from mmrec_plugins.instructions.corpus import KINDS, CorpusEntry, Kind
from tests.plugins.instructions.building.making import Saying, make_data, make_workshop

PLANTED = "Qwertzplanted unicorn"
SPLITS = ("leave-one-out", "user-ratio", "random-ratio", "global-time")


def results_of(workshop: Workshop, kind: Kind) -> list[Made]:
    results = work(workshop.jobs(kind), workshop.teacher.write, at_once=7, on_done=lambda: None)
    return [one for one in results if isinstance(one, Made)]


def judged(workshop: Workshop, kind: Kind) -> Judged:
    results = work(workshop.jobs(kind), workshop.teacher.write, at_once=7, on_done=lambda: None)
    request, prepared = workshop.request, workshop.prepared
    catalog = prepared.sources.catalog
    return Filters(request.building, request.language, catalog, prepared.truth).judge(results)


def text_of(entry: CorpusEntry) -> str:
    said = [part.text or "" for turn in entry.turns for part in turn.parts]
    return "\n".join([*said, entry.answer, json.dumps(entry.value)])


def held_out(workshop: Workshop, user: str) -> set[str]:
    sources = workshop.prepared.sources
    numbers = workshop.prepared.truth.items.get(sources.users.index(user), frozenset())
    return {sources.catalog.items[i] for i in numbers}


def train_of(workshop: Workshop, user: str) -> set[str]:
    sources = workshop.prepared.sources
    history = sources.histories[sources.users.index(user)].tolist()
    return {sources.catalog.items[i] for i in history}


@pytest.mark.parametrize("split", SPLITS)
@given(data_seed=st.integers(0, 50), seed=st.integers(0, 50))
@settings(max_examples=8, deadline=None)
def test_a_users_entries_show_train_items_and_no_held_out_one(
    split: str, data_seed: int, seed: int
) -> None:
    workshop = make_workshop(
        make_data(n_items=40, seed=seed),
        protocol_options={"split": split, "data_seed": data_seed, "n_candidates": 12},
        seed=seed,
        chunk=3,
        min_history=1,
        held_out_negatives=False,
    )
    kinds: tuple[Kind, ...] = ("profile", "zero-shot", "few-shot")
    for kind in kinds:
        for entry in judged(workshop, kind).kept:
            assert entry.user is not None
            own = {*entry.items, *([entry.target] if entry.target else [])}
            assert own <= train_of(workshop, entry.user)
            hidden = held_out(workshop, entry.user)
            assert not hidden & {*own, *entry.candidates}
            own_turns = entry.model_copy(update={"turns": entry.turns[-1:]})
            catalog = workshop.prepared.sources.catalog
            for name in hidden:
                assert catalog.title[catalog.items.index(name)] not in text_of(own_turns)


@pytest.mark.parametrize("split", SPLITS)
@given(data_seed=st.integers(0, 30))
@settings(max_examples=5, deadline=None)
def test_blind_negatives_are_the_only_place_of_a_held_out_item(split: str, data_seed: int) -> None:
    options: dict[str, object] = {"split": split, "data_seed": data_seed, "n_candidates": 12}
    workshop = make_workshop(make_data(n_items=40), protocol_options=options, min_history=1)
    kept = judged(workshop, "zero-shot")
    with_hidden = 0
    for entry in kept.kept:
        assert entry.user is not None
        hidden = held_out(workshop, entry.user)
        assert not hidden & {*entry.items, entry.target}
        assert entry.value["ranking"] == [entry.target]
        with_hidden += bool(hidden & set(entry.candidates))
    assert kept.held_out_negatives == with_hidden


def with_planted_target(data: RecData) -> RecData:
    """Give user 0 a newest item that nobody else ever takes."""
    n_items, n_rows = len(data.catalog), len(data.interactions)
    catalog = replace(
        data.catalog,
        items=Vocabulary([*data.catalog.items.ids, "planted"]),
        title=[*data.catalog.title, PLANTED],
        text=[*data.catalog.text, ""],
        attributes=[*data.catalog.attributes, {}],
        image_words=[*data.catalog.image_words, ()],
    )
    old = data.interactions
    rows = Interactions.build(
        np.append(old.user, 0),
        np.append(old.item, n_items),
        np.append(old.timestamp, 60 * n_rows + 10**6),
        np.append(old.rating, 5.0),
    )
    return replace(data, catalog=catalog, interactions=rows)


@pytest.mark.parametrize("chunk", [2, 50])
def test_a_planted_target_is_shown_to_no_teacher_and_named_in_no_answer(chunk: int) -> None:
    data = with_planted_target(make_data())
    teacher = Saying(lambda request: request.draft)
    workshop = make_workshop(data, teacher, protocol_options={"k_core": 0}, chunk=chunk)
    assert held_out(workshop, "user-0") >= {"planted"}
    profiles = results_of(workshop, "profile")
    assert len(profiles) == len(data.users)
    assert not any(PLANTED in m.text for one in teacher.asked for m in one.messages)
    assert not any(PLANTED in one.draft for one in teacher.asked)
    assert not any(PLANTED in text_of(made.entry) for made in profiles)
    kinds: tuple[Kind, ...] = ("zero-shot", "few-shot")
    for kind in kinds:
        for made in results_of(workshop, kind):
            assert PLANTED not in made.entry.answer
            assert "planted" not in {*made.entry.items, made.entry.target}


def test_without_held_out_negatives_a_planted_target_is_nowhere_in_its_users_entries() -> None:
    data = with_planted_target(make_data(n_users=8, n_items=16))
    workshop = make_workshop(
        data, protocol_options={"k_core": 0}, held_out_negatives=False, per_user=9
    )
    kept = judged(workshop, "zero-shot")
    mine = [entry for entry in kept.kept if entry.user == "user-0"]
    assert mine
    assert not any(PLANTED in text_of(entry) for entry in mine)
    assert kept.reasons("zero-shot")["held-out item"] > 0


def test_a_teacher_that_names_a_held_out_title_is_found_out() -> None:
    data = with_planted_target(make_data())

    def leak(_: WritingRequest) -> str:
        return json.dumps(
            {"summary": "This one would love the qwertzPLANTED, unicorn!", "likes": ["mugs"]}
        )

    workshop = make_workshop(data, Saying(leak), protocol_options={"k_core": 0})
    kept = judged(workshop, "profile")
    leaking = [one for one in kept.rejected if one.reason == "held-out title"]
    assert [one.about for one in leaking] == ["user-0"]
    assert leaking[0].detail == PLANTED


def test_a_leak_in_an_earlier_round_is_found_out_as_well() -> None:
    data = with_planted_target(make_data())
    rounds: dict[str, int] = {}

    def leak_first(request: WritingRequest) -> str:
        first = '"summary"' in request.messages[0].text and "Profile so far" not in (
            request.messages[0].text
        )
        rounds["first" if first else "next"] = 1
        said = f"Perhaps the {PLANTED} will come." if first else "Likes plain and simple things."
        return json.dumps({"summary": said})

    workshop = make_workshop(data, Saying(leak_first), protocol_options={"k_core": 0}, chunk=2)
    kept = judged(workshop, "profile")
    assert set(rounds) == {"first", "next"}
    assert "user-0" in [one.about for one in kept.rejected if one.reason == "held-out title"]


def test_the_draft_of_a_ranking_does_not_know_the_target() -> None:
    teacher = Saying(lambda request: request.draft)
    workshop = make_workshop(make_data(), teacher, distil=True, per_user=9)
    made = results_of(workshop, "zero-shot")
    agreeing = sum(one.entry.value["teacher_agrees"] for one in made)
    assert 0 < agreeing < len(made)


def test_leave_newest_keeps_the_newest_train_items_out_of_a_profile() -> None:
    workshop = make_workshop(make_data(), leave_newest=2, min_history=1)
    sources = workshop.prepared.sources
    for made in results_of(workshop, "profile"):
        assert made.user is not None
        history = [sources.catalog.items[i] for i in sources.histories[made.user].tolist()]
        assert list(made.entry.items) == history[:-2]


@pytest.mark.parametrize("kind", KINDS)
def test_users_and_items_that_a_transfer_holds_out_are_in_no_entry(kind: Kind) -> None:
    transfer = TransferConfig(hold_out="both", share=0.3)
    workshop = make_workshop(make_data(n_users=40, n_items=30), transfer=transfer)
    sources = workshop.prepared.sources
    assert sources.held_out is not None
    users = {sources.users[i] for i in sources.held_out.users.tolist()}
    titles = {sources.catalog.title[i] for i in sources.held_out.items.tolist()}
    entries = [one.entry for one in results_of(workshop, kind)]
    assert entries
    assert users
    assert titles
    assert not users & {entry.user for entry in entries}
    for entry in entries:
        assert not [title for title in titles if title in text_of(entry)]
