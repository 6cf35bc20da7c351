"""The Amazon loader on small hand-written files of each layout, and on the real 2018 files."""

import gzip
import json
import logging
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from mmrec_bench.config import ProtocolConfig
from mmrec_bench.errors import ConfigError, DataFormatError, DataMissingError, MMRecError
from mmrec_bench.protocol import make_split
from mmrec_bench.testing import DatasetTests
from mmrec_bench.types import RecData, Review
from mmrec_plugins.datasets.amazon import Amazon
from tests.plugins.datasets.making import (
    META_2014,
    lines,
    load_amazon,
    meta_2018,
    meta_2023,
    pack,
    picture,
    review_2014,
    review_2018,
    review_2023,
)


class TestContract(DatasetTests):
    def make(self) -> Amazon:
        return Amazon(Amazon.Config())

    def load(self, tmp_path: Path) -> RecData:
        rows = [review_2018("A1", time=1_500_000_009), review_2018("A2"), review_2018("A1")]
        pack(tmp_path / "Mugs_5.json.gz", lines(rows))
        return load_amazon(tmp_path)


def test_reviews_are_kept_where_asked_for(tmp_path: Path) -> None:
    rows = [
        review_2018("A1", time=1_500_000_009, summary="Late", reviewText="A <b>red</b> one."),
        review_2018("A1", item="B000000002", reviewText=7, summary=None),
        review_2018("A2", overall=float("nan")),
        review_2018("A2", summary="NaN", reviewText="\ud800 good"),
    ]
    pack(tmp_path / "Mugs_5.json.gz", lines(rows))
    plain, data = load_amazon(tmp_path), load_amazon(tmp_path, reviews=True)
    assert plain.interactions.review is None
    assert data.interactions.review is not None
    assert data.interactions.review.tolist() == [
        None,
        Review("Late", "A red one."),
        Review("NaN", "? good"),
    ]
    assert data.card.counts["rows_with_review"] == 2
    assert data.version != plain.version


def test_reviews_of_2023_are_called_title_and_text(tmp_path: Path) -> None:
    row = review_2023(title="Fine", text="It holds.")
    (tmp_path / "Mugs.jsonl").write_bytes(lines([row]))
    found = load_amazon(tmp_path, reviews=True).interactions.review
    assert found is not None
    assert found.tolist() == [Review("Fine", "It holds.")]


def test_reviews_stay_with_their_interactions_under_a_protocol(tmp_path: Path) -> None:
    rows = [
        review_2018(f"A{u}", item=f"B00000000{i}", time=1_500_000_000 + i, summary=f"{u} {i}")
        for u in range(3)
        for i in range(4)
    ]
    pack(tmp_path / "Mugs_5.json.gz", lines(rows))
    config = ProtocolConfig(k_core=0, candidates="full")
    split = make_split(load_amazon(tmp_path, reviews=True), config)
    assert split.train.review is not None
    for user, item, review in zip(
        split.train.user, split.train.item, split.train.review, strict=True
    ):
        number = split.users.ids[user][1:], split.catalog.items.ids[item][-1]
        assert review.summary == " ".join(number)


# Layouts ------------------------------------------------------------------------------------------


def test_2018_files_are_read(tmp_path: Path) -> None:
    pack(tmp_path / "Mugs_5.json.gz", lines([review_2018("A1"), review_2018("A2", overall=3)]))
    pack(tmp_path / "meta_Mugs.json.gz", lines([meta_2018("B000000009"), meta_2018()]))
    picture(tmp_path / "images" / "B000000001.jpg")
    data = load_amazon(tmp_path)
    assert data.name == "amazon-2018-mugs"
    assert data.users.ids == ("A1", "A2")
    assert data.interactions.rating.tolist() == [5.0, 3.0]
    assert data.interactions.timestamp.tolist() == [1_500_000_000] * 2
    item = data.catalog[0]
    assert item.id == "B000000001"
    assert item.title == "Red Mug & Saucer"
    assert item.text == "A red mug. Holds 0.3 l."
    assert item.attributes == {
        "brand": "Acme",
        "category": "Mugs",
        "price": "1234.50",
        "color": "Red",
    }
    assert item.images == (tmp_path / "images" / "B000000001.jpg",)
    assert data.catalog.image_urls[0] == ("https://example.org/large.jpg",)
    assert data.card.counts["meta_unused"] == 1


