import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmrec_plugins.instructions.written import find_json, label_list, read_written

LABELS = ("A", "B", "C")
ANSWERS = ("Green vase", "M (1931)", "3. Rue; the cat (2,5 stars)")


def read(text: str) -> list[int]:
    return read_written(text, LABELS, ANSWERS)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"ranking": ["B", "A", "C"]}', [1, 0, 2]),
        ('```json\n{"ranking": ["B", "A"]}\n```', [1, 0]),
        ('Sure! {"ranking": ["C"]} I hope it helps. A', [2]),
        ('{"reason": "likes [vases]", "ranking": ["C", "A"]}', [2, 0]),
        ('{"ranking": ["B", "A", "C', [1, 0]),
        ('{"ranking": ["B", "A"', [1, 0]),
        ('{"ranking": [', []),
        ("{'ranking': ['B', 'A']}", [1, 0]),
        ("{ranking: [B, A, C]}", [1, 0, 2]),
        ("ranking: [B, A", [1]),  # what would have followed the last A is not known
        ('{"ranking": ["B", "Z", "A", "B"]}', [1, 0]),
        ('{"ranking": ["B. M (1931)", "Green vase"]}', [1, 0]),
        ('{"ranking": ["C. Green vase"]}', []),  # label and title contradict each other
        ('{"ranking": ["\\u0041"]}', [0]),
        ('{"ranking": []}', []),
        ('{"ranking": [1, 2]}', []),
        ('{"ranking": [{"label": "A"}]}', []),
        ('{"ranking": "A"}', []),
    ],
)
def test_json_is_read_and_repaired(text: str, expected: list[int]) -> None:
    assert read(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("B, A, C", [1, 0, 2]),
        ("B, Z, A", [1, 0]),  # an unknown label spoils no other
        ("B，A、C。", [1, 0, 2]),
        ("B > A > C", [1, 0, 2]),
        ("B；A", [1, 0]),
        ('["B", "A"]', [1, 0]),
        ("1. B\n2. A", [1, 0]),
        ("1、B\n2、A", [1, 0]),
        ("A. Green vase\nB. M (1931)", [0, 1]),
        ("green vase\nC", [0, 2]),
        ("M", []),
        ("3. Rue; the cat (2,5 stars)", [2]),
        ("C. 3. Rue; the cat (2,5 stars)\nA. Green vase", [2, 0]),
        ("I would take B because it is nice", []),
        ("A nice mug", []),
    ],
)
def test_plain_text_is_read(text: str, expected: list[int]) -> None:
    expected = [1] if text == "M" else expected  # no label M here, so it is the title
    assert read(text) == expected


def test_a_label_wins_over_a_title_of_that_letter() -> None:
    assert read_written("B", ("A", "B"), ("B (1999)", "Heat")) == [1]


def test_only_the_json_that_was_asked_for_is_clean() -> None:
    assert [
        found.clean
        for text in (
            ' {"ranking": ["A"]}\n',
            '```{"ranking": ["A"]}```',
            '{"ranking": ["A"], "why": 1}',
            '{"ranking": ["A"',
        )
        if (found := find_json(text)) is not None
    ] == [True, False, False, False]


def test_a_list_of_labels_is_told_from_prose() -> None:
    assert label_list("B, Z, AA") == ["B", "Z", "AA"]
    assert label_list("B") is None
    assert label_list("Mug, B") is None


JSON_LIKE = st.text(alphabet="{}[]\"'\\:,;> \nABZranking、，u0041", max_size=80)


@given(st.one_of(st.text(max_size=200), JSON_LIKE, JSON_LIKE.map(lambda t: '{"ranking": [' + t)))
def test_any_text_gives_valid_positions_and_reads_the_same_again(text: str) -> None:
    found = read(text)
    assert len(found) == len(set(found))
    assert all(0 <= i < len(LABELS) for i in found)
    named = [LABELS[i] for i in found]
    assert read(", ".join(named)) == found
    assert read(json.dumps({"ranking": named})) == found


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, '{"ranking": [' * 20_000])
def test_deep_nesting_raises_nothing(text: str) -> None:
    assert read(text) == []
