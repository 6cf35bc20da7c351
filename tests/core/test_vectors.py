import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image

from mmrec_bench import vectors
from mmrec_bench.errors import ConfigError, PluginError
from mmrec_bench.images import open_image
from mmrec_bench.types import Catalog, FloatArray, Item, Vocabulary
from mmrec_bench.vectors import encode_catalog


class MeanColour:
    """Mean colour of the first picture; remembers which items it was asked for."""

    version: ClassVar[str] = "1"

    def __init__(self) -> None:
        self.asked: list[str] = []

    def encode(self, items: Sequence[Item]) -> FloatArray:
        self.asked += [item.id for item in items]
        rows = np.full((len(items), 3), np.nan, np.float32)
        for row, item in zip(rows, items, strict=True):
            if item.images and item.images[0].read_bytes() != b"broken":
                row[:] = np.asarray(open_image(item.images[0]), np.float32).mean(axis=(0, 1))
        return rows

    def fingerprint(self) -> str:
        return f"mean-colour {self.version}"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MMREC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "vectors"


def paint(folder: Path, **colours: str) -> Catalog:
    """One item a keyword: a colour, "broken", "missing" or "" for no picture."""
    images: list[tuple[Path, ...]] = []
    for name, colour in colours.items():
        path = folder / f"{name}.png"
        images.append((path,) if colour else ())
        if colour == "broken":
            path.write_bytes(b"broken")
        elif colour not in ("", "missing"):
            Image.new("RGB", (4, 4), colour).save(path)
    return Catalog(Vocabulary(list(colours)), title=list(colours), images=images)


def test_a_row_is_the_items_vector_and_nan_where_there_is_nothing_to_encode(tmp_path: Path) -> None:
    catalog = paint(tmp_path, a="red", b="", c="blue", d="broken", e="missing")
    found = encode_catalog(catalog, MeanColour(), "mean")
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found[[0, 2]], [[255, 0, 0], [0, 0, 255]])
    assert np.isnan(found[[1, 3, 4]]).all()


def test_a_second_call_encodes_nothing_again(tmp_path: Path) -> None:
    catalog = paint(tmp_path, a="red", b="blue")
    first = encode_catalog(catalog, MeanColour(), "mean")
    again = MeanColour()
    np.testing.assert_array_equal(encode_catalog(catalog, again, "mean"), first)
    assert not again.asked


def test_items_that_share_a_picture_are_encoded_once(tmp_path: Path) -> None:
    encoder = MeanColour()
    found = encode_catalog(paint(tmp_path, a="red", b="red", c="blue"), encoder, "mean")
    assert encoder.asked == ["a", "c"]
    np.testing.assert_array_equal(found[0], found[1])


def test_a_changed_picture_is_encoded_anew_and_the_others_are_not(tmp_path: Path) -> None:
    encode_catalog(paint(tmp_path, a="red", b="blue"), MeanColour(), "mean")
    encoder = MeanColour()
    found = encode_catalog(paint(tmp_path, a="red", b="lime"), encoder, "mean")
    assert encoder.asked == ["b"]
    np.testing.assert_array_equal(found[1], [0, 255, 0])


def test_another_fingerprint_is_another_cache(tmp_path: Path) -> None:
    catalog = paint(tmp_path, a="red")
    encode_catalog(catalog, MeanColour(), "mean")
    encoder = MeanColour()
    encoder.version = "2"  # type: ignore[misc]
    encode_catalog(catalog, encoder, "mean")
    assert encoder.asked == ["a"]


