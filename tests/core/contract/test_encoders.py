"""Each rule for encoders is broken here, and found."""

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from mmrec_bench.contract import encoders, toys
from mmrec_bench.contract.findings import run_checks
from mmrec_bench.types import FloatArray, Item
from tests.core.contract.failing import failed


def column(numbers: list[int]) -> FloatArray:
    return np.array(numbers, np.float32)[:, None]


class ToyEncoder:
    encodes = "picture"

    def encode(self, items: Sequence[Item]) -> FloatArray:
        rows = np.full((len(items), 2), np.nan, np.float32)
        for row, item in zip(rows, items, strict=True):
            if item.images and item.images[0].exists() and item.images[0].stat().st_size > 100:
                row[:] = (zlib.crc32(item.images[0].read_bytes()) % 97, 1.0)
        return rows

    def fingerprint(self) -> str:
        return "toy"


class HalfNan(ToyEncoder):
    def encode(self, items: Sequence[Item]) -> FloatArray:
        rows = super().encode(items)
        rows[0, 0] = np.nan
        return rows


class Scales(ToyEncoder):
    def encode(self, items: Sequence[Item]) -> FloatArray:
        rows = super().encode(items)
        return rows if np.isnan(rows).all() else rows - np.nanmax(rows, axis=0)


class Zeros(ToyEncoder):
    def encode(self, items: Sequence[Item]) -> FloatArray:
        return np.nan_to_num(super().encode(items))


class OtherName(ToyEncoder):
    def fingerprint(self) -> str:
        return str(id(self))


class Lists(ToyEncoder):
    def describe(self, items: Sequence[Item]) -> list[list[str]]:
        return [["red"] if item.index < 6 else [] for item in items]


class ReadsTitles(ToyEncoder):
    def encode(self, items: Sequence[Item]) -> FloatArray:
        return super().encode(items) + column([len(item.title) for item in items])


class ReadsPaths(ToyEncoder):
    def encode(self, items: Sequence[Item]) -> FloatArray:
        return super().encode(items) + column([len(str(item.images)) for item in items])


class ReadsWords:
    encodes: ClassVar[str] = "words"

    def encode(self, items: Sequence[Item]) -> FloatArray:
        return np.array([[len(item.title), len(item.text)] for item in items], np.float32)

    def fingerprint(self) -> str:
        return "words"


class ReadsNumbersToo(ReadsWords):
    def encode(self, items: Sequence[Item]) -> FloatArray:
        return super().encode(items) + column([item.index for item in items])


class SaysSomethingElse(ReadsWords):
    encodes: ClassVar[str] = "titles"


class TellsIds:
    def describe(self, items: Sequence[Item]) -> list[tuple[str, ...]]:
        seen = ~np.isnan(ToyEncoder().encode(items)[:, 0])
        return [(item.id,) if one else () for item, one in zip(items, seen, strict=True)]

    def fingerprint(self) -> str:
        return "ids"


class Adds(ToyEncoder):
    def encode(self, items: Sequence[Item]) -> FloatArray:
        for item in items:
            item.attributes["seen"] = "yes"  # type: ignore[index]
        return super().encode(items)


class Sorts(ToyEncoder):
    def encode(self, items: Sequence[Item]) -> FloatArray:
        rows = super().encode(items)
        if isinstance(items, list):
            items.reverse()
        return rows


def check_encoder(cls: type[object], folder: Path) -> set[str]:
    kept: list[object] = []

    def make() -> object:
        kept.append(cls())  # so that no two have one id
        return kept[-1]

    subject = encoders.EncoderSubject(make, toys.toy_items(folder))
    return set(failed(run_checks(encoders.CHECKS, subject)))


def test_a_good_encoder_fails_nothing(tmp_path: Path) -> None:
    assert not check_encoder(ToyEncoder, tmp_path)
    assert not check_encoder(ReadsWords, tmp_path)


@pytest.mark.parametrize(
    ("cls", "check"),
    [
        (HalfNan, "vectors"),
        (Scales, "batch"),
        (Zeros, "without"),
        (OtherName, "offers"),
        (Lists, "words"),
        (ReadsTitles, "reads"),
        (ReadsPaths, "reads"),
        (ReadsNumbersToo, "reads"),
        (SaysSomethingElse, "reads"),
        (TellsIds, "reads"),
        (Adds, "given"),
        (Sorts, "given"),
    ],
)
def test_a_bad_encoder_is_found(cls: type[object], check: str, tmp_path: Path) -> None:
    assert check in check_encoder(cls, tmp_path)
