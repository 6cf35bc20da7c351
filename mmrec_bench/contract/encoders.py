"""The contract of an `Encoder` and of a `Describer`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mmrec_bench.contract.findings import Check, DoesNotApplyError, demand, demand_equal
from mmrec_bench.interfaces import Describer, Encoder
from mmrec_bench.types import FloatArray, Item

N_WITHOUT = 3
"""The last items of `toys.toy_items` have no picture that can be decoded."""


@dataclass
class EncoderSubject:
    """An encoder and items for it.

    Attributes:
        make: returns a new one.
        items: `toys.toy_items`, or others whose last three have no usable picture.
    """

    make: Callable[[], object]
    items: Sequence[Item]

    def encode(self, items: Sequence[Item]) -> FloatArray:
        """Encode with a new encoder, where it gives vectors."""
        encoder = self.make()
        if not isinstance(encoder, Encoder):
            raise DoesNotApplyError("it gives words, not vectors")
        return encoder.encode(items)

    def describe(self, items: Sequence[Item]) -> list[tuple[str, ...]]:
        """Describe with a new encoder, where it gives words."""
        encoder = self.make()
        if not isinstance(encoder, Describer):
            raise DoesNotApplyError("it gives vectors, not words")
        return encoder.describe(items)

    def looks_at_pictures(self) -> bool:
        """Say whether rows come from pictures alone."""
        return getattr(self.make(), "encodes", "picture") not in ("item", "words")


def check_offers(subject: EncoderSubject) -> None:
    """It encodes or describes, and has a fingerprint that stays."""
    encoder = subject.make()
    if not isinstance(encoder, Encoder | Describer):
        demand(
            False,
            f"{type(encoder).__name__} without encode or describe, or without fingerprint",
            "`encode(items)` or `describe(items)`, and `fingerprint()`",
            "write the methods of interfaces.Encoder or interfaces.Describer",
        )
        return
    again = subject.make()
    mark = encoder.fingerprint()
    demand(
        isinstance(mark, str) and bool(mark),
        f"fingerprint {mark!r}",
        "a string that names all that the output depends on: caches are kept by it",
        "name the method, the options, and a hash of the weights",
    )
    same = isinstance(again, Encoder | Describer) and again.fingerprint() == mark
    demand(
        same,
        "another fingerprint for the same options",
        "the same one",
        "leave out times, paths and object ids",
    )


def check_vectors(subject: EncoderSubject) -> None:
    """(n, D) floats; each row finite, or NaN throughout; something is encoded."""
    items = subject.items
    found = np.asarray(subject.encode(items))
    demand(
        found.ndim == 2 and len(found) == len(items) and found.dtype.kind == "f",
        f"{found.dtype} {found.shape} for {len(items)} items",
        f"float32 ({len(items)}, D)",
        "return one row an item, in their order",
    )
    half = ~np.isfinite(found).all(axis=1) & ~np.isnan(found).all(axis=1)
    demand(
        not half.any(),
        f"{int(half.sum())} rows that are neither finite nor all NaN",
        "finite rows; a row of NaN for an item that has nothing to encode",
        "look for a division by zero",
    )
    demand(
        not np.isnan(found).all(),
        "NaN for every item",
        "vectors of the items that have a picture or text",
        "check that it opens item.images[0]",
    )


def check_batch(subject: EncoderSubject) -> None:
    """A row depends on its item alone."""
    whole = subject.encode(subject.items)
    parts = [subject.encode(subject.items[i : i + 2]) for i in range(0, len(subject.items), 2)]
    widths = {part.shape[1] for part in parts}
    demand(
        widths == {whole.shape[1]},
        f"rows of {sorted(widths | {whole.shape[1]})} columns",
        "one width D, whatever the items",
        "return np.full((n, D), np.nan) where no item has a picture",
    )
    demand_equal(
        np.concatenate(parts),
        whole,
        "the same row for an item whatever its neighbours: rows are cached one by one",
        "look for a mean or a scale that is taken over the batch",
        rtol=1e-4,
        atol=1e-4,
    )


def check_without(subject: EncoderSubject) -> None:
    """No picture, a missing file and a torn one give NaN, or no words; none of them raises."""
    without = subject.items[-N_WITHOUT:]
    if not subject.looks_at_pictures():
        raise DoesNotApplyError("it looks at the item, not at its picture")
    encoder = subject.make()
    if isinstance(encoder, Encoder):
        found = encoder.encode(without)
        demand(
            bool(np.isnan(found).all()),
            "numbers for items without a picture that can be decoded",
            "a row of NaN",
            "catch DataFormatError of mmrec_bench.images.open_image and leave the row NaN",
        )
    if isinstance(encoder, Describer):
        words = encoder.describe(without)
        demand(
            [tuple(some) for some in words] == [()] * len(without),
            f"{words} for items without a picture that can be decoded",
            "() for each",
            "catch DataFormatError of mmrec_bench.images.open_image and give ()",
        )


def check_words(subject: EncoderSubject) -> None:
    """One tuple of strings an item, the same whatever its neighbours."""
    items = subject.items
    words = subject.describe(items)
    fits = len(words) == len(items) and all(
        isinstance(some, tuple) and all(isinstance(word, str) for word in some) for some in words
    )
    demand(
        fits,
        f"{words!r:.120} for {len(items)} items",
        "a tuple of strings an item, in their order",
        "return list[tuple[str, ...]]",
    )
    alone = [subject.describe([item])[0] for item in items]
    demand(
        alone == words,
        "other words for an item alone",
        "the same words whatever its neighbours: they are cached one by one",
        "describe each item for itself",
    )


CHECKS: tuple[Check[EncoderSubject], ...] = (
    Check("offers", "it encodes or describes, under a fingerprint", check_offers),
    Check("vectors", "vectors are (n, D), each row finite or all NaN", check_vectors),
    Check("batch", "a row depends on its item alone", check_batch),
    Check("without", "items without a usable picture have no vector and no words", check_without),
    Check("words", "words are a tuple an item", check_words),
)