def test_broken_and_missing_pictures_are_told_in_one_line_each(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    catalog = paint(tmp_path, a="red", b="broken", c="broken", d="missing", e="missing")
    encode_catalog(catalog, MeanColour(), "mean")
    unread, undecoded = (record.getMessage() for record in caplog.records)
    assert unread.startswith("2 of 5 pictures cannot be read")
    assert "d.png: missing" in unread
    assert undecoded.startswith("2 of 3 pictures cannot be decoded")
    assert "b.png" in undecoded


def test_a_picture_that_could_not_be_decoded_is_tried_again(tmp_path: Path) -> None:
    catalog = paint(tmp_path, a="red", b="broken")
    encode_catalog(catalog, MeanColour(), "mean")
    encoder = MeanColour()
    assert np.isnan(encode_catalog(catalog, encoder, "mean")[1]).all()
    assert encoder.asked == ["b"]


def test_without_any_picture_the_rows_are_as_wide_as_the_encoder_says(tmp_path: Path) -> None:
    found = encode_catalog(paint(tmp_path, a="", b="missing"), MeanColour(), "mean")
    assert found.shape == (2, 3)
    assert np.isnan(found).all()


@pytest.mark.parametrize("keep", [0, 100, -1])
def test_a_torn_cache_file_is_made_anew(tmp_path: Path, cache: Path, keep: int) -> None:
    catalog = paint(tmp_path, a="red", b="blue")
    first = encode_catalog(catalog, MeanColour(), "mean")
    (part,) = cache.rglob("*.npz")
    part.write_bytes(part.read_bytes()[:keep])
    encoder = MeanColour()
    np.testing.assert_array_equal(encode_catalog(catalog, encoder, "mean"), first)
    assert encoder.asked == ["a", "b"]
    encode_catalog(catalog, again := MeanColour(), "mean")
    assert not again.asked


def test_a_cache_file_of_another_shape_is_made_anew(tmp_path: Path, cache: Path) -> None:
    catalog = paint(tmp_path, a="red")
    encode_catalog(catalog, MeanColour(), "mean")
    (part,) = cache.rglob("*.npz")
    np.savez(part, keys=np.zeros((2, 32), np.uint8), vectors=np.zeros(2, np.float32))
    encode_catalog(catalog, encoder := MeanColour(), "mean")
    assert encoder.asked == ["a"]


def test_what_was_encoded_before_an_error_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Fails(MeanColour):
        def encode(self, items: Sequence[Item]) -> FloatArray:
            if len(self.asked) == 2:
                raise KeyboardInterrupt
            return super().encode(items)

    monkeypatch.setattr(vectors, "_BATCH", 1)
    monkeypatch.setattr(vectors, "_SECONDS_PER_PART", 0.0)
    catalog = paint(tmp_path, a="red", b="blue", c="lime")
    with pytest.raises(KeyboardInterrupt):
        encode_catalog(catalog, Fails(), "mean")
    encode_catalog(catalog, encoder := MeanColour(), "mean")
    assert encoder.asked == ["c"]


KILLED = """
import sys, time
from pathlib import Path
from mmrec_bench import vectors
from tests.core.test_vectors import MeanColour, paint

class Slow(MeanColour):
    def encode(self, items):
        if self.asked:
            print("second", flush=True)
            time.sleep(60)
        return super().encode(items)

vectors._BATCH, vectors._SECONDS_PER_PART = 1, 0.0
folder = Path(sys.argv[1])
vectors.encode_catalog(paint(folder, a="red", b="blue"), Slow(), "mean")
"""


def start_slow(folder: Path) -> subprocess.Popen[str]:
    """A process that has encoded one picture, holds the lock and sleeps on the second."""
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(folder)],
        stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "second\n"
    return process


def test_a_killed_process_loses_only_what_was_not_written(tmp_path: Path) -> None:
    with start_slow(tmp_path) as process:
        os.kill(process.pid, signal.SIGKILL)
    encode_catalog(paint(tmp_path, a="red", b="blue"), encoder := MeanColour(), "mean")
    assert encoder.asked == ["b"]


