"""Words of an encoder are remembered by what it says that they depend on."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from mmrec_bench.descriptions import describe_catalog
from mmrec_bench.errors import PluginError
from mmrec_bench.types import Catalog, Item, Vocabulary


class Tells:
    """Says an item's title, and remembers which items it was asked for."""

    def __init__(self, encodes: str) -> None:
        self.encodes = encodes
        self.asked: list[str] = []

    def describe(self, items: Sequence[Item]) -> list[tuple[str, ...]]:
        self.asked += [item.id for item in items]
        return [(item.title,) for item in items]

    def fingerprint(self) -> str:
        return f"tells {self.encodes}"


@pytest.fixture
def catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Catalog:
    """Two items with one picture and two titles, and two with one title and no picture."""
    monkeypatch.setenv("MMREC_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "red.png"
    Image.new("RGB", (4, 4), "red").save(path)
    return Catalog(
        Vocabulary(["a", "b", "c", "d"]),
        title=["first", "second", "third", "third"],
        images=[(path,), (path,), (), ()],
    )


@pytest.mark.parametrize(
    ("encodes", "asked", "again", "words"),
    [
        ("picture", "ab", "", [("second",), ("second",), (), ()]),
        ("words", "abcd", "", [("first",), ("second",), ("third",), ("third",)]),
        ("item", "abcd", "abcd", [("first",), ("second",), ("third",), ("third",)]),
    ],
)
def test_words_are_remembered_by_what_the_encoder_reads(
    encodes: str, asked: str, again: str, words: list[tuple[str, ...]], catalog: Catalog
) -> None:
    for wanted in (asked, again):
        encoder = Tells(encodes)
        assert list(describe_catalog(catalog, encoder, "tells").image_words) == words
        assert "".join(encoder.asked) == wanted


def test_an_encoder_that_reads_something_unknown_is_named(catalog: Catalog) -> None:
    with pytest.raises(PluginError, match=r"encoder 'tells' has encodes = 'titles', expected one"):
        describe_catalog(catalog, Tells("titles"), "tells")
