"""What a data set gave, checked where it comes in, so that the inside can trust it."""

from collections.abc import Mapping

import numpy as np

from mmrec_bench.errors import PluginError
from mmrec_bench.types import Catalog, DataCard, Interactions, RecData, Vocabulary

_PARTS = {
    "users": Vocabulary,
    "catalog": Catalog,
    "interactions": Interactions,
    "card": DataCard,
    "version": str,
}


def check_loaded(data: object, whose: str) -> RecData:
    """Return what a data set loaded.

    Args:
        data: what `load` returned.
        whose: e.g. "dataset 'amazon' of mmrec-bench".

    Raises:
        PluginError: it is no RecData, one of its parts is of another type, an interaction names a
            user or item that is not there, or a count is no int.
    """
    if not isinstance(data, RecData):
        raise PluginError(f"{whose} loaded {type(data).__name__}, expected RecData")
    for name, kind in _PARTS.items():
        part = getattr(data, name)
        if not isinstance(part, kind):
            found = type(part).__name__
            raise PluginError(f"{whose} loaded {name} of type {found}, expected {kind.__name__}")
    for name, n in (("user", len(data.users)), ("item", len(data.catalog))):
        column = np.asarray(getattr(data.interactions, name))
        if len(column) and not (column.min() >= 0 and column.max() < n):
            raise PluginError(
                f"{whose} loaded interactions with {name} numbers {column.min()} to "
                f"{column.max()}, expected 0 to {n - 1}"
            )
    counts = data.card.counts
    for name, count in counts.items() if isinstance(counts, Mapping) else [("counts", counts)]:
        if type(count) is not int:
            raise PluginError(
                f"{whose} has a card with {name} = {count!r} of type {type(count).__name__}, "
                "expected an int: write int(...)"
            )
    return data
