"""What an encoder's rows and words depend on, by which they are remembered."""

import hashlib
import json
from typing import Literal, get_args

from mmrec_bench.errors import PluginError
from mmrec_bench.images import content_keys
from mmrec_bench.types import Catalog

Reads = Literal["picture", "words", "item"]
"""What `Encoder.encodes` may say; "picture" is meant where it says nothing."""


def reads_of(encoder: object, name: str) -> Reads:
    """Return what an encoder says that its rows depend on.

    Raises:
        PluginError: something else.
    """
    said = getattr(encoder, "encodes", "picture")
    known: tuple[Reads, ...] = get_args(Reads)
    for one in known:
        if said == one:
            return one
    expected = ", ".join(known)
    raise PluginError(f"encoder {name!r} has encodes = {said!r}, expected one of {expected}")


def item_keys(catalog: Catalog, reads: Reads) -> dict[int, str]:
    """Return item number -> content hash of what is read of it, for the items that have any.

    That of an item itself is its number: nothing of it is remembered.
    """
    if reads == "item":
        return {index: str(index) for index in range(len(catalog))}
    return _word_keys(catalog) if reads == "words" else content_keys(catalog)


def _word_keys(catalog: Catalog) -> dict[int, str]:
    keys = {}
    for item in catalog:
        words = [item.title, item.text, sorted(item.attributes.items()), list(item.image_words)]
        if any(words):
            keys[item.index] = hashlib.sha256(json.dumps(words).encode()).hexdigest()
    return keys
