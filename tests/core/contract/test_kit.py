"""The test classes for plugin authors find what `check-plugin` finds."""

import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import Field

from mmrec_bench.config import ComponentConfig
from mmrec_bench.contract import metrics
from mmrec_bench.contract.findings import BrokenContractError
from mmrec_bench.testing import MetricTests

SOURCE = """
import numpy as np
from mmrec_bench.config import ComponentConfig
from mmrec_bench.testing import RecommenderTests
from mmrec_bench.types import Scores

class Flattens:
    reads_instructions = False
    class Config(ComponentConfig): pass
    def fit(self, data, *, seed):
        data.interactions.rating[:] = 3
        self.scores = data.item_counts().astype(np.float32)
    def score(self, queries):
        rows = np.tile(self.scores, (len(queries), 1))
        wanted = queries.candidates
        return Scores(rows if wanted is None else np.take_along_axis(rows, wanted, axis=1))
    def save(self, folder): np.save(folder / "s.npy", self.scores)
    def restore(self, folder, data): self.scores = np.load(folder / "s.npy", allow_pickle=False)

class TestFlattens(RecommenderTests):
    def make(self): return Flattens()
"""


def test_a_fit_that_writes_the_same_into_its_data_each_time_is_found(tmp_path: Path) -> None:
    (tmp_path / "test_flattens.py").write_text(SOURCE)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "."],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert "1 failed" in done.stdout, done.stdout
    assert "expected data.interactions.rating as it was" in done.stdout


class Misnamed:
    higher_is_better = True
    name = "half@5"

    class Config(ComponentConfig):
        k: int = Field(5, description="the cutoff")

    def __init__(self, config: Config) -> None:
        self.config = config


def test_a_metric_whose_name_has_another_cutoff_than_its_options_is_found() -> None:
    tests = MetricTests()
    tests.make = lambda: Misnamed(Misnamed.Config(k=3))  # type: ignore[assignment,return-value]
    subject = MetricTests.subject.__wrapped__(tests)  # type: ignore[attr-defined]
    with pytest.raises(BrokenContractError, match="expected 'half@3'"):
        metrics.check_says(subject)
