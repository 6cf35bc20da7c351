"""Damaged and odd Amazon files: what is left out, counted, or refused."""

import gzip
import logging
from pathlib import Path
from typing import Any

import pytest

from mmrec_bench.errors import DataFormatError
from tests.plugins.datasets.making import lines, load_amazon, meta_2018, pack, review_2018

BAD_LINES: dict[str, bytes] = {
    "broken_lines": b'{"overall": 5.0, "reviewerID": "A1"\n',
    "not_objects": b'["A1", "B000000001"]\n',
    "missing_fields": lines([{k: v for k, v in review_2018().items() if k != "asin"}]),
    "wrong_types": lines([review_2018(overall="5.0")]),
    "bad_ids": lines([review_2018(item="../../etc/passwd")]),
    "bad_ratings": lines([review_2018(overall=float("nan"))]),
    "bad_timestamps": lines([review_2018(time=-5)]),
}


@pytest.mark.parametrize("name", BAD_LINES)
def test_an_unusable_line_is_counted_under_its_fault(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    pack(tmp_path / "Mugs_5.json.gz", lines([review_2018()]) + BAD_LINES[name])
    with caplog.at_level(logging.WARNING, "mmrec_bench"):
        data = load_amazon(tmp_path)
    assert len(data.interactions) == 1
    assert data.card.counts[name] == 1
    assert data.card.counts["rows_read"] == 2
    assert [r.getMessage() for r in caplog.records] == [
        f"amazon-2018-mugs: left out or repaired while reading: 1 {name}"
    ]


@pytest.mark.parametrize("name", BAD_LINES)
def test_strict_names_the_file_and_the_line(tmp_path: Path, name: str) -> None:
    path = pack(tmp_path / "Mugs_5.json.gz", lines([review_2018()]) + b"\n" + BAD_LINES[name])
    with pytest.raises(DataFormatError, match=rf"{path.name}, line 3: .*\(strict\)"):
        load_amazon(tmp_path, strict=True)


@pytest.mark.parametrize(
    "row",
    [
        review_2018(user=""),
        review_2018(user="a b"),
        review_2018(user="x" * 200),
        review_2018(item="B/1"),
        review_2018(item="."),
        review_2018(item="B1.jpg"),
        review_2018(user=None),  # type: ignore[arg-type]
        review_2018(user=["A1"]),  # type: ignore[arg-type]
        review_2018(item={"a": 1}),  # type: ignore[arg-type]
        review_2018(overall=True),
        review_2018(overall=7),
        review_2018(overall=float("inf")),
        review_2018(time=10**30),
        review_2018(time=1_500_000_000_000),
        review_2018(time="1500000000"),  # type: ignore[arg-type]
        review_2018(time=float("nan")),  # type: ignore[arg-type]
    ],
)
def test_odd_values_are_left_out_and_counted(tmp_path: Path, row: dict[str, object]) -> None:
    pack(tmp_path / "Mugs_5.json.gz", lines([review_2018(), row]))
    data = load_amazon(tmp_path)
    faults = ("missing_fields", "wrong_types", "bad_ids", "bad_ratings", "bad_timestamps")
    assert (len(data.interactions), sum(data.card.counts[f] for f in faults)) == (1, 1)


def test_a_whole_time_written_as_a_float_is_kept(tmp_path: Path) -> None:
    pack(tmp_path / "Mugs_5.json.gz", lines([review_2018(time=1.5e9)]))  # type: ignore[arg-type]
    assert load_amazon(tmp_path).interactions.timestamp.tolist() == [1_500_000_000]


def test_exact_duplicates_are_dropped_and_other_repeats_counted(tmp_path: Path) -> None:
    rows = [
        review_2018("A1"),
        review_2018("A2"),
        review_2018("A1", reviewText="the same row by its key"),
        review_2018("A1", time=1_500_000_001),
        review_2018("A2", overall=4.0),
    ]
    pack(tmp_path / "Mugs_5.json.gz", lines(rows))
    data = load_amazon(tmp_path)
    counts = data.card.counts
    assert (counts["duplicate_rows"], counts["repeated_pairs"], counts["rows_kept"]) == (1, 2, 4)
    assert data.interactions.rating.tolist() == [5, 5, 5, 4]


def test_what_a_truncated_file_still_gives_is_kept(tmp_path: Path) -> None:
    rows = [review_2018(f"A{i}", reviewText=f"{i * 7919}" * 40) for i in range(2000)]
    path = pack(tmp_path / "Mugs_5.json.gz", lines(rows))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    data = load_amazon(tmp_path)
    assert data.card.counts["truncated_files"] == 1
    assert 500 < len(data.interactions) < 1500
    assert (
        len(data.interactions) + data.card.counts["broken_lines"] == data.card.counts["rows_read"]
    )
    with pytest.raises(DataFormatError, match=r"Mugs_5.json.gz: the compressed file ends early"):
        load_amazon(tmp_path, strict=True)


def test_members_and_padding_after_a_gzip_member_are_read(tmp_path: Path) -> None:
    parts = [gzip.compress(lines([review_2018(f"A{i}")])) for i in range(3)]
    (tmp_path / "Mugs_5.json.gz").write_bytes(b"".join(parts) + b"\0" * 512)
    data = load_amazon(tmp_path, strict=True)
    assert len(data.users) == 3


def test_a_file_without_a_usable_row_is_an_error_with_its_counts(tmp_path: Path) -> None:
    pack(tmp_path / "Mugs_5.json.gz", lines([review_2018(time=-5)]))
    with pytest.raises(DataFormatError, match=r"no usable row; read: .*'bad_timestamps': 1"):
        load_amazon(tmp_path)


def test_metadata_faults_are_counted(tmp_path: Path) -> None:
    pack(tmp_path / "Mugs_5.json.gz", lines([review_2018()]))
    content = b"{broken\n[1]\n" + lines(
        [{"title": "no id"}, meta_2018(), meta_2018(title="again"), meta_2018("B2"), {"asin": "/"}]
    )
    pack(tmp_path / "meta_Mugs.json.gz", content)
    data = load_amazon(tmp_path)
    counts = data.card.counts
    assert counts["meta_rows_read"] == 7
    assert counts["meta_broken_lines"] == 2
    assert counts["meta_bad_ids"] == 2
    assert (counts["meta_kept"], counts["meta_duplicates"], counts["meta_unused"]) == (1, 1, 1)
    assert data.catalog.title[0] == "Red Mug & Saucer"
    with pytest.raises(DataFormatError, match=r"meta_Mugs.json.gz, line 1"):
        load_amazon(tmp_path, strict=True)


@pytest.mark.parametrize(
    "more",
    [
        {"title": None}, {"title": 3}, {"title": ["a"]}, {"description": None},
        {"description": {"a": 1}}, {"description": [1, None, "ok"]}, {"category": "Mugs"},
        {"category": [None]}, {"category": None, "main_cat": 5}, {"price": True}, {"price": [1]},
        {"price": float("nan")}, {"details": [1]}, {"details": {"Color": None}}, {"brand": ["x"]},
        {"imageURLHighRes": 5, "imageURL": {}}, {"imageURLHighRes": [None, 3, "x"]},
    ],
)  # fmt: skip
def test_odd_metadata_never_stops_a_load(tmp_path: Path, more: dict[str, Any]) -> None:
    pack(tmp_path / "Mugs_5.json.gz", lines([review_2018()]))
    pack(tmp_path / "meta_Mugs.json.gz", lines([meta_2018(**more)]))
    data = load_amazon(tmp_path)
    assert data.card.counts["meta_kept"] == 1
    assert all(isinstance(value, str) for value in data.catalog[0].attributes.values())


def test_a_title_that_is_page_code_is_blanked_and_counted(tmp_path: Path) -> None:
    code = "\n\n\nvar aPageStart = (new Date()).getTime();\nvar ue_t0=ue_t0||+new Date();\n"
    pack(tmp_path / "Mugs_5.json.gz", lines([review_2018()]))
    pack(tmp_path / "meta_Mugs.json.gz", lines([meta_2018(title=code)]))
    data = load_amazon(tmp_path)
    assert data.catalog.title[0] == ""
    assert data.card.counts["broken_titles"] == data.card.counts["items_without_title"] == 1
