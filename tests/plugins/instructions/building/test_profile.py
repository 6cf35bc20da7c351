import json
from typing import Any

import pytest

from mmrec_bench.teaching import WritingRequest
from mmrec_plugins.instructions.building.jobs import Made, Rejected, work
from mmrec_plugins.instructions.building.profile import SCHEMA, check_profile
from mmrec_plugins.instructions.building.quality import copied_share
from mmrec_plugins.instructions.building.reading import ReadObject
from mmrec_plugins.instructions.building.tastes import Tastes
from tests.plugins.instructions.building.making import Saying, make_data, make_workshop


def run(teacher: Saying, **options: Any) -> list[Made | Rejected]:  # noqa: ANN401 - options of several types
    workshop = make_workshop(make_data(), teacher, kinds=("profile",), **options)
    return work(workshop.jobs("profile"), teacher.write, at_once=5, on_done=lambda: None)


def test_each_chunk_is_read_with_the_profile_of_those_before() -> None:
    asked: list[str] = []

    def say(request: WritingRequest) -> str:
        asked.append(request.messages[0].text)
        return json.dumps({"summary": f"Profile number {len(asked)} of them.", "likes": []})

    workshop = make_workshop(make_data(), Saying(say), chunk=2, min_history=1, limit=1)
    (made,) = work(workshop.jobs("profile"), workshop.teacher.write, at_once=1,
                   on_done=lambda: None)  # fmt: skip
    sources = workshop.prepared.sources
    n = len(sources.histories[sources.chosen_users()[0]])
    assert len(asked) == (n + 1) // 2
    assert "Profile so far" not in asked[0]
    for before, text in enumerate(asked[1:], start=1):
        assert f"Profile number {before} of them." in text
        assert f"\n{2 * before + 1}. " in text
    assert isinstance(made, Made)
    assert made.entry.value["summary"] == f"Profile number {len(asked)} of them."
    assert len(made.entry.items) == n


def test_what_a_round_keeps_of_the_profile_so_far_is_not_copied_text() -> None:
    said = json.dumps({"summary": "A shopper who likes glass things by Zyx in red and in blue."})
    for made in run(Saying(lambda _: said), chunk=2, min_history=1):
        assert isinstance(made, Made)
        assert copied_share(made.prose, made.source) == 0
        assert made.prose in made.content


def test_a_bad_answer_in_the_middle_ends_that_profile_alone() -> None:
    def say(request: WritingRequest) -> str:
        return request.draft if "Profile so far" not in request.messages[0].text else "nonsense"

    results = run(Saying(say), chunk=3, min_history=1)
    reasons = {one.reason for one in results if isinstance(one, Rejected)}
    assert reasons == {"no JSON object"}
    assert any(isinstance(one, Made) for one in results)


@pytest.mark.parametrize(
    ("raw", "profile"),
    [
        ({"summary": " a  b "}, ("a b", [], [], [])),
        ({"summary": "a", "likes": "mugs", "dislikes": None}, ("a", ["mugs"], [], [])),
        ({"summary": "a", "likes": ["x", "x", " "]}, ("a", ["x"], [], [])),
        ({"summary": "a", "likes": [1]}, None),
        ({"summary": "", "likes": []}, None),
        ({"likes": ["a"]}, None),
        ({"summary": ["a"]}, None),
    ],
)
def test_missing_lists_are_mended_and_wrong_types_are_not(
    raw: dict[str, Any], profile: tuple[object, ...] | None
) -> None:
    found = check_profile(ReadObject(raw, repaired=False))
    assert (found and tuple(found.values())) == profile


def test_rules_find_what_a_history_has_more_of_than_the_catalog() -> None:
    catalog = make_data(n_items=40).catalog
    glass_and_red = [i for i in range(40) if i % 20 == 0] + [5, 10, 4, 8]
    draft = json.loads(Tastes(catalog, "en").draft(glass_and_red, [1, 21, 6, 26]))
    assert "glass" in draft["likes"]
    assert draft["visual_taste"] == ["red"]
    assert draft["dislikes"][0] == "steel"
    assert set(draft) == set(SCHEMA["required"])


def test_the_chinese_profile_is_chinese() -> None:
    teacher = Saying(lambda request: request.draft)
    results = run(teacher, language="zh")
    assert all(isinstance(one, Made) for one in results)
    assert "请写出" in teacher.asked[0].messages[0].text
    assert all("该用户" in one.entry.value["summary"] for one in results if isinstance(one, Made))


def test_users_with_a_short_history_get_no_profile() -> None:
    teacher = Saying(lambda request: request.draft)
    assert run(teacher, min_history=50) == []
    assert teacher.asked == []
