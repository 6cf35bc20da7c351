"""What a data set may not load."""

from dataclasses import replace

import numpy as np
import pytest

from mmrec_bench.errors import PluginError
from mmrec_bench.loaded import check_loaded
from mmrec_bench.testing import toy_data
from mmrec_bench.types import DataCard, RecData

GOOD = toy_data()
BEYOND = replace(GOOD.interactions, item=GOOD.interactions.item + np.int32(1))


def with_counts(**counts: int) -> RecData:
    return replace(GOOD, card=DataCard("here", "none", counts))


def test_what_is_whole_is_taken() -> None:
    assert check_loaded(GOOD, "dataset 'd' of dist") is GOOD


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (None, "loaded NoneType, expected RecData"),
        (replace(GOOD, card=None), "loaded card of type NoneType, expected DataCard"),  # type: ignore[arg-type]
        (replace(GOOD, users=["a"]), "loaded users of type list, expected Vocabulary"),  # type: ignore[arg-type]
        (replace(GOOD, interactions=BEYOND), "item numbers 1 to 24, expected 0 to 23"),
        (with_counts(kept=np.int64(3)), "kept = .*int64.*write int"),  # type: ignore[arg-type]
    ],
)
def test_what_is_not_is_refused_by_name(data: object, reason: str) -> None:
    with pytest.raises(PluginError, match=f"dataset 'd' of dist .*{reason}"):
        check_loaded(data, "dataset 'd' of dist")
