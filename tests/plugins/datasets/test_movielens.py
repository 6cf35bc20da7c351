"""MovieLens layouts on hand-written files, and the real ml-100k."""

import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmrec_bench.errors import ConfigError, DataFormatError, DataMissingError
from mmrec_bench.testing import DatasetTests
from mmrec_bench.types import RecData
from mmrec_plugins.datasets import raw
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


FIELDS = (
    ["1", "2", "30", "0", "007", "x", "", "999999999999999999", "1 "],
    ["1", "2", "30", "05", "-1", "12345678901234567"],
    ["0", "3", "4.5", "5", "5.0", "5.5", "3.14159", "nan", "", " 2", "1e0", "-0"],
    ["881250949", "631152000", "631151999", "2208988800", "99", "", "881250949 ", "881250950\r"],
)
LINES = st.one_of(
    st.sampled_from(["1\t2\t3\t881250949", "7\t2\t4\t881250950"]),
    st.tuples(*map(st.sampled_from, FIELDS)).map("\t".join),
    st.sampled_from(["", " ", "1\t2\t3", "1\t2\t3\t881250949\t5", "userId\t2\t3\t881250949"]),
)


def naive(lines: list[str]) -> tuple[list[tuple[str, str, float, int]], Counter[str]]:
    """Read ratings one line at a time, in file order; return them and the counts of faults."""
    kept, counts = [], Counter[str]()
    for number, line in enumerate(lines):
        if not line.strip() or (number == 0 and line.startswith("userId")):
            continue
        counts["rows_read"] += 1
        parts = line.split("\t")
        if len(parts) != 4:
            counts["broken_lines"] += 1
        elif not all(re.fullmatch(r"[0-9]{1,18}", part) for part in parts[:2]):
            counts["bad_ids"] += 1
        elif not (re.fullmatch(r"\s*[-+.\de]+", parts[2]) and 0 <= float(parts[2]) <= 5):
            counts["bad_ratings"] += 1
        elif not 631_152_000 <= int(parts[3].strip() or 0) < 2_208_988_800:
            counts["bad_timestamps"] += 1
        else:
            kept.append((parts[0], parts[1], float(parts[2]), int(parts[3])))
    counts["rows_kept"] = len(kept)
    return kept, counts


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(lines=st.lists(LINES, max_size=30), block=st.sampled_from([7, 40, 4096]))
def test_lines_read_together_give_what_lines_read_one_by_one_give(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: list[str], block: int
) -> None:
    monkeypatch.setattr(raw, "_READ_BYTES", block)
    write(tmp_path, "ml-100k")
    rows = [*lines, "1\t2\t3\t881250949"]
    (tmp_path / "u.data").write_bytes("\n".join(rows).encode() + b"\n")
    data = load(tmp_path)
    kept, counts = naive(rows)
    assert list(data.users.ids) == list(dict.fromkeys(user for user, *_ in kept))
    assert list(data.catalog.items.ids) == list(dict.fromkeys(item for _, item, *_ in kept))
    ordered = sorted(kept, key=lambda row: (data.users.index(row[0]), row[3]))
    rows_of = data.interactions
    assert [data.users[i] for i in rows_of.user.tolist()] == [row[0] for row in ordered]
    assert [data.catalog.items[i] for i in rows_of.item.tolist()] == [row[1] for row in ordered]
    assert rows_of.rating.tolist() == pytest.approx([row[2] for row in ordered])
    assert rows_of.timestamp.tolist() == [row[3] for row in ordered]
    found = {name: n for name, n in data.card.counts.items() if n and name in FAULTS}
    assert found == {name: n for name, n in counts.items() if n}


FAULTS = {
    *("broken_lines", "bad_ids", "bad_ratings", "bad_timestamps"),
    *("rows_read", "rows_kept"),
}


def test_the_real_ml_100k_is_read_whole(shared_data: Path) -> None:
    data = load(shared_data / "ml-100k", strict=True)
    assert (data.name, len(data.users), len(data.catalog)) == ("ml-100k", 943, 1682)
    assert len(data.interactions) == 100_000
    assert sum(bool(images) for images in data.catalog.images) == 1396
    toy_story = data.catalog[data.catalog.items.index("1")]
    assert toy_story.title == "Toy Story (1995)"
    assert toy_story.attributes == {"genres": "Animation, Children's, Comedy", "year": "1995"}
