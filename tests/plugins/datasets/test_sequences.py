"""Sequence files with and without titles, and the real Beauty file."""

import gzip
import time
from pathlib import Path

import pytest

from mmrec_bench.errors import ConfigError, DataFormatError, DataMissingError
from mmrec_bench.testing import DatasetTests
from mmrec_bench.types import RecData
from mmrec_plugins.datasets.sequences import Sequences


def load(root: Path, **options: object) -> RecData:
    return Sequences(Sequences.Config.model_validate(options)).load(root)


def write(root: Path, content: str = "u1 b a c\nu2 a d\n", name: str = "Toys.txt") -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(content)
    return root


class TestContract(DatasetTests):
    def make(self) -> Sequences:
        return Sequences(Sequences.Config())

    def load(self, tmp_path: Path) -> RecData:
        return load(write(tmp_path))


def test_time_is_the_position_in_the_line(tmp_path: Path) -> None:
    data = load(write(tmp_path))
    assert data.name == "toys"
    assert data.users.ids == ("u1", "u2")
    assert data.catalog.items.ids == ("b", "a", "c", "d")
    assert data.interactions.user.tolist() == [0, 0, 0, 1, 1]
    assert data.interactions.item.tolist() == [0, 1, 2, 1, 3]
    assert data.interactions.timestamp.tolist() == [0, 1, 2, 0, 1]
    assert set(data.interactions.rating.tolist()) == {1.0}


def test_a_user_on_several_lines_goes_on(tmp_path: Path) -> None:
    data = load(write(tmp_path, "u1 a b\nu2 a\nu1 c a\n"))
    assert data.interactions.timestamp.tolist() == [0, 1, 2, 3, 0]
    assert [data.catalog.items[i] for i in data.interactions.item] == ["a", "b", "c", "a", "a"]


def test_titles_are_joined_by_item(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "titles.csv.gz").write_bytes(
        gzip.compress(
            b'item,asin,title\na,B1,"Red, round  mug"\nb,B2,\nz,B9,Other\n,B,x\na,B3,Again\n'
        )
    )
    data = load(tmp_path)
    assert list(data.catalog.title) == ["", "Red, round mug", "", ""]
    assert data.catalog[1].attributes == {"asin": "B1"}
    counts = data.card.counts
    assert counts["items_without_title"] == 3
    assert (counts["broken_title_lines"], counts["duplicate_titles"]) == (1, 1)


def test_a_table_without_the_columns_is_an_error(tmp_path: Path) -> None:
    write(write(tmp_path), "id,name\n", "titles.csv")
    with pytest.raises(DataFormatError, match="expected item and title"):
        load(tmp_path)


def test_unusable_lines_are_counted_or_refused(tmp_path: Path) -> None:
    write(tmp_path, "u1 a b\n\nu2\n")
    assert load(tmp_path).card.counts["lines_without_items"] == 1
    with pytest.raises(DataFormatError, match=r"Toys.txt, line 3: the line has a user and no item"):
        load(tmp_path, strict=True)


def test_several_files_must_be_chosen_from(tmp_path: Path) -> None:
    write(write(tmp_path), name="Other.txt")
    with pytest.raises(ConfigError, match=r"Other.txt, Toys.txt"):
        load(tmp_path)
    assert load(tmp_path, file="Toys.txt", label="toys-p5").name == "toys-p5"


def test_a_missing_file_says_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(DataMissingError, match="user item item"):
        load(tmp_path)
    with pytest.raises(DataMissingError, match=r"no.csv"):
        load(write(tmp_path), titles="no.csv")


def test_a_file_without_sequences_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataFormatError, match="no line of the form"):
        load(write(tmp_path, "\n"))


def test_the_real_beauty_file_is_read_in_no_time(shared_data: Path) -> None:
    begun = time.perf_counter()
    data = load(shared_data / "amazon-beauty-p5", label="beauty-p5", strict=True)
    assert time.perf_counter() - begun < 5
    assert data.name == "beauty-p5"
    assert (len(data.users), len(data.catalog)) == (22_363, 12_101)
    assert len(data.interactions) == 198_502
    assert sum(map(bool, data.catalog.title)) == 12_094
    first = data.interactions.histories(len(data.users))[1]
    assert [data.catalog.items[i] for i in first] == ["6", "7", "8", "9", "10", "4", "11"]


def test_only_the_first_users_and_their_items_are_kept(tmp_path: Path) -> None:
    write(tmp_path, "u1 b a\nu2 c a\nu3 d b\nu2 b\n")
    data = load(tmp_path, max_users=2)
    assert data.users.ids == ("u1", "u2")
    assert data.catalog.items.ids == ("b", "a", "c")
    rows = data.interactions
    assert [(u, data.catalog.items[i]) for u, i in zip(rows.user, rows.item, strict=True)] == [
        (0, "b"),
        (0, "a"),
        (1, "c"),
        (1, "a"),
        (1, "b"),
    ]
    assert data.card.counts["rows_kept"] == 5
    assert data.version != load(tmp_path).version


def test_more_users_than_there_are_keep_all(tmp_path: Path) -> None:
    data = load(write(tmp_path), max_users=10)
    assert len(data.interactions) == len(load(tmp_path).interactions)
