"""Does a backbone know a data set by heart? Titles, file order and ids, completed from memory.

The untuned backbone is asked in plain text, without a chat template. Each question has `N_CHOICES`
endings, one of them true, ranked by their log-likelihood behind the shown text. Chance is
1 / N_CHOICES:

- `title`: the first half of a title's words is shown, then come its own other half and those of
  other titles with as many words.
- `neighbour`: a title is shown, then come the title on the next line of the data set's file and
  those of other items with as many words. The order of the file is taken to be that of the data
  set's own ids: numbers by value (MovieLens numbers its films in file order), anything else as
  strings (ASINs).
- `id`: three lines `id::title` of other items and one more id are shown, then come its title and
  others with as many words; only where all ids are numbers, as in MovieLens (`1::Toy Story
  (1995)`).

A model may find the true ending because the language suggests it, with no memory of the title. So
each question is asked a second time, of *exchanged* titles: every word with a capital letter and no
digit that is no function word changes places with such words of other titles, by seed. Function
words, years, lengths and the data set's vocabulary stay, and nobody can have read the titles that
come out (some short ones may exist by chance). What counts as
memory is the difference between the two (`gain`, with its paired 95 % bootstrap interval), not the
accuracy alone.

After Di Palma et al., Do LLMs Memorize Recommendation Datasets? (SIGIR 2025), who ask chat models
for lines of MovieLens-1M by their ids and count exact answers. The likelihood form, which small
backbones can answer too, and the control are ours. Chat models behind a server are not probed: they
give no likelihoods.

Letters: Q questions, C choices.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmrec_bench.evaluation import paired_difference
from mmrec_bench.types import Catalog
from mmrec_plugins.models.lm.generation import generate
from mmrec_plugins.models.lm.scoring import ScoringRequest, score_answers
from mmrec_plugins.models.lm.tokenizing import TextTokenizer

N_CHOICES = 20
"""Endings of a question, the true one among them."""

_SHOWN_LINES = 3
"""Lines `id::title` shown before the id that is asked for."""

_FUNCTION_WORDS = frozenset({
    "a", "an", "the", "and", "or", "but", "nor", "of", "in", "on", "at", "to", "for", "from",
    "with", "without", "by", "as", "is", "are", "was", "be", "it", "its", "this", "that", "not",
    "no", "vs", "la", "le", "les", "el", "los", "der", "die", "das", "il", "lo", "l'",
})  # fmt: skip

Lines = Sequence[tuple[str, str]]
"""(id, title) in file order."""


@dataclass(frozen=True, slots=True)
class Question:
    """A text and how it might go on.

    Attributes:
        text: what is shown.
        endings: the true ending first, then others, all different.
    """

    text: str
    endings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Answered:
    """How a backbone fared.

    Attributes:
        first: (Q,) float64, 1 = the true ending is ranked first; equal endings share it.
        reciprocal_rank: (Q,) float64, of the true ending; equal endings share their mean rank.
        exact: (Q,) float64, 1 = the backbone by itself writes the true ending, token for token.
    """

    first: NDArray[np.float64]
    reciprocal_rank: NDArray[np.float64]
    exact: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Kind:
    """A way of asking.

    Attributes:
        asked: lines that can be asked about.
        target: line whose ending is true, for a line that is asked about.
        text: what is shown for a line, given other lines that are no choices.
        ending: how a line would end the text.
    """

    asked: Sequence[int]
    target: Callable[[int], int]
    text: Callable[[Lines, int, Sequence[int]], str]
    ending: Callable[[Lines, int], str]


def probe(
    model: Any,  # noqa: ANN401 - a transformers or a PEFT model, both untyped
    tokenizer: TextTokenizer,
    catalog: Catalog,
    *,
    n_items: int,
    seed: int,
) -> dict[str, float]:
    """Ask all that the catalog allows.

    Args:
        model: the backbone; its adapter, where it has one, is disabled by the caller.
        tokenizer: its own.
        catalog: all items of the data set, with its own ids.
        n_items: questions of each kind at most.
        seed: of the choice of items and endings and of the exchange of words.

    Returns:
        For each kind `memory_<kind>_n`; where it is above 0 also `_chance`, `_accuracy`, `_mrr` and
        `_exact`, the last three also with `_control`, and `_gain`, `_gain_low` and `_gain_high` of
        the accuracy. A kind that cannot be asked (titles of one word, fewer than 20 of a length,
        ids that are no numbers) has n = 0 and nothing else.
    """
    lines = in_file_order(catalog)
    control = exchanged(lines, np.random.default_rng([seed, 0]))
    facts: dict[str, float] = {}
    for number, (name, kind) in enumerate(kinds(lines).items(), start=1):
        rng = np.random.default_rng([seed, number])
        asked, others = questions(kind, lines, control, n_items, rng)
        facts[f"memory_{name}_n"] = len(asked)
        if asked:
            found, expected = (answer(model, tokenizer, some) for some in (asked, others))
            facts |= {f"memory_{name}_{key}": x for key, x in compare(found, expected).items()}
    return facts


def compare(found: Answered, control: Answered) -> dict[str, float]:
    """Return the means of both, and how much more often the true ending comes first."""
    gain = paired_difference(found.first, control.first)
    facts = {"chance": 1.0 / N_CHOICES}
    for suffix, one in (("", found), ("_control", control)):
        facts[f"accuracy{suffix}"] = float(one.first.mean())
        facts[f"mrr{suffix}"] = float(one.reciprocal_rank.mean())
        facts[f"exact{suffix}"] = float(one.exact.mean())
    facts["gain"] = gain.value
    if gain.n > 1:
        facts |= {"gain_low": gain.low, "gain_high": gain.high}
    return facts


def in_file_order(catalog: Catalog) -> list[tuple[str, str]]:
    """Return (id, title) of all items with a title, by own id; spaces in titles are single."""
    rows = [
        (name, " ".join(title.split()))
        for name, title in zip(catalog.items.ids, catalog.title, strict=True)
        if title.split()
    ]
    numbered = _numbered(rows)
    return sorted(rows, key=lambda row: (int(row[0]) if numbered else 0, row[0]))


def exchanged(lines: Lines, rng: np.random.Generator) -> list[tuple[str, str]]:
    """Return lines in whose titles capitalised words have changed places; see the module.

    What clings to a word (a comma, a bracket) stays where it is.
    """
    titles = [[_parts(word) for word in title.split()] for _, title in lines]
    places = [
        (line, at)
        for line, words in enumerate(titles)
        for at, (_, core, _) in enumerate(words)
        if any(map(str.isupper, core))
        and not any(map(str.isdigit, core))
        and core.lower() not in _FUNCTION_WORDS
    ]
    cores = [titles[line][at][1] for line, at in places]
    for (line, at), turn in zip(places, rng.permutation(len(places)).tolist(), strict=True):
        before, _, after = titles[line][at]
        titles[line][at] = (before, cores[turn], after)
    joined = [" ".join("".join(word) for word in words) for words in titles]
    return [(name, title) for (name, _), title in zip(lines, joined, strict=True)]


def kinds(lines: Lines) -> dict[str, Kind]:
    """Return the ways of asking about these lines."""
    everyone = range(len(lines))
    return {
        "title": Kind(
            [i for i in everyone if len(lines[i][1].split()) > 1],
            lambda i: i,
            lambda some, i, _: _half(some[i][1], first=True),
            lambda some, i: " " + _half(some[i][1], first=False),
        ),
        "neighbour": Kind(
            everyone[:-1],
            lambda i: i + 1,
            lambda some, i, _: some[i][1] + "\n",
            lambda some, i: some[i][1],
        ),
        "id": Kind(
            everyone if _numbered(lines) else (),
            lambda i: i,
            lambda some, i, shown: (
                "".join(f"{some[j][0]}::{some[j][1]}\n" for j in shown) + f"{some[i][0]}::"
            ),
            lambda some, i: some[i][1],
        ),
    }


def questions(
    kind: Kind, lines: Lines, control: Lines, n: int, rng: np.random.Generator
) -> tuple[list[Question], list[Question]]:
    """Ask about at most `n` lines, and the same about the control, with the same lines as choices.

    Left out: lines that the exchange left as they were, and those with too few others of a length.
    """
    lengths = [len(title.split()) for _, title in lines]
    groups: dict[int, list[int]] = defaultdict(list)
    for i, length in enumerate(lengths):
        groups[length].append(i)
    asked: tuple[list[Question], list[Question]] = ([], [])
    for i in rng.permutation(np.asarray(kind.asked, np.int64)).tolist():
        if len(asked[0]) == n:
            break
        target = kind.target(i)
        group = groups[lengths[target]]
        if lines[target] == control[target] or len(group) < N_CHOICES:
            continue
        order = [j for j in rng.permutation(group).tolist() if j not in (i, target)]
        choices = _different(kind, (lines, control), [target, *order])
        if len(choices) < N_CHOICES:
            continue
        free = [j for j in rng.permutation(len(lines))[: N_CHOICES + 9].tolist() if j != i]
        shown = [j for j in free if j not in choices][:_SHOWN_LINES]
        for some, made in zip((lines, control), asked, strict=True):
            endings = tuple(kind.ending(some, j) for j in choices)
            made.append(Question(kind.text(some, i, shown), endings))
    return asked


def answer(
    model: Any,  # noqa: ANN401 - a transformers or a PEFT model, both untyped
    tokenizer: TextTokenizer,
    asked: Sequence[Question],
) -> Answered:
    """Let a backbone rank the endings of each question, and write one of its own."""
    # A text starts as a document does: behind the start tokens, or where there are none, an end.
    start = list(tokenizer.prefix_ids) or [tokenizer.eos_id]
    behind = [_request(tokenizer, start, one) for one in asked]
    pad_id = tokenizer.pad_id
    scores = np.stack(score_answers(model, behind, pad_id=pad_id))  # (Q, C)
    better = (scores[:, 1:] > scores[:, :1]).sum(axis=1)
    level = (scores[:, 1:] == scores[:, :1]).sum(axis=1)
    true = [one.answer_ids[0] for one in behind]
    written = generate(
        model,
        [one.prompt_ids for one in behind],
        eos_id=tokenizer.stop_ids,
        pad_id=pad_id,
        max_new_tokens=max(map(len, true)),
    )
    exact = [ids[: len(wanted)] == wanted for ids, wanted in zip(written, true, strict=True)]
    return Answered(
        first=(better == 0) / (level + 1),
        reciprocal_rank=1.0 / (1 + better + level / 2),
        exact=np.array(exact, np.float64),
    )


def _request(tokenizer: TextTokenizer, start: Sequence[int], asked: Question) -> ScoringRequest:
    """Tokenise text and endings as one, since a tokenizer may join what stands at the seam.

    The prompt is what all of them start with.
    """
    rows = tokenizer.encode_batch([asked.text + ending for ending in asked.endings])
    shown = tokenizer.encode(asked.text)
    n_shared = min(_n_shared(shown, row) for row in rows)
    n_shared = min(n_shared, *(len(row) - 1 for row in rows))
    return ScoringRequest([*start, *rows[0][:n_shared]], [row[n_shared:] for row in rows])


def _n_shared(a: Sequence[int], b: Sequence[int]) -> int:
    pairs = enumerate(zip(a, b, strict=False))
    return next((i for i, (x, y) in pairs if x != y), min(len(a), len(b)))


def _different(kind: Kind, both: tuple[Lines, Lines], order: Sequence[int]) -> list[int]:
    """Return the first lines whose endings differ from one another, in both sets of titles."""
    chosen: list[int] = []
    seen: tuple[set[str], set[str]] = (set(), set())
    for j in order:
        endings = [kind.ending(lines, j).casefold() for lines in both]
        if any(ending in known for ending, known in zip(endings, seen, strict=True)):
            continue
        for ending, known in zip(endings, seen, strict=True):
            known.add(ending)
        chosen.append(j)
        if len(chosen) == N_CHOICES:
            break
    return chosen


def _half(title: str, *, first: bool) -> str:
    words = title.split()
    half = len(words) // 2
    return " ".join(words[:half] if first else words[half:])


def _parts(word: str) -> tuple[str, str, str]:
    """Split a word into what clings to its front, its core, and what clings to its end."""
    inner = [i for i, letter in enumerate(word) if letter.isalnum()]
    if not inner:
        return word, "", ""
    return word[: inner[0]], word[inner[0] : inner[-1] + 1], word[inner[-1] + 1 :]


def _numbered(lines: Lines) -> bool:
    return bool(lines) and all(name.isascii() and name.isdigit() for name, _ in lines)
