"""Each rule for models is broken by a model here, and found."""
# ruff: noqa: ARG002 - methods keep the signatures of their kind

import gc
import pickle
import random
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from mmrec_bench.config import ComponentConfig
from mmrec_bench.contract import recommenders, subjects, toys
from mmrec_bench.contract.findings import Result, run_check, run_checks
from mmrec_bench.interfaces import TrainingData
from mmrec_bench.types import Cases, FloatArray, Queries, Scores
from tests.core.contract.failing import failed


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


class Endless(Good):
    def score(self, queries: Queries) -> Scores:
        return Scores(np.full_like(super().score(queries).values, np.inf))


class EndlessForTheCold(Good):
    def score(self, queries: Queries) -> Scores:
        values = super().score(queries).values
        cold = np.array([len(history) == 0 for history in queries.history])
        return Scores(np.where(cold[:, None], np.float32(np.inf), values))


class WideForTheCold(Good):
    def score(self, queries: Queries) -> Scores:
        values: Any = super().score(queries).values
        return Scores(values if len(queries.history.values) else values.astype(np.float64))


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


class SeedsTorch(Good):
    def fit(self, data: TrainingData, *, seed: int) -> None:
        torch = pytest.importorskip("torch")
        torch.manual_seed(seed)
        super().fit(data, seed=seed)


class SeedsWhenAsked(Good):
    def score(self, queries: Queries) -> Scores:
        np.random.seed(0)  # noqa: NPY002 - the point
        return super().score(queries)


class KeepsInTheClass(Good):
    kept: ClassVar[FloatArray]

    def fit(self, data: TrainingData, *, seed: int) -> None:
        super().fit(data, seed=seed)
        type(self).kept = self.counts

    def save(self, folder: Path) -> None:
        pass

    def restore(self, folder: Path, data: TrainingData) -> None:
        self.counts = self.kept


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


class TurnsHistories(Good):
    def score(self, queries: Queries) -> Scores:
        scores = super().score(queries)
        queries.history.offsets[:] = queries.history.offsets[::-1].copy()
        return scores


class RewritesTitles(Good):
    def fit(self, data: TrainingData, *, seed: int) -> None:
        super().fit(data, seed=seed)
        titles: Any = data.catalog.title
        titles[0] = "the best"


class RewritesAttributes(Good):
    def fit(self, data: TrainingData, *, seed: int) -> None:
        super().fit(data, seed=seed)
        attributes: Any = data.catalog.attributes
        attributes[0]["material"] = "gold"


class FillsVectors(Good):
    reads_modalities: ClassVar[tuple[str, ...]] = ("image",)

    def fit(self, data: TrainingData, *, seed: int) -> None:
        np.nan_to_num(data.modalities["image"], copy=False)
        super().fit(data, seed=seed)


class MasksTheSeen(Good):
    def score(self, queries: Queries) -> Scores:
        values = np.tile(self.counts, (len(queries), 1))
        for row, history in zip(values, queries.history, strict=True):
            row[history] = -np.inf
        return Scores(values if queries.candidates is None else super().score(queries).values)


class CountsItemsOfTrain(Good):
    def fit(self, data: TrainingData, *, seed: int) -> None:
        self.counts = np.bincount(data.interactions.item).astype(np.float32)

    def chosen(self, values: FloatArray, queries: Queries) -> FloatArray:
        if queries.candidates is None:
            return values
        inside = np.minimum(queries.candidates, values.shape[1] - 1)
        return np.take_along_axis(values, inside, axis=1)


class ReadsTheRowBefore(Good):
    def score(self, queries: Queries) -> Scores:
        history = queries.history
        last = history.values[history.offsets[1:] - 1] if len(history.values) else 0
        values = np.tile(self.counts, (len(queries), 1))
        return Scores(self.chosen(values + np.reshape(last, (-1, 1)).astype(np.float32), queries))


class RestoresSeedZero(Good):
    def fit(self, data: TrainingData, *, seed: int) -> None:
        super().fit(data, seed=seed)
        self.noise = np.random.default_rng(seed).random(data.n_items, np.float32)

    def score(self, queries: Queries) -> Scores:
        values = np.tile(self.counts + self.noise, (len(queries), 1))
        return Scores(self.chosen(values, queries))

    def restore(self, folder: Path, data: TrainingData) -> None:
        super().restore(folder, data)
        self.noise = np.random.default_rng(0).random(data.n_items, np.float32)