def test_2014_files_are_read(tmp_path: Path) -> None:
    pack(tmp_path / "reviews_Toys_5.json.gz", lines([review_2014()]))
    pack(tmp_path / "meta_Toys.json.gz", META_2014)
    data = load_amazon(tmp_path)
    assert data.name == "amazon-2014-toys"
    item = data.catalog[0]
    assert item.title == "Girls' Ballet Tutu Café"
    assert item.attributes == {"brand": "Coxlures", "category": "Tutus", "price": "3.17"}
    assert data.catalog.image_urls[0] == ("http://example.org/a.jpg",)


def test_2023_files_are_read(tmp_path: Path) -> None:
    rows = [review_2023(time=1_588_687_728_923), review_2023(item="B00OTHER01")]
    pack(tmp_path / "All_Beauty.jsonl.gz", lines(rows))
    pack(tmp_path / "meta_All_Beauty.jsonl.gz", lines([meta_2023()]))
    data = load_amazon(tmp_path)
    assert data.name == "amazon-2023-all-beauty"
    assert data.catalog.items.ids == ("B00YQ6X8EO", "B00OTHER01")
    assert data.interactions.timestamp.tolist() == [1_588_687_728] * 2
    item = data.catalog[0]
    assert item.text == "Vegan Blue"
    assert item.attributes == {
        "brand": "Herbivore Botanicals",
        "category": "All Beauty",
        "price": "12.50",
        "material": "Glass",
    }
    assert data.catalog.image_urls[0] == ("https://example.org/h.jpg", "https://example.org/l1.jpg")
    assert data.card.counts["items_without_meta"] == 1


def test_2023_rows_of_one_second_keep_their_order_by_milliseconds(tmp_path: Path) -> None:
    times = {"B00C": 1_588_687_728_003, "B00A": 1_588_687_728_001, "B00B": 1_588_687_728_002}
    rows = [review_2023(item=item, time=time) for item, time in times.items()]
    pack(tmp_path / "X.jsonl", lines(rows))
    data = load_amazon(tmp_path)
    assert [data.catalog.items[i] for i in data.interactions.item] == ["B00A", "B00B", "B00C"]


def test_a_2023_row_without_parent_falls_back_to_its_own_id(tmp_path: Path) -> None:
    row = review_2023()
    del row["parent_asin"]
    pack(tmp_path / "X.jsonl", lines([row]))
    assert load_amazon(tmp_path).catalog.items.ids == ("B00VARIANT",)


def test_the_layout_is_told_by_content_not_by_name(tmp_path: Path) -> None:
    pack(tmp_path / "reviews_Mugs_5.json.gz", b"not json\n" + lines([review_2018()]))
    assert load_amazon(tmp_path).name == "amazon-2018-mugs"


def test_plain_files_give_the_same_version_as_packed_ones(tmp_path: Path) -> None:
    for folder, suffix in (("a", ""), ("b", ".gz")):
        pack(tmp_path / folder / f"Mugs_5.json{suffix}", lines([review_2018()]))
        pack(tmp_path / folder / f"meta_Mugs.json{suffix}", lines([meta_2018()]))
    assert load_amazon(tmp_path / "a").version == load_amazon(tmp_path / "b").version


@pytest.mark.parametrize("part", ["Mugs_5.json.gz", "meta_Mugs.json.gz", "images/B000000001.jpg"])
def test_any_changed_file_is_another_version(tmp_path: Path, part: str) -> None:
    pack(tmp_path / "Mugs_5.json.gz", lines([review_2018()]))
    pack(tmp_path / "meta_Mugs.json.gz", lines([meta_2018()]))
    picture(tmp_path / "images" / "B000000001.jpg")
    before = load_amazon(tmp_path).version
    if part.endswith(".jpg"):
        picture(tmp_path / part, "PNG")
    else:
        pack(tmp_path / part, lines([review_2018(), meta_2018(title="Other")]))
    assert load_amazon(tmp_path).version != before


# Which files --------------------------------------------------------------------------------------


def test_the_only_category_is_taken_from_a_folder_named_amazon(tmp_path: Path) -> None:
    pack(tmp_path / "amazon-2018" / "Mugs_5.json.gz", lines([review_2018()]))
    picture(tmp_path / "amazon-2018" / "images" / "B000000001.png", "PNG")
    assert load_amazon(tmp_path).catalog.images[0][0].name == "B000000001.png"


