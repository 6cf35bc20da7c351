"""A run's spec and record as flat values, which is all that trackers show."""

from collections.abc import Iterator, Mapping
from typing import Any


def parameters(spec: Mapping[str, Any]) -> dict[str, str | int | float | bool]:
    """Return dotted names and values of what decides a run; what is not set is left out."""
    return dict(_flat(spec, ""))


def _flat(values: Mapping[str, Any], before: str) -> Iterator[tuple[str, str | int | float | bool]]:
    for key, value in values.items():
        name = f"{before}{key}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}.")
        elif isinstance(value, str | int | float):
            yield name, value
        elif value is not None:
            yield name, str(value)


def metrics(record: Mapping[str, Any]) -> dict[str, float]:
    """Return metrics with the ends of their intervals, and what the run took; no undefined ones."""
    found: dict[str, float] = {}
    for name, one in record.get("metrics", {}).items():
        ends = {"": one.get("value"), "_low": one.get("low"), "_high": one.get("high")}
        found |= {f"{name}{end}": value for end, value in ends.items() if value is not None}
    resources = record.get("resources", {})
    return found | {name: float(value) for name, value in resources.items() if value is not None}
