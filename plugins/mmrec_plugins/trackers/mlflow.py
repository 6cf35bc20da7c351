"""MLflow: parameters, curves and records as runs of an experiment, through the small client."""

import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from pydantic import Field

# MLflow reports its use to its makers unless it is told not to, before it is imported.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from mmrec_bench.config import ComponentConfig
from mmrec_bench.errors import ConfigError
from mmrec_plugins.trackers.flat import metrics, parameters

_EXPERIMENT = "mmrec-bench"
_TAG = "mmrec_bench.run_id"
_LONGEST_KEY = 250
_LONGEST_VALUE = 500
"""Characters of a parameter's value that every version of a server takes; later ones take more."""
_PARAMS_PER_CALL = 100
_POINTS_PER_CALL = 500
_SEND_EVERY_SECONDS = 2.0
_RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"


class MLflow:
    """One MLflow run a run, found again by its run_id where a run goes on."""

    class Config(ComponentConfig):
        """Where to write."""

        target: str = Field(
            "",
            description="tracking URI: http://host:5000, sqlite:///mlflow.db, file:mlruns; empty = "
            "$MLFLOW_TRACKING_URI, or MLflow's own default",
        )

    def __init__(self, config: Config) -> None:
        self.config = config
        if config.target and urlsplit(config.target).scheme in ("", "file"):
            # Later versions refuse folders unless they are told that one is meant.
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        try:
            self._client = MlflowClient(tracking_uri=config.target or None)
            with _few_retries():
                self._experiment = self._find_experiment()
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"mlflow at {config.target!r} needs the package {error.name}: the small client "
                "writes to servers and folders; for a database, pip install mlflow"
            ) from error
        self._runs: dict[str, str] = {}
        self._points: list[Metric] = []
        self._sent = time.monotonic()

    def run_started(self, run_id: str, spec: Mapping[str, Any]) -> None:
        """Begin a run, or go on with the one of this run_id."""
        known = self._client.search_runs(
            [self._experiment], f"tags.`{_TAG}` = '{run_id}'", max_results=1
        )
        if known:
            self._runs[run_id] = known[0].info.run_id
            self._client.update_run(self._runs[run_id], status="RUNNING")
            return
        tags = {
            _TAG: run_id,
            "model": spec["model"]["name"],
            "dataset": spec["dataset"]["name"],
            "dataset_version": spec["dataset"]["version"],
        }
        made = self._client.create_run(self._experiment, tags=tags, run_name=run_id)
        self._runs[run_id] = made.info.run_id
        params = [
            Param(_key(name)[:_LONGEST_KEY], str(value)[:_LONGEST_VALUE])
            for name, value in parameters(spec).items()
        ]
        for start in range(0, len(params), _PARAMS_PER_CALL):
            some = params[start : start + _PARAMS_PER_CALL]
            self._client.log_batch(made.info.run_id, params=some)

    def run_progressed(
        self, run_id: str, title: str, step: int, values: Mapping[str, float]
    ) -> None:
        """Keep a curve's point, called `title/name`; they are sent many at a time."""
        now = _now()
        self._points += [Metric(_key(f"{title}/{k}"), v, now, step) for k, v in values.items()]
        late = time.monotonic() - self._sent > _SEND_EVERY_SECONDS
        if late or len(self._points) >= _POINTS_PER_CALL:
            self._send(run_id)

    def run_finished(self, run_id: str, record: Mapping[str, Any]) -> None:
        """Send the record's metrics, and the record as an artifact."""
        now = _now()
        self._points += [Metric(_key(k), v, now, 0) for k, v in metrics(record).items()]
        self._send(run_id)
        self._client.log_dict(self._runs[run_id], dict(record), "record.json")
        self._client.set_terminated(self._runs.pop(run_id), "FINISHED")

    def run_failed(self, run_id: str, reason: str) -> None:
        """Send the reason as a tag."""
        self._send(run_id)
        self._client.set_tag(self._runs[run_id], "failed", reason[:_LONGEST_VALUE])
        self._client.set_terminated(self._runs.pop(run_id), "FAILED")

    def _find_experiment(self) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", _EXPERIMENT)
        known = self._client.get_experiment_by_name(name)
        return str(known.experiment_id if known else self._client.create_experiment(name))

    def _send(self, run_id: str) -> None:
        for start in range(0, len(self._points), _POINTS_PER_CALL):
            some = self._points[start : start + _POINTS_PER_CALL]
            self._client.log_batch(self._runs[run_id], metrics=some)
        self._points.clear()
        self._sent = time.monotonic()


@contextmanager
def _few_retries() -> Iterator[None]:
    """Say within seconds that there is no server; once runs are under way it is waited for."""
    if _RETRIES in os.environ:
        yield
        return
    os.environ[_RETRIES] = "1"
    try:
        yield
    finally:
        del os.environ[_RETRIES]


def _now() -> int:
    """Return milliseconds since 1970, as MLflow counts."""
    return int(time.time() * 1000)


def _key(name: str) -> str:
    """Return a name that MLflow takes: `ndcg@10` is `ndcg_at_10` there."""
    return re.sub(r"[^\w\-. :/]", "_", name.replace("@", "_at_"))
