from pathlib import Path

import pytest

from mmrec_bench import planning, runner
from mmrec_bench.config import RunConfig, read_yaml
from mmrec_bench.plugins import installed
from mmrec_bench.sweeps import read_sweep

ALL = sorted((Path(__file__).parents[2] / "configs").rglob("*.yaml"))
SWEEPS = [path for path in ALL if path.parent.name == "sweeps"]
CONFIGS = [path for path in ALL if path not in SWEEPS]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_every_configuration_names_known_options(path: Path) -> None:
    config = RunConfig.parse(read_yaml(path))
    planning.check_config(config, installed())
    # A folder is named for the data set, or for the file that a general loader reads.
    assert path.parent.name in {config.dataset.name, config.dataset.options.get("label")}


@pytest.mark.parametrize("path", SWEEPS, ids=lambda p: p.stem)
def test_every_sweep_runs_the_configurations_of_its_folder(path: Path) -> None:
    rows = [one for one in CONFIGS if one.parent.name == path.stem]
    assert len(read_sweep(path)) == len(rows) > 0


def test_the_committed_sample_configuration_is_the_plain_command(tmp_path: Path) -> None:
    workspace = planning.Workspace(tmp_path, tmp_path / "none", "cpu")
    plain = RunConfig.parse({"model": "chatglm2-ptv2", "dataset": "amazon"})
    path = next(p for p in CONFIGS if p.stem == "chatglm2-ptv2" and p.parent.name == "amazon")
    specs = []
    for config in (plain, RunConfig.parse(read_yaml(path))):
        task = runner.prepare(config, workspace, installed())
        (planned,) = planning.plan(task, workspace, installed(), baselines=False)
        specs.append(planned.spec)
    assert specs[0] == specs[1]
