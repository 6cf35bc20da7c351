"""What follows the order of a set is the same in one process and differs between two."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

HASHED = """
from pathlib import Path
import numpy as np
from pydantic import Field
from mmrec_bench.config import ComponentConfig
from mmrec_bench.contract import toys
from mmrec_bench.errors import DataMissingError
from mmrec_bench.hookspecs import hookimpl
from mmrec_bench.registry import Entry
from mmrec_bench.types import Instruction, Measurement, Message, Scores, Text

WORDS = ORDER({"mug", "lamp", "scarf", "clock", "chair", "vase", "rug", "bowl"})

class Model:
    reads_instructions = False
    class Config(ComponentConfig): pass
    def __init__(self, config): pass
    def fit(self, data, *, seed):
        titles = ORDER(set(data.catalog.title))
        self.place = np.array([titles.index(one) for one in data.catalog.title], np.float32)
    def score(self, queries):
        rows = np.tile(self.place, (len(queries), 1))
        wanted = queries.candidates
        return Scores(rows if wanted is None else np.take_along_axis(rows, wanted, axis=1))
    def save(self, folder): np.save(folder / "place.npy", self.place)
    def restore(self, folder, data): self.place = np.load(folder / "place.npy")

class Data:
    class Config(ComponentConfig): pass
    def __init__(self, config): pass
    def load(self, root):
        if not (Path(root) / "toy.txt").exists():
            raise DataMissingError(f"no {Path(root) / 'toy.txt'}")
        data = toys.toy_data()
        object.__setattr__(data, "version", " ".join(WORDS))
        return data

class Builder:
    class Config(ComponentConfig): pass
    def __init__(self, config): pass
    def build(self, query, catalog):
        labels = tuple(f"<{i}>" for i in range(len(query.candidates)))
        titles = tuple(catalog.title[i] for i in query.candidates)
        asked = "|".join([*WORDS, *titles])
        return Instruction((Message("user", (Text(asked),)),), labels, titles)
    def parse(self, text, instruction):
        names = [*instruction.labels, *instruction.answers]
        found = [names.index(line) for line in text.splitlines() if line in names]
        return list(dict.fromkeys(i % len(instruction.labels) for i in found))

class Encoder:
    class Config(ComponentConfig): pass
    encodes = "item"
    def __init__(self, config): pass
    def encode(self, items):
        return np.array([[len(one.title)] for one in items], np.float32)
    def fingerprint(self): return " ".join(WORDS)

class Metric:
    class Config(ComponentConfig): pass
    higher_is_better = True
    name = "hashed"
    def __init__(self, config): pass
    def measure(self, outcomes):
        value = sum(place * ord(word[0]) for place, word in enumerate(WORDS))
        return Measurement.mean(np.full(len(outcomes.ranks), float(value)))

class Options(Model):
    class Config(ComponentConfig):
        words: frozenset[str] = Field(frozenset(WORDS), description="what is looked for")
    def fit(self, data, *, seed): self.place = np.arange(data.n_items, dtype=np.float32)

class Needy(Options):
    class Config(ComponentConfig): pass
    def fit(self, data, *, seed):
        if str(data.scratch.parts).count("process-"):
            raise RuntimeError("not at home")
        super().fit(data, seed=seed)

class Slow(Options):
    class Config(ComponentConfig): pass
    def fit(self, data, *, seed):
        if str(data.scratch.parts).count("process-"):
            import os, time
            (Path(__file__).parent / f"{os.getpid()}.pid").touch()
            time.sleep(600)
        super().fit(data, seed=seed)

@hookimpl
def mmrec_register_models():
    return [
        Entry("hashed", "hashed_plugin:Model", "by the order of a set"),
        Entry("hashed-options", "hashed_plugin:Options", "options in the order of a set"),
        Entry("hashed-needy", "hashed_plugin:Needy", "raises in another process"),
        Entry("hashed-slow", "hashed_plugin:Slow", "takes long in another process"),
    ]

@hookimpl
def mmrec_register_datasets(): return [Entry("hashed", "hashed_plugin:Data", "")]

@hookimpl
def mmrec_register_instructions(): return [Entry("hashed", "hashed_plugin:Builder", "")]

@hookimpl
def mmrec_register_encoders(): return [Entry("hashed", "hashed_plugin:Encoder", "")]

@hookimpl
def mmrec_register_metrics(): return [Entry("hashed", "hashed_plugin:Metric", "")]
"""
SAID = {
    "model": "scores",
    "dataset": "version",
    "instructions": "instructions",
    "encoder": "fingerprint",
    "metric": "value",
}


def check_plugin(folder: Path, name: str, order: str) -> dict[str, dict[str, Any]]:
    """Return the results of each kind's checks, by kind and check."""
    path = folder / "hashed_plugin.py"
    path.write_text(HASHED.replace("ORDER", order))
    (folder / "toy.txt").write_text("data")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "mmrec_bench", "check-plugin", name, "--json"),
            *("--plugin", str(path), "--data-root", str(folder)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    reports = json.loads(done.stdout)
    return {one["kind"]: {found["check"]: found for found in one["checks"]} for one in reports}


def test_each_kind_that_follows_the_order_of_a_set_is_found(tmp_path: Path) -> None:
    reports = check_plugin(tmp_path, "hashed", "list")
    assert set(reports) == set(SAID)
    for kind, said in SAID.items():
        failed = {name for name, one in reports[kind].items() if one["outcome"] == "failed"}
        assert failed == {"processes"}, kind
        assert reports[kind]["processes"]["expected"] == f"the same {said} in every process"


def test_what_is_sorted_is_the_same_in_every_process(tmp_path: Path) -> None:
    for kind, checks in check_plugin(tmp_path, "hashed", "sorted").items():
        assert not [one for one in checks.values() if one["outcome"] == "failed"], kind
        assert checks["processes"]["outcome"] == "ok"


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("hashed-options", "in one process"),
        ("hashed-needy", "it raised: RuntimeError: not at home"),
    ],
)
def test_options_and_exceptions_of_another_process_are_told(
    name: str, found: str, tmp_path: Path
) -> None:
    checks = check_plugin(tmp_path, name, "list")["model"]
    assert checks["processes"]["outcome"] == "failed"
    assert found in checks["processes"]["found"]


def test_where_the_command_is_ended_its_processes_end_too(tmp_path: Path) -> None:
    path = tmp_path / "hashed_plugin.py"
    path.write_text(HASHED.replace("ORDER", "sorted"))
    asked = ("check-plugin", "hashed-slow", "--plugin", str(path))
    command = subprocess.Popen(
        [sys.executable, "-m", "mmrec_bench", *asked], stdout=subprocess.DEVNULL
    )
    wait_for(lambda: len(list(tmp_path.glob("*.pid"))) == 2)
    command.terminate()
    assert command.wait() == 128 + signal.SIGTERM
    pids = [int(file.stem) for file in tmp_path.glob("*.pid")]
    wait_for(lambda: all(map(has_ended, pids)))


def wait_for(fulfilled: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not fulfilled():
        assert time.monotonic() < until
        time.sleep(0.05)


def has_ended(pid: int) -> bool:
    """Say whether a process is gone, or waits to be taken away by whoever inherited it."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return True
    return status.rpartition(") ")[2].startswith("Z")