class SortsValidation(Good):
    def fit(self, data: TrainingData, *, seed: int) -> None:
        super().fit(data, seed=seed)
        data.validation.history.values.sort()


class TinyByBatch(Good):
    def score(self, queries: Queries) -> Scores:
        values = super().score(queries).values
        return Scores(1e-6 * (values - values.mean()))


class ReturnsAnArray(Good):
    def score(self, queries: Queries) -> Any:  # noqa: ANN401 - what it should not return
        return super().score(queries).values


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
    (Endless, "scores"),
    (EndlessForTheCold, "cold"),
    (WideForTheCold, "cold"),
    (ByBatch, "batch"),
    (ByNeighbour, "batch"),
    (TinyByBatch, "batch"),
    (MasksTheSeen, "catalog"),
    (CountsItemsOfTrain, "unseen"),
    (ReadsTheRowBefore, "cold"),
    (RestoresSeedZero, "restore"),
    (SortsValidation, "given"),
    (ByPlace, "order"),
    (ByPlace, "catalog"),
    (OnlyLists, "catalog"),
    (ForgetsCold, "cold"),
    (KnowsTrainItemsOnly, "unseen"),
    (Unseeded, "seed"),
    (SeedsTheWorld, "seed"),
    (SeedsTorch, "seed"),
    (ReturnsAnArray, "batch"),
    (SeedsWhenAsked, "seed"),
    (ForgetsToSave, "restore"),
    (KeepsInTheClass, "restore"),
    (Pickles, "pickles"),
    (SavesByTorch, "pickles"),
    (SavesObjects, "pickles"),
    (Sorts, "given"),
    (FillsVectors, "given"),
    (TurnsHistories, "given"),
    (RewritesTitles, "given"),
    (RewritesAttributes, "given"),
    (ReadsFrames, "truth"),
    (ReadsClosures, "truth"),
]


def check_model(cls: type[Good], folder: Path, only: str = "") -> list[Result]:
    split = toys.toy_split()
    modalities = subjects.toy_modalities(cls, split)
    data = toys.toy_training_data(split, folder, modalities=modalities)
    subject = subjects.RecommenderSubject(cls, split, data, folder)
    return run_checks([c for c in recommenders.CHECKS if only in {"", c.name}], subject, cls)


def test_a_good_model_fails_nothing(tmp_path: Path) -> None:
    results = check_model(Good, tmp_path)
    assert {one.outcome for one in results} == {"ok"}
    assert len(results) == len(recommenders.CHECKS)


class RoundsOtherwise(Good):
    """As a matrix product and a sum of products do, at scores of 100."""

    def score(self, queries: Queries) -> Scores:
        found = super().score(queries).values * 20 - 60
        return Scores(found if queries.candidates is None else found + np.float32(1e-5))


def test_rounding_at_large_scores_is_no_failure(tmp_path: Path) -> None:
    assert not failed(check_model(RoundsOtherwise, tmp_path))


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


def test_what_is_changed_by_an_earlier_check_is_found(tmp_path: Path) -> None:
    found = failed(check_model(Sorts, tmp_path))["given"]
    assert found.expected.startswith("queries.candidates as it was")


def test_a_model_that_follows_no_seed_is_not_said_to_read_the_truth(tmp_path: Path) -> None:
    results = {one.check: one for one in check_model(Unseeded, tmp_path)}
    assert results["seed"].outcome == "failed"
    assert results["truth"].outcome == "skipped"


def test_each_check_says_alike_that_score_returned_no_scores(tmp_path: Path) -> None:
    found = failed(check_model(ReturnsAnArray, tmp_path)).values()
    assert {one.found for one in found} == {"a ndarray"}
    assert len(found) > 5


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [("score", None, "no score"), ("reads_instructions", None, "no `reads_instructions`")],
)
def test_a_class_that_lacks_a_part_is_told_which(name: str, value: object, reason: str) -> None:
    found = run_check(recommenders.METHODS, type("Lacking", (Good,), {name: value}))
    assert found.found == reason


def test_the_truth_is_put_back() -> None:
    split = toys.toy_split()
    before = split.test.targets.values.copy()
    with recommenders.other_truth(split):
        assert (split.test.targets.values != before).all()
    np.testing.assert_array_equal(split.test.targets.values, before)


def test_an_exception_is_a_failure_that_names_the_line(tmp_path: Path) -> None:
    (found,) = failed(check_model(OnlyLists, tmp_path, "catalog")).values()
    assert found.found.startswith("it raised: AssertionError")
    assert "test_recommenders.py:" in found.found
