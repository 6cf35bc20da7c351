"""TensorBoard: event files, written by TensorBoard's own writer and without torch."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.plugins.hparams import api_pb2, metadata
from tensorboard.plugins.hparams.plugin_data_pb2 import (
    HParamsPluginData,
    SessionEndInfo,
    SessionStartInfo,
)
from tensorboard.plugins.text.metadata import create_summary_metadata
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from mmrec_bench.config import ComponentConfig
from mmrec_plugins.trackers.flat import metrics, parameters

_DT_STRING = 7


class TensorBoard:
    """One folder a run, called by its run_id; a run that goes on writes to the same folder."""

    class Config(ComponentConfig):
        """Where to write."""

        target: Path = Field(Path("runs"), description="folder of all runs' folders")

    def __init__(self, config: Config) -> None:
        self.config = config
        self._writers: dict[str, EventFileWriter] = {}
        self._progressed: set[str] = set()

    def run_started(self, run_id: str, spec: Mapping[str, Any]) -> None:
        """Write the options, and the spec as text."""
        self._writers[run_id] = EventFileWriter(str(self.config.target / run_id))
        self._progressed.discard(run_id)
        self._write(run_id, 0, _options(run_id, parameters(spec)))
        self._write(run_id, 0, _text("spec", f"```\n{json.dumps(spec, indent=2)}\n```"))

    def run_progressed(
        self, run_id: str, title: str, step: int, values: Mapping[str, float]
    ) -> None:
        """Write a curve's point, called `title/name`."""
        if run_id not in self._progressed:
            self._forget_after(run_id, step)
        self._write(run_id, step, _scalars({f"{title}/{k}": v for k, v in values.items()}))

    def run_finished(self, run_id: str, record: Mapping[str, Any]) -> None:
        """Write the record's metrics, called `metrics/name`."""
        self._write(run_id, 0, _scalars({f"metrics/{k}": v for k, v in metrics(record).items()}))
        self._end(run_id, api_pb2.STATUS_SUCCESS)

    def run_failed(self, run_id: str, reason: str) -> None:
        """Write the reason."""
        self._write(run_id, 0, _text("failed", reason))
        self._end(run_id, api_pb2.STATUS_FAILURE)

    def _forget_after(self, run_id: str, step: int) -> None:
        """Take back later points of a process that was killed: they are done again."""
        self._progressed.add(run_id)
        if step > 0:
            start = SessionLog(status=SessionLog.START)
            event = Event(wall_time=time.time(), step=step, session_log=start)
            self._writers[run_id].add_event(event)

    def _write(self, run_id: str, step: int, summary: Summary) -> None:
        event = Event(wall_time=time.time(), step=step, summary=summary)
        self._writers[run_id].add_event(event)

    def _end(self, run_id: str, status: int) -> None:
        info = SessionEndInfo(status=status, end_time_secs=time.time())
        data = HParamsPluginData(session_end_info=info)
        self._write(run_id, 0, _session(metadata.SESSION_END_INFO_TAG, data))
        self._writers.pop(run_id).close()


def _scalars(values: Mapping[str, float]) -> Summary:
    return Summary(value=[Summary.Value(tag=k, simple_value=v) for k, v in values.items()])


def _options(run_id: str, values: Mapping[str, str | int | float | bool]) -> Summary:
    """Return what the page `HPARAMS` shows."""
    info = SessionStartInfo(group_name=run_id, start_time_secs=time.time())
    for name, value in values.items():
        if isinstance(value, bool):
            info.hparams[name].bool_value = value
        elif isinstance(value, str):
            info.hparams[name].string_value = value
        else:
            info.hparams[name].number_value = value
    data = HParamsPluginData(session_start_info=info)
    return _session(metadata.SESSION_START_INFO_TAG, data)


def _session(tag: str, data: HParamsPluginData) -> Summary:
    about = metadata.create_summary_metadata(data)
    return Summary(value=[Summary.Value(tag=tag, metadata=about, tensor=metadata.NULL_TENSOR)])


def _text(tag: str, text: str) -> Summary:
    tensor = TensorProto(dtype=_DT_STRING, string_val=[text.encode()])
    tensor.tensor_shape.dim.add(size=1)
    about = create_summary_metadata(display_name=tag, description="")
    return Summary(value=[Summary.Value(tag=tag, metadata=about, tensor=tensor)])
