"""Generated product and preference text: what `chatglm2-micro` is pretrained on.

The world of this text is its own: shops with invented brands, shoppers with tastes drawn anew for
each document. Nothing is read from any data set, and the brand names of the embedded Amazon sample
are left out by construction, so that none of its titles or histories can occur here.

A document is one of
- a description, a review or a question and answer about one product;
- a shopping log: a header, then item lines, each chosen by the same hidden taste;
- a stated preference, then purchases that follow it;
- a choice: what somebody bought, what else was on show, a question, and the next purchases.
  The question often says which *relation* decides (the shopper's own taste, the newest
  purchase, what the shelf is full of, something unlike the past, anything at all); in the rest it
  leaves that open, and the relation is drawn at random. So the pretrained model knows several
  ways to continue, and does not know which one a new data set follows: that is left to tuning.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import yaml

from mmrec_plugins.datasets.amazon_sample import BRANDS as RESERVED_BRANDS

_TEXT: dict[str, Any] = yaml.safe_load(
    files("mmrec_plugins.models.chatglm2").joinpath("corpus.yaml").read_text(encoding="utf-8")
)


def _words(name: str) -> tuple[str, ...]:
    return tuple(_TEXT[name].split())


ONSETS = _words("onsets")
CODAS = _words("codas")
BRANDS = tuple(
    brand
    for onset in ONSETS
    for coda in CODAS
    if (brand := onset + coda).casefold() not in {name.casefold() for name in RESERVED_BRANDS}
)
MATERIALS = _words("materials")
NOUNS = _words("nouns")
COLOURS = _words("colours")
SHAPES = _words("shapes")
PATTERNS = _words("patterns")
EXTRA_WORDS = _words("extra")
SLOTS = ("brand", "material", "noun", "colour", "shape", "pattern")
_WORDS = dict(zip(SLOTS, (BRANDS, MATERIALS, NOUNS, COLOURS, SHAPES, PATTERNS), strict=True))
_NAMES = _words("names")
_QUESTIONS: dict[str | None, list[str]] = _TEXT["questions"]


@dataclass(frozen=True, slots=True)
class Product:
    """One invented product: a word for each of `SLOTS`; the last three are seen in its picture."""

    brand: str
    material: str
    noun: str
    colour: str
    shape: str
    pattern: str

    @property
    def title(self) -> str:
        """Brand, material and noun."""
        return f"{self.brand} {self.material} {self.noun}"


Document = list[tuple[str, str]]
"""Rounds of (prompt, answer); one round for most kinds."""


class Taste:
    """For each slot a distribution over a shop's words: a few favourites, or no preference."""

    def __init__(self, rng: random.Random, stock: dict[str, list[str]], *, picky: float) -> None:
        self._rng = rng
        self._stock = stock
        self.favourites: dict[str, list[str]] = {}
        self._strength: dict[str, float] = {}
        for slot in SLOTS:
            if rng.random() < picky:
                n = 1 if rng.random() < 0.7 else 2
                self.favourites[slot] = rng.sample(stock[slot], min(n, len(stock[slot])))
                self._strength[slot] = rng.uniform(0.5, 0.97)

    def draw(self) -> Product:
        """A product that follows the taste."""
        return Product(*(self._word(slot) for slot in SLOTS))

    def _word(self, slot: str) -> str:
        rng = self._rng
        if slot in self.favourites and rng.random() < self._strength[slot]:
            return rng.choice(self.favourites[slot])
        return rng.choice(self._stock[slot])


@dataclass(frozen=True, slots=True)
class Mix:
    """Weights of what a corpus draws.

    Attributes:
        kinds: plain text, log, stated preference, choice.
        named: relations that a question names: taste, shelf, last, unlike, any, none.
        unnamed: taste, shelf, last, unlike, any, where the question leaves it open.
        trendy: share of shelves that have a fashion of their own.
        full: share of shelves with twenty things on show (where the bound on lines allows it).
        shown: share of choices that list a shelf at all; without one, "shelf" means "any".
        chained: share of logs in which each item resembles the one before it.
        rounds: questions about one history, at most.
    """

    kinds: tuple[int, int, int, int]
    named: tuple[int, int, int, int, int, int]
    unnamed: tuple[int, int, int, int, int]
    trendy: float = 0.33
    full: float = 0.0
    shown: float = 1.0
    chained: float = 0.0
    rounds: int = 1


