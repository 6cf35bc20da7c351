"""How an item is shown to a teacher: its text, its picture or words of it."""

import re
from typing import Literal

from mmrec_bench.types import Image, Item
from mmrec_plugins.instructions.building.config import BuildingConfig, Language
from mmrec_plugins.instructions.items import one_line

Shown = Literal["image", "words", "both", "none"]

_SPACES = re.compile(r"\s+")
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_COMMA = {"en": ", ", "zh": "、"}
_NO_TITLE = {"en": "(untitled)", "zh": "（无标题）"}


class Describer:
    """Writes items as the options of a build say."""

    def __init__(self, building: BuildingConfig, language: Language, *, looks: bool) -> None:
        self.building, self.language = building, language
        auto: Shown = "image" if looks else "both"
        self.shown: Shown = auto if building.pictures == "auto" else building.pictures
        self.looks = looks

    def title(self, item: Item) -> str:
        """Return the title in one line, cut to `title_words`."""
        return cut(item.title, self.building.title_words) or _NO_TITLE[self.language]

    def text(self, item: Item) -> str:
        """Return the description in one line, cut to `text_words`."""
        return cut(item.text, self.building.text_words)

    def picture(self, item: Item) -> Image | None:
        """Return the picture part, where it is shown and there is one."""
        if self.shown in {"image", "both"} and item.images:
            return Image(item.images[0], item.index)
        return None

    def picture_words(self, item: Item) -> str:
        """Return words of the picture, where they are shown; "" where none are known."""
        if self.shown not in {"words", "both"}:
            return ""
        return _COMMA[self.language].join(item.image_words)

    def attributes(self, item: Item) -> dict[str, str]:
        """Return the catalog's attributes in one line each, those with a value."""
        return {
            name: value
            for name, raw in item.attributes.items()
            if (value := one_line(raw)) and name != "price"
        }

    def readable(self, item: Item) -> str:
        """Return all text of the item that a teacher was shown, for checks of what it claims."""
        return "\n".join([self.title(item), self.text(item), *self.attributes(item).values()])


def cut(text: str, n_words: int) -> str:
    """Return a text in one line, its first words where it has more."""
    words = one_line(text).split(" ")
    return " ".join(words[:n_words]) + (" ..." if len(words) > n_words else "")


def words_of(text: str) -> list[str]:
    """Return the words of a text in lower case, without punctuation."""
    return [word.replace("’", "'") for word in _WORD.findall(text.casefold())]
