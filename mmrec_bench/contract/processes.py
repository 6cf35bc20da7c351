"""Asks a component for the same in other processes, where sets and hashes have another order.

A run that goes on after a crash, a cache and a record all belong to what another process said.
"""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmrec_bench import guard
from mmrec_bench.contract import prepared
from mmrec_bench.contract.findings import Check, DoesNotApplyError, demand, demand_equal, size_of
from mmrec_bench.contract.prepared import Asked, Prepared
from mmrec_bench.errors import DataMissingError, MMRecError
from mmrec_bench.interfaces import Describer, Encoder
from mmrec_bench.plugins import installed, load_file

HASH_SEEDS = (1, 2)
"""Of the processes: what follows the order of a set differs between them, and always alike."""

_ANSWERS = "answers.npz"
_WHY_NOT = "why-not.json"
_LONGEST = 1 << 20
"""Characters of a text; of a longer one, e.g. of a large catalog, its hash is compared."""

_SHOWN = 60
"""Characters of a text that differs."""

_ORDER = "order.json"
_START = f"""
import json, pathlib, sys
order = json.loads((pathlib.Path(sys.argv[1]) / "{_ORDER}").read_text())
sys.path[:] = order["path"]
from mmrec_bench.contract.processes import answer
answer(order)
"""


def check_processes(component: Prepared) -> None:
    """Two processes with other hash seeds say the same."""
    first, again = _ask(component)
    mend = "keep the order of lists and dicts, or sort: a set and hash() differ between processes"
    for name, wanted in first.items():
        found = again[name]
        expected = f"the same {name} in every process"
        if wanted.dtype.kind == "U":
            demand(str(found) == str(wanted), _difference(str(wanted), str(found)), expected, mend)
        else:
            near = {"rtol": 1e-4, "atol": 1e-4 * min(1.0, size_of(wanted))}
            demand_equal(found, wanted, expected, mend, **near)


def _difference(first: str, again: str) -> str:
    """Show two texts from shortly before the first place where they differ."""
    same = takewhile(lambda pair: pair[0] == pair[1], zip(first, again, strict=False))
    start = max(0, len(list(same)) - 10)
    shown = [repr(text[start : start + _SHOWN]) for text in (first, again)]
    return " in one process, ".join(shown) + " in another"


def _ask(component: Prepared) -> list[dict[str, NDArray[Any]]]:
    """Return what each process said.

    Raises:
        BrokenContractError: one failed.
        DoesNotApplyError: the component cannot be asked on this machine.
    """
    folders = [component.asked.folder / f"process-{seed}" for seed in HASH_SEEDS]
    running: list[subprocess.Popen[bytes]] = []
    watched, held = os.pipe()
    try:
        for folder, seed in zip(folders, HASH_SEEDS, strict=True):
            running.append(_start(component, folder, seed, watched))
        codes = [process.wait() for process in running]
    finally:
        os.close(watched)
        os.close(held)  # however we end, theirs ends too
    return [_read(folder, code) for folder, code in zip(folders, codes, strict=True)]


def _start(component: Prepared, folder: Path, seed: int, watched: int) -> "subprocess.Popen[bytes]":
    """Ask in a new Python that finds the same modules and one-file plugins.

    It ends when the other end of the pipe `watched` is closed.
    """
    folder.mkdir(parents=True)
    asked = component.asked
    order = {
        "path": sys.path,
        "plugins": [one.distribution for one in component.plugins.files.values()],
        "kind": asked.kind,
        "name": asked.name,
        "options": dict(asked.options),
        "data_root": str(asked.data_root.absolute()),
        "folder": str(folder.absolute()),
        "device": asked.device,
        "watched": watched,
    }
    # In a file and not among the arguments, which every user of the machine may read.
    (folder / _ORDER).write_text(json.dumps(order, default=str), encoding="ascii")
    with (folder / "stderr.txt").open("wb") as said:
        return subprocess.Popen(  # noqa: S603 - this Python, and a component that is installed
            [sys.executable, "-P", "-c", _START, str(folder)],
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=said,
            pass_fds=(watched,),
        )


