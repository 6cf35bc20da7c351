"""What a run leaves behind: its spec, hashed into run_id, and its record."""

import hashlib
import json
import math
import os
import platform
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from mmrec_bench.cases import CaseTable, cases_path, read_cases
from mmrec_bench.errors import StorageError
from mmrec_bench.files import atomic_write
from mmrec_bench.registry import NAME_RULE, is_name
from mmrec_bench.types import Measurement

SCHEMA_VERSION = 1
_PROTOCOL = ("split", "candidates", "n_candidates")
_COUNTS = ("n_cases", "n_items")
"""What every record has: tables show it."""
_PACKAGES = ("mmrec-bench", "numpy", "pillow", "torch", "transformers", "peft", "sentencepiece")


_JOINED_LATER = (
    "vectors",
    "text_vectors",
    "audio_vectors",
    "images",
    "permutations",
    "transfer",
)


class _Value(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ComponentSpec(_Value):
    """A component as it really ran: every option spelled out."""

    name: str
    options: dict[str, Any] = {}
    fingerprint: str = ""


class DatasetSpec(_Value):
    """A data set by name and content hash."""

    name: str
    version: str


class RunSpec(_Value):
    """Everything that decides a run's predictions; hashed into run_id.

    Metrics are not in it: they are computed from the predictions and can be computed again.
    Device and paths are not in it either: they stand in the record's environment.
    """

    schema_version: int = SCHEMA_VERSION
    dataset: DatasetSpec
    protocol: dict[str, Any]
    candidates_hash: str
    model: ComponentSpec
    instructions: ComponentSpec | None
    encoder: ComponentSpec | None
    seed: int
    limit_cases: int | None
    vectors: ComponentSpec | None = None
    text_vectors: ComponentSpec | None = None
    audio_vectors: ComponentSpec | None = None
    images: str = "real"
    permutations: int = 1
    transfer: dict[str, Any] | None = None

    @property
    def hash(self) -> str:
        """Return the hex SHA-256 of the canonical JSON.

        Fields that joined later are left out while they say what was always so, so that a run has
        the same id as before.
        """
        values = self.model_dump(mode="json")
        for name in _JOINED_LATER:
            if values[name] == type(self).model_fields[name].default:
                del values[name]
        return fingerprint(values)

    @property
    def run_id(self) -> str:
        """Return e.g. `chatglm2-ptv2-s0-1f0c2a9b44`."""
        return f"{self.model.name}-s{self.seed}-{self.hash[:10]}"

    def transfer_words(self) -> list[str]:
        """Say what was not tuned on, and how much of a test user is shown; [] without transfer."""
        spec = self.transfer
        if spec is None:
            return []
        words = [f"tuned on {spec['source']['name']}"] if "source" in spec else []
        if spec["hold_out"] != "none":
            what = "users and items" if spec["hold_out"] == "both" else spec["hold_out"]
            words.append(f"{what} held out ({spec['share']:.0%})")
        if spec["shots"] is not None:
            words.append(f"{spec['shots']} shots")
        return words

    @property
    def protocol_id(self) -> str:
        """Return a short hash of all that must be equal for two rows to be ranked together."""
        shared: list[object] = [self.dataset.model_dump(), self.protocol]
        shared += [self.candidates_hash, self.limit_cases]
        if self.transfer is not None:
            shared.append(self.transfer)
        return fingerprint(shared)[:8]


class Interval(_Value):
    """A metric with its bootstrap interval over cases; None = undefined."""

    value: float | None
    n: int
    low: float | None
    high: float | None
    higher_is_better: bool = True


class RunRecord(_Value):
    """One run's outcome. The leaderboard is a pure function of these.

    `cases` is the hash of the per-case values beside the record, "" where none were kept.
    `positions` holds how often a target came first by where it was shown (models that are shown a
    list of candidates): see `permutations.by_position`.
    """

    schema_version: int = SCHEMA_VERSION
    run_id: str
    created: str
    spec: RunSpec
    counts: dict[str, int]
    card: dict[str, Any]
    facts: dict[str, str | int | float]
    metrics: dict[str, Interval]
    resources: dict[str, float | int | None]
    environment: dict[str, str]
    digest: str
    cases: str = ""
    positions: dict[str, list[float | None]] = {}

    @property
    def title(self) -> str:
        """Return the model's name with the backbone that really ran, where it has one."""
        backbone = self.facts.get("backbone")
        return f"{self.spec.model.name} [{backbone}]" if backbone else self.spec.model.name

    def expected_digest(self) -> str:
        """Hash what a rerun must reproduce: spec, counts, metrics (times are left out)."""
        return digest(self.spec, self.counts, self.metrics)


def fingerprint(value: object) -> str:
    """Return the hex SHA-256 of a value's canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def digest(spec: RunSpec, counts: Mapping[str, int], metrics: Mapping[str, Interval]) -> str:
    """Return the hash of a record's reproducible part."""
    values = {name: interval.model_dump() for name, interval in metrics.items()}
    return fingerprint([spec.hash, dict(counts), values])


def finite(value: float) -> float | None:
    """Return the value, or None where it is undefined: JSON has no NaN."""
    return value if math.isfinite(value) else None


def environment() -> dict[str, str]:
    """Describe the machine and the versions; never a variable's value."""
    facts = {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "processors": str(os.cpu_count()),
    }
    for package in _PACKAGES:
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            continue
    torch = sys.modules.get("torch")
    if torch is not None:
        facts["threads"] = str(torch.get_num_threads())
    return facts


def now() -> str:
    """Return the present UTC time, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def write_record(results: Path, record: RunRecord) -> Path:
    """Write a record atomically to records/<dataset>/<model>/<run_id>.json; return the path."""
    path = record_path(results, record.spec)
    atomic_write(path, (record.model_dump_json(indent=2) + "\n").encode())
    return path


def record_path(results: Path, spec: RunSpec) -> Path:
    """Return where the record of a spec lies."""
    return results / "records" / spec.dataset.name / spec.model.name / f"{spec.run_id}.json"


def read_record(path: Path) -> RunRecord:
    """Read and check a record.

    Raises:
        StorageError: not a record, another schema, changed since it was written, or telling what no
            run writes.
    """
    try:
        text = path.read_text(encoding="utf-8")
        raw = json.loads(text, parse_constant=_refuse_constant, parse_float=_finite_float)
    except (OSError, ValueError, RecursionError) as error:
        raise StorageError(f"{path} cannot be read as a record: {error}") from None
    found = raw.get("schema_version") if isinstance(raw, dict) else None
    if found != SCHEMA_VERSION:
        raise StorageError(
            f"{path} has schema_version {found!r}, this version reads {SCHEMA_VERSION}; "
            "run it again or use the version that wrote it"
        )
    try:
        record = RunRecord.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise StorageError(f"{path} is not a record: {where}: {first['msg']}") from None
    try:
        whole = record.run_id == record.spec.run_id and record.digest == record.expected_digest()
    except (ValueError, RecursionError) as error:  # options that no JSON can hold
        raise StorageError(f"{path} is not a record: its hash is not defined: {error}") from None
    if not whole:
        raise StorageError(f"{path} was changed after it was written: its hash does not match")
    if fault := next(_faults(record), ""):
        raise StorageError(f"{path} tells what no run writes: {fault}")
    return record


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _finite_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is too large for a number")
    return value


def _faults(record: RunRecord) -> Iterator[str]:
    """Yield what in a record no run writes, whatever its hash.

    Anybody can compute a hash anew, and records of others are read. Names are folders and files.
    """
    spec = record.spec
    for what, name in (("dataset", spec.dataset.name), ("model", spec.model.name)):
        if not is_name(name):
            yield f"the {what} is called {name!r}, expected {NAME_RULE}"
    lacking = [f"spec.protocol.{n}" for n in _PROTOCOL if n not in spec.protocol]
    lacking += [f"counts.{n}" for n in _COUNTS if n not in record.counts]
    if lacking:
        yield f"it has no {', '.join(lacking)}"
    try:
        spec.transfer_words()
    except (KeyError, TypeError, ValueError):
        yield f"spec.transfer is {spec.transfer!r}"
    for what, found in (("counts", record.counts), ("resources", record.resources)):
        for name, value in found.items():
            if value is not None and value < 0:
                yield f"{what}.{name} is {value}, below 0"
    for name, one in record.metrics.items():
        if one.n < 0 or (one.low is not None and one.high is not None and one.low > one.high):
            yield f"{name} has the interval [{one.low}, {one.high}] over {one.n} cases"
    shown = {name: len(values) for name, values in record.positions.items()}
    if shown and ("n" not in shown or len(set(shown.values())) > 1):
        yield f"positions holds {shown}, expected n and as many values each"


def record_files(results: Path) -> Iterator[Path]:
    """Yield the record files below a results folder (or a folder of records), sorted."""
    folder = results / "records"
    yield from sorted((folder if folder.is_dir() else results).rglob("*.json"))


def _agree(a: RunRecord, b: RunRecord) -> bool:
    """Say whether two records of one run tell the same, but for the last digits of a float."""
    if a.digest == b.digest:
        return True
    if a.counts != b.counts or set(a.metrics) != set(b.metrics):
        return False
    pairs = [
        (getattr(a.metrics[name], part), getattr(b.metrics[name], part))
        for name in a.metrics
        for part in ("value", "low", "high")
    ]
    return all(_close(one, other) for one, other in pairs)


def _close(one: float | None, other: float | None) -> bool:
    """Say whether two values are the same but for their last digits."""
    if one is None or other is None:
        return one is other
    return math.isclose(one, other, abs_tol=1e-9)


class Stored(NamedTuple):
    """A record and the file that it was read from."""

    path: Path
    record: RunRecord

    @property
    def has_cases(self) -> bool:
        """Whether per-case values lie beside the record."""
        return bool(self.record.cases) and cases_path(self.path).exists()

    def cases(self) -> CaseTable:
        """Read the per-case values, and check that the record's metrics are their means.

        Raises:
            StorageError: they are not here, torn, or not those that the record was made with.
        """
        table = read_cases(self.path, self.record.cases)
        for name, values in table.values.items():
            told = self.record.metrics.get(name)
            found = finite(Measurement.mean(values).value)
            if told is not None and not _close(told.value, found):
                raise StorageError(
                    f"{self.path} says that {name} is {told.value}, but the mean of its per-case "
                    f"values is {found}: one of the two was changed"
                )
        return table


def read_records(*folders: Path) -> list[Stored]:
    """Read all records below results folders; one that lies in several is taken once.

    Raises:
        StorageError: the first record that cannot be believed, or none at all.
    """
    found: dict[str, Stored] = {}
    for folder in folders:
        for path in record_files(folder):
            stored = Stored(path, read_record(path))
            known = found.setdefault(stored.record.run_id, stored)
            if not _agree(known.record, stored.record):
                raise StorageError(
                    f"{known.path} and {path} are records of one run with other numbers: one was "
                    "made by another version, or on a machine that computes otherwise; keep one"
                )
    if not found:
        places = ", ".join(map(str, folders))
        raise StorageError(f"no records below {places}; `mmrec-bench run` writes them")
    return list(found.values())
