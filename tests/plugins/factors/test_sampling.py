import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmrec_bench.errors import ModelError
from mmrec_bench.types import HeldOut, Interactions
from mmrec_plugins.models import sampling
from mmrec_plugins.models.sampling import NegativeSampler, Pairs, PairSampler


def taken(rows: list[set[int]]) -> Interactions:
    pairs = [(user, item) for user, items in enumerate(rows) for item in sorted(items)]
    return Interactions.build(np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs]))


def held_out(*items: int) -> HeldOut:
    return HeldOut(np.zeros(0, np.int32), np.array(items, np.int32), "")


@settings(max_examples=50, deadline=None)
@given(
    rows=st.lists(st.sets(st.integers(0, 8)), min_size=1, max_size=6),
    out=st.sets(st.integers(0, 8), max_size=4),
)
def test_each_free_item_and_nothing_else_is_drawn(rows: list[set[int]], out: set[int]) -> None:
    rows = [items - out for items in rows]
    sampler = NegativeSampler(taken(rows), len(rows), 9, held_out(*sorted(out)))
    rng = np.random.default_rng(0)
    for user, items in enumerate(rows):
        free = set(range(9)) - items - out
        assert sampler.free[user] == len(free)
        if free:
            assert set(sampler.draw(np.full(400, user), rng).tolist()) == free


def test_negatives_are_uniform_over_the_free_items() -> None:
    sampler = NegativeSampler(taken([{0, 2, 3, 7}, {9}]), 2, 10)
    drawn = sampler.draw(np.zeros(60_000, np.int64), np.random.default_rng(1))
    counts = np.bincount(drawn, minlength=10)
    assert counts[[0, 2, 3, 7]].tolist() == [0, 0, 0, 0]
    # 6 free items: 10,000 each, five standard deviations of sqrt(10,000 * 5 / 6)
    assert np.abs(counts[[1, 4, 5, 6, 8, 9]] - 10_000).max() < 460


def test_negatives_have_the_shape_of_the_users_and_follow_the_generator() -> None:
    sampler = NegativeSampler(taken([{0}, {1}, {2}]), 3, 50)
    users = np.array([[0, 1, 2], [2, 2, 0]])
    drawn = sampler.draw(users, np.random.default_rng(5))
    assert drawn.shape == (2, 3)
    assert drawn.dtype == np.int64
    np.testing.assert_array_equal(drawn, sampler.draw(users, np.random.default_rng(5)))
    assert (drawn != sampler.draw(users, np.random.default_rng(6))).any()


def test_searched_and_listed_free_items_are_drawn_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    rows = Interactions.build(rng.integers(0, 20, 300), rng.integers(0, 40, 300))
    users = rng.integers(0, 20, (100, 3))
    listed = NegativeSampler(rows, 20, 40, held_out(0, 5, 39))
    monkeypatch.setattr(sampling, "_TABLE", 0)
    searched = NegativeSampler(rows, 20, 40, held_out(0, 5, 39))
    np.testing.assert_array_equal(
        listed.draw(users, np.random.default_rng(5)), searched.draw(users, np.random.default_rng(5))
    )


def test_nothing_can_be_drawn_for_a_user_who_took_everything() -> None:
    sampler = NegativeSampler(taken([{0}, {0, 1, 2}]), 2, 3)
    assert sampler.free.tolist() == [2, 0]
    with pytest.raises(ValueError, match="user 1 took all items"):
        sampler.draw(np.array([0, 1]), np.random.default_rng(0))


def test_an_epoch_holds_each_pair_once_with_a_negative_that_was_not_taken() -> None:
    rng = np.random.default_rng(2)
    rows = Interactions.build(rng.integers(0, 20, 300), rng.integers(0, 40, 300))
    sampler = PairSampler(rows, 20, 40)
    batches = list(sampler.epoch(np.random.default_rng(0), 64))

    assert [len(batch.user) for batch in batches] == [64, 64, 64, 64, 44]
    assert len(batches) == sampler.n_batches(64)
    user, positive, negative = (torch.cat(column).numpy() for column in zip(*batches, strict=True))
    assert user.dtype == positive.dtype == negative.dtype == np.int64
    assert sorted(zip(user, positive, strict=True)) == sorted(
        zip(rows.user.tolist(), rows.item.tolist(), strict=True)
    )
    known = set(zip(rows.user.tolist(), rows.item.tolist(), strict=True))
    assert not known & set(zip(user.tolist(), negative.tolist(), strict=True))


def test_epochs_differ_and_the_same_generator_gives_the_same_epoch() -> None:
    sampler = PairSampler(taken([set(range(0, 30, 2)), {1, 5}]), 2, 30)

    def epoch(seed: int) -> list[Pairs]:
        return list(sampler.epoch(np.random.default_rng(seed), 5))

    def same(a: list[Pairs], b: list[Pairs]) -> bool:
        return all(torch.equal(x, y) for p, q in zip(a, b, strict=True) for x, y in zip(p, q))  # noqa: B905

    assert same(epoch(0), epoch(0))
    assert not same(epoch(0), epoch(1))


def test_pairs_of_users_who_took_everything_are_left_out() -> None:
    sampler = PairSampler(taken([{0, 1, 2}, {1}]), 2, 3)
    assert len(sampler) == 1
    (batch,) = sampler.epoch(np.random.default_rng(0), 8)
    assert (batch.user.item(), batch.positive.item()) == (1, 1)


def test_without_any_pair_there_is_one_clear_error() -> None:
    with pytest.raises(ModelError, match="no pair to learn from: 4 train interactions of 2 users"):
        PairSampler(taken([{0, 1}, {0, 1}]), 2, 2)
    with pytest.raises(ModelError, match="0 train interactions"):
        PairSampler(taken([]), 2, 2)


def test_held_out_items_are_no_negatives() -> None:
    sampler = PairSampler(taken([{0}, {1}]), 2, 5, held_out(2, 4))
    seen = {
        int(item)
        for seed in range(50)
        for batch in sampler.epoch(np.random.default_rng(seed), 2)
        for item in batch.negative
    }
    assert seen == {0, 1, 3}
