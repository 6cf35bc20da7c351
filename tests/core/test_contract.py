"""Each rule of a contract is broken by a component here, and found."""
# ruff: noqa: ARG002 - methods keep the signatures of their kind

import gc
import pickle
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from pydantic import ConfigDict, Field

from mmrec_bench.config import ComponentConfig
from mmrec_bench.contract import (
    common,
    datasets,
    encoders,
    instructions,
    metrics,
    recommenders,
    toys,
)
from mmrec_bench.contract.findings import BrokenContractError, Check, Result, run_checks
from mmrec_bench.errors import DataMissingError
from mmrec_bench.interfaces import TrainingData
from mmrec_bench.types import (
    Cases,
    Catalog,
    FloatArray,
    Instruction,
    Item,
    Measurement,
    Message,
    Outcomes,
    Queries,
    Query,
    RecData,
    Scores,
    Text,
)


def failed(results: Sequence[Result]) -> dict[str, Result]:
    return {one.check: one for one in results if one.outcome == "failed"}


class Good:
    """Popularity; the bad ones below change one thing each."""

    reads_instructions: ClassVar[bool] = False
    Config = ComponentConfig

    def fit(self, data: TrainingData, *, seed: int) -> None:
        self.counts = data.item_counts().astype(np.float32)

    def score(self, queries: Queries) -> Scores:
        values = np.tile(self.counts, (len(queries), 1))
        return Scores(self.chosen(values, queries))

    def chosen(self, values: FloatArray, queries: Queries) -> FloatArray:
        if queries.candidates is None:
            return values
        return np.take_along_axis(values, queries.candidates, axis=1)

    def save(self, folder: Path) -> None:
        np.save(folder / "counts.npy", self.counts)

    def restore(self, folder: Path, data: TrainingData) -> None:
        self.counts = np.load(folder / "counts.npy", allow_pickle=False)


class WrongShape(Good):
    def score(self, queries: Queries) -> Scores:
        return Scores(np.tile(self.counts, (len(queries), 1)))


class Float64(Good):
    def score(self, queries: Queries) -> Scores:
        values: Any = super().score(queries).values.astype(np.float64)
        return Scores(values)


class AllNan(Good):
    def score(self, queries: Queries) -> Scores:
        return Scores(np.full_like(super().score(queries).values, np.nan))


class ByBatch(Good):
    def score(self, queries: Queries) -> Scores:
        values = super().score(queries).values
        return Scores(values - values.mean(dtype=np.float32))


class ByNeighbour(Good):
    def score(self, queries: Queries) -> Scores:
        values = super().score(queries).values.copy()
        values[1:] += queries.user[:-1, None].astype(np.float32)
        return Scores(values)


class ByPlace(Good):
    def score(self, queries: Queries) -> Scores:
        values = super().score(queries).values
        return Scores((values + np.arange(values.shape[1])).astype(np.float32))


class OnlyLists(Good):
    def score(self, queries: Queries) -> Scores:
        assert queries.candidates is not None
        return super().score(queries)


class ForgetsCold(Good):
    def score(self, queries: Queries) -> Scores:
        _ = [history[-1] for history in queries.history]
        return super().score(queries)


class KnowsTrainItemsOnly(Good):
    def fit(self, data: TrainingData, *, seed: int) -> None:
        self.rows = {item: n for n, item in enumerate(sorted(set(data.interactions.item.tolist())))}
        super().fit(data, seed=seed)

    def score(self, queries: Queries) -> Scores:
        _ = [self.rows[item] for item in queries.history.values.tolist()]
        return super().score(queries)

    def restore(self, folder: Path, data: TrainingData) -> None:
        self.fit(data, seed=0)


class Unseeded(Good):
    def fit(self, data: TrainingData, *, seed: int) -> None:
        self.counts = np.random.default_rng().random(data.n_items, np.float32)


class SeedsTheWorld(Good):
    def fit(self, data: TrainingData, *, seed: int) -> None:
        random.seed(seed)
        super().fit(data, seed=seed)


class ForgetsToSave(Good):
    def save(self, folder: Path) -> None:
        np.save(folder / "counts.npy", self.counts * 0)


class Pickles(Good):
    def save(self, folder: Path) -> None:
        super().save(folder)
        (folder / "model.bin").write_bytes(pickle.dumps(self.counts))


class SavesByTorch(Good):
    def save(self, folder: Path) -> None:
        torch = pytest.importorskip("torch")
        super().save(folder)
        torch.save({"counts": torch.from_numpy(self.counts)}, folder / "model.pt")


class SavesObjects(Good):
    def save(self, folder: Path) -> None:
        super().save(folder)
        np.savez(folder / "more.npz", more=np.array([{}], object))


class Sorts(Good):
    def score(self, queries: Queries) -> Scores:
        scores = super().score(queries)
        if queries.candidates is not None:
            queries.candidates.sort(axis=1)
        return scores


class ReadsFrames(Good):
    """Finds the truth through the garbage collector."""

    def score(self, queries: Queries) -> Scores:
        values = super().score(queries).values.copy()
        for thing in gc.get_objects():
            if isinstance(thing, Cases) and len(thing) == len(queries) and thing.masked is None:
                wanted = np.array([row[0] for row in thing.targets])[:, None]
                values[queries.candidates == wanted] += 100
        return Scores(values)


