from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmrec_bench.errors import ConfigError
from mmrec_bench.pictures import with_images, with_vectors
from mmrec_bench.types import Catalog, Vocabulary

NAMES = [f"i{n}" for n in range(12)]


def catalog_of(names: list[str], folder: Path = Path("p")) -> Catalog:
    images = [() if name in ("i3", "i7") else (folder / f"{name}.jpg",) for name in names]
    return Catalog(Vocabulary(names), names, images=images)


def test_real_pictures_are_left_as_they_are() -> None:
    catalog = catalog_of(NAMES)
    assert with_images(catalog, "real", seed=0) is catalog


def test_none_takes_every_picture_away() -> None:
    assert all(item.images == () for item in with_images(catalog_of(NAMES), "none", seed=0))


def test_shuffled_deals_the_same_pictures_anew_among_items_that_have_one() -> None:
    before, after = catalog_of(NAMES), with_images(catalog_of(NAMES), "shuffled", seed=0)
    assert sorted(after.images) == sorted(before.images)
    assert [bool(some) for some in after.images] == [bool(some) for some in before.images]
    assert after.images != before.images


def test_shuffled_does_not_depend_on_the_order_of_the_catalog() -> None:
    one = with_images(catalog_of(NAMES), "shuffled", seed=4)
    two = with_images(catalog_of(NAMES[::-1]), "shuffled", seed=4)
    assert {i.id: i.images for i in one} == {i.id: i.images for i in two}


def test_grey_is_one_flat_picture_where_there_was_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMREC_CACHE", str(tmp_path))
    catalog = with_images(catalog_of(NAMES), "grey", seed=0)
    assert [bool(item.images) for item in catalog] == [n not in ("i3", "i7") for n in NAMES]
    with Image.open(catalog[0].images[0]) as picture:
        assert picture.getextrema() == ((127, 127),) * 3


def test_vectors_are_dropped_or_dealt_anew_among_the_rows_that_have_one() -> None:
    vectors = np.arange(24, dtype=np.float32).reshape(12, 2)
    vectors[[3, 7]] = np.nan
    items = Vocabulary(NAMES)
    assert np.isnan(with_vectors(vectors, items, "none", 0)).all()
    dealt = with_vectors(vectors, items, "shuffled", 0)
    assert np.isnan(dealt[[3, 7]]).all()
    known = np.array([name not in ("i3", "i7") for name in NAMES])
    assert sorted(dealt[known, 0]) == sorted(vectors[known, 0])
    assert not np.array_equal(dealt, vectors, equal_nan=True)


def test_grey_vectors_of_a_file_are_refused_in_one_line() -> None:
    with pytest.raises(ConfigError, match="images=none or images=shuffled"):
        with_vectors(np.zeros((12, 2), np.float32), Vocabulary(NAMES), "grey", 0)
