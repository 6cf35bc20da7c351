"""Vectors of a catalog's items from an encoder, remembered by the pictures or the words."""

import hashlib
import logging
import time
from collections.abc import Container, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmrec_bench.errors import ConfigError, PluginError, StorageError
from mmrec_bench.files import LockHolder, locked, read_arrays, remove_temporary, write_arrays
from mmrec_bench.interfaces import Encoder
from mmrec_bench.itemkeys import item_keys, reads_of
from mmrec_bench.paths import cache_dir
from mmrec_bench.progress import progress
from mmrec_bench.types import Catalog, FloatArray, Item

log = logging.getLogger("mmrec_bench")
_BATCH = 64
_SECONDS_PER_PART = 30.0
"""What a killed process loses at most; 20,000 pictures take a CPU an hour."""
_DIGEST_BYTES = 32

Rows = dict[str, FloatArray]
"""Content key of a picture, or of an item's words -> its row (D,)."""


def encode_catalog(catalog: Catalog, encoder: Encoder, name: str) -> FloatArray:
    """Return one vector per item of the catalog.

    Rows of an encoder that looks at pictures (`encodes = "picture"`, what an encoder is without the
    attribute) are cached below the cache folder, per encoder fingerprint, under the hash of the
    first picture's bytes; a picture shared by several items is encoded once. Rows of an encoder
    that reads (`encodes = "words"`) are cached likewise under the hash of the item's title, text,
    attributes and image words. Those of one that looks at the item itself (`encodes = "item"`) are
    asked for anew each time.

    Args:
        catalog: N items.
        encoder: gives (n, D) float32 for n items.
        name: the encoder's registered name, for the cache folder and the messages.

    Returns:
        (N, D) float32; a row of NaN for an item that has nothing to encode.

    Raises:
        ConfigError: an encoder that looks at items or words has a vector for none of them.
        PluginError: the encoder gives another shape, or rows that are neither finite nor all NaN,
            or says that they depend on something unknown.
        StorageError: the cache cannot be written.
    """
    reads = reads_of(encoder, name)
    if reads == "item":
        return _checked(_encode_items(catalog, encoder, name), catalog, name)
    keys = item_keys(catalog, reads)
    rows = _rows(keys, catalog, encoder, name) if keys else {}
    vectors = np.full((len(catalog), _width(rows, catalog, encoder, name)), np.nan, np.float32)
    for index, key in keys.items():
        vectors[index] = rows[key]
    if reads == "words":
        return _checked(vectors, catalog, name)
    broken = [index for index in keys if np.isnan(vectors[index, 0])]
    if broken:
        log.warning(
            "%d of %d pictures cannot be decoded and have no vector; the first is %s",
            *(len(broken), len(keys), catalog[broken[0]].images[0]),
        )
    return vectors


def _encode_items(catalog: Catalog, encoder: Encoder, name: str) -> FloatArray:
    parts: list[FloatArray] = []
    with progress(f"encoding items with {name}", total=len(catalog), unit="items") as bar:
        for start in range(0, len(catalog), _BATCH):
            batch = catalog[start : start + _BATCH]
            parts.append(_encode(encoder, batch, name))
            bar.advance(len(batch))
    return np.concatenate(parts) if parts else np.empty((0, 0), np.float32)


def _checked(vectors: FloatArray, catalog: Catalog, name: str) -> FloatArray:
    """Say which items have no vector; it is an error where all have none."""
    without = np.flatnonzero(np.isnan(vectors).any(axis=1)).tolist()
    if without and len(without) == len(catalog):
        raise ConfigError(
            f"encoder {name!r} has no vector for any of the {len(catalog)} items, the first of "
            f"which is {catalog.items[0]!r}; check that its options fit the data set"
        )
    if without:
        log.warning(
            "%d of %d items have no vector from %s; the first is %r",
            *(len(without), len(catalog), name, catalog.items[without[0]]),
        )
    return vectors


def _rows(keys: dict[int, str], catalog: Catalog, encoder: Encoder, name: str) -> Rows:
    """Rows of all keys: those in the cache, and the others after they were encoded."""
    firsts: dict[str, int] = {}
    for index, key in keys.items():
        firsts.setdefault(key, index)
    mark = hashlib.sha256(encoder.fingerprint().encode()).hexdigest()[:16]
    cache = _Cache(cache_dir() / "vectors" / f"{name}-{mark}")
    rows = cache.read(firsts)
    if len(rows) < len(firsts):
        # A second process waits and then finds all rows: two at once would take as long.
        with locked(cache.folder, on_wait=_tell_wait):
            rows = cache.sweep(firsts)
            todo = [(key, catalog[index]) for key, index in firsts.items() if key not in rows]
            for part in _encode_new(todo, encoder, name):
                cache.append(part)
                rows.update(part)
    widths = {len(row) for row in rows.values()}
    if len(widths) > 1:
        raise PluginError(
            f"encoder {name!r} gave rows of {sorted(widths)} columns under one fingerprint, which "
            f"must name all that they depend on; remove {cache.folder}"
        )
    return rows


