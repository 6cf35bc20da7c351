"""Instruction builder `ranking`: which of these candidates comes next?"""

import re
from string import ascii_uppercase

from pydantic import Field

from mmrec_bench.config import ComponentConfig
from mmrec_bench.errors import ProtocolError
from mmrec_bench.types import Catalog, Instruction, Item, Message, Query, Text

_SEPARATORS = re.compile(r"[\n;>]+")
_NUMBERING = re.compile(r"^\s*(?:\d{1,3}[.):]|[-*•])\s+")
_LABELLED = re.compile(r"^([A-Z]{1,3})(?:[.):]\s*(.*))?$", re.DOTALL)
_SPACES = re.compile(r"\s+")


class Ranking:
    """History and labelled candidates as text; what is known of a picture enters as words.

    The wording is ours; the task form (history, candidate list, one answer) is that of zero-shot
    rankers such as LLMRank (Hou et al., ECIR 2024) and InstructRec (Zhang et al., 2023).
    """

    class Config(ComponentConfig):
        """Options of the `ranking` builder."""

        history_length: int = Field(8, ge=0, description="newest items of the history shown")
        title_words: int = Field(16, ge=1, description="words of a title that are shown")
        attributes: tuple[str, ...] = Field(
            (), description="catalog attributes shown behind the title, e.g. [brand, category]"
        )
        images: bool = Field(default=True, description="show what is known of the picture")
        list_candidates: bool = Field(
            default=True,
            description="show the labelled candidates; without, only answers' likelihoods rank",
        )

    def __init__(self, config: Config) -> None:
        self.config = config

    def build(self, query: Query, catalog: Catalog) -> Instruction:
        """Ask for the next item; labels are A, B, ... Z, AA ... in the query's candidate order.

        Without the list there are no labels, and `parse` knows candidates by their text alone.

        Raises:
            ProtocolError: the query ranks the whole catalog, which no prompt can list.
        """
        if query.candidates is None:
            raise ProtocolError(
                "the ranking instruction lists its candidates, but the protocol ranks the whole "
                "catalog; use -o protocol.candidates=uniform"
            )
        history = query.with_history(self.config.history_length).history
        listed = self.config.list_candidates
        labels = tuple(label(i) for i in range(len(query.candidates) if listed else 0))
        answers = tuple(self.line(catalog[i]) for i in query.candidates.tolist())
        lines = ["A shopper bought these items, oldest first:"]
        lines += [
            f"{n}. {self.line(catalog[i])}" for n, i in enumerate(history.tolist(), start=1)
        ] or ["(nothing yet)"]
        if listed:
            lines.append("Candidates:")
            lines += [f"{name}. {text}" for name, text in zip(labels, answers, strict=True)]
        lines.append(f"{'Which candidate' if listed else 'What'} does the shopper buy next?")
        message = Message("user", (Text("\n".join(lines)),))
        return Instruction((message,), labels, answers)

    def line(self, item: Item) -> str:
        """Describe one item in a line: title, chosen attributes, words of its picture."""
        title = _SPACES.sub(" ", item.title).strip() or f"item {item.index}"
        words = title.split(" ")
        if len(words) > self.config.title_words:
            title = " ".join(words[: self.config.title_words]) + " ..."
        known = [
            value
            for name in self.config.attributes
            if (value := _SPACES.sub(" ", item.attributes.get(name, "")).strip())
            and value.lower() not in title.lower()
        ]
        if self.config.images:
            known += item.image_words
        return f"{title} ({', '.join(known)})" if known else title

    def parse(self, text: str, instruction: Instruction) -> list[int]:
        """Read candidate positions, best first, no repeats.

        A piece of the answer (a line, or what stands between `;` or `>`; a list of bare labels
        may use commas) counts when it is a label, a label followed by its own candidate's text,
        or a candidate's text. Anything else is skipped, so prose and junk read as nothing.
        """
        by_label = {name: i for i, name in enumerate(instruction.labels)}
        by_text = _unambiguous(instruction.answers)
        found: list[int] = []
        for piece in _pieces(text, by_label):
            position = _read(piece, by_label, by_text, instruction.answers)
            if position is not None and position not in found:
                found.append(position)
        return found


def label(position: int) -> str:
    """Name a candidate: 0 -> A, 25 -> Z, 26 -> AA."""
    name = ""
    position += 1
    while position:
        position, digit = divmod(position - 1, 26)
        name = ascii_uppercase[digit] + name
    return name


def _normal(text: str) -> str:
    return _SPACES.sub(" ", text).strip(" \t\n\"'`*.").casefold()


def _unambiguous(answers: tuple[str, ...]) -> dict[str, int]:
    """Map each text that names one candidate alone, with or without its bracket, to it."""
    named: dict[str, set[int]] = {}
    for i, answer in enumerate(answers):
        for form in (answer, answer.rsplit(" (", 1)[0]):
            named.setdefault(_normal(form), set()).add(i)
    return {form: next(iter(i)) for form, i in named.items() if len(i) == 1}


def _pieces(text: str, by_label: dict[str, int]) -> list[str]:
    pieces: list[str] = []
    for line in _SEPARATORS.split(text):
        parts = [part.strip(" .\"'`*[]()") for part in line.split(",")]
        bare = len(parts) > 1 and all(part in by_label for part in parts if part)
        pieces += parts if bare else [_NUMBERING.sub("", line).strip(" \"'`*")]
    return [piece for piece in pieces if piece]


def _read(
    piece: str, by_label: dict[str, int], by_text: dict[str, int], answers: tuple[str, ...]
) -> int | None:
    named = by_text.get(_normal(piece))
    if named is not None:
        return named
    match = _LABELLED.match(piece.strip("[]()"))
    if match is None or match[1] not in by_label:
        return None
    position = by_label[match[1]]
    rest = _normal(match[2] or "")
    # a label beside another candidate's text contradicts itself: neither is believed
    return position if not rest or _normal(answers[position]).startswith(rest) else None
