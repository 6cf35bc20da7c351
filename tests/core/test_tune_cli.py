import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from mmrec_bench.config import read_yaml
from tests.core.test_cli import mmrec

ROOT = Path(__file__).parents[2]
PLUGIN = ROOT / "tests" / "core" / "searched.py"
DIAL = ["-m", "dial", "-d", "toy", "-o", "protocol.k_core=0", "-o", "protocol.candidates=full"]


def tune(results: Path, *more: str | Path) -> list[str | Path]:
    return ["-q", "--plugin", PLUGIN, "tune", *DIAL, "--results", results, *more]


def start(results: Path, log: Path, *more: str) -> subprocess.Popen[str]:
    options = ["--json", "-o", f"model.log={log}", "-o", "model.steps=4", "-o", "model.seconds=0.1"]
    return subprocess.Popen(
        [sys.executable, "-m", "mmrec_bench", *map(str, tune(results, *options, *more))],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def finish(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, err = process.communicate()
    assert process.returncode == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


def lines(log: Path) -> list[dict[str, Any]]:
    if not log.exists():
        return []
    return [json.loads(one) for one in log.read_text().splitlines() if one.endswith("}")]


def tried(found: dict[str, Any]) -> list[tuple[Any, Any, Any]]:
    return [(one["settings"], one["value"], one["state"]) for one in found["trials"]]


def test_the_best_settings_are_written_and_run(tmp_path: Path) -> None:
    config = tmp_path / "configs" / "dial.yaml"
    done = mmrec(*tune(tmp_path, "-n", "4", "--write", config))
    assert f"config: {config}" in done.stdout
    assert "4 trials, 30 validation cases, no test case; ndcg@10: higher is better" in done.stdout
    (record,) = json.loads(
        mmrec("-q", "--plugin", PLUGIN, "run", "--config", config, "--json", "--no-baselines",
              "--results", tmp_path).stdout
    )  # fmt: skip
    found = json.loads(mmrec(*tune(tmp_path, "-n", "4", "--json")).stdout)
    assert record["run_id"] == found["run_id"]
    assert record["spec"]["model"]["options"]["x"] == found["best"]["settings"]["model.x"]
    test_figure = f"{record['metrics']['ndcg@10']['value']:.4f}"
    assert test_figure not in config.read_text()
    again = mmrec(*tune(tmp_path, "-n", "4", "--write", config), check=2)
    assert "exists and is not overwritten" in again.stderr
    mmrec(*tune(tmp_path, "-n", "4", "--write", config, "--force"))


def test_without_a_path_the_configuration_lies_where_published_ones_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(tmp_path)
    mmrec(*tune(tmp_path, "-n", "1", "--write"))
    assert read_yaml(tmp_path / "configs" / "toy" / "dial.yaml")["model"]["x"] == 0.9


def test_what_would_be_searched_is_shown_without_a_trial(tmp_path: Path) -> None:
    space = tmp_path / "space.yaml"
    space.write_text("model: {size: 1..3}\n")
    text = mmrec(*tune(tmp_path, "--space", space, "-s", "model.word=a,b", "--dry-run")).stdout
    assert text.splitlines() == ["model.size: 1..3", "model.word: a,b", "model.x: 0..1"]
    text = mmrec(*tune(tmp_path, "-o", "model.x=0.2", "-s", "model.size=1,2", "--dry-run")).stdout
    assert text.splitlines() == ["model.size: 1,2"]
    assert not (tmp_path / "tuning").exists()


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (["-s", "model.y=1,2"], "unknown option model.y"),
        (["-s", "model.x=0..2"], "model.x: 2 cannot be tried: Input should be less than or equal"),
        (["-o", "model.x=1"], "declares only options that -o sets"),
        (["--metric", "ndgc@10"], "unknown metric 'ndgc'; did you mean 'ndcg'"),
        (["--space", "nowhere.yaml"], "cannot read configuration nowhere.yaml"),
    ],
)
def test_a_wrong_request_is_one_line(more: list[str], reason: str, tmp_path: Path) -> None:
    done = mmrec(*tune(tmp_path, *more), check=2)
    assert reason in done.stderr
    assert done.stderr.count("\n") == 1


def test_two_processes_share_the_trials_of_one_search(tmp_path: Path) -> None:
    log = tmp_path / "log"
    both = [start(tmp_path, log, "-n", "10") for _ in range(2)]
    first, second = (finish(one) for one in both)
    assert tried(first) == tried(second)
    assert len(first["trials"]) == 10
    assert {one["state"] for one in first["trials"]} == {"complete"}
    fits = [line for line in lines(log) if "fit" in line]
    assert Counter(line["x"] for line in fits) == Counter(
        one["settings"]["model.x"] for one in first["trials"] if one["same_as"] is None
    )
    assert len({line["pid"] for line in fits}) == 2


@pytest.mark.slow
def test_a_search_that_is_killed_ends_as_one_that_is_not(tmp_path: Path) -> None:
    whole = finish(start(tmp_path / "whole", tmp_path / "whole.log", "-n", "12"))
    rng = random.Random(0)
    log = tmp_path / "killed.log"
    n_kills = 0
    while True:
        process = start(tmp_path / "killed", log, "-n", "12")
        goal = len(lines(log)) + rng.randint(1, 50)
        while process.poll() is None and len(lines(log)) < goal:
            time.sleep(0.01)
        if process.poll() is not None:
            break
        time.sleep(rng.random() * 0.3)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        n_kills += 1
    killed = finish(process)
    print(f"{n_kills} kills")
    assert n_kills >= 4
    assert tried(killed) == tried(whole)
    steps = Counter((one["x"], one["step"]) for one in lines(log) if "step" in one)
    assert set(steps.values()) == {1}  # what a killed fit had done is not done again
    assert not list((tmp_path / "killed" / "tuning").glob("*/trials/*"))
