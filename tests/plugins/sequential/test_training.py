import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmrec_bench.errors import ModelError
from mmrec_bench.types import Ragged
from mmrec_plugins.models.sequential.base import SequentialRecommender
from mmrec_plugins.models.sequential.bert4rec import draw_hidden
from tests.plugins.sequential.toys import (
    bert4rec,
    data_of,
    gru4rec,
    histories,
    ready,
    sasrec,
)

N = 12
CYCLE = [[(start + step) % N for step in range(7)] for start in range(N)]

MODELS: dict[str, Callable[..., SequentialRecommender]] = {
    "sasrec": sasrec,
    "sasrec-ce": lambda **options: sasrec(loss="ce", norm="post", **options),
    "gru4rec": gru4rec,
    "gru4rec-bce": lambda **options: gru4rec(loss="bce", **options),
    "gru4rec-bpr": lambda **options: gru4rec(loss="bpr", **options),
    "gru4rec-top1": lambda **options: gru4rec(loss="top1", **options),
    "gru4rec-bpr-max": lambda **options: gru4rec(loss="bpr-max", regularisation=0.0, **options),
    "gru4rec-top1-max": lambda **options: gru4rec(loss="top1-max", **options),
    "bert4rec": lambda **options: bert4rec(
        **{**options, "last_item_share": 0.5, "learning_rate": 0.01}
    ),
}


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Tiny models are fastest on one thread, whatever else the machine does."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("name", MODELS)
def test_a_cycle_is_learned(name: str, tmp_path: Path) -> None:
    n_items = 20
    rows = [
        [(start + step) % n_items for step in range(length)]
        for start in range(n_items)
        for length in (2, 3, 4, 6)
    ]
    # BERT4Rec so long that each of six seeds learns it: after 60 epochs the last bits decide.
    epochs = 150 if name == "bert4rec" else 60
    model = MODELS[name](
        epochs=epochs, learning_rate=0.02, dropout=0.0, embedding_size=16, batch_size=40
    )
    model.fit(data_of(rows, n_items, tmp_path), seed=0)
    asked = [[2, 3, 4, 5], [8, 9], [18, 19], [1, 2, 3, 4, 5]]
    scores = model.score(histories(asked)).values
    for row, history in enumerate(asked):  # as in an evaluation: what was seen is left out
        scores[row, history] = -np.inf
    assert scores.argmax(1).tolist() == [6, 10, 0, 6]


