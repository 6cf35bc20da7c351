"""What a run is shown in place of the pictures: to see whether a model uses them."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np

from mmrec_bench.config import Images
from mmrec_bench.errors import ConfigError
from mmrec_bench.files import atomic_write
from mmrec_bench.paths import cache_dir
from mmrec_bench.splitting import PICTURE_STREAM, stream
from mmrec_bench.types import BoolArray, Catalog, FloatArray, Int64Array, Vocabulary

_GREY = (127, 127, 127)
_SIDE = 224


def with_images(catalog: Catalog, images: Images, *, seed: int) -> Catalog:
    """Return the catalog whose pictures are as they are, gone, another item's, or grey.

    `shuffled` deals the pictures anew among the items that have one, by seed and the items' own
    ids; `grey` shows one flat grey picture wherever there is one.
    """
    if images == "real" or not catalog.images:
        return catalog
    has_one = np.array([bool(some) for some in catalog.images], np.bool_)
    if images == "none":
        return replace(catalog, images=(), image_urls=())
    if images == "grey":
        grey = (_grey_picture(),)
        return replace(catalog, images=[grey if some else () for some in catalog.images])
    donor = _donors(catalog.items, has_one, seed)
    return replace(catalog, images=[catalog.images[i] for i in donor.tolist()])


def with_vectors(vectors: FloatArray, items: Vocabulary, images: Images, seed: int) -> FloatArray:
    """Do the same to (N, D) vectors that come from a file and not from the catalog's pictures.

    Raises:
        ConfigError: images=grey, which only an encoder that looks at pictures can see.
    """
    if images == "real":
        return vectors
    if images == "none":
        return np.full_like(vectors, np.nan)
    if images == "grey":
        raise ConfigError(
            "images=grey needs an encoder that looks at the pictures; these vectors come from a "
            "file: use images=none or images=shuffled"
        )
    has_one = np.asarray(~np.isnan(vectors).any(axis=1), np.bool_)
    return vectors[_donors(items, has_one, seed)]


def _donors(items: Vocabulary, has_one: BoolArray, seed: int) -> Int64Array:
    """(N,) int64: the item whose picture each item gets."""
    with_picture = np.flatnonzero(has_one)
    ordered = np.array(sorted(with_picture.tolist(), key=items.ids.__getitem__), np.int64)
    donor = np.arange(len(items))
    donor[ordered] = stream(seed, PICTURE_STREAM).permutation(ordered)
    return donor


def _grey_picture() -> Path:
    """Return a flat grey PNG, made where it is not there yet."""
    path = cache_dir() / "grey.png"
    if not path.exists():
        import PIL.Image  # noqa: PLC0415 - most runs need no Pillow here

        buffer = io.BytesIO()
        PIL.Image.new("RGB", (_SIDE, _SIDE), _GREY).save(buffer, "PNG")
        atomic_write(path, buffer.getvalue())
    return path
