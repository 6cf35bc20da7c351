"""A run that is killed at any moment and started again ends with the same record."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

N_KILLS = 20
COMMAND = [
    sys.executable, "-m", "mmrec_bench", "-q", "run", "-m", "chatglm2-ptv2", "-d", "amazon",
    "--no-baselines", "--json", "--limit-cases", "200", "--device", "cpu",
    "-o", "dataset.sample_users=120", "-o", "dataset.sample_items=80",
    "-o", "model.backbone=chatglm2-micro", "-o", "model.max_steps=8", "-o", "model.batch_size=2",
    "-o", "model.evaluate_every=2", "-o", "model.validation_cases=8",
    "-o", "protocol.n_candidates=6", "-o", "instructions.history_length=3",
]  # fmt: skip
ENVIRONMENT = {"OMP_NUM_THREADS": "1"}


def start(results: Path, data: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*COMMAND, "--results", str(results), "--data-root", str(data)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **ENVIRONMENT},
    )


def finish(results: Path, data: Path) -> dict[str, object]:
    process = start(results, data)
    out, err = process.communicate()
    assert process.returncode == 0, err.decode()
    (record,) = json.loads(out)
    assert isinstance(record, dict)
    return record


def stage(results: Path) -> str:
    """Say how far the run had come, from what lies on disk."""
    run = next(iter((results / "runs").glob("*")), None)
    if run is None:
        return "start"
    if list((run / "predictions").glob("part-*.npz")):
        return "scoring"
    if (run / "model" / "fit.json").exists():
        return "fitted"
    return "fitting" if (run / "scratch").exists() else "start"


def adapter(results: Path) -> bytes:
    (path,) = (results / "runs").glob("*/model/*.safetensors")
    return path.read_bytes()


def test_twenty_killed_runs_end_with_the_record_of_one_that_was_not(tmp_path: Path) -> None:
    data = tmp_path / "no-data"
    finish(tmp_path / "warm", data)  # writes the sample, compiles bytecode
    began = time.monotonic()
    expected = finish(tmp_path / "whole", data)
    whole_seconds = time.monotonic() - began
    rng = random.Random(0)
    stages: list[str] = []
    wanted, folders = {"fitting", "scoring"}, 0
    # On a machine whose load changes, the chosen moments may all fall into one stage: then go on.
    while len(stages) < N_KILLS or (not wanted <= set(stages) and len(stages) < 4 * N_KILLS):
        results = tmp_path / f"killed-{folders}"
        folders += 1
        for _ in range(3):  # several deaths of one run
            process = start(results, data)
            try:
                process.communicate(timeout=whole_seconds * rng.uniform(0.1, 1.0))
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                stages.append(stage(results))
        record = finish(results, data)
        assert record["digest"] == expected["digest"]
        assert record["run_id"] == expected["run_id"]
        assert adapter(results) == adapter(tmp_path / "whole")
        assert not list(results.rglob("*.tmp"))
    print(f"{len(stages)} kills: {sorted(stages)}")
    assert wanted <= set(stages)


def records(processes: list[subprocess.Popen[bytes]]) -> list[dict[str, object]]:
    """Let the runs end, which must go well, and return their records."""
    outputs = [process.communicate() for process in processes]
    for process, (_, err) in zip(processes, outputs, strict=True):
        assert process.returncode == 0, err.decode()
    return [json.loads(out)[0] for out, _ in outputs]


def test_two_runs_of_one_command_at_once_do_not_harm_each_other(tmp_path: Path) -> None:
    data, results = tmp_path / "no-data", tmp_path / "results"
    first, second = records([start(results, data), start(results, data)])
    assert first["digest"] == second["digest"]
    assert not list(results.rglob("*.tmp"))


def test_a_second_run_of_one_command_waits_for_the_first_and_says_so(tmp_path: Path) -> None:
    data, results = tmp_path / "no-data", tmp_path / "results"
    holder = start(results, data)
    while stage(results) == "start":
        assert holder.poll() is None
        time.sleep(0.01)
    holder.send_signal(signal.SIGSTOP)  # it stays in its run until the other has met it there
    try:
        waiting = start(results, data)
        assert waiting.stderr is not None
        said = next(line for line in waiting.stderr if b"waiting for it" in line)
    finally:
        holder.send_signal(signal.SIGCONT)
    first, second = records([holder, waiting])
    assert f"process {holder.pid}" in said.decode()
    assert first["digest"] == second["digest"]
