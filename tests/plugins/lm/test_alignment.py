from collections.abc import Iterator

import numpy as np
import pytest
import torch

from mmrec_bench.types import Example, Query
from mmrec_plugins.models.lm.alignment import align
from mmrec_plugins.models.lm.visual import VisualTokens
from tests.plugins.lm.pictured import BLIND, make_seeing

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
