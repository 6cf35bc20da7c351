"""How an item is shown in an instruction: a line of text, and its picture before the title."""

import re
from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
from pydantic import Field

from mmrec_bench.interfaces import InstructionContext
from mmrec_bench.types import BoolArray, Image, Item, Text
from mmrec_plugins.instructions.knowledge import Knowledge, KnowledgeOptions

_SPACES = re.compile(r"\s+")

Pictures = Literal["none", "words", "images", "both"]


class ItemOptions(KnowledgeOptions):
    """Options of every builder that shows items."""

    history_length: int = Field(8, ge=0, description="newest items of the history shown")
    title_words: int = Field(16, ge=1, description="words of a title that are shown")
    fields: tuple[str, ...] = Field(
        (), description="catalog attributes shown behind the title, e.g. [brand, category]"
    )
    pictures: Pictures = Field(
        "words",
        description="what a picture adds: nothing, words that describe it, the image itself "
        "(for models that see), or both",
    )
    max_pictures: int | None = Field(
        None,
        ge=1,
        description="images in one instruction at most: of all candidates or of none, then of the "
        "newest history, then of demonstrations; None = no limit",
    )


class ItemWriter:
    """Writes items as the options say; what teachers wrote comes in with `prepare`."""

    def __init__(self, config: ItemOptions) -> None:
        self.config = config
        self.knowledge = Knowledge(config)
        self._has_vector: BoolArray | None = None

    def prepare(self, context: InstructionContext) -> None:
        """Load profiles and attributes, and see which items have a vector instead of a picture.

        Raises:
            ConfigError: profiles or attributes are asked for and were not built.
        """
        self.knowledge.prepare(context)
        if context.vectors is not None:
            finite = np.isfinite(context.vectors).all(axis=1)
            self._has_vector = np.asarray(finite, np.bool_)

    def line(self, item: Item) -> str:
        """Describe one item in a line: title, chosen fields, attributes, words of its picture."""
        title = one_line(item.title) or f"item {item.index}"
        words = title.split(" ")
        if len(words) > self.config.title_words:
            title = " ".join(words[: self.config.title_words]) + " ..."
        known = [
            value
            for name in self.config.fields
            if (value := one_line(item.attributes.get(name, "")))
            and value.lower() not in title.lower()
        ]
        known += [
            f"{name}: {value}"
            for name, value in self.knowledge.attributes_of(item.index)
            if value.lower() not in title.lower()
        ]
        if self.config.pictures in {"words", "both"}:
            known += item.image_words
        return f"{title} ({', '.join(known)})" if known else title

    def picture(self, item: Item) -> Image | None:
        """Return the picture of an item, where the options ask for images and it has one.

        An item whose vector alone is known (from a feature file) has a picture without a path.
        """
        if self.config.pictures not in {"images", "both"}:
            return None
        if item.images:
            return Image(item.images[0], item.index)
        seen = self._has_vector is not None and bool(self._has_vector[item.index])
        return Image(None, item.index) if seen else None

    def listing(
        self, names: Iterable[str], items: Sequence[Item], pictured: Sequence[bool] | None = None
    ) -> list[str | Image]:
        """Return one line an item, `name. [picture]text`, as pieces for `join_parts`.

        Args:
            names: what stands before each item: a number or a label.
            items: the items.
            pictured: which may show their picture; None = all.
        """
        shown = [True] * len(items) if pictured is None else pictured
        pieces: list[str | Image] = []
        for name, item, pictured_too in zip(names, items, shown, strict=True):
            pieces.append(f"\n{name}. " if pieces else f"{name}. ")
            pieces += self.bare(item, pictured=pictured_too)
        return pieces

    def bare(self, item: Item, *, pictured: bool = True) -> list[str | Image]:
        """Return the line of one item without a name before it, as pieces for `join_parts`."""
        picture = self.picture(item) if pictured else None
        return [self.line(item)] if picture is None else [picture, self.line(item)]

    def allot(self, groups: Sequence[tuple[Sequence[Item], bool]]) -> list[list[bool]]:
        """Divide `max_pictures` over groups of items, the first group first.

        Args:
            groups: items, and whether they are candidates. Some candidates with a picture and some
                without would favour one or the other by their place in the list, so all of them
                show theirs or none; of a history the newest do.

        Returns:
            For each group, which items may show their picture.
        """
        left = self.config.max_pictures
        if left is None:
            return [[True] * len(items) for items, _ in groups]
        shown: list[list[bool]] = []
        for items, candidates in groups:
            has = [self.picture(item) is not None for item in items]
            if candidates and sum(has) > left:
                has = [False] * len(items)
            # place among the pictures of the group, counted from the newest
            place = np.cumsum(has[::-1])[::-1]
            shown.append([own and int(at) <= left for own, at in zip(has, place, strict=True)])
            left -= sum(shown[-1])
        return shown


def one_line(text: str) -> str:
    """Return a text with its white space made single spaces."""
    return _SPACES.sub(" ", text).strip()


def join_parts(pieces: Iterable[str | Image]) -> tuple[Text | Image, ...]:
    """Return the parts of a message: texts that follow one another are joined, empty ones go."""
    parts: list[Text | Image] = []
    for piece in pieces:
        last = parts[-1] if parts else None
        if isinstance(piece, Image):
            parts.append(piece)
        elif piece and isinstance(last, Text):
            parts[-1] = Text(last.text + piece)
        elif piece:
            parts.append(Text(piece))
    return tuple(parts)
