from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mmrec_bench.errors import ModelError
from mmrec_bench.interfaces import TrainingData
from mmrec_bench.testing import toy_split, toy_training_data
from mmrec_bench.types import Interactions, Queries, Ragged
from mmrec_plugins.models import neural
from mmrec_plugins.models.bpr_mf import BPRMF
from mmrec_plugins.models.neural import FILE

OPTIONS = {"embedding_size": 8, "epochs": 2, "batch_size": 64}


@pytest.fixture
def data(tmp_path: Path) -> TrainingData:
    return toy_training_data(toy_split(), tmp_path / "scratch")


def fitted(data: TrainingData, seed: int = 0, **options: object) -> BPRMF:
    model = BPRMF(BPRMF.Config.model_validate({**OPTIONS, **options}))
    model.fit(data, seed=seed)
    return model


def queries(n: int, candidates: np.ndarray[tuple[int, int], np.dtype[np.int32]]) -> Queries:
    return Queries(np.arange(n, dtype=np.int32), Ragged.from_rows([[]] * n), candidates)


def test_restoring_with_other_options_is_one_clear_error(
    data: TrainingData, tmp_path: Path
) -> None:
    fitted(data).save(tmp_path)
    other = BPRMF(BPRMF.Config.model_validate({**OPTIONS, "embedding_size": 16}))
    with pytest.raises(ModelError, match=r"users \(\d+, 8\).*asked for here would hold.*, 16\)"):
        other.restore(tmp_path, data)
    without_bias = BPRMF(BPRMF.Config.model_validate({**OPTIONS, "item_bias": False}))
    with pytest.raises(ModelError, match=r"holds bias .*weights of BPRMF asked for here"):
        without_bias.restore(tmp_path, data)


def test_restoring_on_another_catalog_is_one_clear_error(
    data: TrainingData, tmp_path: Path
) -> None:
    fitted(data).save(tmp_path)
    smaller = replace(data, catalog=data.catalog.take(np.arange(data.n_items - 1)))
    with pytest.raises(ModelError, match=rf"items \({data.n_items}, 8\)"):
        BPRMF(BPRMF.Config.model_validate(OPTIONS)).restore(tmp_path, smaller)


def test_missing_or_torn_weights_are_one_clear_error(data: TrainingData, tmp_path: Path) -> None:
    model = fitted(data)
    with pytest.raises(ModelError, match="cannot be read as weights of BPRMF"):
        model.restore(tmp_path, data)
    model.save(tmp_path)
    whole = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(whole[:-9])
    with pytest.raises(ModelError, match="cannot be read as weights of BPRMF"):
        model.restore(tmp_path, data)


def test_a_model_that_was_fitted_before_can_be_restored(data: TrainingData, tmp_path: Path) -> None:
    one, other = fitted(data), fitted(data, seed=1)
    asked = data.validation
    expected = one.score(asked).values
    assert (other.score(asked).values != expected).any()
    one.save(tmp_path)
    other.restore(tmp_path, data)
    np.testing.assert_array_equal(other.score(asked).values, expected)


def test_a_model_can_be_fitted_twice(data: TrainingData) -> None:
    model = fitted(data)
    first = model.score(data.validation).values
    model.fit(data, seed=1)
    np.testing.assert_array_equal(
        model.score(data.validation).values, fitted(data, seed=1).score(data.validation).values
    )
    assert (first != model.score(data.validation).values).any()


def test_candidates_are_scored_alike_in_blocks_of_any_size(
    data: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, rng = fitted(data), np.random.default_rng(0)
    candidates = rng.integers(0, data.n_items, (20, 5)).astype(np.int32)
    asked = queries(20, candidates)
    whole = model.score(asked).values
    for block in (1, 100, 200):
        monkeypatch.setattr(neural, "_BLOCK", block)
        np.testing.assert_allclose(model.score(asked).values, whole, rtol=1e-5, atol=1e-7)
    catalog = model.score(Queries(asked.user, asked.history)).values
    np.testing.assert_allclose(np.take_along_axis(catalog, candidates, 1), whole, rtol=1e-4)


def test_no_query_and_no_candidate_are_legal(data: TrainingData) -> None:
    model = fitted(data)
    assert model.score(queries(0, np.zeros((0, 4), np.int32))).values.shape == (0, 4)
    assert model.score(queries(2, np.zeros((2, 0), np.int32))).values.shape == (2, 0)


def test_facts_say_how_many_parameters_and_how_the_fit_went(data: TrainingData) -> None:
    facts = fitted(data).facts()
    assert facts["n_parameters"] == 8 * (data.n_users + data.n_items) + data.n_items
    assert facts["training_epochs"] == 2
    assert {"training_loss_0001", "training_ndcg_0002"} <= facts.keys()


def test_facts_of_a_restored_model_say_nothing_of_a_fit(data: TrainingData, tmp_path: Path) -> None:
    model = fitted(data)
    model.save(tmp_path)
    restored = BPRMF(BPRMF.Config.model_validate(OPTIONS))
    restored.restore(tmp_path, data)
    assert restored.facts() == {"n_parameters": model.facts()["n_parameters"]}


def test_building_training_and_restoring_leave_the_global_random_state_alone(
    data: TrainingData, tmp_path: Path
) -> None:
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    model = fitted(data)
    model.save(tmp_path)
    model.restore(tmp_path, data)
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_fit_never_goes_on_from_the_checkpoint_of_another(data: TrainingData) -> None:
    def name(seed: int = 0, of: TrainingData = data, **options: object) -> str:
        return BPRMF(BPRMF.Config.model_validate({**OPTIONS, **options}))._fingerprint(of, seed)

    rows = data.interactions
    item = rows.item.copy()
    item[0] += 1
    changed = replace(data, interactions=Interactions(rows.user, item, rows.timestamp, rows.rating))
    vectors = replace(data, modalities={"image": np.zeros((data.n_items, 2), np.float32)})
    others = [name(1), name(learning_rate=0.5), name(of=changed), name(of=vectors)]

    assert len({name(), *others}) == 5
    # How often a checkpoint is written decides nothing.
    assert name(checkpoint_seconds=1.0) == name()