class ReadsClosures(Good):
    """Finds the truth behind the function that validates."""

    def fit(self, data: TrainingData, *, seed: int) -> None:
        super().fit(data, seed=seed)
        for cell in data.validate.__closure__ or ():
            truth = cell.cell_contents.test.targets.values
            self.counts = self.counts + np.bincount(truth, minlength=data.n_items)
        self.counts = self.counts.astype(np.float32)


MODELS: list[tuple[type[Good], str]] = [
    (WrongShape, "scores"),
    (Float64, "scores"),
    (AllNan, "scores"),
    (ByBatch, "batch"),
    (ByNeighbour, "batch"),
    (ByPlace, "order"),
    (ByPlace, "catalog"),
    (OnlyLists, "catalog"),
    (ForgetsCold, "cold"),
    (KnowsTrainItemsOnly, "unseen"),
    (Unseeded, "seed"),
    (SeedsTheWorld, "seed"),
    (ForgetsToSave, "restore"),
    (Pickles, "pickles"),
    (SavesByTorch, "pickles"),
    (SavesObjects, "pickles"),
    (Sorts, "given"),
    (ReadsFrames, "truth"),
    (ReadsClosures, "truth"),
]


def check_model(cls: type[Good], folder: Path, only: str = "") -> list[Result]:
    split = toys.toy_split()
    data = toys.toy_training_data(split, folder)
    subject = recommenders.RecommenderSubject(cls, split, data, folder)
    return run_checks([c for c in recommenders.CHECKS if only in {"", c.name}], subject, cls)


def test_a_good_model_fails_nothing(tmp_path: Path) -> None:
    results = check_model(Good, tmp_path)
    assert {one.outcome for one in results} == {"ok"}
    assert len(results) == len(recommenders.CHECKS)


@pytest.mark.parametrize(
    ("cls", "check"), MODELS, ids=lambda value: getattr(value, "__name__", value)
)
def test_a_bad_model_is_found_and_told_what_to_mend(
    cls: type[Good], check: str, tmp_path: Path
) -> None:
    (found,) = failed(check_model(cls, tmp_path, check)).values()
    assert found.found
    assert found.expected
    assert found.mend


def test_the_truth_is_put_back() -> None:
    split = toys.toy_split()
    before = split.test.targets.values.copy()
    with recommenders.other_truth(split):
        assert (split.test.targets.values != before).all()
    np.testing.assert_array_equal(split.test.targets.values, before)


def test_an_exception_is_a_failure_that_names_the_line(tmp_path: Path) -> None:
    (found,) = failed(check_model(OnlyLists, tmp_path, "catalog")).values()
    assert found.found.startswith("it raised: AssertionError")
    assert "test_contract.py:" in found.found


class Undescribed(ComponentConfig):
    mystery: int = 1


class Lax(ComponentConfig):
    model_config = ConfigDict(extra="ignore")


class TakesTheName(ComponentConfig):
    name: str = Field("x", description="the component's own key")


class ForgetsInJson(ComponentConfig):
    values: Any = Field((1, 2), description="a tuple that JSON turns into a list")


@pytest.mark.parametrize("config", [Undescribed, TakesTheName])
def test_options_are_described_and_leave_the_name_alone(config: type[ComponentConfig]) -> None:
    with pytest.raises(BrokenContractError):
        common.check_options(config)


@pytest.mark.parametrize("config", [Lax, ForgetsInJson])
def test_options_are_strict_and_survive_json(config: type[ComponentConfig]) -> None:
    with pytest.raises(BrokenContractError):
        common.check_config(config())


def test_a_heavy_import_at_the_start_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "heavy_hooks.py").write_text("import torch\n")
    (tmp_path / "light_hooks.py").write_text("import json\n")
    (tmp_path / "torn_hooks.py").write_text("1 / 0\n")
    common.check_light_import("light_hooks")
    with pytest.raises(BrokenContractError, match="imports torch"):
        common.check_light_import("heavy_hooks")
    with pytest.raises(BrokenContractError, match="ZeroDivisionError"):
        common.check_light_import("torn_hooks")


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


def always_new(data: RecData) -> RecData:
    return replace(data, version=str(random.Random().random()))


