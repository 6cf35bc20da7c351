"""P5's prompts: read from a file, checked, and turned into token ids with their words.

Letters: T tokens of a source.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import chain
from string import Formatter
from types import MappingProxyType
from typing import NamedTuple

import yaml

from mmrec_bench.errors import DataFormatError
from mmrec_plugins.models.p5.tokens import Tokens

ITEM_SLOTS = frozenset({"history", "candidates", "judged", "rated"})
TEXT_SLOTS = frozenset({"given", "written"})
ANSWERS = frozenset({"target", "verdict", "stars", "summary", "explanation"})
_ASKED = ITEM_SLOTS | TEXT_SLOTS | {"user"}
NOTHING = "nothing"
YES, NO = "yes", "no"


@dataclass(frozen=True, slots=True)
class Prompt:
    """One wording.

    Attributes:
        family: one of `options.FAMILIES`.
        ask: with slots, see prompts.yaml.
        answer: the name of the slot that is the target text.
    """

    family: str
    ask: str
    answer: str

    @property
    def slots(self) -> frozenset[str]:
        """Names of the slots that are asked about."""
        return frozenset(name for _, name, _, _ in Formatter().parse(self.ask) if name)


@cache
def read_prompts() -> tuple[Prompt, ...]:
    """Read and check the wordings.

    Raises:
        DataFormatError: a prompt has a slot that is not known, or none to answer.
    """
    text = files("mmrec_plugins.models.p5").joinpath("prompts.yaml").read_text(encoding="utf-8")
    prompts = []
    for family, rows in yaml.safe_load(text).items():
        for row in rows:
            answer = str(row["answer"]).removeprefix("{").removesuffix("}")
            prompt = Prompt(family, str(row["ask"]), answer)
            unknown = prompt.slots - _ASKED
            if unknown or answer not in ANSWERS:
                wrong = ", ".join(sorted(unknown)) or f"answer {row['answer']!r}"
                raise DataFormatError(f"prompts.yaml, {family}: {wrong} is no known slot")
            prompts.append(prompt)
    return tuple(prompts)


def next_item_prompts() -> tuple[Prompt, ...]:
    """Return the wordings that ask for the item after a history."""
    return tuple(p for p in read_prompts() if p.family == "sequential" and p.answer == "target")


class Source(NamedTuple):
    """One prompt as the encoder reads it; lists of length T.

    Attributes:
        ids: token ids, the end token last.
        words: number of the word that a token belongs to, from 1; 0 at the end token.
        pictures: item whose picture stands at a place; -1 = a token.
    """

    ids: list[int]
    words: list[int]
    pictures: list[int]


class _Piece(NamedTuple):
    """A part of a wording: tokens of literal words, or a slot.

    Attributes:
        ids: tokens; of a slot, those that come before it in its word.
        words: of the tokens, relative to the words before.
        n_words: words that begin here.
        slot: name, or "".
    """

    ids: list[int]
    words: list[int]
    n_words: int
    slot: str


class Writer:
    """Fills the slots of wordings.

    An item is one word, whatever number of tokens it has (P5, section 4.2); its visual tokens,
    where it has some, stand behind its own and belong to the same word (VIP5, section 3.2).
    """

    def __init__(
        self,
        tokens: Tokens,
        codes: Sequence[Sequence[int]],
        pictured: Sequence[bool] = (),
        n_visual: int = 0,
        longest: int = 64,
    ) -> None:
        """Prepare.

        Args:
            tokens: the tokenizer.
            codes: token ids of each of N items.
            pictured: N, whether an item has a picture; () = none has.
            n_visual: visual tokens of an item that has one.
            longest: tokens of a text at most.
        """
        self._tokens = tokens
        self._longest = longest
        self._items = [list(code) for code in codes]
        self._pictures = [[-1] * len(code) for code in codes]
        if n_visual:
            for item, has in enumerate(pictured):
                if has:
                    self._items[item] = self._items[item] + [tokens.pad] * n_visual
                    self._pictures[item] = self._pictures[item] + [item] * n_visual
        self._cut: dict[Prompt, list[_Piece]] = {}
        self._nothing = tokens.word(NOTHING)

    def write(
        self,
        prompt: Prompt,
        user: int,
        items: Mapping[str, Sequence[int]],
        texts: Mapping[str, str] = MappingProxyType({}),
    ) -> Source:
        """Return the source of one example.

        Args:
            prompt: the wording.
            user: number.
            items: slot -> item numbers; a slot of several items may be empty.
            texts: slot -> text, cut to whole words of `longest` tokens at most.
        """
        pieces = self._cut.get(prompt)
        if pieces is None:
            pieces = self._cut[prompt] = self._pieces(prompt)
        ids: list[int] = []
        words: list[int] = []
        pictures: list[int] = []
        at = 1
        for piece in pieces:
            ids += piece.ids
            words += [at + word for word in piece.words]
            pictures += [-1] * len(piece.ids)
            at += piece.n_words
            if piece.slot == "user":
                code = self._tokens.number(user)
                ids += code
                words += [at - 1] * len(code)
                pictures += [-1] * len(code)
            elif piece.slot in TEXT_SLOTS:
                for code in self.text(texts[piece.slot]):
                    ids += code
                    words += [at] * len(code)
                    pictures += [-1] * len(code)
                    at += 1
            elif piece.slot:
                at = self._add_items(items[piece.slot], ids, words, pictures, at)
        ids.append(self._tokens.end)
        words.append(0)
        pictures.append(-1)
        return Source(ids, words, pictures)

    def text(self, text: str) -> list[list[int]]:
        """Return the tokens of each word, no more words than have `longest` tokens in all.

        A first word that is longer is cut.
        """
        found: list[list[int]] = []
        left = self._longest
        for code in self._tokens.words(text.split()[:left]):
            if found and len(code) > left:
                break
            found.append(code[:left])
            left -= len(code)
        return found

    def answer(self, text: str) -> list[int]:
        """Return a text as a target: its tokens and the end token."""
        return [*chain.from_iterable(self.text(text)), self._tokens.end]

    def _add_items(
        self, items: Sequence[int], ids: list[int], words: list[int], pictures: list[int], at: int
    ) -> int:
        for item in items:
            code = self._items[item]
            ids += code
            words += [at] * len(code)
            pictures += self._pictures[item]
            at += 1
        if not len(items):
            ids += self._nothing
            words += [at] * len(self._nothing)
            pictures += [-1] * len(self._nothing)
            at += 1
        return at

    def _pieces(self, prompt: Prompt) -> list[_Piece]:
        pieces = []
        for literal, slot, _, _ in Formatter().parse(prompt.ask):
            ids: list[int] = []
            words: list[int] = []
            texts = literal.split()
            for number, text in enumerate(texts):
                code = self._tokens.word(text)
                ids += code
                words += [number] * len(code)
            # user_{user}: the slot goes on with the word before; a slot of items is words of its
            # own, even at the start of a wording.
            opens_word = slot == "user" and (not literal or literal[-1].isspace())
            pieces.append(_Piece(ids, words, len(texts) + opens_word, slot or ""))
        return pieces
