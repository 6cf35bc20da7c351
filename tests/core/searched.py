"""A data set and a model for tests of the search: cheap, and they write down what happens."""

import json
import os
import time
from collections.abc import Iterable
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from mmrec_bench.config import ComponentConfig, operational, searched
from mmrec_bench.errors import ModelError
from mmrec_bench.hookspecs import hookimpl
from mmrec_bench.interfaces import TrainingData
from mmrec_bench.plugins import Found, Plugins, find_entry_points, load
from mmrec_bench.registry import Entry
from mmrec_bench.testing import toy_data
from mmrec_bench.types import Interactions, Measurement, Outcomes, Queries, RecData, Scores


class Toy:
    """The toy data; `other_tests` gives each user another last item, which is the test's."""

    class Config(ComponentConfig):
        other_tests: bool = Field(default=False, description="other targets in test")

    def __init__(self, config: Config) -> None:
        self.config = config

    def load(self, root: Path) -> RecData:
        del root
        data = toy_data()
        if not self.config.other_tests:
            return data
        rows, item = data.interactions, data.interactions.item.copy()
        for user in range(len(data.users)):
            (own,) = np.nonzero(rows.user == user)
            item[own[-1]] = next(i for i in range(24) if i not in rows.item[own])
        changed = Interactions(rows.user, item, rows.timestamp, rows.rating)
        return replace(data, interactions=changed, version=f"{data.version}-other")


class OutOfMemoryError(RuntimeError):
    """As torch's."""


class Dial:
    """Items of the materials in the history, with noise; there is least of it at x = 0.3."""

    reads_instructions = False

    class Config(ComponentConfig):
        x: float = searched(0.9, low=0.0, high=1.0, ge=0, le=1, description="the dial")
        size: int = Field(8, ge=1, description="changes nothing")
        word: Literal["a", "b", "as-a"] = Field("a", description="as-a resolves to a")
        fails: Literal["no", "model", "memory", "device", "bug", "value", "nan"] = Field(
            "no", description="how a fit with x > 0.5 ends"
        )
        seeds_matter: bool = Field(default=False, description="other noise for each seed")
        steps: int = Field(0, description="checkpoints that a fit writes")
        seconds: float = operational(0.0, description="that a step takes")
        log: Path | None = operational(None, description="where all is written down")

    def __init__(self, config: Config) -> None:
        self.config = config

    @classmethod
    def resolve(cls, config: Config, *, device: str) -> tuple[ComponentConfig, list[str]]:
        del device
        word = {"as-a": "a"}.get(config.word, config.word)
        return config.model_copy(update={"word": word}), []

    def write(self, **facts: object) -> None:
        if self.config.log is not None:
            with self.config.log.open("a") as file:
                file.write(json.dumps({"x": self.config.x, "pid": os.getpid(), **facts}) + "\n")

    def fit(self, data: TrainingData, *, seed: int) -> None:
        self.write(fit=seed)
        if self.config.x > 0.5:
            self.fail()
        for step in range(self.config.steps):
            if not (data.scratch / str(step)).exists():
                time.sleep(self.config.seconds)
                (data.scratch / str(step)).write_text("done")
                self.write(step=step)
        noise = np.random.default_rng(seed if self.config.seeds_matter else 0)
        self.noise = noise.random((data.n_users, data.n_items)) * 3 * abs(self.config.x - 0.3)
        self.data = data

    def fail(self) -> None:
        if self.config.fails == "model":
            raise ModelError("the loss is no number")
        if self.config.fails == "memory":
            raise MemoryError
        if self.config.fails == "device":
            raise OutOfMemoryError("no memory left on the device")
        if self.config.fails == "bug":
            raise TypeError("a bug")
        if self.config.fails == "value":
            raise ValueError("x is too large")

    def score(self, queries: Queries) -> Scores:
        for query in queries:
            history = [self.data.catalog.items[i] for i in query.history.tolist()]
            self.write(user=self.data.users[query.user], history=history)
        materials = [item.attributes["material"] for item in self.data.catalog]
        alike = np.array([[a == b for a in materials] for b in materials], np.float32)
        taken = np.zeros((len(queries), len(materials)), np.float32)
        np.add.at(taken, (queries.history.row_ids, queries.history.values), 1)
        taken /= np.maximum(1, taken.sum(axis=1, keepdims=True))
        scores = (taken @ alike + self.noise[queries.user]).astype(np.float32)
        if self.config.fails == "nan":
            scores = scores * np.nan
        if queries.candidates is not None:
            scores = np.take_along_axis(scores, queries.candidates, axis=1)
        return Scores(scores)

    def save(self, folder: Path) -> None:
        (folder / "noise.json").write_text(json.dumps(self.noise.tolist()))

    def restore(self, folder: Path, data: TrainingData) -> None:
        self.data = data
        self.noise = np.array(json.loads((folder / "noise.json").read_text()))


class Worst:
    """The expected place of the target among the candidates; lower is better."""

    higher_is_better = False

    class Config(ComponentConfig):
        """No options."""

    def __init__(self, config: Config) -> None:
        del config
        self.name = "place"

    def measure(self, outcomes: Outcomes) -> Measurement:
        ranks = outcomes.ranks
        return Measurement.mean(ranks.n_better + ranks.n_tied / 2)


class Slips:
    """A metric with a fault."""

    higher_is_better = True

    class Config(ComponentConfig):
        """No options."""

    def __init__(self, config: Config) -> None:
        del config
        self.name = "slips"

    def measure(self, outcomes: Outcomes) -> Measurement:
        return Measurement.mean(outcomes.ranks.no_such_column)  # type: ignore[attr-defined]


@hookimpl
def mmrec_register_datasets() -> Iterable[Entry]:
    return [Entry("toy", "tests.core.searched:Toy", "toy")]


@hookimpl
def mmrec_register_models() -> Iterable[Entry]:
    return [Entry("dial", "tests.core.searched:Dial", "dial")]


@hookimpl
def mmrec_register_metrics() -> Iterable[Entry]:
    return [
        Entry("place", "tests.core.searched:Worst", "place"),
        Entry("slips", "tests.core.searched:Slips", "slips"),
    ]


def plugins() -> Plugins:
    """Return the installed plugins with the two of this file."""
    point = EntryPoint("searched", "tests.core.searched", "mmrec_bench")
    return load([*find_entry_points(), Found(point, "searched", "1.0")])