@pytest.mark.parametrize("name", ["sasrec", "sasrec-ce", "gru4rec", "bert4rec"])
def test_a_killed_fit_goes_on_to_the_same_weights(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    whole = MODELS[name](epochs=4, checkpoint_seconds=0)
    whole.fit(data_of(CYCLE, N, tmp_path / "whole"), seed=3)
    killed = MODELS[name](epochs=4, checkpoint_seconds=0)
    batches, epochs = killed.batches, iter(range(9))

    def until_the_third(rng: np.random.Generator) -> Iterator[Any]:
        if next(epochs) == 2:
            raise KeyboardInterrupt
        return batches(rng)

    monkeypatch.setattr(killed, "batches", until_the_third)
    data = data_of(CYCLE, N, tmp_path / "killed")
    with pytest.raises(KeyboardInterrupt):
        killed.fit(data, seed=3)
    again = MODELS[name](epochs=4, checkpoint_seconds=0)
    with caplog.at_level(logging.INFO, "mmrec_bench"):
        again.fit(data, seed=3)
    assert "training goes on after epoch 2" in caplog.text
    expected = whole.module.state_dict()
    for key, value in again.module.state_dict().items():
        assert torch.equal(value, expected[key]), key


@pytest.mark.parametrize("name", MODELS)
def test_bfloat16_gives_nearly_the_loss_of_float32(name: str, tmp_path: Path) -> None:
    losses = []
    for dtype in ("float32", "bfloat16"):
        model = MODELS[name](dtype=dtype, dropout=0.0)
        model.fit(data_of(CYCLE, N, tmp_path / dtype), seed=0)
        losses.append(model.facts()["training_loss_0002"])
        assert model.score(histories([[1, 2]])).values.dtype == np.float32
    assert losses[1] == pytest.approx(losses[0], rel=0.02)


@pytest.mark.parametrize("name", MODELS)
def test_the_row_that_stands_for_nothing_stays_zero(name: str, tmp_path: Path) -> None:
    if name == "bert4rec":
        pytest.skip("its extra row is the mask, which is learned")
    model = MODELS[name](weight_decay=0.1)
    model.fit(data_of(CYCLE, N, tmp_path), seed=0)
    assert not model.module.items.weight[N].any()


def test_an_epoch_shows_each_users_newest_items_once(tmp_path: Path) -> None:
    rows = [[0, 1, 2, 3, 4, 5, 6, 7, 8], [9, 10, 11], [3]]
    model = sasrec(loss="ce", batch_size=2)
    ready(model, data_of(rows, N, tmp_path))
    (batch,) = model.batches(np.random.default_rng(0))
    assert batch.packed.items.tolist() == [9, 10, 2, 3, 4, 5, 6, 7]
    assert batch.target.tolist() == [10, 11, 3, 4, 5, 6, 7, 8]
    assert model.n_batches() == 1


def test_a_negative_is_never_an_item_that_the_user_took(tmp_path: Path) -> None:
    model = sasrec(n_negatives=3)
    ready(model, data_of([[0, 1, 2, 3, 4, 5]] * 8, 8, tmp_path, held_out=[7]))
    for batch in model.batches(np.random.default_rng(0)):
        assert batch.negative.shape == (len(batch.target), 3)
        assert set(batch.negative.ravel().tolist()) == {6}


def test_a_user_without_an_item_left_is_passed_over_by_losses_with_negatives(
    tmp_path: Path,
) -> None:
    data = data_of([[0, 1, 2], [0, 1]], 3, tmp_path)
    model = sasrec()
    ready(model, data)
    (batch,) = model.batches(np.random.default_rng(0))
    assert batch.packed.items.tolist() == [0]
    whole = sasrec(loss="ce")
    ready(whole, data)
    (batch,) = whole.batches(np.random.default_rng(0))
    assert batch.packed.items.tolist() == [0, 0, 1]


@pytest.mark.parametrize("name", ["sasrec-ce", "gru4rec", "bert4rec"])
def test_held_out_items_are_no_part_of_the_softmax(name: str, tmp_path: Path) -> None:
    rows = [[0, 1, 4, 2], [3, 2, 4, 0]] * 3
    losses = []
    for held_out in ([], [5, 6]):
        model = MODELS[name]()
        ready(model, data_of(rows, 8, tmp_path, held_out=held_out))
        batch = next(iter(model.batches(np.random.default_rng(0))))
        loss = model.loss(batch)
        loss.backward()  # type: ignore[no-untyped-call]
        losses.append(loss.item())
        gradient = model.module.items.weight.grad
        assert gradient is not None
        moved = gradient[:8].abs().sum(1) > 0
        assert moved.tolist() == [i not in held_out for i in range(8)]
    assert losses[1] < losses[0]


def test_shared_negatives_are_drawn_by_popularity(tmp_path: Path) -> None:
    rows = [[0, 1], [0, 1], [0, 2], [0, 3]]
    model = gru4rec(loss="bpr-max", n_negatives=20_000, alpha=1.0)
    ready(model, data_of(rows, 6, tmp_path, held_out=[3]))
    batch = next(iter(model.batches(np.random.default_rng(0))))
    share = np.bincount(batch.negative.numpy(), minlength=6) / 20_000
    np.testing.assert_allclose(share, [4 / 7, 2 / 7, 1 / 7, 0, 0, 0], atol=0.02)


def test_nothing_to_learn_from_is_said_in_a_line(tmp_path: Path) -> None:
    for make in (sasrec, gru4rec, bert4rec):
        with pytest.raises(ModelError, match="no sequence to learn from: 2 train interactions"):
            make().fit(data_of([[1], [2]], 5, tmp_path), seed=0)


def test_heads_must_divide_the_vectors() -> None:
    with pytest.raises(ValueError, match="n_heads 3 must divide 8"):
        sasrec(n_heads=3)


def test_a_share_of_each_row_is_hidden_and_never_nothing() -> None:
    rows = Ragged.from_rows([list(range(20)), list(range(10)), [1, 2], [5, 6, 7]] * 5)
    hidden = draw_hidden(rows, 0.2, 0.0, np.random.default_rng(0))
    assert (np.diff(hidden) > 0).all()
    counts = np.bincount(rows.row_ids[hidden], minlength=len(rows))
    assert counts.tolist() == [4, 2, 1, 1] * 5


def test_every_place_of_a_row_is_hidden_equally_often() -> None:
    rows = Ragged.from_rows([[1, 2, 3, 4, 5]] * 20_000)
    hidden = draw_hidden(rows, 0.4, 0.0, np.random.default_rng(0))
    share = np.bincount(hidden % 5) / 20_000
    np.testing.assert_allclose(share, 0.4, atol=0.015)


def test_in_a_share_of_the_rows_only_the_last_item_is_hidden() -> None:
    rows = Ragged.from_rows([[1, 2, 3, 4, 5]] * 20_000)
    hidden = draw_hidden(rows, 0.6, 0.25, np.random.default_rng(0))
    counts = np.bincount(hidden // 5, minlength=len(rows))
    alone = counts == 1
    assert set(counts.tolist()) == {1, 3}
    assert alone.mean() == pytest.approx(0.25, abs=0.015)
    assert (hidden[alone[hidden // 5]] % 5 == 4).all()


def test_a_hidden_item_is_replaced_by_the_mask_and_asked_for(tmp_path: Path) -> None:
    model = bert4rec(mask_probability=0.5)
    ready(model, data_of([[3, 4, 5, 6], [1, 2]], N, tmp_path))
    (batch,) = model.batches(np.random.default_rng(0))
    read = batch.packed.items.clone()
    assert (read[batch.hidden] == N).all()
    assert (read == N).sum() == len(batch.hidden)
    read[batch.hidden] = batch.target
    assert read.tolist() == [1, 2, 3, 4, 5, 6]
