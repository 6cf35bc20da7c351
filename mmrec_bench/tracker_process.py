"""The process of one tracker: builds it, and passes on what the run tells, a JSON line an event.

Started by `observers`; `python -m mmrec_bench.tracker_process` is of no use by hand.
"""

import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmrec_bench import guard
from mmrec_bench.errors import MMRecError, PluginError
from mmrec_bench.interfaces import Tracker
from mmrec_bench.observers import MARK
from mmrec_bench.plugins import Plugins, installed, load_file

_NICENESS = 5
_STEPS = ("run_started", "run_progressed", "run_finished", "run_failed")


class Audience:
    """A tracker, and the runs that it has heard begin and not end."""

    def __init__(self, name: str, target: str, plugins: Plugins) -> None:
        self.name = name
        registry = plugins["tracker"]
        options = {"target": target} if target else {}
        self.tracker = registry.create(name, registry.configure(name, options, "tracker"))
        if not isinstance(self.tracker, Tracker):
            missing = [step for step in _STEPS if not hasattr(self.tracker, step)]
            raise PluginError(
                f"tracker {name!r} of {guard.owner_of(self.tracker)} has no {', '.join(missing)}"
            )
        self._open: set[str] = set()

    def hear(self, event: Mapping[str, Any]) -> None:
        """Pass one event on.

        Raises:
            PluginError: the tracker raised; names it, its distribution and the step.
        """
        values = dict(event)
        step, run_id = values.pop("event"), values["run_id"]
        if step == "run_started":
            self._open.add(run_id)
        elif step != "run_progressed":
            self._open.discard(run_id)
        with guard.calling("tracker", self.name, self.tracker, step):
            getattr(self.tracker, step)(**values)

    def close(self) -> None:
        """Say of each run that has not ended that its process is gone."""
        for run_id in sorted(self._open):
            self.hear({"event": "run_failed", "run_id": run_id, "reason": "its process was killed"})


def main() -> None:
    """Serve one tracker until nothing more comes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the run's; its end is told
    os.nice(_NICENESS)
    with (
        os.fdopen(os.dup(0), encoding="utf-8") as events,
        os.fdopen(os.dup(1), "w", encoding="utf-8") as answers,
    ):
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)

        def answer(**values: object) -> None:
            answers.write(f"\n{MARK}{json.dumps(values)}\n")
            answers.flush()

        try:
            request = json.loads(events.readline())
            plugins = installed()
            for path in request["files"]:
                load_file(plugins, Path(path))
            audience = Audience(request["name"], request["target"], plugins)
            answer(ready=True)
            for line in events:
                event = json.loads(line)
                if event["event"] == "end":
                    break
                audience.hear(event)
            audience.close()
        except MMRecError as error:
            answer(reason=" ".join(str(error).split()), exit_code=error.exit_code)
            sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