def _tell_wait(holder: LockHolder) -> None:
    log.info("waiting for %s, which encodes the same items", holder)


def _encode_new(todo: list[tuple[str, Item]], encoder: Encoder, name: str) -> Iterator[Rows]:
    """Encode in batches; yields what is worth a part of the cache."""
    part: Rows = {}
    began = time.monotonic()
    with progress(f"encoding with {name}", total=len(todo), unit="items") as bar:
        for start in range(0, len(todo), _BATCH):
            batch = todo[start : start + _BATCH]
            found = _encode(encoder, [item for _, item in batch], name)
            part.update((key, row) for (key, _), row in zip(batch, found, strict=True))
            bar.advance(len(batch))
            if time.monotonic() - began >= _SECONDS_PER_PART:
                yield part
                part, began = {}, time.monotonic()
    if part:
        yield part


def _width(rows: Rows, catalog: Catalog, encoder: Encoder, name: str) -> int:
    for row in rows.values():
        return len(row)
    # No picture at all: the encoder says how wide a row of NaN is.
    return _encode(encoder, catalog[:1], name).shape[1] if len(catalog) else 0


def _encode(encoder: Encoder, items: list[Item], name: str) -> FloatArray:
    """Ask for vectors and check them at the seam."""
    found: NDArray[Any] = np.asarray(encoder.encode(items))
    if found.ndim != 2 or len(found) != len(items) or found.dtype.kind != "f" or not found.shape[1]:
        raise PluginError(
            f"encoder {name!r} gave {found.dtype} {found.shape} for {len(items)} items, expected "
            f"float32 ({len(items)}, D)"
        )
    vectors = found.astype(np.float32, copy=False)
    odd = ~np.isfinite(vectors).all(axis=1) & ~np.isnan(vectors).all(axis=1)
    if odd.any():
        raise PluginError(
            f"encoder {name!r} gave {int(odd.sum())} rows that are neither finite nor all NaN, the "
            f"first for item {items[int(odd.argmax())].id!r}"
        )
    return vectors


class _Cache:
    """Rows in parts `part-<hash of the keys>.npz`: keys (n, 32) uint8, vectors (n, D) float32.

    Reading takes no lock: parts appear whole, by a rename. A part that cannot be read holds
    nothing, since all of it can be made again.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, wanted: Container[str]) -> Rows:
        """Rows of the wanted keys, as far as they are here."""
        return _select((_read_part(path) for path in self._parts()), wanted)

    def sweep(self, wanted: Container[str]) -> Rows:
        """As `read`, for the holder of the lock: removes what a killed process left torn."""
        remove_temporary(self.folder)
        for path in self._parts():
            if _read_part(path) is None:
                path.unlink(missing_ok=True)
        return self.read(wanted)

    def append(self, rows: Rows) -> None:
        """Write one more part.

        Rows of NaN stay out: what kept a picture from being decoded may be a full memory.
        """
        keys = sorted(key for key, row in rows.items() if not np.isnan(row[0]))
        if not keys:
            return
        digests = np.frombuffer(bytes.fromhex("".join(keys)), np.uint8)
        write_arrays(
            self.folder / f"part-{hashlib.sha256(digests.tobytes()).hexdigest()[:16]}.npz",
            {
                "keys": digests.reshape(len(keys), _DIGEST_BYTES),
                "vectors": np.stack([rows[key] for key in keys]),
            },
        )

    def _parts(self) -> list[Path]:
        return sorted(self.folder.glob("part-*.npz"))


Part = tuple[list[str], FloatArray]


def _read_part(path: Path) -> Part | None:
    try:
        arrays = read_arrays(path)
    except StorageError:
        return None
    keys, vectors = arrays.get("keys"), arrays.get("vectors")
    whole = (
        keys is not None
        and vectors is not None
        and keys.dtype == np.uint8
        and vectors.dtype == np.float32
        and keys.ndim == vectors.ndim == 2
        and keys.shape == (len(vectors), _DIGEST_BYTES)
    )
    if keys is None or vectors is None or not whole:
        return None
    return [bytes(key).hex() for key in keys], vectors


def _select(parts: Iterable[Part | None], wanted: Container[str]) -> Rows:
    rows: Rows = {}
    for part in parts:
        if part is not None:
            rows.update((key, row) for key, row in zip(*part, strict=True) if key in wanted)
    return rows
