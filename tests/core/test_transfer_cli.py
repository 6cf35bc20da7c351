"""Transfer and the memorisation probe from the command line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mmrec_bench.cli.run import transfer_overrides
from mmrec_bench.config import RunConfig
from mmrec_bench.errors import ConfigError
from tests.core.test_cli import mmrec

SAMPLE = ["-d", "amazon", "-o", "dataset.sample_users=120", "-o", "dataset.sample_items=80",
          "-o", "protocol.n_candidates=6", "--device", "cpu"]  # fmt: skip
MICRO = ["-o", "model.backbone=chatglm2-micro", "-o", "instructions.history_length=3"]
SOURCE = ["--transfer", "dataset:amazon:sample_seed=1,sample_users=100,sample_items=80"]


def test_the_short_forms_are_those_of_the_long_ones() -> None:
    short = transfer_overrides(("users", "dataset:amazon:category=All_Beauty,strict=true"), 3)
    config = RunConfig.parse({"model": "random", "dataset": "sequences"}, short)
    assert config.transfer is not None
    assert (config.transfer.hold_out, config.transfer.shots) == ("users", 3)
    assert config.transfer.source is not None
    assert config.transfer.source.name == "amazon"
    assert config.transfer.source.options == {"category": "All_Beauty", "strict": True}
    assert transfer_overrides((), None) == []


@pytest.mark.parametrize("text", ["user", "dataset", "dataset:", "amazon", "dataset:amazon:beauty"])
def test_a_transfer_that_is_none_says_what_there_is(text: str) -> None:
    with pytest.raises(ConfigError, match="none of users, items, both and dataset:NAME"):
        transfer_overrides((text,), None)


def test_shots_alone_are_refused_in_one_line(tmp_path: Path) -> None:
    done = mmrec("-q", "run", "-m", "random", *SAMPLE, "--shots", "2", "--data-root", tmp_path,
                 check=2)  # fmt: skip
    assert "name a source data set, or hold out users, items or both" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_baseline_that_cannot_transfer_is_left_out_with_one_line(tmp_path: Path) -> None:
    done = mmrec("run", "-m", "lm-zero-shot", *SAMPLE, *MICRO, *SOURCE, "--shots", "2",
                 "--data-root", tmp_path, "--results", tmp_path / "r", "--dry-run", "--json",
                 )  # fmt: skip
    specs = json.loads(done.stdout)
    assert [spec["model"]["name"] for spec in specs] == ["random", "lm-zero-shot"]
    assert done.stderr.count("baseline popularity is left out") == 1
    assert specs[0]["transfer"] == specs[1]["transfer"]
    assert specs[0]["transfer"]["source"]["name"] == "amazon-sample"


@pytest.mark.slow
def test_a_probed_run_tells_what_the_backbone_remembers(tmp_path: Path) -> None:
    arguments: list[str | Path] = [
        "-q", "run", "-m", "lm-zero-shot", *SAMPLE, *MICRO, "--json", "--no-baselines",
        "--limit-cases", "5", "-o", "model.probe_items=10", "--data-root", tmp_path,
        "--results", tmp_path / "r",
    ]  # fmt: skip
    (before,) = json.loads(mmrec(*arguments).stdout)
    (probed,) = json.loads(mmrec(*arguments, "--probe-memory").stdout)
    (after,) = json.loads(mmrec(*arguments).stdout)
    assert "memory_title_n" not in before["facts"]
    assert probed["facts"]["memory_title_n"] == 10
    assert probed["facts"]["memory_title_chance"] == 0.05
    assert after["facts"] == probed["facts"]
    assert before["run_id"] == probed["run_id"]
    assert before["digest"] == probed["digest"]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("how", [SOURCE, ["--transfer", "both", "-o", "transfer.share=0.5"]])
def test_a_killed_transfer_ends_with_the_record_of_one_that_was_not(
    how: list[str], tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "mmrec_bench", "-q", "run", "-m", "chatglm2-ptv2", *SAMPLE,
               *MICRO, *how, "--shots", "2", "--no-baselines", "--json", "-o", "model.max_steps=6",
               "-o", "model.batch_size=2", "-o", "model.evaluate_every=2",
               "-o", "model.validation_cases=8", "--data-root", str(tmp_path / "none")]  # fmt: skip

    def start(results: Path) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*command, "--results", str(results)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    def finish(results: Path) -> dict[str, object]:
        process = start(results)
        out, err = process.communicate()
        assert process.returncode == 0, err.decode()
        (record,) = json.loads(out)
        assert isinstance(record, dict)
        return record

    def stage(results: Path) -> str:
        run = next(iter((results / "runs").glob("*")), None)
        if run is not None and list((run / "predictions").glob("part-*.npz")):
            return "scoring"
        return "fitting" if run is None or not (run / "model").exists() else "fitted"

    whole = finish(tmp_path / "whole")
    killed = []
    for wanted in ("fitting", "fitted"):
        process = start(tmp_path / "killed")
        while process.poll() is None:
            try:
                process.communicate(timeout=0.05)
            except subprocess.TimeoutExpired:
                run = next(iter((tmp_path / "killed" / "runs").glob("*")), None)
                begun = run is not None and (run / "scratch").exists()
                if stage(tmp_path / "killed") == "fitted" or (wanted == "fitting" and begun):
                    process.kill()
        killed.append(stage(tmp_path / "killed"))
    record = finish(tmp_path / "killed")
    assert record["digest"] == whole["digest"]
    assert record["run_id"] == whole["run_id"]
    assert "fitting" in killed
    spec = record["spec"]
    assert isinstance(spec, dict)
    assert spec["transfer"]["shots"] == 2
