"""MovieLens layouts on hand-written files, and the real ml-100k."""

from pathlib import Path

import pytest

from mmrec_bench.errors import ConfigError, DataFormatError, DataMissingError
from mmrec_bench.testing import DatasetTests
from mmrec_bench.types import RecData
from mmrec_plugins.datasets.movielens import MovieLens
from tests.plugins.datasets.making import picture

ITEM = b"2|Caf\xe9, The (1995)|01-Jan-1995||url|" + b"|".join([b"0", b"1", b"1"] + [b"0"] * 16)
FILES: dict[str, dict[str, bytes]] = {
    "ml-100k": {"u.data": b"1\t2\t3\t881250949\n7\t2\t4\t881250950\n", "u.item": ITEM + b"\n"},
    "ml-1m": {
        "ratings.dat": b"1::2::3::881250949\n7::2::4::881250950\n",
        "movies.dat": b"2::Caf\xe9, The (1995)::Action|Adventure\n",
    },
    "ml-10m": {
        "ratings.dat": b"1::2::3::881250949\n7::2::4::881250950\n",
        "movies.dat": "2::Café, The (1995)::Action|Adventure\n".encode(),
        "tags.dat": b"",
    },
    "ml-latest": {
        "ratings.csv": b"userId,movieId,rating,timestamp\r\n"
        b"1,2,3.0,881250949\r\n7,2,4.0,881250950\r\n",
        "movies.csv": 'movieId,title,genres\r\n2,"Café, The (1995)",Action|Adventure\r\n'.encode(),
    },
}


def write(folder: Path, layout: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in FILES[layout].items():
        (folder / name).write_bytes(content)
    return folder


def load(root: Path, **options: object) -> RecData:
    return MovieLens(MovieLens.Config.model_validate(options)).load(root)


class TestContract(DatasetTests):
    def make(self) -> MovieLens:
        return MovieLens(MovieLens.Config())

    def load(self, tmp_path: Path) -> RecData:
        return load(write(tmp_path, "ml-100k"))


@pytest.mark.parametrize("layout", FILES)
def test_every_layout_gives_the_same_columns(tmp_path: Path, layout: str) -> None:
    write(tmp_path, layout)
    picture(tmp_path / "posters" / "2.jpg")
    data = load(tmp_path, strict=True)
    assert data.name == layout
    assert data.users.ids == ("1", "7")
    assert data.interactions.rating.tolist() == [3, 4]
    assert data.interactions.timestamp.tolist() == [881_250_949, 881_250_950]
    item = data.catalog[0]
    assert (item.id, item.title) == ("2", "Café, The (1995)")
    assert item.attributes == {"genres": "Action, Adventure", "year": "1995"}
    assert item.images == (tmp_path / "posters" / "2.jpg",)


def test_a_set_in_a_folder_of_its_name_is_found(tmp_path: Path) -> None:
    write(tmp_path / "ml-latest-small", "ml-latest")
    assert load(tmp_path).name == "ml-latest"


def test_several_sets_must_be_chosen_from(tmp_path: Path) -> None:
    for layout in ("ml-100k", "ml-1m"):
        write(tmp_path / layout, layout)
    with pytest.raises(ConfigError, match=r"ml-100k in .*, ml-1m in "):
        load(tmp_path)
    assert load(tmp_path, layout="ml-1m").name == "ml-1m"


def test_missing_files_are_named_with_where_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(DataMissingError, match=r"u\.data and u\.item.*grouplens\.org"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (b"1\t2\t3\n", "broken_lines"),
        (b"x\t2\t3\t881250949\n", "bad_ids"),
        (b"1\t../2\t3\t881250949\n", "bad_ids"),
        (b"1\t2\tnan\t881250949\n", "bad_ratings"),
        (b"1\t2\t6\t881250949\n", "bad_ratings"),
        (b"1\t2\t3\t-1\n", "bad_timestamps"),
        (b"1\t2\t3\t99999999999\n", "bad_timestamps"),
    ],
)
def test_unusable_lines_are_counted_or_refused(tmp_path: Path, line: bytes, fault: str) -> None:
    path = write(tmp_path, "ml-100k") / "u.data"
    path.write_bytes(path.read_bytes() + line)
    data = load(tmp_path)
    assert (data.card.counts[fault], data.card.counts["rows_read"]) == (1, 3)
    with pytest.raises(DataFormatError, match=r"u.data, line 3"):
        load(tmp_path, strict=True)


def test_the_real_ml_100k_is_read_whole(shared_data: Path) -> None:
    data = load(shared_data / "ml-100k", strict=True)
    assert (data.name, len(data.users), len(data.catalog)) == ("ml-100k", 943, 1682)
    assert len(data.interactions) == 100_000
    assert sum(bool(images) for images in data.catalog.images) == 1396
    toy_story = data.catalog[data.catalog.items.index("1")]
    assert toy_story.title == "Toy Story (1995)"
    assert toy_story.attributes == {"genres": "Animation, Children's, Comedy", "year": "1995"}
