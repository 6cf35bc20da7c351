"""The contract of an `Encoder` and of a `Describer`."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import numpy as np

from mmrec_bench.contract.findings import Check, DoesNotApplyError, demand, demand_equal
from mmrec_bench.interfaces import Describer, Encoder
from mmrec_bench.itemkeys import Reads
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

    def __post_init__(self) -> None:
        """Keep a copy of the items, before any check lets the encoder see them."""
        self.before = [replace(item, attributes=dict(item.attributes)) for item in self.items]

    def encode(self, items: Sequence[Item]) -> FloatArray:
        """Encode with a new encoder, where it gives vectors."""
        encoder = self.make()
        if not isinstance(encoder, Encoder):
            raise DoesNotApplyError("it gives words, not vectors")
        return encoder.encode(list(items))

    def describe(self, items: Sequence[Item]) -> list[tuple[str, ...]]:
        """Describe with a new encoder, where it gives words."""
        encoder = self.make()
        if not isinstance(encoder, Describer):
            raise DoesNotApplyError("it gives vectors, not words")
        return encoder.describe(list(items))

    def reads(self) -> str:
        """Say what rows depend on."""
        return str(getattr(self.make(), "encodes", "picture"))

    def others(self) -> list[Item]:
        """Return other items with the same first pictures, or the same words."""
        if self.reads() == "words":
            return [
                replace(item, index=99 - item.index, id=f"other-{item.id}", images=())
                for item in self.items
            ]
        return [
            Item(99 - i, f"other-{i}", f"title {i}", images=_copied(item.images))
            for i, item in enumerate(self.items)
        ]


def _copied(images: Sequence[Path]) -> tuple[Path, ...]:
    """Copy an item's first picture, and put another behind it."""
    if not images or not images[0].exists():
        return tuple(images)
    copy = images[0].with_name(f"copy-{images[0].name}")
    shutil.copyfile(images[0], copy)
    return (copy, images[0].with_name("0.png"))


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


def check_reads(subject: EncoderSubject) -> None:
    """A row depends on what `encodes` says alone; it is cached by that."""
    reads = subject.reads()
    demand(
        reads in get_args(Reads),
        f"encodes = {reads!r}",
        f"one of {', '.join(map(repr, get_args(Reads)))}",
        'write `encodes: ClassVar[str] = "picture"`, or what it reads',
    )
    if reads == "item":
        raise DoesNotApplyError("it looks at the item itself, and is asked anew in every run")
    what = "words" if reads == "words" else "bytes of the first picture"
    mend = f'read the {what} alone, or write `encodes: ClassVar[str] = "item"`'
    expected = f"the same for another item of the same {what}: it is cached by them"
    encoder, others = subject.make(), subject.others()
    if isinstance(encoder, Encoder):
        found, wanted = encoder.encode(others), subject.encode(subject.items)
        demand_equal(found, wanted, expected, mend, rtol=1e-4, atol=1e-4)
    if isinstance(encoder, Describer):
        told = encoder.describe(others)
        demand(told == subject.describe(subject.items), f"other words, {told}", expected, mend)


def check_given(subject: EncoderSubject) -> None:
    """Items are read, not written."""
    items = list(subject.items)
    encoder = subject.make()
    if isinstance(encoder, Encoder):
        encoder.encode(items)
    if isinstance(encoder, Describer):
        encoder.describe(items)
    demand(
        items == subject.before,
        "items that were changed, or a list that was",
        "items as they were: others read them too",
        "work on a copy",
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
    if subject.reads() != "picture":
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
    Check("reads", "a row depends on what `encodes` says alone", check_reads),
    Check("given", "what is given is not changed", check_given),
    Check("without", "items without a usable picture have no vector and no words", check_without),
    Check("words", "words are a tuple an item", check_words),
)