# The first stage is broad and short, the second has longer lists; the third asks much more often,
# mostly without a shelf, and where a question leaves the relation open, the newest purchase decides
# more often than the taste; the fourth asks several questions about one history; the
# last two are for the slow end of training: more of the taste where it is asked for, and open
# questions that are as likely to seek a change.
STAGES = (
    Mix((12, 36, 10, 42), (24, 12, 0, 12, 8, 44), (34, 22, 0, 26, 18)),
    Mix((7, 25, 6, 62), (26, 6, 0, 14, 6, 48), (40, 10, 0, 32, 18), trendy=0.25, full=0.35),
    Mix(
        *((6, 18, 6, 70), (22, 4, 15, 8, 4, 47), (24, 6, 44, 14, 12)),
        trendy=0.4,
        full=0.2,
        shown=0.3,
        chained=0.35,
    ),
    Mix(
        *((5, 14, 5, 76), (24, 3, 20, 8, 3, 42), (26, 4, 46, 14, 10)),
        trendy=0.4,
        full=0.2,
        shown=0.12,
        chained=0.35,
        rounds=7,
    ),
    Mix(
        *((5, 22, 5, 68), (34, 3, 12, 10, 3, 38), (24, 4, 38, 24, 10)),
        trendy=0.4,
        full=0.2,
        shown=0.12,
        chained=0.25,
        rounds=7,
    ),
    Mix(
        *((5, 22, 5, 68), (32, 3, 12, 11, 2, 40), (30, 4, 10, 48, 8)),
        trendy=0.4,
        full=0.2,
        shown=0.12,
        chained=0.2,
        rounds=7,
    ),
)


