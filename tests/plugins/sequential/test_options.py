"""Options and parts whose absence no list would show at once."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mmrec_plugins.models.sequential.base import SequentialRecommender
from mmrec_plugins.models.sequential.packing import pack
from tests.plugins.sequential.toys import (
    bert4rec,
    data_of,
    histories,
    ready,
    sasrec,
    sorted_rows,
)

N = 12
ROWS = [[1, 2, 3], [7, 8, 9, 2], [3, 1, 5, 8, 11]]


def ends(model: SequentialRecommender) -> Tensor:
    packed = pack(sorted_rows(ROWS), model.config.max_length, model.device)
    with torch.no_grad():
        return model.module.ends(packed)


def test_bert4rec_ranks_by_its_biases_too(tmp_path: Path) -> None:
    model = bert4rec()
    ready(model, data_of(ROWS, N, tmp_path))
    asked = histories(ROWS)
    before = model.score(asked).values
    more = torch.arange(N) / 4
    with torch.no_grad():
        model.module.bias.add_(more)
    model.weights_changed()
    found = torch.from_numpy(model.score(asked).values - before)
    torch.testing.assert_close(found, more.expand(len(ROWS), N))


def test_sasrec_reads_item_vectors_as_they_are_where_asked(tmp_path: Path) -> None:
    scaled, plain = sasrec(), sasrec(scale_embeddings=False)
    for model in (scaled, plain):
        ready(model, data_of(ROWS, N, tmp_path))
    assert not torch.allclose(ends(scaled), ends(plain))
    with torch.no_grad():
        plain.module.items.weight.mul_(8**0.5)
    torch.testing.assert_close(ends(scaled), ends(plain))


# The feed-forward layer's own is SASRec's alone.
PLACES = {
    "sasrec": {"dropout", "blocks.0.dropout", "blocks.0.forward_layer.dropout"},
    "sasrec-post": {"dropout", "blocks.0.dropout"},
    "bert4rec": {"dropout", "blocks.0.dropout"},
}


@pytest.mark.parametrize("name", PLACES)
def test_every_dropout_drops_in_training_and_none_in_ranking(name: str, tmp_path: Path) -> None:
    options = {"dropout": 0.4, "attention_dropout": 0.0, "n_blocks": 1}
    make = bert4rec if name == "bert4rec" else sasrec
    model = make(**options, **({"norm": "post"} if name == "sasrec-post" else {}))
    ready(model, data_of(ROWS, N, tmp_path))
    parts = {
        place.removeprefix("transformer."): part
        for place, part in model.module.named_modules()
        if isinstance(part, nn.Dropout)
    }
    assert {place for place, part in parts.items() if part.p == 0.4} == PLACES[name]
    assert torch.equal(ends(model), ends(model))
    for place in PLACES[name]:
        model.module.eval()
        parts[place].train()
        assert not torch.equal(ends(model), ends(model)), place


def test_attention_weights_are_dropped_in_training(tmp_path: Path) -> None:
    model = sasrec(dropout=0.0, attention_dropout=0.4)
    ready(model, data_of(ROWS, N, tmp_path))
    assert torch.equal(ends(model), ends(model))
    model.module.train()
    assert not torch.equal(ends(model), ends(model))
