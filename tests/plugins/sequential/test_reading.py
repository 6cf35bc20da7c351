"""What the networks see: causality, padding, positions, and a second, plain implementation."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from mmrec_bench.types import Queries, Ragged
from mmrec_plugins.models.sequential.base import SequentialRecommender
from mmrec_plugins.models.sequential.bert4rec import BERT4Rec
from mmrec_plugins.models.sequential.packing import pack
from mmrec_plugins.models.sequential.sasrec import SASRec
from tests.plugins.sequential.toys import (
    bert4rec,
    data_of,
    gru4rec,
    histories,
    ready,
    sasrec,
)

N = 20
LONGEST = 6
CPU = torch.device("cpu")
ROWS = [
    [1, 2, 3, 4, 5, 6],
    [7, 8, 9],
    [10],
    [3, 1, 3, 8, 11],
    [2, 4],
    [5, 4, 3, 2, 1],
    [9, 1, 4, 2],
]

MODELS: dict[str, Callable[[], SequentialRecommender]] = {
    "sasrec": sasrec,
    "sasrec-post": lambda: sasrec(norm="post", activation="gelu", inner=4, loss="ce"),
    "gru4rec": gru4rec,
    "bert4rec": bert4rec,
}
CAUSAL = ["sasrec", "sasrec-post", "gru4rec"]


@pytest.fixture
def model(request: pytest.FixtureRequest, tmp_path: Path) -> SequentialRecommender:
    found = MODELS[request.param]()
    ready(found, data_of(ROWS, N, tmp_path))
    return found


def outputs(model: SequentialRecommender, row: list[int]) -> Tensor:
    with torch.inference_mode():
        packed = pack(Ragged.from_rows([row]), LONGEST, CPU)
        extra = [torch.arange(len(row))] if isinstance(model, BERT4Rec) else []
        found: Tensor = model.module(packed, *extra)
        return found


@pytest.mark.parametrize("model", CAUSAL, indirect=True)
def test_a_later_item_never_changes_an_earlier_position(model: SequentialRecommender) -> None:
    one, other = outputs(model, [1, 2, 3, 4, 5]), outputs(model, [1, 2, 3, 9, 5])
    assert torch.equal(one[:3], other[:3])
    assert (one[3:] - other[3:]).abs().amax(1).min() > 1e-3


@pytest.mark.parametrize("model", ["bert4rec"], indirect=True)
def test_bert4rec_reads_both_ways(model: SequentialRecommender) -> None:
    one, other = outputs(model, [1, 2, 3, 4, 5]), outputs(model, [1, 2, 3, 9, 5])
    assert (one - other).abs().amax(1).min() > 1e-3


@pytest.mark.parametrize("model", [*MODELS], indirect=True)
def test_a_history_is_read_alike_alone_and_among_longer_and_shorter_ones(
    model: SequentialRecommender,
) -> None:
    with torch.inference_mode():
        together = model.represent(histories([*ROWS, []]))
        alone = torch.cat([model.represent(histories([row])) for row in [*ROWS, []]])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-6)
    assert len(torch.unique(together, dim=0)) == len(ROWS) + 1


@pytest.mark.parametrize("model", [*MODELS], indirect=True)
def test_only_the_newest_items_are_read(model: SequentialRecommender) -> None:
    room = LONGEST - isinstance(model, BERT4Rec)
    long = list(range(1, 13))
    with torch.inference_mode():
        found = model.represent(histories([long, long[-room:], long[-room + 1 :]]))
    torch.testing.assert_close(found[0], found[1])
    assert not torch.allclose(found[0], found[2])


@pytest.mark.parametrize("model", [*MODELS], indirect=True)
def test_the_order_of_a_history_matters(model: SequentialRecommender) -> None:
    with torch.inference_mode():
        found = model.represent(histories([[1, 2, 3], [2, 1, 3]]))
    assert not torch.allclose(found[0], found[1])


@pytest.mark.parametrize("model", [*MODELS], indirect=True)
def test_an_empty_history_is_scored_with_finite_numbers(model: SequentialRecommender) -> None:
    scores = model.score(Queries(np.zeros(1, np.int32), Ragged.from_rows([[]])))
    assert scores.values.shape == (1, N)
    assert np.isfinite(scores.values).all()


def attention(block: Any, x: Tensor, seen: Tensor, n_heads: int) -> Tensor:  # noqa: ANN401
    """(L, D) with a loop over heads and a mask of minus infinity."""
    layer = block.attention
    query, key, value = layer.project(x).chunk(3, 1)
    size = x.shape[1] // n_heads
    heads = []
    for h in range(n_heads):
        part = slice(h * size, (h + 1) * size)
        scores = query[:, part] @ key[:, part].T / math.sqrt(size)
        heads.append(torch.softmax(scores.masked_fill(~seen, -math.inf), 1) @ value[:, part])
    found: Tensor = layer.out(torch.cat(heads, 1))
    return found


def plain(model: SASRec | BERT4Rec, row: list[int], scale: float, *, causal: bool) -> Tensor:
    """Read one row, padded on the left to the longest there may be, with a full mask."""
    config = model.config
    module: Any = model.module
    pre = getattr(config, "norm", "post") == "pre"
    gap = LONGEST - len(row)
    read = torch.tensor([0] * gap + row)
    seen = torch.ones(LONGEST, LONGEST, dtype=torch.bool)
    seen = seen.tril() if causal else seen
    seen[:, :gap] = False
    seen[:gap, :gap] |= torch.eye(gap, dtype=torch.bool)  # so that no row of the mask is empty
    x = module.items.weight[read] * scale + module.positions.weight
    trunk = module.transformer
    x = x if pre else trunk.edge(x)
    bend = functional.relu if getattr(config, "activation", "gelu") == "relu" else functional.gelu
    for block in trunk.blocks:
        layer = block.forward_layer
        if pre:
            x = x + attention(block, block.attention_norm(x), seen, config.n_heads)
            x = x + layer.down(bend(layer.up(block.forward_norm(x))))
        else:
            x = block.attention_norm(x + attention(block, x, seen, config.n_heads))
            x = block.forward_norm(x + layer.down(bend(layer.up(x))))
    found: Tensor = trunk.edge(x) if pre else x
    return found[gap:]


@pytest.mark.parametrize("model", ["sasrec", "sasrec-post"], indirect=True)
@pytest.mark.parametrize("row", ROWS)
def test_sasrec_agrees_with_left_padding_and_a_full_mask(model: SASRec, row: list[int]) -> None:
    with torch.inference_mode():
        expected = plain(model, row, 8**0.5, causal=True)
    torch.testing.assert_close(outputs(model, row), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("model", ["bert4rec"], indirect=True)
@pytest.mark.parametrize("row", ROWS[:5])
def test_bert4rec_agrees_with_left_padding_and_a_full_mask(model: BERT4Rec, row: list[int]) -> None:
    with torch.inference_mode():
        trunk = plain(model, row, 1.0, causal=False)
        expected = model.module.head_norm(functional.gelu(model.module.head(trunk)))
    torch.testing.assert_close(outputs(model, row), expected, rtol=1e-4, atol=1e-5)
