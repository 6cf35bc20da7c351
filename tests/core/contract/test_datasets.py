"""Each rule for data sets is broken here, and found."""

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmrec_bench.contract import datasets, toys
from mmrec_bench.contract.findings import Result, run_checks
from mmrec_bench.errors import DataMissingError
from mmrec_bench.types import RecData
from tests.core.contract.failing import failed


class ToyDataset:
    def __init__(self, change: Callable[[RecData], RecData] = lambda data: data) -> None:
        self.change = change

    def load(self, root: Path) -> RecData:
        if root.name == "empty":
            raise DataMissingError(f"{root} is empty")
        return self.change(toys.toy_data())


def check_dataset(dataset: ToyDataset, folder: Path) -> dict[str, Result]:
    subject = datasets.DatasetSubject(lambda: dataset, dataset.load, folder)
    return failed(run_checks(datasets.CHECKS, subject))


def unsorted(data: RecData) -> RecData:
    rows = data.interactions
    return replace(data, interactions=replace(rows, user=rows.user[::-1].copy()))


def out_of_range(data: RecData) -> RecData:
    rows = data.interactions
    return replace(data, interactions=replace(rows, item=rows.item + 1))


def wide(data: RecData) -> RecData:
    rows = data.interactions
    wider: Any = rows.item.astype(np.int64)
    return replace(data, interactions=replace(rows, item=wider))


def without_ratings(data: RecData) -> RecData:
    rows = data.interactions
    return replace(data, interactions=replace(rows, rating=np.full_like(rows.rating, np.nan)))


def always_new(data: RecData) -> RecData:
    return replace(data, version=str(random.Random().random()))


def counted_in_numpy(data: RecData) -> RecData:
    counts: Any = {"kept": np.int64(3)}
    return replace(data, card=replace(data.card, counts=counts))


@pytest.mark.parametrize(
    ("change", "check"),
    [
        (unsorted, "columns"),
        (out_of_range, "columns"),
        (wide, "columns"),
        (without_ratings, "columns"),
        (always_new, "version"),
        (lambda data: replace(data, version=""), "version"),
        (lambda data: replace(data, card=replace(data.card, licence="")), "card"),
        (counted_in_numpy, "card"),
        (lambda data: replace(data, name="../up"), "name"),
        (lambda data: replace(data, name="my data"), "name"),
    ],
)
def test_a_bad_data_set_is_found(
    change: Callable[[RecData], RecData], check: str, tmp_path: Path
) -> None:
    assert set(check_dataset(ToyDataset(change), tmp_path)) == {check}


def test_a_good_data_set_fails_nothing(tmp_path: Path) -> None:
    assert not check_dataset(ToyDataset(), tmp_path)


def test_a_data_set_that_does_not_say_what_is_missing_is_found(tmp_path: Path) -> None:
    class Silent(ToyDataset):
        def load(self, root: Path) -> RecData:
            if root.name == "empty":
                raise FileNotFoundError("nothing")
            return super().load(root)

    assert set(check_dataset(Silent(), tmp_path)) == {"missing"}