def _read(folder: Path, code: int) -> dict[str, NDArray[Any]]:
    if (why_not := folder / _WHY_NOT).exists():
        told = json.loads(why_not.read_text(encoding="utf-8"))
        if told["skipped"]:
            raise DoesNotApplyError(told["reason"])
        mend = "mend the line that is named; --debug prints the traceback"
        demand(False, told["reason"], "no exception", mend)
    said = (folder / "stderr.txt").read_text(encoding="utf-8", errors="replace").strip()
    demand(
        code == 0,
        f"a process that ended with {code}: {(said.splitlines() or ['without a word'])[-1]}",
        "that it works in a process of its own",
        "see that nothing of it needs what another process holds",
    )
    with np.load(folder / _ANSWERS, allow_pickle=False) as archive:
        return dict(archive)


def answer(order: dict[str, Any]) -> None:
    """Be one of the processes: load the component, ask it, write what it says."""
    threading.Thread(target=_end_with, args=(order["watched"],), daemon=True).start()
    folder = Path(order["folder"])
    plugins = installed()
    for path in order["plugins"]:
        load_file(plugins, Path(path))
    kind, root, device = order["kind"], Path(order["data_root"]), order["device"]
    asked = Asked(kind, order["name"], order["options"], root, folder, device)
    try:
        one = prepared.prepare(asked, plugins)
        with guard.blaming("it raised", owner=one.cls):
            found = {"config": _text(one.config.model_dump_json()), **_said(one)}
        np.savez(folder / _ANSWERS, **found)  # type: ignore[arg-type]
    except MMRecError as error:
        told = json.dumps({"reason": str(error), "skipped": isinstance(error, DataMissingError)})
        (folder / _WHY_NOT).write_text(told, encoding="utf-8")


def _end_with(watched: int) -> None:
    os.read(watched, 1)  # nothing comes: it returns when the process that asks has ended
    os._exit(1)


def _said(one: Prepared) -> dict[str, NDArray[Any]]:
    """Return what a component says, by name; DataMissingError where its files are not here."""
    try:
        return _KINDS[one.asked.kind](one)
    except DoesNotApplyError as reason:
        raise DataMissingError(str(reason)) from None


def _text(value: object) -> NDArray[Any]:
    text = value if isinstance(value, str) else repr(value)
    if len(text) > _LONGEST:
        text = hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()
    return np.array(text)


def _of_model(one: Prepared) -> dict[str, NDArray[Any]]:
    subject = prepared.model_subject(one)
    return {"scores": np.asarray(subject.fitted.score(subject.queries).values, np.float64)}


def _of_instructions(one: Prepared) -> dict[str, NDArray[Any]]:
    subject = prepared.instruction_subject(one)
    queries = [subject.split.test.queries[i] for i in range(4)]
    return {"instructions": _text([subject.build(query) for query in queries])}


def _of_dataset(one: Prepared) -> dict[str, NDArray[Any]]:
    data = prepared.dataset_subject(one).data
    catalog, rows = data.catalog, data.interactions
    return {
        "version": _text(data.version),
        "order of users": _text(list(data.users.ids)),
        "order of items": _text(list(catalog.items.ids)),
        "interactions": np.stack([rows.user, rows.item, rows.timestamp]),
        "ratings": rows.rating,
        "titles": _text(list(catalog.title)),
        "texts": _text(list(catalog.text)),
        "attributes": _text([dict(some) for some in catalog.attributes]),
    }


def _of_encoder(one: Prepared) -> dict[str, NDArray[Any]]:
    subject = prepared.encoder_subject(one)
    encoder = subject.make()
    found = {}
    if isinstance(encoder, Encoder | Describer):
        found["fingerprint"] = _text(encoder.fingerprint())
    if isinstance(encoder, Encoder):
        found["vectors"] = np.asarray(encoder.encode(subject.items), np.float64)
    if isinstance(encoder, Describer):
        found["words"] = _text(encoder.describe(subject.items))
    return found


def _of_metric(one: Prepared) -> dict[str, NDArray[Any]]:
    subject = prepared.metric_subject(one)
    measured = subject.make().measure(subject.tied())
    cases = np.zeros(0) if measured.per_case is None else measured.per_case
    return {"value": np.append(cases, measured.value)}


_KINDS: dict[str, Callable[[Prepared], dict[str, NDArray[Any]]]] = {
    "model": _of_model,
    "instructions": _of_instructions,
    "dataset": _of_dataset,
    "encoder": _of_encoder,
    "metric": _of_metric,
}
"""What a component of each kind says that must not depend on the process."""

PROCESSES: Check[Prepared] = Check(
    "processes", "other processes say the same, whatever the order of their sets", check_processes
)