def test_several_categories_must_be_chosen_from(tmp_path: Path) -> None:
    for name in ("Mugs", "Lamps"):
        pack(tmp_path / f"{name}_5.json.gz", lines([review_2018()]))
    with pytest.raises(ConfigError, match=r"Lamps \(2018\), Mugs \(2018\).*dataset\.category="):
        load_amazon(tmp_path)
    assert load_amazon(tmp_path, category="mugs").name == "amazon-2018-mugs"


def test_several_layouts_of_a_category_must_be_chosen_from(tmp_path: Path) -> None:
    pack(tmp_path / "Mugs_5.json.gz", lines([review_2018()]))
    pack(tmp_path / "Mugs.jsonl.gz", lines([review_2023()]))
    with pytest.raises(ConfigError, match=r"dataset\.format="):
        load_amazon(tmp_path, category="Mugs")
    assert load_amazon(tmp_path, format="2023").name == "amazon-2023-mugs"


def test_the_five_core_file_is_preferred_and_said_so(tmp_path: Path) -> None:
    pack(tmp_path / "Mugs.json.gz", lines([review_2018("A1"), review_2018("A2")]))
    pack(tmp_path / "Mugs_5.json.gz", lines([review_2018("A1")]))
    data = load_amazon(tmp_path)
    assert len(data.users) == 1
    assert "5-core file" in data.card.notes[0]


def test_a_missing_category_says_where_to_get_it_and_where_to_put_it(tmp_path: Path) -> None:
    pack(tmp_path / "Mugs_5.json.gz", lines([review_2018()]))
    with pytest.raises(DataMissingError) as missing:
        load_amazon(tmp_path, category="Lamps")
    message = str(missing.value)
    for part in (
        "Lamps_5.json.gz",
        "meta_Lamps.jsonl.gz",
        "https://nijianmo.github.io/amazon/",
        str(tmp_path),
        "Mugs (2018)",
        "data fetch amazon --category Lamps",
    ):
        assert part in message
    assert "\n" not in message


def test_a_file_with_the_right_name_and_no_reviews_is_not_passed_over(tmp_path: Path) -> None:
    pack(tmp_path / "Mugs_5.json.gz", b'{"a": 1}\n')
    with pytest.raises(DataFormatError, match="Mugs_5"):
        load_amazon(tmp_path)


def test_metadata_without_reviews_is_not_passed_over(tmp_path: Path) -> None:
    pack(tmp_path / "meta_Mugs.json.gz", lines([meta_2018()]))
    with pytest.raises(DataMissingError, match="only metadata"):
        load_amazon(tmp_path)


def test_other_json_files_at_the_root_are_left_alone(tmp_path: Path) -> None:
    pack(tmp_path / "notes.json", b'{"a": 1}')
    pack(tmp_path / "Mugs_5.json.gz", lines([review_2018()]))
    assert load_amazon(tmp_path).name == "amazon-2018-mugs"


# The sample ---------------------------------------------------------------------------------------


def test_the_sample_is_used_and_named_where_there_is_no_data(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "mmrec_bench"):
        data = load_amazon(tmp_path / "nothing")
    assert data.name == "amazon-sample"
    assert len(data.interactions) > 1000
    assert data.card.counts["broken_images"] == data.card.counts["broken_lines"] == 0
    said = [record.getMessage() for record in caplog.records]
    assert "amazon-sample" in said[0]
    assert "data fetch amazon" in said[0]


def test_the_sample_follows_its_seed_and_size(tmp_path: Path) -> None:
    small = load_amazon(tmp_path, sample_users=150, sample_items=100)
    other = load_amazon(tmp_path, sample_users=150, sample_items=100, sample_seed=1)
    again = load_amazon(tmp_path, sample_users=150, sample_items=100)
    assert small.version == again.version != other.version
    assert len(small.users) <= 150


