"""The contract of each multimodal model, and what it learns from pictures."""

from pathlib import Path

import numpy as np
import pytest

from mmrec_bench.counting import rank
from mmrec_bench.errors import ModelError
from mmrec_bench.interfaces import TrainingData
from mmrec_bench.testing import RecommenderTests, toy_split, toy_training_data, toy_vectors
from mmrec_bench.types import Queries, Ragged, Split
from mmrec_plugins.models.multimodal.base import MultimodalRecommender
from mmrec_plugins.models.multimodal.bm3 import BM3
from mmrec_plugins.models.multimodal.freedom import FREEDOM
from mmrec_plugins.models.multimodal.lattice import LATTICE
from mmrec_plugins.models.multimodal.mmgcn import MMGCN
from mmrec_plugins.models.multimodal.vbpr import VBPR
from tests.plugins.multimodal.making import Seen, fitted, seen_taste, training

MODELS: list[type[MultimodalRecommender]] = [VBPR, MMGCN, LATTICE, BM3, FREEDOM]
SMALL = {"embedding_size": 8, "epochs": 3, "batch_size": 64}
LEARN = {"learning_rate": 0.02, "embedding_size": 16, "epochs": 40, "batch_size": 64, "patience": 0}


class TestVBPR(RecommenderTests):
    def make(self) -> VBPR:
        return VBPR(VBPR.Config.model_validate({**SMALL, "visual_size": 4}))


class TestMMGCN(RecommenderTests):
    def make(self) -> MMGCN:
        return MMGCN(MMGCN.Config.model_validate({**SMALL, "latent_size": 4}))


class TestLATTICE(RecommenderTests):
    def make(self) -> LATTICE:
        return LATTICE(LATTICE.Config.model_validate({**SMALL, "feature_size": 4, "k": 3}))


class TestBM3(RecommenderTests):
    def make(self) -> BM3:
        return BM3(BM3.Config.model_validate(SMALL))


class TestFREEDOM(RecommenderTests):
    def make(self) -> FREEDOM:
        return FREEDOM(FREEDOM.Config.model_validate({**SMALL, "k": 3}))


@pytest.fixture
def split() -> Split:
    return toy_split()


@pytest.fixture(scope="module")
def seen() -> Seen:
    return seen_taste()


def new_item_auc(model: MultimodalRecommender, split: Split) -> float:
    """Return how often a target, which train never saw, is above another item of that kind."""
    queries, targets = split.test.queries, split.test.targets
    scores = model.score(queries).values
    new = np.setdiff1d(np.arange(len(split.catalog)), split.train.item)
    new = np.setdiff1d(new, split.validation.targets.values)
    target = scores[np.arange(len(queries)), targets.values]
    return float((target[:, None] > scores[:, new]).mean() * len(new) / (len(new) - 1))


# BM3's id vector of an item without an interaction is never trained, and its score has no part of
# the picture (the picture only shapes what is trained): it cannot tell new items.
@pytest.mark.parametrize("cls", [VBPR, MMGCN, LATTICE, FREEDOM])
def test_taste_that_only_pictures_show_is_learned(
    cls: type[MultimodalRecommender], seen: Seen, tmp_path: Path
) -> None:
    real = fitted(cls, seen.split, {"image": seen.pictures}, tmp_path / "real", **LEARN)
    shuffled = np.random.default_rng(1).permutation(seen.pictures)
    other = fitted(cls, seen.split, {"image": shuffled}, tmp_path / "shuffled", **LEARN)
    assert new_item_auc(real, seen.split) > 0.8
    assert new_item_auc(other, seen.split) < 0.65


def test_bm3_brings_items_of_like_pictures_together(seen: Seen, tmp_path: Path) -> None:
    options = {**LEARN, "n_layers": 0, "regularisation": 0.0}
    found = []
    for weight in (2.0, 0.0):
        pictures = {"image": seen.pictures}
        model = fitted(
            BM3, seen.split, pictures, tmp_path / f"{weight}", cl_weight=weight, **options
        )
        items = model.items().numpy()
        items = items - items.mean(0)
        items /= np.linalg.norm(items, axis=1, keepdims=True)
        group = np.array([int(name) % 4 for name in seen.split.catalog.items.ids])
        known = np.isin(np.arange(len(group)), seen.split.train.item)
        alike = group[:, None] == group
        near = (items @ items.T)[np.ix_(known, known)]
        found.append(near[alike[np.ix_(known, known)]].mean())
    assert found[0] > found[1] + 0.1


