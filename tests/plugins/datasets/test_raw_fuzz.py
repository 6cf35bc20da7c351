"""Arbitrary damage to raw files: never a crash, and every line read is kept or counted."""

import contextlib
import gzip
import unicodedata
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mmrec_bench.errors import DataFormatError, MMRecError
from mmrec_bench.types import RecData
from mmrec_plugins.datasets.amazon import Amazon
from mmrec_plugins.datasets.amazon_meta import META_FAULTS, parse_literal
from mmrec_plugins.datasets.amazon_raw import REVIEW_FAULTS
from mmrec_plugins.datasets.movielens import MovieLens
from mmrec_plugins.datasets.raw import read_lines
from mmrec_plugins.datasets.sequences import Sequences
from tests.plugins.datasets.making import (
    META_2014,
    lines,
    meta_2018,
    meta_2023,
    pack,
    review_2014,
    review_2018,
    review_2023,
)

quick = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=5,
)


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """Overwrite, insert and delete at random places."""
    data = bytearray(content)
    for _ in range(draw(st.integers(0, 5))):
        at = draw(st.integers(0, len(data)))
        drop = draw(st.sampled_from([0, 1, 1, 7, 300]))
        data[at : at + drop] = draw(st.binary(max_size=5) | st.sampled_from([b"\n", b"\0", b'"']))
    return bytes(data)


def n_lines(content: bytes) -> int:
    return sum(bool(line) and not line.isspace() for line in content.split(b"\n"))


def load_amazon(folder: Path) -> RecData | None:
    """Load; None where the loader says in one line that nothing is usable."""
    try:
        return Amazon(Amazon.Config(category="X")).load(folder)
    except MMRecError as error:
        assert "\n" not in str(error)  # noqa: PT017  (any other exception must fail the test)
        return None


def check_counts(counts: Mapping[str, int], n_read: int) -> None:
    lost = sum(counts[name] for name in REVIEW_FAULTS if name != "truncated_files")
    assert counts["rows_read"] == n_read
    assert counts["rows_kept"] + counts["duplicate_rows"] + lost == n_read
    if "meta_rows_read" in counts:
        lost = sum(counts[name] for name in META_FAULTS)
        kept = counts["meta_kept"] + counts["meta_unused"] + counts["meta_duplicates"]
        assert kept + lost == counts["meta_rows_read"]


REVIEWS: dict[str, tuple[str, bytes, bytes]] = {
    "2014": (
        "reviews_X_5.json|meta_X.json",
        lines([review_2014(f"A{i}") for i in range(4)]),
        META_2014 * 3,
    ),
    "2018": (
        "X_5.json|meta_X.json",
        lines([review_2018(f"A{i}") for i in range(4)]),
        lines([meta_2018(), meta_2018("B2")]),
    ),
    "2023": (
        "X.jsonl|meta_X.jsonl",
        lines([review_2023(f"A{i}") for i in range(4)]),
        lines([meta_2023(), meta_2023("B2")]),
    ),
}


@pytest.mark.parametrize("layout", REVIEWS)
def test_damaged_amazon_files_are_counted_right(tmp_path: Path, layout: str) -> None:
    names, reviews, meta = REVIEWS[layout]
    review_name, meta_name = names.split("|")

    @quick
    @given(damaged(reviews), damaged(meta))
    def run(reviews: bytes, meta: bytes) -> None:
        pack(tmp_path / review_name, reviews)
        pack(tmp_path / meta_name, meta)
        data = load_amazon(tmp_path)
        if data is not None:
            check_counts(data.card.counts, n_lines(reviews))
            assert data.card.counts["meta_rows_read"] == n_lines(meta)

    run()


@quick
@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["overall", "reviewerID", "asin", "unixReviewTime"]),
            JSON | st.sampled_from(["A1", "B000000001", 1_500_000_000, 4.0]),
        ),
        max_size=6,
    )
)
def test_any_values_in_the_fields_are_kept_or_counted(
    tmp_path: Path, changes: list[dict[str, object]]
) -> None:
    rows = lines([review_2018(), *({**review_2018(), **change} for change in changes)])
    pack(tmp_path / "X_5.json", rows)
    data = load_amazon(tmp_path)
    assert data is not None
    check_counts(data.card.counts, n_lines(rows))


@quick
@given(st.dictionaries(st.sampled_from([*meta_2018(), *meta_2023()]), JSON))
def test_any_metadata_gives_text_in_the_catalog(tmp_path: Path, change: dict[str, object]) -> None:
    pack(tmp_path / "X.jsonl", lines([review_2023()]))
    pack(tmp_path / "meta_X.jsonl", lines([{**meta_2023(), **change}]))
    data = load_amazon(tmp_path)
    assert data is not None
    item = data.catalog[0]
    for text in (item.title, item.text, *item.attributes.values(), *data.catalog.image_urls[0]):
        assert not {unicodedata.category(c) for c in text} & {"Cc", "Cs"}


