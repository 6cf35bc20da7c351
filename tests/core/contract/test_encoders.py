"""Each rule for encoders is broken here, and found."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from mmrec_bench.contract import encoders, toys
from mmrec_bench.contract.findings import run_checks
from mmrec_bench.types import FloatArray, Item
from tests.core.contract.failing import failed


class ToyEncoder:
    encodes = "picture"

    def encode(self, items: Sequence[Item]) -> FloatArray:
        rows = np.full((len(items), 2), np.nan, np.float32)
        for row, item in zip(rows, items, strict=True):
            if item.images and item.images[0].exists() and item.images[0].stat().st_size > 100:
                row[:] = (item.index, 1.0)
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
        return rows if np.isnan(rows).all() else rows - np.nanmax(rows)


class Zeros(ToyEncoder):
    def encode(self, items: Sequence[Item]) -> FloatArray:
        return np.nan_to_num(super().encode(items))


class OtherName(ToyEncoder):
    def fingerprint(self) -> str:
        return str(id(self))


class Lists(ToyEncoder):
    def describe(self, items: Sequence[Item]) -> list[list[str]]:
        return [["red"] if item.index < 6 else [] for item in items]


def check_encoder(cls: type[ToyEncoder], folder: Path) -> set[str]:
    kept: list[ToyEncoder] = []

    def make() -> ToyEncoder:
        kept.append(cls())  # so that no two have one id
        return kept[-1]

    subject = encoders.EncoderSubject(make, toys.toy_items(folder))
    return set(failed(run_checks(encoders.CHECKS, subject)))


def test_a_good_encoder_fails_nothing(tmp_path: Path) -> None:
    assert not check_encoder(ToyEncoder, tmp_path)


@pytest.mark.parametrize(
    ("cls", "check"),
    [
        (HalfNan, "vectors"),
        (Scales, "batch"),
        (Zeros, "without"),
        (OtherName, "offers"),
        (Lists, "words"),
    ],
)
def test_a_bad_encoder_is_found(cls: type[ToyEncoder], check: str, tmp_path: Path) -> None:
    assert check in check_encoder(cls, tmp_path)
