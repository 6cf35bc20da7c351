"""A small world whose numbers were worked by hand, and random ones for second implementations."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmrec_bench.interfaces import TrainingData
from mmrec_bench.types import Catalog, FloatArray, Interactions, Queries, Ragged, Vocabulary


def data_of(
    histories: Sequence[Sequence[int]],
    n_items: int,
    folder: Path,
    *,
    titles: Sequence[str] | None = None,
    text_vectors: FloatArray | None = None,
) -> TrainingData:
    names = [f"i{i}" for i in range(n_items)]
    user = np.repeat(np.arange(len(histories)), [len(row) for row in histories])
    item = np.array([i for row in histories for i in row], np.int32)
    return TrainingData(
        interactions=Interactions.build(user, item),
        n_users=len(histories),
        catalog=Catalog(Vocabulary(names), list(titles or names)),
        validation=Queries(np.zeros(0, np.int32), Ragged.from_rows([])),
        validate=lambda _: 0.0,
        validate_by=lambda _: 0.0,
        examples=lambda _: iter(()),
        n_examples=0,
        builder=None,
        users=Vocabulary([f"u{i}" for i in range(len(histories))]),
        modalities={} if text_vectors is None else {"text": text_vectors},
        device="cpu",
        scratch=folder,
    )


def queries_of(
    histories: Sequence[Sequence[int]], candidates: Sequence[Sequence[int]] | None = None
) -> Queries:
    return Queries(
        np.zeros(len(histories), np.int32),
        Ragged.from_rows(histories),
        None if candidates is None else np.array(candidates, np.int32),
    )


def random_histories(n_users: int, n_items: int, longest: int, *, seed: int) -> list[list[int]]:
    """Histories without repeats; the last two items are in none."""
    rng = np.random.default_rng(seed)
    popular = rng.dirichlet(np.ones(n_items - 2))
    return [
        rng.choice(
            n_items - 2, size=int(rng.integers(1, longest)), replace=False, p=popular
        ).tolist()
        for _ in range(n_users)
    ]


def binary(
    histories: Sequence[Sequence[int]], n_items: int
) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    x = np.zeros((len(histories), n_items))
    for user, row in enumerate(histories):
        x[user, row] = 1
    return x
