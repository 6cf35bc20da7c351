"""A toy split and what a builder is prepared with."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from mmrec_bench.config import ProtocolConfig
from mmrec_bench.interfaces import InstructionContext
from mmrec_bench.testing import toy_split
from mmrec_bench.types import FloatArray, HeldOut, Split
from mmrec_plugins.instructions.recommendation import Recommendation


def context(
    split: Split,
    *,
    vectors: FloatArray | None = None,
    seed: int = 0,
    held_out: HeldOut | None = None,
) -> InstructionContext:
    """Return what a run would prepare a builder with."""
    return InstructionContext(
        dataset="toy",
        users=split.users,
        catalog=split.catalog,
        train=split.train,
        vectors=vectors,
        n_candidates=6,
        seed=seed,
        held_out=held_out,
    )


def split_with(n_candidates: int) -> Split:
    """Return the toy split with so many candidates."""
    return toy_split(ProtocolConfig(k_core=2, n_candidates=n_candidates))


def material_vectors(split: Split) -> FloatArray:
    """Return (N, 4) vectors that tell an item's material."""
    names = sorted({item["material"] for item in split.catalog.attributes})
    rows = [names.index(item["material"]) for item in split.catalog.attributes]
    return np.eye(len(names), dtype=np.float32)[rows]


def prepared(split: Split, **options: Any) -> Recommendation:  # noqa: ANN401 - options of any type
    """Return a builder that is ready to build."""
    builder = Recommendation(Recommendation.Config(**options))
    builder.prepare(context(split, vectors=material_vectors(split)))
    return builder


Make = Callable[..., Recommendation]


def maker(split: Split) -> Make:
    """Return `prepared` for one split."""
    return partial(prepared, split)
