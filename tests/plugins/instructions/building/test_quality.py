from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmrec_plugins.instructions.building.config import BuildingConfig, Language
from mmrec_plugins.instructions.building.duplicates import Duplicates
from mmrec_plugins.instructions.building.jobs import Made, Rejected, work
from mmrec_plugins.instructions.building.quality import Filters, copied_share, repetitive
from tests.plugins.instructions.building.making import make_data, make_workshop

WORKSHOP = make_workshop(make_data(), kinds=("profile",))
WORDS = ("alpha", "beta", "gamma", "delta", "omega", "kappa")


def a_profile(**changes: Any) -> Made:  # noqa: ANN401 - options of several types
    results = work(
        WORKSHOP.jobs("profile"), WORKSHOP.teacher.write, at_once=3, on_done=lambda: None
    )
    made = results[0]
    assert isinstance(made, Made)
    return replace(made, **changes)


def reason(made: Made, *, language: Language = "en", **options: Any) -> str | None:  # noqa: ANN401 - options of several types
    prepared = WORKSHOP.prepared
    filters = Filters(BuildingConfig(**options), language, prepared.sources.catalog, prepared.truth)
    rejected = filters.judge([made]).rejected
    return rejected[0].reason if rejected else None


def test_a_sound_entry_is_kept() -> None:
    assert reason(a_profile()) is None


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"prose": "Mugs."}, "too short"),
        ({"prose": " ".join(f"word{i}" for i in range(200))}, "too long"),
        ({"phrases": (" ".join(f"word{i}" for i in range(20)),)}, "too long"),
        ({"prose": "As an AI language model I know no shopper."}, "refused"),
        ({"prose": "该用户喜欢蓝色的杯子和灯。"}, "wrong language"),
        ({"prose": "a card is a card is a card is a card is a card is a card"}, "repetition"),
        (
            {
                "prose": "one two three four five six seven eight nine ten",
                "source": "zero one two three four five six seven eight nine ten",
            },
            "copied text",
        ),
    ],
)
def test_each_fault_has_its_reason(changes: dict[str, Any], expected: str) -> None:
    assert reason(a_profile(**changes)) == expected


def test_english_prose_in_a_chinese_corpus_is_the_wrong_language() -> None:
    assert reason(a_profile(), language="zh") == "wrong language"
    assert reason(a_profile(prose="该用户喜欢 Lunor 的蓝色杯子。"), language="zh") is None


def test_a_profile_that_dislikes_what_it_likes_contradicts_itself() -> None:
    made = a_profile()
    value = {**made.entry.value, "likes": ["mugs"], "dislikes": ["Mugs!"]}
    entry = made.entry.model_copy(update={"value": value})
    assert reason(replace(made, entry=entry)) == "contradiction"


def test_a_profile_that_lists_items_is_no_profile() -> None:
    made = a_profile()
    title = WORKSHOP.prepared.sources.catalog.title[min(made.shown)]
    assert reason(replace(made, phrases=("mugs", title.upper()))) == "names an item"


def test_rejections_are_counted_by_reason_and_kind() -> None:
    prepared = WORKSHOP.prepared
    filters = Filters(BuildingConfig(), "en", prepared.sources.catalog, prepared.truth)
    refused = Rejected("attributes", "x", "refused")
    judged = filters.judge([a_profile(), a_profile(), refused, a_profile(prose="Mugs.")])
    assert len(judged.kept) == 1
    assert judged.reasons("profile") == {"duplicate": 1, "too short": 1}
    assert judged.reasons("attributes") == {"refused": 1}


def test_a_name_of_a_few_words_is_not_copied_text() -> None:
    assert copied_share("a very long brand name", "a very long brand name") == 0


def test_copied_share_counts_runs_of_five_words() -> None:
    source = "one two three four five six seven eight"
    # runs of the text: 1-5 .. 4-8 stand in the source, the two with x do not
    assert copied_share("one two three four five six seven eight x y", source) == 4 / 6


def test_circles_are_found_and_lists_are_not() -> None:
    assert repetitive("grey, white, " * 9)
    assert not repetitive("A shopper who likes glass mugs, red lamps and cotton bags by Lunor.")


@given(st.lists(st.sampled_from(WORDS), min_size=1, max_size=30))
def test_punctuation_and_case_hide_no_duplicate(words: list[str]) -> None:
    seen = Duplicates(0.9)
    assert seen.find("first", " ".join(words)) is None
    found = seen.find("second", ", ".join(words).upper() + ".")
    assert found == ("duplicate", "first")


@given(
    st.lists(st.integers(0, 10**6), min_size=60, max_size=80, unique=True),
    st.integers(0, 59),
)
@settings(max_examples=40)
def test_one_other_word_in_many_is_a_near_duplicate(numbers: list[int], place: int) -> None:
    words = [f"w{number}" for number in numbers]
    other = [*words[:place], "another", *words[place + 1 :]]
    seen = Duplicates(0.8)
    assert seen.find("first", " ".join(words)) is None
    found = seen.find("second", " ".join(other))
    shared = {tuple(words[i : i + 3]) for i in range(len(words) - 2)}
    mine = {tuple(other[i : i + 3]) for i in range(len(other) - 2)}
    assert len(shared & mine) / len(shared | mine) >= 0.8
    assert found == ("near duplicate", "first")


def test_texts_on_other_things_are_no_duplicates() -> None:
    seen = Duplicates(0.9)
    for number in range(300):
        text = " ".join(f"w{number}x{i}" for i in range(30))
        assert seen.find(str(number), text) is None