@quick
@given(st.data(), st.integers(0, 600))
def test_a_damaged_gzip_file_gives_what_it_can(
    tmp_path: Path, data: st.DataObject, cut: int
) -> None:
    packed = gzip.compress(lines([review_2018(f"A{i}") for i in range(40)]), mtime=0)
    content = data.draw(damaged(packed))[: max(20, len(packed) - cut)]
    (tmp_path / "X_5.json.gz").write_bytes(content)
    loaded = load_amazon(tmp_path)
    if loaded is not None:
        check_counts(loaded.card.counts, loaded.card.counts["rows_read"])


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60) | damaged(META_2014))
@example(b"{'a': " * 5000)
@example(b"{'a': " + b"(" * 5000 + b")" * 5000 + b"}")
@example(b"{'a': " + b"-" * 100_000 + b"1}")
@example(b"{'a': " + b"1" * 100_000 + b"}")
@example(b"{'a': 1 " + b"-1" * 100_000 + b"}")
@example(b"{'a': 1" + b" -1" * 100_000 + b"}")
@example(b"{'a': " + b"\\'" * 200_000 + b"}")
@example(b"{'a': '" + b"\\'" * 200_000)
@example(b"{'a': " + b"'b' " * 100_000 + b"}")
@example(b"{" + b"'a" * 200_000)
@example(b"{'a': __import__('os').system('true')}")
@example(b"{'a': [x for x in ()]}")
@example(b"{**{'a': 1}}")
@example(b"{'a': '\\d', 'b': 1_0, 'c': 0x1, 'd': '\\N{bad}', 'e': '\\ud800'}")
@example(b"{[]: 1}")
@example(b"{'a': {{}}}")
@pytest.mark.filterwarnings("ignore::SyntaxWarning", "ignore::DeprecationWarning")
def test_a_literal_is_a_dict_or_nothing_and_takes_no_time(content: bytes) -> None:
    row = parse_literal(content)
    assert row is None or isinstance(row, dict)


def test_a_literal_keeps_python_values() -> None:
    text = rb"""{u'a': "it's", 'b': [1, -2.5, 1e3], 'c': (None, True), 'd': {'e': '\'"\\ \n'}}"""
    assert parse_literal(text) == {
        "a": "it's", "b": [1, -2.5, 1000.0], "c": (None, True), "d": {"e": "'\"\\ \n"},
    }  # fmt: skip


def sequences(folder: Path) -> RecData:
    return Sequences(Sequences.Config()).load(folder)


@quick
@given(damaged(b"1 1 2 3\n2 3 4\n3 1\n" * 3), damaged(b"item,asin,title\n1,B1,One\n2,B2,Two\n"))
def test_damaged_sequences_are_counted_right(tmp_path: Path, content: bytes, titles: bytes) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    (tmp_path / "titles.csv").write_bytes(titles)
    with contextlib.suppress(DataFormatError):
        data = sequences(tmp_path)
        counts = data.card.counts
        assert counts["lines_read"] == n_lines(content)
        assert counts["rows_kept"] == len(data.interactions)
        assert len(data.catalog.title) == len(data.catalog)


RATINGS: dict[str, tuple[str, bytes, str, bytes]] = {
    "ml-100k": ("u.data", b"1\t2\t3\t881250949\n2\t2\t4\t881250949\n", "u.item",
                b"2|Heat (1995)|01-Jan-1995||url|" + b"|".join([b"0"] * 18) + b"|1\n"),
    "ml-1m": ("ratings.dat", b"1::2::5::978300760\n2::2::4::978300760\n", "movies.dat",
              b"2::Heat (1995)::Action|Crime\n"),
    "ml-latest": ("ratings.csv", b"userId,movieId,rating,timestamp\n1,2,3.5,978300760\n",
                  "movies.csv", b'movieId,title,genres\n2,"Heat, The (1995)",Action|Crime\n'),
}  # fmt: skip


@pytest.mark.parametrize("layout", RATINGS)
def test_damaged_movielens_files_are_counted_right(tmp_path: Path, layout: str) -> None:
    name, ratings, movies_name, movies = RATINGS[layout]
    header = int(layout == "ml-latest")

    @quick
    @given(damaged(ratings * 3), damaged(movies))
    def run(ratings: bytes, movies: bytes) -> None:
        (tmp_path / name).write_bytes(ratings)
        (tmp_path / movies_name).write_bytes(movies)
        with contextlib.suppress(DataFormatError):
            data = MovieLens(MovieLens.Config()).load(tmp_path)
            counts = data.card.counts
            faults = ("broken_lines", "bad_ids", "bad_ratings", "bad_timestamps")
            assert sum(counts[f] for f in faults) + counts["rows_kept"] == counts["rows_read"]
            assert n_lines(ratings) - header <= counts["rows_read"] <= n_lines(ratings)

    run()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.binary(max_size=30).map(lambda b: b.replace(b"\n", b"")), min_size=1))
def test_lines_are_those_of_split(
    tmp_path_factory: pytest.TempPathFactory, rows: list[bytes]
) -> None:
    content = b"x" + b"\n".join(rows)  # never mistaken for a packed file
    folder = tmp_path_factory.mktemp("lines")
    expected = content.split(b"\n")
    expected = expected if expected[-1] else expected[:-1]
    packed: list[Callable[[bytes], bytes]] = [bytes, gzip.compress]
    for pack_it in packed:
        (folder / "a").write_bytes(pack_it(content))
        assert list(read_lines(folder / "a")) == expected


def test_a_line_without_end_does_not_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmrec_plugins.datasets.raw.MAX_LINE_BYTES", 200_000)
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"a" * 30_000_000 + b"\nb\n"))
    first, second = read_lines(tmp_path / "a.gz")
    assert len(first) < 2_500_000
    assert second == b"b"
