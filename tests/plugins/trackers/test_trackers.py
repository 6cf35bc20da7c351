import importlib
import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest

from mmrec_bench.errors import ConfigError
from mmrec_bench.plugins import installed
from mmrec_bench.tracker_process import Audience
from mmrec_plugins.trackers.flat import metrics, parameters

RUN = "popularity-s0-0123456789"
SPEC: dict[str, Any] = {
    "dataset": {"name": "toy", "version": "abc"},
    "model": {"name": "popularity", "options": {"k": 3, "words": "w" * 700, "flags": [1, 2]}},
    "seed": 0,
    "encoder": None,
}
RECORD: dict[str, Any] = {
    "run_id": RUN,
    "spec": SPEC,
    "metrics": {
        "ndcg@10": {"value": 0.25, "low": 0.2, "high": 0.3},
        "auc": {"value": None, "low": None, "high": None},
    },
    "resources": {"fit_seconds": 1.5, "prompt_tokens": None},
}


def tell(audience: Audience, *steps: tuple[int, float], ends: bool = True) -> None:
    """Tell a run with losses at steps; `ends=False` = its process is killed."""
    audience.hear({"event": "run_started", "run_id": RUN, "spec": SPEC})
    for step, loss in steps:
        values = {"loss": loss, "ndcg@10": math.nan}
        audience.hear(
            {"event": "run_progressed", "run_id": RUN, "title": "training x", "step": step,
             "values": values}
        )  # fmt: skip
    if ends:
        audience.hear({"event": "run_finished", "run_id": RUN, "record": RECORD})
    else:
        audience.close()


def test_what_is_not_set_or_not_defined_is_left_out() -> None:
    assert parameters(SPEC) == {
        "dataset.name": "toy",
        "dataset.version": "abc",
        "model.name": "popularity",
        "model.options.k": 3,
        "model.options.words": "w" * 700,
        "model.options.flags": "[1, 2]",
        "seed": 0,
    }
    assert metrics(RECORD) == {
        "ndcg@10": 0.25,
        "ndcg@10_low": 0.2,
        "ndcg@10_high": 0.3,
        "fit_seconds": 1.5,
    }


def test_tensorboard_goes_on_in_the_same_folder_and_takes_back_what_is_done_again(
    tmp_path: Path,
) -> None:
    pytest.importorskip("tensorboard", reason="pip install 'mmrec-bench[tensorboard]'")
    events = importlib.import_module("tensorboard.backend.event_processing.event_accumulator")
    tell(
        Audience("tensorboard", str(tmp_path), installed()), (1, 0.9), (2, 0.8), (3, 9), ends=False
    )
    tell(Audience("tensorboard", str(tmp_path), installed()), (3, 0.7), (4, 0.6))
    assert [path.name for path in tmp_path.iterdir()] == [RUN]
    found = events.EventAccumulator(str(tmp_path / RUN))
    found.Reload()
    curve = [(one.step, round(one.value, 4)) for one in found.Scalars("training x/loss")]
    assert curve == [(1, 0.9), (2, 0.8), (3, 0.7), (4, 0.6)]
    assert found.Scalars("metrics/ndcg@10")[-1].value == 0.25
    assert "metrics/auc" not in found.Tags()["scalars"]
    texts = [one.tensor_proto.string_val[0] for one in found.Tensors("spec")]
    assert json.loads(texts[-1].decode().strip("`\n")) == SPEC
    assert found.Tensors("failed")[0].tensor_proto.string_val[0] == b"its process was killed"
    assert found.summary_metadata["_hparams_/session_start_info"]


def test_mlflow_goes_on_in_the_same_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason="pip install 'mmrec-bench[mlflow]'")
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "")  # put back at the end
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE")
    uri = (tmp_path / "mlruns").as_uri()
    tell(Audience("mlflow", uri, installed()), (1, 0.9), (2, 0.8), ends=False)
    client = mlflow.MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("mmrec-bench").experiment_id
    (killed,) = client.search_runs([experiment])
    assert killed.info.status == "FAILED"
    assert killed.data.tags["failed"] == "its process was killed"
    tell(Audience("mlflow", uri, installed()), (3, 0.7))
    (run,) = client.search_runs([experiment])
    assert (run.info.status, run.info.run_name) == ("FINISHED", RUN)
    assert run.data.tags["mmrec_bench.run_id"] == RUN
    assert run.data.tags["dataset"] == "toy"
    assert run.data.params["model.options.k"] == "3"
    assert run.data.params["model.options.words"] == "w" * 500
    assert run.data.metrics["ndcg_at_10"] == 0.25
    history = client.get_metric_history(run.info.run_id, "training x/loss")
    assert [(one.step, one.value) for one in history] == [(1, 0.9), (2, 0.8), (3, 0.7)]
    path = client.download_artifacts(run.info.run_id, "record.json", str(tmp_path))
    assert json.loads(Path(path).read_text()) == RECORD


def test_a_database_without_its_packages_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow", reason="pip install 'mmrec-bench[mlflow]'")
    for name in [one for one in sys.modules if one.partition(".")[0] == "sqlalchemy"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    with pytest.raises(ConfigError, match=r"needs the package sqlalchemy.*pip install mlflow"):
        Audience("mlflow", f"sqlite:///{tmp_path / 'mlflow.db'}", installed())