@pytest.mark.parametrize("cls", MODELS)
def test_a_killed_fit_ends_with_the_same_scores(
    cls: type[MultimodalRecommender],
    split: Split,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pictures = {"image": toy_vectors(split.catalog), "audio": toy_vectors(split.catalog, seed=1)}
    options = {**SMALL, "epochs": 4, "checkpoint_seconds": 0.0}
    whole = fitted(cls, split, pictures, tmp_path / "whole", **options)
    data = training(split, pictures, tmp_path / "killed")
    model = cls(cls.Config(**options))
    original, n_epochs = cls.batches, 0

    def batches(self: MultimodalRecommender, rng: np.random.Generator) -> object:
        nonlocal n_epochs
        n_epochs += 1
        if n_epochs == 3:
            raise KeyboardInterrupt
        return original(self, rng)

    with monkeypatch.context() as patch:
        patch.setattr(cls, "batches", batches)
        with pytest.raises(KeyboardInterrupt):
            model.fit(data, seed=0)
    again = cls(cls.Config(**options))
    again.fit(data, seed=0)
    queries = split.test.queries
    np.testing.assert_array_equal(again.score(queries).values, whole.score(queries).values)


@pytest.mark.parametrize("cls", MODELS)
def test_a_run_without_pictures_still_trains(
    cls: type[MultimodalRecommender], split: Split, tmp_path: Path
) -> None:
    nothing = np.full((len(split.catalog), 8), np.nan, np.float32)
    model = fitted(cls, split, {"image": nothing}, tmp_path, **SMALL)
    assert np.isfinite(model.score(split.test.queries).values).all()
    assert model.facts()["n_items_with_image"] == 0


@pytest.mark.parametrize("cls", [VBPR, MMGCN, BM3, FREEDOM])
def test_bfloat16_trains(cls: type[MultimodalRecommender], split: Split, tmp_path: Path) -> None:
    pictures = {"image": toy_vectors(split.catalog)}
    half, whole = (
        fitted(cls, split, pictures, tmp_path / dtype, dtype=dtype, **SMALL)
        for dtype in ("bfloat16", "float32")
    )
    scores = half.score(split.test.queries).values
    assert scores.dtype == np.float32
    assert np.isfinite(scores).all()
    assert (scores != whole.score(split.test.queries).values).any()


def test_lattice_which_has_nothing_to_gain_from_it_refuses_bfloat16() -> None:
    with pytest.raises(ValueError, match="dtype"):
        LATTICE.Config.model_validate({"dtype": "bfloat16"})


@pytest.mark.parametrize("cls", [LATTICE, BM3, FREEDOM])
def test_the_items_vectors_can_be_trained_and_come_back(
    cls: type[MultimodalRecommender], split: Split, tmp_path: Path
) -> None:
    pictures = {"image": toy_vectors(split.catalog)}
    options = {**SMALL, "feature_weight": 1.0} if cls is FREEDOM else dict(SMALL)
    fixed = fitted(cls, split, pictures, tmp_path / "fixed", **options)
    model = fitted(cls, split, pictures, tmp_path / "trained", train_vectors=True, **options)
    given = model.modalities["image"].vectors
    assert not fixed.module.state_dict().keys() & {"trained.image"}
    assert (model.module.state_dict()["trained.image"] != given).any()
    (tmp_path / "saved").mkdir()
    model.save(tmp_path / "saved")
    again = cls(model.config)
    again.restore(tmp_path / "saved", training(split, pictures, tmp_path))
    queries = split.test.queries
    np.testing.assert_array_equal(again.score(queries).values, model.score(queries).values)


@pytest.mark.parametrize("cls", MODELS)
def test_the_loss_falls(cls: type[MultimodalRecommender], seen: Seen, tmp_path: Path) -> None:
    pictures = {"image": seen.pictures}
    options = {**SMALL, "epochs": 10, "learning_rate": 0.01, "patience": 0}
    facts = fitted(cls, seen.split, pictures, tmp_path, **options).facts()
    assert float(facts["training_loss_0010"]) < float(facts["training_loss_0001"])


@pytest.mark.parametrize("cls", MODELS)
def test_items_and_users_unseen_in_train_are_scored(
    cls: type[MultimodalRecommender], seen: Seen, tmp_path: Path
) -> None:
    model = fitted(cls, seen.split, {"image": seen.pictures}, tmp_path, **SMALL)
    unseen = np.setdiff1d(np.arange(len(seen.split.catalog)), seen.split.train.item)
    queries = Queries(np.zeros(1, np.int32), Ragged.from_rows([[]]), unseen[None].astype(np.int32))
    assert np.isfinite(model.score(queries).values).all()
    ranks = rank(model.score(seen.split.test.queries).values, seen.split.test)
    assert len(ranks.n_targets) == len(seen.split.test)


def data_of(split: Split, scratch: Path, shape: tuple[int, int] | None) -> TrainingData:
    modalities = {} if shape is None else {"image": np.zeros(shape, np.float32)}
    return toy_training_data(split, scratch, modalities=modalities)


def test_a_run_without_vectors_says_how_to_name_an_encoder(split: Split, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no vectors of the items .* -o vectors\.name=efficient"):
        VBPR(VBPR.Config()).fit(data_of(split, tmp_path, None), seed=0)


def test_vectors_of_other_items_are_refused(split: Split, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"'image' has vectors of shape \(3, 4\); expected one"):
        VBPR(VBPR.Config()).fit(data_of(split, tmp_path, (3, 4)), seed=0)