def test_two_processes_writing_the_sample_at_once_agree(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from mmrec_plugins.datasets.amazon import Amazon;"
        "d = Amazon(Amazon.Config(sample_users=150, sample_items=100)).load(Path('none'));"
        "print(d.version, d.card.counts['images'])"
    )
    environment = {"MMREC_CACHE": str(tmp_path), "PYTHONPATH": ":".join(sys.path)}
    runs = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment)
        for _ in range(2)
    ]
    said = [run.communicate()[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0]
    assert said[0] == said[1] != b""


def test_a_cache_that_cannot_be_written_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MMREC_CACHE", str(tmp_path / "file"))
    with pytest.raises(MMRecError, match="MMREC_CACHE"):
        load_amazon(tmp_path)


# Pictures -----------------------------------------------------------------------------------------


def test_broken_pictures_are_counted_and_left_out(tmp_path: Path) -> None:
    names = ["B1", "B2", "B3", "B4"]
    pack(tmp_path / "Mugs_5.json.gz", lines([review_2018(item=name) for name in names]))
    images = tmp_path / "images"
    picture(images / "B1.png", "JPEG")
    (images / "B2.jpg").write_bytes(b"")
    (images / "B3.jpg").write_bytes(b"<html>")
    data = load_amazon(tmp_path)
    assert data.catalog.images == [(images / "B1.png",), (), (), ()]
    assert data.card.counts["broken_images"] == 2
    assert data.card.counts["items_without_image"] == 3
    with pytest.raises(DataFormatError, match=r"B2.jpg: zero bytes"):
        load_amazon(tmp_path, strict=True)


def test_pictures_come_from_the_folder_that_was_named(tmp_path: Path) -> None:
    pack(tmp_path / "data" / "Mugs_5.json.gz", lines([review_2018()]))
    picture(tmp_path / "photos" / "B000000001.webp", "WEBP")
    data = load_amazon(tmp_path / "data", images=tmp_path / "photos")
    assert [path.name for path in data.catalog.images[0]] == ["B000000001.webp"]


def test_an_id_cannot_lead_out_of_the_picture_folder(tmp_path: Path) -> None:
    picture(tmp_path / "secret.jpg")
    (tmp_path / "data" / "images").mkdir(parents=True)
    rows = [review_2018(), *(review_2018(item=i) for i in ("../../secret", "..", "images/../../x"))]
    pack(tmp_path / "data" / "Mugs_5.json.gz", lines(rows))
    data = load_amazon(tmp_path / "data")
    assert data.catalog.items.ids == ("B000000001",)
    assert data.card.counts["bad_ids"] == 3


# Memory -------------------------------------------------------------------------------------------


def test_memory_follows_the_kept_rows_not_the_files(tmp_path: Path) -> None:
    pack(tmp_path / "Mugs_5.json.gz", lines([review_2018()]))

    def peak(n_unrelated: int) -> int:
        with gzip.open(tmp_path / "meta_Mugs.json.gz", "wb", compresslevel=1) as file:
            for i in range(n_unrelated):
                row = meta_2018(f"C{i:09d}", description=["long text " * 200])
                file.write(json.dumps(row).encode() + b"\n")
        tracemalloc.start()
        try:
            assert load_amazon(tmp_path).card.counts["meta_rows_read"] == n_unrelated
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(10)  # what is imported on first use does not count
    small, large = peak(2_000), peak(20_000)  # 5 MB and 50 MB unpacked
    assert large < small + 1_000_000
    assert large < 8_000_000


# Real files ---------------------------------------------------------------------------------------


def test_the_real_gift_cards_are_read_whole(shared_data: Path) -> None:
    data = load_amazon(shared_data / "amazon-2018", category="Gift_Cards", strict=True)
    counts = data.card.counts
    assert data.name == "amazon-2018-gift-cards"
    assert (len(data.users), len(data.catalog)) == (458, 148)
    assert counts["rows_read"] == 2972
    assert counts["duplicate_rows"] + counts["repeated_pairs"] == 7
    assert counts["rows_kept"] == len(data.interactions) == 2969
    assert (counts["images"], counts["items_without_image"]) == (115, 33)
    assert counts["meta_rows_read"] == 1547
    assert counts["items_without_title"] == 0


def test_the_real_categories_beside_each_other_are_listed(shared_data: Path) -> None:
    with pytest.raises(ConfigError, match=r"AMAZON_FASHION.*All_Beauty.*Gift_Cards"):
        load_amazon(shared_data / "amazon-2018")


def test_real_reviews_without_metadata_are_read(shared_data: Path) -> None:
    data = load_amazon(shared_data, category="All Beauty")
    assert data.card.counts["rows_read"] == 5269
    assert data.card.counts["items_without_meta"] == len(data.catalog)
    order = np.lexsort((data.interactions.timestamp, data.interactions.user))
    assert (order == np.arange(len(order))).all()
