"""Entries of a small corpus about the tiny shop, whose answers can be learnt."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmrec_bench.interfaces import TrainingData
from mmrec_plugins.instructions.corpus import CorpusEntry, Kind, Part, Turn, write_corpus
from tests.plugins.lm.tiny import TITLES, Shop, training_data

SHOP, VERSION = "shop", "v1"
OWN = ("i0", "i1", "i2")
"""Train interactions of the shop's only user, u0."""

ANSWERS: dict[Kind, str] = {
    "profile": "red mug, red lamp, red scarf, red chair, red clock",
    "attributes": "black lamp",
    "zero-shot": "green chair",
    "few-shot": "B",
}


def user_turn(text: str) -> Turn:
    return Turn(role="user", parts=(Part(text=text),))


def entry(kind: Kind, number: int = 0, **changes: Any) -> CorpusEntry:  # noqa: ANN401 - any field
    """Return an entry; its question depends on the number, its answer on the kind alone."""
    turns: tuple[Turn, ...] = (user_turn(f"{kind}: {TITLES[number % len(TITLES)]} {number}"),)
    if kind == "few-shot":
        demonstration = Turn(role="assistant", parts=(Part(text="A"),))
        turns = (user_turn(TITLES[(number + 3) % len(TITLES)]), demonstration, *turns)
    fields: dict[str, Any] = {
        "kind": kind,
        "split": "train" if number % 4 else "validation",
        "dataset": SHOP,
        "dataset_version": VERSION,
        "user": None if kind == "attributes" else "u0",
        "items": (OWN[number % 3],),
        "target": OWN[(number + 1) % 3] if kind in ("zero-shot", "few-shot") else None,
        "turns": turns,
        "answer": ANSWERS[kind],
    }
    return CorpusEntry.model_validate({**fields, **changes})


def entries(kinds: Sequence[Kind] = tuple(ANSWERS), each: int = 16) -> list[CorpusEntry]:
    """Return `each` entries of every kind, a quarter of them for validation."""
    return [entry(kind, number) for kind in kinds for number in range(each)]


def write(folder: Path, rows: Sequence[CorpusEntry] | None = None) -> Path:
    path = folder / "corpus.jsonl"
    write_corpus(path, entries() if rows is None else rows)
    return path


def shop_data(scratch: Path, shop: Shop | None = None) -> TrainingData:
    """Return the shop under its name, as a corpus knows it."""
    data = training_data(scratch, shop)
    return replace(data, dataset=SHOP, dataset_version=VERSION)
