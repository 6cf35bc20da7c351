"""The instruction corpora that a fit mixes in: read, weighed, and kept from leaking.

A corpus is built from train interactions alone, but by another command, perhaps under another
protocol. So what can be checked is checked against this run's own train interactions: an entry
that shows or targets anything else of a user would teach what validation and test ask.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmrec_bench.errors import ConfigError, DataFormatError, ModelError
from mmrec_bench.interfaces import TrainingData
from mmrec_bench.types import Catalog, Image, Message, Text
from mmrec_plugins.instructions.corpus import (
    KINDS,
    CorpusEntry,
    Kind,
    Turn,
    corpus_fingerprint,
    read_corpus,
)
from mmrec_plugins.models.lm.presets import LanguageModelConfig, MixKind

log = logging.getLogger("mmrec_bench")

RANKING: MixKind = "ranking"
MIX_KINDS: tuple[MixKind, ...] = (RANKING, *KINDS)

RANKING_SHARE = 0.8
"""Weight of the run's own ranking examples where the user gave no weights.

Chosen on validation cases of the embedded sample (chatglm2-micro, P-tuning v2, seed 0, 240 steps):
the best ndcg@10 was highest at 0.8 among the mixes tried, above 0.5 shared by four kinds and above
0.5 shared by profiles and attributes; ranking alone was higher still.
"""


@dataclass(frozen=True)
class Corpus:
    """Entries that a fit may use.

    Attributes:
        weights: of each kind in the mix, > 0; "ranking" = the run's own examples.
        train: entries to tune on, by kind.
        validation: entries whose loss is reported, by kind.
        n_refused: entries left out because they could leak.
    """

    weights: Mapping[str, float]
    train: Mapping[Kind, Sequence[CorpusEntry]]
    validation: Mapping[Kind, Sequence[CorpusEntry]]
    n_refused: int


def corpus_files(paths: Iterable[Path]) -> list[Path]:
    """Return the files of a corpus.

    A folder stands for its files that are called after the kinds, as `instructions build` writes
    them, and without such for all its `.jsonl` files.

    Raises:
        DataFormatError: a path is not there, or a folder without such files.
    """
    files: list[Path] = []
    for path in paths:
        found = [path]
        if path.is_dir():
            there = sorted(path.glob("*.jsonl"))
            found = [one for one in there if one.stem in KINDS] or there
        if not found or not all(one.is_file() for one in found):
            what = "holds no .jsonl files" if path.is_dir() else "is not there"
            raise DataFormatError(
                f"the instruction corpus {path} {what}; build one with mmrec-bench instructions "
                "build, or correct model.corpus"
            )
        files += found
    return files


def fingerprint(paths: Iterable[Path]) -> str:
    """Return a hash of a corpus's contents, whatever its files are called."""
    return corpus_fingerprint(corpus_files(paths))


def resolve_mix(config: LanguageModelConfig) -> dict[MixKind, float] | None:
    """Return the weights of the kinds, in a fixed order and without zeros; None = no mix.

    Raises:
        ConfigError: weights without a corpus, a corpus without tuning, or a kind that the corpus
            lacks.
        DataFormatError: the corpus cannot be read.
    """
    given = {kind: weight for kind in MIX_KINDS if (weight := (config.mix or {}).get(kind, 0.0))}
    if not config.corpus:
        if set(given) - {"ranking"}:
            raise ConfigError(
                f"model.mix gives weights to {', '.join(given)}, but there is no model.corpus"
            )
        return None
    if config.adapter == "none" and not config.visual_tokens:
        raise ConfigError("model.corpus is there to tune on, and model.adapter=none tunes nothing")
    counts = Counter(entry.kind for entry in _read(config.corpus) if entry.split == "train")
    if config.mix is None:
        there = [kind for kind in KINDS if counts[kind]]
        default: dict[MixKind, float] = {RANKING: RANKING_SHARE}
        for kind in there:
            default[kind] = round((1 - RANKING_SHARE) / len(there), 6)
        return default
    if not given:
        raise ConfigError("model.mix gives no kind a weight above 0")
    _check_kinds(given, counts, "train")
    return given


def load(config: LanguageModelConfig, data: TrainingData) -> Corpus:
    """Read a fit's corpus and leave out what could leak.

    Raises:
        ConfigError: as `resolve_mix`, or nothing is left of a kind.
        DataFormatError: the corpus cannot be read.
        ModelError: it belongs to another data set.
    """
    weights = resolve_mix(config)
    if weights is None:
        raise ConfigError("there is no model.corpus to load")
    entries = list(_read(config.corpus))
    _check_origin(entries, data, allowed=config.other_corpus)
    check = LeakCheck(data)
    kept = [entry for entry in entries if entry.kind not in weights or check.admits(entry)]
    check.report(len(entries))
    parts: dict[str, dict[Kind, list[CorpusEntry]]] = {"train": {}, "validation": {}}
    for entry in _distinct(kept):
        if entry.kind in weights:
            parts[entry.split].setdefault(entry.kind, []).append(entry)
    counts = Counter({kind: len(rows) for kind, rows in parts["train"].items()})
    _check_kinds(weights, counts, "usable train")
    by_name = {str(kind): weight for kind, weight in weights.items()}
    return Corpus(by_name, parts["train"], parts["validation"], check.n_refused)


