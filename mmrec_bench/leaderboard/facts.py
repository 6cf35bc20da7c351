"""What stands beside the metrics of a row: what ran, on what, and what it took."""

import json
from collections.abc import Sequence

from mmrec_bench.records import RunRecord

_MEANT = ("fit_seconds", "score_seconds", "cases_per_second", "prompt_tokens", "answer_tokens")
_ADDED = ("cost_usd", "retries")


def facts_of(records: list[RunRecord]) -> dict[str, object]:
    """Return what stands beside the metrics: what ran, on what, and what it took."""
    first = records[0]
    spec = first.spec
    full = spec.protocol["candidates"] == "full"
    facts: dict[str, object] = {
        **first.facts,  # a model tells them: they stand in for nothing below
        "dataset": spec.dataset.name,
        "dataset_version": spec.dataset.version[:12],
        "protocol_id": spec.protocol_id,
        "split": spec.protocol["split"],
        "candidates": spec.protocol["candidates"],
        "n_candidates": first.counts["n_items"] if full else spec.protocol["n_candidates"],
        "n_cases": first.counts["n_cases"],
        "model": spec.model.name,
        "images": spec.images,
        "permutations": spec.permutations,
        "transfer": json.dumps(spec.transfer, sort_keys=True) if spec.transfer else None,
        "n_seeds": len(records),
        "seeds": " ".join(str(record.spec.seed) for record in records),
        "options": json.dumps(spec.model.options, sort_keys=True),
        "protocol": json.dumps(spec.protocol, sort_keys=True),
        "run_id": " ".join(record.run_id for record in records),
    }
    for section in ("instructions", "encoder", "vectors", "text_vectors", "audio_vectors"):
        part = getattr(spec, section)
        facts[section] = part.name if part else None
    for package, column in (("mmrec-bench", "mmrec_bench"), ("torch", "torch")):
        facts[column] = first.environment.get(package)
    facts["device"] = first.environment.get("device")
    for name in _MEANT:
        facts[name] = _over([record.resources.get(name) for record in records], "mean")
    for name in _ADDED:
        facts[name] = _over([record.resources.get(name) for record in records], "sum")
    memory = [record.resources.get("peak_memory_bytes") for record in records]
    facts["peak_memory_bytes"] = _over(memory, "max")
    return facts


def _over(values: Sequence[float | int | None], how: str) -> float | int | None:
    """Fold a resource over seeds; None where one of them is not known."""
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return None
    if len(known) == 1:
        return known[0]
    if how == "mean":
        return sum(known) / len(known)
    return sum(known) if how == "sum" else max(known)