def test_a_second_process_waits_for_the_first_and_takes_what_it_made(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    encoder = MeanColour()
    catalog = paint(tmp_path, a="red", b="blue")
    with start_slow(tmp_path) as process:
        thread = threading.Thread(target=encode_catalog, args=(catalog, encoder, "mean"))
        thread.start()
        deadline = time.monotonic() + 30
        while f"waiting for process {process.pid}" not in caplog.text:
            assert time.monotonic() < deadline, caplog.text
            time.sleep(0.01)
        assert not encoder.asked
        process.kill()
        thread.join(30)
    assert encoder.asked == ["b"]


class ById(MeanColour):
    encodes: ClassVar[str] = "item"

    def encode(self, items: Sequence[Item]) -> FloatArray:
        self.asked += [item.id for item in items]
        return np.array([[float(ord(item.id)), 1.0] for item in items], np.float32)


def test_an_encoder_that_looks_at_items_is_asked_for_all_of_them_each_time(
    tmp_path: Path, cache: Path
) -> None:
    catalog = paint(tmp_path, a="red", b="", c="red")
    encoder = ById()
    for _ in range(2):
        found = encode_catalog(catalog, encoder, "by-id")
        np.testing.assert_array_equal(found, [[97, 1], [98, 1], [99, 1]])
    assert encoder.asked == ["a", "b", "c"] * 2
    assert not cache.exists()


class Words(MeanColour):
    encodes: ClassVar[str] = "words"

    def encode(self, items: Sequence[Item]) -> FloatArray:
        self.asked += [item.id for item in items]
        rows = [[float(len(item.title)), float(len(item.text))] for item in items]
        found = np.array(rows, np.float32).reshape(-1, 2)
        found[[not item.title for item in items]] = np.nan
        return found


def titled(*titles: str, text: str = "") -> Catalog:
    names = [f"i{i}" for i in range(len(titles))]
    return Catalog(Vocabulary(names), titles, text=[text] * len(titles))


def test_an_encoder_that_reads_is_asked_once_for_the_same_words() -> None:
    encoder = Words()
    first = encode_catalog(titled("mug", "lamp", "mug"), encoder, "words")
    np.testing.assert_array_equal(first, [[3, 0], [4, 0], [3, 0]])
    assert encoder.asked == ["i0", "i1"]
    again = encode_catalog(titled("lamp", "clock"), encoder, "words")
    np.testing.assert_array_equal(again, [[4, 0], [5, 0]])
    assert encoder.asked == ["i0", "i1", "i1"]
    encode_catalog(titled("lamp", text="of oak"), encoder, "words")
    assert encoder.asked[3:] == ["i0"]


def test_items_without_words_have_no_vector(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("WARNING"):
        found = encode_catalog(titled("mug", ""), Words(), "words")
    np.testing.assert_array_equal(found, [[3, 0], [np.nan, np.nan]])
    assert "1 of 2 items have no vector from words; the first is 'i1'" in caplog.text
    with pytest.raises(ConfigError, match="no vector for any of the 2 items"):
        encode_catalog(titled("", ""), Words(), "words")


@pytest.mark.parametrize(
    "rows",
    [
        np.zeros((1, 3), np.float32),
        np.zeros((2, 3), np.int64),
        np.zeros(2, np.float32),
        np.array([[np.nan, 0], [0, 0]], np.float32),
        np.array([[0, 0], [np.inf, 0]], np.float32),
    ],
    ids=["too few", "integers", "one axis", "half NaN", "infinite"],
)
def test_what_is_no_table_of_vectors_is_refused(tmp_path: Path, rows: FloatArray) -> None:
    class Odd(MeanColour):
        def encode(self, items: Sequence[Item]) -> FloatArray:
            assert len(items) == 2
            return rows

    with pytest.raises(PluginError, match="encoder 'odd' gave"):
        encode_catalog(paint(tmp_path, a="red", b="blue"), Odd(), "odd")


def test_rows_of_two_widths_under_one_fingerprint_are_refused(tmp_path: Path) -> None:
    class Wider(MeanColour):
        def encode(self, items: Sequence[Item]) -> FloatArray:
            return np.hstack([super().encode(items)] * 2)

    encode_catalog(paint(tmp_path, a="red"), MeanColour(), "mean")
    with pytest.raises(PluginError, match=r"\[3, 6\] columns under one fingerprint"):
        encode_catalog(paint(tmp_path, a="red", b="blue"), Wider(), "mean")