class LeakCheck:
    """Tells whether an entry shows of a user only what this run trains on."""

    def __init__(self, data: TrainingData) -> None:
        self._data = data
        self._histories = data.interactions.histories(data.n_users)
        self._trained = {data.catalog.items[i] for i in set(data.interactions.item.tolist())}
        held_out = [] if data.held_out is None else data.held_out.items.tolist()
        self._held_out = {data.catalog.items[i] for i in held_out}
        self._items: dict[str, set[str]] = {}
        self._refused: Counter[str] = Counter()

    @property
    def n_refused(self) -> int:
        """Entries that were not admitted so far."""
        return self._refused.total()

    def admits(self, entry: CorpusEntry) -> bool:
        """Return whether the entry may be tuned on; counts those that may not.

        History and target must be train interactions of its user; items that are described, or
        that demonstrations show, must be train items. Candidates may be anything but items that
        the run holds out. An entry of another data set knows nothing of this one's users.
        """
        if entry.dataset != self._data.dataset:
            return True
        reason = self._reason(entry)
        if reason:
            self._refused[reason] += 1
        return not reason

    def report(self, n_entries: int) -> None:
        """Say in one line what was refused, where anything was."""
        if not self._refused:
            return
        reasons = ", ".join(f"{count} {reason}" for reason, count in self._refused.most_common())
        log.warning(
            "%d of %d corpus entries are left out, for they could leak validation or test: %s; "
            "build the corpus under the protocol of this run",
            self.n_refused,
            n_entries,
            reasons,
        )

    def _reason(self, entry: CorpusEntry) -> str:
        own = set(entry.items) | ({entry.target} if entry.target is not None else set())
        if not self._held_out.isdisjoint(entry.candidates):
            return "list items that this run holds out"
        if not self._trained.issuperset(entry.demonstrated):
            return "demonstrate items without train interactions"
        if entry.user is None:
            return "" if own <= self._trained else "describe items without train interactions"
        if entry.user not in self._data.users:
            return "are of users that this run does not train on"
        if own <= self._items_of(entry.user):
            return ""
        return "show or target items that are no train interactions of their user"

    def _items_of(self, user: str) -> set[str]:
        if user not in self._items:
            row = self._histories[self._data.users.index(user)]
            self._items[user] = {self._data.catalog.items[i] for i in row.tolist()}
        return self._items[user]


def messages_of(turns: Iterable[Turn], catalog: Catalog, *, pictures: bool) -> tuple[Message, ...]:
    """Return an entry's turns as messages.

    Args:
        turns: texts that say in words what pictures show, and the pictures beside them.
        catalog: finds the items.
        pictures: keep the pictures, for a model that sees them; those of items that have none here
            are left out.
    """
    return tuple(
        Message(turn.role, tuple(_parts(turn, catalog, pictures=pictures))) for turn in turns
    )


def _parts(turn: Turn, catalog: Catalog, *, pictures: bool) -> Iterator[Text | Image]:
    for part in turn.parts:
        if part.text is not None:
            yield Text(part.text)
        if pictures and part.image is not None and part.image in catalog.items:
            index = catalog.items.index(part.image)
            if files := catalog[index].images:
                yield Image(files[0], index)


def _read(paths: Iterable[Path]) -> Iterator[CorpusEntry]:
    for path in corpus_files(paths):
        yield from read_corpus(path)


def _distinct(entries: Iterable[CorpusEntry]) -> list[CorpusEntry]:
    """Sort by id and leave out repeats, so that the order of files decides nothing.

    What is asked and answered alike in train and validation stays in train alone.
    """
    ordered = sorted(entries, key=lambda entry: (entry.id, entry.split))
    return list({entry.id: entry for entry in reversed(ordered)}.values())[::-1]


def _check_kinds(weights: Mapping[MixKind, float], counts: Mapping[Kind, int], which: str) -> None:
    there = ", ".join(f"{kind}: {counts[kind]}" for kind in KINDS if counts[kind]) or "none"
    for kind in KINDS:
        if kind in weights and not counts[kind]:
            raise ConfigError(
                f"model.mix gives {kind} the weight {weights[kind]:g}, but model.corpus has no "
                f"{which} entry of that kind (it has {there})"
            )


def _check_origin(entries: Iterable[CorpusEntry], data: TrainingData, *, allowed: bool) -> None:
    here = (data.dataset, data.dataset_version)
    others = {(entry.dataset, entry.dataset_version) for entry in entries} - {here}
    if not others:
        return
    name, version = min(others)
    if data.tested_on in {dataset for dataset, _ in others}:
        raise ModelError(
            f"model.corpus holds entries of {data.tested_on}, which this run is tested on after "
            f"tuning on {data.dataset}: they would give its users and items away"
        )
    text = (
        f"model.corpus was built from {name} {version[:12]}, but this run tunes on "
        f"{data.dataset or 'an unnamed data set'} {data.dataset_version[:12]}"
    )
    if not allowed:
        raise ModelError(
            f"{text}; build it from this data set, or allow it with model.other_corpus=true"
        )
    log.warning("%s (allowed by model.other_corpus)", text)
