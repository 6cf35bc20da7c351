"""What pictures show, in words, remembered by what the encoder looks at."""

import hashlib
import json
from pathlib import Path

from mmrec_bench.files import atomic_write
from mmrec_bench.interfaces import Describer
from mmrec_bench.itemkeys import item_keys, reads_of
from mmrec_bench.paths import cache_dir
from mmrec_bench.progress import progress
from mmrec_bench.types import Catalog, Item

_BATCH = 32


def describe_catalog(catalog: Catalog, encoder: Describer, name: str) -> Catalog:
    """Return the catalog with `image_words` from the encoder.

    Words are cached below the cache folder, per encoder fingerprint, under the hash of the first
    picture's bytes, or of the words that it reads, so that a changed picture or encoder is
    described anew. One that looks at the item itself (`encodes = "item"`) is asked each time.
    """
    reads = reads_of(encoder, name)
    keys = item_keys(catalog, reads)
    mark = hashlib.sha256(encoder.fingerprint().encode()).hexdigest()[:16]
    path = cache_dir() / "descriptions" / f"{name}-{mark}.json"
    known = {} if reads == "item" else _read(path)
    todo = [catalog[index] for index, key in keys.items() if key not in known]
    if todo:
        known.update(_describe(todo, keys, encoder, name))
    if todo and reads != "item":
        atomic_write(path, json.dumps(known, sort_keys=True).encode())
    words: list[tuple[str, ...]] = [()] * len(catalog)
    for index, key in keys.items():
        words[index] = tuple(known[key])
    return catalog.with_image_words(words)


def _describe(
    todo: list[Item], keys: dict[int, str], encoder: Describer, name: str
) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    with progress(f"describing pictures with {name}", total=len(todo), unit="pictures") as bar:
        for start in range(0, len(todo), _BATCH):
            batch = todo[start : start + _BATCH]
            for item, words in zip(batch, encoder.describe(batch), strict=True):
                found[keys[item.index]] = list(words)
            bar.advance(len(batch))
    return found


def _read(path: Path) -> dict[str, list[str]]:
    """Read the cache; a missing or torn one is an empty one, since all of it can be made again."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(raw, dict):
        return {}
    return {
        key: words
        for key, words in raw.items()
        if isinstance(words, list) and all(isinstance(word, str) for word in words)
    }
