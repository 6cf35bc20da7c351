from collections.abc import Iterator

import numpy as np
import pytest
import torch

from mmrec_bench.interfaces import ExampleSource
from mmrec_bench.types import Example, Query
from mmrec_plugins.models.lm.alignment import align, carry_over
from mmrec_plugins.models.lm.prefill import causal_model
from mmrec_plugins.models.lm.visual import VisualTokens, attach_visual
from tests.plugins.lm.pictured import BLIND, make_seeing
from tests.plugins.lm.random_models import make_model

pytestmark = pytest.mark.usefixtures("one_thread")

GROUPS = ((0, 1, 2), (3, 5, 6))
"""Items that are taken together; `BLIND`, which has no picture, goes with both."""


def purchases(epoch: int) -> Iterator[Example]:
    rng = np.random.default_rng(epoch)
    for _ in range(40):
        turn = int(rng.integers(2))
        own, others = rng.permutation(GROUPS[turn]), rng.permutation(GROUPS[1 - turn])
        history = np.array([own[0], BLIND, own[1]], np.int32)
        candidates = np.array([others[0], own[2], BLIND], np.int32)
        yield Example(Query(0, history, candidates), 1)


def closeness(visual: VisualTokens) -> tuple[float, float]:
    """Return the mean cosine of soft tokens within a group, and across."""
    items = torch.tensor([*GROUPS[0], *GROUPS[1]])
    with torch.no_grad():
        towards = visual.directions(visual.codes(items)).mean(1)
    cosines = (towards @ towards.T).numpy()
    within = (cosines[:3, :3].sum() + cosines[3:, 3:].sum() - 6) / 12
    return float(within), float(cosines[:3, 3:].mean())


def test_pictures_of_what_is_taken_together_point_the_same_way() -> None:
    _, visual, _ = make_seeing(n_tokens=1)
    before = closeness(visual)
    align(visual, purchases, n_steps=150, seed=0)
    within, across = closeness(visual)
    assert within - across > 0.5 > before[0] - before[1]
    assert not visual.training


def test_aligning_again_gives_the_same_projector() -> None:
    states = []
    for _ in range(2):
        _, visual, _ = make_seeing(dropout=0.3)
        align(visual, purchases, n_steps=10, seed=5)
        states.append(visual.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_no_steps_change_nothing() -> None:
    _, visual, _ = make_seeing()
    before = {name: value.clone() for name, value in visual.state_dict().items()}
    align(visual, purchases, n_steps=0, seed=0)
    assert all(torch.equal(value, before[name]) for name, value in visual.state_dict().items())


def test_examples_without_pictures_are_survived(caplog: pytest.LogCaptureFixture) -> None:
    def blind(epoch: int) -> Iterator[Example]:
        history, candidates = np.array([BLIND]), np.array([epoch % 2, BLIND])
        history, candidates = history.astype(np.int32), candidates.astype(np.int32)
        yield Example(Query(0, history, candidates), 1)

    _, visual, _ = make_seeing()
    align(visual, blind, n_steps=3, seed=0)
    assert "not aligned" in caplog.text


N_SHOP = 60
TASTES = 3


def shop_purchases(taste: np.ndarray) -> ExampleSource:
    """Users take items of one taste; every item is a target some time."""

    def source(epoch: int) -> Iterator[Example]:
        rng = np.random.default_rng([7, epoch])
        for _ in range(400):
            own = rng.permutation(np.flatnonzero(taste == rng.integers(TASTES)))
            others = rng.choice(np.flatnonzero(taste != taste[own[0]]), 5, replace=False)
            candidates = np.array([own[0], *others], np.int32)
            yield Example(Query(0, own[1:5].astype(np.int32), candidates), 0)

    return source


def shop_projector(rows: np.ndarray) -> VisualTokens:
    return attach_visual(
        causal_model(make_model("glm", "prefix")),
        rows.astype(np.float32),
        n_tokens=1,
        code_size=16,
        dropout=0.0,
        seed=2,
        prompt_ids=[5, 6, 7, 8],
    )


def shop_rows(*, telling: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return (N, D) vectors that show an item's taste among noise, or noise alone."""
    rng = np.random.default_rng(0)
    taste = rng.integers(TASTES, size=N_SHOP)
    rows = rng.normal(size=(N_SHOP, 12))
    rows[np.arange(N_SHOP), taste] += 4.0 * telling
    return taste, rows


def test_pictures_that_tell_the_taste_carry_over_to_others() -> None:
    taste, rows = shop_rows(telling=True)
    area, low = carry_over(shop_projector(rows), shop_purchases(taste), n_steps=60, seed=0)
    assert area > 0.8
    assert low > 0.5


def test_pictures_that_tell_nothing_are_not_learnt_by_heart(
    caplog: pytest.LogCaptureFixture,
) -> None:
    taste, rows = shop_rows(telling=False)
    visual = shop_projector(rows)
    before = {name: value.clone() for name, value in visual.state_dict().items()}
    area = align(visual, shop_purchases(taste), n_steps=60, seed=0)
    assert area is not None
    assert "no better than chance" in caplog.text
    assert all(torch.equal(value, before[name]) for name, value in visual.state_dict().items())
