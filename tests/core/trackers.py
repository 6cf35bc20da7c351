"""A one-file plugin: a model that tells how it fits, and trackers that do what they should not."""

# ruff: noqa: ARG002, NPY002 - most hear nothing; global streams are what they meddle with

import json
import os
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from mmrec_bench.config import ComponentConfig
from mmrec_bench.hookspecs import hookimpl
from mmrec_bench.interfaces import TrainingData
from mmrec_bench.progress import progress
from mmrec_bench.registry import Entry
from mmrec_bench.types import Queries, Scores


class Talker:
    """Draws its scores from numpy's and Python's global streams, and tells a loss on the way."""

    reads_instructions = False

    class Config(ComponentConfig):
        fails: bool = Field(False, description="raise in the middle of fit")

    def __init__(self, config: Config) -> None:
        self.config = config

    def fit(self, data: TrainingData, *, seed: int) -> None:
        np.random.seed(seed)
        random.seed(seed)
        self.weights = np.zeros(data.n_items)
        with progress("learning", total=5, unit="epochs") as bar:
            for epoch in range(5):
                self.weights += np.random.rand(data.n_items) + random.random()
                bar.advance(1, loss=1 / (epoch + 1), note="words are not told")
                bar.advance(0)
                if self.config.fails:
                    raise ValueError("no more data")

    def score(self, queries: Queries) -> Scores:
        shown = queries.candidates
        assert shown is not None
        return Scores(np.where(shown < 0, np.nan, self.weights[shown]).astype(np.float32))

    def save(self, folder: Path) -> None:
        np.save(folder / "weights.npy", self.weights)

    def restore(self, folder: Path, data: TrainingData) -> None:
        self.weights = np.load(folder / "weights.npy")


class Diary:
    """Writes down what it hears."""

    class Config(ComponentConfig):
        target: Path = Field(Path("diary.jsonl"), description="file")

    def __init__(self, config: Config) -> None:
        self.path = config.target

    def note(self, *what: object) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(what) + "\n")

    def run_started(self, run_id: str, spec: dict[str, Any]) -> None:
        self.note("started", run_id, spec)

    def run_progressed(self, run_id: str, title: str, step: int, values: dict[str, float]) -> None:
        self.note("progressed", run_id, title, step, values)

    def run_finished(self, run_id: str, record: dict[str, Any]) -> None:
        self.note("finished", run_id, record)

    def run_failed(self, run_id: str, reason: str) -> None:
        self.note("failed", run_id, reason)


class Raising(Diary):
    def run_progressed(self, run_id: str, title: str, step: int, values: dict[str, float]) -> None:
        super().run_progressed(run_id, title, step, values)
        raise RuntimeError("the server is gone")


class Dying(Diary):
    def run_started(self, run_id: str, spec: dict[str, Any]) -> None:
        print("a word before the end")
        os._exit(3)


class Meddling(Diary):
    def run_started(self, run_id: str, spec: dict[str, Any]) -> None:
        spec.clear()

    def run_progressed(self, run_id: str, title: str, step: int, values: dict[str, float]) -> None:
        values["loss"] = -1.0
        np.random.seed(0)
        random.seed(0)
        os.environ["OMP_NUM_THREADS"] = "7"
        np.random.rand = np.zeros  # type: ignore[assignment]

    def run_finished(self, run_id: str, record: dict[str, Any]) -> None:
        record["metrics"].clear()


class Slow(Diary):
    def run_progressed(self, run_id: str, title: str, step: int, values: dict[str, float]) -> None:
        time.sleep(60)


class Unbuildable(Diary):
    def __init__(self, _: Diary.Config) -> None:
        raise OSError("no such server")


class Halved:
    class Config(ComponentConfig): ...

    def __init__(self, config: Config) -> None: ...

    def run_started(self, run_id: str, spec: dict[str, Any]) -> None: ...


@hookimpl
def mmrec_register_models() -> list[Entry]:
    return [Entry("talker", "trackers:Talker", "tells how it fits")]


@hookimpl
def mmrec_register_trackers() -> list[Entry]:
    return [
        *(
            Entry(name.lower(), f"trackers:{name}", "for tests")
            for name in ("Diary", "Raising", "Dying", "Meddling", "Slow", "Unbuildable", "Halved")
        ),
        Entry("homeless", "no_such_package:Tracker", "for tests", extra="mmrec-bench[homeless]"),
    ]