@pytest.mark.parametrize(
    ("change", "check"),
    [
        (unsorted, "columns"),
        (out_of_range, "columns"),
        (wide, "columns"),
        (always_new, "version"),
        (lambda data: replace(data, version=""), "version"),
        (lambda data: replace(data, card=replace(data.card, licence="")), "card"),
        (lambda data: replace(data, name="../up"), "name"),
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


class ToyBuilder:
    def build(self, query: Query, catalog: Catalog) -> Instruction:
        assert query.candidates is not None
        labels = tuple(f"<{i}>" for i in range(len(query.candidates)))
        titles = tuple(catalog.title[i] for i in query.candidates)
        return Instruction((Message("user", (Text(str(titles)),)),), labels, titles)

    def parse(self, text: str, instruction: Instruction) -> list[int]:
        names = [*instruction.labels, *instruction.answers]
        found = [names.index(line) for line in text.splitlines() if line in names]
        return list(dict.fromkeys(i % len(instruction.labels) for i in found))


class SameLabels(ToyBuilder):
    def build(self, query: Query, catalog: Catalog) -> Instruction:
        one = super().build(query, catalog)
        return replace(one, labels=("A",) * len(one.labels))


class Deaf(ToyBuilder):
    def parse(self, text: str, instruction: Instruction) -> list[int]:
        return []


class Guesses(ToyBuilder):
    def parse(self, text: str, instruction: Instruction) -> list[int]:
        return super().parse(text, instruction) or [0]


class RepeatsItself(ToyBuilder):
    def parse(self, text: str, instruction: Instruction) -> list[int]:
        return [
            i
            for line in text.splitlines()
            for i in super(RepeatsItself, self).parse(line, instruction)
        ]


class Moody(ToyBuilder):
    def build(self, query: Query, catalog: Catalog) -> Instruction:
        one = super().build(query, catalog)
        return replace(one, messages=(Message("user", (Text(str(random.Random().random())),)),))


class NeedsAPast(ToyBuilder):
    def build(self, query: Query, catalog: Catalog) -> Instruction:
        _ = query.history[-1]
        return super().build(query, catalog)


def check_builder(cls: type[ToyBuilder]) -> set[str]:
    subject = instructions.InstructionSubject(cls, toys.toy_split())
    return set(failed(run_checks(instructions.CHECKS, subject)))


def test_a_good_builder_fails_nothing() -> None:
    assert not check_builder(ToyBuilder)


@pytest.mark.parametrize(
    ("cls", "check"),
    [
        (SameLabels, "labels"),
        (Deaf, "parse"),
        (Guesses, "junk"),
        (RepeatsItself, "positions"),
        (Moody, "truth"),
        (NeedsAPast, "cold"),
    ],
)
def test_a_bad_builder_is_found(cls: type[ToyBuilder], check: str) -> None:
    assert check in check_builder(cls)


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


class ToyMetric:
    higher_is_better: ClassVar[Any] = True
    name = "first"

    def values(self, outcomes: Outcomes) -> np.ndarray[Any, np.dtype[np.float64]]:
        ranks = outcomes.ranks
        first = ranks.ranked & (ranks.n_better == 0)
        share = {
            "expected": 1.0 / (1 + ranks.n_tied),
            "optimistic": np.ones(len(first)),
            "pessimistic": (ranks.n_tied == 0).astype(float),
        }[outcomes.ties]
        return np.bincount(ranks.case, first * share, len(ranks)).astype(np.float64)

    def measure(self, outcomes: Outcomes) -> Measurement:
        return Measurement.mean(self.values(outcomes))


class OtherMean(ToyMetric):
    def measure(self, outcomes: Outcomes) -> Measurement:
        return Measurement(float(np.sum(self.values(outcomes))) + 1, self.values(outcomes))


class Relative(ToyMetric):
    def values(self, outcomes: Outcomes) -> np.ndarray[Any, np.dtype[np.float64]]:
        values = super().values(outcomes)
        return values - values.mean() if len(values) else values


class ZeroOverNothing(ToyMetric):
    def measure(self, outcomes: Outcomes) -> Measurement:
        measured = super().measure(outcomes)
        return replace(measured, value=float(np.nan_to_num(measured.value)))


class LuckyTies(ToyMetric):
    def values(self, outcomes: Outcomes) -> np.ndarray[Any, np.dtype[np.float64]]:
        values = super().values(outcomes)
        return values + 1 if outcomes.ties == "expected" else values


class Writes(ToyMetric):
    def measure(self, outcomes: Outcomes) -> Measurement:
        measured = super().measure(outcomes)
        outcomes.ranks.n_better[:] = 0
        return measured


class Undecided(ToyMetric):
    higher_is_better = "yes"


class Renamed(ToyMetric):
    name = "other"


def check_metric(cls: type[ToyMetric]) -> set[str]:
    subject = metrics.MetricSubject(cls, toys.toy_outcomes, "first")
    return set(failed(run_checks(metrics.CHECKS, subject)))


def test_a_good_metric_fails_nothing() -> None:
    assert not check_metric(ToyMetric)


@pytest.mark.parametrize(
    ("cls", "check"),
    [
        (OtherMean, "value"),
        (Relative, "alone"),
        (ZeroOverNothing, "nothing"),
        (LuckyTies, "ties"),
        (Writes, "given"),
        (Undecided, "says"),
        (Renamed, "says"),
    ],
)
def test_a_bad_metric_is_found(cls: type[ToyMetric], check: str) -> None:
    assert check in check_metric(cls)


def test_every_check_has_its_own_name() -> None:
    kinds: list[Sequence[Check[Any]]] = [
        recommenders.CHECKS, datasets.CHECKS, instructions.CHECKS, encoders.CHECKS, metrics.CHECKS,
    ]  # fmt: skip
    for checks in kinds:
        names = [one.name for one in (*common.CHECKS, *checks)]
        assert len(names) == len(set(names))
