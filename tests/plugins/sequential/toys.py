"""Small training data and models of the sequential tests."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from mmrec_bench.interfaces import TrainingData
from mmrec_bench.types import Catalog, HeldOut, Interactions, Queries, Ragged, Vocabulary
from mmrec_plugins.models.sequential.base import SequentialRecommender
from mmrec_plugins.models.sequential.bert4rec import BERT4Rec
from mmrec_plugins.models.sequential.gru4rec import GRU4Rec
from mmrec_plugins.models.sequential.packing import by_length
from mmrec_plugins.models.sequential.sasrec import SASRec

SMALL = {"embedding_size": 8, "epochs": 2, "batch_size": 8, "max_length": 6}


def sasrec(**options: object) -> SASRec:
    return SASRec(SASRec.Config(**{**SMALL, "n_heads": 2, **options}))


def gru4rec(**options: object) -> GRU4Rec:
    return GRU4Rec(GRU4Rec.Config(**{**SMALL, "hidden_size": 12, "n_negatives": 16, **options}))


def bert4rec(**options: object) -> BERT4Rec:
    return BERT4Rec(BERT4Rec.Config(**{**SMALL, **options}))


def data_of(
    rows: Sequence[Sequence[int]], n_items: int, scratch: Path, *, held_out: Sequence[int] = ()
) -> TrainingData:
    """Training data of users' items, oldest first; nothing to validate on."""
    user = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
    names = [f"i{i}" for i in range(n_items)]
    return TrainingData(
        interactions=Interactions.build(user, np.array([i for row in rows for i in row])),
        n_users=len(rows),
        catalog=Catalog(Vocabulary(names), names),
        validation=Queries(np.zeros(0, np.int32), Ragged.from_rows([])),
        validate=lambda _: 0.0,
        validate_by=lambda _: 0.0,
        examples=lambda _: iter(()),
        n_examples=0,
        builder=None,
        users=Vocabulary([f"u{i}" for i in range(len(rows))]),
        device="cpu",
        scratch=scratch,
        held_out=HeldOut(np.zeros(0, np.int32), np.array(held_out, np.int32), "h")
        if held_out
        else None,
    )


def ready(model: SequentialRecommender, data: TrainingData, *, std: float = 0.5) -> None:
    """Build an untrained network with weights large enough that a difference shows."""
    model.device = torch.device("cpu")
    torch.manual_seed(0)
    model.module = model.build(data)
    with torch.no_grad():
        for value in model.module.parameters():
            value.add_(std * torch.randn_like(value))
        model.module.items.weight[-1].zero_()
    model.prepare(data)
    model.module.eval()


def histories(rows: Sequence[Sequence[int]]) -> Queries:
    return Queries(np.arange(len(rows), dtype=np.int32), Ragged.from_rows(rows))


def sorted_rows(rows: Sequence[Sequence[int]]) -> Ragged:
    found = Ragged.from_rows(rows)
    return found.take(by_length(found.lengths))
