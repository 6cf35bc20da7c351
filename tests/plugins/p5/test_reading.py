"""What P5 reads of a query, what it may rank, and what it leaves alone."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmrec_bench.interfaces import TrainingData
from mmrec_bench.testing import toy_split, toy_training_data, toy_vectors
from mmrec_bench.types import Queries, Ragged
from mmrec_plugins.models.p5.network import P5Network
from mmrec_plugins.models.p5.recommender import P5
from mmrec_plugins.models.p5.vip5 import VIP5

QUICK: dict[str, Any] = {
    "d_model": 16,
    "d_kv": 4,
    "d_ff": 16,
    "num_layers": 1,
    "num_heads": 2,
    "epochs": 1,
    "dropout_rate": 0.0,
}


@pytest.fixture
def data(tmp_path: Path) -> TrainingData:
    split = toy_split()
    return toy_training_data(split, tmp_path, modalities={"image": toy_vectors(split.catalog)})


def fitted(data: TrainingData, cls: type[P5] = P5, **options: Any) -> P5:  # noqa: ANN401
    recommender = cls(cls.Config(**{**QUICK, **options}))
    recommender.fit(data, seed=0)
    return recommender


@pytest.mark.parametrize("whole_words", [True, False])
def test_a_token_also_says_which_word_it_is_of_where_asked(
    data: TrainingData, *, whole_words: bool
) -> None:
    recommender = fitted(data, whole_words=whole_words)
    network = recommender.module
    assert isinstance(network, P5Network)
    source = recommender._writer.write(recommender._prompt, 0, {"history": [2, 1]})
    with torch.no_grad():
        found = network.embed(recommender._padded([source]))[0]
        expected = network.t5.shared.weight[source.ids]
        if whole_words:
            assert network.words is not None
            assert len(set(source.words)) > 3
            expected = expected + network.words.weight[source.words]
    torch.testing.assert_close(found, expected)


def test_the_newest_items_of_a_history_are_read_and_no_others(data: TrainingData) -> None:
    recommender = fitted(data, history_length=2)
    rows = [[1, 2, 3], [2, 3], [3]]
    candidates = np.tile(np.arange(data.n_items, dtype=np.int32), (3, 1))
    asked = Queries(np.zeros(3, np.int32), Ragged.from_rows(rows), candidates)
    scores = recommender.score(asked).values
    np.testing.assert_allclose(scores[0], scores[1], rtol=1e-5)
    assert np.abs(scores[1] - scores[2]).max() > 1e-4


@pytest.mark.parametrize("mask_seen", [True, False])
def test_beams_find_what_was_seen_where_the_protocol_lets_it_be_a_target(
    data: TrainingData, *, mask_seen: bool
) -> None:
    recommender = fitted(replace(data, mask_seen=mask_seen), beams=24)
    queries = Queries(data.validation.user, data.validation.history)
    found = ~np.isnan(recommender.score(queries).values)
    seen = data.interactions.histories(data.n_users)
    taken = [found[i][seen[int(user)]] for i, user in enumerate(queries.user)]
    assert (np.concatenate(taken) == (not mask_seen)).all()


@pytest.mark.parametrize("cls", [P5, VIP5])
def test_fitting_and_restoring_leave_the_global_random_state_alone(
    cls: type[P5], data: TrainingData, tmp_path: Path
) -> None:
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    recommender = fitted(data, cls)
    recommender.save(tmp_path)
    recommender.restore(tmp_path, data)
    assert torch.equal(before, torch.random.get_rng_state())
