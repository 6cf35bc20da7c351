"""Labels of candidates, and the strict reading of a plain-text answer that names them."""

import re
from string import ascii_uppercase

_SEPARATORS = re.compile(r"[\n;>]+")
_NUMBERING = re.compile(r"^\s*(?:\d{1,3}[.):]|[-*•])\s+")
_LABELLED = re.compile(r"^([A-Z]{1,3})(?:[.):]\s*(.*))?$", re.DOTALL)
_SPACES = re.compile(r"\s+")


def label(position: int) -> str:
    """Name a candidate: 0 -> A, 25 -> Z, 26 -> AA."""
    name = ""
    position += 1
    while position:
        position, digit = divmod(position - 1, 26)
        name = ascii_uppercase[digit] + name
    return name


def read_plain(text: str, labels: tuple[str, ...], answers: tuple[str, ...]) -> list[int]:
    """Read candidate positions, best first, no repeats.

    A piece of the answer (a line, or what stands between `;` or `>`; a list of bare labels
    may use commas) counts when it is a label, a label followed by its own candidate's text,
    or a candidate's text. Anything else is skipped, so prose and junk read as nothing.
    """
    by_label = {name: i for i, name in enumerate(labels)}
    return read_pieces(_pieces(text, by_label), labels, answers)


def read_pieces(
    pieces: list[str],
    labels: tuple[str, ...],
    answers: tuple[str, ...],
    *,
    labels_first: bool = False,
) -> list[int]:
    """Read pieces that each name one candidate, or nothing; see `read_plain`.

    With `labels_first` a bare label is a label, even where a candidate's title is that letter.
    """
    by_label = {name: i for i, name in enumerate(labels)}
    by_text = _unambiguous(answers)
    found: list[int] = []
    for piece in pieces:
        labelled = by_label.get(piece) if labels_first else None
        position = _read(piece, by_label, by_text, answers) if labelled is None else labelled
        if position is not None and position not in found:
            found.append(position)
    return found


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
