"""Small data for the multimodal models."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mmrec_bench import protocol
from mmrec_bench.config import ProtocolConfig
from mmrec_bench.interfaces import TrainingData
from mmrec_bench.testing import toy_training_data
from mmrec_bench.types import (
    Catalog,
    DataCard,
    FloatArray,
    Interactions,
    RecData,
    Split,
    Vocabulary,
)
from mmrec_plugins.models.multimodal.base import MultimodalRecommender

FULL = ProtocolConfig(split="given", k_core=0, candidates="full")


class Seen(NamedTuple):
    """A split whose taste shows in the pictures alone, and the pictures."""

    split: Split
    pictures: FloatArray


def seen_taste(n_users: int = 60, n_items: int = 120, n_groups: int = 4) -> Seen:
    """Return users who each take items of one group, and test items that train never saw.

    An item's group can be told by its picture, and since nobody took the item in train, by nothing
    else. Half of the items are test targets only, one a user.
    """
    rng = np.random.default_rng(7)
    group = np.arange(n_items) % n_groups
    old = np.arange(n_items) < n_items // 2
    rows = []
    for number in range(n_users):
        mine = group == number % n_groups
        taken = rng.choice(np.flatnonzero(mine & old), 6, replace=False)
        rows += [(number, one, 0) for one in taken[:5].tolist()]
        rows += [(number, int(taken[5]), 1)]
        rows += [(number, int(np.flatnonzero(mine & ~old)[number // n_groups]), 2)]
    user, item, part = (np.array(column) for column in zip(*rows, strict=True))
    items = Vocabulary([str(i) for i in range(n_items)])
    data = RecData(
        name="seen-taste",
        version="1",
        users=Vocabulary([str(i) for i in range(n_users)]),
        catalog=Catalog(items, [""] * n_items),
        interactions=Interactions.build(user, item, part=part),
        card=DataCard("made here", "none needed"),
    )
    split = protocol.make_split(data, FULL)
    centres = rng.normal(size=(n_groups, 16))
    pictures = centres[group] + 0.05 * rng.normal(size=(n_items, 16))
    own = [int(name) for name in split.catalog.items.ids]
    return Seen(split, pictures[own].astype(np.float32))


def fitted(
    cls: type[MultimodalRecommender],
    split: Split,
    modalities: dict[str, FloatArray],
    scratch: Path,
    **options: Any,  # noqa: ANN401 - of any model
) -> MultimodalRecommender:
    """Return a model fitted on the split."""
    model = cls(cls.Config(**options))
    model.fit(training(split, modalities, scratch), seed=0)
    return model


def training(split: Split, modalities: dict[str, FloatArray], scratch: Path) -> TrainingData:
    """Return what a model learns from."""
    return toy_training_data(split, scratch, config=FULL, modalities=modalities)
