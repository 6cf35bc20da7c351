"""Which entries are kept: each filter has a name, and every rejection is counted under it."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from mmrec_bench.types import Catalog
from mmrec_plugins.instructions.building.config import BuildingConfig, Language
from mmrec_plugins.instructions.building.describing import words_of
from mmrec_plugins.instructions.building.duplicates import Duplicates
from mmrec_plugins.instructions.building.jobs import Made, Rejected
from mmrec_plugins.instructions.building.reading import looks_refused
from mmrec_plugins.instructions.building.sources import Truth
from mmrec_plugins.instructions.corpus import CorpusEntry

_RUN = 5
_CIRCLE = 8
_COPIED_FROM = 6  # a few words in a row are a name
_CJK = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]")
_YEAR = re.compile(r"\s*\(\d{4}\)\s*$")  # titles of films end with it, mentions do not
_LETTER = re.compile(r"[^\W\d_]")
_CJK_SHARE = {"en": (0.0, 0.1), "zh": (0.2, 1.0)}


@dataclass
class Judged:
    """What became of all entries.

    Attributes:
        kept: in order.
        rejected: in order, by the filter that met them first.
        held_out_negatives: kept entries with a candidate that is held out for the user and not the
            answer; see `BuildingConfig.held_out_negatives`.
    """

    kept: list[CorpusEntry] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    held_out_negatives: int = 0

    def reasons(self, kind: str) -> dict[str, int]:
        """Return reason -> rejected entries of one kind, the most frequent first."""
        counts = Counter(one.reason for one in self.rejected if one.kind == kind)
        return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))


class Filters:
    """Judges one entry after another; the order of the entries decides which duplicate stays."""

    def __init__(
        self, building: BuildingConfig, language: Language, catalog: Catalog, truth: Truth
    ) -> None:
        self.building, self.language, self.catalog, self.truth = building, language, catalog, truth
        self._titles = [_plain(_YEAR.sub("", title)) for title in catalog.title]
        self._duplicates: dict[str, Duplicates] = {}

    def judge(self, results: Iterable[Made | Rejected]) -> Judged:
        """Keep what passes every filter."""
        judged = Judged()
        for one in results:
            rejected = one if isinstance(one, Rejected) else self._reject(one)
            if rejected is not None:
                judged.rejected.append(rejected)
            elif isinstance(one, Made):
                judged.kept.append(one.entry)
                judged.held_out_negatives += bool(self._held_out_negatives(one))
        return judged

    def _reject(self, made: Made) -> Rejected | None:
        entry = made.entry
        about = entry.user or (entry.items[0] if entry.items else "")
        for reason, detail in self._faults(made):
            return Rejected(entry.kind, about, reason, detail)
        kept = self._duplicates.setdefault(entry.kind, Duplicates(self.building.near_duplicates))
        if (twin := kept.find(about, made.content)) is not None:
            return Rejected(entry.kind, about, twin[0], f"of {twin[1]}")
        return None

    def _faults(self, made: Made) -> Iterator[tuple[str, str]]:
        """Yield what is wrong: (reason, what was found)."""
        said = " ".join((made.prose, *made.phrases))
        if looks_refused(said):
            yield "refused", said
        yield from self._leaks(made)
        if made.entry.kind == "profile":
            named = {self._titles[item] for item in made.shown}
            for phrase in made.phrases:
                if _plain(phrase) in named:
                    yield "names an item", phrase
        yield from self._lengths(made)
        low, high = _CJK_SHARE[self.language]
        letters = len(_LETTER.findall(made.prose))
        if letters and not low <= len(_CJK.findall(made.prose)) / letters <= high:
            yield "wrong language", made.prose
        if repetitive(made.prose) or any(map(repetitive, made.phrases)):
            yield "repetition", said
        if made.entry.kind == "profile" and _contradicts(made.entry.value):
            yield "contradiction", said
        for text in (made.prose, *made.phrases):
            if copied_share(text, made.source) > self.building.max_copied:
                yield "copied text", text

    def _lengths(self, made: Made) -> Iterator[tuple[str, str]]:
        building = self.building
        if made.entry.kind == "profile":
            n_words = _n_words(made.prose)
            if n_words < building.min_words:
                yield "too short", made.prose
            if n_words > building.max_words:
                yield "too long", made.prose
        for phrase in made.phrases:
            if _n_words(phrase) > building.max_value_words:
                yield "too long", phrase

    def _leaks(self, made: Made) -> Iterator[tuple[str, str]]:
        """Yield what is held out for the user and stands where it must not.

        A title counts where it stands in what was written and nowhere in what the question shows:
        two items may share a title, and only one be held out.
        """
        if made.user is None:
            return
        held_out = self.truth.items.get(made.user, frozenset())
        if self.building.held_out_negatives:
            own = made.shown - self._candidates(made)
        else:
            own = made.shown
        for item in sorted(held_out & own):
            yield "held-out item", self.catalog.items[item]
        there = _plain(made.source)
        written = f" {_plain(made.written)} "
        for item in sorted(held_out):
            title = self._titles[item]
            if title and f" {title} " in written and title not in there:
                yield "held-out title", self.catalog.title[item]

    def _candidates(self, made: Made) -> frozenset[int]:
        """Return the numbers of candidates that are not the answer."""
        names = set(made.entry.candidates) - {made.entry.target}
        return frozenset(self.catalog.items.index(name) for name in names)

    def _held_out_negatives(self, made: Made) -> frozenset[int]:
        if made.user is None:
            return frozenset()
        return self._candidates(made) & self.truth.items.get(made.user, frozenset())


def copied_share(text: str, source: str) -> float:
    """Return the share of a text's 5-word runs that stand in the source; 0 for short phrases."""
    words, there = words_of(text), words_of(source)
    if len(words) < _COPIED_FROM:
        return 0.0
    runs = [tuple(words[i : i + _RUN]) for i in range(len(words) - _RUN + 1)]
    known = {tuple(there[i : i + _RUN]) for i in range(len(there) - _RUN + 1)}
    return sum(run in known for run in runs) / len(runs) if runs else 0.0


def repetitive(text: str) -> bool:
    """Return whether a text goes in circles: less than half of its 3-word runs are different."""
    words = words_of(text)
    runs = [tuple(words[i : i + 3]) for i in range(len(words) - 2)]
    return len(runs) >= _CIRCLE and len(set(runs)) < len(runs) / 2


def _contradicts(profile: Mapping[str, Any]) -> bool:
    """Return whether most dislikes are likes as well."""
    likes = {_plain(phrase) for phrase in profile["likes"]}
    dislikes = {_plain(phrase) for phrase in profile["dislikes"]}
    return len(likes & dislikes) > len(dislikes) / 2


def _n_words(text: str) -> int:
    """Count words; two Chinese characters count as one."""
    signs = len(_CJK.findall(text))
    return len(words_of(_CJK.sub(" ", text))) + (signs + 1) // 2


def _plain(title: str) -> str:
    return " ".join(words_of(title))