class Corpus:
    """An endless, seeded stream of documents.

    Args:
        seed: The same seed gives the same documents.
        mix: What is drawn how often.
    """

    def __init__(self, seed: int, mix: Mix = STAGES[-1]) -> None:
        self._rng = random.Random(seed)  # noqa: S311 - text, not secrets
        self._mix = mix

    def documents(self, *, max_lines: int = 30) -> Iterator[Document]:
        """Documents of one or more rounds; the prompt is empty where it is plain text.

        Args:
            max_lines: Upper bound of the item lines of one document: a curriculum starts short.
        """
        kinds = (self._plain, self._log, self._stated, self._choice)
        while True:
            (kind,) = self._rng.choices(kinds, weights=self._mix.kinds)
            yield kind(max_lines)

    # Parts -----------------------------------------------------------------------------------

    def _stock(self) -> dict[str, list[str]]:
        """The words one shop deals in."""
        rng = self._rng
        sizes = {"brand": (3, 12), "material": (3, 10), "noun": (2, 14)}
        sizes |= {"colour": (4, 9), "shape": (3, 6), "pattern": (2, 5)}
        return {slot: rng.sample(_WORDS[slot], rng.randint(*size)) for slot, size in sizes.items()}

    def _style(self) -> tuple[str, float]:
        """How this document writes an item line, and how often pictures are missing."""
        rng = self._rng
        (style,) = rng.choices(
            ("bracket", "colour", "title", "by", "front"), weights=(72, 8, 8, 6, 6)
        )
        return style, rng.choice((0.0, 0.0, 0.05, 0.2))

    def _line(self, item: Product, style: tuple[str, float]) -> str:
        kind, missing = style
        if kind == "title" or self._rng.random() < missing:
            return item.title
        match kind:
            case "colour":
                return f"{item.title} ({item.colour})"
            case "by":
                return f"{item.colour} {item.pattern} {item.material} {item.noun} by {item.brand}"
            case "front":
                return f"{item.colour}, {item.shape}, {item.pattern}: {item.title}"
        return f"{item.title} ({item.colour}, {item.shape}, {item.pattern})"

    def _numbered(self, lines: Sequence[str]) -> list[str]:
        mark = self._rng.random()
        if mark < 0.6:
            return [f"{n}. {line}" for n, line in enumerate(lines, 1)]
        return [f"- {line}" for line in lines] if mark < 0.8 else list(lines)

    def _lettered(self, lines: Sequence[str]) -> list[str]:
        if self._rng.random() < 0.75:
            return [f"{chr(65 + n % 26)}. {line}" for n, line in enumerate(lines)]
        return self._numbered(lines)

    def _chat(self, rounds: Document) -> Document:
        """Dress rounds as ChatGLM2's chat, or leave them as they are."""
        if self._rng.random() < 0.75:
            return [
                ("\n\n" * (n > 1) + f"[Round {n}]\n\n问：{prompt}\n\n答：", answer)
                for n, (prompt, answer) in enumerate(rounds, start=1)
            ]
        return [("\n" * (n > 0) + f"{p}\n", answer) for n, (p, answer) in enumerate(rounds)]

    # Kinds -----------------------------------------------------------------------------------

    def _plain(self, max_lines: int) -> Document:
        rng = self._rng
        item = Taste(rng, self._stock(), picky=0).draw()
        a, b = rng.choice(_TEXT["good"]), rng.choice(_TEXT["bad"])
        look = f"{item.colour} {item.pattern}"
        place, some = rng.choice(_TEXT["places"]), " ".join(rng.sample(EXTRA_WORDS, 11))
        texts = (
            f"{item.title}. A {item.shape} {item.noun} of {item.material}, {look}. For {place}.",
            f"I bought this {look} {item.noun} for {place}. The {item.material} is {a}. I like it.",
            f"{item.brand} makes {a} things. This {item.noun} is {look}. {rng.randint(4, 5)} stars",
            f"The {item.noun} from {item.brand} is {b}, {item.shape}. {rng.randint(1, 2)} stars",
            f"{some} {item.noun}",
        )
        if rng.random() < 0.5 or max_lines < 2:
            return [("", rng.choice(texts))]
        asked = rng.choice(SLOTS)
        name = {"noun": "product", "shape": "shape", "colour": "colour"}.get(asked, asked)
        line = self._line(item, ("bracket", 0.0))
        return self._chat([(f"{line}\nWhat is its {name}?", str(getattr(item, asked)))])

    def _log(self, max_lines: int) -> Document:
        rng = self._rng
        taste = Taste(rng, self._stock(), picky=0.6)
        style = self._style()
        items = [taste.draw() for _ in range(rng.randint(3, max(3, max_lines)))]
        if rng.random() < self._mix.chained:
            keep = rng.uniform(0.5, 0.95)
            for n in range(1, len(items)):
                items[n] = _like(rng, items[n - 1], items[n], keep)
        lines = [self._line(item, style) for item in items]
        header = rng.choice(_TEXT["logs"]).format(name=rng.choice(_NAMES))
        return [("", "\n".join([header, *self._numbered(lines)]))]

    def _stated(self, max_lines: int) -> Document:
        rng = self._rng
        taste = Taste(rng, self._stock(), picky=0.5)
        liked = [word for words in taste.favourites.values() for word in words]
        rng.shuffle(liked)
        said = f"I like {', '.join(liked)}." if liked else "I like all sorts of things."
        style = self._style()
        n = rng.randint(1, max(1, min(6, max_lines)))
        lines = [self._line(taste.draw(), style) for _ in range(n)]
        if rng.random() < 0.5:
            return [("", "\n".join([f"{rng.choice(_NAMES)}: {said}", *self._numbered(lines)]))]
        return self._chat([(f"{said}\nWhat should I buy?", "\n".join(lines))])

    def _choice(self, max_lines: int) -> Document:
        """History, perhaps a shelf, questions, next purchases."""
        rng = self._rng
        stock = self._stock()
        style = self._style()
        taste = Taste(rng, stock, picky=0.65)
        trend = Taste(rng, stock, picky=0.4 if rng.random() < self._mix.trendy else 0.0)
        anything = Taste(rng, stock, picky=0.0)
        history = [taste.draw() for _ in range(rng.randint(2, max(2, min(10, max_lines // 2))))]
        most = max(2, min(20, max_lines - 5))
        n_shown = most if rng.random() < self._mix.full else rng.randint(2, most)
        shown = [trend.draw() for _ in range(n_shown)]
        with_shelf = rng.random() < self._mix.shown
        keep = rng.uniform(0.6, 0.97)
        open_relation = rng.choices((*_QUESTIONS,)[:-1], weights=self._mix.unnamed)[0]

        def buy(relation: str | None) -> Product:
            match relation or open_relation:
                case "taste":
                    return taste.draw()
                case "shelf" if with_shelf:
                    return trend.draw()
                case "last":
                    return _like(rng, history[-1], anything.draw(), keep)
                case "unlike":
                    return _unlike(rng, stock, history)
            return anything.draw()

        past = [rng.choice(_TEXT["past"]), *self._numbered([self._line(i, style) for i in history])]
        shelf = [rng.choice(_TEXT["shown"]), *self._lettered([self._line(i, style) for i in shown])]
        told = "\n".join([*past, *(shelf if with_shelf else [])])
        rounds: Document = []
        n_rounds = rng.randint(1, self._mix.rounds)
        for _ in range(n_rounds):
            relation = rng.choices((*_QUESTIONS,), weights=self._mix.named)[0]
            question = rng.choice(_QUESTIONS[relation])
            n = 1 if n_rounds > 1 else rng.choice((1, 1, 2, 3))
            answer = "\n".join(self._line(buy(relation), style) for _ in range(n))
            rounds.append((question if rounds else f"{told}\n{question}", answer))
        return self._chat(rounds)


def _like(rng: random.Random, old: Product, new: Product, keep: float) -> Product:
    """The new product with each word of the old one kept at probability `keep`."""
    words = ((getattr(old, s), getattr(new, s)) for s in SLOTS)
    return Product(*(a if rng.random() < keep else b for a, b in words))


def _unlike(rng: random.Random, stock: dict[str, list[str]], history: Sequence[Product]) -> Product:
    """A product of the words that the history holds least of."""
    words = []
    for slot in SLOTS:
        seen = [str(getattr(item, slot)) for item in history]
        least = min(seen.count(word) for word in stock[slot])
        words.append(rng.choice([word for word in stock[slot] if seen.count(word) == least]))
    return Product(*words)
